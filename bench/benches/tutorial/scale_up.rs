//! A second pool of the same size is launched while tasks run. The ideal is that of a pool that is
//! at work the moment it is launched; what it takes to start is in the figure.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use rdask_testbed::cluster::Cluster;

use crate::{
    HALF_TIME, POOL_SLOTS, TASK, TASKS, back_to_one_pool, ideal, short, squares, squares_while,
};

pub(crate) fn scale_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scale_up");
    short(&mut group);
    let mut cluster = Cluster::new(1, POOL_SLOTS);
    let client = cluster.client();
    squares(&client, POOL_SLOTS);
    let alone = BenchmarkId::new("one pool", ideal(Duration::ZERO, TASKS, POOL_SLOTS));
    group.bench_function(alone, |bencher| bencher.iter(|| squares(&client, TASKS)));

    let done = POOL_SLOTS * (HALF_TIME.as_millis() / TASK.as_millis()) as u32;
    let joined = ideal(HALF_TIME, TASKS - done, 2 * POOL_SLOTS);
    group.bench_function(BenchmarkId::new("a pool joins", joined), |bencher| {
        bencher.iter_custom(|count| {
            let one = || {
                let elapsed = squares_while(&client, &mut cluster, |cluster| {
                    cluster.add_workers(1, POOL_SLOTS);
                });
                back_to_one_pool(&client, &mut cluster);
                elapsed
            };
            std::iter::repeat_with(one).take(count as usize).sum()
        });
    });
}
