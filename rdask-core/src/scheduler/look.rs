//! What a simulation may see of the state, and a check that nobody is idle beside work.

use crate::id::{Peer, ProcessId, TaskId};

use super::Scheduler;
use super::cluster::Stage;
use super::group::{Holding, State};

/// Where a task is, to somebody who looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Look {
    /// The scheduler doesn't know it, or not any more.
    Unknown,
    /// It waits for inputs, its payload or a delay.
    Waiting,
    /// It could run.
    Ready,
    /// It could run, best in one process.
    ReadyLocally,
    /// A process has it.
    Assigned,
    /// It ended well, and its value is with the scheduler.
    DoneInline,
    /// It ended well, and its value is with processes.
    DoneHeld,
    /// It ended well, and its value is nowhere.
    DoneNowhere,
    /// It ended badly.
    Failed,
    /// Nobody wanted it any more before it ended.
    Dropped,
}

impl Scheduler {
    /// Where a task is.
    #[must_use]
    pub fn look(&self, task: TaskId) -> Look {
        let group = self.groups.find(task.array).and_then(|gid| self.groups.get(gid));
        let Some(group) = group.filter(|group| task.index < group.len) else {
            return Look::Unknown;
        };
        match group.state.get(task.index) {
            State::Waiting(_) => Look::Waiting,
            State::Ready(None) => Look::Ready,
            State::Ready(Some(_)) => Look::ReadyLocally,
            State::Assigned(_) => Look::Assigned,
            State::Done => match group.holding.get(task.index) {
                Holding::Inline => Look::DoneInline,
                Holding::Held(..) => Look::DoneHeld,
                Holding::Nowhere => Look::DoneNowhere,
            },
            State::Failed => Look::Failed,
            State::Dropped => Look::Dropped,
        }
    }

    /// How many deaths of processes count against a task that has not come to its end.
    #[must_use]
    pub fn deaths(&self, task: TaskId) -> u32 {
        let group = self.groups.find(task.array).and_then(|gid| self.groups.get(gid));
        let deaths = group.and_then(|group| group.deaths.get(&task.index));
        deaths.map_or(0, |deaths| deaths.len() as u32)
    }

    /// Whether a process was started for one suspect: it takes nothing else in.
    #[must_use]
    pub fn is_alone(&self, process: ProcessId) -> bool {
        self.cluster.processes.get(&process).is_some_and(|process| process.alone_for.is_some())
    }

    /// Checks that no process has idle slots while there is ready work that it could begin with.
    /// It holds when there are no actions left.
    ///
    /// # Panics
    /// If it doesn't: a bug of the scheduler's.
    pub fn check_progress(&self) {
        for (id, process) in &self.cluster.processes {
            let idle = process.idle_slots();
            let Some(worker) = self.cluster.workers.get(&process.worker) else { continue };
            let is_leaving = worker.leaving || process.leaving.is_some();
            if process.stage != Stage::Running || is_leaving || idle == 0 {
                continue;
            }
            // Past so many parked runs only some tasks may start, and only some beside one that runs
            // alone or before a worker's end.
            let is_choosy = process.parked_runs > 0
                || process.alone_for.is_some()
                || worker.ends_at.is_some()
                || self.is_silent(Peer::Process(*id));
            if is_choosy {
                continue;
            }
            if let Some(task) = self.startable(*id, idle) {
                panic!(
                    "{id} has {idle} idle slots, and {task} is ready for it: {:?}",
                    self.explain(task).why
                );
            }
        }
    }

    /// A ready task that a process with so many idle slots should begin with. None if something
    /// that wants more slots may go first: what is behind it waits with it.
    fn startable(&self, id: ProcessId, idle: u32) -> Option<TaskId> {
        let process = self.cluster.processes.get(&id)?;
        let worker = self.cluster.workers.get(&process.worker)?;
        let shares = self.shares.values().filter(|share| share.program == process.program);
        let queues = shares.flat_map(|share| &share.queues);
        let central = queues.filter_map(|(class, keys)| Some((*class, keys.first()?.group)));
        let local = process.local_ready.iter().filter_map(|(key, ranges)| {
            let group = self.groups.get(key.group)?;
            Some((group.class(ranges.first()?.start), key.group))
        });
        let mut found = None;
        for (class, gid) in central.chain(local) {
            let requirement = self.classes.get(class);
            if !worker.suits(requirement) || worker.resource_room(requirement) == 0 {
                continue;
            }
            if u32::from(requirement.threads) > idle {
                return None;
            }
            found = found.or(Some(gid));
        }
        let group = self.groups.get(found?)?;
        let ready = |index: &u32| matches!(group.state.get(*index), State::Ready(_));
        Some(group.task(group.all().iter().find(ready)?))
    }
}
