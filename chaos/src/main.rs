//! Real schedulers, workers and clients, killed, frozen and cut off while they compute. Every
//! scenario has a load with a known result, an injection, and a condition to pass.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

mod cluster;
mod ledger;
mod load;
mod net;
mod report;
mod scenario;
mod scenarios;
mod stage;
mod yardstick;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use scenario::{Scenario, Verdict};
use stage::Scale;

/// Kills, freezes and cuts off real processes of rdask, and says what came of it.
#[derive(Debug, Parser)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:

  cargo run --release -p rdask-chaos -- list
  cargo run --release -p rdask-chaos -- run half-tree half-shuffle-4gib --times 20
  cargo run --release -p rdask-chaos -- run --all --times 3

Scenarios with a network of their own need root: each node is a network namespace. Without, they
are skipped and never passed. The exit status is 0 if nothing failed."
)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what there is
    List,
    /// Run scenarios
    Run(Run),
    /// Compute something, as the scenarios' client
    #[command(hide = true)]
    Client(load::ClientArguments),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Which ones
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// All of them, but for those that `list` marks
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
    /// Larger loads and longer pauses
    #[arg(long)]
    soak: bool,
    /// Where to write a JSON document with all results
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The rdask command to run [default: the one beside this program, built first]
    #[arg(long, value_name = "FILE")]
    rdask: Option<PathBuf>,
    /// Leave the folders of failed runs
    #[arg(long)]
    keep: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    rdask::init();
    match Arguments::parse().command {
        Verb::List => report::list(scenarios::ALL),
        Verb::Run(arguments) => return run(&arguments),
        Verb::Client(arguments) => load::run(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run(arguments: &Run) -> anyhow::Result<ExitCode> {
    let chosen = choose(arguments)?;
    let rdask = match &arguments.rdask {
        Some(path) => std::path::absolute(path)?,
        None => build()?,
    };
    ensure!(rdask.exists(), "there is no {}", rdask.display());
    let scale = if arguments.soak { Scale::Soak } else { Scale::Quick };
    let mut results = Vec::new();
    report::head();
    for _ in 0..arguments.times {
        for scenario in &chosen {
            let result = scenario.run(&rdask, scale, arguments.keep);
            report::line(&result);
            results.push(result);
        }
    }
    report::sum(&results);
    if let Some(path) = &arguments.json {
        report::json(path, scale, &results)?;
    }
    let failed = results.iter().any(|result| matches!(result.verdict, Verdict::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn choose(arguments: &Run) -> anyhow::Result<Vec<&'static Scenario>> {
    if arguments.all {
        let is_for_all = |one: &&Scenario| !scenarios::BY_NAME.contains(&one.name);
        return Ok(scenarios::ALL.iter().filter(is_for_all).collect());
    }
    let named = |name: &String| scenarios::ALL.iter().find(|scenario| scenario.name == name);
    let unknown = |name| format!("there is no scenario {name}; see: rdask-chaos list");
    arguments.names.iter().map(|name| named(name).with_context(|| unknown(name))).collect()
}

/// The command beside this program. It is built first, whoever started us: an old one may speak
/// another language than this program, or the same one with the errors of then.
fn build() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().context("this program is in a folder")?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    if manifest.exists() {
        let profile = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let profile = if profile == "debug" { "dev" } else { profile };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "rdask-cli", "--profile", profile]);
        let built = command.arg("--manifest-path").arg(manifest).status();
        if !built.context("no cargo to build the rdask command; name one with --rdask")?.success() {
            bail!("the rdask command can't be built");
        }
    }
    let rdask = folder.join("rdask");
    ensure!(
        rdask.exists(),
        "there is no {}; build it with: cargo build --release -p rdask-cli",
        rdask.display()
    );
    Ok(rdask)
}
