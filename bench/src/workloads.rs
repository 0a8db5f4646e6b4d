//! The workloads. Each checks its results; the clock runs from before the first submission to
//! after the last result is in the client's memory.

use std::time::{Duration, Instant};

use rdask::{Client, Remote};
use serde_json::{Map, Value};

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// 16 tasks of 1 s.
    Square16,
    /// n tasks i -> i; map, gather all, check the sum.
    Noop,
    /// n leaves and levels of a + b down to one, by single submits with explicit edges.
    Tree,
    /// n tasks and one that takes all their values.
    Merge,
    /// n tasks, each on the one before.
    Chain,
    /// A random graph of n tasks, by single submits.
    Graph,
    /// n sleeps of very different lengths, 20 s together.
    Uneven,
    /// n times: submit one task and wait for its result.
    Latency,
    /// n blocks, regrouped to n others.
    Shuffle,
    /// n blocks, added up by a tree.
    Reduce,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Whether the results are right.
    pub ok: bool,
    /// What to print.
    pub fields: Map<String, Value>,
}

impl Outcome {
    pub(crate) fn new(ok: bool, n: u32, elapsed: Duration) -> Self {
        let mut outcome = Self { ok, fields: Map::new() };
        outcome.set("n", n);
        outcome.set("ok", ok);
        outcome.set("seconds", elapsed.as_secs_f64());
        outcome.set("us_per_task", elapsed.as_secs_f64() * 1e6 / f64::from(n));
        outcome
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }
}

fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}

fn identity(x: u64) -> u64 {
    x
}

impl Workload {
    /// How many tasks unless told otherwise.
    pub(crate) fn default_n(self) -> u32 {
        match self {
            Self::Square16 => 16,
            Self::Noop => 1_000_000,
            Self::Tree => 1 << 13,
            Self::Merge | Self::Graph => 10_000,
            Self::Chain | Self::Latency => 1000,
            Self::Uneven => 2000,
            Self::Shuffle | Self::Reduce => 64,
        }
    }

    /// Runs it with `n` tasks; `start` is the beginning of the clock.
    pub(crate) fn run(self, client: &Client, n: u32, start: Instant) -> rdask::Result<Outcome> {
        match self {
            Self::Square16 => square16(client, start),
            Self::Noop => noop(client, n, start),
            Self::Tree => tree(client, n, start),
            Self::Merge => merge(client, n, start),
            Self::Chain => chain(client, n, start),
            Self::Graph => graph(client, n, start),
            Self::Uneven => uneven(client, n, start),
            Self::Latency => latency(client, n),
            Self::Shuffle | Self::Reduce => unreachable!("they have blocks: see `shuffle`"),
        }
    }
}

fn square16(client: &Client, start: Instant) -> rdask::Result<Outcome> {
    let square = |x: f64| {
        std::thread::sleep(Duration::from_secs(1));
        x * x
    };
    let squares = client.gather(client.map(square, (0..16).map(f64::from)))?;
    let elapsed = start.elapsed();
    let ok = squares.iter().zip(0..16).all(|(square, i)| *square == f64::from(i * i));
    Ok(Outcome::new(ok, 16, elapsed))
}

fn noop(client: &Client, n: u32, start: Instant) -> rdask::Result<Outcome> {
    let remotes = client.map(identity, (0..n).map(u64::from));
    let submitted = start.elapsed();
    let values = client.gather(remotes)?;
    let elapsed = start.elapsed();
    let expected = u64::from(n) * u64::from(n - 1) / 2;
    let mut outcome = Outcome::new(values.iter().sum::<u64>() == expected, n, elapsed);
    outcome.set("submit_s", submitted.as_secs_f64());
    outcome.set("tasks_per_s", f64::from(n) / elapsed.as_secs_f64());
    Ok(outcome)
}

