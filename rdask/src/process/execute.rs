//! Runs one chunk on the thread it is called on: inputs in, ends out.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rdask_core::blob::Blob;
use rdask_core::failure::{Failure, FailureKind};
use rdask_core::id::TaskId;
use rdask_core::message::{Assign, End, Feed, Place, Source};
use rdask_core::process::{ChunkEnd, StartChunk, ValueId, run_number};
use rdask_core::range::Range;

use super::Home;
use super::control::Control;
use super::store::Store;
use crate::board::{Board, Entry as OnBoard};
use crate::context;
use crate::function::{
    self, Chunk, EncodedInput, Input, Outcomes, ParamSource, Special, TaskInputs, TaskSource, Value,
};

/// How runs ended, in order.
type Ends = Vec<(Range, End)>;

/// Results that stay with the process.
pub(super) type Results = Vec<(ValueId, Value)>;

/// What a slot needs to run a chunk.
pub(super) struct Job {
    pub(super) start: StartChunk,
    pub(super) control: Arc<Control>,
    pub(super) store: Arc<Store>,
    pub(super) board: Arc<Board>,
    pub(super) home: Arc<Home>,
}

impl Job {
    /// Runs the chunk's tasks until there are none left or the rest is taken back.
    /// Returns results that stay, too.
    pub(super) fn run(self) -> (ChunkEnd, Results) {
        let begun = Instant::now();
        let entry = function::entry(self.start.assign.function.0);
        let (ended, stored) = match entry {
            Some(entry) => self.call(entry),
            None => (self.refuse(), Vec::new()),
        };
        let busy = begun.elapsed().saturating_sub(self.control.parked_time());
        (ChunkEnd { ended, busy }, stored)
    }

    fn call(&self, entry: &function::Entry) -> (Ends, Results) {
        let _entered = context::enter(
            Arc::clone(&self.start.assign),
            Arc::clone(&self.control),
            Arc::clone(&self.home),
        );
        let assign = &self.start.assign;
        let mut out = Outcomes::of(assign.inline_max as usize, assign.parts);
        let entry_on_board = self.board.entry(assign.array);
        let mut source = Tasks::new(self, &entry_on_board);
        let mut chunk = Chunk::new(&mut source, &mut out);
        let well = catch_unwind(AssertUnwindSafe(|| (entry.call)(&mut chunk))).is_ok();
        drop(source);
        let name = (entry.name)();
        entry_on_board.clear();
        let (mut ended, stored) = self.ends(out, name, &entry_on_board);
        if !well {
            // The loop around the function panicked itself: whatever it had started is over.
            let from = ended.last().map_or(self.start.range.start, |(range, _)| range.end);
            let to = self.control.current().map_or(from, |index| index + 1);
            for index in from..to {
                let failure = function::Failure {
                    kind: function::FailureKind::Panicked,
                    message: "the task could not be started or finished".to_owned(),
                    location: None,
                    backtrace: None,
                };
                let failure = self.failure(index, failure, name);
                ended.push((Range::one(index), End::Failed(failure)));
            }
        }
        (ended, stored)
    }

    /// The program has no such function: an error, never a jump.
    fn refuse(&self) -> Vec<(Range, End)> {
        let key = self.start.assign.function;
        let message = format!("this program has no task function {key}");
        std::iter::from_fn(|| self.control.claim())
            .map(|index| {
                let failure = function::Failure {
                    kind: function::FailureKind::Arguments,
                    message: message.clone(),
                    location: None,
                    backtrace: None,
                };
                let failure = self.failure(index, failure, "");
                (Range::one(index), End::Failed(failure))
            })
            .collect()
    }

