//! Nodes that were given up and come back: what they have is used, and nothing that had ended runs
//! again.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path as FilePath;
use std::time::Duration;

use rdask::Client;

use crate::cluster::Cluster;
use crate::path::Path;
use crate::proc::{children, go_on, stand_still, wait_until};

/// A run that leaves a line, and a result of 2 KiB that names it.
fn large(ledger: String, index: u32) -> Vec<u32> {
    note(&ledger, &format!("{index}"));
    let mut result = vec![index; 512];
    result[0] = rdask::context().run();
    result
}

fn slow(ledger: String, millis: u64) -> u32 {
    note(&ledger, "began");
    std::thread::sleep(Duration::from_millis(millis));
    note(&ledger, "ended");
    rdask::context().run()
}

fn note(ledger: &str, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(ledger).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn lines(ledger: &FilePath) -> Vec<String> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn workers(client: &Client) -> usize {
    client.status().unwrap().workers.len()
}

fn nested() -> rdask::Result<u32> {
    let client = rdask::context().client()?;
    Ok(client.gather(client.map(|x: u32| x, 0..3))?.iter().sum())
}

pub(crate) fn a_node_that_was_given_up_comes_back_with_what_it_holds() {
    const TASKS: u32 = 20;
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let path = cluster.folder().join("ledger");
    let ledger = path.to_str().unwrap().to_owned();
    let there = || client.options().workers(["w1"]);
    let results = there().map(
        |(ledger, index): (String, u32)| large(ledger, index),
        (0..TASKS).map(|index| (ledger.clone(), index)),
    );
    client.wait(&results).unwrap();
    let data: Vec<u64> = (0..50_000).collect();
    let scattered = there().scatter(data.clone());
    client.wait(&scattered).unwrap();
    let nanny = cluster.nannies[1].pid();
    let process = children(nanny);
    let frozen: Vec<u32> = process.iter().copied().chain([nanny]).collect();

    stand_still(&frozen);
    wait_until("the worker is given up", || workers(&client) == 1);
    // Whoever wants what only the frozen node has waits.
    let sum = client
        .options()
        .workers(["w0"])
        .submit(|data: Vec<u64>| data.iter().sum::<u64>(), (&scattered,));
    std::thread::sleep(Duration::from_secs(2));
    go_on(&frozen);

    assert_eq!(sum.result().unwrap(), data.iter().sum::<u64>());
    for (index, result) in (0..TASKS).zip(client.gather(results).unwrap()) {
        assert_eq!((result[0], result[1], result.len()), (1, index, 512), "another run's");
    }
    let mut expected: Vec<String> = (0..TASKS).map(|index| index.to_string()).collect();
    expected.sort_unstable();
    assert_eq!(lines(&path), expected, "what had ended ran again");
    assert_eq!(children(nanny), process, "the process was ended");
    // It works under its new number, tasks of tasks included.
    assert_eq!(there().try_submit(nested, ()).result().unwrap(), 3);
    let log = cluster.scheduler.log();
    assert!(log.contains("a process that was given up is back"), "{log}");
}

pub(crate) fn a_run_that_ends_while_its_node_is_given_up_counts() {
    let mut cluster = Cluster::empty();
    let way = Path::to(cluster.read_file().addresses[0]);
    cluster.add_with_file(&way.file(&cluster), "pool", &["w0:1"]);
    let client = cluster.client();
    let path = cluster.folder().join("ledger");
    let ledger = path.to_str().unwrap().to_owned();
    let run =
        client.submit(|(ledger, millis): (String, u64)| slow(ledger, millis), ((ledger, 3000),));
    wait_until("it has begun", || lines(&path) == ["began"]);
    way.cut();
    wait_until("the worker is given up", || workers(&client) == 0);
    wait_until("it has ended", || lines(&path).len() == 2);
    way.heal();
    assert_eq!(run.result().unwrap(), 1);
    assert_eq!(lines(&path), ["began", "ended"]);
    wait_until("the node is back", || workers(&client) == 1);
    assert_eq!(client.submit(|x: u32| x + 1, (1,)).result().unwrap(), 2);
}
