//! A small workflow: load, clean, train with several rates, take the best, publish it.
//!
//! With a scheduler's file as argument it runs on that cluster, without one in this process.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

use rdask::{Client, Remote};
use serde::{Deserialize, Serialize};

/// Measurements of y = 2 x, with some that went wrong.
#[derive(Serialize, Deserialize)]
struct Table {
    rows: Vec<(f64, f64)>,
}

#[derive(Serialize, Deserialize)]
struct Model {
    rate: f64,
    slope: f64,
    error: f64,
}

fn load(rows: usize) -> Result<Table, String> {
    let row = |i| (i as f64 / rows as f64, 2.0 * i as f64 / rows as f64);
    let mut rows: Vec<(f64, f64)> = (1..=rows).map(row).collect();
    rows.first_mut().ok_or("an empty table")?.1 = f64::NAN;
    Ok(Table { rows })
}

fn clean(table: &Table) -> Table {
    let good = table.rows.iter().copied().filter(|(_, y)| y.is_finite());
    Table {
        rows: good.collect(),
    }
}

/// Gradient descent for the slope.
fn train(table: &Table, rate: f64) -> Model {
    let mut slope = 0.0;
    for _ in 0..10 {
        for (x, y) in &table.rows {
            slope += rate * (y - slope * x) * x;
        }
    }
    let errors = table.rows.iter().map(|(x, y)| (y - slope * x).powi(2));
    Model {
        rate,
        slope,
        error: errors.sum(),
    }
}

fn better(a: Model, b: Model) -> Model {
    if b.error < a.error { b } else { a }
}

async fn publish(model: Model) -> String {
    format!("y = {:.3} x, learnt at rate {}", model.slope, model.rate)
}

#[rdask::main]
fn main() -> rdask::Result<()> {
    let client = match std::env::args().nth(1) {
        Some(scheduler_file) => Client::connect(scheduler_file)?,
        None => Client::local()?,
    };
    let raw: Remote<Table> = client.try_submit(load, (1000,)); // an Err would fail the task
    let table = client.submit(clean, (&raw,)); // by reference: no copy on the same worker
    let rates = [0.0001, 0.001, 0.01, 0.1];
    let models = client.map_with(|rate, table: &Table| train(table, rate), rates, &table);
    let best = client.tree(models, better);
    let text = client.submit(publish, (best,)).result()?;
    println!("{text}");
    assert!(text.starts_with("y = 2.000 x"));

    let none = client.submit(clean, (client.try_submit(load, (0,)),));
    let error = none.result().err().expect("its input failed");
    assert_eq!(
        error.task().map(rdask::TaskError::message),
        Some("an empty table")
    );
    Ok(())
}
