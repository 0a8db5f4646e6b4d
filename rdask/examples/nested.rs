//! Tasks that submit tasks: merge sort, each half in tasks of its own.
//!
//! With a scheduler's file as argument it runs on that cluster, without one in this process.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

use rdask::Client;

/// Shorter lists are sorted by the task itself.
const SPLIT_ABOVE: usize = 20_000;

fn sort(mut list: Vec<u64>) -> rdask::Result<Vec<u64>> {
    if list.len() <= SPLIT_ABOVE {
        list.sort_unstable();
        return Ok(list);
    }
    let upper = list.split_off(list.len() / 2);
    let client = rdask::context().client()?;
    let halves = client.try_map(sort, [list, upper]);
    // While this task waits, its slot serves others.
    let [left, right] = client.gather(halves)?.try_into().expect("two halves");
    Ok(merge(&left, &right))
}

fn merge<'a>(mut left: &'a [u64], mut right: &'a [u64]) -> Vec<u64> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let ([l, ..], [r, ..]) = (left, right) {
        let from = if l <= r { &mut left } else { &mut right };
        merged.push(from[0]);
        *from = &from[1..];
    }
    merged.extend_from_slice(left);
    merged.extend_from_slice(right);
    merged
}

/// Numbers in no order.
fn numbers(count: usize) -> Vec<u64> {
    let next =
        |x: &u64| Some(x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    std::iter::successors(Some(1), next).take(count).collect()
}

#[rdask::main]
fn main() -> rdask::Result<()> {
    let client = match std::env::args().nth(1) {
        Some(scheduler_file) => Client::connect(scheduler_file)?,
        None => Client::local()?,
    };
    let count = 200_000;
    let list = client.submit(numbers, (count,)); // made there, sorted there
    let sorted = client.try_submit(sort, (list,)).result()?;
    assert_eq!(sorted.len(), count);
    assert!(sorted.is_sorted());
    println!("sorted {count} numbers, from {} to {}", sorted[0], sorted[count - 1]);
    Ok(())
}