fn tree(client: &Client, n: u32, start: Instant) -> rdask::Result<Outcome> {
    let mut level: Vec<Remote<u64>> =
        (0..n).map(|i| client.submit(identity, (u64::from(i),))).collect();
    while level.len() > 1 {
        let mut next = Vec::with_capacity(level.len().div_ceil(2));
        for pair in level.chunks(2) {
            next.push(match pair {
                [a, b] => client.submit(add, (a, b)),
                [a] => a.clone(),
                _ => unreachable!("chunks of two"),
            });
        }
        level = next;
    }
    let submitted = start.elapsed();
    let sum = level[0].result()?;
    let elapsed = start.elapsed();
    let expected = u64::from(n) * u64::from(n - 1) / 2;
    let mut outcome = Outcome::new(sum == expected, 2 * n - 1, elapsed);
    outcome.set("submit_s", submitted.as_secs_f64());
    Ok(outcome)
}

fn merge(client: &Client, n: u32, start: Instant) -> rdask::Result<Outcome> {
    let values = client.map(|x: u64| x + 1, (0..n).map(u64::from));
    let sum = client.submit(|all: Vec<u64>| all.iter().sum::<u64>(), (&values,)).result()?;
    let elapsed = start.elapsed();
    let expected = u64::from(n) * (u64::from(n) + 1) / 2;
    Ok(Outcome::new(sum == expected, n + 1, elapsed))
}

fn chain(client: &Client, n: u32, start: Instant) -> rdask::Result<Outcome> {
    let mut last = client.submit(identity, (0,));
    for _ in 0..n {
        last = client.submit(|x: u64| x + 1, (last,));
    }
    let value = last.result()?;
    Ok(Outcome::new(value == u64::from(n), n, start.elapsed()))
}

/// Each task takes the results of up to two earlier ones; the client computes the same.
fn graph(client: &Client, n: u32, start: Instant) -> rdask::Result<Outcome> {
    let mut state = 42_u64;
    let mut draw = |bound: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mix = |a: u64, b: u64| (a ^ b.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut remotes: Vec<Remote<u64>> = vec![client.submit(identity, (1,))];
    let mut expected = vec![1_u64];
    for _ in 1..n {
        let (a, b) = (draw(remotes.len()), draw(remotes.len()));
        remotes.push(client.submit(mix, (&remotes[a], &remotes[b])));
        expected.push(mix(expected[a], expected[b]));
    }
    let values = client.gather(remotes)?;
    Ok(Outcome::new(values == expected, n, start.elapsed()))
}

/// Sleep lengths from a heavy-tailed distribution, cut at 200 times the least, scaled to 20 s.
fn lengths(n: u32) -> Vec<f64> {
    fn splitmix64(x: u64) -> u64 {
        let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    const TOTAL: f64 = 20.0;
    let uniform = |i: u32| (splitmix64(42 + u64::from(i)) >> 11) as f64 / (1u64 << 53) as f64;
    let raw: Vec<f64> = (0..n).map(|i| (1.0 - uniform(i)).powf(-1.0 / 1.2).min(200.0)).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|r| TOTAL * r / sum).collect()
}

fn uneven(client: &Client, n: u32, start: Instant) -> rdask::Result<Outcome> {
    let nap = |(i, seconds): (u32, f64)| {
        std::thread::sleep(Duration::from_secs_f64(seconds));
        i
    };
    let values = client.gather(client.map(nap, (0..n).zip(lengths(n))))?;
    let elapsed = start.elapsed();
    Ok(Outcome::new(values.iter().copied().eq(0..n), n, elapsed))
}

fn latency(client: &Client, n: u32) -> rdask::Result<Outcome> {
    const WARM_UP: u32 = 100;
    let mut times = Vec::with_capacity(n as usize);
    let mut ok = true;
    for i in 0..WARM_UP + n {
        let start = Instant::now();
        ok &= client.submit(identity, (u64::from(i),)).result()? == u64::from(i);
        if i >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    let mut outcome = Outcome::new(ok, n, times.iter().sum());
    outcome.set("p50_us", at(50));
    outcome.set("p99_us", at(99));
    outcome.set("max_us", at(100));
    Ok(outcome)
}
