//! Between clients and the scheduler.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::explain::Explanation;
use super::leaving::LeavingWorker;
use super::task::{Batch, Contact, Shape, TaskOptions};
use crate::blob::Blob;
use crate::failure::Failure;
use crate::id::{ArrayId, AssignmentId, ProcessId, TaskId, WorkerId};
use crate::range::Range;

/// The run on whose behalf tasks are submitted, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The task that runs.
    pub task: TaskId,
    /// Which run of it.
    pub run: u32,
}

/// What clients say. Numbers of arrays and batches are the client's own, each used once, rising.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    /// A new array of `len` tasks. If its shape has inline parameters, payload follows.
    SubmitArray {
        /// Its number.
        number: u32,
        /// How many tasks.
        len: u32,
        /// What they all are.
        shape: Shape,
        /// The run that submits it.
        parent: Option<Parent>,
    },
    /// The payload of the next tasks of an array; complete when `len` tasks have theirs.
    Payload {
        /// The array's number.
        number: u32,
        /// One string per task.
        payload: Blob,
    },
    /// A new batch.
    SubmitBatch {
        /// Its number.
        number: u32,
        /// Its tasks.
        batch: Batch,
        /// The run that submits it.
        parent: Option<Parent>,
    },
    /// New values, small enough to stay with the scheduler.
    ScatterInline {
        /// The number of the array whose results they are.
        number: u32,
        /// The encoded values.
        values: Blob,
    },
    /// New values, to be put with processes as [`ToClient::Put`] says.
    Scatter {
        /// The number of the array whose results they are.
        number: u32,
        /// The length of each encoded value in bytes.
        sizes: Vec<u64>,
        /// Where they may be put.
        options: TaskOptions,
    },
    /// A put that the scheduler asked for did not succeed.
    PutFailed {
        /// The assignment of [`ToClient::Put`].
        assignment: AssignmentId,
        /// Why.
        message: String,
    },
    /// Tell me how these tasks end, once each.
    Want {
        /// Which array, not necessarily one's own.
        array: ArrayId,
        /// Which tasks.
        range: Range,
        /// Send small values along, and say who holds large ones.
        values: bool,
    },
    /// A holder that was named didn't have the value or didn't answer: find another one.
    Missed {
        /// The task whose value it is.
        task: TaskId,
        /// The holder.
        holder: ProcessId,
        /// Whether the holder said so itself. Otherwise it may have the value all the same.
        denied: bool,
    },
    /// The client has no handle of these tasks any more.
    Release {
        /// Which tasks of which of its arrays.
        ranges: Vec<(ArrayId, Range)>,
    },
    /// These tasks need not run any more.
    Cancel {
        /// Which array.
        array: ArrayId,
        /// Which tasks.
        range: Range,
    },
    /// Keep these results under a name until somebody attaches to it.
    Detach {
        /// The name.
        name: String,
        /// The tasks, in the user's order.
        ranges: Vec<(ArrayId, Range)>,
    },
    /// Give me the tasks that were detached under a name.
    Attach {
        /// A number of the client's to know the answer by.
        request: u32,
        /// The name.
        name: String,
    },
    /// What states do these tasks have?
    AskStates {
        /// A number of the client's to know the answer by.
        request: u32,
        /// Which array.
        array: ArrayId,
        /// Which tasks.
        range: Range,
    },
    /// What does the cluster look like?
    AskStatus {
        /// A number of the client's to know the answer by.
        request: u32,
        /// Answer when the client's program is at work in each worker that can run it.
        when_ready: bool,
    },
    /// So many bytes of inline results have arrived and been taken: send more.
    Taken {
        /// Bytes since the last such message.
        bytes: u64,
    },
    /// The program could not be brought as [`ToClient::SendProgram`] asked.
    ProgramNotSent {
        /// Why.
        message: String,
    },
    /// Let these workers go, as if they had given notice.
    Retire {
        /// A number of the client's to know the answer by.
        request: u32,
        /// Pools, or names of workers.
        names: Vec<String>,
        /// How long what they run and hold may keep them; for as long as it takes if nothing is said.
        within: Option<Duration>,
    },
    /// A put that the scheduler asked for is not possible: a process had taken the value before, and
    /// the client does not have it any more.
    PutGone {
        /// The assignment of [`ToClient::Put`].
        assignment: AssignmentId,
    },
    /// How is it with a task, and why isn't it running?
    Explain {
        /// A number of the client's to know the answer by.
        request: u32,
        /// Which task.
        task: TaskId,
    },
    /// What have these workers left to do before they go?
    AskLeaving {
        /// A number of the client's to know the answer by.
        request: u32,
        /// Which.
        workers: Vec<WorkerId>,
    },
}

