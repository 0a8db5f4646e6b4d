//! Panics, errors and deaths: who hears of them, what they hear, and who goes on.

use std::fs::OpenOptions;
use std::io::Write;

use rdask::{Client, FailureKind, TaskError};
use serde::{Deserialize, Serialize, Serializer};

use crate::cluster::{Cluster, on_both, wait_until_forgotten};
use crate::proc::{children, kill_9, wait_for};

fn third(list: Vec<u32>) -> u32 {
    list[2]
}

fn panics(x: u32) -> u32 {
    if x == 13 {
        third(vec![x]) // the line that the error names
    } else {
        x
    }
}

fn failure<T: std::fmt::Debug>(result: rdask::Result<T>) -> TaskError {
    match result {
        Err(rdask::Error::Task(error)) => error,
        other => panic!("no failure of a task: {other:?}"),
    }
}

fn still_works(client: &Client) {
    let values = client.map(|x: u32| x + 1, 0..100);
    assert_eq!(client.gather(values).unwrap(), (1..101).collect::<Vec<_>>());
}

pub(crate) fn a_panic_is_told_and_ends_nothing_else() {
    let cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let before = cluster.processes();
    let values = client.map(panics, 0..1000);
    client.wait(&values).unwrap();
    let failed: Vec<u32> = (0..1000).filter(|x| values[*x as usize].result().is_err()).collect();
    assert_eq!(failed, [13], "others failed too");
    let error = failure(values[13].result());
    assert_eq!(error.kind(), FailureKind::Panicked);
    assert_eq!(error.message(), "index out of bounds: the len is 1 but the index is 2");
    let line = include_str!("failures.rs").lines().position(|line| line.contains("list[2]"));
    let place = format!("failures.rs:{}:", line.unwrap() + 1);
    assert!(error.location().unwrap().contains(&place), "{:?}, not {place}", error.location());
    let backtrace = error.backtrace().unwrap();
    assert!(backtrace.contains("third"), "{backtrace}");
    assert!(error.function().ends_with("panics"), "{}", error.function());
    assert!(error.worker().unwrap().starts_with('w') && error.node() == Some("here"));
    assert_eq!((error.run(), error.origin()), (1, values[13].id()));
    still_works(&client);
    assert_eq!(cluster.processes(), before, "a process has ended");
    drop(values);
    wait_until_forgotten(&client);
}

fn odd(x: u32) -> Result<u32, String> {
    if x % 2 == 1 { Ok(x) } else { Err(format!("{x} is even")) }
}

pub(crate) fn an_err_fails_its_task_and_what_depends_on_it_once() {
    on_both(2, |client| {
        let values = client.try_map(odd, 0..10);
        let doubled = client.map(|x: u32| 2 * x, &values);
        let all = client.submit(|all: Vec<u32>| all.len(), (&doubled,));
        let last = client.submit(|n: usize| n, (&all,));
        for x in 0..10 {
            let (value, double) = (values[x].result(), doubled[x].result());
            if x % 2 == 1 {
                assert_eq!((value.unwrap(), double.unwrap()), (x as u32, 2 * x as u32));
                continue;
            }
            for result in [value, double] {
                let error = failure(result);
                assert_eq!(error.kind(), FailureKind::Returned);
                assert_eq!(error.message(), format!("{x} is even"));
                assert_eq!(error.origin(), values[x].id());
                assert!(error.function().ends_with("odd"), "{}", error.function());
            }
        }
        let error = failure(last.result());
        assert!(error.message().ends_with("is even") && error.run() == 1, "{error}");
        assert!((0..10).any(|x| values[x].id() == error.origin()), "{error}");
        // As many results as tasks: nothing ends twice.
        let ends = client.as_completed(&doubled).map(|(position, _)| position);
        let mut ends: Vec<usize> = ends.collect();
        ends.sort_unstable();
        assert_eq!(ends, (0..10).collect::<Vec<_>>());
    });
}

/// A value whose code goes wrong where tasks end: on the way out and at the end of its life.
#[derive(Debug, Deserialize)]
struct Malicious {
    in_serialize: bool,
    in_drop: bool,
}

impl Serialize for Malicious {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(!self.in_serialize, "Serialize goes wrong");
        // A long value, so that it stays with its process.
        (self.in_serialize, self.in_drop, vec![0_u8; 5000]).serialize(serializer)
    }
}

