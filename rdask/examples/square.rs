//! Sixteen squares, each of which takes a second: two seconds on eight slots.
//!
//! With a scheduler's file as argument it runs on that cluster, without one in this process. A
//! second argument says how many squares: `square scheduler.json 32`.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use rdask::{Client, LocalCluster};

fn square(x: f64) -> f64 {
    sleep(Duration::from_secs(1)); // stands for real work
    x * x
}

fn compute(client: &Client, count: u32) -> rdask::Result<()> {
    let start = Instant::now();
    let squares = client.gather(client.map(square, (0..count).map(f64::from)))?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{squares:?}");
    println!("Computation time: {seconds:.3} s");
    assert!(squares.into_iter().eq((0..count).map(|x| f64::from(x * x))));
    Ok(())
}

#[rdask::main]
fn main() -> rdask::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let scheduler_file = arguments.next();
    let count = arguments.next().map_or(16, |count| count.parse().expect("how many squares"));
    match scheduler_file {
        Some(scheduler_file) => compute(&Client::connect(scheduler_file)?, count),
        None => {
            let cluster = LocalCluster::new().threads(8).start()?;
            compute(&cluster.client()?, count)
        }
    }
}
