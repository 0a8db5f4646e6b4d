//! A program's process: runs what it was assigned, holds what came of it. See [`Process`].
//!
//! Owns which tasks are queued, waiting for inputs, running or ended, which values are here, and
//! what the scheduler has to be told. Refuses to know what tasks or values are: its caller, the
//! runtime, calls functions, keeps values and moves bytes as [`Action`]s say.
//!
//! The invariant: every assigned task is answered exactly once, in a report, as given up to a
//! thief, or as given back because an input was missed; unless the scheduler has given the process
//! up, which then offers what it has under its next number.

mod acquire;
mod ahead;
mod cancel;
mod check;
mod chunk;
mod fetch;
mod kept;
mod offer;
mod pace;
mod report;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::id::{ArrayId, AssignmentId, ProcessId, TaskId};
use crate::message::{Assign, Contact, End, Finished, FromProcess, Place, Source, ToProcess};
use crate::range::{Range, RangeMap};
use crate::time::Time;

use ahead::Ahead;
pub use chunk::run_number;
use chunk::{Chunk, Slots};
use fetch::Inputs;
use kept::{Kept, Stored};
use pace::Paces;
use report::Outbox;
use work::{QueueKey, Work};

pub use crate::id::ValueId;

impl ValueId {
    /// The value that `source` names.
    #[must_use]
    pub fn of(source: &Source) -> Self {
        Self { task: source.task, part: source.part }
    }
}

/// One chunk: consecutive tasks that one slot runs in one go. Numbered by the process from 0.
/// A slot runs a chunk's tasks one after the other, so it names the run that is under way as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub u64);

/// What the process wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run these tasks on one slot, in order; then call [`Process::handle_chunk_ended`].
    StartChunk(StartChunk),
    /// Take those tasks of a chunk back that have not started, at once, and call
    /// [`Process::handle_taken_back`], also if there are none.
    TakeBack(ChunkId),
    /// Show the runs of these tasks, if they are under way in the chunk, that they were cancelled.
    CancelRunning(ChunkId, Range),
    /// Let the parked run of this chunk go on: it has its slots again.
    Resume(ChunkId),
    /// Get a value from a holder; then call [`Process::handle_fetched`] or
    /// [`Process::handle_fetch_failed`].
    Fetch {
        /// Which value.
        value: ValueId,
        /// From whom.
        holder: ProcessId,
        /// Where it listens.
        contact: Contact,
    },
    /// Drop all outputs of these tasks, whether results or replicas; some may not be here.
    DropValues(ArrayId, Range),
    /// Drop one value that was fetched and is not needed any more.
    DropReplica(ValueId),
    /// Tell the scheduler.
    Send(FromProcess),
    /// End the process: finish nothing, serve nothing.
    Exit {
        /// Why, for the log.
        reason: String,
    },
}

/// A chunk to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartChunk {
    /// Its number.
    pub chunk: ChunkId,
    /// What the tasks were assigned by. Payload and feeds are those of `assign.range`, of which
    /// `range` is a part.
    pub assign: Arc<Assign>,
    /// Which tasks.
    pub range: Range,
    /// The encoded inputs that are kept with the process's reports. All others that are not in
    /// the feeds themselves are with the runtime.
    pub small: BTreeMap<ValueId, Bytes>,
}

/// How a chunk ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkEnd {
    /// Which of its tasks ended, and how, in order. Those that are in none of the ranges and were
    /// not taken back have not started; they are queued again.
    pub ended: Vec<(Range, End)>,
    /// How long these runs kept the slot busy, without the time that they were parked.
    pub busy: Duration,
}

/// The state machine of a process. Facts go in by `handle_*`; call [`poll_action`](Self::poll_action)
/// until `None` and look at [`poll_timeout`](Self::poll_timeout) after each batch of them.
///
/// Time never goes backwards. The same calls give the same actions, byte for byte. Stale input is
/// normal, not an error: it is counted and ignored.
///
/// Bounds: all queues hold parts of what the scheduler has assigned, so its windows bound them.
/// At most [`FETCHES_MAX`] fetches are under way, at most [`PARKED_MAX`] runs are parked before
/// only their descendants start.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    now: Time,
    ahead: Ahead,
    works: BTreeMap<AssignmentId, Work>,
    /// The assignments of which something can start, the first one first.
    queue: BTreeSet<QueueKey>,
    /// How many tasks of those in the queue are ready.
    ready_count: u64,
    arrivals: u64,
    /// By which assignment each task here, started or not, is owed an answer.
    owed: BTreeMap<ArrayId, RangeMap<AssignmentId>>,
    chunks: BTreeMap<ChunkId, Chunk>,
    chunk_count: u64,
    /// When to look at which chunk again.
    alarms: BTreeSet<(Time, ChunkId)>,
    slots: Slots,
    paces: Paces,
    inputs: Inputs,
    /// Where other processes listen. As many as the scheduler has named.
    contacts: BTreeMap<ProcessId, Contact>,
    kept: Kept,
    /// Expected values that will not come.
    orphans: Vec<ValueId>,
    outbox: Outbox,
    actions: VecDeque<Action>,
    stale_count: u64,
    exiting: bool,
}

