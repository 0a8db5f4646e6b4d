//! Many tasks: how long they take, what they come to, and what they cost the scheduler.

use std::time::{Duration, Instant};

use rdask::Remote;

use crate::cluster::{Cluster, wait_until_forgotten};
use crate::proc::memory;

/// Somebody else may use the machine for a while: the best of so many tries counts.
const TRIES: u32 = 3;

pub(crate) fn many_tiny_tasks_are_mapped_and_gathered_in_seconds() {
    let (n, bound) = if cfg!(debug_assertions) { (200_000, 20) } else { (1_000_000, 5) };
    let bound = Duration::from_secs(bound);
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let started = Instant::now();
        let values = client.gather(client.map(|x: u64| x + 1, 0..n)).unwrap();
        times.push(started.elapsed());
        assert_eq!(values.len() as u64, n);
        assert!(values.iter().zip(1..).all(|(value, expected)| *value == expected));
        if times.iter().any(|time| *time < bound) {
            wait_until_forgotten(&client);
            return;
        }
    }
    panic!("{n} tasks in {times:?}, not {bound:?}");
}

/// Each task takes the results of two earlier ones; the client computes the same.
pub(crate) fn a_random_graph_of_ten_thousand_tasks_has_the_right_values() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let mix = |a: u64, b: u64| (a ^ b.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut state = 7_u64;
    let mut draw = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % bound
    };
    let mut remotes: Vec<Remote<u64>> = vec![client.submit(|x: u64| x, (1,))];
    let mut expected = vec![1_u64];
    for _ in 1..10_000 {
        let (a, b) = (draw(remotes.len()), draw(remotes.len()));
        remotes.push(client.submit(mix, (&remotes[a], &remotes[b])));
        expected.push(mix(expected[a], expected[b]));
    }
    assert_eq!(client.gather(&remotes).unwrap(), expected);
    drop(remotes);
    wait_until_forgotten(&client);
}

/// The scheduler's memory at its peak, after a map of so many tasks with numbers of 8 bytes.
fn peak_with(n: u32) -> u64 {
    let cluster = Cluster::new(1, 2);
    let client = cluster.client();
    let values = client.gather(client.map(|x: f64| x + 1.0, (0..n).map(f64::from))).unwrap();
    assert_eq!(values.last(), Some(&f64::from(n)));
    memory(cluster.scheduler.pid(), "VmHWM")
}

#[expect(clippy::print_stderr, reason = "a test that says why it has not run")]
pub(crate) fn a_tiny_task_costs_the_scheduler_its_values_and_sixteen_bytes() {
    const MILLION: u32 = 1_000_000;
    if cfg!(debug_assertions) {
        eprintln!("skipped: four million tasks take too long without --release");
        return;
    }
    let (one, four) = (peak_with(MILLION), peak_with(4 * MILLION));
    let allowed = 3 * u64::from(MILLION) * (8 + 8 + 16);
    let grown = four.saturating_sub(one);
    eprintln!("scheduler: {} MB with 1 M tasks, {} MB with 4 M", one / 1_000_000, four / 1_000_000);
    assert!(grown <= allowed, "3 M more tasks cost {grown} bytes, not {allowed}");
}
