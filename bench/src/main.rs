//! One workload on a fresh cluster of separate processes (or in this one); prints one JSON line.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

mod bench;
mod emulated;
mod graph;
mod in_process;
mod joins;
mod outcome;
mod rsds;
mod usage;
mod workloads;

use anyhow::{Context, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use rdask_testbed::role;
use serde_json::{Map, Value, json};

use bench::{Bench, Setup};
use outcome::Outcome;
use workloads::{EMULATED, WORKLOADS, Workload};

/// What the flags that only some workloads have are, unless given. A line tells of others.
const TOTAL: f64 = 20.0;
const BLOCK_BYTES: u64 = 1 << 20;
const GRAPH: &str = "tree-15";
const NAP_MS: f64 = 100.0;

/// Runs one workload and prints one JSON line; exits with 1 if a result is wrong.
///
/// Scheduler, workers and client are processes of their own on this machine, over loopback. All
/// slots have run something before the clock starts, which stops when the last result is in the
/// client's memory.
#[derive(Debug, Parser)]
#[command(after_help = teach())]
struct Arguments {
    /// What to run.
    #[arg(long, value_parser = PossibleValuesParser::new(WORKLOADS.iter().map(|one| one.name)))]
    workload: String,
    /// How many tasks (leaves, numbers); each workload has a default of its own.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    n: Option<u32>,
    /// How many workers.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    workers: Option<u32>,
    /// How many slots each worker has.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Which variant of the workload, if it has some; the first is the default.
    #[arg(long)]
    variant: Option<String>,
    /// The seconds of sleep of all tasks of `uneven` together.
    #[arg(long, default_value_t = TOTAL)]
    total: f64,
    /// The bytes of a block, for the workloads with blocks.
    #[arg(long, default_value_t = BLOCK_BYTES, value_parser = clap::value_parser!(u64).range(8..))]
    block_bytes: u64,
    /// Which graph, for the workloads with graphs.
    #[arg(long, default_value = GRAPH, hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(rsds::GRAPHS.iter().map(|one| one.name)))]
    graph: String,
    /// Print the --graph of `rsds` for other engines, and run nothing: for each task those that it
    /// depends on, and how many microseconds tasks sleep.
    #[arg(long)]
    print_graph: bool,
    /// How long a task of `sleep` sleeps, in milliseconds.
    #[arg(long, default_value_t = NAP_MS)]
    nap_ms: f64,
    /// Place tasks anywhere, for comparison.
    #[arg(long)]
    random: bool,
    /// Workers that run nothing and answer at once, or by a timer where tasks sleep. They are
    /// connections of their own, all of one process: as many slots as you like.
    #[arg(long, conflicts_with = "local")]
    zero_worker: bool,
    /// Scheduler and slots are threads of this process.
    #[arg(long)]
    local: bool,
    /// Whom to run it on: rayon, always in this process, is a bound for what is between processes.
    #[arg(long, value_enum, default_value_t = Peer::Rdask)]
    peer: Peer,
}

/// Who runs the tasks. Others than these two: `bench/peers/run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    Rdask,
    Rayon,
}

fn main() -> anyhow::Result<()> {
    rdask::init();
    role::play(|scene, file, arguments| match scene {
        emulated::SCENE => emulated::play(file, arguments).expect("workers are emulated"),
        _ => panic!("no scene {scene}"),
    });
    let arguments = Arguments::parse();
    if arguments.print_graph {
        let graph = rsds::find(&arguments.graph).context("no such graph")?.graph();
        println!("{}", graph.json());
        return Ok(());
    }
    let workload = WORKLOADS.iter().find(|one| one.name == arguments.workload);
    let workload = workload.context("no such workload")?;
    let setup = setup(&arguments, workload)?;
    let mut bench = Bench::new(setup.clone());
    let run = match arguments.peer {
        Peer::Rdask => Some(workload.run),
        Peer::Rayon => in_process::on_rayon(workload.name, setup.variant),
    };
    let Some(run) = run else {
        let mut line = describe(arguments.peer, workload, &setup);
        line.insert("status".into(), "not applicable".into());
        line.insert("reason".into(), in_process::reason(workload.name).into());
        println!("{}", Value::Object(line));
        return Ok(());
    };
    let ended = run(&mut bench)
        .with_context(|| format!("{} of {} tasks", workload.name, setup.n))
        .and_then(|outcome| report(arguments.peer, workload, &bench, outcome));
    ended.inspect_err(|_| bench.print_logs())
}

/// What was asked for, and the workload's defaults for the rest.
fn setup(arguments: &Arguments, workload: &Workload) -> anyhow::Result<Setup> {
    let variant = match &arguments.variant {
        Some(asked) => {
            let found = workload.variants.iter().find(|one| *one == asked);
            let known = workload.variants.join(", ");
            Some(*found.with_context(|| format!("--variant {asked} is none of: {known}"))?)
        }
        None => workload.variants.first().copied(),
    };
    ensure!(arguments.total > 0.0, "--total must be more than 0");
    let nap_us = arguments.nap_ms * 1e3;
    ensure!((0.0..1e9).contains(&nap_us), "--nap-ms must be from 0 to a million");
    let can_emulate = EMULATED.contains(&workload.name);
    ensure!(
        can_emulate || !arguments.zero_worker,
        "--zero-worker is for {}: what others run has to be run",
        EMULATED.join(", ")
    );
    Ok(Setup {
        n: arguments.n.unwrap_or(workload.n),
        workers: arguments.workers.unwrap_or(workload.workers),
        threads: arguments.threads.unwrap_or(workload.threads),
        variant,
        total: arguments.total,
        block_bytes: arguments.block_bytes,
        graph: rsds::find(&arguments.graph).context("no such graph")?,
        nap_us: nap_us as u32,
        random: arguments.random,
        local: arguments.local || arguments.peer == Peer::Rayon,
        emulated: arguments.zero_worker,
    })
}

