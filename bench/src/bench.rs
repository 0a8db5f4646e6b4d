//! What a workload runs on: a cluster of real processes that is warm, a client of it, a clock.

use std::time::Instant;

use anyhow::{Context, ensure};
use rdask::{Client, LocalCluster, Policy};
use rdask_testbed::cluster::{Cluster, Running};
use rdask_testbed::proc::memory;
use serde_json::{Map, Value};

use crate::emulated::Emulation;
use crate::rsds::Published;
use crate::usage::{Usage, load_1, peak_rss_mib};
use crate::workloads::nap;

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
    pub(crate) graph: &'static Published,
    /// How long a task sleeps, in microseconds.
    pub(crate) nap_us: u32,
    pub(crate) random: bool,
    pub(crate) local: bool,
    pub(crate) emulated: bool,
}

/// A cluster for one run of one workload.
#[derive(Debug)]
pub(crate) struct Bench {
    setup: Setup,
    load_1: f64,
    /// Ends before the scheduler does.
    emulation: Option<Emulation>,
    cluster: Option<Cluster>,
    local: Option<LocalCluster>,
    before: Vec<(&'static str, Usage)>,
    /// The scheduler's resident bytes when the clock started.
    resting: u64,
}

/// Those whose memory and time are counted.
const ROLES: [&str; 3] = ["scheduler", "worker", "client"];

impl Bench {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            setup,
            load_1: load_1(),
            emulation: None,
            cluster: None,
            local: None,
            before: Vec::new(),
            resting: 0,
        }
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
        } else if self.setup.emulated {
            let client = self.connect_alone()?;
            self.emulate(workers, threads)?.wait_until_at_work();
            client
        } else {
            let policy = self.policy();
            let cluster = match self.setup.variant {
                Some("quic") => Cluster::over_quic(workers, threads),
                _ => Cluster::with_policy(workers, threads, policy),
            };
            self.cluster.insert(cluster).client()
        };
        warm_up(&client, workers * threads)?;
        Ok((client, self.start_clock()))
    }

    /// Starts a scheduler without workers, and connects to it.
    pub(crate) fn connect_alone(&mut self) -> anyhow::Result<Client> {
        ensure!(!self.setup.local, "it starts processes: leave out --local");
        let cluster = self.cluster.insert(Cluster::with_policy(0, 0, self.policy()));
        Ok(Client::connect(cluster.file())?)
    }

    /// Starts a process of emulated workers, for which nothing waits.
    pub(crate) fn emulate(&mut self, workers: u32, slots: u32) -> anyhow::Result<&Emulation> {
        let cluster = self.cluster.as_ref().context("it needs a scheduler")?;
        Ok(self.emulation.insert(Emulation::start(cluster, workers, slots)?))
    }

    /// What is used from here on is what [`used`](Self::used) tells.
    pub(crate) fn start_clock(&mut self) -> Instant {
        self.before = ROLES.map(|role| (role, Usage::of(&self.pids(role)))).into();
        self.resting = self.cluster.as_ref().map_or(0, |one| memory(one.scheduler.pid(), "VmRSS"));
        Instant::now()
    }

    fn policy(&self) -> Policy {
        if self.setup.random { Policy::Random { seed: 1 } } else { Policy::default() }
    }

    /// What the scheduler has used since the clock started.
    pub(crate) fn scheduler_cpu_s(&self) -> f64 {
        let before = self.before.iter().find(|(role, _)| *role == "scheduler");
        Usage::of(&self.pids("scheduler")).since(before.map(|(_, usage)| usage)).as_secs_f64()
    }

    /// By how many bytes the scheduler has grown at most since the clock started.
    pub(crate) fn scheduler_grown(&self) -> Option<u64> {
        let pid = self.cluster.as_ref()?.scheduler.pid();
        Some(memory(pid, "VmHWM").saturating_sub(self.resting))
    }

    /// Starts the clock for what runs in this process alone and is warm.
    pub(crate) fn begin_in_process(&mut self) -> Instant {
        self.before = vec![("client", Usage::of(&self.pids("client")))];
        Instant::now()
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

    /// Whether workers are emulated.
    pub(crate) fn is_emulated(&self) -> bool {
        self.emulation.is_some()
    }

    fn pids(&self, role: &str) -> Vec<u32> {
        match (&self.cluster, role) {
            (_, "client") => vec![std::process::id()],
            (None, _) => Vec::new(),
            (Some(cluster), "scheduler") => vec![cluster.scheduler.pid()],
            (Some(cluster), _) => {
                let nannies: Vec<u32> = cluster.nannies.iter().map(Running::pid).collect();
                let emulated = self.emulation.iter().map(Emulation::pid).collect();
                [nannies, cluster.processes(), emulated].concat()
            }
        }
    }

    /// What each role has used, now that the clock has stopped, for as many tasks.
    pub(crate) fn used(&self, tasks: Option<u32>) -> Map<String, Value> {
        let mut used = Map::new();
        for role in ROLES {
            let pids = self.pids(role);
            let before = self.before.iter().find(|(one, _)| *one == role);
            let seconds = Usage::of(&pids).since(before.map(|(_, usage)| usage)).as_secs_f64();
            let rss: u64 = pids.into_iter().map(peak_rss_mib).sum();
            used.insert(format!("rss_mb_{role}"), rss.into());
            used.insert(format!("cpu_s_{role}"), seconds.into());
            if let (Some(tasks), Some(grown)) = (tasks, self.scheduler_grown())
                && role == "scheduler"
            {
                let (tasks, grown) = (f64::from(tasks), grown as f64);
                used.insert("scheduler_cpu_us_per_task".into(), (seconds * 1e6 / tasks).into());
                used.insert("scheduler_bytes_per_task".into(), (grown / tasks).into());
            }
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
    const NAP_US: u32 = 200_000;
    client.gather(client.map(nap, (0..slots).map(|nth| (nth.into(), NAP_US))))?;
    client.gather(client.map(|x: u64| x + 1, 0..100))?;
    Ok(())
}
