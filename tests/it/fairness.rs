//! Clients share slots, whoever has more to do.

use std::path::Path;
use std::time::{Duration, Instant};

use rdask::Client;

use crate::cluster::Cluster;
use crate::proc::wait_until;
use crate::program::rebuilt;

/// What the second of two clients may take, by the time that it takes alone.
const SHARED_OVER_ALONE: f64 = 2.0 * 1.2;

/// The best of so many tries counts.
const TRIES: u32 = 10;

/// Others may use the machine while one of both is measured: it is measured so often again.
const ROUNDS: u32 = 3;

/// A task of 1 ms.
pub(crate) fn nap(x: u32) -> u32 {
    std::thread::sleep(Duration::from_millis(1));
    x
}

fn time_of(client: &Client, tasks: u32) -> Duration {
    let started = Instant::now();
    client.gather(client.map(nap, 0..tasks)).unwrap();
    started.elapsed()
}

fn best_time_of(client: &Client, tasks: u32) -> Duration {
    (0..TRIES).map(|_| time_of(client, tasks)).min().unwrap()
}

/// A client with `tasks` tasks takes its time alone, and beside one with a million.
#[expect(clippy::print_stderr, reason = "figures for whoever reads the log")]
fn check(greedy: impl FnOnce(&Cluster) -> std::path::PathBuf) {
    let cluster = Cluster::new(1, 8);
    let client = cluster.client();
    // Few tasks, whose delays weigh most, and as many as take a moment.
    let counts = [100, 1000];
    best_time_of(&client, 1000);
    let program = greedy(&cluster);
    let mut unfair = Vec::new();
    for _ in 0..ROUNDS {
        let alone = counts.map(|tasks| best_time_of(&client, tasks));
        let other = cluster.program(&program, "naps", &["1000000"]);
        wait_until("the other client is at work", || client.status().unwrap().assigned > 8);
        let shared = counts.map(|tasks| best_time_of(&client, tasks));
        drop(other);
        wait_until("the other client is gone", || client.status().unwrap().clients == 1);
        eprintln!("{counts:?} tasks alone {alone:?}, shared {shared:?}");
        let is_fair = |nth: usize| shared[nth] <= alone[nth].mul_f64(SHARED_OVER_ALONE);
        if is_fair(0) && is_fair(1) {
            return;
        }
        unfair.push((alone, shared));
    }
    panic!("{counts:?} tasks alone and beside a million: {unfair:?}");
}

pub(crate) fn a_second_client_of_a_program_gets_its_half() {
    check(|_| Path::new("/proc/self/exe").canonicalize().unwrap());
}

pub(crate) fn a_client_of_a_second_program_gets_its_half() {
    check(|cluster| rebuilt(cluster.folder(), 1));
}

/// Slot time that was not used is gone: nobody saves it up.
pub(crate) fn a_client_that_was_idle_gets_its_half_and_no_more() {
    let cluster = Cluster::new(1, 4);
    let (busy, idle) = (cluster.client(), cluster.client());
    // The second one has used nothing while the first one used 8 s of slot time: 2 s of its own,
    // if it could save them up.
    let saved_up = time_of(&busy, 8000);
    let greedy = idle.map(nap, 0..1_000_000);
    wait_until("the other client is at work", || idle.status().unwrap().assigned > 4);
    let shared = time_of(&busy, 1000);
    drop(greedy);
    let (half, allowed) = (saved_up / 8 * 2, saved_up / 8 * 2 + saved_up / 2);
    assert!(shared < allowed, "{shared:?}, not {half:?}, beside one that had been idle");
}
