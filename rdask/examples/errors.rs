//! What goes wrong, and what doesn't because of it: panics, errors, cancelled tasks.
//!
//! With a scheduler's file as argument it runs on that cluster, without one in this process.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

use std::thread::sleep;
use std::time::Duration;

use rdask::{Client, FailureKind};

fn fragile(x: u32) -> u32 {
    assert!(x % 10 != 3, "{x} is unlucky");
    x * 2
}

fn patient(x: u64) -> u64 {
    // A cancelled task that looks can end early.
    for _ in 0..600 {
        if rdask::context().is_cancelled() {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    x
}

#[rdask::main]
fn main() -> rdask::Result<()> {
    let client = match std::env::args().nth(1) {
        Some(scheduler_file) => Client::connect(scheduler_file)?,
        None => Client::local()?,
    };

    // Ten of a hundred tasks panic. The others have their results.
    let doubled = client.map(fragile, 0..100);
    let mut panics = 0;
    for (position, result) in client.as_completed(&doubled) {
        match result {
            Ok(value) => assert_eq!(value as usize, 2 * position),
            Err(error) => {
                let task = error.task().expect("only tasks went wrong");
                assert_eq!(task.kind(), FailureKind::Panicked);
                assert_eq!(task.message(), format!("{position} is unlucky"));
                panics += 1;
            }
        }
    }
    assert_eq!(panics, 10);
    println!("{panics} tasks panicked, as: {}", doubled[3].result().expect_err("3 is unlucky"));

    // An Err fails its task, and no other.
    let numbers = client.try_map(|text: String| text.parse::<f64>(), ["1.5", "one", "2"]);
    let results: Vec<_> = numbers.iter().map(|number| number.result()).collect();
    assert_eq!(results[0].as_ref().ok(), Some(&1.5));
    assert_eq!(results[2].as_ref().ok(), Some(&2.0));
    println!("{}", results[1].as_ref().expect_err("no number"));

    // 64 long tasks are cancelled while others go on.
    let long = client.map(patient, 0..64);
    let short = client.map(|x: u64| x + 1, 0..1000);
    long.cancel();
    for task in &long {
        assert!(task.result().is_err_and(|error| error.is_cancelled()));
    }
    assert_eq!(client.gather(short)?.iter().sum::<u64>(), 500_500);
    println!("{} tasks were cancelled, and others went on", long.len());
    Ok(())
}
