//! Sixteen squares, each of which takes a second: two seconds on eight slots.
//!
//! With a scheduler's file as argument it runs on that cluster, without one in this process.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use rdask::{Client, LocalCluster};

fn square(x: f64) -> f64 {
    sleep(Duration::from_secs(1)); // stands for real work
    x * x
}

fn compute(client: &Client) -> rdask::Result<()> {
    let start = Instant::now();
    let squares = client.gather(client.map(square, (0..16).map(f64::from)))?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{squares:?}");
    println!("Computation time: {seconds:.3} s");
    assert_eq!(squares[15], 225.0);
    Ok(())
}

#[rdask::main]
fn main() -> rdask::Result<()> {
    match std::env::args().nth(1) {
        Some(scheduler_file) => compute(&Client::connect(scheduler_file)?),
        None => {
            let cluster = LocalCluster::new().threads(8).start()?;
            compute(&cluster.client()?)
        }
    }
}