/// The most fetches under way at once. Sixteen streams fill any link; more only delay the first.
pub const FETCHES_MAX: usize = 16;

/// Past so many parked runs only their descendants start: each keeps a thread and its stack.
pub const PARKED_MAX: usize = 256;

impl Process {
    /// A process that was granted `slots` slots and has nothing to do.
    #[must_use]
    pub fn new(id: ProcessId, slots: u32) -> Self {
        Self {
            id,
            now: Time::default(),
            ahead: Ahead::default(),
            works: BTreeMap::new(),
            queue: BTreeSet::new(),
            ready_count: 0,
            arrivals: 0,
            owed: BTreeMap::new(),
            chunks: BTreeMap::new(),
            chunk_count: 0,
            alarms: BTreeSet::new(),
            slots: Slots::new(slots),
            paces: Paces::default(),
            inputs: Inputs::default(),
            contacts: BTreeMap::new(),
            kept: Kept::default(),
            orphans: Vec::new(),
            outbox: Outbox::default(),
            actions: VecDeque::new(),
            stale_count: 0,
            exiting: false,
        }
    }

    /// The scheduler said something.
    pub fn handle_message(&mut self, now: Time, message: ToProcess) {
        self.now = now;
        match message {
            ToProcess::Assign(mut assign) => {
                if self.ahead.complete(&mut assign) {
                    self.assign(assign);
                } else {
                    self.exit("the scheduler sent sources for no list".to_owned());
                }
            }
            ToProcess::Sources { assignment, param, sources } => {
                if !self.ahead.push(assignment, param, sources) {
                    self.exit("the scheduler sent too many sources of a task".to_owned());
                }
            }
            ToProcess::Peer { process, contact } => {
                self.contacts.insert(process, contact);
            }
            ToProcess::SetSlots { slots } => self.slots.grant(slots),
            ToProcess::Cancel { array, range } => self.cancel(array, range),
            ToProcess::Drop { ranges } => {
                for (array, range) in ranges {
                    self.drop_values(array, range);
                }
            }
            ToProcess::Steal { steal, assignment, count } => self.give_up(steal, assignment, count),
            ToProcess::Seen { report } => self.kept.seen(report),
            ToProcess::Exit { reason } => self.exit(reason),
            ToProcess::Acquire { array, range, parts, holder } => {
                self.acquire(array, range, parts, holder);
            }
            ToProcess::DropCopies { values } => self.drop_copies(&values),
            ToProcess::Gone { process } => self.peer_gone(process),
            ToProcess::DropResults { assignment, array, range } => {
                self.drop_results(assignment, array, range);
            }
        }
        self.settle();
    }

    /// A chunk ended, as [`Action::StartChunk`] asked for.
    ///
    /// # Panics
    /// If results don't fit the tasks they are of.
    pub fn handle_chunk_ended(&mut self, now: Time, chunk: ChunkId, end: ChunkEnd) {
        self.now = now;
        self.chunk_ended(chunk, end);
        self.settle();
    }

    /// These last tasks of a chunk had not started and will not, as [`Action::TakeBack`] asked for.
    pub fn handle_taken_back(&mut self, now: Time, chunk: ChunkId, range: Range) {
        self.now = now;
        self.taken_back(chunk, range);
        self.settle();
    }

    /// A fetched value is with the runtime from now on: so many bytes, which took so long to come.
    pub fn handle_fetched(&mut self, now: Time, value: ValueId, bytes: u64, took: Duration) {
        self.now = now;
        self.fetched(value, bytes, took);
        self.settle();
    }

