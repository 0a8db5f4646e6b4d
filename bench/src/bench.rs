//! What a workload runs on: a cluster of real processes that is warm, a client of it, a clock.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdask::{Client, LocalCluster, Policy};
use rdask_testbed::cluster::{Cluster, Running};
use serde_json::{Map, Value};

use crate::usage::{Usage, load_1, peak_rss_mib};

/// What to run on and with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) n: u32,
    pub(crate) workers: u32,
    pub(crate) threads: u32,
    pub(crate) variant: Option<&'static str>,
    /// Seconds of sleep.
    pub(crate) total: f64,
    pub(crate) block_bytes: u64,
    pub(crate) random: bool,
    pub(crate) local: bool,
}

/// A cluster for one run of one workload.
#[derive(Debug)]
pub(crate) struct Bench {
    setup: Setup,
    load_1: f64,
    cluster: Option<Cluster>,
    local: Option<LocalCluster>,
    before: Vec<(&'static str, Usage)>,
}

/// Those whose memory and time are counted.
const ROLES: [&str; 3] = ["scheduler", "worker", "client"];

impl Bench {
    pub(crate) fn new(setup: Setup) -> Self {
        Self { setup, load_1: load_1(), cluster: None, local: None, before: Vec::new() }
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Starts the cluster, warms it up, and starts the clock.
    pub(crate) fn begin(&mut self) -> anyhow::Result<(Client, Instant)> {
        self.begin_with(self.setup.workers)
    }

    /// The same with so many workers for now.
    pub(crate) fn begin_with(&mut self, workers: u32) -> anyhow::Result<(Client, Instant)> {
        let threads = self.setup.threads;
        let client = if self.setup.local {
            let cluster = LocalCluster::new().threads(workers * threads).start()?;
            self.local.insert(cluster).client()?
        } else {
            let random = Policy::Random { seed: 1 };
            let policy = if self.setup.random { random } else { Policy::default() };
            let cluster = match self.setup.variant {
                Some("quic") => Cluster::over_quic(workers, threads),
                _ => Cluster::with_policy(workers, threads, policy),
            };
            self.cluster.insert(cluster).client()
        };
        warm_up(&client, workers * threads)?;
        self.before = ROLES.map(|role| (role, Usage::of(&self.pids(role)))).into();
        Ok((client, Instant::now()))
    }

    /// Starts the clock, then a cluster, for which nothing waits.
    pub(crate) fn begin_cold(&mut self) -> anyhow::Result<(Client, Instant)> {
        ensure!(!self.setup.local, "it starts processes: leave out --local");
        let start = Instant::now();
        let cluster = self.cluster.insert(Cluster::new(self.setup.workers, self.setup.threads));
        Ok((Client::connect(cluster.file())?, start))
    }

    /// The processes, to start more and to kill some.
    pub(crate) fn cluster(&mut self) -> anyhow::Result<&mut Cluster> {
        self.cluster.as_mut().context("it needs real processes: leave out --local")
    }

    fn pids(&self, role: &str) -> Vec<u32> {
        match (&self.cluster, role) {
            (_, "client") => vec![std::process::id()],
            (None, _) => Vec::new(),
            (Some(cluster), "scheduler") => vec![cluster.scheduler.pid()],
            (Some(cluster), _) => {
                let nannies: Vec<u32> = cluster.nannies.iter().map(Running::pid).collect();
                [nannies, cluster.processes()].concat()
            }
        }
    }

    /// What each role has used, now that the clock has stopped.
    pub(crate) fn used(&self) -> Map<String, Value> {
        let mut used = Map::new();
        for role in ROLES {
            let pids = self.pids(role);
            let before = self.before.iter().find(|(one, _)| *one == role);
            let seconds = Usage::of(&pids).since(before.map(|(_, usage)| usage)).as_secs_f64();
            let rss: u64 = pids.into_iter().map(peak_rss_mib).sum();
            used.insert(format!("rss_mb_{role}"), rss.into());
            used.insert(format!("cpu_s_{role}"), seconds.into());
        }
        used.insert("load1".to_owned(), self.load_1.into());
        used
    }

    /// What the processes have written, for whoever wonders what went wrong.
    #[expect(clippy::print_stderr, reason = "what explains a failure")]
    pub(crate) fn print_logs(&self) {
        if let Some(cluster) = &self.cluster {
            eprintln!("{}", cluster.logs());
        }
    }
}

/// Connections, forks and page faults of the first tasks are not what is measured.
fn warm_up(client: &Client, slots: u32) -> rdask::Result<()> {
    let nap = |x: u64| {
        std::thread::sleep(Duration::from_millis(200));
        x
    };
    client.gather(client.map(nap, (0..slots).map(u64::from)))?;
    client.gather(client.map(|x: u64| x + 1, 0..100))?;
    Ok(())
}
