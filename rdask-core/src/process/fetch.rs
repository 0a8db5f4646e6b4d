//! The inputs of tasks that are here: which are missing, where they are to be had, who waits.
//!
//! Every value is fetched once, whoever waits for it. The bound: one entry per input of an
//! assigned task; at most [`FETCHES_MAX`] fetches under way, the others queue as their tasks do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::kept::first_of;
use super::work::{QueueKey, Waiter};
use super::{Action, FETCHES_MAX, Process, ValueId};
use crate::id::{ArrayId, AssignmentId, ProcessId};
use crate::message::{FromProcess, Place, Source};
use crate::range::Range;

/// A value that tasks here take.
#[derive(Debug)]
pub(super) struct Input {
    /// By how many parameters of tasks that have not ended; one for all tasks that share it, and
    /// one for an acquisition.
    pub(super) users: u32,
    pub(super) state: State,
    /// Those of the users who wait for it. Some may have been forgotten since.
    pub(super) waiters: Vec<Waiter>,
    /// Whether to drop it once its last user is gone. Never what a run made after that was said.
    pub(super) dropped: bool,
}

/// Where an input is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// With the runtime.
    Present,
    /// Here, encoded, since it is small.
    Small(Bytes),
    /// A task that is here will produce it.
    Expected,
    /// With others. These have not been tried yet.
    Elsewhere(Vec<ProcessId>, QueueKey),
}

impl State {
    pub(super) fn is_missing(&self) -> bool {
        match self {
            Self::Present | Self::Small(_) => false,
            Self::Expected | Self::Elsewhere(..) => true,
        }
    }
}

/// All inputs.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub(super) all: BTreeMap<ValueId, Input>,
    /// Fetches to start.
    pub(super) queue: BTreeSet<(QueueKey, ValueId)>,
    /// Fetches under way, whether or not somebody still waits for them, and from whom.
    pub(super) fetching: BTreeMap<ValueId, ProcessId>,
    /// Missing inputs that the scheduler wants here, each counted among its users.
    pub(super) acquiring: BTreeSet<ValueId>,
}

impl Inputs {
    fn state(&self, value: ValueId) -> Option<&State> {
        self.all.get(&value).map(|input| &input.state)
    }

    pub(super) fn is_expected(&self, value: ValueId) -> bool {
        matches!(self.state(value), Some(State::Expected))
    }

    /// Whether a value that tasks here take is not here yet.
    pub(super) fn is_missing(&self, value: ValueId) -> bool {
        self.state(value).is_some_and(State::is_missing)
    }

    pub(super) fn is_small(&self, value: ValueId) -> bool {
        matches!(self.state(value), Some(State::Small(_)))
    }

    /// The bytes of an input that is here and small.
    pub(super) fn small(&self, value: ValueId) -> Option<Bytes> {
        match self.state(value)? {
            State::Small(bytes) => Some(bytes.clone()),
            State::Present | State::Expected | State::Elsewhere(..) => None,
        }
    }

    /// The inputs that are results of these tasks.
    pub(super) fn within(&self, array: ArrayId, range: Range) -> Vec<ValueId> {
        let (from, to) = (first_of(array, range.start), first_of(array, range.end));
        self.all.range(from..to).map(|(value, _)| *value).collect()
    }
}

impl Process {
    /// One more parameter takes the value of `source`, or an acquisition does, for which no task
    /// waits. Returns whether it is missing.
    pub(super) fn use_input(
        &mut self,
        source: &Source,
        waiter: Option<Waiter>,
        key: QueueKey,
    ) -> bool {
        let value = ValueId::of(source);
        if let Some(input) = self.inputs.all.get_mut(&value) {
            input.users += 1;
            let missing = input.state.is_missing();
            if missing {
                input.waiters.extend(waiter);
            }
            return missing;
        }
        let state = self.find(value, &source.place, key);
        let missing = state.is_missing();
        if let State::Elsewhere(..) = &state
            && !self.inputs.fetching.contains_key(&value)
        {
            self.inputs.queue.insert((key, value));
        }
        let waiters = waiter.filter(|_| missing).into_iter().collect();
        let input = Input { users: 1, state, waiters, dropped: false };
        self.inputs.all.insert(value, input);
        missing
    }

