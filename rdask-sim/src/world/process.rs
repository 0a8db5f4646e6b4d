//! The shell around a process: slots that run bodies in virtual time, and a store of values.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rdask_core::blob::BlobBuilder;
use rdask_core::failure::{Failure, FailureKind};
use rdask_core::id::{ProcessId, TaskId};
use rdask_core::message::{Assign, End, Exit, Feed, Parent, Place, Source};
use rdask_core::process::{
    Action, ChunkEnd, ChunkId, Process as Core, StartChunk, ValueId, run_number,
};
use rdask_core::range::{Range, RangeSet};

use super::{Actor, Event, MS, US, World, note};
use crate::dice::mix;
use crate::ledger::Fate;
use crate::link::{Message, Way};
use crate::scenario::Fails;
use crate::value::{always_fails, compute, decode, encode, is_stored};

pub(super) struct Process {
    pub(super) id: ProcessId,
    pub(super) node: usize,
    pub(super) nanny_age: u32,
    pub(super) worker: usize,
    pub(super) program: u8,
    pub(super) core: Core,
    pub(super) is_alive: bool,
    link: Option<usize>,
    pub(super) frozen_until: u64,
    pub(super) store: BTreeMap<ValueId, u64>,
    chunks: BTreeMap<ChunkId, Chunk>,
    timer_at: Option<u64>,
    /// How its nanny says that it ended.
    pub(super) exit: Exit,
    /// Its client for nested tasks.
    pub(super) nested: Option<usize>,
}

/// Tasks in a slot.
struct Chunk {
    start: StartChunk,
    /// The one that runs.
    current: u32,
    /// What it takes.
    inputs: Vec<u64>,
    /// What those before it gave.
    made: BTreeMap<ValueId, u64>,
    end: u32,
    ended: Vec<(Range, End)>,
    stored: Vec<(TaskId, u64)>,
    busy_ns: u64,
    cancelled: RangeSet,
    /// What the nested tasks of the run gave.
    children: Option<Result<Vec<u64>, String>>,
}

impl Process {
    /// What is on its slot board.
    pub(super) fn running_runs(&self) -> Vec<(TaskId, u32)> {
        let chunks = self.chunks.values();
        let run = |chunk: &Chunk| run_number(&chunk.start.assign, chunk.current);
        self.running_tasks().into_iter().zip(chunks.map(run)).collect()
    }

    pub(super) fn running_tasks(&self) -> Vec<TaskId> {
        let task = |chunk: &Chunk| TaskId { array: chunk.start.assign.array, index: chunk.current };
        self.chunks.values().map(task).collect()
    }
}

impl World {
    pub(super) fn add_process(
        &mut self,
        node: usize,
        worker: usize,
        program: u8,
        id: ProcessId,
    ) -> usize {
        let index = self.processes.len();
        self.processes.push(Process {
            id,
            node,
            nanny_age: self.nodes[node].age,
            worker,
            program,
            core: Core::new(id, 0),
            is_alive: true,
            link: None,
            frozen_until: 0,
            store: BTreeMap::new(),
            chunks: BTreeMap::new(),
            timer_at: None,
            exit: Exit::Signal(9),
            nested: None,
        });
        self.by_id.insert(id, index);
        index
    }

    pub(super) fn process_starts(&mut self, process: usize) {
        if self.processes[process].is_alive {
            let id = self.processes[process].id;
            let link = self.dial(Actor::Process(process), Some(id));
            self.processes[process].link = Some(link);
        }
    }

    /// A process is no more; its nanny sees it at once.
    pub(super) fn kill_process(&mut self, process: usize, scheduler_hears_within: u64) {
        if !self.processes[process].is_alive {
            return;
        }
        note!(self, "process {} is gone", self.processes[process].id);
        self.processes[process].is_alive = false;
        if let Some(link) = self.processes[process].link {
            self.end_link(link, scheduler_hears_within);
        } else {
            self.launches_failed += 1;
        }
        if let Some(client) = self.processes[process].nested {
            self.kill_client(client, scheduler_hears_within);
        }
        let at = self.now + self.dice.below(2 * MS);
        self.push(at, Event::ProcessGone(process));
    }

    pub(super) fn process_loses_link(&mut self, process: usize) {
        let now = self.time();
        self.processes[process].core.handle_link_lost(now);
        self.process_acts(process);
    }

