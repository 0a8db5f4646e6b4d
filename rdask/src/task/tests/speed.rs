//! What a task costs that does next to nothing, decoding and encoding included.
//!
//! `cargo test -p rdask --release --lib speed -- --nocapture` prints it.

use std::time::{Duration, Instant};

use super::*;
use crate::function::{Chunk, TaskInputs, TaskSource};

/// Hands out the items of a `map`, as a worker does.
struct Range<'a> {
    tasks: &'a ManyTasks,
    index: usize,
    start: usize,
}

impl TaskSource for Range<'_> {
    fn next(&mut self, _: &Outcomes) -> Option<TaskInputs<'_>> {
        let end = *self.tasks.ends.get(self.index)? as usize;
        let inline = &self.tasks.inline[self.start..end];
        self.start = end;
        self.index += 1;
        Some(TaskInputs { inline, params: &[ParamSource::Inline], inputs: &mut [] })
    }
}

#[expect(clippy::print_stdout, reason = "the numbers are what one runs this for")]
fn measure(name: &str, tasks: &ManyTasks) {
    const ROUNDS: u32 = 20;
    let mut out = Outcomes::new();
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        out.clear();
        let mut source = Range { tasks, index: 0, start: 0 };
        let begin = Instant::now();
        (tasks.function.call)(&mut Chunk::new(&mut source, &mut out));
        best = best.min(begin.elapsed());
        assert_eq!(out.len(), tasks.ends.len());
    }
    let each = best.as_nanos() as f64 / tasks.ends.len() as f64;
    println!("{name}: {each:.1} ns per task");
    // Far above what it takes, even without optimisation: a clock, a lock or a system call per task
    // would not pass.
    assert!(each < 5_000.0, "{name}: {each:.1} ns per task");
}

#[test]
fn tiny_tasks_cost_nanoseconds() {
    const TASKS: u64 = 10_000;
    measure("u64 -> u64", &map(|x: u64| x.wrapping_mul(x), 0..TASKS).unwrap());
    measure("f64 -> f64", &map(f64::sqrt, (0..TASKS).map(|x| x as f64)).unwrap());
    let points = (0..TASKS).map(|x| (x, x as f64, x % 2 == 0));
    measure("(u64, f64, bool) -> f64", &map(|(_, x, _): (u64, f64, bool)| x, points).unwrap());
    let words = (0..TASKS).map(|x| x.to_string());
    measure("String -> usize", &map(|s: String| s.len(), words).unwrap());
    let checked = |x: u64| x.checked_add(1).ok_or("overflow");
    measure("u64 -> Result", &try_map(checked, 0..TASKS).unwrap());
}
