//! Tasks that end their processes: they are found, told how, and nobody else pays for it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use rdask::{Client, FailureKind, Remotes, TaskError};

use crate::cluster::{Cluster, wait_until_forgotten};
use crate::proc::{kill_9, wait_for};

/// Notes a run: task, run, process.
fn note(ledger: &str, task: u32) {
    let run = rdask::context().run();
    let mut file = OpenOptions::new().append(true).create(true).open(ledger).unwrap();
    // In one piece: others read while this writes.
    let line = format!("{task} {run} {}\n", std::process::id());
    file.write_all(line.as_bytes()).unwrap();
}

/// The runs of each task, and the processes they ran in.
fn runs(ledger: &str) -> BTreeMap<u32, Vec<(u32, u32)>> {
    let mut runs: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    for line in text.lines() {
        let mut words = line.split(' ').map(|word| word.parse::<u32>().unwrap());
        let mut next = || words.next().unwrap();
        runs.entry(next()).or_default().push((next(), next()));
    }
    runs
}

fn failure<T: std::fmt::Debug>(result: rdask::Result<T>) -> TaskError {
    match result {
        Err(rdask::Error::Task(error)) => error,
        other => panic!("no failure of a task: {other:?}"),
    }
}

/// Asserts that these tasks, and no others, ended as killers.
fn only_these_killed(client: &Client, values: &Remotes<u32>, killers: &[u32]) {
    client.wait(values).unwrap();
    for (x, value) in (0..).zip(values) {
        let result = value.result();
        if killers.contains(&x) {
            assert_eq!(failure(result).kind(), FailureKind::Killed, "task {x}");
        } else {
            assert_eq!(result.unwrap(), x * 3);
        }
    }
}

fn aborts_at_500(ledger: &str, x: u32) -> u32 {
    if x == 500 {
        note(ledger, x);
        std::process::abort();
    }
    std::thread::sleep(Duration::from_millis(2));
    x * 3
}

pub(crate) fn a_killer_among_a_thousand_ends_after_three_runs_and_the_others_are_right() {
    let cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let ledger = cluster.folder().join("ledger").to_str().unwrap().to_owned();
    let values = client.map_with(
        |x: u32, ledger: &String| aborts_at_500(ledger, x),
        0..1000,
        client.scatter(ledger.clone()),
    );
    only_these_killed(&client, &values, &[500]);
    let runs = runs(&ledger);
    let of_killer: Vec<u32> = runs[&500].iter().map(|(run, _)| *run).collect();
    assert_eq!(of_killer, [1, 2, 3]);
    let error = failure(values[500].result());
    let told = error.message();
    assert_eq!(told.matches("signal 6 (SIGABRT) ended it").count(), 3, "{told}");
    for run in 1..=3 {
        assert!(told.contains(&format!("run {run} (worker w")), "{told}");
    }
    assert!(told.contains("on here, pool pool)"), "{told}");
    assert!(error.function().contains("closure"), "{}", error.function());
    drop(values);
    wait_until_forgotten(&client);
}

fn overflow(depth: u64) -> u64 {
    let space = std::hint::black_box([depth; 512]);
    if depth == u64::MAX { 0 } else { overflow(depth + 1) + space[7] }
}

/// Ends its process in one way or another.
fn dies(how: u32) -> u32 {
    match how {
        0 => std::process::abort(),
        1 => std::process::exit(3),
        2 => u32::try_from(overflow(0) % 7).unwrap(),
        // The first one is for the handler that looks for overflowed stacks.
        3 => loop {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV).unwrap();
        },
        _ => how * 3,
    }
}

pub(crate) fn each_way_to_die_is_told() {
    let cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let values = client.map(dies, 0..8);
    only_these_killed(&client, &values, &[0, 1, 2, 3]);
    let told = |nth: usize| failure(values[nth].result()).message().to_owned();
    assert!(told(0).contains("signal 6 (SIGABRT) ended it"), "{}", told(0));
    assert!(told(1).contains("it exited with code 3"), "{}", told(1));
    assert!(told(2).contains("has overflowed its stack"), "{}", told(2));
    assert!(told(3).contains("signal 11 (SIGSEGV) ended it"), "{}", told(3));
}

