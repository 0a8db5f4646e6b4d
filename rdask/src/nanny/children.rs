//! The processes that a nanny has started. They outlive its membership: a nanny that was given up
//! joins anew and names them, and the scheduler says which of them it takes back, under which
//! numbers.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rdask_core::id::{ProcessId, ProgramHash};
use rdask_core::message::{Exit, FromNanny, Returning};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::child::{Ended, Lifeline, Started};

/// How long killed processes may take to be gone.
const KILL_TIME_MAX: Duration = Duration::from_secs(5);

/// One that was started.
#[derive(Debug)]
struct Child {
    pid: u32,
    /// In which of the nanny's workers, counted from 0.
    worker: u32,
    program: ProgramHash,
    /// Ends it when something is sent: what to report as its end.
    kill: Option<oneshot::Sender<Exit>>,
    lifeline: Option<Lifeline>,
    /// Whether the scheduler has been told of it and not said whether to keep it.
    is_named: bool,
    /// How it ended since then.
    ended: Option<io::Result<Ended>>,
}

/// One that runs and was not handed over to [`Children`] yet.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: ProcessId,
    pub(super) worker: u32,
    pub(super) program: ProgramHash,
    pub(super) started: Started,
    pub(super) killed: oneshot::Receiver<Exit>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// The run of the scheduler that knows them by these numbers.
    run: String,
    all: BTreeMap<ProcessId, Child>,
    watched: JoinSet<(u32, io::Result<Ended>)>,
}

impl Children {
    /// They belong to a scheduler of this run from now on. Those of another one are ended.
    pub(super) async fn belong_to(&mut self, run: &str) {
        if self.run != run {
            self.end().await;
            run.clone_into(&mut self.run);
        }
    }

    /// Watches a process that has started. `kill` is the other end of its `killed`, unless that was
    /// used already.
    pub(super) fn add(&mut self, running: Running, kill: Option<oneshot::Sender<Exit>>) {
        let Running { process, worker, program, mut started, killed } = running;
        let (pid, lifeline) = (started.pid, started.take_lifeline());
        self.watched.spawn(async move {
            let killed = async { killed.await.unwrap_or(Exit::Planned) };
            (pid, started.watch(killed).await)
        });
        let (is_named, ended) = (false, None);
        let child = Child { pid, worker, program, kill, lifeline, is_named, ended };
        self.all.insert(process, child);
    }

    /// Ends a process; what comes is reported as its end.
    pub(super) fn kill(&mut self, process: ProcessId, exit: Exit) {
        if let Some(child) = self.all.get_mut(&process) {
            // Nobody will ask for it under the number that it had.
            child.is_named = false;
            if child.ended.is_some() {
                self.all.remove(&process);
            } else if let Some(kill) = child.kill.take() {
                // It may have ended by itself a moment ago.
                let _ = kill.send(exit);
            }
        }
    }

    /// The next report of a process's end, `None` if there is no process.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost when the future is dropped.
    pub(super) async fn next_end(&mut self) -> Option<FromNanny> {
        loop {
            match self.watched.join_next().await? {
                Ok((pid, ended)) => {
                    if let Some(report) = self.ended(pid, ended) {
                        return Some(report);
                    }
                }
                Err(error) => tracing::error!(%error, "the task of a process panicked"),
            }
        }
    }

    fn ended(&mut self, pid: u32, ended: io::Result<Ended>) -> Option<FromNanny> {
        let (process, child) = self.all.iter_mut().find(|(_, child)| child.pid == pid)?;
        let process = *process;
        if child.is_named {
            child.ended = Some(ended);
            return None;
        }
        self.all.remove(&process);
        Some(report_of(process, pid, ended))
    }

    /// Those that still run, for the scheduler of their run. It says by messages which it keeps.
    pub(super) fn returning(&mut self, run: &str) -> Vec<Returning> {
        if self.run != run {
            return Vec::new();
        }
        // Whoever has ended meanwhile was the business of the membership before.
        while let Some(ended) = self.watched.try_join_next() {
            if let Ok((pid, _)) = ended {
                self.all.retain(|_, child| child.pid != pid);
            }
        }
        let all = self.all.iter_mut().filter(|(_, child)| child.ended.is_none());
        all.map(|(process, child)| {
            child.is_named = true;
            Returning { was: *process, worker: child.worker, program: child.program }
        })
        .collect()
    }

    /// The scheduler takes a process back under a new number. Returns what to report of it at once.
    pub(super) fn keep(&mut self, was: ProcessId, process: ProcessId) -> Option<FromNanny> {
        let Some(mut child) = self.all.remove(&was) else {
            let stderr = vec!["its nanny has no such process".to_owned()];
            let (exit, board) = (Exit::Planned, Vec::new());
            return Some(FromNanny::Exited { process, exit, board, stderr });
        };
        if let Some(ended) = child.ended.take() {
            return Some(report_of(process, child.pid, ended));
        }
        child.is_named = false;
        tracing::info!(%was, %process, pid = child.pid, "a process has a new number");
        if let Some(Err(error)) = child.lifeline.as_mut().map(|lifeline| lifeline.tell(process)) {
            // It has just ended, as will be seen.
            tracing::debug!(%process, %error, "a process can't be told its number");
        }
        self.all.insert(process, child);
        None
    }

    /// Which run: their numbers, workers and numbers on this node.
    pub(super) fn running(&self) -> impl Iterator<Item = (ProcessId, u32, u32)> {
        self.all.iter().map(|(process, child)| (*process, child.worker, child.pid))
    }

    /// Ends all of them.
    pub(super) async fn end(&mut self) {
        self.all.values_mut().for_each(|child| drop(child.kill.take()));
        let ended = async { while self.watched.join_next().await.is_some() {} };
        if timeout(KILL_TIME_MAX, ended).await.is_err() {
            tracing::warn!("some processes are not gone yet: they hang in the kernel");
        }
        // They are killed when their tasks are dropped.
        self.watched.shutdown().await;
        self.all.clear();
    }
}

fn report_of(process: ProcessId, pid: u32, ended: io::Result<Ended>) -> FromNanny {
    match ended {
        Ok(Ended { exit, board, stderr }) => {
            tracing::info!(%process, pid, ?exit, "a process ended");
            FromNanny::Exited { process, exit, board, stderr }
        }
        Err(error) => {
            tracing::error!(%process, pid, %error, "a process can't be waited for");
            let (exit, stderr) = (Exit::Planned, vec![error.to_string()]);
            FromNanny::Exited { process, exit, board: Vec::new(), stderr }
        }
    }
}
