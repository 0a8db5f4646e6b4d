//! How long functions and transfers take, as measured: what windows and placement go by.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{FunctionKey, ProgramHash};
use crate::message::FETCH_TIME;

/// The number of a function's statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StatNo(u32);

/// Running means per function.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    numbers: BTreeMap<(ProgramHash, FunctionKey), StatNo>,
    stats: Vec<Stat>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stat {
    mean_ns: u64,
    runs: u64,
}

/// What moving values between processes has cost so far.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// All bytes that processes have fetched.
    pub(crate) bytes: u64,
    /// The bytes of late, and the time they took beyond [`FETCH_TIME`] each.
    recent: (u64, u64),
}

/// Older traffic fades: after so many bytes it counts for half.
const RECENT_BYTES: u64 = 1 << 30;

impl Default for Traffic {
    fn default() -> Self {
        // A gigabyte per second is assumed, and counts as much as the first 16 MiB measured.
        let bytes = 16 << 20;
        Self { bytes: 0, recent: (bytes, bytes) }
    }
}

impl Traffic {
    /// So many bytes were fetched and took so long.
    pub(crate) fn measured(&mut self, bytes: u64, busy_ns: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let (recent, time) = &mut self.recent;
        *recent = recent.saturating_add(bytes);
        *time = time.saturating_add(busy_ns);
        if *recent > RECENT_BYTES {
            *recent /= 2;
            *time /= 2;
        }
    }

    /// How long a process takes to fetch so many bytes more.
    pub(crate) fn move_ns(&self, bytes: u64) -> u64 {
        if bytes == 0 {
            return 0;
        }
        let (recent, time) = self.recent;
        let time = u128::from(bytes) * u128::from(time) / u128::from(recent.max(1));
        (FETCH_TIME.as_nanos() as u64).saturating_add(u64::try_from(time).unwrap_or(u64::MAX))
    }
}

/// A new report counts at least for this share of the mean, so that old times fade.
const FADE: u64 = 8;

impl Stats {
    pub(crate) fn number(&mut self, program: ProgramHash, function: FunctionKey) -> StatNo {
        let next = StatNo(self.stats.len() as u32);
        let number = *self.numbers.entry((program, function)).or_insert(next);
        if number == next {
            self.stats.push(Stat::default());
        }
        number
    }

    /// So many runs took so long together.
    pub(crate) fn measured(&mut self, number: StatNo, runs: u64, busy: Duration) {
        if runs == 0 {
            return;
        }
        let stat = &mut self.stats[number.0 as usize];
        let new = (busy.as_nanos() / u128::from(runs)).min(u128::from(u64::MAX)) as u64;
        let old_weight = stat.runs.min(runs.saturating_mul(FADE - 1));
        let total =
            u128::from(stat.mean_ns) * u128::from(old_weight) + u128::from(new) * u128::from(runs);
        stat.mean_ns = (total / u128::from(old_weight + runs)).max(1) as u64;
        stat.runs = stat.runs.saturating_add(runs);
    }

    /// The mean time of a run in nanoseconds, if any has ended.
    pub(crate) fn mean_ns(&self, number: StatNo) -> Option<u64> {
        let stat = self.stats[number.0 as usize];
        (stat.runs > 0).then_some(stat.mean_ns)
    }

    /// How many runs have ended.
    pub(crate) fn runs(&self, number: StatNo) -> u64 {
        self.stats[number.0 as usize].runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FETCH_NS: u64 = FETCH_TIME.as_nanos() as u64;

    #[test]
    fn bandwidth_is_assumed_first_and_then_measured() {
        let mut traffic = Traffic::default();
        assert_eq!(traffic.move_ns(0), 0);
        assert_eq!(traffic.move_ns(1_000_000), FETCH_NS + 1_000_000);
        // A hundred megabytes per second.
        for _ in 0..100 {
            traffic.measured(100 << 20, (100 << 20) * 10);
        }
        let took = traffic.move_ns(1_000_000) - FETCH_NS;
        assert!((9_500_000..=10_000_000).contains(&took), "{took}");
        assert_eq!(traffic.bytes, 100 * (100 << 20));
    }
}
