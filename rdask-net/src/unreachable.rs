//! Dead ports on living nodes: what ICMP says, heard early and believed late.
//!
//! QUIC sends nothing when a process is killed. The next packet to its port is answered by the
//! node with "port unreachable", far sooner than any idle time ends. Such an answer is a hint: it
//! can be forged, and can be stale. The first one sends a probe; the second, with nothing heard
//! from the peer in between, is the verdict. A wrong verdict costs one link, which is dialled anew.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use tokio::sync::watch;

use crate::socket::canonical;

/// Errors taken from the kernel's queue in one go; more wait for the next.
const ERRORS_PER_READ: usize = 64;

/// The addresses that links and connections care about, and what was hinted of each. Hints on
/// others are ignored, so forged ones can't make it grow.
#[derive(Debug, Default)]
pub(crate) struct Unreachable {
    watched: Mutex<BTreeMap<SocketAddr, Watched>>,
    /// How many addresses have a hint, so that the usual packet costs no lock.
    suspects: AtomicUsize,
}

#[derive(Debug)]
struct Watched {
    is_suspect: bool,
    verdict: watch::Sender<bool>,
}

/// Waits for the verdict on one address.
#[derive(Debug)]
pub(crate) struct Watch {
    registry: Arc<Unreachable>,
    address: SocketAddr,
    verdict: watch::Receiver<bool>,
}

impl Unreachable {
    /// Watches an address until the watch is dropped.
    pub(crate) fn watch(self: &Arc<Self>, address: SocketAddr) -> Watch {
        let address = canonical(address);
        let mut watched = self.lock();
        let entry = watched
            .entry(address)
            .or_insert_with(|| Watched { is_suspect: false, verdict: watch::Sender::new(false) });
        let verdict = entry.verdict.subscribe();
        Watch { registry: self.clone(), address, verdict }
    }

    /// Notes a hint; true if the address should be probed.
    pub(crate) fn hint(&self, address: SocketAddr) -> bool {
        let address = canonical(address);
        let mut watched = self.lock();
        let Some(entry) = watched.get_mut(&address) else {
            return false;
        };
        if !entry.is_suspect {
            entry.is_suspect = true;
            self.suspects.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        if let Some(entry) = watched.remove(&address) {
            self.suspects.fetch_sub(1, Ordering::Relaxed);
            tracing::debug!(%address, "the port is dead; its links are lost");
            entry.verdict.send_replace(true);
        }
        false
    }

    /// Notes that something came from an address.
    pub(crate) fn heard(&self, address: SocketAddr) {
        if self.suspects.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(entry) = self.lock().get_mut(&canonical(address)).filter(|one| one.is_suspect) {
            entry.is_suspect = false;
            self.suspects.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Returns when the address is found dead, else never.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a verdict stays.
    pub(crate) async fn gone(&mut self) {
        if self.verdict.wait_for(|gone| *gone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.registry.lock();
        let Some(entry) = watched.get(&self.address) else {
            return;
        };
        let is_ours = self.verdict.same_channel(&entry.verdict.subscribe());
        // Our own is still counted.
        if is_ours && entry.verdict.receiver_count() <= 1 {
            if entry.is_suspect {
                self.registry.suspects.fetch_sub(1, Ordering::Relaxed);
            }
            watched.remove(&self.address);
        }
    }
}

/// Asks the kernel to queue what ICMP says about a socket's packets.
pub(crate) fn ask_for_errors(socket: &impl AsFd, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    }
    // On a socket for both families too: IPv4 peers have errors of their own.
    setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
    Ok(())
}

/// Takes the queued errors of a socket; returns the addresses whose port nobody has open.
pub(crate) fn dead_ports(socket: &impl AsRawFd) -> Vec<SocketAddr> {
    let mut dead = Vec::new();
    for _ in 0..ERRORS_PER_READ {
        let mut packet = [0; 64];
        let mut slices = [IoSliceMut::new(&mut packet)];
        let mut control = cmsg_space!([u8; 256]);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let message = match recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(_) => break,
        };
        let to = message.address.as_ref().and_then(socket_address);
        let is_dead = message.cmsgs().is_ok_and(|mut all| all.any(|one| says_dead_port(&one)));
        dead.extend(to.filter(|_| is_dead));
    }
    dead
}

fn says_dead_port(message: &ControlMessageOwned) -> bool {
    let (ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _)) =
        message
    else {
        return false;
    };
    let from_icmp = [libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_ICMP6].contains(&error.ee_origin);
    from_icmp && error.ee_errno == libc::ECONNREFUSED.cast_unsigned()
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    storage.family()?;
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        "10.0.0.1:7".parse().unwrap()
    }

    fn is_gone(watch: &Watch) -> bool {
        *watch.verdict.borrow()
    }

    #[test]
    fn the_second_hint_in_silence_is_the_verdict() {
        let registry = Arc::new(Unreachable::default());
        let watch = registry.watch(address());
        assert!(registry.hint(address()), "the first hint asks for a probe");
        assert!(!is_gone(&watch));
        assert!(!registry.hint(address()));
        assert!(is_gone(&watch));
        // Whoever dials the address anew starts afresh.
        let again = registry.watch(address());
        drop(watch);
        assert!(!is_gone(&again));
        assert!(registry.hint(address()));
    }

    #[test]
    fn a_peer_that_is_heard_in_between_lives() {
        let registry = Arc::new(Unreachable::default());
        let watch = registry.watch(address());
        for _ in 0..5 {
            assert!(registry.hint(address()));
            registry.heard(address());
        }
        assert!(!is_gone(&watch));
    }

    #[test]
    fn hints_on_strangers_are_ignored_and_nothing_stays() {
        let registry = Arc::new(Unreachable::default());
        assert!(!registry.hint(address()));
        let (one, two) = (registry.watch(address()), registry.watch(address()));
        registry.hint(address());
        drop((one, two));
        assert!(registry.lock().is_empty());
        assert_eq!(registry.suspects.load(Ordering::Relaxed), 0);
    }
}
