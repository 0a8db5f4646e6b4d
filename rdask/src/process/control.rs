//! One chunk while it runs: shared by the slot that runs it and the loop that watches it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdask_core::process::ChunkId;
use rdask_core::range::{Range, RangeSet};
use tokio::sync::mpsc::UnboundedSender;

use super::Event;

/// Which task of a chunk is next, which are cancelled, whether the run under way is parked.
pub(crate) struct Control {
    chunk: ChunkId,
    range: Range,
    /// The next task in the high half, the end of the chunk in the low half. In one word, so that
    /// a task is either started or taken back, never both.
    progress: AtomicU64,
    any_cancelled: AtomicBool,
    /// Whether nobody wants what comes of it any more.
    void: AtomicBool,
    /// Whether the run under way has given up what it did.
    given_up: AtomicBool,
    /// Held for an insert or a look-up.
    cancelled: Mutex<RangeSet>,
    /// Whether the parked run may go on. Held to look and to set.
    resumed: Mutex<bool>,
    resume: Condvar,
    parked_ns: AtomicU64,
    /// When the run was parked. Only its own thread uses it.
    parked_since: Mutex<Option<Instant>>,
    events: UnboundedSender<Event>,
}

fn pack(next: u32, end: u32) -> u64 {
    u64::from(next) << 32 | u64::from(end)
}

fn unpack(progress: u64) -> (u32, u32) {
    ((progress >> 32) as u32, progress as u32)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that is done under these locks leaves things half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    pub(super) fn new(chunk: ChunkId, range: Range, events: UnboundedSender<Event>) -> Self {
        Self {
            chunk,
            range,
            progress: AtomicU64::new(pack(range.start, range.end)),
            any_cancelled: AtomicBool::new(false),
            void: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            cancelled: Mutex::default(),
            resumed: Mutex::new(false),
            resume: Condvar::new(),
            parked_ns: AtomicU64::new(0),
            parked_since: Mutex::new(None),
            events,
        }
    }

    /// Starts the next task, if one is left. For the slot.
    #[inline]
    pub(super) fn claim(&self) -> Option<u32> {
        let mut seen = self.progress.load(Ordering::Relaxed);
        loop {
            let (next, end) = unpack(seen);
            if next >= end {
                return None;
            }
            match self.progress.compare_exchange_weak(
                seen,
                pack(next + 1, end),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(next),
                Err(now) => seen = now,
            }
        }
    }

    /// Takes back what has not started. For the loop.
    pub(super) fn take_back(&self) -> Range {
        let mut seen = self.progress.load(Ordering::Relaxed);
        loop {
            let (next, end) = unpack(seen);
            match self.progress.compare_exchange_weak(
                seen,
                pack(next, next.min(end)),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Range::new(next, end),
                Err(now) => seen = now,
            }
        }
    }

    /// All tasks that the chunk had at its start.
    pub(super) fn all(&self) -> Range {
        self.range
    }

    /// The task that was started last.
    pub(crate) fn current(&self) -> Option<u32> {
        let (next, _) = unpack(self.progress.load(Ordering::Relaxed));
        (next > self.range.start).then(|| next - 1)
    }

    /// Shows these tasks that they were cancelled.
    pub(super) fn cancel(&self, range: Range) {
        lock(&self.cancelled).insert(range);
        self.any_cancelled.store(true, Ordering::Release);
    }

    /// From now on results are dropped rather than stored.
    pub(super) fn make_void(&self) {
        self.void.store(true, Ordering::Release);
    }

    /// Whether results are to be dropped.
    pub(super) fn is_void(&self) -> bool {
        self.void.load(Ordering::Acquire)
    }

    /// Whether a task was cancelled.
    pub(crate) fn is_cancelled(&self, index: u32) -> bool {
        self.any_cancelled.load(Ordering::Acquire) && lock(&self.cancelled).contains(index)
    }

    /// The run under way gives up what it did; it is about to end. For the slot.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether a run of the chunk has given up what it did.
    pub(super) fn has_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// The run under way gives its slots back.
    pub(crate) fn park(&self) {
        *lock(&self.resumed) = false;
        *lock(&self.parked_since) = Some(Instant::now());
        // Fails only when the loop has ended, and the process with it.
        let _ = self.events.send(Event::Parked(self.chunk));
    }

    /// The run under way waits until it has its slots again.
    pub(crate) fn unpark(&self) {
        if self.events.send(Event::UnparkWanted(self.chunk)).is_ok() {
            let mut resumed = lock(&self.resumed);
            while !*resumed {
                resumed = self.resume.wait(resumed).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if let Some(since) = lock(&self.parked_since).take() {
            let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.parked_ns.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Lets the parked run go on. For the loop.
    pub(super) fn let_go(&self) {
        *lock(&self.resumed) = true;
        self.resume.notify_all();
    }

    /// How long runs of the chunk were parked, together.
    pub(super) fn parked_time(&self) -> Duration {
        Duration::from_nanos(self.parked_ns.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (next, end) = unpack(self.progress.load(Ordering::Relaxed));
        f.debug_struct("Control")
            .field("chunk", &self.chunk)
            .field("left", &Range::new(next, end))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_started_or_taken_back_never_both() {
        for _ in 0..200 {
            let (events, _) = tokio::sync::mpsc::unbounded_channel();
            let control = Control::new(ChunkId(0), Range::new(5, 2000), events);
            let (started, taken) = std::thread::scope(|scope| {
                let slot = scope.spawn(|| std::iter::from_fn(|| control.claim()).count());
                let taken = control.take_back();
                (slot.join().unwrap(), taken)
            });
            assert_eq!(started + taken.len() as usize, 1995);
            assert!(taken.is_empty() || taken.end == 2000);
            assert!(control.take_back().is_empty());
        }
    }
}
