//! The client program of the scenarios: computations whose right result is known in advance.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdask::{Client, Remote, Remotes, TaskId};
use serde::{Deserialize, Serialize};

use crate::ledger::{note_dropped, noted};

/// How often a client looks for what it waits for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Load {
    /// A tree reduction of n leaves to one number.
    Tree,
    /// The same over values that stay with their processes.
    KeptTree,
    /// A shuffle of n x n blocks of a size: a task per row makes them, one per column folds them.
    Shuffle,
    /// n naps of some milliseconds.
    Naps,
    /// The same with results that stay with their processes.
    KeptNaps,
    /// The same; every second result is dropped, and the others are gathered when a file is there.
    HalfKept,
    /// n good tasks and one that ends its process.
    Poison,
    /// n good tasks and one that takes memory of a size.
    Hog,
    /// One value of a size, made in the pool "left", read in the pool "right".
    Transfer,
    /// n values of a size, scattered, changed by a task each, and gathered.
    ThereAndBack,
}

/// What the client is told.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArguments {
    /// What to compute.
    #[arg(value_enum)]
    load: Load,
    /// The file that the scheduler writes.
    file: PathBuf,
    /// How many tasks, leaves or rows.
    n: u32,
    /// How many bytes.
    #[arg(long, default_value_t = 0)]
    size: u64,
    /// How long a task takes.
    #[arg(long, default_value_t = 0)]
    millis: u64,
}

/// What it says at the end, as its last line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// From before the first submission to after the last result.
    pub(crate) seconds: f64,
    /// The error of the one task that fails, where there is one.
    pub(crate) failure: Option<Failure>,
}

/// The error of a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Its kind, in Rust's words.
    pub(crate) kind: String,
    /// All of it, as users see it.
    pub(crate) text: String,
}

/// Computes, checks, prints.
#[expect(clippy::print_stdout, reason = "what the runner reads")]
pub(crate) fn run(arguments: &ClientArguments) -> anyhow::Result<()> {
    let client = Client::connect(&arguments.file)?;
    let started = Instant::now();
    let failure = arguments.load.run(&client, arguments)?;
    let outcome = Outcome { seconds: started.elapsed().as_secs_f64(), failure };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// Reads what a client said at its end.
pub(crate) fn read_outcome(log: &Path) -> anyhow::Result<Outcome> {
    let text = std::fs::read_to_string(log)?;
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    Ok(serde_json::from_str(line.with_context(|| format!("no outcome in {text:?}"))?)?)
}

/// A number that looks like no other of its kind (splitmix64).
pub(crate) fn mixed(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Load {
    fn run(self, client: &Client, given: &ClientArguments) -> anyhow::Result<Option<Failure>> {
        let n = u64::from(given.n);
        match self {
            Self::Tree => tree(client, n)?,
            Self::KeptTree => kept_tree(client, n)?,
            Self::Shuffle => shuffle(client, n, given.size)?,
            Self::Naps => naps(client, n, given.millis)?,
            Self::KeptNaps => kept_naps(client, n, given.millis)?,
            Self::HalfKept => half_kept(client, n, given.millis)?,
            Self::Poison => return poison(client, n, given.millis).map(Some),
            Self::Hog => return hog(client, n, given.size, given.millis).map(Some),
            Self::Transfer => transfer(client, given.size)?,
            Self::ThereAndBack => there_and_back(client, n, given.size)?,
        }
        Ok(None)
    }
}

fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::wrapping_add)
}

fn leaf(i: u64) -> u64 {
    noted(|| mixed(i))
}

fn add(a: u64, b: u64) -> u64 {
    noted(|| a.wrapping_add(b))
}

fn tree(client: &Client, n: u64) -> anyhow::Result<()> {
    let root = client.tree(client.map(leaf, 0..n), add).result()?;
    ensure!(root == sum((0..n).map(mixed)), "a wrong checksum: {root:x}");
    Ok(())
}

