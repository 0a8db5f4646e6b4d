//! Who has which scattered values, as far as the scheduler was told: so that one is called lost only
//! if it is.

use std::collections::{BTreeMap, BTreeSet};

use rdask_core::id::{ProcessId, TaskId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// Of scattered values: those who have said that they have it and were not given up.
    scattered: BTreeMap<TaskId, BTreeSet<ProcessId>>,
    /// Who was to take them from their client.
    takers: BTreeMap<ProcessId, BTreeSet<TaskId>>,
    /// Scattered values whose last holder was lost, and when they are.
    lost: BTreeMap<TaskId, u64>,
}

impl Holders {
    /// A client was told to put a value somewhere.
    pub(super) fn put(&mut self, task: TaskId, process: ProcessId) {
        self.scattered.entry(task).or_default();
        self.takers.entry(process).or_default().insert(task);
    }

    /// A process says that it has a value.
    pub(super) fn has(&mut self, task: TaskId, process: ProcessId) {
        if let Some(holders) = self.scattered.get_mut(&task) {
            holders.insert(process);
        }
    }

    /// Somebody says that a process doesn't have a value, or not for others.
    pub(super) fn has_not(&mut self, task: TaskId, process: ProcessId) {
        self.loses(task, process, 0);
    }

    /// A process is told that what it said to have is of no use. Another one takes it from the client.
    pub(super) fn is_too_late(&mut self, task: TaskId, process: ProcessId) {
        if let Some(holders) = self.scattered.get_mut(&task) {
            holders.remove(&process);
        }
    }

    /// A process was given up. It may come back with what it has until then.
    pub(super) fn is_gone(&mut self, process: ProcessId, until: u64) {
        // The client may have thought it safe there.
        for task in self.takers.remove(&process).unwrap_or_default() {
            if self.scattered.get(&task).is_none_or(BTreeSet::is_empty) {
                self.lost.insert(task, 0);
            }
        }
        let had = self.scattered.iter().filter(|(_, holders)| holders.contains(&process));
        for task in had.map(|(task, _)| *task).collect::<Vec<TaskId>>() {
            self.loses(task, process, until);
        }
    }

    fn loses(&mut self, task: TaskId, process: ProcessId, at: u64) {
        if let Some(holders) = self.scattered.get_mut(&task)
            && holders.remove(&process)
            && holders.is_empty()
        {
            self.lost.insert(task, at);
        }
    }

    /// A process is back with a value, and the scheduler has taken it.
    pub(super) fn is_back(&mut self, task: TaskId, process: ProcessId) {
        self.has(task, process);
        self.lost.remove(&task);
    }

    /// Whether the last holder of a scattered value is lost, and was waited for if it could be.
    pub(super) fn is_lost(&self, task: TaskId, now: u64) -> bool {
        self.lost.get(&task).is_some_and(|at| *at <= now)
    }
}