    /// Where a value is that nothing here used so far.
    fn find(&mut self, value: ValueId, place: &Place, key: QueueKey) -> State {
        if self.kept.has(value) {
            return State::Present;
        }
        if let Some(bytes) = self.kept.small_of(value.task) {
            return State::Small(bytes);
        }
        let owed = self.owed.get(&value.task.array);
        let coming = owed.is_some_and(|owed| owed.get(value.task.index).is_some());
        let mut others: Vec<ProcessId> = match place {
            Place::Held(holders) => {
                let others = holders.iter().filter(|holder| **holder != self.id);
                others.copied().collect()
            }
            Place::Inline(_) | Place::Here => Vec::new(),
        };
        // Processes that all need the same value begin with different holders of it.
        let first = self.id.0 as usize % others.len().max(1);
        others.rotate_left(first);
        if others.is_empty() {
            if !coming {
                self.orphans.push(value);
            }
            State::Expected
        } else {
            State::Elsewhere(others, key)
        }
    }

    /// One parameter less takes `value`.
    pub(super) fn release_input(&mut self, value: ValueId) {
        let Some(input) = self.inputs.all.get_mut(&value) else {
            return;
        };
        input.users -= 1;
        if input.users > 0 {
            return;
        }
        let input = self.inputs.all.remove(&value).expect("it was there");
        if let State::Elsewhere(_, key) = input.state {
            self.inputs.queue.remove(&(key, value));
        }
        if input.dropped {
            self.drop_values(value.task.array, Range::one(value.task.index));
        }
    }

    /// Starts as many fetches as may be under way.
    pub(super) fn start_fetches(&mut self) {
        while self.inputs.fetching.len() < FETCHES_MAX
            && let Some((_, value)) = self.inputs.queue.pop_first()
        {
            self.fetch_from_next(value);
        }
    }

    /// Asks the next holder of a value that is missing.
    fn fetch_from_next(&mut self, value: ValueId) {
        let Some(input) = self.inputs.all.get_mut(&value) else {
            return;
        };
        let State::Elsewhere(others, _) = &mut input.state else {
            return;
        };
        let mut last = self.id;
        while let Some(holder) = others.pop() {
            last = holder;
            if let Some(contact) = self.contacts.get(&holder) {
                self.inputs.fetching.insert(value, holder);
                self.actions.push_back(Action::Fetch { value, holder, contact: contact.clone() });
                return;
            }
        }
        self.lose_input(value, last, false);
    }

    /// Nothing comes of fetches from this process: a host that is gone doesn't say so, and a link to
    /// it would take long to find out.
    pub(super) fn peer_gone(&mut self, process: ProcessId) {
        self.contacts.remove(&process);
        let fetching = self.inputs.fetching.iter().filter(|(_, holder)| **holder == process);
        for value in fetching.map(|(value, _)| *value).collect::<Vec<ValueId>>() {
            self.fetch_failed(value, process, false);
        }
    }

    pub(super) fn fetched(&mut self, value: ValueId, bytes: u64, took: Duration) {
        if self.inputs.fetching.remove(&value).is_none() {
            self.stale_count += 1;
            if !self.kept.has(value) {
                self.actions.push_back(Action::DropReplica(value));
            }
            return;
        }
        self.outbox.push_fetched(bytes, took);
        let wanted = self.inputs.all.get(&value);
        if wanted.is_some_and(|input| input.state.is_missing()) {
            self.kept.replicated(value);
            // What is acquired is announced once all of it is here.
            if !self.inputs.acquiring.contains(&value) {
                self.outbox.push_hold(value, false);
            }
            self.came(value, State::Present);
        } else if !self.kept.has(value) {
            self.actions.push_back(Action::DropReplica(value));
        }
    }

