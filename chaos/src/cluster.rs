//! The real `rdask` in processes of its own: a scheduler, workers, and this program as a client.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdask_testbed::proc::{children, is_alive};
use serde::Deserialize;

use crate::ledger::Progress;
use crate::load::{Outcome, read_outcome};
use crate::net::Net;

/// What comes up or goes away in order takes a fraction of this on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the scheduler keeps for a client that may come back.
const GRACE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until something is there.
pub(crate) fn wait_for<T>(
    what: &str,
    time: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "not within {} s: {what}", time.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Sends a signal to a process; one that has ended is no mistake.
pub(crate) fn signal(pid: u32, signal: Signal) {
    // There is nothing to do about it.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// What `rdask status --json` says.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) clients: u32,
    pub(crate) workers: Vec<Worker>,
    pub(crate) tasks: Tasks,
    pub(crate) result_bytes: u64,
}

/// One worker in it.
#[derive(Debug, Deserialize)]
pub(crate) struct Worker {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) processes: u32,
}

/// How many tasks there are.
#[derive(Debug, Deserialize)]
pub(crate) struct Tasks {
    waiting: u64,
    ready: u64,
    pub(crate) assigned: u64,
    done: u64,
    failed: u64,
}

impl Status {
    /// How many tasks and bytes are left.
    fn rest(&self) -> u64 {
        let tasks = &self.tasks;
        tasks.waiting + tasks.ready + tasks.assigned + tasks.done + tasks.failed + self.result_bytes
    }
}

/// A scheduler, workers and clients, in a folder of their own. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Cluster {
    rdask: PathBuf,
    folder: PathBuf,
    net: Option<Net>,
    scheduler: Running,
    nannies: BTreeMap<String, Running>,
    /// All processes that were ever seen, to find those that stay.
    seen: BTreeSet<u32>,
    clients: u32,
}

/// The node of the scheduler and that of clients, in a cluster with a network of its own.
pub(crate) const SCHEDULER: &str = "s";
pub(crate) const CLIENT: &str = "c";

/// What is special about a worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Special<'a> {
    /// More arguments for `rdask worker`.
    pub(crate) arguments: &'a [&'a str],
    /// Where it keeps programs, if not where all do.
    pub(crate) cache: Option<&'a Path>,
}

impl Cluster {
    /// Starts a scheduler; on node "s" if there is a network.
    pub(crate) fn start(rdask: &Path, folder: &Path, net: Option<Net>) -> anyhow::Result<Self> {
        let file = folder.join("scheduler.json");
        let mut command = at_node(net.as_ref(), SCHEDULER, rdask)?;
        command.args(["scheduler", "--scheduler-file"]).arg(&file).args(place(net.as_ref()));
        let scheduler = Running::start(command, folder, "scheduler")?;
        wait_for("the scheduler file", PATIENCE, || Ok(file.exists().then_some(())))?;
        Ok(Self {
            rdask: rdask.to_owned(),
            folder: folder.to_owned(),
            net,
            scheduler,
            nannies: BTreeMap::new(),
            seen: BTreeSet::new(),
            clients: 0,
        })
    }

    /// Adds a worker with a nanny of its own, on the node of its name if there is a network.
    pub(crate) fn add(&mut self, name: &str, pool: &str, slots: u32) -> anyhow::Result<()> {
        self.add_special(name, pool, slots, Special::default())
    }

    /// Adds a worker that is not like others.
    pub(crate) fn add_special(
        &mut self,
        name: &str,
        pool: &str,
        slots: u32,
        special: Special<'_>,
    ) -> anyhow::Result<()> {
        let mut command = at_node(self.net.as_ref(), name, &self.rdask)?;
        command.args(["worker", "--scheduler-file"]).arg(self.file());
        command.args(["--name", name, "--pool", pool, "--nthreads", &slots.to_string()]);
        command.args(place(self.net.as_ref())).args(special.arguments);
        if !special.arguments.contains(&"--memory-limit") {
            command.args(["--memory-limit", "0"]);
        }
        if let Some(cache) = special.cache {
            command.env("RDASK_CACHE", cache);
        }
        let nanny = Running::start(command, &self.folder, &format!("nanny-{name}"))?;
        self.nannies.insert(name.to_owned(), nanny);
        Ok(())
    }

    /// Waits until the scheduler has so many workers.
    pub(crate) fn wait_for_workers(&self, count: usize) -> anyhow::Result<()> {
        wait_for(&format!("{count} workers"), PATIENCE, || {
            Ok((self.status()?.workers.len() == count).then_some(()))
        })
    }

