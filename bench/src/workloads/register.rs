//! Many workers join at once, from one process, and a program starts in each of them.

use std::time::Instant;

use super::maps::identity;
use crate::bench::Bench;
use crate::outcome::Outcome;

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let setup = bench.setup().clone();
    let client = bench.connect_alone()?;
    let start = bench.start_clock();
    let at_work_s = bench.emulate(setup.workers, setup.threads)?.wait_until_at_work();
    let elapsed = start.elapsed();
    let cpu_s = bench.scheduler_cpu_s();
    let joined = client.status()?.workers.len();

    // They are of use, too.
    let begun = Instant::now();
    let n = u64::from(setup.n);
    let values = client.gather(client.map(identity, 0..n))?;
    let ok = joined == setup.workers as usize && values.into_iter().eq(0..n);
    let peers = 2.0 * f64::from(setup.workers);
    Ok(Outcome::new(ok, elapsed)
        .with("peers", peers)
        .with("at_work_s", at_work_s)
        .with("scheduler_cpu_us_per_peer", cpu_s * 1e6 / peers)
        .with("first_map_s", begun.elapsed().as_secs_f64()))
}
