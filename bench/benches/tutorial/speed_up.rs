//! The same 16 tasks on 1, 2, 4, 8 and 16 slots, inside one process and over QUIC with separate
//! ones.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use rdask::LocalCluster;
use rdask_testbed::cluster::Cluster;

use crate::{POOL_SLOTS, ideal, short, squares};

const COUNT: u32 = 16;

pub(crate) fn speed_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("speed_up");
    short(&mut group);
    let id = |name: &str, slots: u32| {
        BenchmarkId::new(format!("{name}, {slots} slots"), ideal(Duration::ZERO, COUNT, slots))
    };
    for slots in [1, 2, 4, 8, 16] {
        let cluster = LocalCluster::new().threads(slots).start().expect("threads start");
        let client = cluster.client().expect("the cluster answers");
        group.bench_function(id("embedded", slots), |bencher| {
            bencher.iter(|| squares(&client, COUNT));
        });
    }
    for slots in [1, 2, 4, 8, 16_u32] {
        let cluster = Cluster::new(slots.div_ceil(POOL_SLOTS), slots.min(POOL_SLOTS));
        let client = cluster.client();
        group.bench_function(id("QUIC", slots), |bencher| {
            bencher.iter(|| squares(&client, COUNT));
        });
    }
}
