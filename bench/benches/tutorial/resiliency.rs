//! One of two pools leaves at half time: by SIGTERM, which is a notice, or by SIGKILL, which loses
//! what it runs.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use rdask_testbed::cluster::Cluster;
use rdask_testbed::proc::terminate;

use crate::{
    HALF_TIME, POOL_SLOTS, TASK, TASKS, back_to_one_pool, ideal, short, squares, squares_while,
};

pub(crate) fn resiliency(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resiliency");
    short(&mut group);
    let mut cluster = Cluster::new(1, POOL_SLOTS);
    let done = 2 * POOL_SLOTS * (HALF_TIME.as_millis() / TASK.as_millis()) as u32;
    let left = TASKS - done;

    let mut bench = |name: &str, ideal: String, end: Option<fn(&mut Cluster)>| {
        group.bench_function(BenchmarkId::new(name, ideal), |bencher| {
            bencher.iter_custom(|count| {
                let one = || {
                    cluster.add_workers(1, POOL_SLOTS);
                    // Connecting waits until the program is at work in both.
                    let client = cluster.client();
                    squares(&client, 2 * POOL_SLOTS);
                    let elapsed = squares_while(&client, &mut cluster, |cluster| {
                        if let Some(end) = end {
                            end(cluster);
                        }
                    });
                    back_to_one_pool(&client, &mut cluster);
                    elapsed
                };
                std::iter::repeat_with(one).take(count as usize).sum()
            });
        });
    };
    bench("both pools stay", ideal(Duration::ZERO, TASKS, 2 * POOL_SLOTS), None);
    // What it has just started still ends there.
    let by_term = ideal(HALF_TIME, left - POOL_SLOTS, POOL_SLOTS);
    bench("a pool leaves by TERM", by_term, Some(|cluster| terminate(cluster.nannies[1].pid())));
    // What it has just started runs again elsewhere.
    let by_kill = ideal(HALF_TIME, left + POOL_SLOTS, POOL_SLOTS);
    bench("a pool leaves by KILL", by_kill, Some(|cluster| cluster.kill_workers(1..2)));
}