    pub(super) fn process_gets(&mut self, process: usize, message: Message) {
        match message {
            Message::Welcome(_) => {}
            Message::Refused(reason) => {
                note!(self, "process {} is refused: {reason}", self.processes[process].id);
                self.kill_process(process, Self::soon());
            }
            Message::ToProcess(message) => {
                let now = self.time();
                self.processes[process].core.handle_message(now, message);
            }
            message => self.fail(format!("a process was told {message:?}")),
        }
    }

    pub(super) fn process_timer(&mut self, process: usize) {
        let now = self.time();
        self.processes[process].timer_at = None;
        if self.processes[process].is_alive {
            self.processes[process].core.handle_timeout(now);
            self.process_acts(process);
        }
    }

    /// Does what the machine wants done.
    pub(super) fn process_acts(&mut self, process: usize) {
        while self.processes[process].is_alive
            && let Some(action) = self.processes[process].core.poll_action()
        {
            self.process_does(process, action);
        }
        if !self.processes[process].is_alive {
            return;
        }
        let state = &mut self.processes[process];
        if let Some(at) = state.core.poll_timeout() {
            let at = at.0.max(self.now);
            if state.timer_at.is_none_or(|timer| timer > at) {
                state.timer_at = Some(at);
                self.push(at, Event::ProcessTimer(process));
            }
        }
    }

    fn process_does(&mut self, process: usize, action: Action) {
        match action {
            Action::StartChunk(start) => self.start_chunk(process, start),
            Action::TakeBack(id) => {
                let range = match self.processes[process].chunks.get_mut(&id) {
                    Some(chunk) => {
                        let rest = Range::new(chunk.current + 1, chunk.end.max(chunk.current + 1));
                        chunk.end = chunk.current + 1;
                        rest
                    }
                    None => Range::new(0, 0),
                };
                let now = self.time();
                self.processes[process].core.handle_taken_back(now, id, range);
            }
            Action::CancelRunning(id, range) => self.cancel_running(process, id, range),
            Action::Resume(id) => self.resume(process, id),
            Action::Fetch { value, holder, .. } => {
                self.start_get(Actor::Process(process), value, holder);
            }
            Action::DropValues(array, range) => {
                let first = |index| ValueId { task: TaskId { array, index }, part: 0 };
                let store = &mut self.processes[process].store;
                let range = first(range.start)..first(range.end);
                while let Some((&value, _)) = store.range(range.clone()).next() {
                    store.remove(&value);
                }
            }
            Action::DropReplica(value) => {
                self.processes[process].store.remove(&value);
            }
            Action::Send(message) => {
                if let Some(link) = self.processes[process].link {
                    self.send(link, Way::Up, Message::FromProcess(message));
                }
            }
            Action::Exit { reason } => {
                note!(self, "process {} ends: {reason}", self.processes[process].id);
                self.kill_process(process, Self::soon());
            }
        }
    }

