//! Between processes and the scheduler.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::task::Contact;
use crate::blob::Blob;
use crate::failure::Failure;
use crate::id::{ArrayId, AssignmentId, FunctionKey, ProcessId, StealId, TaskId, ValueId};
use crate::range::Range;

/// What the scheduler says to processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToProcess {
    /// Run these tasks.
    Assign(Assign),
    /// Before a process is first named as a holder: where it listens.
    Peer {
        /// Who.
        process: ProcessId,
        /// Where.
        contact: Contact,
    },
    /// So many slots are yours from now on. After a revocation, answer with
    /// [`FromProcess::SlotsFree`] as soon as no more than these run.
    SetSlots {
        /// The number.
        slots: u32,
    },
    /// These tasks need not run. Those not started are forgotten, running ones see a token; each
    /// is answered in a report.
    Cancel {
        /// Which array.
        array: ArrayId,
        /// Which tasks.
        range: Range,
    },
    /// Nobody wants these values any more, as far as they are with you. What a run makes of them
    /// later is another value, whoever has heard of it.
    Drop {
        /// Which tasks of which arrays.
        ranges: Vec<(ArrayId, Range)>,
    },
    /// Give back up to `count` tasks that have not started, the last ones first.
    Steal {
        /// To be named in the answer.
        steal: StealId,
        /// Of which assignment.
        assignment: AssignmentId,
        /// How many.
        count: u32,
    },
    /// All reports up to this one have been taken in.
    Seen {
        /// The report's number.
        report: u64,
    },
    /// End: finish nothing, serve nothing.
    Exit {
        /// Why, for the log.
        reason: String,
    },
    /// Fetch these results from a holder and hold them, too. Each is answered once: in
    /// [`FromProcess::Holds`] or [`FromProcess::NotAcquired`]. Takes no slot.
    Acquire {
        /// Which array.
        array: ArrayId,
        /// Which tasks.
        range: Range,
        /// How many outputs each task has.
        parts: u16,
        /// Who has all of them.
        holder: ProcessId,
    },
    /// Sources of a list that is too long for one message, in order. They go before what the
    /// assignment itself says of the list.
    Sources {
        /// Of the next [`Assign`](Self::Assign), which comes right behind.
        assignment: AssignmentId,
        /// Which of its parameters is the list.
        param: u8,
        /// Some of its sources.
        sources: Vec<Source>,
    },
    /// Nobody knows of these copies: drop them. Results of runs of yours stay, also of the same
    /// tasks.
    DropCopies {
        /// Which outputs of which tasks.
        values: Vec<ValueId>,
    },
    /// A process that you know of is gone: don't wait for anything from it.
    Gone {
        /// Which.
        process: ProcessId,
    },
    /// Results that you told of came too late: nobody wants them. What you have made of these tasks
    /// by another assignment stays.
    DropResults {
        /// By which they were made.
        assignment: AssignmentId,
        /// Which array.
        array: ArrayId,
        /// Which tasks.
        range: Range,
    },
}

/// A range of tasks of one shape, handed to a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assign {
    /// Its number.
    pub assignment: AssignmentId,
    /// The array or batch.
    pub array: ArrayId,
    /// Which tasks, never none.
    pub range: Range,
    /// What runs.
    pub function: FunctionKey,
    /// The name to show, if the user gave one.
    pub name: Option<String>,
    /// Deeper (nested) tasks go first, then higher priorities, then earlier assignments.
    pub depth: u16,
    /// The user's priority.
    pub priority: i32,
    /// How many slots each run takes.
    pub threads: u16,
    /// How many outputs each task has.
    pub parts: u16,
    /// The process that runs the parent, if these are nested tasks of that process.
    pub nested_here: bool,
    /// A run that takes longer fails.
    pub timeout: Option<Duration>,
    /// Results of more bytes than this stay with the process: [`INLINE_RESULT_BYTES_MAX`](super::INLINE_RESULT_BYTES_MAX), or 0
    /// when the scheduler has no room for more.
    pub inline_max: u32,
    /// The inline arguments, one string per task.
    pub payload: Blob,
    /// Where each parameter comes from, in order.
    pub params: Vec<Feed>,
    /// Run numbers that are not 1, in the order of their ranges.
    pub runs: Vec<(Range, u32)>,
}

/// Where one parameter of assigned tasks comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Feed {
    /// The payload.
    Inline,
    /// One source for each task of the range.
    Each(Vec<Source>),
    /// One source for all.
    One(Source),
    /// A list for each task of the range.
    Lists(Vec<Vec<Source>>),
    /// One list for all.
    List(Vec<Source>),
}

