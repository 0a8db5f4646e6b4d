//! What nobody needs does not run, and is not kept.

use std::path::Path;
use std::time::Duration;

use rdask::{Client, Remote};

use crate::cluster::{on_both, wait_until_forgotten};
use crate::proc::{wait_until, wait_within};

/// Says that it has started, and goes on when it may.
fn gated(folder: String, x: u32) -> Vec<u32> {
    std::fs::write(format!("{folder}/started-{x}"), "").unwrap();
    let gate = format!("{folder}/gate");
    wait_within(Duration::from_secs(60), "the gate", || Path::new(&gate).exists().then_some(()));
    vec![x; 10_000]
}

struct Gate(tempfile::TempDir);

impl Gate {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn task(&self, client: &Client, x: u32) -> Remote<Vec<u32>> {
        client.submit(gated, (self.0.path().to_str().unwrap().to_owned(), x))
    }

    fn started(&self) -> Vec<u32> {
        let names = std::fs::read_dir(self.0.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut started: Vec<u32> =
            names.filter_map(|name| name.strip_prefix("started-")?.parse().ok()).collect();
        started.sort_unstable();
        started
    }

    fn open(&self) {
        std::fs::write(self.0.path().join("gate"), "").unwrap();
    }
}

pub(crate) fn what_nobody_has_a_handle_of_does_not_start() {
    on_both(2, |client| {
        let gate = Gate::new();
        let running: Vec<_> = (0..2).map(|x| gate.task(client, x)).collect();
        wait_until("two tasks run", || gate.started() == [0, 1]);
        let waiting: Vec<_> = (2..50).map(|x| gate.task(client, x)).collect();
        let last = gate.task(client, 50);
        drop((running, waiting));
        wait_until("the scheduler has heard of it", || {
            let status = client.status().unwrap();
            status.waiting + status.ready + status.assigned == 1
        });
        gate.open();
        assert_eq!(last.result().unwrap().len(), 10_000);
        drop(last);
        wait_until_forgotten(client);
        assert_eq!(gate.started(), [0, 1, 50]);
    });
}

pub(crate) fn inputs_stay_while_a_dependent_needs_them() {
    on_both(2, |client| {
        let gate = Gate::new();
        let input = gate.task(client, 1);
        let scattered = client.scatter(vec![2.0; 20_000]);
        let table = client.submit(|x: u64| vec![x; 10_000], (3,));
        let add = |a: &Vec<u32>, b: Vec<f64>, c: &Vec<u64>| (a[9999], b[19_999], c[9999]);
        let sum = client.submit(add, (&input, &scattered, &table));
        drop((input, scattered, table));
        wait_until("the input is made", || gate.started() == [1]);
        gate.open();
        assert_eq!(sum.result().unwrap(), (1, 2.0, 3));
        drop(sum);
        wait_until_forgotten(client);
    });
}

pub(crate) fn a_part_of_a_map_keeps_only_itself() {
    on_both(2, |client| {
        let vectors = client.map(|x: u64| vec![x; 1000], 0..1000);
        client.wait(&vectors).unwrap();
        let (some, one) = (vectors.slice(100..110), vectors.get(500).unwrap());
        drop(vectors);
        wait_until("the others are forgotten", || client.status().unwrap().done <= 1000);
        assert_eq!(client.gather(&some).unwrap()[9], vec![109; 1000]);
        assert_eq!(one.result().unwrap(), vec![500; 1000]);
        drop((some, one));
        wait_until_forgotten(client);
    });
}

pub(crate) fn a_client_that_leaves_takes_its_tasks_along() {
    let cluster = crate::cluster::Cluster::new(1, 2);
    let (client, other) = (cluster.client(), cluster.client());
    let values = client.map(|x: u64| vec![x; 1000], 0..100);
    client.wait(&values).unwrap();
    assert_eq!(other.status().unwrap().done, 100);
    drop((values, client));
    wait_until_forgotten(&other);
    wait_until("one client", || other.status().unwrap().clients == 1);
}