/// What is run, on whom and with what.
fn describe(peer: Peer, workload: &Workload, setup: &Setup) -> Map<String, Value> {
    let mut line = Map::new();
    let peer = if peer == Peer::Rayon { "rayon" } else { "rdask" };
    line.insert("peer".into(), peer.into());
    line.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    line.insert("commit".into(), env!("RDASK_COMMIT").into());
    line.insert("workload".into(), workload.name.into());
    line.extend(setup.variant.map(|variant| ("variant".to_owned(), Value::from(variant))));
    line.extend(
        [
            ("workers", json!(setup.workers)),
            ("threads", json!(setup.threads)),
            ("local", json!(setup.local)),
            ("n", json!(setup.n)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let nap_ms = f64::from(setup.nap_us) / 1e3;
    let others = [
        ("total", json!(setup.total), setup.total != TOTAL),
        ("block_bytes", json!(setup.block_bytes), setup.block_bytes != BLOCK_BYTES),
        ("graph", json!(setup.graph.name), setup.graph.name != GRAPH),
        ("nap_ms", json!(nap_ms), nap_ms != NAP_MS),
        ("random", json!(setup.random), setup.random),
    ];
    let others = others.into_iter().filter(|(_, _, is_other)| *is_other);
    line.extend(others.map(|(name, value, _)| (name.to_owned(), value)));
    line
}

fn report(peer: Peer, workload: &Workload, bench: &Bench, outcome: Outcome) -> anyhow::Result<()> {
    let mut line = describe(peer, workload, bench.setup());
    if bench.is_emulated() {
        line.insert("emulated".into(), emulated::REMARK.into());
    }
    let (ok, tasks) = (outcome.ok, outcome.tasks);
    line.extend(outcome.into_fields());
    line.extend(bench.used(tasks));
    println!("{}", Value::Object(line));
    ensure!(ok, "a wrong result");
    Ok(())
}

/// As people write large powers of two.
fn count(n: u32) -> String {
    const LARGE: u32 = 1 << 12;
    if n >= LARGE && n.is_power_of_two() { format!("2^{}", n.ilog2()) } else { n.to_string() }
}

/// The part of `--help` that comes from the table of workloads.
fn teach() -> String {
    let mut text = "Workloads [workers x slots; n]:\n".to_owned();
    for one in WORKLOADS {
        let defaults = format!("[{}x{}; {}]", one.workers, one.threads, count(one.n));
        text.push_str(&format!("  {:<9} {:<15} {}\n", one.name, defaults, one.about));
        if !one.variants.is_empty() {
            text.push_str(&format!("{:27} --variant {}\n", "", one.variants.join(", ")));
        }
    }
    text.push_str(
        "
Fields: what was run, on which rdask, with the flags that are not at their defaults; seconds on the
clock; ideal_s, what it would take at least where that is known, and
overhead_ms beyond it; us_per_task; per role (scheduler, worker, client) rss_mb_*, the sum of peak
resident MiB, and cpu_s_* within the clock; scheduler_cpu_us_per_task, the scheduler's part of
that, and scheduler_bytes_per_task, by how much its peak memory grew within the clock; load1, the
machine's load when the run began; emulated, what is not real about the workers.

Graphs of --workload rsds: ",
    );
    let names: Vec<&str> = rsds::GRAPHS.iter().map(|one| one.name).collect();
    text.push_str(&names.join(", "));
    text.push_str(
        ".

Examples:
  rdask-bench --workload noop --n 1000000
  rdask-bench --workload uneven --variant late
  rdask-bench --workload square16 --workers 4
  rdask-bench --workload rsds --graph merge-10K --zero-worker --workers 7
  rdask-bench --workload sleep --zero-worker --workers 63 --nap-ms 100
  rdask-bench --workload register --workers 1000",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn a_line_tells_what_was_run() {
        let line = |flags: &str| {
            let words = ["rdask-bench", "--workload", "shuffle"].into_iter();
            let arguments = Arguments::parse_from(words.chain(flags.split_whitespace()));
            let shuffle = WORKLOADS.iter().find(|one| one.name == "shuffle").unwrap();
            describe(Peer::Rdask, shuffle, &setup(&arguments, shuffle).unwrap())
        };
        let usual = line("");
        assert_eq!(
            (&usual["n"], &usual["version"]),
            (&json!(64), &json!(env!("CARGO_PKG_VERSION")))
        );
        assert!(!usual["commit"].as_str().unwrap().is_empty());
        for (flags, field, value) in [
            ("--total 8", "total", json!(8.0)),
            ("--block-bytes 4096", "block_bytes", json!(4096)),
            ("--graph merge-10K", "graph", json!("merge-10K")),
            ("--nap-ms 0.5", "nap_ms", json!(0.5)),
            ("--random", "random", json!(true)),
        ] {
            assert_eq!(line(flags).get(field), Some(&value), "{flags}");
            assert_eq!(usual.get(field), None, "{field}");
        }
    }

    #[test]
    fn the_command_line_is_sound_and_explains_every_workload() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        // It is wrapped to the width of the terminal.
        let words = help.split_whitespace().collect::<Vec<&str>>().join(" ");
        for workload in WORKLOADS {
            assert!(words.contains(workload.about), "no word about {}", workload.name);
        }
    }
}
