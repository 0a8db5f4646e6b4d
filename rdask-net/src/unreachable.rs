//! Dead ports on living nodes: whoever accepted a link asks, and ICMP says.
//!
//! QUIC sends nothing when a process is killed, and its acceptor has nothing to say to an idle
//! peer. So the peers of accepted links get a probe now and then: a datagram that is no packet of
//! any protocol of ours, and that the living ignore. To a dead port the node answers "port
//! unreachable", far sooner than any idle time ends, and quotes the probe. Nobody who doesn't see
//! our packets can guess what is in a probe, and it is new in each round: an answer that quotes
//! one of the last two rounds is neither forged nor stale. It is the verdict, alone, because nodes
//! are sparing with answers: Linux gives six to one asker, then one per second.
//!
//! Any other such answer is a hint, and sends probes. A wrong verdict costs one link.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// How often the peers of accepted links are probed: two probes may be lost within a second.
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(400);

/// A datagram that asks whether a port is dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) to: SocketAddr,
    /// The address that the peer knows us by, if we have several: firewalls let that pass.
    pub(crate) from: Option<IpAddr>,
    /// A zero, by which no packet of ours begins, and what nobody can guess.
    pub(crate) bytes: [u8; 9],
}

/// The addresses that links and connections care about. Hints on others are ignored, so forged ones
/// can't make it grow.
#[derive(Debug, Default)]
pub(crate) struct Unreachable {
    watches: Mutex<Watches>,
    secret: RandomState,
}

#[derive(Debug, Default)]
struct Watches {
    by_address: BTreeMap<SocketAddr, Watched>,
    /// How many times all were probed.
    round: u64,
    /// How many addresses were ever watched.
    begun: u64,
}

