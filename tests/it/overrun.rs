//! Runs that ignore that they were told to stop, and what becomes of what ran beside them.

use std::time::{Duration, Instant};

use rdask::{Client, FailureKind, LocalCluster};

use crate::cluster::{Cluster, wait_until_forgotten};
use crate::proc::wait_until;

const GRACE: Duration = Duration::from_millis(700);

/// Never looks at its token.
fn endless(file: String) {
    std::fs::write(file, "begun").unwrap();
    loop {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Looks at its token.
fn patient(file: String) {
    std::fs::write(file, "begun").unwrap();
    while !rdask::context().is_cancelled() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Cancels a task once it runs.
fn cancel_running(client: &Client, function: fn(&Client, String) -> rdask::Remote<()>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("begun");
    let task = function(client, file.to_str().unwrap().to_owned());
    wait_until("the task runs", || file.exists());
    task.cancel();
    assert!(task.result().unwrap_err().is_cancelled());
}

fn strict_endless(client: &Client, file: String) -> rdask::Remote<()> {
    client.options().kill_grace(GRACE).submit(endless, (file,))
}

pub(crate) fn the_slot_of_a_cancelled_task_is_free_within_its_grace_time() {
    let cluster = Cluster::new(1, 1);
    let client = cluster.client();
    let before = cluster.processes();
    cancel_running(&client, |client, file| {
        client.options().kill_grace(GRACE * 20).submit(patient, (file,))
    });
    assert_eq!(client.submit(|x: u32| x + 1, (1,)).result().unwrap(), 2);
    assert_eq!(cluster.processes(), before, "who stops is not ended");

    cancel_running(&client, strict_endless);
    let begun = Instant::now();
    assert_eq!(client.submit(|x: u32| x + 1, (2,)).result().unwrap(), 3);
    assert!(begun.elapsed() >= GRACE / 2, "it was to have its grace: {:?}", begun.elapsed());
    assert_ne!(cluster.processes(), before, "its process was ended");
    wait_until_forgotten(&client);
}

pub(crate) fn a_thread_that_does_not_stop_is_left_alone() {
    let cluster = LocalCluster::new().threads(1).start().unwrap();
    let client = cluster.client().unwrap();
    cancel_running(&client, strict_endless);
    assert_eq!(client.submit(|x: u32| x + 1, (2,)).result().unwrap(), 3);
}

pub(crate) fn neighbours_of_a_task_that_does_not_time_out_in_good_order_are_right() {
    let cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("begun").to_str().unwrap().to_owned();
    let vectors = client.map(|x: u64| vec![x; 10_000], 0..40);
    client.wait(&vectors).unwrap();
    let before = cluster.processes();
    let hurried = client.options().timeout(Duration::from_millis(300)).kill_grace(GRACE);
    let slow = hurried.submit(endless, (file,));
    // Some of them are under way when the process is ended, and take longer than it waits.
    let sleepers = client.map(
        |x: u64| {
            std::thread::sleep(Duration::from_millis(if x.is_multiple_of(4) { 1500 } else { 50 }));
            x
        },
        0..16,
    );
    let error = slow.result().unwrap_err();
    let error = error.task().unwrap();
    assert_eq!((error.kind(), error.run()), (FailureKind::TimedOut, 1), "{error}");
    assert_eq!(client.gather(sleepers).unwrap(), (0..16).collect::<Vec<_>>());
    wait_until("a process is ended", || cluster.processes() != before);
    let sums = client.map(|vector: Vec<u64>| vector.iter().sum::<u64>(), &vectors);
    assert_eq!(client.gather(sums).unwrap(), (0..40).map(|x| x * 10_000).collect::<Vec<_>>());
}
