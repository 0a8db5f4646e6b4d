//! The command `rdask-sim`.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

mod bugs;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rdask_sim::{Coverage, Report, Scenario, generate, run, shrink};

/// Simulates clusters in virtual time, one per seed, with everything that can go wrong.
///
/// Examples:
///   rdask-sim 42                  the cluster of seed 42
///   rdask-sim 42 --trace          its story
///   rdask-sim --seeds 10000       ten thousand of them, on all cores
///   rdask-sim replay FILE         a scenario that an earlier failure was made small to
///   rdask-sim bugs                whether it finds bugs that are planted
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The seed to run alone.
    #[arg(conflicts_with = "seeds", required_unless_present = "seeds")]
    seed: Option<u64>,
    /// Print the story, one line per event.
    #[arg(long)]
    trace: bool,
    /// How many seeds to run.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// How many at a time; all cores if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print how often each state of a task met each event.
    #[arg(long)]
    coverage: bool,
    /// Go on after a failure, and list them all.
    #[arg(long)]
    keep_going: bool,
    /// Don't make a failure small.
    #[arg(long)]
    no_shrink: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario from a file.
    Replay {
        /// The file.
        file: PathBuf,
        /// Print the story.
        #[arg(long)]
        trace: bool,
    },
    /// Print the scenario of a seed.
    Show {
        /// The seed.
        seed: u64,
    },
    /// Plant bugs in copies of the core and count the seeds until each is found.
    Bugs(bugs::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let is_well = match &arguments.command {
        Some(Command::Replay { file, trace }) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("can't read {}", file.display()))?;
            let scenario = Scenario::parse(&text)
                .with_context(|| format!("{} is no scenario", file.display()))?;
            one(&scenario, *trace)?
        }
        Some(Command::Show { seed }) => {
            println!("{}", generate(*seed).print());
            true
        }
        Some(Command::Bugs(options)) => bugs::run(options)?,
        None => match (arguments.seed, arguments.seeds) {
            (Some(seed), _) => {
                let scenario = generate(seed);
                let is_well = one(&scenario, arguments.trace)?;
                if !is_well && !arguments.no_shrink {
                    print_small(&scenario);
                }
                is_well
            }
            (None, seeds) => many(&arguments, seeds.unwrap_or(1)),
        },
    };
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one scenario and says how it went.
fn one(scenario: &Scenario, traced: bool) -> anyhow::Result<bool> {
    let report = run(scenario, traced);
    let mut out = std::io::stdout().lock();
    for line in &report.story {
        // Whoever reads may have seen enough.
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    drop(out);
    let slots: u32 = scenario.nodes.iter().flat_map(|node| &node.slots).sum();
    println!(
        "seed {}: {} nodes, {slots} slots, {} clients, {} faults until {} ms",
        scenario.seed,
        scenario.nodes.len(),
        scenario.clients.len(),
        scenario.faults.len(),
        scenario.heal_ms
    );
    println!(
        "{} events in {:.3} s of virtual time, {} runs, {} of them repeated; trace {:032x}",
        report.events,
        report.time_ns as f64 / 1e9,
        report.runs,
        report.repeats,
        report.hash
    );
    match &report.failure {
        Some(failure) => println!("FAILED: {failure}"),
        None => println!("well"),
    }
    Ok(report.failure.is_none())
}

fn print_small(scenario: &Scenario) {
    let (small, failure) = shrink(scenario);
    println!("made small, it fails with: {failure}\n{}", small.print());
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    events: u64,
    runs: u64,
    repeats: u64,
    coverage: Coverage,
    failed: Option<(u64, String)>,
}

impl Sum {
    fn add(&mut self, seed: u64, report: Report) {
        self.seeds += 1;
        self.events += report.events;
        self.runs += report.runs;
        self.repeats += report.repeats;
        self.coverage.add(&report.coverage);
        if let Some(failure) = report.failure
            && self.failed.as_ref().is_none_or(|(first, _)| *first > seed)
        {
            self.failed = Some((seed, failure));
        }
    }
}

/// Runs many seeds and says how that went.
fn many(arguments: &Arguments, seeds: u64) -> bool {
    let begun = Instant::now();
    let jobs = arguments
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let next = AtomicU64::new(0);
    let has_failed = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                let mut own = Vec::new();
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= seeds || has_failed.load(Ordering::Relaxed) {
                        break;
                    }
                    let seed = arguments.first_seed + nth;
                    let report = run(&generate(seed), false);
                    if let Some(failure) = &report.failure {
                        if arguments.keep_going {
                            println!("seed {seed}: {}", failure.replace('\n', " "));
                        }
                        has_failed.store(!arguments.keep_going, Ordering::Relaxed);
                    }
                    own.push((seed, report));
                }
                let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for (seed, report) in own {
                    sum.add(seed, report);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    say(arguments, &sum, begun.elapsed().as_secs_f64())
}

fn say(arguments: &Arguments, sum: &Sum, seconds: f64) -> bool {
    println!(
        "{} seeds in {seconds:.1} s: {:.0} seeds/s, {:.0} events/s, {} runs, {} of them repeated",
        sum.seeds,
        sum.seeds as f64 / seconds,
        sum.events as f64 / seconds,
        sum.runs,
        sum.repeats
    );
    let missing = sum.coverage.missing();
    println!(
        "{} pairs of state and event met, {} of {} expected",
        sum.coverage.len(),
        Coverage::expected() - missing.len(),
        Coverage::expected()
    );
    if arguments.coverage {
        println!("{}", sum.coverage.print());
    }
    let Some((seed, failure)) = &sum.failed else {
        // Fewer seeds can't be expected to meet everything.
        let is_covered = missing.is_empty() || sum.seeds < 1_000;
        if !is_covered {
            println!("never met: {}", missing.join(", "));
        }
        return is_covered;
    };
    println!("seed {seed} FAILED: {failure}");
    if !arguments.no_shrink && !arguments.keep_going {
        print_small(&generate(*seed));
    }
    false
}
