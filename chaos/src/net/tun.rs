//! A network interface whose other end is a file: one system call, and unsafe for that.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

/// The interface of a name, in the network namespace of this thread. Each read of the file is one
/// packet of the interface, each write one packet for it; neither blocks.
pub(crate) fn create(name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    attach(&file, name)?;
    Ok(file)
}

#[expect(unsafe_code, reason = "there is no safe call for it")]
fn attach(file: &File, name: &str) -> io::Result<()> {
    const REQUEST: libc::c_ulong =
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()) as libc::c_ulong;
    // SAFETY: all zeroes is a value of this type, which holds only numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let letters = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..letters].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, which outlives it.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), REQUEST, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
