//! Values that somebody could not get from a process that should have them.
//!
//! A holder that denies having a value has not got it. One that was not reached may have it all the
//! same: connections fail for a moment, and whether a process lives its link says. So a value stays
//! with a living holder until several tries in a row have failed, some time apart: two of a value
//! that can be made again, which is cheaper than to wait, and many of one that can't.

use std::time::Duration;

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

/// After so many one that can't: if nobody reaches its holder for ten seconds, nobody will.
const TRIES_FOR_SCATTERED: u32 = 20;

/// Tries that failed in a row: how many, and when the last one that counts was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Misses {
    count: u32,
    last: Time,
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
        if !denied && self.may_be_there(gid, task.index, holder) {
            return true;
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
        false
    }

    /// Whether a holder that was not reached is still believed to have a value.
    fn may_be_there(&mut self, gid: Gid, index: u32, holder: ProcessId) -> bool {
        let now = self.now;
        let is_silent = self.is_silent(Peer::Process(holder));
        let Some(group) = self.groups.get_mut(gid) else { return false };
        if !is_holder(group, index, holder) {
            return false;
        }
        // Its lease decides.
        if is_silent {
            return true;
        }
        let is_scattered = matches!(group.inputs, Inputs::Scattered(_));
        let tries = if is_scattered { TRIES_FOR_SCATTERED } else { TRIES };
        let misses = group.misses.entry(index).or_default();
        if misses.count == 0 || now.since(misses.last) >= TRY_AGAIN {
            *misses = Misses { count: misses.count + 1, last: now };
        }
        let is_believed = misses.count < tries;
        if !is_believed {
            group.misses.remove(&index);
        }
        is_believed
    }

    /// Somebody has got a value.
    pub(crate) fn not_missed(&mut self, task: TaskId) {
        if let Some(gid) = self.groups.find(task.array)
            && let Some(group) = self.groups.get_mut(gid)
        {
            group.misses.remove(&task.index);
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
