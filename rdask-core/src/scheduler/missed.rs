//! Values that somebody could not get from a process that should have them.
//!
//! A holder that denies having a value has not got it. One that was not reached may have it all the
//! same: connections fail for a moment, and whether a process lives its link says. So a value stays
//! with a living holder until several tries in a row have failed, some time apart: two of a value
//! that can be made again, which is cheaper than to wait, and many of one that can't. But a firewall
//! between who has values and who wants them stays: what has been made again for that a few times
//! fails, and says so.

use std::sync::Arc;
use std::time::Duration;

use crate::failure::{Failure, FailureKind};
use crate::id::{Peer, ProcessId, TaskId};
use crate::message::ToProcess;
use crate::range::{Range, RangeSet};
use crate::time::Time;

use super::Scheduler;
use super::group::{Gid, Group, Holding, Inputs};

/// What could not be had is tried again after so long; what fails sooner counts as one try.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// After so many failed tries a value is given up that can be made again.
const TRIES: u32 = 2;

/// So often a value is made again that nobody could get from a living holder.
const ROUNDS: u32 = 3;

/// After so many one that can't: if nobody reaches its holder for ten seconds, nobody will.
const TRIES_FOR_SCATTERED: u32 = 20;

/// Tries that failed in a row: how many, and when the last one that counts was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Misses {
    count: u32,
    last: Time,
}

/// What is to be thought of a holder that was not reached.
enum Belief {
    /// It has the value all the same.
    There,
    /// It has it, and it is of no use.
    Unreached,
    /// It is no holder.
    Gone,
}

impl Scheduler {
    /// Somebody could not get a value from a process that should have it. Says whether it is thought
    /// to be there all the same.
    pub(crate) fn value_missed(&mut self, task: TaskId, holder: ProcessId, denied: bool) -> bool {
        let Some(gid) = self.groups.find(task.array) else {
            return false;
        };
        if self.groups.get(gid).is_none_or(|group| task.index >= group.len) {
            return false;
        }
        let mut is_unreached = false;
        if !denied {
            match self.belief(gid, task.index, holder) {
                Belief::There => return true,
                Belief::Unreached => is_unreached = true,
                Belief::Gone => {}
            }
        }
        let range = RangeSet::from(Range::one(task.index));
        self.forget_copies(gid, &range, holder);
        self.lose_values(gid, Range::one(task.index), holder);
        let mut was_thought_there = false;
        if let Some(process) = self.cluster.processes.get_mut(&holder) {
            for sets in [&mut process.held, &mut process.copies] {
                if let Some(set) = sets.get_mut(&gid) {
                    was_thought_there |= set.contains(task.index);
                    set.remove(Range::one(task.index));
                    if set.is_empty() {
                        sets.remove(&gid);
                    }
                }
            }
        }
        if was_thought_there {
            // It may have the value all the same, and only not have been reached.
            let ranges = vec![(task.array, Range::one(task.index))];
            self.send_process(holder, ToProcess::Drop { ranges });
        }
        self.work_off();
        if is_unreached {
            self.count_unreached(gid, task.index, holder);
        }
        false
    }

    /// What a holder that was not reached is believed to have.
    fn belief(&mut self, gid: Gid, index: u32, holder: ProcessId) -> Belief {
        let now = self.now;
        let is_silent = self.is_silent(Peer::Process(holder));
        let Some(group) = self.groups.get_mut(gid) else { return Belief::Gone };
        if !is_holder(group, index, holder) {
            return Belief::Gone;
        }
        // Its lease decides.
        if is_silent {
            return Belief::There;
        }
        let is_scattered = matches!(group.inputs, Inputs::Scattered(_));
        let tries = if is_scattered { TRIES_FOR_SCATTERED } else { TRIES };
        let misses = group.misses.entry(index).or_default();
        if misses.count == 0 || now.since(misses.last) >= TRY_AGAIN {
            *misses = Misses { count: misses.count + 1, last: now };
        }
        if misses.count < tries {
            return Belief::There;
        }
        group.misses.remove(&index);
        Belief::Unreached
    }

    /// A value is made again since nobody could get it. Not for ever: the next holder may be as
    /// hard to reach.
    fn count_unreached(&mut self, gid: Gid, index: u32, holder: ProcessId) {
        let Some(group) = self.groups.get_mut(gid) else { return };
        if group.state.get(index).is_over() {
            // Another process has it.
            return;
        }
        let rounds = group.unreached.entry(index).or_insert(0);
        *rounds += 1;
        if *rounds <= ROUNDS {
            return;
        }
        let worker = self.cluster.worker_of(holder);
        let whose = worker
            .map_or(String::new(), |worker| format!(" of {} on {}", worker.info.name, worker.node));
        let text = format!(
            "it was run {} times, and each time somebody could not reach the process that had its \
             value, the last one{whose}, though the scheduler can: a firewall may close the ports \
             between the nodes, or between them and the client",
            ROUNDS + 1
        );
        let range = Range::one(index);
        let origin = group.task(index);
        let failure = Failure::of_scheduler(FailureKind::InputLost, text, origin);
        self.call_back(gid, range, true);
        self.fail(gid, range, &Arc::new(failure));
        self.work_off();
    }

    /// Somebody has got a value.
    pub(crate) fn not_missed(&mut self, task: TaskId) {
        if let Some(gid) = self.groups.find(task.array)
            && let Some(group) = self.groups.get_mut(gid)
        {
            group.misses.remove(&task.index);
            group.unreached.remove(&task.index);
        }
    }

    /// These tasks could not get what they take, and are to try again.
    pub(crate) fn try_again_later(&mut self, parts: Vec<(Gid, Range)>) {
        for (gid, range) in parts {
            range.iter().for_each(|index| self.delay(gid, index, TRY_AGAIN));
        }
    }
}

fn is_holder(group: &Group, index: u32, process: ProcessId) -> bool {
    let Holding::Held(first, _) = group.holding.get(index) else { return false };
    let parts = group.copies.range((index, 0)..=(index, u16::MAX));
    first == process || parts.flat_map(|(_, holders)| holders).any(|holder| *holder == process)
}
