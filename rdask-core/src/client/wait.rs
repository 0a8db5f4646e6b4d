//! Who waits for what.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bulk::Bulk;

use super::{Action, Client};
use crate::blob::Blob;
use crate::failure::Failure;
use crate::id::{ArrayId, TaskId};
use crate::message::{FromClient, TaskStatus};
use crate::range::{Range, RangeMap, RangeSet};

use super::array::gaps;

/// Somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(u64);

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interest {
    /// That tasks end.
    End,
    /// That tasks end; small values and failures come along.
    Small,
    /// That tasks end and that their values are here, or failures instead.
    Value,
}

/// What is here of some tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Small values of consecutive tasks.
    Values(Range, Blob),
    /// The value of one task.
    Value(u32, Bulk),
    /// Tasks that failed.
    Failed(Range, Arc<Failure>),
    /// Tasks that have not ended, or whose values are elsewhere.
    Absent(Range),
}

/// One who waits, until [`Client::stop_waiting`].
#[derive(Debug)]
pub(super) struct Waiter {
    interest: Interest,
    mode: Mode,
    tasks: BTreeMap<ArrayId, RangeSet>,
    missing: u64,
    complete: bool,
}

/// What a waiter hears before all is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing.
    Whole,
    /// Nothing, but it is complete as soon as a task has failed.
    UntilFailure,
    /// Each range that is there.
    Each,
}

impl Client {
    /// Waits for all of these tasks: [`Action::Complete`] follows, perhaps at once.
    pub fn wait(&mut self, tasks: &[(ArrayId, Range)], interest: Interest) -> WaiterId {
        self.start_waiting(tasks, interest, Mode::Whole)
    }

    /// Waits for all of these tasks or the first failure among them.
    pub fn wait_until_failure(
        &mut self,
        tasks: &[(ArrayId, Range)],
        interest: Interest,
    ) -> WaiterId {
        self.start_waiting(tasks, interest, Mode::UntilFailure)
    }

    /// Waits for each of these tasks: [`Action::Progress`] for what is there, then
    /// [`Action::Complete`]. What is there already is reported first.
    pub fn wait_each(&mut self, tasks: &[(ArrayId, Range)], interest: Interest) -> WaiterId {
        self.start_waiting(tasks, interest, Mode::Each)
    }

    /// Whether a waiter has nothing left to wait for. It stays until [`Self::stop_waiting`].
    #[must_use]
    pub fn is_complete(&self, waiter: WaiterId) -> bool {
        self.waits.waiters.get(&waiter).is_none_or(|waiter| waiter.complete)
    }

    /// Forgets a waiter. Large values that only it waited for go with it.
    pub fn stop_waiting(&mut self, waiter: WaiterId) {
        let Some(gone) = self.waits.waiters.remove(&waiter) else {
            return;
        };
        for (array, set) in gone.tasks {
            let Some(record) = self.arrays.get_mut(&array) else {
                continue;
            };
            for range in set.iter() {
                strike(record.awaiting_mut(gone.interest), range, waiter);
                if gone.interest == Interest::Value {
                    record.remove_taker(range);
                }
            }
        }
    }

    /// What is here of these tasks, in order. Large values only while somebody waits for them or
    /// has not stopped.
    #[must_use]
    pub fn pieces(&self, array: ArrayId, range: Range) -> Vec<Piece> {
        match self.arrays.get(&array) {
            Some(record) => record.pieces(range),
            None if range.is_empty() => Vec::new(),
            None => vec![Piece::Absent(range)],
        }
    }

    /// The state of a task, if this client knows that it has ended.
    #[must_use]
    pub fn status(&self, task: TaskId) -> Option<TaskStatus> {
        self.arrays.get(&task.array)?.status(task.index)
    }

    /// Which of these tasks have ended, as far as this client knows, in order.
    #[must_use]
    pub fn ended_within(&self, array: ArrayId, range: Range) -> Vec<(Range, bool)> {
        let mut parts: Vec<(Range, bool)> = Vec::new();
        for piece in self.pieces_known(array, range) {
            match parts.last_mut() {
                Some((last, ended)) if last.end == piece.0.start && *ended == piece.1 => {
                    last.end = piece.0.end;
                }
                _ => parts.push(piece),
            }
        }
        parts
    }

    fn pieces_known(&self, array: ArrayId, range: Range) -> Vec<(Range, bool)> {
        let Some(record) = self.arrays.get(&array) else {
            return vec![(range, false)];
        };
        let ended = record.known.within(range).map(|(part, _)| (part, true));
        let unknown = gaps(&record.known, range);
        let mut parts: Vec<(Range, bool)> = ended.collect();
        parts.extend(unknown.into_iter().map(|part| (part, false)));
        parts.sort_unstable();
        parts
    }

