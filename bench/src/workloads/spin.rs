//! Tasks that compute: what an engine adds to work that keeps its cores busy.

use std::time::{Duration, Instant};

use crate::bench::{Bench, Setup};
use crate::outcome::Outcome;

/// Each step waits for the one before: about 100 us on a core of 3 GHz. Not by a clock, which would
/// count the time in which others have the core.
const STEPS: u32 = 60_000;

/// The task.
pub(crate) fn spin(x: u64) -> u64 {
    (0..STEPS).fold(x, |x, _| x.wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(17) ^ 1)
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let n = bench.setup().n;
    let values = client.gather(client.map(spin, (0..n).map(u64::from)))?;
    Ok(outcome(bench.setup(), &values, start.elapsed()))
}

/// Checks all values: on one thread, which tells what the tasks take by themselves.
pub(crate) fn outcome(setup: &Setup, values: &[u64], elapsed: Duration) -> Outcome {
    let start = Instant::now();
    let ok = values.iter().copied().eq((0..setup.n).map(u64::from).map(spin));
    let alone_s = start.elapsed().as_secs_f64();
    Outcome::new(ok, elapsed)
        .with_tasks(setup.n)
        .with_ideal(alone_s / f64::from(setup.workers * setup.threads))
        .with("alone_us", alone_s * 1e6 / f64::from(setup.n))
}
