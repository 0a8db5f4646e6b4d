//! Slots and the chunks that run in them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::kept::Stored;
use super::work::{Work, common_sources, has_own_sources, own_sources};
use super::{Action, ChunkEnd, ChunkId, PARKED_MAX, Process, StartChunk, ValueId};
use crate::failure::{Failure, FailureKind};
use crate::id::{ArrayId, AssignmentId, FunctionKey, TaskId};
use crate::message::{Assign, End, Finished, FromProcess};
use crate::range::{Range, RangeSet};
use crate::time::Time;

/// A chunk that lasts so long gives back what it has not started. Chunks are meant to last a
/// millisecond; a factor of five leaves room for a busy node and is still no wait to speak of.
const OVERDUE: Duration = Duration::from_millis(5);

/// Tasks in a slot.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) assignment: AssignmentId,
    pub(super) array: ArrayId,
    pub(super) range: Range,
    function: FunctionKey,
    pub(super) threads: u32,
    pub(super) alarm: Option<Time>,
    /// Whether its runs are over for the scheduler: they took too long and were reported as failed, or
    /// it has given this process up meanwhile. Nothing comes of them but free slots.
    pub(super) is_void: bool,
}

/// The slots that the scheduler granted, and who has them.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) granted: u32,
    /// Those that runs have which are not parked.
    pub(super) used: u32,
    /// Parked runs and how many slots each gave back.
    pub(super) parked: BTreeMap<ChunkId, u32>,
    /// Those of them that want to go on, in the order of their asking.
    pub(super) resuming: VecDeque<ChunkId>,
    /// Whether the scheduler awaits to hear that no more than the granted slots run.
    pub(super) revoked: bool,
    parked_changed: bool,
}

impl Slots {
    pub(super) fn new(granted: u32) -> Self {
        Self {
            granted,
            used: 0,
            parked: BTreeMap::new(),
            resuming: VecDeque::new(),
            revoked: false,
            parked_changed: false,
        }
    }

    pub(super) fn grant(&mut self, slots: u32) {
        self.revoked = slots < self.granted || (self.revoked && slots < self.used);
        self.granted = slots;
    }

    pub(super) fn free(&self) -> u32 {
        self.granted.saturating_sub(self.used)
    }

    /// False if no such run is parked.
    pub(super) fn want_resume(&mut self, chunk: ChunkId) -> bool {
        let waits = self.parked.contains_key(&chunk) && !self.resuming.contains(&chunk);
        if waits {
            self.resuming.push_back(chunk);
        }
        waits
    }

    /// Takes the slots of a chunk back, parked or not.
    fn leave(&mut self, chunk: ChunkId, threads: u32) {
        if self.parked.remove(&chunk).is_some() {
            self.resuming.retain(|waiting| *waiting != chunk);
            self.parked_changed = true;
        } else {
            self.used -= threads;
        }
    }

    /// A chunk goes on without slots, parked or not.
    pub(super) fn deprive(&mut self, chunk: ChunkId, threads: u32) {
        match self.parked.get_mut(&chunk) {
            Some(given_back) => *given_back = 0,
            None => self.used -= threads,
        }
    }

    /// The next parked run that gets its slots again.
    fn resume_next(&mut self) -> Option<ChunkId> {
        let chunk = *self.resuming.front()?;
        let threads = self.parked[&chunk];
        // What was granted may have shrunk below what it needs; then it goes on alone.
        if threads > self.free() && (self.used > 0 || self.granted == 0) {
            return None;
        }
        self.resuming.pop_front();
        self.parked.remove(&chunk);
        self.parked_changed = true;
        self.used += threads;
        Some(chunk)
    }
}

impl Process {
    /// Fills the free slots: with parked runs that want to go on, then with new chunks.
    pub(super) fn start_next(&mut self) {
        while let Some(chunk) = self.slots.resume_next() {
            self.actions.push_back(Action::Resume(chunk));
        }
        while self.slots.resuming.is_empty()
            && self.slots.free() > 0
            && let Some(assignment) = self.next_in_queue()
        {
            self.start_chunk(assignment);
        }
    }

