//! The slots of a process: bodies that run in virtual time, one task of a chunk after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use rdask_core::blob::BlobBuilder;
use rdask_core::failure::{Failure, FailureKind};
use rdask_core::id::TaskId;
use rdask_core::message::{Assign, End, Exit, Parent};
use rdask_core::process::{ChunkEnd, ChunkId, StartChunk, ValueId, run_number};
use rdask_core::range::{Range, RangeSet};

use super::inputs::{argument, inputs_of, number_of};
use crate::dice::mix;
use crate::ledger::Fate;
use crate::scenario::Fails;
use crate::value::{always_fails, compute, decode, is_poison, is_stored, part_of, size_of};
use crate::world::session::PORT_CLOSED;
use crate::world::{Event, MS, US, World, note};

/// Tasks in a slot.
pub(super) struct Chunk {
    pub(super) start: StartChunk,
    /// What the one that runs takes.
    inputs: Vec<u64>,
    /// What those before it gave.
    made: BTreeMap<ValueId, u64>,
    /// The one that runs.
    pub(super) current: u32,
    pub(super) end: u32,
    ended: Vec<(Range, End)>,
    stored: Vec<(ValueId, u64)>,
    busy_ns: u64,
    cancelled: RangeSet,
    /// What the nested tasks of the run gave.
    children: Option<Result<Vec<u64>, String>>,
}

impl World {
    pub(super) fn start_chunk(&mut self, process: usize, start: StartChunk) {
        let (id, range) = (start.chunk, start.range);
        let chunk = Chunk {
            start,
            inputs: Vec::new(),
            made: BTreeMap::new(),
            current: range.start,
            end: range.end,
            ended: Vec::new(),
            stored: Vec::new(),
            busy_ns: 0,
            cancelled: RangeSet::new(),
            children: None,
        };
        self.processes[process].chunks.insert(id, chunk);
        self.begin_run(process, id);
    }

    /// The current task of a chunk begins.
    pub(super) fn begin_run(&mut self, process: usize, id: ChunkId) {
        let chunk = &self.processes[process].chunks[&id];
        let assign = std::sync::Arc::clone(&chunk.start.assign);
        let index = chunk.current;
        let task = TaskId { array: assign.array, index };
        let own = |id: &ValueId| chunk.made.get(id).copied();
        let inputs = inputs_of(&chunk.start, index, &self.processes[process].store, own);
        let before = Range::new(chunk.start.range.start, index);
        match inputs {
            Ok(inputs) => {
                let chunk = self.processes[process].chunks.get_mut(&id);
                chunk.expect("it is about to run").inputs = inputs;
            }
            Err(ValueId { task, .. })
                if task.array == assign.array && before.contains(task.index) =>
            {
                // What it was to take has failed: it has not started.
                return self.end_chunk(process, id);
            }
            Err(missing) => {
                return self.fail(format!("{task} begins without its input {missing:?}"));
            }
        }
        let run = run_number(&assign, index);
        let who = self.processes[process].works_as();
        if !self.stops.is_of(assign.assignment, who) {
            return self.fail(format!("{who} begins {task}, which is of before it was back"));
        }
        let core = &self.scheduler.core;
        if let Err(why) = self.ledger.start(task, run, who, |process| core.knows(process)) {
            self.fail(why);
            return;
        }
        note!(self, "{who} begins {task} run {run}");
        let work = self.work(assign.function.0);
        if work.nested > 0 {
            self.begin_nested(process, id, Parent { task, run });
            return;
        }
        let duration = self.duration(process, &assign, index, run);
        if let Some(chunk) = self.processes[process].chunks.get_mut(&id) {
            chunk.busy_ns += duration;
        }
        self.push(self.now + duration, Event::RunEnds(process, id, index));
    }

    pub(super) fn duration(&self, process: usize, assign: &Assign, index: u32, run: u32) -> u64 {
        let work = self.work(assign.function.0);
        if let (Fails::Hangs(_), Some(timeout)) = (work.fails, assign.timeout)
            && always_fails(work, number_of(assign, index))
        {
            return timeout.as_nanos() as u64 * 3;
        }
        let noise = mix(self.scenario.seed ^ mix(u64::from(index) << 32 | u64::from(run)));
        let noise = mix(noise ^ u64::from(assign.array.number) ^ assign.assignment.0 << 20);
        let usual = work.busy_us * US;
        let mut duration = usual / 2 + noise % (usual + 1);
        if (noise >> 40) % 100 < self.scenario.network.tail_percent {
            duration = (duration * 100).min(20_000 * MS);
        }
        duration * self.scenario.nodes[self.processes[process].node].slowness / 100
    }