/// Enough numbers for a result that doesn't ride along with its report.
const KEPT: u64 = 256;

fn kept_leaf(i: u64) -> Vec<u64> {
    noted(|| (0..KEPT).map(|k| mixed(i).wrapping_add(k)).collect())
}

fn kept_add(a: Vec<u64>, b: Vec<u64>) -> Vec<u64> {
    noted(|| a.iter().zip(&b).map(|(a, b)| a.wrapping_add(*b)).collect())
}

fn kept_tree(client: &Client, n: u64) -> anyhow::Result<()> {
    let root = client.tree(client.map(kept_leaf, 0..n), kept_add).result()?;
    let base = sum((0..n).map(mixed));
    let expected = (0..KEPT).map(|k| base.wrapping_add(k.wrapping_mul(n)));
    ensure!(root.iter().copied().eq(expected), "a wrong checksum");
    Ok(())
}

/// The block that row `i` sends to column `j`.
fn block(i: u64, j: u64, size: u64) -> Vec<u64> {
    let seed = mixed(i << 32 | j);
    (0..size / 8).map(|k| seed.wrapping_add(k)).collect()
}

/// A row: one task, with a block for each of n columns.
fn row((i, n, size): (u64, u64, u64)) -> Vec<Vec<u64>> {
    noted(|| (0..n).map(|j| block(i, j, size)).collect())
}

/// What a column makes of its blocks; the order counts.
fn column(blocks: Vec<Vec<u64>>) -> u64 {
    noted(|| {
        let fold = |hash: u64, block: &Vec<u64>| {
            hash.rotate_left(7).wrapping_add(sum(block.iter().copied()))
        };
        blocks.iter().fold(0, fold)
    })
}

fn shuffle(client: &Client, n: u64, size: u64) -> anyhow::Result<()> {
    let rows = (0..n).map(|i| (i, n, size));
    let found = client.gather(client.shuffle(rows, n as usize, row, column))?;
    let count = size / 8;
    // The sum of count numbers from seed on: either of two neighbours is even.
    let triangle = if count.is_multiple_of(2) {
        (count / 2).wrapping_mul(count.wrapping_sub(1))
    } else {
        count.wrapping_mul((count - 1) / 2)
    };
    let of_block = |i: u64, j: u64| mixed(i << 32 | j).wrapping_mul(count).wrapping_add(triangle);
    let of_column =
        |j: u64| (0..n).fold(0_u64, |hash, i| hash.rotate_left(7).wrapping_add(of_block(i, j)));
    ensure!(found.into_iter().eq((0..n).map(of_column)), "a wrong checksum");
    Ok(())
}

fn nap((i, millis): (u64, u64)) -> u64 {
    noted(|| {
        std::thread::sleep(Duration::from_millis(millis));
        mixed(i)
    })
}

fn naps(client: &Client, n: u64, millis: u64) -> anyhow::Result<()> {
    let values = client.gather(client.map(nap, (0..n).map(|i| (i, millis))))?;
    ensure!(values.into_iter().eq((0..n).map(mixed)), "a wrong result");
    Ok(())
}

fn kept_nap((i, millis): (u64, u64)) -> Vec<u64> {
    noted(|| {
        std::thread::sleep(Duration::from_millis(millis));
        vec![mixed(i); KEPT as usize]
    })
}

fn kept_naps(client: &Client, n: u64, millis: u64) -> anyhow::Result<()> {
    let values = client.map(kept_nap, (0..n).map(|i| (i, millis)));
    // All at the end, so that every result has been somewhere for a while.
    client.wait(&values)?;
    let values = client.gather(values)?;
    ensure!(values.iter().zip(0..n).all(|(value, i)| *value == vec![mixed(i); KEPT as usize]));
    Ok(())
}

/// What the client of that load waits for, in its folder.
pub(crate) const GO_ON: &str = "go-on";

