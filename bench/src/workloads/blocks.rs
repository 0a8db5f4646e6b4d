//! Workloads that move large values: what they move is counted, and compared with the least.

use crate::bench::Bench;
use crate::outcome::Outcome;

/// A block of numbers that tell where it comes from.
fn block((block, bytes): (u64, u64)) -> Vec<u64> {
    let len = bytes / 8;
    (block * len..(block + 1) * len).collect()
}

fn checksum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, |sum, n| sum.wrapping_add(n ^ n.rotate_left(17)))
}

/// Regroups n blocks to n others: n x n pieces. Of each block all but one process's share moves.
pub(super) fn shuffle(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let (n, bytes) = (bench.setup().n, bench.setup().block_bytes);
    // What the pieces are is told by the first number: how many there are to be.
    let cut = |((at, bytes), pieces): ((u64, u64), usize)| {
        let mut cut = vec![Vec::with_capacity(bytes as usize / 8 / pieces + 1); pieces];
        block((at, bytes)).into_iter().for_each(|n| cut[n as usize % pieces].push(n));
        cut
    };
    let before = client.status()?.transferred_bytes;
    let inputs = (0..u64::from(n)).map(|at| ((at, bytes), n as usize));
    let joined = client.shuffle(inputs, n as usize, cut, |pieces: Vec<Vec<u64>>| pieces.concat());
    client.wait(&joined)?;
    let elapsed = start.elapsed();
    let moved = client.status()?.transferred_bytes - before;
    let sums = client.map(|joined: Vec<u64>| checksum(joined.into_iter()), &joined);
    let found = client.gather(sums)?.into_iter().fold(0, u64::wrapping_add);
    let expected = checksum(0..u64::from(n) * (bytes / 8));
    let processes = client.status()?.workers.len() as u64;
    let least = u64::from(n) * bytes / processes * (processes - 1);
    let outcome = Outcome::new(found == expected, elapsed).with_tasks(2 * n);
    Ok(outcome.with("moved_mb", moved as f64 / 1e6).with("least_mb", least as f64 / 1e6))
}

/// A tree over n blocks. Of every process but one its own sum moves, at least.
pub(super) fn reduce(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let (n, bytes) = (bench.setup().n, bench.setup().block_bytes);
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a = a.wrapping_add(b));
        a
    };
    let before = client.status()?.transferred_bytes;
    let blocks = client.map(block, (0..u64::from(n)).map(|at| (at, bytes)));
    let sum = client.tree(blocks, add);
    sum.wait()?;
    let elapsed = start.elapsed();
    let moved = client.status()?.transferred_bytes - before;
    let len = bytes / 8;
    let column = |i: u64| (0..u64::from(n)).fold(0u64, |sum, at| sum.wrapping_add(at * len + i));
    let ok = sum.result()?.into_iter().eq((0..len).map(column));
    let least = (client.status()?.workers.len() as u64 - 1) * bytes;
    let outcome = Outcome::new(ok, elapsed).with_tasks(n);
    Ok(outcome.with("moved_mb", moved as f64 / 1e6).with("least_mb", least as f64 / 1e6))
}