    /// The first assignment that may start. One that has to wait for slots which the process may
    /// have is not overtaken, or it would wait for ever.
    fn next_in_queue(&self) -> Option<AssignmentId> {
        let crowded = self.slots.parked.len() >= PARKED_MAX;
        for (.., id) in &self.queue {
            let assign = &self.works[id].assign;
            let threads = u32::from(assign.threads);
            if threads > self.slots.granted || (crowded && !assign.nested_here) {
                continue;
            }
            return (threads <= self.slots.free()).then_some(*id);
        }
        None
    }

    fn start_chunk(&mut self, id: AssignmentId) {
        let work = self.works.get_mut(&id).expect("the queue has only these");
        let assign = Arc::clone(&work.assign);
        let threads = u32::from(assign.threads);
        let lanes = u64::from((self.slots.granted / threads).max(1));
        let share = u32::try_from(self.ready_count.div_ceil(lanes)).unwrap_or(u32::MAX);
        let longest = match assign.timeout {
            Some(_) => 1,
            None => self.paces.chunk_len(assign.function),
        };
        let len = longest.min(share);
        let before = work.startable();
        let mut range = work.ready.take_first(len).expect("something can start");
        if range.end < assign.range.end && has_own_sources(&assign) {
            range.end = self.end_with_followers(id, range, longest);
        }
        let work = self.works.get_mut(&id).expect("it was there");
        work.unstarted.remove(range);
        work.running += range.len();
        self.requeue(id, before);

        let chunk = ChunkId(self.chunk_count);
        self.chunk_count += 1;
        self.slots.used += threads;
        let alarm = match assign.timeout {
            Some(timeout) => Some(self.now + timeout),
            None => (range.len() > 1).then(|| self.now + OVERDUE),
        };
        self.alarms.extend(alarm.map(|time| (time, chunk)));
        self.chunks.insert(
            chunk,
            Chunk {
                assignment: id,
                array: assign.array,
                range,
                function: assign.function,
                threads,
                alarm,
                is_void: false,
            },
        );
        let small = self.small_inputs(&assign, range);
        self.actions.push_back(Action::StartChunk(StartChunk { chunk, assign, range, small }));
    }

    /// Where a chunk ends that goes on with tasks which only miss results of its own: a chain runs
    /// in one go, each task right behind the one that it takes. They could not run elsewhere before.
    fn end_with_followers(&mut self, id: AssignmentId, range: Range, longest: u32) -> u32 {
        let work = self.works.get_mut(&id).expect("the queue has only these");
        let assign = &work.assign;
        let mut end = range.end;
        while end - range.start < longest && work.missing.contains_key(&end) {
            let position = (end - assign.range.start) as usize;
            let before = Range::new(range.start, end);
            let comes = own_sources(assign, position).all(|source| {
                let is_own =
                    source.task.array == assign.array && before.contains(source.task.index);
                is_own || !self.inputs.is_missing(ValueId::of(source))
            });
            if !comes {
                break;
            }
            work.missing.remove(&end);
            end += 1;
        }
        end
    }

    /// Those inputs of a chunk that only this state machine has.
    fn small_inputs(&self, assign: &Assign, range: Range) -> BTreeMap<ValueId, Bytes> {
        let mut small = BTreeMap::new();
        let mut add = |value: ValueId| {
            if let Some(bytes) = self.inputs.small(value) {
                small.insert(value, bytes);
            }
        };
        common_sources(assign).for_each(|source| add(ValueId::of(source)));
        if has_own_sources(assign) {
            for index in range {
                let position = (index - assign.range.start) as usize;
                own_sources(assign, position).for_each(|source| add(ValueId::of(source)));
            }
        }
        small
    }

    pub(super) fn chunk_ended(&mut self, id: ChunkId, end: ChunkEnd) {
        let Some(chunk) = self.chunks.remove(&id) else {
            self.stale_count += 1;
            return;
        };
        if let Some(time) = chunk.alarm {
            self.alarms.remove(&(time, id));
        }
        self.slots.leave(id, chunk.threads);
        let mut rest = RangeSet::from(chunk.range);
        let count: u32 = end.ended.iter().map(|(range, _)| range.len()).sum();
        self.paces.measured(chunk.function, count, end.busy);
        let busy_ns = u64::try_from(end.busy.as_nanos()).unwrap_or(u64::MAX);
        for (range, how) in end.ended {
            assert!(rest.covers(range), "tasks {range:?} ended in a chunk of {:?}", chunk.range);
            rest.remove(range);
            let share = u128::from(busy_ns) * u128::from(range.len()) / u128::from(count.max(1));
            self.tasks_ended(&chunk, range, share as u64, how);
        }
        for range in rest.iter() {
            if chunk.is_void {
                let work = self.works.get_mut(&chunk.assignment);
                let work = work.expect("an assignment stays while tasks of it run");
                work.running -= range.len();
                work.cancelled.remove(range);
            } else {
                self.not_run(chunk.assignment, range);
            }
        }
        if chunk.is_void {
            // After the report of its failure.
            self.flush();
            let (assignment, range) = (chunk.assignment, chunk.range);
            self.actions.push_back(Action::Send(FromProcess::Stopped { assignment, range }));
        }
        self.remove_if_over(chunk.assignment);
    }

