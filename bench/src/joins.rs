//! When workers join, as a client sees it, and what could be done with them from then on.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdask::Client;

/// How often the client looks. A look costs the scheduler some microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A thread that looks until it is told to stop.
#[derive(Debug)]
pub(crate) struct Watch {
    _stop: Sender<()>,
    thread: JoinHandle<rdask::Result<Vec<f64>>>,
}

impl Watch {
    /// Counts from `start`; workers that are there already joined at 0.
    pub(crate) fn start(client: &Client, start: Instant) -> rdask::Result<Self> {
        let client = client.clone();
        let mut joined_s = vec![0.0; client.status()?.workers.len()];
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let count = client.status()?.workers.len();
                let now = start.elapsed().as_secs_f64();
                joined_s.resize(count.max(joined_s.len()), now);
            }
            Ok(joined_s)
        });
        Ok(Self { _stop: stop, thread })
    }

    /// When each worker joined, in seconds after the start and in order.
    ///
    /// # Panics
    /// If the thread did.
    pub(crate) fn joined_s(self) -> rdask::Result<Vec<f64>> {
        drop(self._stop);
        self.thread.join().expect("the watch doesn't panic")
    }
}

/// When work of so many slot-seconds, divisible at will, is through at the earliest.
pub(crate) fn ideal_divisible_s(work_s: f64, slot_free_s: &[f64]) -> f64 {
    let mut sorted = slot_free_s.to_vec();
    sorted.sort_by(f64::total_cmp);
    // With the first k slots the end is where their shares sum up; a later slot is of use only if
    // it comes before that.
    let mut sum = 0.0;
    let mut end = f64::INFINITY;
    for (nth, free) in sorted.into_iter().enumerate() {
        if free >= end {
            break;
        }
        sum += free;
        end = (work_s + sum) / (nth + 1) as f64;
    }
    end
}

/// When the last of `count` equal tasks ends if each goes to the slot that is free first.
pub(crate) fn ideal_list_s(count: u32, task_s: f64, slot_free_s: &[f64]) -> f64 {
    let mut free = slot_free_s.to_vec();
    let mut end = 0.0_f64;
    for _ in 0..count {
        let first = free.iter_mut().min_by(|a, b| a.total_cmp(b)).expect("there are slots");
        *first += task_s;
        end = end.max(*first);
    }
    end
}

/// When each slot is free if each worker has so many.
pub(crate) fn slots(joined_s: &[f64], threads: u32) -> Vec<f64> {
    joined_s.iter().flat_map(|free| std::iter::repeat_n(*free, threads as usize)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisible_work_ends_everywhere_at_once() {
        assert_eq!(ideal_divisible_s(20.0, &[0.0; 4]), 5.0);
        // One slot does 2 before the second comes; what is left takes both 4.
        assert_eq!(ideal_divisible_s(10.0, &[0.0, 2.0]), 6.0);
        assert_eq!(ideal_divisible_s(10.0, &[0.0, 12.0]), 10.0);
    }

    #[test]
    fn whole_tasks_go_to_whoever_is_free_first() {
        let at_once = slots(&[0.0, 0.0, 2.0, 2.0], 4);
        assert_eq!(ideal_list_s(64, 1.0, &at_once), 5.0);
        let late = slots(&[0.0, 0.0, 2.25, 2.25], 4);
        assert_eq!(ideal_list_s(64, 1.0, &late), 5.25);
        assert_eq!(ideal_list_s(3, 1.0, &[0.0, 0.5]), 2.0);
    }
}