    /// What the scheduler is told, and the results that stay.
    fn ends(&self, out: Outcomes, name: &str, noted: &OnBoard<'_>) -> (Ends, Results) {
        let start = self.start.range.start;
        let (results, ends, special) = out.into_parts();
        let count = ends.len() as u32;
        let blob = Blob::new(ends, results.into()).expect("a chunk's ends fit its results");
        if special.is_empty() {
            let all = Range::new(start, start + count);
            let all = (count > 0).then_some((all, End::Inline(blob)));
            return (all.into_iter().collect(), Vec::new());
        }
        let mut all: Vec<(Range, End)> = Vec::new();
        let mut stored = Vec::new();
        let mut next = 0;
        for (position, what) in special {
            if next < position {
                let part = blob.slice(Range::new(next, position));
                all.push((Range::new(start + next, start + position), End::Inline(part)));
            }
            next = position + 1;
            let index = start + position;
            match what {
                Special::Stored(value) => {
                    self.store(noted, index, vec![value], &mut stored, &mut all)
                }
                Special::Parts(values) => self.store(noted, index, values, &mut stored, &mut all),
                Special::Failed(failure)
                    if self.control.has_given_up() && failure.message == context::GIVEN_UP =>
                {
                    all.push((Range::one(index), End::Lost));
                }
                Special::Failed(failure) => {
                    let failure = self.failure(index, *failure, name);
                    all.push((Range::one(index), End::Failed(failure)));
                }
            }
        }
        if next < count {
            let part = blob.slice(Range::new(next, count));
            all.push((Range::new(start + next, start + count), End::Inline(part)));
        }
        (all, stored)
    }

    /// The outputs of a task stay.
    fn store(
        &self,
        noted: &OnBoard<'_>,
        index: u32,
        values: Vec<Value>,
        stored: &mut Vec<(ValueId, Value)>,
        all: &mut Vec<(Range, End)>,
    ) {
        let size = |value: &Value| {
            let hint = catch_unwind(AssertUnwindSafe(|| value.size_hint()));
            hint.unwrap_or(0) as u64
        };
        noted.begin(index, run_number(&self.start.assign, index));
        let own: Vec<u64> = values.iter().map(size).collect();
        noted.clear();
        let task = self.task(index);
        stored.extend((0..).zip(values).map(|(part, value)| (ValueId { task, part }, value)));
        match all.last_mut() {
            Some((range, End::Stored(sizes))) if range.end == index => {
                range.end = index + 1;
                sizes.extend(own);
            }
            _ => all.push((Range::one(index), End::Stored(own))),
        }
    }

    fn task(&self, index: u32) -> TaskId {
        TaskId { array: self.start.assign.array, index }
    }

    fn failure(&self, index: u32, failure: function::Failure, name: &str) -> Failure {
        let assign = &self.start.assign;
        Failure {
            kind: match failure.kind {
                function::FailureKind::Returned => FailureKind::Returned,
                function::FailureKind::Panicked => FailureKind::Panicked,
                function::FailureKind::Arguments | function::FailureKind::Result => {
                    FailureKind::Unrunnable
                }
            },
            message: shortened(failure.message),
            origin: self.task(index),
            function: assign.name.clone().unwrap_or_else(|| name.to_owned()),
            location: failure.location,
            backtrace: failure.backtrace.map(shortened),
            worker: Some(self.home.worker.clone()),
            node: Some(self.home.node.clone()),
            run: run_number(assign, index),
        }
    }
}

/// The first characters of a text: as many as travel.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(Failure::TEXT_MAX) {
        text.truncate(end);
    }
    text
}

/// An input of a task.
enum Found {
    Here(Input),
    /// Comes of the task at this position of the chunk, which runs before: this output of it.
    Before(u32, u16),
}

/// A parameter's inputs for the tasks of a chunk.
enum Resolved {
    Inline,
    One(Found),
    List(Vec<Found>),
    /// One for each task of the chunk.
    Each(Vec<Found>),
    /// A list for each task of the chunk.
    Lists(Vec<Vec<Found>>),
}

/// The tasks of a chunk, one after the other.
struct Tasks<'a> {
    control: &'a Control,
    assign: &'a Assign,
    noted: &'a OnBoard<'a>,
    /// The first task of the chunk.
    start: u32,
    resolved: Vec<Resolved>,
    /// Whether the parameters of all tasks come from the payload.
    plain: bool,
    params: Vec<ParamSource>,
    inputs: Vec<Input>,
}

