//! Carries packets between nodes: most as they are, some late, twice or never.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// All nodes are in one network: NET.1, NET.2, ...
pub(crate) const NET: [u8; 3] = [10, 99, 79];

/// How often a thread looks whether it shall end.
const LOOK_EVERY_MS: u16 = 100;

/// What happens to packets from one node to another. Parts are of a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// None gets through.
    pub(crate) cut: bool,
    /// So many are lost.
    pub(crate) loss: u16,
    /// So many come twice.
    pub(crate) duplicate: u16,
    /// So many are late, and overtaken by others.
    pub(crate) reorder: u16,
}

impl Faults {
    /// Nothing gets through.
    pub(crate) const CUT: Self = Self { cut: true, loss: 0, duplicate: 0, reorder: 0 };

    /// Everything gets through.
    pub(crate) const NONE: Self = Self { cut: false, loss: 0, duplicate: 0, reorder: 0 };
}

/// How late a packet is that others overtake: up to so many milliseconds.
const LATE_MS_MAX: u64 = 20;

/// What threads share.
#[derive(Debug)]
struct Shared {
    /// The nodes' interfaces, by number from 1.
    interfaces: Vec<File>,
    /// What happens between two nodes, from and to; nothing special otherwise.
    faults: Mutex<BTreeMap<(u8, u8), Faults>>,
    ends: AtomicBool,
    carried: AtomicU64,
    lost: AtomicU64,
}

impl Shared {
    fn faults(&self, from: u8, to: u8) -> Faults {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.get(&(from, to)).copied().unwrap_or_default()
    }

    fn interface(&self, number: u8) -> Option<&File> {
        self.interfaces.get(usize::from(number).checked_sub(1)?)
    }

    /// A full queue loses packets, as that of any switch does.
    fn deliver(&self, to: u8, packet: &[u8]) {
        let Some(mut interface) = self.interface(to) else { return };
        let count = if interface.write(packet).is_ok() { &self.carried } else { &self.lost };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A packet that is late: when it is due, for whom, its bytes.
type Late = (Instant, u8, Vec<u8>);

/// The threads that carry packets.
#[derive(Debug)]
pub(crate) struct Hub {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Hub {
    /// Starts to carry between these interfaces, numbered from 1.
    pub(crate) fn start(interfaces: Vec<File>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            interfaces,
            faults: Mutex::default(),
            ends: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let (late, due) = channel();
        let mut threads = Vec::new();
        for number in (1..).take(shared.interfaces.len()) {
            let (shared, late) = (Arc::clone(&shared), late.clone());
            let carry = move || Carrier { shared, number, late, draws: u64::from(number) }.run();
            threads.push(std::thread::Builder::new().name(format!("hub-{number}")).spawn(carry)?);
        }
        let other = Arc::clone(&shared);
        let deliver = move || deliver_late(&other, &due);
        threads.push(std::thread::Builder::new().name("hub-late".to_owned()).spawn(deliver)?);
        Ok(Self { shared, threads })
    }

    /// Sets what happens from one node to another.
    pub(crate) fn set(&self, from: u8, to: u8, faults: Faults) {
        let mut all = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((from, to), faults);
    }

    /// How many packets were carried, and how many were not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (count(&self.shared.carried), count(&self.shared.lost))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

/// Takes what one node sends.
struct Carrier {
    shared: Arc<Shared>,
    number: u8,
    late: Sender<Late>,
    /// How often fate was asked.
    draws: u64,
}

impl Carrier {
    fn run(mut self) {
        let mut packet = vec![0; 1 << 16];
        let shared = Arc::clone(&self.shared);
        let Some(mut interface) = shared.interface(self.number) else { return };
        while !shared.ends.load(Ordering::Relaxed) {
            match interface.read(&mut packet) {
                Ok(length) => self.carry(&packet[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(interface.as_fd(), PollFlags::POLLIN)];
                    // Whatever it says, the next read says it better.
                    let _ = poll(&mut ready, PollTimeout::from(LOOK_EVERY_MS));
                }
                Err(_) => return,
            }
        }
    }

    fn carry(&mut self, packet: &[u8]) {
        /// Where a packet of IPv4 has its destination.
        const DESTINATION: std::ops::Range<usize> = 16..20;
        let Some([a, b, c, to]) = packet.get(DESTINATION) else { return };
        if packet[0] >> 4 != 4 || [*a, *b, *c] != NET {
            return; // IPv6 looks for neighbours: there are none
        }
        let faults = self.shared.faults(self.number, *to);
        if faults.cut || self.happens(faults.loss) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.happens(faults.duplicate) {
            self.shared.deliver(*to, packet);
        }
        if self.happens(faults.reorder) {
            let due = Instant::now() + Duration::from_millis(1 + self.draw() % LATE_MS_MAX);
            // The other end is there until all of us have ended.
            let _ = self.late.send((due, *to, packet.to_vec()));
        } else {
            self.shared.deliver(*to, packet);
        }
    }

    fn happens(&mut self, of_thousand: u16) -> bool {
        of_thousand != 0 && self.draw() % 1000 < u64::from(of_thousand)
    }

    fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::load::mixed(self.draws)
    }
}

fn deliver_late(shared: &Shared, due: &Receiver<Late>) {
    let mut waiting: BinaryHeap<Reverse<Late>> = BinaryHeap::new();
    loop {
        let now = Instant::now();
        while waiting.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            if let Some(Reverse((_, to, packet))) = waiting.pop() {
                shared.deliver(to, &packet);
            }
        }
        let pause = waiting.peek().map_or(Duration::from_secs(1), |Reverse((due, ..))| *due - now);
        match due.recv_timeout(pause) {
            Ok(late) => waiting.push(Reverse(late)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