impl Drop for Malicious {
    fn drop(&mut self) {
        assert!(!self.in_drop || std::thread::panicking(), "Drop goes wrong");
    }
}

pub(crate) fn panics_in_serialize_and_drop_are_told_and_end_nothing_else() {
    let cluster = Cluster::new(1, 2);
    let client = cluster.client();
    let before = cluster.processes();
    let make = |in_serialize: bool, in_drop: bool| Malicious { in_serialize, in_drop };
    let error = failure(client.submit(make, (true, false)).result());
    assert!(error.message().contains("Serialize goes wrong"), "{error}");
    still_works(&client);

    // Dropped by the process when nobody wants it any more.
    let value = client.submit(make, (false, true));
    assert!(client.submit(|value: &Malicious| value.in_drop, (&value,)).result().unwrap());
    drop(value);
    wait_until_forgotten(&client);
    still_works(&client);

    // Dropped by the task itself.
    let drops = |x: u32| {
        drop(Malicious { in_serialize: false, in_drop: true });
        x
    };
    let error = failure(client.submit(drops, (1,)).result());
    assert!(error.message().contains("Drop goes wrong"), "{error}");
    still_works(&client);
    assert_eq!(cluster.processes(), before, "a process has ended");
}

/// Notes its run, and waits for ever the first time.
fn first_run_hangs(ledger: String, task: u32) -> u32 {
    let run = rdask::context().run();
    let mut file = OpenOptions::new().append(true).create(true).open(ledger).unwrap();
    // In one piece: it is read meanwhile, and who reads kills by the number.
    let line = format!("task {task} run {run} pid {}\n", std::process::id());
    file.write_all(line.as_bytes()).unwrap();
    if run == 1 {
        loop {
            std::thread::park();
        }
    }
    task
}

pub(crate) fn the_tasks_of_a_killed_process_run_again() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let ledger = cluster.folder().join("ledger");
    let read = || std::fs::read_to_string(&ledger).unwrap_or_default();
    let name = ledger.to_str().unwrap().to_owned();
    let value = client.submit(first_run_hangs, (name, 7));
    let pid: u32 = wait_for("the first run", || {
        read().lines().next()?.strip_prefix("task 7 run 1 pid ")?.parse().ok()
    });
    assert!(cluster.nannies.iter().any(|nanny| children(nanny.pid()).contains(&pid)));
    kill_9(pid);
    assert_eq!(value.result().unwrap(), 7);
    let lines: Vec<String> = read().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].starts_with("task 7 run 2 pid "), "{lines:?}");
    still_works(&client);
}

pub(crate) fn results_that_only_a_killed_process_had_are_made_again() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let vectors = client.map(|x: u64| vec![x; 10_000], 0..20);
    client.wait(&vectors).unwrap();
    kill_9(cluster.processes()[0]);
    let sums = client.map(|vector: Vec<u64>| vector.iter().sum::<u64>(), &vectors);
    assert_eq!(client.gather(sums).unwrap(), (0..20).map(|x| x * 10_000).collect::<Vec<_>>());
    assert_eq!(client.gather(vectors).unwrap()[19], vec![19; 10_000]);
}

pub(crate) fn texts_of_any_length_come_cut() {
    const CHARS: usize = 1_000_000;
    on_both(2, |client| {
        let panics = client.submit(
            |x: u8| {
                if x > 0 {
                    panic!("{}", "ä".repeat(CHARS))
                }
            },
            (1,),
        );
        let many = client.try_map(|_: u8| Err::<u8, _>("ö".repeat(CHARS)), [0; 40]);
        let texts = std::iter::once(panics.result().unwrap_err().to_string());
        let texts = texts.chain(many.iter().map(|one| one.result().unwrap_err().to_string()));
        for (nth, text) in texts.enumerate() {
            let first = if nth == 0 { 'ä' } else { 'ö' };
            let letters = text.chars().filter(|letter| *letter == first).count();
            assert!((200..=10_000).contains(&letters), "{letters} of {CHARS}");
            assert!(text.chars().count() < letters + 2_000);
        }
        // The link has carried it, and goes on.
        assert_eq!(client.submit(|x: u8| x + 1, (1,)).result().unwrap(), 2);
    });
}