impl<'a> Tasks<'a> {
    fn new(job: &'a Job, noted: &'a OnBoard<'a>) -> Self {
        let assign = &*job.start.assign;
        let plain = assign.params.iter().all(|feed| matches!(feed, Feed::Inline));
        let resolved = if plain { Vec::new() } else { resolve(job) };
        Self {
            control: &job.control,
            assign,
            noted,
            start: job.start.range.start,
            resolved,
            plain,
            params: vec![ParamSource::Inline; if plain { assign.params.len() } else { 0 }],
            inputs: Vec::new(),
        }
    }

    /// Sets the inputs of one task; says whether it has all of them. It lacks those of a task before
    /// it that failed.
    fn fill(&mut self, nth: usize, done: &Outcomes) -> bool {
        self.params.clear();
        self.inputs.clear();
        for resolved in &self.resolved {
            let inputs = match resolved {
                Resolved::Inline => {
                    self.params.push(ParamSource::Inline);
                    continue;
                }
                Resolved::One(input) => std::slice::from_ref(input),
                Resolved::List(list) => list,
                Resolved::Each(each) => std::slice::from_ref(&each[nth]),
                Resolved::Lists(lists) => &lists[nth],
            };
            for found in inputs {
                let input = match found {
                    Found::Here(input) => Some(input.clone()),
                    // What was called back may have returned anything.
                    Found::Before(position, _)
                        if self.control.is_cancelled(self.start + *position) =>
                    {
                        None
                    }
                    Found::Before(position, part) => done.input(*position, *part),
                };
                let Some(input) = input else { return false };
                self.inputs.push(input);
            }
            let len = self.params.len() + inputs.len();
            self.params.resize(len, ParamSource::Input);
        }
        true
    }
}

impl TaskSource for Tasks<'_> {
    #[inline]
    fn next(&mut self, done: &Outcomes) -> Option<TaskInputs<'_>> {
        // A task starts here and nowhere else: what is to be noted of it is noted here.
        let claimed = self.control.claim();
        let Some(index) =
            claimed.filter(|index| self.plain || self.fill((index - self.start) as usize, done))
        else {
            self.noted.clear();
            return None;
        };
        self.noted.begin(index, run_number(self.assign, index));
        Some(TaskInputs {
            inline: self.assign.payload.get(index - self.assign.range.start),
            params: &self.params,
            inputs: &mut self.inputs,
        })
    }
}

/// Looks up what the chunk's tasks take, once for all of them.
fn resolve(job: &Job) -> Vec<Resolved> {
    let StartChunk { assign, range, small, .. } = &job.start;
    let offset = |index: u32| (index - assign.range.start) as usize;
    let window = offset(range.start)..offset(range.end);
    job.store.look_up(|values| {
        let find = |source: &Source| find(source, &job.start, values, small);
        let find_all = |sources: &[Source]| sources.iter().map(find).collect();
        let feeds = assign.params.iter();
        feeds
            .map(|feed| match feed {
                Feed::Inline => Resolved::Inline,
                Feed::One(source) => Resolved::One(find(source)),
                Feed::List(sources) => Resolved::List(find_all(sources)),
                Feed::Each(each) => Resolved::Each(find_all(&each[window.clone()])),
                Feed::Lists(lists) => {
                    let lists = lists[window.clone()].iter();
                    Resolved::Lists(lists.map(|list| find_all(list)).collect())
                }
            })
            .collect()
    })
}

/// One input. One that should be here and is not fails the task that wants it.
fn find(
    source: &Source,
    start: &StartChunk,
    values: &BTreeMap<ValueId, Input>,
    small: &BTreeMap<ValueId, Bytes>,
) -> Found {
    let encoded = |bytes: &Bytes| Input::Encoded(Arc::new(EncodedInput::new(bytes.clone())));
    if let Place::Inline(bytes) = &source.place {
        return Found::Here(encoded(bytes));
    }
    let id = ValueId::of(source);
    let (of, index) = (source.task.array, source.task.index);
    Found::Here(match (small.get(&id), values.get(&id)) {
        (Some(bytes), _) => encoded(bytes),
        (None, Some(input)) => input.clone(),
        (None, None) if of == start.assign.array && start.range.contains(index) => {
            return Found::Before(index - start.range.start, source.part);
        }
        (None, None) => Input::Taken,
    })
}
