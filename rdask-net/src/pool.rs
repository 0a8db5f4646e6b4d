//! The data connections that this endpoint dialled: one per peer, kept while they are of use.
//!
//! A connection is lazy, shared by all streams to its peer, and closed after 30 s without a
//! stream, or earlier when more than 64 peers are connected and it is the one unused for longest.
//! A connection with a stream on it is never closed by the pool.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quinn::VarInt;
use tokio::sync::OnceCell;

use crate::dial::DialError;
use crate::local_way::LocalWay;
use crate::peer_name::PeerName;
use crate::transport::DATA_IDLE;

/// Connections kept beside those in use: a worker that gathers from more peers at once dials
/// again, at 0.5 ms of CPU each.
const CONNECTIONS_MAX: usize = 64;

/// The code of a connection that is closed because nobody uses it.
const CODE_UNUSED: VarInt = VarInt::from_u32(0);

/// How data gets to a peer.
pub(crate) enum Route {
    /// Streams of one connection, and the name under which it was dialled.
    Quic(quinn::Connection, PeerName),
    /// A TCP connection per stream; QUIC did not get through.
    Tls,
}

/// A peer's place in the pool.
pub(crate) struct Slot {
    /// Set once by whoever dials first; the others wait for it.
    pub(crate) route: OnceCell<Route>,
    /// The local socket beside the connection.
    pub(crate) local: LocalWay,
    /// When a dial failed last, and how.
    failed: Mutex<Option<(Instant, Arc<DialError>)>>,
    usage: Mutex<Usage>,
}

struct Usage {
    streams: usize,
    last_used: Instant,
}

/// Holds a connection open for one stream.
pub(crate) struct Lease {
    slot: Arc<Slot>,
}

/// All places, by peer. The lock is held for map operations only, never while waiting.
#[derive(Default)]
pub(crate) struct Pool {
    slots: Mutex<BTreeMap<PeerName, Arc<Slot>>>,
}

impl Pool {
    /// The peer's place, with a lease so that it stays.
    pub(crate) fn lease(&self, peer: &PeerName, now: Instant) -> Lease {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(peer).filter(|slot| !slot.is_broken()) {
            return Lease::new(slot.clone(), now);
        }
        let usage = Mutex::new(Usage { streams: 0, last_used: now });
        let slot = Arc::new(Slot {
            route: OnceCell::new(),
            local: LocalWay::default(),
            failed: Mutex::default(),
            usage,
        });
        slots.insert(peer.clone(), slot.clone());
        let lease = Lease::new(slot, now);
        while slots.len() > CONNECTIONS_MAX {
            let unused = slots
                .iter()
                .filter_map(|(peer, slot)| Some((slot.unused_since()?, peer)))
                .min_by_key(|(since, _)| *since)
                .map(|(_, peer)| peer.clone());
            let Some(slot) = unused.and_then(|peer| slots.remove(&peer)) else {
                break;
            };
            slot.close();
        }
        lease
    }

    /// Forgets a place whose connection failed, unless someone else already replaced it.
    pub(crate) fn forget(&self, peer: &PeerName, lease: &Lease) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.get(peer).is_some_and(|slot| Arc::ptr_eq(slot, &lease.slot)) {
            slots.remove(peer);
        }
    }

    /// Closes what has been unused for the idle time, or has broken.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| {
            let unused = slot.unused_since();
            let expired =
                unused.is_some_and(|since| now.saturating_duration_since(since) >= DATA_IDLE);
            let done = expired || (unused.is_some() && slot.is_broken());
            if done {
                slot.close();
            }
            !done
        });
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Slot {
    /// Whoever has waited since then for a dial that failed need not dial again.
    pub(crate) fn failed_since(&self, came: Instant) -> Option<DialError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, error) = failed.as_ref().filter(|(at, _)| *at >= came)?;
        Some(DialError::Shared(error.clone()))
    }

    /// A dial has failed.
    pub(crate) fn fail(&self, error: DialError) -> DialError {
        let error = Arc::new(error);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed = Some((Instant::now(), error.clone()));
        DialError::Shared(error)
    }

    fn is_broken(&self) -> bool {
        matches!(self.route.get(), Some(Route::Quic(connection, _)) if connection.close_reason().is_some())
    }

    /// Since when no stream uses the place; `None` while one does.
    fn unused_since(&self) -> Option<Instant> {
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        (usage.streams == 0).then_some(usage.last_used)
    }

    fn close(&self) {
        if let Some(Route::Quic(connection, _)) = self.route.get() {
            connection.close(CODE_UNUSED, b"unused");
        }
    }
}

impl Lease {
    fn new(slot: Arc<Slot>, now: Instant) -> Self {
        let mut usage = slot.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.streams += 1;
        usage.last_used = now;
        drop(usage);
        Self { slot }
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut usage = self.slot.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.streams = usage.streams.saturating_sub(1);
        usage.last_used = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer_name::PeerRole;

    fn process(id: usize) -> PeerName {
        PeerName::new(PeerRole::Process, id as u64, "r1").unwrap()
    }

    #[test]
    fn a_full_pool_lets_go_of_what_is_unused_and_keeps_what_is_leased() {
        let pool = Pool::default();
        let kept: Vec<Lease> =
            (0..CONNECTIONS_MAX).map(|id| pool.lease(&process(id), Instant::now())).collect();
        for id in CONNECTIONS_MAX..CONNECTIONS_MAX + 10 {
            drop(pool.lease(&process(id), Instant::now()));
        }
        assert_eq!(pool.len(), CONNECTIONS_MAX + 1);
        drop(kept);
        drop(pool.lease(&process(1000), Instant::now()));
        assert_eq!(pool.len(), CONNECTIONS_MAX);
    }

    #[test]
    fn unused_places_go_after_the_idle_time() {
        let pool = Pool::default();
        let held = pool.lease(&process(1), Instant::now());
        drop(pool.lease(&process(2), Instant::now()));
        let later = Instant::now() + DATA_IDLE;
        pool.sweep(later);
        assert_eq!(pool.len(), 1);
        drop(held);
        pool.sweep(later + DATA_IDLE);
        assert_eq!(pool.len(), 0);
    }

    #[test]
    fn a_place_is_forgotten_only_by_those_who_saw_it_fail() {
        let pool = Pool::default();
        let old = pool.lease(&process(1), Instant::now());
        pool.forget(&process(1), &old);
        let new = pool.lease(&process(1), Instant::now());
        pool.forget(&process(1), &old);
        assert_eq!(pool.len(), 1);
        drop(new);
    }
}