/// Takes more memory than its worker may, slowly.
fn hog(x: u32) -> u32 {
    if x == 3 {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for _ in 0..200 {
            all.push(vec![1; 8 << 20]);
            std::thread::sleep(Duration::from_millis(10));
        }
        return all.len() as u32;
    }
    x * 3
}

pub(crate) fn a_memory_hog_is_told_to_be_one() {
    let mut cluster = Cluster::empty();
    cluster.add("pool", &["w0:2:memory_mib=400"]);
    cluster.add("pool", &["w1:2:memory_mib=400"]);
    let client = cluster.client();
    let values = client.map(hog, 0..20);
    only_these_killed(&client, &values, &[3]);
    let error = failure(values[3].result());
    let told = error.message();
    let words = "it ran out of memory, of which its worker has 400 MiB";
    assert_eq!(told.matches(words).count(), 3, "{told}");
}

fn dies_in_its_first_run(x: u32) -> u32 {
    if x.is_multiple_of(5) && rdask::context().run() == 1 {
        std::process::abort();
    }
    x * 3
}

pub(crate) fn who_dies_once_succeeds() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let values = client.map(dies_in_its_first_run, 0..20);
    only_these_killed(&client, &values, &[]);
}

async fn aborts_later(x: u32) -> u32 {
    tokio::time::sleep(Duration::from_millis(5)).await;
    if x == 1 {
        std::process::abort();
    }
    x * 3
}

pub(crate) fn async_tasks_are_on_the_board_too() {
    let cluster = Cluster::new(1, 2);
    let client = cluster.client();
    let values = client.map(aborts_later, 0..6);
    only_these_killed(&client, &values, &[1]);
}

/// Its result can't be told to others.
#[derive(serde::Deserialize)]
struct Deadly(Vec<u8>);

impl serde::Serialize for Deadly {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.len() > 5000 {
            std::process::abort();
        }
        self.0.serialize(serializer)
    }
}

pub(crate) fn a_result_that_kills_when_it_is_encoded_is_not_made_for_ever() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let deadly = client.submit(|len: usize| Deadly(vec![0; len]), (6000,));
    let Err(error) = deadly.result() else { panic!("it can't be told") };
    assert_eq!(error.task().unwrap().kind(), FailureKind::Killed, "{error}");
    assert_eq!(client.submit(|x: u32| x + 1, (1,)).result().unwrap(), 2);
}

fn long(ledger: &str, x: u32) -> u32 {
    note(ledger, x);
    std::thread::sleep(Duration::from_millis(400));
    x * 3
}

pub(crate) fn processes_killed_from_outside_cost_time_only() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let ledger = cluster.folder().join("ledger").to_str().unwrap().to_owned();
    let path = client.scatter(ledger.clone());
    let values = client.map_with(|x: u32, ledger: &String| long(ledger, x), 0..16, &path);
    // Five times the process of a task that was not hit before.
    let mut hit: Vec<u32> = Vec::new();
    for _ in 0..5 {
        let (task, pid) = wait_for("a task that runs", || {
            let runs = runs(&ledger);
            let mut fresh = runs.iter().filter(|(task, _)| !hit.contains(task));
            let live = cluster.processes();
            fresh.find_map(|(task, runs)| {
                let (_, pid) = runs.last()?;
                (runs.len() == 1 && live.contains(pid) && is_last(&ledger, *task, *pid))
                    .then_some((*task, *pid))
            })
        });
        hit.push(task);
        kill_9(pid);
    }
    only_these_killed(&client, &values, &[]);
    let runs = runs(&ledger);
    assert!(runs.values().all(|runs| runs.len() <= 2), "{runs:?}");
    assert!(runs.values().map(Vec::len).sum::<usize>() <= 16 + 5, "{runs:?}");
}

/// Whether it is the last that its process has begun.
fn is_last(ledger: &str, task: u32, pid: u32) -> bool {
    let text = std::fs::read_to_string(ledger).unwrap();
    let last = text.lines().rfind(|line| line.ends_with(&format!(" {pid}")));
    last.is_some_and(|line| line.starts_with(&format!("{task} ")))
}