    /// Runs of a chunk ended. Those that were called back may have returned anything: nobody takes
    /// it, neither the scheduler nor who follows them here.
    fn tasks_ended(&mut self, chunk: &Chunk, range: Range, busy_ns: u64, end: End) {
        let work = self.works.get_mut(&chunk.assignment);
        let work = work.expect("an assignment stays while tasks of it run");
        work.running -= range.len();
        let called_back: Vec<Range> = work.cancelled.within(range).collect();
        work.cancelled.remove(range);
        if called_back.is_empty() || chunk.is_void {
            return self.runs_ended(chunk, range, busy_ns, end);
        }
        let parts = usize::from(work.assign.parts);
        let mut rest = RangeSet::from(range);
        let each_ns = busy_ns / u64::from(range.len());
        for part in called_back {
            rest.remove(part);
            let (array, is_stored) = (chunk.array, matches!(end, End::Stored(_)));
            if is_stored && !self.kept.has_any(array, part) {
                self.actions.push_back(Action::DropValues(array, part));
            }
            self.runs_ended(chunk, part, each_ns * u64::from(part.len()), End::Cancelled);
        }
        for part in rest.iter() {
            let end = part_of(&end, range, part, parts);
            self.runs_ended(chunk, part, each_ns * u64::from(part.len()), end);
        }
    }

    /// Runs ended that nobody has called back.
    fn runs_ended(&mut self, chunk: &Chunk, range: Range, busy_ns: u64, end: End) {
        let array = chunk.array;
        let Some(work) = self.works.get(&chunk.assignment) else { return };
        let assign = Arc::clone(&work.assign);
        let movable = !work.uses_local;
        if chunk.is_void {
            // A copy of another run's result may have come from elsewhere meanwhile.
            if matches!(end, End::Stored(_)) && !self.kept.has_any(array, range) {
                self.actions.push_back(Action::DropValues(array, range));
            }
            return;
        }
        match &end {
            End::Inline(blob) => {
                assert_eq!(blob.count(), range.len(), "one result per task");
                self.kept.small(&assign, range, blob.clone());
                self.values_came(array, range);
            }
            End::Stored(sizes) => {
                let parts = usize::from(assign.parts);
                assert_eq!(sizes.len(), range.len() as usize * parts, "one size per part");
                for (index, sizes) in range.iter().zip(sizes.chunks(parts)) {
                    let run = run_number(&assign, index);
                    let stored = Stored::new(assign.assignment, run, sizes);
                    self.kept.stored(TaskId { array, index }, stored);
                }
                self.values_came(array, range);
            }
            End::Failed(_) | End::Cancelled | End::Lost => {}
        }
        self.tasks_left(&assign, range);
        self.outbox
            .push(Finished { assignment: chunk.assignment, array, range, busy_ns, end }, movable);
    }

    /// Tasks that were to run have not started: they are queued again, or are over if they were
    /// cancelled.
    pub(super) fn not_run(&mut self, id: AssignmentId, range: Range) {
        let work = self.works.get_mut(&id);
        let work = work.expect("an assignment stays while tasks of it run");
        let before = work.startable();
        work.running -= range.len();
        work.unstarted.insert(range);
        work.ready.insert(range);
        if has_own_sources(&work.assign) {
            // Followers of what has not run either.
            for index in range {
                let position = (index - work.assign.range.start) as usize;
                let sources = own_sources(&work.assign, position);
                let missing =
                    sources.filter(|source| self.inputs.is_missing(ValueId::of(source))).count();
                if missing > 0 {
                    work.ready.remove(Range::one(index));
                    work.missing.insert(index, missing as u32);
                }
            }
        }
        let cancelled: Vec<Range> = work.cancelled.within(range).collect();
        work.cancelled.remove(range);
        self.requeue(id, before);
        for range in cancelled {
            self.cancel_unstarted(id, range);
        }
    }