fn half_kept(client: &Client, n: u64, millis: u64) -> anyhow::Result<()> {
    let values = client.map(kept_nap, (0..n).map(|i| (i, millis)));
    client.wait(&values)?;
    let before = client.status()?.result_bytes;
    let all = (0..values.len()).filter_map(|nth| values.get(nth));
    let (kept, dropped): (Vec<_>, Vec<_>) = all.partition(|one| one.id().index.is_multiple_of(2));
    drop(values);
    let names: Vec<TaskId> = dropped.iter().map(Remote::id).collect();
    drop(dropped);
    while client.status()?.result_bytes > before * 6 / 10 {
        std::thread::sleep(LOOK_EVERY);
    }
    note_dropped(&names)?;
    while !Path::new(GO_ON).exists() {
        std::thread::sleep(LOOK_EVERY);
    }
    let expected = (0..n).step_by(2).map(mixed);
    let values = client.gather(kept)?;
    ensure!(values.iter().zip(expected).all(|(value, first)| *value == vec![first; KEPT as usize]));
    Ok(())
}

/// Ends its process. The nap is there so that others are on the board beside it.
fn killer(millis: u64) -> u64 {
    noted(|| {
        std::thread::sleep(Duration::from_millis(millis));
        std::process::abort()
    })
}

fn with_good_tasks(
    client: &Client,
    n: u64,
    millis: u64,
    bad: &Remote<u64>,
) -> anyhow::Result<Failure> {
    naps(client, n, millis)?;
    let error = match bad.result() {
        Ok(value) => anyhow::bail!("the bad task returned {value}"),
        Err(error) => error,
    };
    let kind = error.task().map(|task| format!("{:?}", task.kind()));
    Ok(Failure { kind: kind.unwrap_or_else(|| "NoTask".to_owned()), text: error.to_string() })
}

fn poison(client: &Client, n: u64, millis: u64) -> anyhow::Result<Failure> {
    let bad = client.submit(killer, (millis,));
    with_good_tasks(client, n, millis, &bad)
}

/// Takes memory page by page, with a moment for the watch to look.
fn eater(size: u64) -> u64 {
    const PIECE: usize = 16 << 20;
    noted(|| {
        let mut all: Vec<Vec<u8>> = Vec::new();
        while (all.len() as u64) < size / PIECE as u64 {
            all.push(vec![1; PIECE]);
            std::thread::sleep(Duration::from_millis(20));
        }
        all.iter().map(|piece| u64::from(piece[PIECE / 2])).sum()
    })
}

fn hog(client: &Client, n: u64, size: u64, millis: u64) -> anyhow::Result<Failure> {
    let bad = client.submit(eater, (size,));
    with_good_tasks(client, n, millis, &bad)
}

fn big(size: u64) -> Vec<u64> {
    noted(|| (0..size / 8).map(mixed).collect())
}

#[expect(clippy::ptr_arg, reason = "the value is a vector, wherever it is")]
fn digest(values: &Vec<u64>) -> u64 {
    noted(|| sum(values.iter().copied()))
}

fn transfer(client: &Client, size: u64) -> anyhow::Result<()> {
    let made: Remotes<Vec<u64>> = client.options().pools(["left"]).map(big, [size]);
    let read = client.options().pools(["right"]).submit(digest, (&made[0],));
    ensure!(read.result()? == sum((0..size / 8).map(mixed)), "a wrong checksum");
    Ok(())
}

fn turned(values: Vec<u64>) -> Vec<u64> {
    noted(|| values.iter().map(|value| value.rotate_left(7)).collect())
}

fn there_and_back(client: &Client, n: u64, size: u64) -> anyhow::Result<()> {
    let there = client.scatter_all((0..n).map(|i| block(i, 0, size)));
    let back = client.map(turned, &there);
    for (i, values) in (0..n).zip(client.gather(back)?) {
        let expected = block(i, 0, size).into_iter().map(|value| value.rotate_left(7));
        ensure!(values.into_iter().eq(expected), "value {i} is wrong");
    }
    Ok(())
}
