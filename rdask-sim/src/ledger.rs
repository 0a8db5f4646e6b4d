//! The ledger: which run of which task began where, and what gave it the right to.
//!
//! A body is started again only with a cause (R5): its process was given up, its value was lost or
//! dropped, the run before failed or was called back. Run numbers rise, and no two processes that
//! the scheduler counts on run the same task at a time (R6).

use std::collections::{BTreeMap, BTreeSet};

use rdask_core::id::{ProcessId, TaskId};

/// How often a holder is not to be reached before its value is made again.
const TRIES: u32 = 2;

/// How the last run of a task ended, as far as its process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Running,
    Inline,
    Stored,
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    run: u32,
    process: ProcessId,
    fate: Fate,
    /// The scheduler has taken the report.
    is_taken: bool,
    /// The scheduler has called it back, or nobody wants its value any more.
    is_dropped: bool,
    /// Somebody has not got the value from a holder, often enough to make it again.
    is_missed: bool,
    /// The value is one of an earlier run, and a run that had been assigned meanwhile is called
    /// back: it may begin before it hears of that, and nothing comes of it.
    is_recalled: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<TaskId, Entry>,
    /// How often holders of a value were not reached.
    misses: BTreeMap<TaskId, u32>,
    /// Who has said that they have the whole value of a task, if it has one output.
    holders: BTreeMap<TaskId, BTreeSet<ProcessId>>,
    pub(crate) starts: u64,
    pub(crate) repeats: u64,
}

impl Ledger {
    /// A body starts. `counts` says whether the scheduler counts on a process.
    pub(crate) fn start(
        &mut self,
        task: TaskId,
        run: u32,
        process: ProcessId,
        counts: impl Fn(ProcessId) -> bool,
    ) -> Result<(), String> {
        self.starts += 1;
        let mut is_dropped = false;
        if let Some(entry) = self.entries.get(&task) {
            if !counts(process) {
                // It doesn't know yet that it was given up: nothing it does counts.
                return Ok(());
            }
            self.repeats += 1;
            let before = entry.process;
            if run <= entry.run {
                return Err(format!(
                    "{task}: run {run} in {process} begins after run {} in {before}",
                    entry.run
                ));
            }
            let was_given_up = !counts(before);
            if entry.fate == Fate::Running && !was_given_up && !entry.is_dropped {
                return Err(format!(
                    "{task}: run {run} in {process} begins while run {} goes on in {before}",
                    entry.run
                ));
            }
            let is_held =
                self.holders.get(&task).is_some_and(|all| all.iter().any(|id| counts(*id)));
            let is_with_scheduler = entry.fate == Fate::Inline && entry.is_taken;
            let is_lost = was_given_up && !is_with_scheduler && !is_held;
            let has_cause =
                is_lost || entry.is_dropped || entry.is_missed || entry.fate == Fate::Failed;
            is_dropped = entry.is_recalled;
            if !has_cause && !entry.is_recalled {
                return Err(format!(
                    "{task}: run {run} begins in {process} without a cause: {entry:?}, held by {:?}",
                    self.holders.get(&task)
                ));
            }
        }
        let entry = Entry {
            run,
            process,
            fate: Fate::Running,
            is_taken: false,
            is_dropped,
            is_missed: false,
            is_recalled: false,
        };
        self.entries.insert(task, entry);
        self.holders.remove(&task);
        Ok(())
    }

    /// A process says that it has the whole value of a task.
    pub(crate) fn held(&mut self, task: TaskId, process: ProcessId) {
        self.holders.entry(task).or_default().insert(process);
    }

    /// Whether anybody has said so, in the run that counts.
    pub(crate) fn has_holders(&self, task: TaskId) -> bool {
        self.holders.contains_key(&task)
    }

    /// A process is not to keep a value, or doesn't have it.
    pub(crate) fn not_held(&mut self, task: TaskId, process: ProcessId) {
        if let Some(holders) = self.holders.get_mut(&task) {
            holders.remove(&process);
        }
    }

    /// Whether only these have a value, of those that the scheduler counts on.
    pub(crate) fn is_only_with(
        &self,
        task: TaskId,
        these: &[ProcessId],
        counts: impl Fn(ProcessId) -> bool,
    ) -> bool {
        let holders = self.holders.get(&task);
        holders.is_some_and(|holders| {
            let has_one_of_these = these.iter().any(|id| holders.contains(id));
            has_one_of_these && !holders.iter().any(|id| !these.contains(id) && counts(*id))
        })
    }

    /// Whether the scheduler has heard how the last run of a task ended, in this process.
    pub(crate) fn is_taken(&self, task: TaskId, process: ProcessId) -> bool {
        let entry = self.entries.get(&task);
        entry.is_some_and(|entry| entry.process == process && entry.is_taken)
    }

    /// Whether a run of a task goes on in a process, and its end counts.
    pub(crate) fn runs_in(&self, task: TaskId, process: ProcessId) -> bool {
        self.entries.get(&task).is_some_and(|entry| {
            entry.process == process && entry.fate == Fate::Running && !entry.is_dropped
        })
    }

    /// A body has ended, or the process has said so.
    pub(crate) fn end(&mut self, task: TaskId, run: u32, process: ProcessId, fate: Fate) {
        if let Some(entry) = self.entries.get_mut(&task)
            && (entry.run, entry.process) == (run, process)
        {
            entry.fate = fate;
        }
    }

    /// The scheduler hears how a run ended.
    pub(crate) fn taken(&mut self, task: TaskId, process: ProcessId) {
        if let Some(entry) = self.entries.get_mut(&task)
            && entry.process == process
        {
            entry.is_taken = true;
        }
    }

    /// The scheduler takes a value of an earlier run from a process that is back.
    pub(crate) fn adopted(
        &mut self,
        task: TaskId,
        process: ProcessId,
        fate: Fate,
        is_recalled: bool,
    ) {
        if let Some(entry) = self.entries.get_mut(&task) {
            let (is_dropped, is_missed) = (false, false);
            let run = entry.run;
            self.holders.remove(&task);
            *entry =
                Entry { run, process, fate, is_taken: true, is_dropped, is_missed, is_recalled };
        }
    }

    /// The scheduler tells a process not to run a task.
    pub(crate) fn called_back(&mut self, task: TaskId, from: ProcessId) {
        if let Some(entry) = self.entries.get_mut(&task)
            && entry.process == from
        {
            entry.is_dropped = true;
        }
    }

    /// The scheduler tells a process to drop values.
    pub(crate) fn dropped(&mut self, task: TaskId) {
        if let Some(entry) = self.entries.get_mut(&task) {
            entry.is_dropped = true;
        }
    }

    /// Somebody tells the scheduler that a value was not had from its holder: which denied having
    /// it, or could not be reached. Returns how often that was so.
    pub(crate) fn missed(&mut self, task: TaskId, denied: bool) -> u32 {
        let misses = self.misses.entry(task).or_default();
        *misses += u32::from(!denied);
        if let Some(entry) = self.entries.get_mut(&task) {
            entry.is_missed |= denied || *misses >= TRIES;
        }
        *misses
    }

    /// All that is known of a task.
    pub(crate) fn tell(&self, task: TaskId) -> String {
        format!("{:?}", self.entries.get(&task))
    }
}
