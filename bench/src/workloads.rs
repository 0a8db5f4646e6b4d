//! The workloads. Each checks its results; the clock runs from before the first submission to
//! after the last result is in the client's memory.

mod beside;
mod blocks;
mod graphs;
mod join;
mod kill;
pub(crate) mod maps;
mod pending;
mod register;
mod rsds;
pub(crate) mod spin;
mod startup;
mod transfer;
pub(crate) mod uneven;

use std::time::Duration;

use crate::bench::Bench;
use crate::outcome::Outcome;

/// A workload, and what it runs on unless told otherwise.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// For `--help`.
    pub(crate) about: &'static str,
    pub(crate) workers: u32,
    pub(crate) threads: u32,
    pub(crate) n: u32,
    pub(crate) variants: &'static [&'static str],
    pub(crate) run: fn(&mut Bench) -> anyhow::Result<Outcome>,
}

/// What emulated workers can do: tasks whose result is their first argument, a number.
pub(crate) const EMULATED: &[&str] = &["noop", "latency", "sleep", "rsds", "register", "pending"];

/// A task that sleeps for so many microseconds and returns its number.
pub(crate) fn nap((number, micros): (u64, u32)) -> u64 {
    if micros > 0 {
        std::thread::sleep(Duration::from_micros(micros.into()));
    }
    number
}

/// Where a new workload is entered.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "square16",
        about: "n tasks of 1 s; map, gather",
        workers: 2,
        threads: 4,
        n: 16,
        variants: &[],
        run: maps::square16,
    },
    Workload {
        name: "noop",
        about: "n tasks i -> i; map, gather all",
        workers: 1,
        threads: 2,
        n: 1_000_000,
        variants: &[],
        run: maps::noop,
    },
    Workload {
        name: "tree",
        about: "n leaves and levels of a + b down to one, by single submits",
        workers: 1,
        threads: 2,
        n: 1 << 13,
        variants: &[],
        run: graphs::tree,
    },
    Workload {
        name: "merge",
        about: "n tasks i -> i + 1, and one that sums all their values",
        workers: 1,
        threads: 2,
        n: 10_000,
        variants: &[],
        run: graphs::merge,
    },
    Workload {
        name: "chain",
        about: "n tasks, each on the one before",
        workers: 1,
        threads: 2,
        n: 1000,
        variants: &[],
        run: graphs::chain,
    },
    Workload {
        name: "graph",
        about: "a random graph of n tasks, by single submits; gather all",
        workers: 1,
        threads: 2,
        n: 10_000,
        variants: &[],
        run: graphs::random,
    },
    Workload {
        name: "latency",
        about: "n times: submit one task, wait for its result",
        workers: 1,
        threads: 1,
        n: 1000,
        variants: &[],
        run: maps::latency,
    },
    Workload {
        name: "spin",
        about: "n tasks that compute for about 100 us; map, gather. alone_us: one on one thread",
        workers: 1,
        threads: 2,
        n: 20_000,
        variants: &[],
        run: spin::run,
    },
    Workload {
        name: "uneven",
        about: "n sleeps of very different lengths, --total seconds together",
        workers: 4,
        threads: 1,
        n: 2000,
        variants: &["spread", "late"],
        run: uneven::run,
    },
    Workload {
        name: "kill",
        about: "n tasks of 50 ms; half way the last two workers get SIGKILL",
        workers: 4,
        threads: 1,
        n: 400,
        variants: &[],
        run: kill::run,
    },
    Workload {
        name: "join",
        about: "n tasks of 1 s; after 2 s as many workers again are launched",
        workers: 2,
        threads: 4,
        n: 64,
        variants: &[],
        run: join::run,
    },
    Workload {
        name: "transfer",
        about: "5 times, medians: an array of n f64 to another worker, to and from the client",
        workers: 2,
        threads: 1,
        n: 1 << 25,
        variants: &["local", "quic"],
        run: transfer::run,
    },
    Workload {
        name: "beside",
        about: "round trips of a noop beside 3 transfers of n f64 to the worker that runs it",
        workers: 2,
        threads: 2,
        n: 1 << 27,
        variants: &["local", "quic"],
        run: beside::run,
    },
    Workload {
        name: "startup",
        about: "from nothing to the result of one task; nothing is warm",
        workers: 1,
        threads: 1,
        n: 1,
        variants: &[],
        run: startup::run,
    },
    Workload {
        name: "shuffle",
        about: "n blocks of --block-bytes, regrouped to n others; moved_mb beside the least_mb",
        workers: 4,
        threads: 1,
        n: 64,
        variants: &[],
        run: blocks::shuffle,
    },
    Workload {
        name: "reduce",
        about: "n blocks of --block-bytes, added up by a tree; moved_mb beside the least_mb",
        workers: 2,
        threads: 2,
        n: 64,
        variants: &[],
        run: blocks::reduce,
    },
    Workload {
        name: "sleep",
        about: "n sleeps of --nap-ms; map, gather all",
        workers: 63,
        threads: 24,
        n: 20_000,
        variants: &[],
        run: maps::sleep,
    },
    Workload {
        name: "rsds",
        about: "a --graph of RSDS's benchmarks, by single submits; gather what none depends on",
        workers: 1,
        threads: 24,
        n: 1,
        variants: &[],
        run: rsds::run,
    },
    Workload {
        name: "register",
        about: "as many emulated workers join, and a program's process in each",
        workers: 1000,
        threads: 1,
        n: 1000,
        variants: &[],
        run: register::run,
    },
    Workload {
        name: "pending",
        about: "a --graph, or a map of n, waits for a worker: what the scheduler keeps of each task",
        workers: 1,
        threads: 24,
        n: 1_000_000,
        variants: &["graph", "map"],
        run: pending::run,
    },
];
