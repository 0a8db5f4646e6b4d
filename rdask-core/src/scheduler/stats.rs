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

#[derive(Clone, Copy, Debug, Default)]
struct Stat {
    mean_ns: u64,
    runs: u64,
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