    /// A holder didn't have a value, as it `denied` to have it, or it didn't answer.
    pub fn handle_fetch_failed(
        &mut self,
        now: Time,
        value: ValueId,
        holder: ProcessId,
        denied: bool,
    ) {
        self.now = now;
        self.fetch_failed(value, holder, denied);
        self.settle();
    }

    /// A client put a value here: it is with the runtime. `size` is its length in bytes.
    pub fn handle_put(&mut self, now: Time, task: TaskId, assignment: AssignmentId, size: u64) {
        self.now = now;
        let range = Range::one(task.index);
        // A value that is put is what it is in every run.
        self.kept.stored(task, Stored::new(assignment, 1, &[size]));
        let finished = Finished {
            assignment,
            array: task.array,
            range,
            busy_ns: 0,
            end: End::Stored(vec![size]),
        };
        self.outbox.push(finished, true);
        self.values_came(task.array, range);
        self.settle();
    }

    /// The run under way in a chunk waits for nested tasks: its slots are free.
    pub fn handle_parked(&mut self, now: Time, chunk: ChunkId) {
        self.now = now;
        self.parked(chunk);
        self.settle();
    }

    /// A parked run could go on and wants its slots back: [`Action::Resume`] grants them.
    pub fn handle_unpark_wanted(&mut self, now: Time, chunk: ChunkId) {
        self.now = now;
        if !self.slots.want_resume(chunk) {
            self.stale_count += 1;
        }
    }

    /// The link to the scheduler ended. What the tasks' results would be for has ended with it.
    pub fn handle_link_lost(&mut self, now: Time) {
        self.now = now;
        self.exit("the link to the scheduler was lost".to_owned());
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        while let Some((time, chunk)) = self.alarms.first().copied()
            && time <= now
        {
            self.alarms.pop_first();
            self.alarm(chunk);
        }
        self.settle();
    }

    /// What is to be done already, whatever else has happened since. A runtime that takes in several
    /// facts at once does this before it puts a value where it keeps them: it may have been told to
    /// drop an earlier one.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.exiting {
            return None;
        }
        self.start_next();
        self.start_fetches();
        if !self.orphans.is_empty() {
            self.settle();
        }
        self.tell_slots();
        let idle = self.slots.free() > 0 || self.chunks.is_empty();
        let due = self.outbox.due().is_some_and(|due| due <= self.now);
        if !self.outbox.is_empty() && (idle || due || self.outbox.is_full()) {
            self.flush();
        }
        self.actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.exiting {
            return None;
        }
        let alarm = self.alarms.first().map(|(time, _)| *time);
        alarm.into_iter().chain(self.outbox.due()).min()
    }

    /// Whether no task is here, queued or running.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.works.is_empty() && self.chunks.is_empty()
    }

    /// How often something stale was ignored.
    #[must_use]
    pub fn stale_count(&self) -> u64 {
        self.stale_count
    }

    /// Sends all that has ended.
    fn flush(&mut self) {
        let actions = &mut self.actions;
        let send = |message| actions.push_back(Action::Send(message));
        self.outbox.flush(self.now, send);
        self.kept.reported(self.outbox.last_report());
    }

    fn exit(&mut self, reason: String) {
        if !self.exiting {
            self.exiting = true;
            self.actions.clear();
            self.actions.push_back(Action::Exit { reason });
        }
    }

    /// Draws the consequences that may have consequences themselves.
    fn settle(&mut self) {
        while let Some(value) = self.orphans.pop() {
            let owed = self.owed.get(&value.task.array);
            let coming = owed.is_some_and(|owed| owed.get(value.task.index).is_some());
            if self.inputs.is_expected(value) && !coming {
                self.lose_input(value, self.id, true);
            }
        }
        #[cfg(debug_assertions)]
        self.check();
    }

    /// Takes tasks off the list of those that are owed an answer under `assignment`.
    fn answered(&mut self, array: ArrayId, range: Range, assignment: AssignmentId) {
        if let Some(owed) = self.owed.get_mut(&array) {
            owed.update(range, |_, of| (*of != assignment).then_some(*of));
            if owed.is_empty() {
                self.owed.remove(&array);
            }
        }
    }

    /// Values of these tasks, whoever waits for them here, will not come.
    fn orphan(&mut self, array: ArrayId, range: Range) {
        let expected = self.inputs.within(array, range);
        self.orphans.extend(expected);
    }
}

/// Whether a source is in the message itself.
fn is_inline(source: &Source) -> bool {
    matches!(source.place, Place::Inline(_))
}
