//! What came of a workload.

use std::time::Duration;

use serde_json::{Map, Value};

/// Whether the results were right, and the figures.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Whether all results are right.
    pub(crate) ok: bool,
    /// How many tasks took all the time, if each took its share.
    pub(crate) tasks: Option<u32>,
    elapsed: Duration,
    fields: Map<String, Value>,
}

impl Outcome {
    /// It took so long.
    pub(crate) fn new(ok: bool, elapsed: Duration) -> Self {
        let outcome = Self { ok, tasks: None, elapsed, fields: Map::new() };
        outcome.with("ok", ok).with("seconds", elapsed.as_secs_f64())
    }

    /// One more figure.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// It could not have taken less.
    pub(crate) fn with_ideal(self, seconds: f64) -> Self {
        let overhead_ms = (self.elapsed.as_secs_f64() - seconds) * 1e3;
        self.with("ideal_s", seconds).with("overhead_ms", overhead_ms)
    }

    /// So many tasks took all the time.
    pub(crate) fn with_tasks(mut self, count: u32) -> Self {
        self.tasks = Some(count);
        let each_us = self.elapsed.as_secs_f64() * 1e6 / f64::from(count);
        self.with("us_per_task", each_us)
    }

    /// All figures.
    pub(crate) fn into_fields(self) -> Map<String, Value> {
        self.fields
    }
}
