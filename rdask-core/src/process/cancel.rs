//! What the scheduler takes back: cancelled tasks, stolen tasks, unwanted values.

use super::{Action, Process, ValueId};
use crate::id::{ArrayId, AssignmentId, StealId};
use crate::message::{End, Finished, FromProcess};
use crate::range::Range;

impl Process {
    /// These tasks need not run.
    pub(super) fn cancel(&mut self, array: ArrayId, range: Range) {
        let Some(owed) = self.owed.get(&array) else {
            return;
        };
        let parts: Vec<(Range, AssignmentId)> =
            owed.within(range).map(|(part, assignment)| (part, *assignment)).collect();
        for (part, assignment) in parts {
            self.cancel_unstarted(assignment, part);
        }
        for (id, chunk) in &self.chunks {
            let part = chunk.range.intersection(range);
            if chunk.array != array || part.is_empty() || chunk.is_void {
                continue;
            }
            let work = self.works.get_mut(&chunk.assignment);
            let work = work.expect("an assignment stays while tasks of it run");
            work.cancelled.insert(part);
            self.actions.push_back(Action::CancelRunning(*id, part));
            if chunk.range.len() > 1 {
                self.actions.push_back(Action::TakeBack(*id));
            }
        }
    }

    /// Those of the tasks that have not started are over.
    pub(super) fn cancel_unstarted(&mut self, assignment: AssignmentId, range: Range) {
        let Some(work) = self.works.get(&assignment) else {
            return;
        };
        let (array, movable) = (work.assign.array, !work.uses_local);
        for range in self.forget_unstarted(assignment, range) {
            self.outbox.push(
                Finished { assignment, array, range, busy_ns: 0, end: End::Cancelled },
                movable,
            );
        }
    }

    /// Gives up to `count` tasks back that have not started, the last ones first.
    pub(super) fn give_up(&mut self, steal: StealId, assignment: AssignmentId, count: u32) {
        let mut ranges = Vec::new();
        let mut left = count;
        if let Some(work) = self.works.get(&assignment) {
            for range in work.unstarted.iter().rev() {
                if left == 0 {
                    break;
                }
                let taken = Range::new(range.start.max(range.end.saturating_sub(left)), range.end);
                left -= taken.len();
                ranges.push(taken);
            }
        } else {
            self.stale_count += 1;
        }
        ranges.reverse();
        for range in &ranges {
            self.forget_unstarted(assignment, *range);
        }
        self.actions.push_back(Action::Send(FromProcess::GaveUp { steal, assignment, ranges }));
    }

    /// Nobody elsewhere wants these values. What tasks here still take stays until they end. What
    /// comes of a run later is none of them: the scheduler says what is to become of that when it
    /// hears of it.
    pub(super) fn drop_values(&mut self, array: ArrayId, range: Range) {
        for task in self.outbox.retract_holds(array, range) {
            self.actions.push_back(Action::Send(FromProcess::NotAcquired { task }));
        }
        let mut start = range.start;
        for value in self.inputs.within(array, range) {
            let present = self.kept.has(value);
            let input = self.inputs.all.get_mut(&value).expect("it was just listed");
            if present {
                input.dropped = true;
                self.drop_unused(array, Range::new(start, value.task.index));
                start = value.task.index + 1;
            }
        }
        self.drop_unused(array, Range::new(start, range.end));
    }

    /// Nobody wants what an assignment has made of these tasks. What a later one has made may be here
    /// already, or come while values of the first are still taken.
    pub(super) fn drop_results(&mut self, by: AssignmentId, array: ArrayId, range: Range) {
        for range in self.kept.stored_by(by, array, range) {
            self.drop_values(array, range);
        }
    }

    /// Nobody elsewhere knows of these copies. Results of runs here stay, also of the same tasks.
    pub(super) fn drop_copies(&mut self, values: &[ValueId]) {
        for value in values {
            if self.kept.is_stored(value.task) || !self.kept.has(*value) {
                continue;
            }
            if let Some(input) = self.inputs.all.get_mut(value) {
                input.dropped = true;
            } else if self.kept.forget_copy(*value) {
                self.actions.push_back(Action::DropReplica(*value));
            }
        }
    }

    fn drop_unused(&mut self, array: ArrayId, range: Range) {
        if !range.is_empty() && self.kept.forget(array, range) {
            self.actions.push_back(Action::DropValues(array, range));
        }
    }
}
