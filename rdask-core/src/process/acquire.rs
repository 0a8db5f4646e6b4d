//! Copies that the scheduler wants here: fetched like inputs, for no task.
//!
//! An acquisition is one more user of an input, as long as the input is missing. So a value that
//! tasks wait for as well is fetched once, and what comes stays until the scheduler drops it.

use std::cmp::Reverse;

use super::kept::outputs_of;
use super::work::QueueKey;
use super::{Action, Process, ValueId};
use crate::id::{ArrayId, AssignmentId, ProcessId, TaskId};
use crate::message::{FromProcess, Place, Source};
use crate::range::Range;

impl Process {
    /// Begins to fetch all outputs of these tasks.
    pub(super) fn acquire(&mut self, array: ArrayId, range: Range, parts: u16, holder: ProcessId) {
        // Before the inputs of all tasks: the holder may be about to leave.
        let key: QueueKey =
            (Reverse(u16::MAX), Reverse(i32::MAX), self.arrivals, AssignmentId(u64::MAX));
        self.arrivals += 1;
        for index in range {
            let task = TaskId { array, index };
            if self.is_acquiring(task) {
                self.stale_count += 1;
                continue;
            }
            for part in 0..parts.max(1) {
                let source = Source { task, part, place: Place::Held(vec![holder]) };
                let value = ValueId::of(&source);
                // It is wanted here again.
                self.inputs.all.entry(value).and_modify(|input| input.dropped = false);
                if self.use_input(&source, None, key) {
                    self.inputs.acquiring.insert(value);
                } else {
                    self.release_input(value);
                }
            }
            if !self.is_acquiring(task) {
                self.answer_acquired(task);
            }
        }
    }

    fn is_acquiring(&self, task: TaskId) -> bool {
        let (from, to) = outputs_of(task);
        self.inputs.acquiring.range(from..to).next().is_some()
    }

    /// A value that was to be acquired is here.
    pub(super) fn acquired(&mut self, value: ValueId) {
        if self.inputs.acquiring.remove(&value) {
            self.release_input(value);
            if !self.is_acquiring(value.task) {
                self.answer_acquired(value.task);
            }
        }
    }

    fn answer_acquired(&mut self, task: TaskId) {
        if self.kept.is_stored(task) {
            self.outbox.push_hold(ValueId { task, part: 0 }, true);
            return;
        }
        let outputs = self.kept.replicas_of(task);
        if !outputs.is_empty() {
            outputs.into_iter().for_each(|output| self.outbox.push_hold(output, true));
        } else {
            // It is small, so the scheduler has it or is about to.
            self.actions.push_back(Action::Send(FromProcess::NotAcquired { task }));
        }
    }

    /// A value can't be had. Returns whether it was to be acquired.
    pub(super) fn acquire_failed(&mut self, value: ValueId) -> bool {
        if !self.inputs.acquiring.contains(&value) {
            return false;
        }
        let (from, to) = outputs_of(value.task);
        let outputs: Vec<ValueId> = self.inputs.acquiring.range(from..to).copied().collect();
        for output in outputs {
            self.inputs.acquiring.remove(&output);
            self.release_input(output);
        }
        // Outputs that have come are copies like any other: who knows of them has them dropped.
        let task = value.task;
        for output in self.kept.replicas_of(task) {
            self.outbox.push_hold(output, false);
        }
        self.actions.push_back(Action::Send(FromProcess::NotAcquired { task }));
        true
    }
}
