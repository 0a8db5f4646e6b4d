//! What a slot executes in one go, and what comes out of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{EncodedInput, Input, Value};
use crate::codec::{self, Data, EncodeError, Encoded};

/// Results of at most this many bytes ride along with the report that the task is done; longer ones
/// stay typed.
pub const INLINE_RESULT_BYTES_MAX: usize = rdask_core::message::INLINE_RESULT_BYTES_MAX;

/// Tasks of one function, to be run one after the other on this thread.
#[non_exhaustive]
pub struct Chunk<'a> {
    /// Where the tasks come from.
    pub tasks: &'a mut dyn TaskSource,
    /// Where their results go.
    pub out: &'a mut Outcomes,
}

impl<'a> Chunk<'a> {
    /// Tasks and a place for their results.
    pub fn new(tasks: &'a mut dyn TaskSource, out: &'a mut Outcomes) -> Self {
        Self { tasks, out }
    }
}

impl fmt::Debug for Chunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("out", self.out).finish_non_exhaustive()
    }
}

/// Hands out the tasks of a chunk.
pub trait TaskSource {
    /// The next task, or `None` when there is none or when the rest is cancelled or given back.
    ///
    /// Each call means that the task before it has ended, and has its outcome, even if it panicked.
    /// What else is due between two tasks (noting which one runs, looking at a clock) is done here.
    /// `done` is what became of the tasks before: the next one may take results of theirs.
    /// A panic in here is not caught.
    fn next(&mut self, done: &Outcomes) -> Option<TaskInputs<'_>>;
}

/// The arguments of one task.
#[derive(Debug)]
pub struct TaskInputs<'a> {
    /// The arguments that came with the task, packed, in the order of the parameters.
    pub inline: &'a [u8],
    /// Where each argument is, in the order of the parameters. As many as the function has
    /// parameters, or, where it folds, as there are values to fold.
    pub params: &'a [ParamSource],
    /// The other arguments, in the order of the parameters.
    pub inputs: &'a mut [Input],
}

/// Where an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamSource {
    /// Next in [`TaskInputs::inline`].
    Inline,
    /// Next in [`TaskInputs::inputs`].
    Input,
}

/// What became of the tasks of a chunk, by position: the order in which they were handed out.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// The small results, back to back.
    results: Vec<u8>,
    /// Where each task's result ends in `results`. Special outcomes have an empty one.
    ends: Vec<u32>,
    /// What is not a small result, in ascending order of position.
    special: Vec<(u32, Special)>,
    /// Encodings that are not counted yet.
    encoded: u64,
    /// Results of more bytes stay typed.
    inline_max: usize,
    /// How many outputs each task is to have; 0 is 1.
    parts: u16,
}

/// The outcome of a task, if it is not a small result.
#[derive(Debug)]
pub enum Special {
    /// The result is too long to ride along.
    Stored(Value),
    /// The outputs of a task with several, or that was to have several and has one.
    Parts(Vec<Value>),
    /// The task failed.
    Failed(Box<Failure>),
}