    pub(super) fn taken_back(&mut self, id: ChunkId, range: Range) {
        let Some(chunk) = self.chunks.get_mut(&id) else {
            self.stale_count += 1;
            return;
        };
        if range.is_empty() {
            return;
        }
        assert!(
            range.end == chunk.range.end && chunk.range.covers(range),
            "tasks {range:?} taken back from a chunk of {:?}",
            chunk.range
        );
        chunk.range.end = range.start;
        let assignment = chunk.assignment;
        if !chunk.is_void {
            self.not_run(assignment, range);
        } else if let Some(work) = self.works.get_mut(&assignment) {
            work.running -= range.len();
            work.cancelled.remove(range);
        }
    }

    pub(super) fn parked(&mut self, id: ChunkId) {
        let Some(chunk) = self.chunks.get(&id) else {
            self.stale_count += 1;
            return;
        };
        if self.slots.parked.contains_key(&id) {
            self.stale_count += 1;
            return;
        }
        self.slots.used -= chunk.threads;
        self.slots.parked.insert(id, chunk.threads);
        self.slots.parked_changed = true;
        if chunk.range.len() > 1 {
            self.actions.push_back(Action::TakeBack(id));
        }
    }

    /// A chunk lasts long.
    pub(super) fn alarm(&mut self, id: ChunkId) {
        let chunk = self.chunks.get_mut(&id).expect("alarms go with chunks");
        chunk.alarm = None;
        let work = &self.works[&chunk.assignment];
        let assign = Arc::clone(&work.assign);
        if assign.timeout.is_none() {
            self.paces.overdue(chunk.function);
            self.actions.push_back(Action::TakeBack(id));
            return;
        }
        chunk.is_void = true;
        let (range, movable) = (chunk.range, !work.uses_local);
        self.actions.push_back(Action::CancelRunning(id, range));
        let finished = Finished {
            assignment: assign.assignment,
            array: assign.array,
            range,
            busy_ns: 0,
            end: End::Failed(timed_out(work, range.start)),
        };
        self.outbox.push(finished, movable);
        // Inputs are released now rather than at the run's end: it has its own hold on them.
        self.tasks_left(&assign, range);
    }

    /// Tells the scheduler of slots that came free.
    pub(super) fn tell_slots(&mut self) {
        if std::mem::take(&mut self.slots.parked_changed) {
            let parked = &self.slots.parked;
            self.actions.push_back(Action::Send(FromProcess::Parked {
                runs: parked.len() as u32,
                slots: parked.values().sum(),
            }));
        }
        if self.slots.revoked && self.slots.used <= self.slots.granted {
            self.slots.revoked = false;
            self.actions
                .push_back(Action::Send(FromProcess::SlotsFree { slots: self.slots.granted }));
        }
    }
}

fn timed_out(work: &Work, index: u32) -> Failure {
    let assign = &work.assign;
    let limit = assign.timeout.unwrap_or_default();
    let task = TaskId { array: assign.array, index };
    Failure {
        function: assign.name.clone().unwrap_or_default(),
        run: run_number(assign, index),
        ..Failure::of_scheduler(
            FailureKind::TimedOut,
            format!("it ran longer than {limit:?}"),
            task,
        )
    }
}

/// The number of the run of task `index` that `assign` asks for.
#[must_use]
#[inline]
pub fn run_number(assign: &Assign, index: u32) -> u32 {
    let nth = assign.runs.partition_point(|(range, _)| range.end <= index);
    let special = assign.runs.get(nth).filter(|(range, _)| range.contains(index));
    special.map_or(1, |(_, run)| *run)
}

/// What of the end of some tasks is the end of a part of them.
fn part_of(end: &End, whole: Range, part: Range, outputs: usize) -> End {
    let within = Range::new(part.start - whole.start, part.end - whole.start);
    match end {
        End::Inline(blob) => End::Inline(blob.slice(within)),
        End::Stored(sizes) => {
            let (from, to) = (within.start as usize * outputs, within.end as usize * outputs);
            End::Stored(sizes[from..to].to_vec())
        }
        End::Failed(_) | End::Cancelled | End::Lost => end.clone(),
    }
}