    pub(super) fn fetch_failed(&mut self, value: ValueId, holder: ProcessId, denied: bool) {
        if self.inputs.fetching.get(&value) != Some(&holder) {
            self.stale_count += 1;
            return;
        }
        self.inputs.fetching.remove(&value);
        let Some(input) = self.inputs.all.get(&value) else {
            return;
        };
        match &input.state {
            State::Elsewhere(others, _) if others.is_empty() => {
                self.lose_input(value, holder, denied);
            }
            State::Elsewhere(..) => {
                // The scheduler should send nobody else there.
                let (task, given_back) = (value.task, Vec::new());
                let message = FromProcess::Missed { task, holder, denied, given_back };
                self.actions.push_back(Action::Send(message));
                self.fetch_from_next(value);
            }
            State::Present | State::Small(_) | State::Expected => {}
        }
    }

    /// Results of these tasks are here now.
    pub(super) fn values_came(&mut self, array: ArrayId, range: Range) {
        for value in self.inputs.within(array, range) {
            let state = match self.kept.small_of(value.task) {
                _ if self.kept.has(value) => State::Present,
                Some(bytes) => State::Small(bytes),
                None => continue,
            };
            let Some(input) = self.inputs.all.get_mut(&value) else { continue };
            // What was to be dropped was the value of an earlier run.
            input.dropped &= !self.kept.is_stored(value.task);
            if input.state.is_missing() {
                self.came(value, state);
            }
        }
    }

    /// A value that was missing is here now: those who waited for it need not.
    fn came(&mut self, value: ValueId, state: State) {
        let Some(input) = self.inputs.all.get_mut(&value) else {
            return;
        };
        let waiters = std::mem::take(&mut input.waiters);
        let before = std::mem::replace(&mut input.state, state);
        if let State::Elsewhere(_, key) = before {
            self.inputs.queue.remove(&(key, value));
        }
        for waiter in waiters {
            self.wake(waiter);
        }
        self.acquired(value);
    }

    fn wake(&mut self, waiter: Waiter) {
        let Some(work) = self.works.get_mut(&waiter.assignment) else {
            return;
        };
        let before = work.startable();
        match waiter.index {
            None => work.common_missing -= 1,
            Some(index) => {
                let Some(missing) = work.missing.get_mut(&index) else {
                    return;
                };
                *missing -= 1;
                if *missing == 0 {
                    work.missing.remove(&index);
                    work.ready.insert(Range::one(index));
                }
            }
        }
        self.requeue(waiter.assignment, before);
    }

    /// A value can't be had: gives back all tasks that wait for it.
    pub(super) fn lose_input(&mut self, value: ValueId, holder: ProcessId, denied: bool) {
        let Some(input) = self.inputs.all.get_mut(&value) else {
            return;
        };
        let waiters = std::mem::take(&mut input.waiters);
        let was_to_be_acquired = self.acquire_failed(value);
        let mut given_back: Vec<(AssignmentId, Range)> = Vec::new();
        for waiter in waiters {
            let Some(work) = self.works.get(&waiter.assignment) else {
                continue;
            };
            let range = match waiter.index {
                Some(index) => Range::one(index),
                None => work.assign.range,
            };
            let gone = self.forget_unstarted(waiter.assignment, range);
            given_back.extend(gone.into_iter().map(|part| (waiter.assignment, part)));
        }
        if was_to_be_acquired && given_back.is_empty() {
            return;
        }
        // The scheduler must hear why a task here has no result before it hears who missed it.
        if !self.outbox.is_empty() {
            self.flush();
        }
        self.actions.push_back(Action::Send(FromProcess::Missed {
            task: value.task,
            holder,
            denied,
            given_back: joined(given_back),
        }));
    }
}

/// Neighbours become one.
fn joined(ranges: Vec<(AssignmentId, Range)>) -> Vec<(AssignmentId, Range)> {
    let mut joined: Vec<(AssignmentId, Range)> = Vec::new();
    for (assignment, range) in ranges {
        match joined.last_mut() {
            Some((last, whole)) if *last == assignment && whole.end == range.start => {
                whole.end = range.end;
            }
            _ => joined.push((assignment, range)),
        }
    }
    joined
}
