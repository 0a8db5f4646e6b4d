//! Two workers are killed half way, and nothing restarts them.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bench::Bench;
use crate::outcome::Outcome;

/// How long a task sleeps.
const TASK: Duration = Duration::from_millis(50);

/// How many workers are killed: the last ones.
const KILLED: u32 = 2;

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let setup = bench.setup().clone();
    ensure!(setup.workers > KILLED, "two workers are killed, and one has to be left");
    let (client, start) = bench.begin()?;
    let nap = |i: u32| {
        std::thread::sleep(TASK);
        i
    };
    let remotes = client.map(nap, 0..setup.n);
    let cluster = bench.cluster()?;

    let slots = |workers: u32| f64::from(workers * setup.threads);
    let work_s = f64::from(setup.n) * TASK.as_secs_f64();
    let half_s = work_s / slots(setup.workers) / 2.0;
    let values = std::thread::scope(|scope| {
        scope.spawn(|| {
            let at = start + Duration::from_secs_f64(half_s);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let all = cluster.nannies.len();
            cluster.kill_workers(all - KILLED as usize..all);
        });
        client.gather(remotes)
    })?;
    let elapsed = start.elapsed();

    let ok = values.into_iter().eq(0..setup.n);
    // What is finished at the kill is not lost; what was being run is.
    let rest_s = work_s / 2.0 / slots(setup.workers - KILLED) + TASK.as_secs_f64();
    Ok(Outcome::new(ok, elapsed).with_ideal(half_s + rest_s).with("killed_s", half_s))
}
