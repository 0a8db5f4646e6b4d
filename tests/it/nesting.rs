//! Tasks that submit tasks and wait for them.

use std::time::Duration;

use rdask::{Client, LocalCluster};

use crate::cluster::{Cluster, wait_until_forgotten};
use crate::proc::wait_until;

fn child(x: u64) -> u64 {
    x * 2
}

fn parent(x: u64) -> rdask::Result<u64> {
    let client = rdask::context().client()?;
    Ok(client.submit(child, (x,)).result()? + 1)
}

fn check_parents(client: &Client) {
    const PARENTS: u64 = 10_000;
    let parents = client.try_map(parent, 0..PARENTS);
    let values = client.gather(&parents).unwrap();
    assert!(values.iter().zip(0..).all(|(value, x)| *value == 2 * x + 1));
    drop(parents);
    wait_until_forgotten(client);
}

pub(crate) fn ten_thousand_parents_wait_for_children_on_two_threads() {
    let cluster = LocalCluster::new().threads(2).start().unwrap();
    check_parents(&cluster.client().unwrap());
}

pub(crate) fn ten_thousand_parents_wait_for_children_on_processes_with_two_slots() {
    check_parents(&Cluster::new(1, 2).client());
}

pub(crate) fn ten_thousand_parents_wait_for_children_in_two_processes() {
    check_parents(&Cluster::new(2, 1).client());
}

fn fibonacci(n: u64) -> rdask::Result<u64> {
    if n < 2 {
        return Ok(n);
    }
    let client = rdask::context().client()?;
    let smaller = client.try_map(fibonacci, [n - 1, n - 2]);
    Ok(client.gather(smaller)?.iter().sum())
}

pub(crate) fn nesting_may_be_deep() {
    crate::cluster::on_both(2, |client| {
        assert_eq!(client.try_submit(fibonacci, (15,)).result().unwrap(), 610);
        wait_until_forgotten(client);
    });
}

/// Notes its start and then takes until it is cancelled, or for ever.
fn endless(folder: String, name: String) {
    std::fs::write(format!("{folder}/{name}"), "").unwrap();
    let context = rdask::context();
    while !context.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(format!("{folder}/{name}-cancelled"), "").unwrap();
}

fn parent_of_endless(folder: String) -> rdask::Result<()> {
    let client = rdask::context().client()?;
    let names = ["a", "b", "c", "d"].map(str::to_owned);
    client.gather(client.map_with(
        |name: String, f: &String| endless(f.clone(), name),
        names,
        folder,
    ))?;
    Ok(())
}

pub(crate) fn what_a_cancelled_task_has_submitted_is_cancelled() {
    crate::cluster::on_both(2, |client| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let folder_name = folder.path().to_str().unwrap().to_owned();
        let parent = client.try_submit(parent_of_endless, (folder_name,));
        // There are two slots: two of the four children run.
        wait_until("two children run", || path("a").exists() && path("b").exists());
        parent.cancel();
        assert!(parent.result().unwrap_err().is_cancelled());
        wait_until("they hear of it", || {
            path("a-cancelled").exists() && path("b-cancelled").exists()
        });
        drop(parent);
        wait_until_forgotten(client);
        assert!(!path("c").exists() && !path("d").exists(), "others have started");
    });
}
