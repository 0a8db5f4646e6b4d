//! Runs that don't stop, reckoned beside the core: how long they may go on before their process is
//! ended for it, and how long their neighbours may.

use std::collections::{BTreeMap, BTreeSet};

use rdask_core::failure::FailureKind;
use rdask_core::id::{ArrayId, AssignmentId, Peer, ProcessId, TaskId};
use rdask_core::message::{Assign, End, FromProcess};
use rdask_core::range::Range;

use super::{MS, SECOND, World};

/// How long a run may go on that was told to stop, unless its work says otherwise.
const KILL_GRACE_MS: u64 = 10_000;

/// How long words are under way, or are not said because nobody knows better.
const SLACK: u64 = 60 * SECOND;

/// Why processes are ended for runs in them.
pub(super) const OVERRUN: &str = "a run in it did not stop when it was told to";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stops {
    /// Since when runs of a process should have stopped, of which no end was heard.
    told: BTreeMap<(ProcessId, TaskId), u64>,
    /// The shortest grace that tasks of an array have.
    graces: BTreeMap<ArrayId, u64>,
    assigned: BTreeMap<AssignmentId, (ProcessId, ArrayId, Range)>,
    /// Processes that have had a run that went on for too long: until when its neighbours may.
    closing: BTreeMap<ProcessId, u64>,
    /// Processes that the scheduler has ended: nobody is to blame for it.
    pub(super) ended: BTreeSet<ProcessId>,
}

impl Stops {
    /// Tasks are assigned that have such a grace.
    pub(super) fn assigned(&mut self, to: ProcessId, assign: &Assign, grace_ms: Option<u64>) {
        let grace = grace_ms.unwrap_or(KILL_GRACE_MS) * MS;
        let known = self.graces.entry(assign.array).or_insert(grace);
        *known = grace.min(*known);
        self.assigned.insert(assign.assignment, (to, assign.array, assign.range));
    }

    /// A run is to stop.
    pub(super) fn told(&mut self, process: ProcessId, task: TaskId, now: u64) {
        self.told.entry((process, task)).or_insert(now);
        // Its process is being ended from now on, whether it stops or not.
        if self.graces.get(&task.array) == Some(&0) {
            self.closing.entry(process).or_insert(now);
        }
    }

    /// A process speaks of runs.
    pub(super) fn hear(&mut self, from: ProcessId, message: &FromProcess, now: u64) {
        match message {
            FromProcess::Report { finished, .. } => {
                for one in finished {
                    let timed_out = |end: &End| {
                        matches!(end, End::Failed(failure)
                            if failure.kind == FailureKind::TimedOut)
                    };
                    if timed_out(&one.end) {
                        let tasks =
                            one.range.iter().map(|index| TaskId { array: one.array, index });
                        tasks.for_each(|task| self.told(from, task, now));
                    } else {
                        self.stopped(from, one.array, one.range);
                    }
                }
            }
            FromProcess::Stopped { assignment, range } => {
                if let Some((_, array, _)) = self.assigned.get(assignment).copied() {
                    self.stopped(from, array, *range);
                }
            }
            _ => {}
        }
    }

    fn stopped(&mut self, process: ProcessId, array: ArrayId, range: Range) {
        for index in range {
            self.told.remove(&(process, TaskId { array, index }));
        }
    }

    /// Whether an assignment is of this process, under the number that it works under.
    pub(super) fn is_of(&self, assignment: AssignmentId, process: ProcessId) -> bool {
        self.assigned.get(&assignment).is_some_and(|(to, ..)| *to == process)
    }

    /// The last of the tasks of an assignment.
    pub(super) fn last_of(&self, assignment: AssignmentId) -> Option<TaskId> {
        let (_, array, range) = self.assigned.get(&assignment)?;
        Some(TaskId { array: *array, index: range.end.checked_sub(1)? })
    }

    /// Whose runs have gone on for too long by now.
    pub(super) fn look(&mut self, now: u64) {
        for ((process, task), told) in &self.told {
            let grace = self.graces.get(&task.array).copied().unwrap_or(0);
            if told + grace <= now {
                self.closing.entry(*process).or_insert(now + grace);
            }
        }
    }
}

impl World {
    /// A process is ended for a run that doesn't stop: it had its time, and its neighbours, too.
    pub(super) fn check_overrun(&mut self, id: ProcessId) {
        let Some(process) = self.by_id.get(&id).copied() else { return };
        // It may have been told in this very turn.
        self.stops.look(self.now);
        let Some(latest) = self.stops.closing.get(&id).copied() else {
            return self.fail(format!("{id} is ended for a run that may still stop"));
        };
        let is_told = |task: TaskId| self.stops.told.contains_key(&(id, task));
        if let Some(task) = self.counting_run(process, &|task| !is_told(task))
            && self.now < latest
        {
            self.fail(format!("{id} is ended before its neighbour {task} has had time to end"));
        }
    }

    /// Nothing is in the way of words any more: who was told to stop has, or its process was ended.
    pub(super) fn check_stopped(&mut self) {
        let goes_on = self.stops.told.iter().find(|((process, task), told)| {
            let grace = self.stops.graces.get(&task.array).copied().unwrap_or(KILL_GRACE_MS * MS);
            let runs = |one: &usize| self.processes[*one].running_tasks().contains(task);
            self.now > **told + 2 * grace + SLACK
                && self.scheduler.core.knows(*process)
                && self.by_id.get(process).is_some_and(runs)
                && !self.scheduler.leases.is_silent(Peer::Process(*process))
        });
        if let Some(((process, task), _)) = goes_on {
            self.fail(format!("{process} goes on with {task}, and should have stopped"));
        }
    }

    /// A run in a process that somebody waits for, of those that are meant.
    pub(super) fn counting_run(
        &self,
        process: usize,
        is_meant: &dyn Fn(TaskId) -> bool,
    ) -> Option<TaskId> {
        let one = &self.processes[process];
        let runs = |task: &TaskId| is_meant(*task) && self.ledger.runs_in(*task, one.works_as());
        one.running_tasks().into_iter().find(runs)
    }
}
