//! How long functions take, as measured: what windows and placement go by.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{FunctionKey, ProgramHash};

/// The number of a function's statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StatNo(u32);

/// Running means per function.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    numbers: BTreeMap<(ProgramHash, FunctionKey), StatNo>,
    stats: Vec<Stat>,
}

#[derive(Clone, Debug, Default)]
struct Stat {
    mean_ns: u64,
    runs: u64,
    spread: Spread,
}

/// How often runs took about so long: two buckets for each power of two nanoseconds.
#[derive(Clone, Debug)]
struct Spread {
    counts: Box<[u32; 2 * u64::BITS as usize]>,
    total: u32,
}

/// When so many runs are counted all counts are halved, so that old times fade.
const SPREAD_MAX: u32 = 4096;

/// A range counts as so many runs at most: one report must not outweigh all others.
const SPREAD_STEP_MAX: u64 = 256;

impl Default for Spread {
    fn default() -> Self {
        Self { counts: Box::new([0; 2 * u64::BITS as usize]), total: 0 }
    }
}

impl Spread {
    /// The bucket of a time: its highest bit, and the one behind it.
    fn bucket(ns: u64) -> usize {
        let bits = ns.max(2).ilog2();
        (2 * bits) as usize + usize::from(ns >> (bits - 1) & 1 == 1)
    }

    /// No time in the bucket is longer.
    fn longest_ns(bucket: usize) -> u64 {
        let bits = bucket as u32 / 2;
        let half = 1u64 << bits.saturating_sub(1);
        let whole = half.saturating_mul(2);
        if bucket.is_multiple_of(2) { whole.saturating_add(half) } else { whole.saturating_mul(2) }
    }

    fn count(&mut self, runs: u64, ns: u64) {
        let step = runs.min(SPREAD_STEP_MAX) as u32;
        self.counts[Self::bucket(ns)] += step;
        self.total += step;
        if self.total > SPREAD_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// Nine of ten runs took no longer.
    fn p90_ns(&self) -> Option<u64> {
        let mut longer = self.total / 10;
        for (bucket, count) in self.counts.iter().enumerate().rev().filter(|(_, n)| **n > 0) {
            if *count > longer {
                return Some(Self::longest_ns(bucket));
            }
            longer -= count;
        }
        None
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
        stat.spread.count(runs, new);
    }

    /// The mean time of a run in nanoseconds, if any has ended.
    pub(crate) fn mean_ns(&self, number: StatNo) -> Option<u64> {
        let stat = &self.stats[number.0 as usize];
        (stat.runs > 0).then_some(stat.mean_ns)
    }

    /// Nine of ten runs take no longer, if any has ended.
    pub(crate) fn p90(&self, number: StatNo) -> Option<Duration> {
        self.stats[number.0 as usize].spread.p90_ns().map(Duration::from_nanos)
    }

    /// How many runs have ended.
    pub(crate) fn runs(&self, number: StatNo) -> u64 {
        self.stats[number.0 as usize].runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_runs_take_no_longer() {
        let mut spread = Spread::default();
        assert_eq!(spread.p90_ns(), None);
        for ns in [0, 1, 2, 3, 1000, u64::MAX] {
            let longest = Spread::longest_ns(Spread::bucket(ns));
            assert!(longest >= ns && longest / 2 <= ns.max(3), "{ns}: {longest}");
        }
        (1..=100).for_each(|ms| spread.count(1, ms * 1_000_000));
        let p90 = spread.p90_ns().unwrap();
        assert!((90_000_000..=135_000_000).contains(&p90), "{p90}");
        // What took long once fades.
        (0..100).for_each(|_| spread.count(1000, 1_000_000));
        assert!(spread.p90_ns().unwrap() < 2_000_000);
        assert!(spread.total <= SPREAD_MAX);
    }
}
