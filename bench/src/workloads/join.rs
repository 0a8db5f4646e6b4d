//! As many workers again join while tasks run.

use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::joins::{Watch, ideal_list_s, slots};
use crate::outcome::Outcome;

/// When the new workers are launched.
const LAUNCH_AT: Duration = Duration::from_secs(2);

/// How long a task sleeps.
const TASK: Duration = Duration::from_secs(1);

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let setup = bench.setup().clone();
    let (client, start) = bench.begin()?;
    let nap = |i: u32| {
        std::thread::sleep(TASK);
        i
    };
    let remotes = client.map(nap, 0..setup.n);
    let cluster = bench.cluster()?;
    let watch = Watch::start(&client, start)?;
    std::thread::sleep((start + LAUNCH_AT).saturating_duration_since(Instant::now()));
    cluster.add_workers(setup.workers, setup.threads);
    let values = client.gather(remotes)?;
    let elapsed = start.elapsed();
    let joined_s = watch.joined_s()?;

    let ok = values.into_iter().eq(0..setup.n);
    let ideal_s = |joined_s: &[f64]| {
        ideal_list_s(setup.n, TASK.as_secs_f64(), &slots(joined_s, setup.threads))
    };
    let at_once = [0.0, LAUNCH_AT.as_secs_f64()].map(|joined| vec![joined; setup.workers as usize]);
    Ok(Outcome::new(ok, elapsed)
        .with_ideal(ideal_s(&joined_s))
        .with("ideal_instant_s", ideal_s(&at_once.concat()))
        .with("joined_s", joined_s))
}