/// The value that a parameter takes, and where to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Whose result.
    pub task: TaskId,
    /// Which output of a task with several.
    pub part: u16,
    /// Where it is.
    pub place: Place,
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In this message, encoded.
    Inline(Bytes),
    /// With any of these. Yourself may be among them.
    Held(Vec<ProcessId>),
    /// It will be yours: the task was assigned to you before.
    Here,
}

/// What processes say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromProcess {
    /// What has ended since the last report.
    Report {
        /// Counted from 1.
        number: u64,
        /// What ended, in the order it ended in.
        finished: Vec<Finished>,
    },
    /// No more than the granted slots run now.
    SlotsFree {
        /// How many were granted.
        slots: u32,
    },
    /// So many runs wait for nested tasks and have given their slots back.
    Parked {
        /// The number of them now.
        runs: u32,
        /// The slots that they gave back, together.
        slots: u32,
    },
    /// The answer to [`ToProcess::Steal`].
    GaveUp {
        /// Which steal.
        steal: StealId,
        /// Of which assignment.
        assignment: AssignmentId,
        /// What was given up: exactly these tasks will not be run here.
        ranges: Vec<Range>,
    },
    /// Values that are here too now: copies fetched as inputs, or as [`ToProcess::Acquire`] said. Of a
    /// task with several outputs a copy of one says nothing of the others.
    Holds {
        /// Which values.
        values: Vec<ValueId>,
    },
    /// An input could not be had from a holder. The assignment's tasks that need it are given back.
    Missed {
        /// The task whose value it is.
        task: TaskId,
        /// The holder that didn't have it or didn't answer.
        holder: ProcessId,
        /// Whether the holder said so itself. Otherwise it could not be reached, or the transfer
        /// broke off, and it may have the value all the same.
        denied: bool,
        /// What is given back: (assignment, range).
        given_back: Vec<(AssignmentId, Range)>,
    },
    /// A value that was to be acquired could not be had. That is no verdict on its holder: the
    /// value may be fine where it is.
    NotAcquired {
        /// Whose result.
        task: TaskId,
    },
    /// What fetching inputs from other processes has cost since the last such message.
    Fetched {
        /// How many bytes came.
        bytes: u64,
        /// How long the fetches took, each for itself, in nanoseconds: of each what was beyond
        /// [`FETCH_TIME`](super::FETCH_TIME).
        busy_ns: u64,
    },
    /// Runs that were reported as timed out have ended now: their slots are free.
    Stopped {
        /// By which right they ran.
        assignment: AssignmentId,
        /// Which tasks.
        range: Range,
    },
    /// What a process still holds that was given up and is back under a new number. It gets work
    /// once all of it is told. What is of no use is answered by [`ToProcess::Drop`].
    Offer {
        /// Some of it.
        values: Vec<Offered>,
        /// Whether this is the rest of it.
        is_last: bool,
    },
}

/// Results of consecutive tasks that a process offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Which array or batch.
    pub array: ArrayId,
    /// Which tasks.
    pub range: Range,
    /// What is there of each of them.
    pub what: Offering,
}

/// What a process has of tasks' results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Offering {
    /// Small results of runs that ended here, with which the scheduler may not have been reached.
    Inline {
        /// The number of the run, the same for all.
        run: u32,
        /// One string per task.
        blob: Blob,
    },
    /// Whole results of runs that ended here.
    Stored {
        /// The number of the run, the same for all.
        run: u32,
        /// The number of bits that the length of each output of one task takes, the same for all.
        sizes: Vec<u8>,
    },
    /// Copies of others' values. Of which runs is not known here.
    Copies,
}

/// The end of a range of runs, all of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// By which right they ran.
    pub assignment: AssignmentId,
    /// The array or batch.
    pub array: ArrayId,
    /// Which tasks.
    pub range: Range,
    /// The time that all of them together kept slots busy, in nanoseconds.
    pub busy_ns: u64,
    /// How they ended.
    pub end: End,
}

/// How runs ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// With small results: one string per task.
    Inline(Blob),
    /// With results that stay with the process, as all of tasks with several outputs do: an estimate of each one's length in bytes, for each
    /// part of each task in order.
    Stored(Vec<u64>),
    /// With a failure.
    Failed(Failure),
    /// They did not start, since they were cancelled.
    Cancelled,
    /// What they did was lost with their worker, which has been given notice: they are to run
    /// again elsewhere.
    Lost,
}
