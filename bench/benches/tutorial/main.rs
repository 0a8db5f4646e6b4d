//! The tutorial's experiments with tasks of 50 ms: speed-up with the number of slots, scaling up
//! while tasks run, and the loss of a pool. Each benchmark is named with the least time it could
//! take; each iteration checks its results.
//!
//!     cargo bench -p rdask-bench                 # all, in a few minutes
//!     cargo bench -p rdask-bench -- resiliency   # some

#![allow(missing_docs, reason = "criterion's macros write items without")]

mod resiliency;
mod scale_up;
mod speed_up;

use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group};
use rdask::Client;
use rdask_testbed::cluster::Cluster;
use rdask_testbed::role;

const TASK: Duration = Duration::from_millis(50);

/// Slots of a pool, which is one worker, and tasks of an experiment with two pools.
const POOL_SLOTS: u32 = 4;
const TASKS: u32 = 64;

/// When a pool joins or leaves.
const HALF_TIME: Duration = Duration::from_millis(200);

fn square(x: f64) -> f64 {
    std::thread::sleep(TASK);
    x * x
}

fn inputs(count: u32) -> impl Iterator<Item = f64> {
    (0..count).map(f64::from)
}

/// Maps, gathers and checks.
fn squares(client: &Client, count: u32) {
    let squares = client.gather(client.map(square, inputs(count)));
    let squares = squares.expect("losses cost time and never a result");
    assert!(squares.into_iter().eq(inputs(count).map(|x| x * x)), "a wrong result");
}

/// The same while something happens to the cluster at half time; how long it took.
fn squares_while(
    client: &Client,
    cluster: &mut Cluster,
    event: impl FnOnce(&mut Cluster),
) -> Duration {
    let start = Instant::now();
    let remotes = client.map(square, inputs(TASKS));
    std::thread::sleep((start + HALF_TIME).saturating_duration_since(Instant::now()));
    event(cluster);
    let squares = client.gather(remotes).expect("losses cost time and never a result");
    let elapsed = start.elapsed();
    assert!(squares.into_iter().eq(inputs(TASKS).map(|x| x * x)), "a wrong result");
    elapsed
}

/// When `count` tasks of [`TASK`] are through if they begin after `begin` on so many slots.
fn ideal(begin: Duration, count: u32, slots: u32) -> String {
    let seconds = (begin + TASK * count.div_ceil(slots)).as_secs_f64();
    format!("ideal {seconds:.2} s")
}

/// Takes the last pool away, and waits until the scheduler knows.
fn back_to_one_pool(client: &Client, cluster: &mut Cluster) {
    cluster.nannies.truncate(1);
    while client.status().expect("the cluster answers").workers.len() > 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As few runs as criterion allows: each takes much of a second, and varies little.
fn short(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10);
    group.sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100));
    group.measurement_time(Duration::from_secs(4));
}

criterion_group!(benches, speed_up::speed_up, scale_up::scale_up, resiliency::resiliency);

fn main() {
    rdask::init();
    role::play(|scene, _, _| panic!("no scene {scene}"));
    benches();
    Criterion::default().configure_from_args().final_summary();
}