    fn start_chunk(&mut self, process: usize, start: StartChunk) {
        let (id, range) = (start.chunk, start.range);
        let chunk = Chunk {
            start,
            current: range.start,
            inputs: Vec::new(),
            made: BTreeMap::new(),
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
    fn begin_run(&mut self, process: usize, id: ChunkId) {
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
        let who = self.processes[process].id;
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

    fn duration(&self, process: usize, assign: &Assign, index: u32, run: u32) -> u64 {
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

    pub(super) fn run_ends(&mut self, process: usize, id: ChunkId, index: u32) {
        if !self.processes[process].is_alive {
            return;
        }
        let Some(chunk) = self.processes[process].chunks.get_mut(&id) else { return };
        if chunk.current != index {
            return;
        }
        let assign = std::sync::Arc::clone(&chunk.start.assign);
        let inputs = std::mem::take(&mut chunk.inputs);
        let children = chunk.children.take();
        let (end, value) = self.outcome(&assign, index, inputs, children);
        let fate = match end {
            End::Inline(_) => Fate::Inline,
            End::Stored(_) => Fate::Stored,
            End::Failed(_) | End::Cancelled | End::Lost => Fate::Failed,
        };
        let task = TaskId { array: assign.array, index };
        let run = run_number(&assign, index);
        let who = self.processes[process].id;
        self.ledger.end(task, run, who, fate);
        let Some(chunk) = self.processes[process].chunks.get_mut(&id) else { return };
        let inline = match &end {
            End::Inline(blob) => decode(blob.get(0)),
            _ => None,
        };
        chunk.made.extend(value.or(inline).map(|value| (ValueId { task, part: 0 }, value)));
        if let Some(value) = value {
            chunk.stored.push((task, value));
        }
        chunk.ended.push((Range::one(index), end));
        chunk.current += 1;
        if chunk.current < chunk.end {
            self.begin_run(process, id);
        } else {
            self.end_chunk(process, id);
        }
    }

    fn end_chunk(&mut self, process: usize, id: ChunkId) {
        let now = self.time();
        let state = &mut self.processes[process];
        let Some(chunk) = state.chunks.remove(&id) else { return };
        for (task, value) in chunk.stored {
            state.store.insert(ValueId { task, part: 0 }, value);
        }
        let end = ChunkEnd { ended: chunk.ended, busy: Duration::from_nanos(chunk.busy_ns) };
        state.core.handle_chunk_ended(now, id, end);
        self.process_acts(process);
    }

    /// How a run ends, and its value if that stays here.
    fn outcome(
        &self,
        assign: &Assign,
        index: u32,
        mut inputs: Vec<u64>,
        children: Option<Result<Vec<u64>, String>>,
    ) -> (End, Option<u64>) {
        let key = assign.function.0;
        let work = self.work(key);
        let task = TaskId { array: assign.array, index };
        let failed = |why: &str| {
            let failure = Failure::of_scheduler(FailureKind::Returned, why, task);
            (End::Failed(failure), None)
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
        if assign.inline_max < 8 || is_stored(work, value) {
            return (End::Stored(vec![1 << (mix(value) % 24)]), Some(value));
        }
        let mut blob = BlobBuilder::new();
        blob.push(&value.to_le_bytes());
        (End::Inline(blob.build()), None)
    }

    /// Some bodies look at their token, and end early.
    fn cancel_running(&mut self, process: usize, id: ChunkId, range: Range) {
        let looks = self.dice.chance(50);
        let at = self.now + self.dice.below(MS);
        let state = &mut self.processes[process];
        let who = state.id;
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
    pub(super) fn children_came(
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

    pub(super) fn park(&mut self, process: usize, id: ChunkId) {
        let now = self.time();
        if self.processes[process].chunks.contains_key(&id) {
            self.processes[process].core.handle_parked(now, id);
            self.process_acts(process);
        }
    }

    fn resume(&mut self, process: usize, id: ChunkId) {
        let Some(chunk) = self.processes[process].chunks.get(&id) else { return };
        let index = chunk.current;
        let at = self.now + self.dice.below(MS);
        self.push(at, Event::RunEnds(process, id, index));
    }
}

/// The number that a task takes as its inline argument.
fn argument(assign: &Assign, index: u32) -> Option<u64> {
    let is_inline = assign.params.contains(&Feed::Inline);
    is_inline.then(|| decode(assign.payload.get(index - assign.range.start)).unwrap_or(u64::MAX))
}

/// A task's number to its client: batches are made of several submits.
fn number_of(assign: &Assign, index: u32) -> u32 {
    argument(assign, index).map_or(index, |number| number as u32)
}

/// What a task takes, in order; an error with what is not here.
fn inputs_of(
    start: &StartChunk,
    index: u32,
    store: &BTreeMap<ValueId, u64>,
    own: impl Fn(&ValueId) -> Option<u64>,
) -> Result<Vec<u64>, ValueId> {
    let position = (index - start.assign.range.start) as usize;
    let mut values = Vec::new();
    for feed in &start.assign.params {
        let sources = match feed {
            Feed::Inline => continue,
            Feed::One(source) => std::slice::from_ref(source),
            Feed::Each(each) => std::slice::from_ref(&each[position]),
            Feed::List(sources) => sources,
            Feed::Lists(lists) => &lists[position],
        };
        for source in sources {
            let found = find(source, &start.small, store);
            values.push(found.or_else(|id| own(&id).ok_or(id))?);
        }
    }
    Ok(values)
}

fn find(
    source: &Source,
    small: &BTreeMap<ValueId, Bytes>,
    store: &BTreeMap<ValueId, u64>,
) -> Result<u64, ValueId> {
    let id = ValueId::of(source);
    let found = match (&source.place, small.get(&id)) {
        (Place::Inline(bytes), _) | (_, Some(bytes)) => decode(bytes),
        (_, None) => store.get(&id).copied(),
    };
    found.ok_or(id)
}

/// A value in the bytes that clients get.
pub(super) fn bytes_of(value: u64) -> Bytes {
    encode(value)
}

impl World {
    /// The function that a chunk runs.
    pub(super) fn key_of(&self, process: usize, chunk: ChunkId) -> Option<u64> {
        let chunk = self.processes[process].chunks.get(&chunk)?;
        Some(chunk.start.assign.function.0)
    }
}
