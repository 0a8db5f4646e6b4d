//! How many tasks a chunk gets: as many as last about a millisecond, by measured durations.
//!
//! An unknown function starts with one task per chunk, and gets more while its runs prove short, as
//! in slow start. So a first long task never holds up others that could run beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::FunctionKey;
use crate::message::CHUNK_TASKS_MAX;

/// What a chunk should last. Ten times less and handing chunks over would cost more than a percent
/// of the time; ten times more and results would reach the scheduler in jerks.
const CHUNK_DURATION: Duration = Duration::from_millis(1);

/// How many times longer than the last one a chunk may be.
const GROWTH: u32 = 8;

/// The newest chunk's share of the mean is one in so many.
const MEAN_WEIGHT: u64 = 4;

/// What is known of one function.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// The moving mean of one run's duration in nanoseconds, never 0.
    mean_ns: u64,
    /// The most tasks in a chunk for now.
    len_max: u32,
}

/// The paces of all functions that ran here. As many as the program has functions.
#[derive(Debug, Default)]
pub(super) struct Paces(BTreeMap<FunctionKey, Pace>);

impl Paces {
    /// How many tasks the next chunk of `function` may have, at least 1.
    pub(super) fn chunk_len(&self, function: FunctionKey) -> u32 {
        self.0.get(&function).map_or(1, |pace| pace.len_max)
    }

    /// `count` runs kept a slot busy for `busy`.
    pub(super) fn measured(&mut self, function: FunctionKey, count: u32, busy: Duration) {
        if count == 0 {
            return;
        }
        let busy_ns = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        let each_ns = (busy_ns / u64::from(count)).max(1);
        let pace = self.0.entry(function).or_insert(Pace { mean_ns: each_ns, len_max: 1 });
        let old_ns = pace.mean_ns / MEAN_WEIGHT * (MEAN_WEIGHT - 1);
        pace.mean_ns = old_ns.saturating_add(each_ns / MEAN_WEIGHT).max(1);
        let fitting = CHUNK_DURATION.as_nanos() as u64 / pace.mean_ns;
        let fitting = fitting.clamp(1, u64::from(CHUNK_TASKS_MAX)) as u32;
        pace.len_max = fitting.min(pace.len_max.saturating_mul(GROWTH));
    }

    /// A chunk of `function` lasts much longer than its mean foretold.
    pub(super) fn overdue(&mut self, function: FunctionKey) {
        if let Some(pace) = self.0.get_mut(&function) {
            pace.len_max = (pace.len_max / 4).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_until_they_last_a_millisecond() {
        let (mut paces, key) = (Paces::default(), FunctionKey(1));
        let mut lens = Vec::new();
        for _ in 0..5 {
            let len = paces.chunk_len(key);
            lens.push(len);
            paces.measured(key, len, Duration::from_micros(10) * len);
        }
        assert_eq!(lens, [1, 8, 64, 100, 100]);
    }

    #[test]
    fn long_runs_go_one_by_one() {
        let (mut paces, key) = (Paces::default(), FunctionKey(1));
        paces.measured(key, 1, Duration::from_secs(1));
        assert_eq!(paces.chunk_len(key), 1);
        paces.measured(FunctionKey(2), 1, Duration::ZERO);
        assert_eq!(paces.chunk_len(FunctionKey(2)), GROWTH);
    }
}
