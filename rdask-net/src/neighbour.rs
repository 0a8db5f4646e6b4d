//! The memory of a peer of this host, read where it lies.
//!
//! One copy, made by the kernel, from process to process: a socket takes two. The kernel lets only
//! those read who may debug the other process: its own user, where the system doesn't forbid it
//! (Yama, a filter of system calls). So a refusal is nothing unusual.
//!
//! What is read is what lies there at that time. Only the other side knows whether that is what it
//! had offered all along, or even whether it is still the same process: its word afterwards, on the
//! stream between the two, makes bytes a value.

use std::io::{self, IoSliceMut};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// One call of the kernel: 0.3 ms. Many kernels let nobody else have the core before it has ended.
const PIECE_BYTES: usize = 1 << 20;

/// The process at the other end of a local stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour(Pid);

impl Neighbour {
    /// None if the process has no number here, as in another container.
    pub(crate) fn new(pid: Option<i32>) -> Option<Self> {
        pid.filter(|pid| *pid > 0).map(|pid| Self(Pid::from_raw(pid)))
    }

    /// Fills `into` with what lies in the process at this address. Blocks, for as long as copying
    /// takes.
    ///
    /// # Errors
    /// If the process is gone, if the kernel doesn't let us, or if there is not so much memory
    /// there. `into` may hold anything then.
    pub fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        let beyond = || io::Error::from(io::ErrorKind::InvalidInput);
        let mut base = usize::try_from(address).map_err(|_| beyond())?;
        base.checked_add(into.len()).ok_or_else(beyond)?;
        for mut piece in into.chunks_mut(PIECE_BYTES) {
            while !piece.is_empty() {
                let remote = [RemoteIoVec { base, len: piece.len() }];
                let read = process_vm_readv(self.0, &mut [IoSliceMut::new(piece)], &remote)?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                base += read;
                piece = &mut piece[read..];
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn ourselves() -> Neighbour {
        Neighbour::new(i32::try_from(std::process::id()).ok()).unwrap()
    }

    #[test]
    fn memory_is_read_as_it_lies() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| (at % 251) as u8).collect();
        let mut read = vec![0; bytes.len()];
        ourselves().read(bytes.as_ptr() as u64, &mut read).unwrap();
        assert!(read == bytes);
        ourselves().read(0, &mut []).unwrap();
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let mut room = [0; 64];
        for address in [0, 1, u64::MAX - 63, u64::MAX, 1 << 62] {
            ourselves().read(address, &mut room).unwrap_err();
        }
    }

    #[test]
    fn who_is_gone_is_an_error() {
        let bytes = [7; 64];
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let neighbour = Neighbour::new(i32::try_from(child.id()).ok()).unwrap();
        child.wait().unwrap();
        neighbour.read(bytes.as_ptr() as u64, &mut [0; 64]).unwrap_err();
        assert_eq!(Neighbour::new(Some(0)), None);
        assert_eq!(Neighbour::new(None), None);
    }
}
