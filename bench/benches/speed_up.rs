//! The tutorial's speed-up: the same tasks of 50 ms on 1, 2, 4, 8 and 16 slots, inside one process
//! and over QUIC with separate ones. Ideal is 16 x 50 ms / slots.

#![allow(missing_docs, reason = "criterion's macros write items without")]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group};
use rdask::{Client, LocalCluster};
use rdask_testbed::cluster::Cluster;
use rdask_testbed::role;

const TASK: Duration = Duration::from_millis(50);

fn square(x: f64) -> f64 {
    std::thread::sleep(TASK);
    x * x
}

fn sixteen_squares(client: &Client) {
    let squares = client.gather(client.map(square, (0..16).map(f64::from)));
    let squares = squares.expect("no task fails");
    assert_eq!(squares[15], 225.0);
}

fn speed_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("16 tasks of 50 ms");
    group.sample_size(10);
    for slots in [1, 2, 4, 8, 16] {
        let cluster = LocalCluster::new().threads(slots).start().expect("threads start");
        let client = cluster.client().expect("the cluster answers");
        group.bench_function(BenchmarkId::new("embedded", slots), |bencher| {
            bencher.iter(|| sixteen_squares(&client));
        });
    }
    for slots in [1, 2, 4, 8, 16_u32] {
        // Workers of four slots, as the tutorial has them.
        let cluster = Cluster::new(slots.div_ceil(4), slots.min(4));
        let client = cluster.client();
        group.bench_function(BenchmarkId::new("QUIC", slots), |bencher| {
            bencher.iter(|| sixteen_squares(&client));
        });
    }
}

criterion_group!(benches, speed_up);

fn main() {
    rdask::init();
    role::play(|scene, _, _| panic!("no scene {scene}"));
    benches();
    Criterion::default().configure_from_args().final_summary();
}
