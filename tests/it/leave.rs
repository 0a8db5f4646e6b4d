//! Workers that leave in good order: what they have is not lost.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use rdask::{Client, Remotes};

use crate::cluster::Cluster;
use crate::proc::{children, terminate};

/// A file with a line for each run that began: the task, and the process that ran it.
struct Ledger(PathBuf);

impl Ledger {
    fn new(cluster: &Cluster) -> Self {
        Self(cluster.folder().join("ledger"))
    }

    fn path(&self) -> String {
        self.0.to_str().unwrap().to_owned()
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

fn note(ledger: &str, x: u32) {
    let mut file = OpenOptions::new().create(true).append(true).open(ledger).unwrap();
    file.write_all(format!("{x} {}\n", std::process::id()).as_bytes()).unwrap();
}

/// A mebibyte, after a while that lets others take their part.
fn mebibyte(x: u32, ledger: &String) -> Vec<u8> {
    note(ledger, x);
    std::thread::sleep(std::time::Duration::from_millis(20));
    vec![x as u8; 1 << 20]
}

fn sum(bytes: Vec<u8>) -> u64 {
    bytes.into_iter().map(u64::from).sum()
}

fn mebibytes(client: &Client, ledger: &Ledger, n: u32) -> Remotes<Vec<u8>> {
    let values = client.map_with(mebibyte, 0..n, ledger.path());
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