    fn start_waiting(
        &mut self,
        tasks: &[(ArrayId, Range)],
        interest: Interest,
        mode: Mode,
    ) -> WaiterId {
        self.flush_batch();
        let waiter = WaiterId(self.waits.next);
        self.waits.next += 1;
        let mut sets: BTreeMap<ArrayId, RangeSet> = BTreeMap::new();
        for &(array, range) in tasks {
            sets.entry(array).or_default().insert(range);
        }
        let (mut missing, mut failed) = (0, false);
        for (&array, set) in &sets {
            for range in set.iter() {
                let parts = self.await_range(waiter, array, range, interest);
                missing += parts.len();
                failed |= mode == Mode::UntilFailure && self.has_failed(array, range);
                if mode == Mode::Each {
                    self.report_rest(waiter, array, range, &parts);
                }
            }
        }
        let complete = missing == 0 || failed;
        self.waits
            .waiters
            .insert(waiter, Waiter { interest, mode, tasks: sets, missing, complete });
        if complete {
            self.outbox.push_back(Action::Complete(waiter));
        }
        self.pump_fetches();
        waiter
    }

    /// Notes that `waiter` waits for what is missing of `range`, and asks for it. Returns that.
    fn await_range(
        &mut self,
        waiter: WaiterId,
        array: ArrayId,
        range: Range,
        interest: Interest,
    ) -> RangeSet {
        let Some(record) = self.arrays.get_mut(&array) else {
            return RangeSet::new();
        };
        let (unknown, unfetched) = record.missing(range, interest);
        if interest == Interest::Value {
            record.add_taker(range);
        }
        let awaiting = record.awaiting_mut(interest);
        for part in unknown.iter().chain(&unfetched) {
            enter(awaiting, *part, waiter);
        }
        let values = interest >= Interest::Small;
        let mut messages = Vec::new();
        for &part in &unknown {
            let asked: RangeSet = record
                .wanted
                .within(part)
                .filter(|(_, asked)| **asked >= interest)
                .map(|(part, _)| part)
                .collect();
            let mut rest = RangeSet::from(part);
            asked.iter().for_each(|range| rest.remove(range));
            for range in rest.iter() {
                record.wanted.insert(range, interest);
                messages.push(FromClient::Want { array, range, values });
            }
        }
        messages.into_iter().for_each(|message| self.send(message));
        let fetches = unfetched.iter().map(|range| (array, *range));
        self.fetches.queue.extend(fetches);
        unknown.into_iter().chain(unfetched).collect()
    }

    /// Reports what of `range` a new waiter needs not wait for.
    fn report_rest(&mut self, waiter: WaiterId, array: ArrayId, range: Range, missing: &RangeSet) {
        let mut there = RangeSet::from(range);
        missing.iter().for_each(|part| there.remove(part));
        for range in there.iter() {
            self.outbox.push_back(Action::Progress { waiter, array, range });
        }
    }

    fn has_failed(&self, array: ArrayId, range: Range) -> bool {
        self.arrays.get(&array).is_some_and(|record| record.has_failed_within(range))
    }

    /// `range` is there for those who wait for `interest`.
    pub(super) fn settle(
        &mut self,
        array: ArrayId,
        range: Range,
        interest: Interest,
        failed: bool,
    ) {
        let Some(record) = self.arrays.get_mut(&array) else {
            return;
        };
        let awaiting = record.awaiting_mut(interest);
        let parts: Vec<(Range, Vec<WaiterId>)> =
            awaiting.within(range).map(|(part, waiters)| (part, waiters.clone())).collect();
        awaiting.remove(range);
        for (range, waiters) in parts {
            for id in waiters {
                let Some(waiter) = self.waits.waiters.get_mut(&id) else {
                    continue;
                };
                waiter.missing -= u64::from(range.len());
                if waiter.mode == Mode::Each {
                    let waiter = id;
                    self.outbox.push_back(Action::Progress { waiter, array, range });
                }
                let enough = failed && waiter.mode == Mode::UntilFailure;
                if !waiter.complete && (waiter.missing == 0 || enough) {
                    waiter.complete = true;
                    self.outbox.push_back(Action::Complete(id));
                }
            }
        }
    }

    /// Nobody will hear of `range` any more.
    pub(super) fn settle_all(&mut self, array: ArrayId, range: Range) {
        for interest in [Interest::End, Interest::Small, Interest::Value] {
            self.settle(array, range, interest, true);
        }
    }
}

/// Adds a waiter to all of `range`.
fn enter(awaiting: &mut RangeMap<Vec<WaiterId>>, range: Range, waiter: WaiterId) {
    let alone = gaps(awaiting, range);
    awaiting.update(range, |_, waiters| {
        let mut waiters = waiters.clone();
        waiters.push(waiter);
        Some(waiters)
    });
    for range in alone {
        awaiting.insert(range, vec![waiter]);
    }
}

/// Takes a waiter out of all of `range`.
fn strike(awaiting: &mut RangeMap<Vec<WaiterId>>, range: Range, waiter: WaiterId) {
    awaiting.update(range, |_, waiters| {
        let left: Vec<WaiterId> = waiters.iter().copied().filter(|id| *id != waiter).collect();
        (!left.is_empty()).then_some(left)
    });
}
