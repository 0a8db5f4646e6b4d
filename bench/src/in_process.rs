//! Workloads on rayon: what they take where nothing leaves the process.
//!
//! Every task is a job of its own that any thread may steal, as every task of an engine is.

use std::hint::black_box;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::bench::Bench;
use crate::outcome::Outcome;
use crate::workloads::maps;
use crate::workloads::nap;
use crate::workloads::spin;
use crate::workloads::uneven::lengths;

type Run = fn(&mut Bench) -> anyhow::Result<Outcome>;

/// The workload on rayon, if it is about more than processes.
pub(crate) fn on_rayon(workload: &str, variant: Option<&str>) -> Option<Run> {
    let run: Run = match (workload, variant) {
        ("square16", _) => square16,
        ("noop", _) => noop,
        ("tree", _) => tree,
        ("merge", _) => merge,
        ("chain", _) => chain,
        ("latency", _) => latency,
        ("spin", _) => spin,
        ("sleep", _) => sleep,
        ("uneven", Some("spread")) => uneven,
        _ => return None,
    };
    Some(run)
}

/// Why it is not on rayon.
pub(crate) fn reason(workload: &str) -> &'static str {
    match workload {
        "rsds" | "graph" | "pending" => "rayon has no graphs of tasks",
        _ => "it is about processes, and all is in one",
    }
}

/// A thread for each slot, warm; and the clock.
fn begin(bench: &mut Bench) -> anyhow::Result<(ThreadPool, Instant)> {
    let slots = bench.setup().workers * bench.setup().threads;
    let pool = ThreadPoolBuilder::new().num_threads(slots as usize).build()?;
    pool.broadcast(|_| std::thread::sleep(Duration::from_millis(200)));
    map(&pool, 0..100, |i| i + 1);
    Ok((pool, bench.begin_in_process()))
}

fn map<T: Send>(
    pool: &ThreadPool,
    numbers: std::ops::Range<u32>,
    function: impl Fn(u32) -> T + Sync + Send,
) -> Vec<T> {
    let function = &function;
    pool.install(|| {
        numbers.into_par_iter().with_max_len(1).map(|i| function(black_box(i))).collect()
    })
}

fn square16(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (pool, start) = begin(bench)?;
    let setup = bench.setup();
    let squares = map(&pool, 0..setup.n, |i| {
        std::thread::sleep(Duration::from_secs(1));
        f64::from(i) * f64::from(i)
    });
    let elapsed = start.elapsed();
    let ok = squares.into_iter().eq((0..setup.n).map(|i| f64::from(i) * f64::from(i)));
    let rounds = setup.n.div_ceil(setup.workers * setup.threads);
    Ok(Outcome::new(ok, elapsed).with_ideal(f64::from(rounds)))
}

fn noop(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (pool, start) = begin(bench)?;
    let n = bench.setup().n;
    let values = map(&pool, 0..n, u64::from);
    let elapsed = start.elapsed();
    let ok = values.into_iter().eq((0..n).map(u64::from));
    let rate = f64::from(n) / elapsed.as_secs_f64();
    Ok(Outcome::new(ok, elapsed).with_tasks(n).with("tasks_per_s", rate))
}

fn tree(bench: &mut Bench) -> anyhow::Result<Outcome> {
    fn sum(first: u64, len: u64) -> u64 {
        if len == 1 {
            return black_box(first);
        }
        let left = len.next_power_of_two() / 2;
        let (a, b) = rayon::join(|| sum(first, left), || sum(first + left, len - left));
        black_box(a + b)
    }
    let (pool, start) = begin(bench)?;
    let n = u64::from(bench.setup().n);
    let root = pool.install(|| sum(0, n));
    let elapsed = start.elapsed();
    let tasks = 2 * bench.setup().n - 1;
    Ok(Outcome::new(root == n * (n - 1) / 2, elapsed).with_tasks(tasks))
}

fn merge(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (pool, start) = begin(bench)?;
    let n = bench.setup().n;
    let values = map(&pool, 0..n, |i| u64::from(i) + 1);
    let sum = pool.install(|| values.iter().sum::<u64>());
    let elapsed = start.elapsed();
    let ok = sum == u64::from(n) * (u64::from(n) + 1) / 2;
    Ok(Outcome::new(ok, elapsed).with_tasks(n + 1))
}

fn chain(bench: &mut Bench) -> anyhow::Result<Outcome> {
    fn hop(x: u32, left: u32, last: Sender<u32>) {
        match left {
            0 => last.send(x).expect("somebody waits for the last"),
            _ => rayon::spawn(move || hop(black_box(x) + 1, left - 1, last)),
        }
    }
    let (pool, start) = begin(bench)?;
    let n = bench.setup().n;
    let (last, result) = channel();
    pool.spawn(move || hop(1, n - 1, last));
    let value = result.recv()?;
    Ok(Outcome::new(value == n, start.elapsed()).with_tasks(n))
}

fn latency(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (pool, _) = begin(bench)?;
    let n = bench.setup().n;
    maps::round_trips(n, |i| Ok(pool.install(|| black_box(i))))
}

fn spin(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (pool, start) = begin(bench)?;
    let values = map(&pool, 0..bench.setup().n, |i| spin::spin(i.into()));
    Ok(spin::outcome(bench.setup(), &values, start.elapsed()))
}

fn sleep(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (pool, start) = begin(bench)?;
    let setup = bench.setup();
    let values = map(&pool, 0..setup.n, |i| nap((i.into(), setup.nap_us)));
    Ok(maps::sleep_outcome(setup, values, start.elapsed()))
}

fn uneven(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let setup = bench.setup().clone();
    let lengths = lengths(setup.n, setup.total);
    let (pool, start) = begin(bench)?;
    let values = map(&pool, 0..setup.n, |i| {
        std::thread::sleep(Duration::from_secs_f64(lengths[i as usize]));
        i
    });
    let elapsed = start.elapsed();
    let ideal_s = setup.total / f64::from(setup.workers * setup.threads);
    Ok(Outcome::new(values.into_iter().eq(0..setup.n), elapsed).with_ideal(ideal_s))
}