/// The outcome of one task.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The encoded result.
    Inline(&'a [u8]),
    /// The result is too long to ride along.
    Stored(&'a Value),
    /// The outputs of a task with several.
    Parts(&'a [Value]),
    /// The task failed.
    Failed(&'a Failure),
}

/// How a task failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In which way.
    pub kind: FailureKind,
    /// In words, for the user.
    pub message: String,
    /// `file:line:column` of a panic.
    pub location: Option<String>,
    /// Frames of a panic, from where it was raised to the task function. One line or two each.
    pub backtrace: Option<String>,
}

/// In which way a task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The function returned an error.
    Returned,
    /// The function panicked, or the user's code that encodes, decodes or drops its values did.
    Panicked,
    /// An argument did not fit its parameter.
    Arguments,
    /// The result could not be encoded, or has not the outputs that were asked for.
    Result,
}

impl Outcomes {
    /// No outcomes, with room for those of a chunk.
    pub fn new() -> Self {
        Self::of(INLINE_RESULT_BYTES_MAX, 1)
    }

    /// No outcomes; only results of at most so many bytes are encoded, and each task is to have so
    /// many outputs.
    pub fn of(inline_max: usize, parts: u16) -> Self {
        Self { inline_max, parts, ..Self::default() }
    }

    /// How many tasks have ended.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no task has ended.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all outcomes and keeps the memory.
    pub fn clear(&mut self) {
        self.results.clear();
        self.ends.clear();
        self.special.clear();
    }

    /// The small results back to back, where each ends, and what is not a small result by position.
    pub fn into_parts(self) -> (Vec<u8>, Vec<u32>, Vec<(u32, Special)>) {
        (self.results, self.ends, self.special)
    }

    /// How many bytes the small results have together: a source may end a chunk when they are many.
    pub fn inline_bytes(&self) -> usize {
        self.results.len()
    }

    /// All outcomes, by position.
    pub fn iter(&self) -> impl Iterator<Item = Outcome<'_>> {
        let mut special = self.special.iter().peekable();
        let mut start = 0;
        self.ends.iter().zip(0u32..).map(move |(&end, position)| {
            let bytes = &self.results[start..end as usize];
            start = end as usize;
            match special.next_if(|(at, _)| *at == position) {
                Some((_, Special::Stored(value))) => Outcome::Stored(value),
                Some((_, Special::Parts(values))) => Outcome::Parts(values),
                Some((_, Special::Failed(failure))) => Outcome::Failed(failure),
                None => Outcome::Inline(bytes),
            }
        })
    }

    /// An output of the task at a position as an input of others, if it has ended well and has it.
    pub(crate) fn input(&self, position: u32, part: u16) -> Option<Input> {
        let end = *self.ends.get(position as usize)?;
        let values = match self.special.binary_search_by_key(&position, |(at, _)| *at) {
            Err(_) => {
                let start = position.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
                let bytes = self.results.get(start as usize..end as usize)?;
                let encoded = EncodedInput::new(Bytes::copy_from_slice(bytes));
                return (part == 0).then(|| Input::Encoded(Arc::new(encoded)));
            }
            Ok(at) => match &self.special[at].1 {
                Special::Stored(value) => std::slice::from_ref(value),
                Special::Parts(values) => values,
                Special::Failed(_) => return None,
            },
        };
        values.get(usize::from(part)).cloned().map(Input::Typed)
    }

    /// Records that the next task resulted in this value.
    #[inline]
    fn push_value<T: Data>(&mut self, value: T) {
        if self.parts > 1 {
            return self.push_parts(vec![Value::new(value)]);
        }
        match codec::encode_limited(&value, self.inline_max, &mut self.results) {
            Ok(Encoded::Done) => {
                // Before the outcome is recorded: a panic in here fails the task.
                drop(value);
                self.encoded += 1;
                self.push_end();
            }
            Ok(Encoded::TooLong) => self.push_special(Special::Stored(Value::new(value))),
            Err(error) => self.push_failure(Box::new(Failure::from(error))),
        }
    }

    /// Records that the next task resulted in a value that others share.
    fn push_shared<T: Data>(&mut self, value: Arc<T>) {
        match codec::encode_limited(&*value, self.inline_max, &mut self.results) {
            Ok(Encoded::Done) => {
                self.encoded += 1;
                self.push_end();
            }
            Ok(Encoded::TooLong) => self.push_special(Special::Stored(Value::from(value))),
            Err(error) => self.push_failure(Box::new(Failure::from(error))),
        }
    }

    /// Records that the next task resulted in these outputs, if they are as many as were asked for.
    fn push_parts(&mut self, values: Vec<Value>) {
        let expected = usize::from(self.parts.max(1));
        if values.len() == expected {
            return self.push_special(Special::Parts(values));
        }
        let message = format!(
            "it returned {} outputs where {expected} were asked for: one for each",
            values.len()
        );
        let kind = FailureKind::Result;
        self.push_failure(Box::new(Failure { kind, message, location: None, backtrace: None }));
    }

    /// Records that the next task failed. Bytes of a result that did not get finished are
    /// forgotten.
    #[cold]
    pub(super) fn push_failure(&mut self, failure: Box<Failure>) {
        self.push_special(Special::Failed(failure));
    }

    fn push_special(&mut self, special: Special) {
        self.results.truncate(self.ends.last().map_or(0, |&end| end as usize));
        let position = u32::try_from(self.ends.len()).expect("a chunk has fewer than 2^32 tasks");
        self.special.push((position, special));
        self.push_end();
    }

    #[inline]
    fn push_end(&mut self) {
        let end = u32::try_from(self.results.len())
            .expect("a chunk has less than 4 GiB of small results");
        self.ends.push(end);
    }

    /// Counts the encodings of this chunk.
    pub(super) fn finish(&mut self) {
        codec::count_encodings(std::mem::take(&mut self.encoded));
    }
}

/// What a call gives.
pub trait Yield {
    /// Records it as the outcome of the next task.
    fn put(self, out: &mut Outcomes);
}

/// One value.
impl<T: Data> Yield for T {
    #[inline(always)]
    fn put(self, out: &mut Outcomes) {
        out.push_value(self);
    }
}

/// The outputs of a task with several.
#[derive(Debug)]
pub struct Parts(pub Vec<Value>);

impl Yield for Parts {
    fn put(self, out: &mut Outcomes) {
        out.push_parts(self.0);
    }
}

/// A value that others share.
#[derive(Debug)]
pub struct Same<T>(pub Arc<T>);

impl<T: Data> Yield for Same<T> {
    fn put(self, out: &mut Outcomes) {
        out.push_shared(self.0);
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        Self {
            kind: FailureKind::Result,
            message: error.to_string(),
            location: None,
            backtrace: None,
        }
    }
}
