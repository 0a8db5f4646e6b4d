//! What scenarios are written with: where they play, when to strike, how to conclude.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use crate::cluster::{CLIENT, Client, Cluster, SCHEDULER, signal, wait_for};
use crate::ledger::{Ledger, Losses, Results};
use crate::load::Outcome;
use crate::net::Net;
use crate::yardstick::Yardstick;

/// How large and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Seconds per scenario.
    Quick,
    /// Minutes.
    Soak,
}

/// One run of a scenario.
#[derive(Debug)]
pub(crate) struct Stage {
    rdask: PathBuf,
    /// Everything of this run is in here.
    pub(crate) folder: PathBuf,
    scale: Scale,
    deadline: Instant,
    /// Whose tasks may run again.
    pub(crate) losses: Losses,
    /// Figures for the table.
    pub(crate) notes: Vec<String>,
    yardstick: Option<Yardstick>,
}

impl Stage {
    /// A run in a folder.
    pub(crate) fn new(rdask: &Path, folder: &Path, scale: Scale, limit: Duration) -> Self {
        Self {
            rdask: rdask.to_owned(),
            folder: folder.to_owned(),
            scale,
            deadline: Instant::now() + limit,
            losses: Losses::default(),
            notes: Vec::new(),
            yardstick: Some(Yardstick::start()),
        }
    }

    /// One of two figures.
    pub(crate) fn pick<T>(&self, quick: T, soak: T) -> T {
        if self.scale == Scale::Quick { quick } else { soak }
    }

    /// A scheduler and these workers, "name" or "name:pool", on loopback.
    pub(crate) fn cluster(&self, workers: &[&str], slots: u32) -> anyhow::Result<Cluster> {
        self.cluster_on(None, workers, slots)
    }

    /// The same, each on a node of its own.
    pub(crate) fn networked(&self, workers: &[&str], slots: u32) -> anyhow::Result<Cluster> {
        let names = workers.iter().map(|worker| split(worker).0);
        let net = Net::new([SCHEDULER, CLIENT].into_iter().chain(names))?;
        self.cluster_on(Some(net), workers, slots)
    }

    fn cluster_on(
        &self,
        net: Option<Net>,
        workers: &[&str],
        slots: u32,
    ) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster::start(&self.rdask, &self.folder, net)?;
        for worker in workers {
            let (name, pool) = split(worker);
            cluster.add(name, pool, slots)?;
        }
        cluster.wait_for_workers(workers.len())?;
        Ok(cluster)
    }

    /// What is left of the time that the scenario has.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits until so many runs have begun. A client that ends before that was too quick for the
    /// injection, and the scenario would prove nothing.
    pub(crate) fn until_begun(&self, client: &mut Client, runs: usize) -> anyhow::Result<()> {
        wait_for(&format!("{runs} runs begin"), self.time_left(), || {
            if client.begun()? >= runs {
                return Ok(Some(()));
            }
            if client.ended()? {
                client.outcome(Duration::ZERO)?;
                anyhow::bail!("the client had ended before the injection");
            }
            Ok(None)
        })
    }

    /// What all tasks have noted so far.
    pub(crate) fn ledger(&self) -> anyhow::Result<Ledger> {
        Ledger::read(&self.folder)
    }

    /// Kills workers whole, at once.
    pub(crate) fn kill(&mut self, cluster: &mut Cluster, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            self.lose(cluster, name)?;
        }
        cluster.kill(names).map(drop)
    }

    /// From now on what a worker's processes had may run elsewhere.
    pub(crate) fn lose(&mut self, cluster: &mut Cluster, name: &str) -> anyhow::Result<()> {
        cluster.processes(name)?.into_iter().for_each(|pid| self.losses.add(pid));
        Ok(())
    }

    /// Freezes all of a worker for some time.
    pub(crate) fn freeze(
        &self,
        cluster: &mut Cluster,
        name: &str,
        time: Duration,
    ) -> anyhow::Result<()> {
        let mut pids = cluster.processes(name)?;
        pids.push(cluster.nanny(name)?);
        pids.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
        std::thread::sleep(time);
        pids.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
        Ok(())
    }

    /// The client ends well, each run had a cause, and nothing is left of the cluster.
    pub(crate) fn conclude(
        &mut self,
        cluster: Cluster,
        client: &mut Client,
        results: Results,
    ) -> anyhow::Result<(Outcome, Ledger)> {
        let (outcome, ledger) = self.result(client, results)?;
        cluster.finish()?;
        Ok((outcome, ledger))
    }

    /// The client ends well and each run had a cause.
    pub(crate) fn result(
        &mut self,
        client: &mut Client,
        results: Results,
    ) -> anyhow::Result<(Outcome, Ledger)> {
        let outcome = client.outcome(self.time_left())?;
        let ledger = self.ledger()?;
        let (tasks, reruns) = (ledger.tasks(), ledger.reruns());
        self.notes.push(format!("{:.2} s, {tasks} tasks, {reruns} run again", outcome.seconds));
        ledger.check(&self.losses, results)?;
        Ok((outcome, ledger))
    }

    /// What each lost process had ran again so soon; later where the machine had other things to do.
    pub(crate) fn check_rerun_within(
        &mut self,
        ledger: &Ledger,
        bound: Duration,
    ) -> anyhow::Result<()> {
        let factor = self.yardstick.take().map_or(1.0, Yardstick::factor);
        let times = ledger.times_to_rerun(&self.losses);
        let count = times.len();
        let longest = times.into_iter().max().context("nothing ran again: nothing was tested")?;
        let seconds = longest.as_secs_f64();
        self.notes.push(format!("{count} loss(es) seen within {seconds:.2} s, {factor:.1} x slow"));
        ensure!(
            longest <= bound.mul_f64(factor),
            "too late: more than {bound:?}, {factor:.1} times"
        );
        Ok(())
    }

    /// Kills a pool by the script that users have.
    pub(crate) fn kill_pool(&self, pool: &str, signal: &str) -> anyhow::Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kill_pool.sh");
        let output = Command::new(script)
            .args(["--signal", signal, pool])
            .env("TMPDIR", &self.folder)
            .output()
            .context("kill_pool.sh")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kill_pool.sh: {error}");
        Ok(())
    }
}

fn split(worker: &str) -> (&str, &str) {
    worker.split_once(':').unwrap_or((worker, "pool"))
}

/// A file system with room for next to nothing. Dropping it takes it away.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Why there can't be one here, if so.
    pub(crate) fn missing() -> Option<String> {
        let tried = tempfile::tempdir().map_err(Into::into).and_then(|folder| {
            Self::mount(folder.path(), 1) // taken away again before its folder
        });
        tried.err().map(|error| format!("no small file system: {error:#}"))
    }

    /// One of so many MiB at a folder.
    pub(crate) fn mount(folder: &Path, mebibytes: u32) -> anyhow::Result<Self> {
        let size = format!("size={mebibytes}m,mode=700");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .output()
            .context("mount")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}", error.trim_end());
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that is about to end may still have a file open there: it goes with the last.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
