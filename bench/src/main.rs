//! One workload on a fresh cluster of separate processes (or in this one); prints one JSON line.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

mod workloads;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use rdask::{Client, LocalCluster};
use rdask_bench::usage::{cpu_time, peak_rss_mib};
use rdask_testbed::cluster::{Cluster, Running};
use rdask_testbed::role;
use workloads::{Outcome, Workload};

/// Runs one workload and prints one JSON line.
///
/// Example: rdask-bench --workload noop --n 1000000 --workers 1 --threads 2
#[derive(Debug, Parser)]
struct Arguments {
    /// What to run.
    #[arg(long, value_enum)]
    workload: Workload,
    /// How many tasks; each workload has a default of its own.
    #[arg(long)]
    n: Option<u32>,
    /// How many workers.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// How many slots each worker has.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Scheduler and slots are threads of this process.
    #[arg(long)]
    local: bool,
}

fn main() -> anyhow::Result<()> {
    rdask::init();
    role::play(|scene, _, _| panic!("no scene {scene}"));
    let arguments = Arguments::parse();
    let (workers, threads) = (arguments.workers, arguments.threads);
    if arguments.local {
        let cluster = LocalCluster::new().threads(workers * threads).start()?;
        return report(&arguments, &run(&arguments, &cluster.client()?)?, serde_json::Map::new());
    }
    let cluster = Cluster::new(workers, threads);
    let client = cluster.client();
    warm_up(&client, workers * threads)?;
    let pids = |role: &str| match role {
        "scheduler" => vec![cluster.scheduler.pid()],
        "client" => vec![std::process::id()],
        _ => {
            let nannies: Vec<u32> = cluster.nannies.iter().map(Running::pid).collect();
            [nannies, cluster.processes()].concat()
        }
    };
    const ROLES: [&str; 3] = ["scheduler", "worker", "client"];
    let cpu = |role| pids(role).into_iter().map(cpu_time).sum::<Duration>();
    let before: Vec<Duration> = ROLES.into_iter().map(cpu).collect();
    let outcome = run(&arguments, &client)?;
    let mut used = serde_json::Map::new();
    for (role, before) in ROLES.into_iter().zip(before) {
        let rss: f64 = pids(role).into_iter().map(peak_rss_mib).sum();
        let seconds = (cpu(role).saturating_sub(before)).as_secs_f64();
        used.insert(format!("rss_mb_{role}"), rss.round().into());
        used.insert(format!("cpu_s_{role}"), seconds.into());
    }
    report(&arguments, &outcome, used)
}

/// Connections, forks and page faults of the first tasks are not what is measured.
fn warm_up(client: &Client, slots: u32) -> anyhow::Result<()> {
    let nap = |x: u64| {
        std::thread::sleep(Duration::from_millis(200));
        x
    };
    client.gather(client.map(nap, (0..slots).map(u64::from)))?;
    client.gather(client.map(|x: u64| x + 1, 0..100))?;
    Ok(())
}

fn run(arguments: &Arguments, client: &Client) -> anyhow::Result<Outcome> {
    let n = arguments.n.unwrap_or_else(|| arguments.workload.default_n());
    ensure!(n > 0, "--n must be at least 1");
    let start = Instant::now();
    let outcome = arguments.workload.run(client, n, start);
    outcome.with_context(|| format!("{:?} with {n} tasks", arguments.workload))
}

fn report(
    arguments: &Arguments,
    outcome: &Outcome,
    used: serde_json::Map<String, serde_json::Value>,
) -> anyhow::Result<()> {
    let mut line = serde_json::Map::new();
    line.insert("peer".into(), "rdask".into());
    line.insert("workload".into(), format!("{:?}", arguments.workload).to_lowercase().into());
    line.insert("workers".into(), arguments.workers.into());
    line.insert("threads".into(), arguments.threads.into());
    line.insert("local".into(), arguments.local.into());
    line.extend(outcome.fields.clone());
    line.extend(used);
    println!("{}", serde_json::Value::Object(line));
    ensure!(outcome.ok, "a wrong result");
    Ok(())
}
