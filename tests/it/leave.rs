//! Workers that leave in good order: what they have is not lost.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use rdask::{Client, Remotes};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::proc::{children, is_alive, kill_9, terminate, wait_until};

/// A file with a line for each run that began: the task, and the process that ran it.
#[derive(Clone, Serialize, Deserialize)]
struct Ledger(PathBuf);

impl Ledger {
    fn new(cluster: &Cluster) -> Self {
        Self(cluster.folder().join("ledger"))
    }

    fn note(&self, x: u32) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        file.write_all(format!("{x} {}\n", std::process::id()).as_bytes()).unwrap();
    }

    fn lines(&self) -> Vec<(u32, u32)> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let number = |word: &str| word.parse().unwrap();
        let line = |line: &str| line.split_once(' ').map(|(x, pid)| (number(x), number(pid)));
        text.lines().map(|text| line(text).unwrap()).collect()
    }

    fn check_that_each_ran_once(&self, n: u32) {
        let mut tasks: Vec<u32> = self.lines().into_iter().map(|(x, _)| x).collect();
        tasks.sort_unstable();
        assert_eq!(tasks, (0..n).collect::<Vec<_>>(), "each task runs once");
    }
}

/// A mebibyte, after a while that lets others take their part.
fn mebibyte(x: u32, ledger: &Ledger) -> Vec<u8> {
    ledger.note(x);
    std::thread::sleep(std::time::Duration::from_millis(20));
    vec![x as u8; 1 << 20]
}

fn sum(bytes: Vec<u8>) -> u64 {
    bytes.into_iter().map(u64::from).sum()
}

fn mebibytes(client: &Client, ledger: &Ledger, n: u32) -> Remotes<Vec<u8>> {
    let values = client.map_with(mebibyte, 0..n, ledger.clone());
    client.wait(&values).unwrap();
    values
}

fn check_sums(client: &Client, values: &Remotes<Vec<u8>>) {
    let sums = client.gather(client.map(sum, values)).unwrap();
    let expected = (0..sums.len() as u64).map(|x| (x % 256) << 20);
    assert_eq!(sums, expected.collect::<Vec<_>>());
}

pub(crate) fn what_a_leaving_worker_holds_is_copied_and_not_made_again() {
    let mut cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let ledger = Ledger::new(&cluster);
    let values = mebibytes(&client, &ledger, 64);
    let homes: BTreeSet<u32> = ledger.lines().into_iter().map(|(_, pid)| pid).collect();
    assert_eq!(homes.len(), 2, "both have results");
    let first = children(cluster.nannies[0].pid());
    terminate(cluster.nannies[0].pid());
    assert!(cluster.nannies[0].wait().success(), "{}", cluster.nannies[0].log());
    assert!(homes.contains(&first[0]), "the one that left had some");
    check_sums(&client, &values);
    ledger.check_that_each_ran_once(64);
}

pub(crate) fn retired_workers_go_and_leave_what_they_hold() {
    let mut cluster = Cluster::empty();
    cluster.add("first", &["a0:1", "a1:1"]);
    cluster.add("second", &["b0:1"]);
    let client = cluster.client();
    let ledger = Ledger::new(&cluster);
    let values = mebibytes(&client, &ledger, 24);
    let error = client.retire_workers(["a0", "nobody"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "no pool and no worker is called nobody; there are first, second, a0, a1, b0"
    );
    // One worker of a nanny, which stays for the other.
    assert_eq!(client.retire_workers(["a0"]).unwrap(), 1);
    wait_until("one process less", || children(cluster.nannies[0].pid()).len() == 1);
    assert_eq!(client.status().unwrap().workers.len(), 2);
    assert_eq!(client.retire_workers(["first"]).unwrap(), 1);
    assert!(cluster.nannies[0].wait().success(), "{}", cluster.nannies[0].log());
    check_sums(&client, &values);
    ledger.check_that_each_ran_once(24);
}

pub(crate) fn a_scattered_value_with_two_holders_survives_the_death_of_one() {
    let cluster = Cluster::new(3, 1);
    let client = cluster.client();
    // Whichever process dies, and whichever next.
    for nth in 0..2 {
        let value = client.options().replicas(2).scatter(vec![7_u8; 1 << 20]);
        client.wait([&value]).unwrap();
        let size = |value: Vec<u8>| value.len();
        // A copy is on its way as soon as the first holder has it; this comes to it last.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let process = children(cluster.nannies[nth].pid())[0];
        kill_9(process);
        wait_until("it is replaced", || {
            children(cluster.nannies[nth].pid()).iter().any(|pid| *pid != process)
        });
        std::thread::sleep(std::time::Duration::from_secs(1));
        let other = children(cluster.nannies[nth + 1].pid())[0];
        kill_9(other);
        assert_eq!(client.submit(size, (&value,)).result().unwrap(), 1 << 20);
    }
}

/// Tells its process, and ends a little later.
fn slow(x: u32, ledger: &Ledger) -> u32 {
    ledger.note(x);
    std::thread::sleep(std::time::Duration::from_millis(700));
    u32::from(rdask::context().is_ending())
}

pub(crate) fn a_process_that_gets_sigterm_goes_on() {
    let cluster = Cluster::new(1, 1);
    let client = cluster.client();
    let ledger = Ledger::new(&cluster);
    let seen = client.map_with(slow, 0..1, ledger.clone());
    wait_until("it runs", || !ledger.lines().is_empty());
    terminate(cluster.processes()[0]);
    assert_eq!(client.gather(seen).unwrap(), [1], "the task saw it, and ended as it would");
    ledger.check_that_each_ran_once(1);
}

pub(crate) fn a_nanny_whose_parent_dies_takes_that_as_a_notice() {
    let cluster = Cluster::new(1, 1);
    let client = cluster.client();
    let ledger = Ledger::new(&cluster);
    let (mut shell, log) = cluster.add_below_shell("job", "w1:1");
    wait_until("its worker", || client.status().unwrap().workers.len() == 2);
    let values = mebibytes(&client, &ledger, 16);
    let nanny = children(shell.id())[0];
    shell.kill().unwrap();
    shell.wait().unwrap();
    wait_until("the end of the nanny", || !is_alive(nanny));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("got SIGTERM: leaving"), "{log}");
    check_sums(&client, &values);
    ledger.check_that_each_ran_once(16);
}
