//! How and where tasks run, as their options say.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rdask::FailureKind;

use crate::cluster::{Cluster, on_both};
use crate::proc::wait_until;

/// Adds a line to a file.
fn note(file: &str, line: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Runs until a file is there.
fn until(file: String, started: String) {
    std::fs::write(started, "").unwrap();
    while !Path::new(&file).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn higher_priorities_go_first() {
    on_both(1, |client| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let first = client.submit(until, (path("gate"), path("started")));
        wait_until("the slot is taken", || Path::new(&path("started")).exists());
        let priorities = [0, 5, -3, 9, 5, 1];
        let tasks: Vec<_> = priorities
            .into_iter()
            .map(|priority| {
                let options = client.options().priority(priority);
                let noted = |file: String, p: i32| note(&file, &p.to_string());
                options.submit(noted, (path("order"), priority))
            })
            .collect();
        // The scheduler has them all when it answers.
        client.status().unwrap();
        std::fs::write(path("gate"), "").unwrap();
        client.wait(&tasks).unwrap();
        first.wait().unwrap();
        assert_eq!(lines(Path::new(&path("order"))), ["9", "5", "5", "1", "0", "-3"]);
    });
}

/// Fails in its first runs.
fn third_time_lucky(file: String) -> Result<u32, String> {
    let run = rdask::context().run();
    note(&file, &run.to_string());
    if run < 3 { Err(format!("run {run} fails")) } else { Ok(run) }
}

pub(crate) fn failed_tasks_run_again_as_often_as_they_may() {
    on_both(2, |client| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let value = client.options().retries(2).try_submit(third_time_lucky, (path("a"),));
        assert_eq!(value.result().unwrap(), 3);
        assert_eq!(lines(Path::new(&path("a"))), ["1", "2", "3"]);
        let value = client.options().retries(1).try_submit(third_time_lucky, (path("b"),));
        let error = value.result().unwrap_err();
        let error = error.task().unwrap();
        assert_eq!((error.message(), error.run()), ("run 2 fails", 2));
        assert_eq!(lines(Path::new(&path("b"))), ["1", "2"]);
    });
}

pub(crate) fn a_run_may_time_out() {
    on_both(2, |client| {
        let hurried = client.options().timeout(Duration::from_millis(100));
        let slow = hurried.submit(|ms: u64| std::thread::sleep(Duration::from_millis(ms)), (2000,));
        let error = slow.result().unwrap_err();
        assert_eq!(error.task().unwrap().kind(), FailureKind::TimedOut);
        assert_eq!(hurried.submit(|x: u32| x, (1,)).result().unwrap(), 1);
    });
}

/// Notes its beginning and end; the task takes long enough to be seen beside others.
fn noted(file: String, weight: u32) {
    note(&file, &format!("+{weight}"));
    std::thread::sleep(Duration::from_millis(20));
    note(&file, &format!("-{weight}"));
}

/// The most weight that was at work at a time.
fn peak(file: &Path) -> u32 {
    let (mut now, mut peak) = (0, 0);
    for line in lines(file) {
        let (sign, weight) = line.split_at(1);
        let weight: u32 = weight.parse().unwrap();
        if sign == "+" {
            now += weight
        } else {
            now -= weight
        }
        peak = peak.max(now);
    }
    assert_eq!(now, 0, "what begins ends");
    peak
}

pub(crate) fn wide_tasks_take_as_many_slots_as_they_say() {
    let cluster = Cluster::new(1, 4);
    let client = cluster.client();
    let file = cluster.folder().join("slots");
    let name = file.to_str().unwrap().to_owned();
    let mut tasks = Vec::new();
    for nth in 0..30 {
        let width = [1, 4, 2][nth % 3];
        let options = client.options().threads(width);
        tasks.push(options.submit(noted, (name.clone(), u32::from(width))));
    }
    client.gather(tasks).unwrap();
    let peak = peak(&file);
    assert!(peak == 4, "{peak} slots were at work, of 4");
}

pub(crate) fn resources_limit_what_runs_at_a_time() {
    let mut cluster = Cluster::empty();
    cluster.add("pool", &["w0:4:GPU=1", "w1:4"]);
    let client = cluster.client();
    let file = cluster.folder().join("gpu");
    let name = file.to_str().unwrap().to_owned();
    let gpu = client.options().resource("GPU", 1.0);
    let halves = client.options().resource("GPU", 0.5);
    let where_it_runs = |file: String, weight: u32| {
        noted(file, weight);
        rdask::context().worker().to_owned()
    };
    let mut tasks: Vec<_> = (0..10).map(|_| gpu.submit(where_it_runs, (name.clone(), 2))).collect();
    tasks.extend((0..10).map(|_| halves.submit(where_it_runs, (name.clone(), 1))));
    assert!(client.gather(tasks).unwrap().iter().all(|worker| worker == "w0"));
    assert_eq!(peak(&file), 2, "in halves of the one there is");
}

pub(crate) fn tasks_run_where_they_may() {
    let mut cluster = Cluster::empty();
    cluster.add("left", &["w0:1", "w1:1"]);
    cluster.add("right", &["w2:1"]);
    let client = cluster.client();
    wait_until("three workers", || {
        let workers = client.status().unwrap().workers;
        workers.len() == 3 && workers.iter().all(|worker| worker.processes == 1)
    });
    let place = |_: u32| {
        std::thread::sleep(Duration::from_millis(1));
        rdask::context().worker().to_owned()
    };
    let places = |options: rdask::Options| {
        let mut places = client.gather(options.map(place, 0..60)).unwrap();
        places.sort_unstable();
        places.dedup();
        places
    };
    assert_eq!(places(client.options().workers(["w1"])), ["w1"]);
    assert_eq!(places(client.options().pools(["right"])), ["w2"]);
    assert_eq!(places(client.options().pools(["left"])), ["w0", "w1"]);
    assert_eq!(places(client.options()), ["w0", "w1", "w2"]);
}