#[derive(Debug)]
struct Watched {
    /// Its place in the order of time.
    number: u64,
    /// Whether it is probed unasked.
    is_probed: bool,
    from: Option<IpAddr>,
    /// The last round in which a hint sent a probe.
    hinted: Option<u64>,
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
        self.begin(address, |_| {})
    }

    /// The same for one to which we may have nothing to say for long: it is probed.
    pub(crate) fn watch_and_probe(
        self: &Arc<Self>,
        address: SocketAddr,
        from: Option<IpAddr>,
    ) -> Watch {
        self.begin(address, |entry| (entry.is_probed, entry.from) = (true, from))
    }

    fn begin(self: &Arc<Self>, address: SocketAddr, set_up: impl FnOnce(&mut Watched)) -> Watch {
        let address = canonical(address);
        let mut watches = self.lock();
        watches.begun += 1;
        let number = watches.begun;
        let entry = watches.by_address.entry(address).or_insert_with(|| Watched {
            number,
            is_probed: false,
            from: None,
            hinted: None,
            verdict: watch::Sender::new(false),
        });
        set_up(entry);
        let verdict = entry.verdict.subscribe();
        Watch { registry: self.clone(), address, verdict }
    }

    /// What to send in the next round.
    pub(crate) fn next_round(&self) -> Vec<Probe> {
        let mut watches = self.lock();
        watches.round += 1;
        let round = watches.round;
        let probed = watches.by_address.iter().filter(|(_, one)| one.is_probed);
        let probes = probed.map(|(to, one)| (one.number, self.probe(*to, one.from, round)));
        in_order(probes.collect())
    }

    /// A node says that an address is dead, and quotes what it answers. If that proves nothing yet,
    /// this is what to send: to the address, and to its node's others, of which it may be just as
    /// true. Each gets at most one such probe per round.
    pub(crate) fn hint(&self, address: SocketAddr, quoted: &[u8]) -> Vec<Probe> {
        let address = canonical(address);
        let mut watches = self.lock();
        let round = watches.round;
        if !watches.by_address.contains_key(&address) {
            return Vec::new();
        }
        let proves = |round| quoted.starts_with(&self.bytes(address, round));
        if !proves(round) && !proves(round.wrapping_sub(1)) {
            return self.suspect(&mut watches, address);
        }
        if let Some(entry) = watches.by_address.remove(&address) {
            tracing::debug!(%address, "the port is dead; its links are lost");
            entry.verdict.send_replace(true);
        }
        Vec::new()
    }

    fn suspect(&self, watches: &mut Watches, address: SocketAddr) -> Vec<Probe> {
        let (round, ip) = (watches.round, address.ip());
        let of_its_node = watches
            .by_address
            .range_mut(SocketAddr::new(ip, 0)..)
            .take_while(|(other, _)| other.ip() == ip);
        let mut probes = Vec::new();
        for (other, entry) in of_its_node {
            let is_meant = *other == address || entry.is_probed;
            if is_meant && entry.hinted.replace(round) != Some(round) {
                probes.push((entry.number, self.probe(*other, entry.from, round)));
            }
        }
        in_order(probes)
    }

    fn probe(&self, to: SocketAddr, from: Option<IpAddr>, round: u64) -> Probe {
        Probe { to, from, bytes: self.bytes(to, round) }
    }

    fn bytes(&self, to: SocketAddr, round: u64) -> [u8; 9] {
        let mut bytes = [0; 9];
        bytes[1..].copy_from_slice(&self.secret.hash_one((to, round)).to_le_bytes());
        bytes
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those who came first get the first answers of their node: a nanny is older than its processes,
/// and they end with it.
fn in_order(mut probes: Vec<(u64, Probe)>) -> Vec<Probe> {
    probes.sort_unstable_by_key(|(number, _)| *number);
    probes.into_iter().map(|(_, probe)| probe).collect()
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
        let mut watches = self.registry.lock();
        let Some(entry) = watches.by_address.get(&self.address) else {
            return;
        };
        let is_ours = self.verdict.same_channel(&entry.verdict.subscribe());
        // Our own is still counted.
        if is_ours && entry.verdict.receiver_count() <= 1 {
            watches.by_address.remove(&self.address);
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

/// An address whose port nobody has open, as its node says.
pub(crate) struct DeadPort {
    pub(crate) address: SocketAddr,
    /// The beginning of the packet that was answered.
    pub(crate) quoted: Vec<u8>,
}

/// Takes the queued errors of a socket.
pub(crate) fn dead_ports(socket: &impl AsRawFd) -> Vec<DeadPort> {
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
        let bytes = message.bytes.min(64);
        if let Some(address) = to.filter(|_| is_dead) {
            dead.push(DeadPort { address, quoted: packet[..bytes].to_vec() });
        }
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
    fn a_probe_that_comes_back_is_the_verdict() {
        let registry = Arc::new(Unreachable::default());
        let watch = registry.watch(address());
        assert!(registry.next_round().is_empty(), "nobody asked for probes");
        let probes = registry.hint(address(), b"a packet of QUIC");
        assert_eq!(probes.len(), 1, "a hint asks for a probe");
        assert!(!is_gone(&watch));
        assert!(registry.hint(address(), &probes[0].bytes).is_empty());
        assert!(is_gone(&watch));
        // Whoever dials the address anew starts afresh.
        let again = registry.watch(address());
        drop(watch);
        assert!(!is_gone(&again));
        assert_eq!(registry.hint(address(), b"").len(), 1);
    }

    #[test]
    fn accepted_links_are_probed_the_oldest_first_and_one_answer_is_enough() {
        let registry = Arc::new(Unreachable::default());
        let node = ["10.0.0.1:9", "10.0.0.1:7", "10.0.0.1:8"].map(|one| one.parse().unwrap());
        let elsewhere = ["10.0.0.0:8", "10.0.0.2:8"].map(|one| one.parse().unwrap());
        let watches = node.map(|one| registry.watch_and_probe(one, None));
        let _others = elsewhere.map(|one| registry.watch_and_probe(one, None));
        let dialled = registry.watch("10.0.0.1:1".parse().unwrap());
        let addresses =
            |probes: &[Probe]| -> Vec<_> { probes.iter().map(|probe| probe.to).collect() };
        let probes = registry.next_round();
        assert_eq!(addresses(&probes), [&node[..], &elsewhere[..]].concat());
        // What is said of one is asked of all on its node.
        assert_eq!(addresses(&registry.hint(node[2], &[])), node);
        // As long as a node may take to answer.
        registry.next_round();
        assert!(registry.hint(node[1], &probes[1].bytes).is_empty());
        assert_eq!(watches.each_ref().map(is_gone), [false, true, false]);
        assert!(!is_gone(&dialled));
    }

    #[test]
    fn what_is_forged_or_stale_or_of_another_port_is_no_verdict() {
        let registry = Arc::new(Unreachable::default());
        let other = "10.0.0.1:8".parse().unwrap();
        let watches = [address(), other].map(|one| registry.watch_and_probe(one, None));
        let old = registry.next_round()[0].bytes;
        registry.next_round();
        let [last, others] = registry.next_round()[..] else { panic!("two probes") };
        let mut sent = 0;
        for quoted in [&[][..], &[0], &[0; 9], &last.bytes[..8], &others.bytes, &old] {
            for _ in 0..100 {
                sent += registry.hint(address(), quoted).len();
            }
        }
        assert_eq!(watches.each_ref().map(is_gone), [false, false]);
        assert_eq!(sent, 2, "who forges hints gets one more probe per port and round");
        registry.next_round();
        assert_eq!(registry.hint(address(), &[]).len(), 2);
    }

    #[test]
    fn hints_on_strangers_are_ignored_and_nothing_stays() {
        let registry = Arc::new(Unreachable::default());
        assert!(registry.hint(address(), &[]).is_empty());
        let (one, two) = (registry.watch(address()), registry.watch_and_probe(address(), None));
        registry.hint(address(), &[]);
        drop((one, two));
        assert!(registry.lock().by_address.is_empty());
    }
}
