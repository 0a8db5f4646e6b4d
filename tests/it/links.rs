//! Links that break and peers that stand still: time is lost, and nothing else.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use rdask::{Client, Remotes};

use crate::cluster::{Cluster, Running};
use crate::path::Path;
use crate::proc::{children, go_on, stand_still, wait_until};

/// A run that takes a while and leaves a line: what ran twice has two.
fn run(ledger: String, index: u32) -> u32 {
    let mut file = OpenOptions::new().create(true).append(true).open(ledger).unwrap();
    // In one piece: it may be stopped or killed at any point.
    file.write_all(format!("{index}\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    index * 2
}

fn start(client: &Client, ledger: &FilePath, count: u32) -> Remotes<u32> {
    let ledger = ledger.to_str().unwrap().to_owned();
    client.map(
        |(ledger, index): (String, u32)| run(ledger, index),
        (0..count).map(|i| (ledger.clone(), i)),
    )
}

/// How often each task ran: the tasks that ran more than once, and how many ran at all.
fn runs(ledger: &FilePath) -> (Vec<u32>, usize) {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let mut lines: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    lines.sort_unstable();
    let twice = lines.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    lines.dedup();
    (twice, lines.len())
}

fn has_begun(ledger: &FilePath) {
    wait_until("some tasks ran", || runs(ledger).1 >= 8);
}

fn check(client: &Client, results: Remotes<u32>, count: u32) {
    assert_eq!(client.gather(results).unwrap(), (0..count).map(|i| i * 2).collect::<Vec<_>>());
}

fn ledger(cluster: &Cluster) -> PathBuf {
    cluster.folder().join("ledger")
}

/// A nanny and its processes.
fn all_of(nanny: &Running) -> Vec<u32> {
    std::iter::once(nanny.pid()).chain(children(nanny.pid())).collect()
}

pub(crate) fn a_client_whose_path_is_cut_for_seconds_misses_nothing() {
    const TASKS: u32 = 200;
    let cluster = Cluster::new(2, 1);
    drop(cluster.client());
    let path = Path::to(cluster.read_file().addresses[0]);
    let client = Client::connect(path.file(&cluster)).unwrap();
    let ledger = ledger(&cluster);
    let results = start(&client, &ledger, TASKS);
    has_begun(&ledger);
    path.cut();
    // What is submitted meanwhile waits.
    let more = client.map(|x: u32| x + 1, 0..1000);
    std::thread::sleep(Duration::from_secs(8));
    path.heal();
    check(&client, results, TASKS);
    assert_eq!(client.gather(more).unwrap(), (1..1001).collect::<Vec<_>>());
    assert_eq!(runs(&ledger), (vec![], TASKS as usize));
    let log = cluster.scheduler.log();
    assert!(log.contains("a link broke") && log.contains("has a link again"), "{log}");
}

pub(crate) fn a_worker_whose_path_is_cut_for_a_moment_keeps_its_work() {
    const TASKS: u32 = 60;
    let mut cluster = Cluster::empty();
    let path = Path::to(cluster.read_file().addresses[0]);
    cluster.add_with_file(&path.file(&cluster), "pool", &["w0:1"]);
    let client = cluster.client();
    let ledger = ledger(&cluster);
    let results = start(&client, &ledger, TASKS);
    has_begun(&ledger);
    path.cut();
    std::thread::sleep(Duration::from_secs(2));
    path.heal();
    check(&client, results, TASKS);
    assert_eq!(runs(&ledger), (vec![], TASKS as usize));
}

pub(crate) fn a_scheduler_that_stands_still_gives_nobody_up() {
    const TASKS: u32 = 60;
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let before = cluster.processes();
    let ledger = ledger(&cluster);
    let results = start(&client, &ledger, TASKS);
    has_begun(&ledger);
    let scheduler = [cluster.scheduler.pid()];
    stand_still(&scheduler);
    std::thread::sleep(Duration::from_secs(12));
    go_on(&scheduler);
    check(&client, results, TASKS);
    assert_eq!(runs(&ledger), (vec![], TASKS as usize));
    assert_eq!(cluster.processes(), before, "a process was ended");
    let log = cluster.scheduler.log();
    assert!(log.contains("stood still") && log.contains("has a link again"), "{log}");
}

pub(crate) fn a_node_that_stands_still_is_given_up_after_a_while_and_comes_back() {
    const TASKS: u32 = 200;
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let ledger = ledger(&cluster);
    let results = start(&client, &ledger, TASKS);
    has_begun(&ledger);
    let frozen = all_of(&cluster.nannies[1]);
    assert_eq!(frozen.len(), 2);
    stand_still(&frozen);
    std::thread::sleep(Duration::from_secs(2));
    go_on(&frozen);
    std::thread::sleep(Duration::from_secs(1));
    assert!(runs(&ledger).0.is_empty(), "two seconds were too many");
    stand_still(&frozen);
    wait_until("one worker is given up", || client.status().unwrap().workers.len() == 1);
    std::thread::sleep(Duration::from_secs(2));
    go_on(&frozen);
    check(&client, results, TASKS);
    // At most what it ran, and what it had ahead, ran elsewhere as well.
    let (twice, all) = runs(&ledger);
    assert!(twice.len() <= 2 && all == TASKS as usize, "{twice:?} ran twice");
    wait_until("the node is back", || {
        let workers = client.status().unwrap().workers;
        workers.len() == 2 && workers.iter().all(|worker| worker.processes == 1)
    });
    let there = client.options().workers(["w1"]).submit(|x: u32| x + 1, (1,));
    assert_eq!(there.result().unwrap(), 2);
    let log = cluster.scheduler.log();
    assert!(log.contains("came back too late"), "{log}");
}