    pub(in crate::world) fn run_ends(&mut self, process: usize, id: ChunkId, index: u32) {
        if !self.processes[process].is_alive {
            return;
        }
        let Some(chunk) = self.processes[process].chunks.get_mut(&id) else { return };
        if chunk.current != index {
            return;
        }
        let assign = std::sync::Arc::clone(&chunk.start.assign);
        if is_poison(self.work(assign.function.0), number_of(&assign, index)) {
            let exits = [Exit::Signal(11), Exit::Signal(6), Exit::Code(1), Exit::OutOfMemory];
            self.processes[process].exit = self.dice.pick(&exits).clone();
            self.kill_process(process, PORT_CLOSED);
            return;
        }
        let Some(chunk) = self.processes[process].chunks.get_mut(&id) else { return };
        let inputs = std::mem::take(&mut chunk.inputs);
        let children = chunk.children.take();
        let (end, values) = self.outcome(&assign, index, inputs, children);
        let fate = match end {
            End::Inline(_) => Fate::Inline,
            End::Stored(_) => Fate::Stored,
            End::Failed(_) | End::Cancelled | End::Lost => Fate::Failed,
        };
        let task = TaskId { array: assign.array, index };
        let run = run_number(&assign, index);
        let who = self.processes[process].works_as();
        self.ledger.end(task, run, who, fate);
        let Some(chunk) = self.processes[process].chunks.get_mut(&id) else { return };
        if let End::Inline(blob) = &end {
            let value = decode(blob.get(0));
            chunk.made.extend(value.map(|value| (ValueId { task, part: 0 }, value)));
        }
        for (value, part) in values.into_iter().zip(0..) {
            let id = ValueId { task, part };
            chunk.made.insert(id, value);
            chunk.stored.push((id, value));
        }
        chunk.ended.push((Range::one(index), end));
        chunk.current += 1;
        if chunk.current < chunk.end {
            self.begin_run(process, id);
        } else {
            self.end_chunk(process, id);
        }
    }

    pub(super) fn end_chunk(&mut self, process: usize, id: ChunkId) {
        let now = self.time();
        let state = &mut self.processes[process];
        let Some(chunk) = state.chunks.remove(&id) else { return };
        state.store.extend(chunk.stored);
        let end = ChunkEnd { ended: chunk.ended, busy: Duration::from_nanos(chunk.busy_ns) };
        state.core.handle_chunk_ended(now, id, end);
        self.process_acts(process);
    }

    /// How a run ends, and its outputs if they stay here.
    pub(super) fn outcome(
        &self,
        assign: &Assign,
        index: u32,
        mut inputs: Vec<u64>,
        children: Option<Result<Vec<u64>, String>>,
    ) -> (End, Vec<u64>) {
        let key = assign.function.0;
        let work = self.work(key);
        let task = TaskId { array: assign.array, index };
        let failed = |why: &str| {
            let failure = Failure::of_scheduler(FailureKind::Returned, why, task);
            (End::Failed(failure), Vec::new())
        };
        if always_fails(work, number_of(assign, index)) {
            return failed("always");
        }
        if let Fails::First(runs) = work.fails
            && run_number(assign, index) <= runs
        {
            return failed("at first");
        }
        match children {
            Some(Ok(children)) => inputs.extend(children),
            Some(Err(why)) => return failed(&why),
            None => {}
        }
        let value = compute(work, key, argument(assign, index), &inputs);
        if assign.parts > 1 || assign.inline_max < 8 || is_stored(work, value) {
            let parts = 0..assign.parts.max(1);
            let values: Vec<u64> = parts.map(|part| part_of(value, part, assign.parts)).collect();
            let sizes = values.iter().map(|value| size_of(*value)).collect();
            return (End::Stored(sizes), values);
        }
        let mut blob = BlobBuilder::new();
        blob.push(&value.to_le_bytes());
        (End::Inline(blob.build()), Vec::new())
    }

    /// Some bodies look at their token, and end early.
    pub(super) fn cancel_running(&mut self, process: usize, id: ChunkId, range: Range) {
        let looks = self.dice.chance(50);
        let soon = *self.dice.pick(&[MS, 100 * MS]);
        let at = self.now + self.dice.below(soon);
        let state = &mut self.processes[process];
        let who = state.works_as();
        let Some(chunk) = state.chunks.get_mut(&id) else { return };
        let current = chunk.current;
        chunk.cancelled.insert(range);
        let task = TaskId { array: chunk.start.assign.array, index: current };
        if range.contains(current) {
            // A run that took too long is over for the scheduler.
            let run = run_number(&chunk.start.assign, current);
            self.ledger.end(task, run, who, Fate::Failed);
            if looks {
                self.push(at, Event::RunEnds(process, id, current));
            }
        }
    }

    /// The nested tasks of the run under way are over.
    pub(in crate::world) fn children_came(
        &mut self,
        process: usize,
        id: ChunkId,
        values: Result<Vec<u64>, String>,
    ) {
        let now = self.time();
        let state = &mut self.processes[process];
        if let Some(chunk) = state.chunks.get_mut(&id) {
            chunk.children = Some(values);
            state.core.handle_unpark_wanted(now, id);
            self.process_acts(process);
        }
    }

    pub(in crate::world) fn park(&mut self, process: usize, id: ChunkId) {
        let now = self.time();
        if self.processes[process].chunks.contains_key(&id) {
            self.processes[process].core.handle_parked(now, id);
            self.process_acts(process);
        }
    }

    pub(super) fn resume(&mut self, process: usize, id: ChunkId) {
        let Some(chunk) = self.processes[process].chunks.get(&id) else { return };
        let index = chunk.current;
        let at = self.now + self.dice.below(MS);
        self.push(at, Event::RunEnds(process, id, index));
    }

    /// Whether runs wait for nested tasks, or may come to.
    pub(in crate::world) fn has_parents(&self, process: usize) -> bool {
        let mut chunks = self.processes[process].chunks.values();
        chunks.any(|chunk| self.work(chunk.start.assign.function.0).nested > 0)
    }

    /// The function that a chunk runs.
    pub(in crate::world) fn key_of(&self, process: usize, chunk: ChunkId) -> Option<u64> {
        let chunk = self.processes[process].chunks.get(&chunk)?;
        Some(chunk.start.assign.function.0)
    }
}