    /// Where the scheduler says how to join.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("scheduler.json")
    }

    /// The network between the nodes.
    pub(crate) fn net(&self) -> anyhow::Result<&Net> {
        self.net.as_ref().context("this cluster has no network of its own")
    }

    /// What the scheduler says.
    pub(crate) fn status(&self) -> anyhow::Result<Status> {
        let mut command = at_node(self.net.as_ref(), CLIENT, &self.rdask)?;
        command.args(["status", "--json", "--scheduler-file"]).arg(self.file());
        let output = command.stdin(Stdio::null()).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "rdask status: {}: {error}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The numbers of all workers: who was given up comes back with another one.
    pub(crate) fn members(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.status()?.workers.into_iter().map(|worker| worker.id).collect())
    }

    /// The scheduler's process.
    pub(crate) fn scheduler(&self) -> u32 {
        self.scheduler.pid()
    }

    /// The nanny of a worker.
    pub(crate) fn nanny(&self, name: &str) -> anyhow::Result<u32> {
        Ok(self.nannies.get(name).with_context(|| format!("no worker {name}"))?.pid())
    }

    /// The processes of a worker, without its nanny.
    pub(crate) fn processes(&mut self, name: &str) -> anyhow::Result<Vec<u32>> {
        let processes = children(self.nanny(name)?);
        self.seen.extend(&processes);
        Ok(processes)
    }

    /// Ends nannies and their processes at once, as a power failure does. Returns the processes.
    pub(crate) fn kill(&mut self, names: &[&str]) -> anyhow::Result<Vec<u32>> {
        let mut processes = Vec::new();
        for name in names {
            processes.extend(self.processes(name)?);
        }
        for name in names {
            signal(self.nanny(name)?, Signal::SIGKILL);
        }
        processes.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        for name in names {
            self.nannies.get_mut(*name).context("it is there")?.wait(PATIENCE)?;
        }
        Ok(processes)
    }

    /// Takes a worker that was told to leave off the list; how it ended.
    pub(crate) fn left(&mut self, name: &str, within: Duration) -> anyhow::Result<ExitStatus> {
        let mut nanny = self.nannies.remove(name).with_context(|| format!("no worker {name}"))?;
        nanny.wait(within)
    }

    /// Starts this program as a client. All of them work in one folder and note in one ledger:
    /// they are one program, and share its processes.
    pub(crate) fn client(&mut self, load: &str, arguments: &[String]) -> anyhow::Result<Client> {
        self.clients += 1;
        let name = format!("client-{}", self.clients);
        let mut progress = Progress::of(&self.folder);
        let before = progress.begun()?;
        let this = std::env::current_exe()?;
        let mut command = at_node(self.net.as_ref(), CLIENT, &this)?;
        command.args(["client", load]).arg(self.file()).args(arguments);
        // An error is one line in the table.
        command.env_remove("RUST_BACKTRACE");
        let running = Running::start(command, &self.folder, &name)?;
        Ok(Client { running, progress, before })
    }

    /// What must be so after every scenario: nothing of any task is left, everybody leaves in good
    /// order when told, no process stays, and nobody has panicked.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let mut last = None;
        wait_for("no client, no task and no byte is left", GRACE + PATIENCE, || {
            let status = self.status()?;
            let empty = status.clients == 0 && status.rest() == 0;
            last = Some(status);
            Ok(empty.then_some(()))
        })
        .with_context(|| format!("{last:?}"))?;
        for nanny in self.nannies.values() {
            self.seen.extend(children(nanny.pid()));
        }
        signal(self.scheduler.pid(), Signal::SIGTERM);
        let status = self.scheduler.wait(PATIENCE)?;
        ensure!(status.success(), "the scheduler ended with {status}");
        for (name, nanny) in &mut self.nannies {
            let was_killed = nanny.ended()?.is_some();
            let status = nanny.wait(PATIENCE).with_context(|| format!("the nanny of {name}"))?;
            ensure!(was_killed || status.success(), "the nanny of {name} ended with {status}");
        }
        let stray = || self.seen.iter().filter(|pid| is_alive(**pid)).copied().collect::<Vec<_>>();
        wait_for("no process stays", PATIENCE, || Ok(stray().is_empty().then_some(())))
            .with_context(|| format!("{:?}", stray()))?;
        self.no_panics()
    }

    fn no_panics(&self) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
                if let Some(line) = text.lines().find(|line| line.contains("panicked at")) {
                    bail!("{}: {line}", path.display());
                }
            }
        }
        Ok(())
    }

    /// What a worker's nanny, the scheduler or a client has written.
    pub(crate) fn log(&self, name: &str) -> anyhow::Result<String> {
        let bytes = fs::read(self.folder.join(name).with_extension("log"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A command on a node, or here where there is no network.
fn at_node(net: Option<&Net>, node: &str, program: &Path) -> anyhow::Result<Command> {
    let mut command = match net {
        Some(net) => net.command(node, program)?,
        None => Command::new(program),
    };
    command.env_remove("RDASK_SCHEDULER_FILE").env_remove("SLURM_JOB_ID");
    Ok(command)
}

/// Where to listen.
fn place(net: Option<&Net>) -> [&'static str; 2] {
    if net.is_some() { ["--interface", crate::net::INTERFACE] } else { ["--host", "127.0.0.1"] }
}

/// A client at work.
#[derive(Debug)]
pub(crate) struct Client {
    running: Running,
    progress: Progress,
    /// How many runs had begun before it came.
    before: usize,
}

impl Client {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// How many runs have begun since it came.
    pub(crate) fn begun(&mut self) -> anyhow::Result<usize> {
        Ok(self.progress.begun()? - self.before)
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.running.ended()?.is_some())
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn outcome(&mut self, within: Duration) -> anyhow::Result<Outcome> {
        let status = self.running.wait(within)?;
        let log = fs::read_to_string(&self.running.log)?;
        ensure!(status.success(), "the client ended with {status}: {}", log.trim_end());
        read_outcome(&self.running.log)
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        signal(self.pid(), Signal::SIGKILL);
        self.running.wait(PATIENCE).map(drop)
    }
}

/// A process of the cluster. It is killed when it is dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Running {
    fn start(mut command: Command, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let log = folder.join(name).with_extension("log");
        // One that comes again goes on in its log.
        let output = File::options().append(true).create(true).open(&log)?;
        if !command.get_envs().any(|(variable, _)| variable == "RDASK_CACHE") {
            command.env("RDASK_CACHE", folder.join("cache"));
        }
        if command.get_current_dir().is_none() {
            command.current_dir(folder);
        }
        command.env("TMPDIR", folder).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("{name} can't be started"))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_for(&what, within, || Ok(self.child.try_wait()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, or be frozen: SIGKILL ends it anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
