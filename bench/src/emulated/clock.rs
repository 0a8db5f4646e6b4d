//! One timer for all slots, finer than the runtime's, which has milliseconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdask_core::process::ChunkId;
use tokio::sync::mpsc::UnboundedSender;

/// When to tell whom of what: the number makes each unique.
type Alarm = (Instant, u64, ChunkId);

#[derive(Debug, Default)]
struct Alarms {
    count: u64,
    first: BinaryHeap<Reverse<Alarm>>,
    listeners: std::collections::BTreeMap<u64, UnboundedSender<ChunkId>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Locked for moments.
    alarms: Mutex<Alarms>,
    earlier: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut alarms = self.lock();
        loop {
            let now = Instant::now();
            while let Some(Reverse((at, number, chunk))) = alarms.first.peek().copied()
                && at <= now
            {
                alarms.first.pop();
                if let Some(listener) = alarms.listeners.remove(&number) {
                    // A process that has ended needs no alarm.
                    let _ = listener.send(chunk);
                }
            }
            alarms = match alarms.first.peek() {
                None => self.earlier.wait(alarms).unwrap_or_else(PoisonError::into_inner),
                Some(Reverse((at, ..))) => {
                    let time = at.saturating_duration_since(now);
                    let waited = self.earlier.wait_timeout(alarms, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// A thread that tells slots when their time is over.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    shared: Arc<Shared>,
}

impl Clock {
    /// Starts the thread; it ends with the program.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("clock".to_owned()).spawn(move || own.serve())?;
        Ok(Self { shared })
    }

    /// Tells `listener` of `chunk` at a time.
    pub(super) fn wake(&self, at: Instant, chunk: ChunkId, listener: UnboundedSender<ChunkId>) {
        let mut alarms = self.shared.lock();
        alarms.count += 1;
        let number = alarms.count;
        let is_first = alarms.first.peek().is_none_or(|Reverse((first, ..))| at < *first);
        alarms.first.push(Reverse((at, number, chunk)));
        alarms.listeners.insert(number, listener);
        if is_first {
            self.shared.earlier.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn alarms_come_in_the_order_of_their_times() {
        let clock = Clock::start().expect("a thread");
        let (sender, mut receiver) = unbounded_channel();
        let begun = Instant::now();
        let times = [30_u64, 10, 20];
        for millis in times {
            let at = begun + Duration::from_millis(millis);
            clock.wake(at, ChunkId(millis), sender.clone());
        }
        let got = [(); 3].map(|()| {
            let chunk = receiver.blocking_recv().expect("the clock keeps its end");
            assert!(begun.elapsed() >= Duration::from_millis(chunk.0), "too early");
            chunk.0
        });
        assert_eq!(got, [10, 20, 30]);
    }
}
