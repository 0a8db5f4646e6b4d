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
    let alone = counts.map(|tasks| best_time_of(&client, tasks));
    let other = cluster.program(&greedy(&cluster), "naps", &["1000000"]);
    wait_until("the other client is at work", || client.status().unwrap().assigned > 8);
    let shared = counts.map(|tasks| best_time_of(&client, tasks));
    drop(other);
    eprintln!("{counts:?} tasks alone {alone:?}, shared {shared:?}");
    for ((tasks, alone), shared) in counts.iter().zip(alone).zip(shared) {
        let allowed = alone.mul_f64(SHARED_OVER_ALONE);
        assert!(shared <= allowed, "{tasks} tasks: {alone:?} alone, {shared:?} beside a million");
    }
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
    // The second one has used nothing while the first one used 2 s of slot time.
    time_of(&busy, 2000);
    let greedy = idle.map(nap, 0..1_000_000);
    wait_until("the other client is at work", || idle.status().unwrap().assigned > 4);
    let alone = Duration::from_millis(250);
    let shared = time_of(&busy, 1000);
    drop(greedy);
    assert!(shared < alone * 4, "1000 tasks took {shared:?} beside one that had been idle");
}
