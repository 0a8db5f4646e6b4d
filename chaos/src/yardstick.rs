//! How much slower this machine is than it would be alone.
//!
//! Bounds on how quickly something is seen are for a machine that has time for it. While a scenario
//! plays, a thread of the runner naps and computes a little again and again. What that takes, by what
//! it would take with a processor to itself, is the factor by which such a bound is stretched: 1 on an
//! idle machine, and no more than there is reason for on a busy one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Between two looks. They shall not load the machine themselves.
const NAP: Duration = Duration::from_millis(45);

/// How long each look computes. Longer than a scheduler's slice, for it is preempted as others are.
const WORK: Duration = Duration::from_millis(5);

/// Measures from its beginning until it is asked, or dropped.
#[derive(Debug)]
pub(crate) struct Yardstick {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<f64>>,
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Yardstick {
    pub(crate) fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let (mut taken, mut alone) = look();
            while !seen.load(Ordering::Relaxed) {
                let (more_taken, more_alone) = look();
                taken += more_taken;
                alone += more_alone;
            }
            taken.as_secs_f64() / alone.as_secs_f64()
        });
        Self { is_over, thread: Some(thread) }
    }

    /// The factor, at least 1.
    pub(crate) fn factor(mut self) -> f64 {
        self.is_over.store(true, Ordering::Relaxed);
        let measured = self.thread.take().and_then(|thread| thread.join().ok());
        measured.map_or(1.0, |factor| factor.max(1.0))
    }
}

/// How long one look takes beyond its nap, and would take alone: the time of the processor that it
/// has had. To wake up late counts, too.
fn look() -> (Duration, Duration) {
    let (begun, before) = (Instant::now(), processor_time());
    std::thread::sleep(NAP);
    while processor_time() - before < WORK {
        std::hint::spin_loop();
    }
    (begun.elapsed() - NAP, processor_time() - before)
}

/// What this thread has had of a processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_nobody_asks_stops_measuring() {
        let yardstick = Yardstick::start();
        let measuring = Arc::downgrade(&yardstick.is_over);
        drop(yardstick);
        let patience = Instant::now() + Duration::from_secs(20);
        while measuring.upgrade().is_some() {
            assert!(Instant::now() < patience, "its thread goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_machine_with_more_to_do_than_processors_is_slower() {
        let threads = 4 * std::thread::available_parallelism().unwrap().get();
        let is_over = AtomicBool::new(false);
        let factor = std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        std::hint::spin_loop()
                    }
                });
            }
            let yardstick = Yardstick::start();
            std::thread::sleep(Duration::from_secs(1));
            let factor = yardstick.factor();
            is_over.store(true, Ordering::Relaxed);
            factor
        });
        assert!(factor > 1.5, "{factor}");
    }
}
