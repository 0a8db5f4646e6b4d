//! Which state of a task, as the scheduler saw it, met which event.

use std::collections::BTreeMap;
use std::fmt::Write;

use rdask_core::scheduler::Look;

/// How often each pair was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    pairs: BTreeMap<(Look, &'static str), u64>,
}

/// Pairs that enough seeds must meet, one per line.
const EXPECTED: &str = include_str!("../coverage.txt");

impl Coverage {
    /// Such a task meets such an event.
    pub fn mark(&mut self, look: Look, event: &'static str) {
        *self.pairs.entry((look, event)).or_insert(0) += 1;
    }

    /// Adds what others met.
    pub fn add(&mut self, other: &Self) {
        for (pair, count) in &other.pairs {
            *self.pairs.entry(*pair).or_insert(0) += count;
        }
    }

    /// How many different pairs were met.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// How many pairs are expected.
    #[must_use]
    pub fn expected() -> usize {
        expected().count()
    }

    /// Those that should have been met and were not.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let met: Vec<String> = self.pairs.keys().map(name).collect();
        expected().filter(|line| !met.iter().any(|met| met == line)).collect()
    }

    /// All pairs with their counts, one per line.
    #[must_use]
    pub fn print(&self) -> String {
        let mut text = String::new();
        for (pair, count) in &self.pairs {
            let _ = writeln!(text, "{count:>12} {}", name(pair));
        }
        text
    }
}

fn name((look, event): &(Look, &'static str)) -> String {
    format!("{look:?} {event}")
}

fn expected() -> impl Iterator<Item = &'static str> {
    EXPECTED.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}
