//! A scheduler and workers as OS processes of their own: this very program in other roles.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdask::Client;
use rdask::nanny::{DEATH_TIMEOUT, NannyOptions, WorkerInfo};
use rdask::scheduler::{Policy, SchedulerOptions, Server};
use tempfile::TempDir;

/// The variable that tells this program, started again, to be something else than a benchmark.
const ROLE: &str = "RDASK_BENCH_ROLE";

/// Does what the role in the environment says, if there is one, and never returns then. Second in
/// `main`, after [`rdask::init`].
///
/// # Panics
/// If the scheduler or nanny can't run: a benchmark has nothing to do without.
pub fn take_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("warn"))
        .with_writer(io::stderr)
        .init();
    let words: Vec<&str> = role.splitn(3, ' ').collect();
    match words[..] {
        ["scheduler", policy, file] => {
            let policy = match policy {
                "random" => Policy::Random { seed: 1 },
                _ => Policy::Locality,
            };
            let handle_signals = true;
            let options =
                SchedulerOptions { handle_signals, policy, ..SchedulerOptions::new(file) };
            Server::start(options).expect("the scheduler starts").wait();
        }
        ["worker", slots, file] => {
            let worker = WorkerInfo {
                name: format!("bench-{}", std::process::id()),
                slots: slots.parse().expect("a number of slots"),
                memory_limit: 0,
                resources: Vec::new(),
            };
            let options = NannyOptions {
                scheduler_file: file.into(),
                file_mode: rdask::connection::FileMode::Private,
                workers: vec![worker],
                pool: "bench".to_owned(),
                node: "here".to_owned(),
                host: None,
                interface: None,
                ports: 0..=0,
                local_directory: None,
                death_timeout: DEATH_TIMEOUT,
                pid_file: None,
                handle_signals: true,
            };
            rdask::nanny::run(options).expect("the nanny serves");
        }
        _ => panic!("{ROLE} says nothing that makes sense: {role:?}"),
    }
    std::process::exit(0);
}

/// A scheduler and workers. Dropping it ends them.
#[derive(Debug)]
pub struct Cluster {
    scheduler: Child,
    workers: Vec<Child>,
    folder: TempDir,
}

impl Cluster {
    /// Starts a scheduler and so many workers of so many slots.
    ///
    /// # Errors
    /// If a process can't be started.
    pub fn start(workers: u32, slots: u32) -> io::Result<Self> {
        Self::start_with(workers, slots, false)
    }

    /// The same, with tasks placed at random for comparison or not.
    ///
    /// # Errors
    /// If a process can't be started.
    pub fn start_with(workers: u32, slots: u32, random: bool) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("scheduler.json");
        let policy = if random { "random" } else { "locality" };
        let scheduler = in_role(&format!("scheduler {policy} {}", file.display()))?;
        let mut cluster = Self { scheduler, workers: Vec::new(), folder };
        for _ in 0..workers {
            cluster.add_worker(slots)?;
        }
        Ok(cluster)
    }

    /// Starts one more worker.
    ///
    /// # Errors
    /// If the process can't be started.
    pub fn add_worker(&mut self, slots: u32) -> io::Result<()> {
        let file = self.scheduler_file();
        self.workers.push(in_role(&format!("worker {slots} {}", file.display()))?);
        Ok(())
    }

    /// Where the scheduler says how to join.
    #[must_use]
    pub fn scheduler_file(&self) -> PathBuf {
        self.folder.path().join("scheduler.json")
    }

    /// A client, once all the workers are there.
    ///
    /// # Errors
    /// If the scheduler doesn't answer or workers are missing after 20 s.
    pub fn client(&self) -> rdask::Result<Client> {
        let deadline = Instant::now() + Duration::from_secs(20);
        wait_for(&self.scheduler_file(), deadline);
        let client = Client::connect(self.scheduler_file())?;
        while client.status()?.workers.len() < self.workers.len() {
            if Instant::now() > deadline {
                return Err(rdask::Error::Timeout);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(client)
    }

    /// The process number of the scheduler.
    #[must_use]
    pub fn scheduler_pid(&self) -> u32 {
        self.scheduler.id()
    }

    /// The process numbers of the nannies.
    #[must_use]
    pub fn nanny_pids(&self) -> Vec<u32> {
        self.workers.iter().map(Child::id).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.workers.iter_mut().chain([&mut self.scheduler]) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn in_role(role: &str) -> io::Result<Child> {
    Command::new(std::env::current_exe()?).env(ROLE, role).stdin(Stdio::null()).spawn()
}

fn wait_for(file: &Path, deadline: Instant) {
    while !file.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}