/// What the scheduler says to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// How tasks that were wanted ended.
    Ended {
        /// Which array.
        array: ArrayId,
        /// Which tasks.
        range: Range,
        /// How all of them ended.
        outcome: Outcome,
    },
    /// Put the encoded value of a scattered task with a process.
    Put {
        /// The task.
        task: TaskId,
        /// To be named in the put, or in [`FromClient::PutFailed`].
        assignment: AssignmentId,
        /// With whom.
        process: ProcessId,
        /// Where it listens.
        contact: Contact,
    },
    /// Bring the program's bytes to the scheduler, over a data connection.
    SendProgram,
    /// The answer to [`FromClient::Attach`]: the tasks, or nothing of that name.
    Attached {
        /// The request.
        request: u32,
        /// The tasks in the order they were detached in.
        ranges: Option<Vec<(ArrayId, Range)>>,
    },
    /// The answer to [`FromClient::AskStates`].
    States {
        /// The request.
        request: u32,
        /// States and where each ends, in order.
        states: Vec<(Range, TaskStatus)>,
    },
    /// The answer to [`FromClient::AskStatus`].
    Status {
        /// The request.
        request: u32,
        /// The cluster.
        status: ClusterStatus,
    },
    /// What runs of this client's program want people to know: a program that a node can't start.
    Warning {
        /// The text.
        message: String,
    },
    /// The answer to [`FromClient::Retire`].
    Retiring {
        /// The request.
        request: u32,
        /// The workers that go, or why none does.
        workers: Result<Vec<WorkerId>, UnknownWorkers>,
    },
    /// The answer to [`FromClient::Explain`].
    Explained {
        /// The request.
        request: u32,
        /// How it is.
        explanation: Explanation,
    },
    /// A process that was named as a holder is gone: don't wait for anything from it.
    Gone {
        /// Which.
        process: ProcessId,
    },
    /// The answer to [`FromClient::AskLeaving`].
    Leaving {
        /// The request.
        request: u32,
        /// Those that are still there, up to a thousand of them.
        workers: Vec<LeavingWorker>,
    },
}

/// Names that are no pool's and no worker's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("no pool and no worker is called {}; there are {}", unknown.join(", "), Self::list(known))]
pub struct UnknownWorkers {
    /// Those names.
    pub unknown: Vec<String>,
    /// Pools, then workers: the names that there are, or the first of them.
    pub known: Vec<String>,
}

impl UnknownWorkers {
    fn list(known: &[String]) -> String {
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    }
}

/// How a range of tasks ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Well. The values were not asked for.
    Done,
    /// Well, with small results: one string per task.
    Values(Blob),
    /// Well. The values are with this process.
    Held {
        /// Who has them.
        holder: ProcessId,
        /// Where it listens.
        contact: Contact,
    },
    /// Not well.
    Failed(Failure),
}

/// The state of a task as a client sees it. Dask's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskStatus {
    /// It has not ended.
    Pending,
    /// It has a result.
    Finished,
    /// It has none and will have none.
    Error,
    /// Somebody cancelled it.
    Cancelled,
}

/// What `rdask status` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The number of this start of the scheduler.
    pub epoch: u64,
    /// All workers, by pool, then name.
    pub workers: Vec<WorkerStatus>,
    /// How many clients are connected.
    pub clients: u32,
    /// Tasks that wait for others.
    pub waiting: u64,
    /// Tasks that could run.
    pub ready: u64,
    /// Tasks that are with a process.
    pub assigned: u64,
    /// Tasks that ended well and are still remembered.
    pub done: u64,
    /// Tasks that ended badly and are still remembered.
    pub failed: u64,
    /// The bytes of results that the scheduler keeps.
    pub result_bytes: u64,
    /// The bytes of results that processes have fetched from each other so far.
    pub transferred_bytes: u64,
}

/// One worker in [`ClusterStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its pool.
    pub pool: String,
    /// How many slots it has.
    pub slots: u32,
    /// How many of them run something.
    pub busy: u32,
    /// Its memory limit in bytes, 0 for none.
    pub memory_limit: u64,
    /// The programs at work in it.
    pub processes: u32,
    /// Whether it has been given notice.
    pub leaving: bool,
    /// When it will be, if that is known: by its lifetime, or before the end of its Slurm job.
    pub ends_in: Option<Duration>,
}
