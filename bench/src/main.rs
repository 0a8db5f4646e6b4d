//! One workload on a fresh cluster of separate processes (or in this one); prints one JSON line.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

mod bench;
mod in_process;
mod joins;
mod outcome;
mod usage;
mod workloads;

use anyhow::{Context, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use rdask_testbed::role;
use serde_json::{Map, Value, json};

use bench::{Bench, Setup};
use outcome::Outcome;
use workloads::{WORKLOADS, Workload};

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
    #[arg(long, default_value_t = 20.0)]
    total: f64,
    /// The bytes of a block, for the workloads with blocks.
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(8..))]
    block_bytes: u64,
    /// Place tasks anywhere, for comparison.
    #[arg(long)]
    random: bool,
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
    role::play(|scene, _, _| panic!("no scene {scene}"));
    let arguments = Arguments::parse();
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
        line.insert("reason".into(), "it is about processes, and all is in one".into());
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
    Ok(Setup {
        n: arguments.n.unwrap_or(workload.n),
        workers: arguments.workers.unwrap_or(workload.workers),
        threads: arguments.threads.unwrap_or(workload.threads),
        variant,
        total: arguments.total,
        block_bytes: arguments.block_bytes,
        random: arguments.random,
        local: arguments.local || arguments.peer == Peer::Rayon,
    })
}

/// What is run, on whom and with what.
fn describe(peer: Peer, workload: &Workload, setup: &Setup) -> Map<String, Value> {
    let mut line = Map::new();
    let peer = if peer == Peer::Rayon { "rayon" } else { "rdask" };
    line.insert("peer".into(), peer.into());
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
    line
}

fn report(peer: Peer, workload: &Workload, bench: &Bench, outcome: Outcome) -> anyhow::Result<()> {
    let mut line = describe(peer, workload, bench.setup());
    let ok = outcome.ok;
    line.extend(outcome.into_fields());
    line.extend(bench.used());
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
Fields: seconds on the clock; ideal_s, what it would take at least where that is known, and
overhead_ms beyond it; us_per_task; per role (scheduler, worker, client) rss_mb_*, the sum of peak
resident MiB, and cpu_s_* within the clock; load1, the machine's load when the run began.

Examples:
  rdask-bench --workload noop --n 1000000
  rdask-bench --workload uneven --variant late
  rdask-bench --workload square16 --workers 4",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

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
