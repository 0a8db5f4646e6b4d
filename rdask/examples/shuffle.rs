//! A distributed sort by shuffle: blocks of numbers become runs of sorted ones.
//!
//! Each of 64 tasks cuts its block into 64 pieces by size, each of 64 others puts the pieces of one
//! range of sizes together and sorts them. A piece goes straight from the process that cut it to
//! the one that sorts it, and nothing else moves.
//!
//! Arguments: a scheduler's file. Without one everything happens in this process.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

use std::time::Instant;

use rdask::Client;

/// How many blocks there are, before and after.
const BLOCKS: usize = 64;

/// How many numbers of 8 bytes a block has before.
const NUMBERS: usize = 16 * 1024;

/// The block that a task makes: numbers without an order, the same each time.
fn numbers(block: u64) -> impl Iterator<Item = u64> {
    (block * NUMBERS as u64..).take(NUMBERS).map(|n| {
        let z = (n ^ (n >> 30)).wrapping_add(1).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// Makes a block and cuts it into pieces, each with the numbers of one range.
fn cut(block: u64) -> Vec<Vec<u64>> {
    let mut pieces = vec![Vec::new(); BLOCKS];
    for n in numbers(block) {
        pieces[((u128::from(n) * BLOCKS as u128) >> 64) as usize].push(n);
    }
    pieces
}

/// One range of numbers, sorted.
fn sort(pieces: Vec<Vec<u64>>) -> Vec<u64> {
    let mut numbers = pieces.concat();
    numbers.sort_unstable();
    numbers
}

/// What can be told of sorted numbers without moving them: the first, the last, how many, a sum
/// that any change would change.
fn tell(numbers: Vec<u64>) -> (u64, u64, usize, u64) {
    assert!(numbers.is_sorted());
    let (first, last) = (numbers.first(), numbers.last());
    (*first.unwrap_or(&0), *last.unwrap_or(&0), numbers.len(), checksum(numbers.iter().copied()))
}

fn checksum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, |sum, n| sum.wrapping_add(n ^ n.rotate_left(17)))
}

#[rdask::main]
fn main() -> rdask::Result<()> {
    let client = match std::env::args().nth(1) {
        Some(file) => Client::connect(file)?,
        None => Client::local()?,
    };
    let began = Instant::now();
    let sorted = client.shuffle(0..BLOCKS as u64, BLOCKS, cut, sort);
    let told = client.gather(client.map(tell, &sorted))?;
    let took = began.elapsed();

    let expected = (0..BLOCKS as u64).map(|block| checksum(numbers(block)));
    let expected = expected.fold(0, u64::wrapping_add);
    let found = told.iter().map(|(.., sum)| *sum).fold(0, u64::wrapping_add);
    let len: usize = told.iter().map(|(_, _, len, _)| len).sum();
    assert!(told.windows(2).all(|pair| pair[0].1 <= pair[1].0), "the ranges follow each other");
    assert_eq!((len, found), (BLOCKS * NUMBERS, expected), "nothing is lost or doubled");
    println!("{len} numbers in {BLOCKS} sorted runs after {took:.2?}, checksum {found:016x}");
    Ok(())
}
