//! Maps, and single tasks one after the other.

use std::time::{Duration, Instant};

use super::nap;
use crate::bench::{Bench, Setup};
use crate::outcome::Outcome;

pub(super) fn identity(x: u64) -> u64 {
    x
}

pub(super) fn square16(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let setup = bench.setup();
    let square = |x: f64| {
        std::thread::sleep(Duration::from_secs(1));
        x * x
    };
    let squares = client.gather(client.map(square, (0..setup.n).map(f64::from)))?;
    let elapsed = start.elapsed();
    let ok = squares.into_iter().eq((0..setup.n).map(|i| f64::from(i) * f64::from(i)));
    let rounds = setup.n.div_ceil(setup.workers * setup.threads);
    Ok(Outcome::new(ok, elapsed).with_ideal(f64::from(rounds)))
}

pub(super) fn noop(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let n = bench.setup().n;
    let remotes = client.map(identity, (0..n).map(u64::from));
    let submitted = start.elapsed();
    let values = client.gather(remotes)?;
    let elapsed = start.elapsed();
    let expected = u64::from(n) * u64::from(n - 1) / 2;
    let ok = values.len() == n as usize && values.iter().sum::<u64>() == expected;
    Ok(Outcome::new(ok, elapsed)
        .with_tasks(n)
        .with("submit_s", submitted.as_secs_f64())
        .with("tasks_per_s", f64::from(n) / elapsed.as_secs_f64()))
}

pub(super) fn latency(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, _) = bench.begin()?;
    round_trips(bench.setup().n, |i| Ok(client.submit(identity, (i,)).result()?))
}

/// The times of single tasks, one after the other, whose results are their arguments.
pub(crate) fn round_trips(
    n: u32,
    mut result: impl FnMut(u64) -> anyhow::Result<u64>,
) -> anyhow::Result<Outcome> {
    const WARM_UP: u32 = 100;
    let mut times = Vec::with_capacity(n as usize);
    let mut ok = true;
    for i in 0..WARM_UP + n {
        let start = Instant::now();
        ok &= result(u64::from(i))? == u64::from(i);
        if i >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    Ok(Outcome::new(ok, times.iter().sum())
        .with_tasks(n)
        .with("p50_us", at(50))
        .with("p99_us", at(99))
        .with("max_us", at(100)))
}

pub(super) fn sleep(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let setup = bench.setup();
    let remotes = client.map(nap, (0..setup.n).map(|i| (i.into(), setup.nap_us)));
    let values = client.gather(remotes)?;
    Ok(sleep_outcome(setup, values, start.elapsed()))
}

pub(crate) fn sleep_outcome(setup: &Setup, values: Vec<u64>, elapsed: Duration) -> Outcome {
    let ok = values.into_iter().eq((0..setup.n).map(u64::from));
    let rounds = setup.n.div_ceil(setup.workers * setup.threads);
    let ideal_s = f64::from(rounds) * f64::from(setup.nap_us) / 1e6;
    let outcome = Outcome::new(ok, elapsed).with_tasks(setup.n).with_ideal(ideal_s);
    outcome.with("nap_ms", f64::from(setup.nap_us) / 1e3)
}
