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
    /// Scattered values whose last holder was lost.
    lost: BTreeSet<TaskId>,
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
        self.loses(task, process);
    }

    /// A process was given up.
    pub(super) fn is_gone(&mut self, process: ProcessId) {
        // The client may have thought it safe there.
        for task in self.takers.remove(&process).unwrap_or_default() {
            if self.scattered.get(&task).is_none_or(BTreeSet::is_empty) {
                self.lost.insert(task);
            }
        }
        let had = self.scattered.iter().filter(|(_, holders)| holders.contains(&process));
        for task in had.map(|(task, _)| *task).collect::<Vec<TaskId>>() {
            self.loses(task, process);
        }
    }

    fn loses(&mut self, task: TaskId, process: ProcessId) {
        if let Some(holders) = self.scattered.get_mut(&task)
            && holders.remove(&process)
            && holders.is_empty()
        {
            self.lost.insert(task);
        }
    }

    /// Whether the last holder of a scattered value was lost.
    pub(super) fn is_lost(&self, task: TaskId) -> bool {
        self.lost.contains(&task)
    }
}
