//! Every message between scheduler, nannies, processes and clients. Only here.
//!
//! Commands are imperative ([`ToProcess::Assign`]), facts are past ([`Finished`]).
//! Nothing on the wire is recursive and no sequence has elements without bytes, so that what a
//! frame decodes to is bounded by the frame. The first frame of a link is [`hello`](crate::hello).
//!
//! A task's inputs are its *parameters*, in order. A parameter is either part of the payload (the
//! encoded inline arguments of one task, back to back) or comes from other tasks.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::blob::Blob;
use crate::failure::Failure;
use crate::id::{
    ArrayId, AssignmentId, FunctionKey, NannyId, ProcessId, ProgramHash, StealId, TaskId, WorkerId,
};
use crate::range::Range;

/// Results of at most this many bytes ride along with the report and stay with the scheduler.
pub const INLINE_RESULT_BYTES_MAX: usize = 1024;

/// Arguments of more than this many bytes are scattered instead of travelling in the payload.
pub const INLINE_ARGUMENT_BYTES_MAX: usize = 64 * 1024;

/// Submits and reports are split so that a frame stays well below its limit of 1 MiB.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// The most tasks in one payload chunk or report.
pub const CHUNK_TASKS_MAX: u32 = 64 * 1024;

/// The most tasks in one batch.
pub const BATCH_TASKS_MAX: u32 = 8 * 1024;

// ---------------------------------------------------------------------------------------------
// What tasks are

/// What is the same for all tasks of an array, and for many tasks of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What runs.
    pub function: FunctionKey,
    /// The function's name, for people.
    pub name: String,
    /// Where each parameter comes from, in order. In a batch, patterns name no tasks: the k-th
    /// parameter that is not inline takes its sources from the task's own edges.
    pub params: Vec<Param>,
    /// How and where to run it.
    pub options: TaskOptions,
}

/// Where one parameter of a function comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Param {
    /// The task's payload.
    Inline,
    /// Task `i` takes the result of task `start + i` of `array`.
    Each {
        /// The array it depends on.
        array: ArrayId,
        /// What task 0 takes.
        start: u32,
        /// Which output of a task with several.
        part: u16,
    },
    /// Task `i` takes the results of tasks `start + i * width` up to `start + (i + 1) * width` or
    /// `end`, whichever is less, as a list: one level of a tree reduction.
    Block {
        /// The array it depends on.
        array: ArrayId,
        /// Where the first block begins.
        start: u32,
        /// One past the last task of the last block.
        end: u32,
        /// How many tasks make a block, at least 1.
        width: u32,
    },
    /// Every task takes the result of this one task.
    One {
        /// The task.
        task: TaskId,
        /// Which output of a task with several.
        part: u16,
    },
    /// Every task takes all these results, as a list.
    All {
        /// The array it depends on.
        array: ArrayId,
        /// Which of its tasks.
        range: Range,
    },
    /// In a batch: the next edge of the task.
    Edge,
    /// In a batch: all edges of the task that are left, as a list. Only as the last parameter.
    Edges,
}

/// How and where a task runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskOptions {
    /// A name of the user's choice, for people.
    pub name: Option<String>,
    /// Higher goes first, within one client. Usually 0.
    pub priority: i32,
    /// How often a failed task is run again.
    pub retries: u32,
    /// How long to wait before such a run.
    pub retry_delay: Duration,
    /// A run that takes longer fails.
    pub timeout: Option<Duration>,
    /// How many slots a run takes, at least 1.
    pub threads: u16,
    /// What else a run takes of its worker, by name, in ten-thousandths. Sorted by name.
    pub resources: Vec<(String, u64)>,
    /// Only workers of these names, if any are given.
    pub workers: Vec<String>,
    /// Only workers of these pools, if any are given.
    pub pools: Vec<String>,
    /// How many outputs a task has: 1 but for shuffles.
    pub parts: u16,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            name: None,
            priority: 0,
            retries: 0,
            retry_delay: Duration::ZERO,
            timeout: None,
            threads: 1,
            resources: Vec::new(),
            workers: Vec::new(),
            pools: Vec::new(),
            parts: 1,
        }
    }
}

impl TaskOptions {
    /// Whether tasks with these and with the other options may be of one batch: its tasks stand in
    /// one queue, so they have one priority and need the same of a worker.
    #[must_use]
    pub fn fit_a_batch_with(&self, other: &Self) -> bool {
        let what = |options: &Self| (options.priority, options.threads);
        what(self) == what(other)
            && self.resources == other.resources
            && self.workers == other.workers
            && self.pools == other.pools
    }
}

/// An edge of a batch: whose result a task takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The task.
    pub task: TaskId,
    /// Which output of a task with several.
    pub part: u16,
}

/// A piece of graph: one record per task, edges packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The shapes that its tasks have. Their options [fit](TaskOptions::fit_a_batch_with).
    pub shapes: Vec<Shape>,
    /// Which shape each task has.
    pub shape_of: Vec<u16>,
    /// The inline arguments of each task.
    pub payload: Blob,
    /// Task `i` has the edges before `edge_ends[i]` that no task before it has.
    pub edge_ends: Vec<u32>,
    /// Only to tasks of earlier arrays and batches, or to earlier tasks of this one.
    pub edges: Vec<Edge>,
}

/// A program, as its client announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramInfo {
    /// Its name.
    pub hash: ProgramHash,
    /// Its length in bytes.
    pub size: u64,
    /// Where the client has it. A node takes it from there if a file there has that hash.
    pub path: String,
}

/// What a process inherits of its client, since a process starts as its user expects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// The client's working folder.
    pub folder: String,
    /// The client's umask.
    pub umask: u32,
    /// Variables of the client that an allow-list lets through.
    pub environment: Vec<(String, String)>,
    /// The processor features that the client's machine has, as in `/proc/cpuinfo`.
    pub cpu_features: Vec<String>,
}

/// How to reach a peer's data listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// By QUIC.
    pub quic: Vec<SocketAddr>,
    /// By TLS over TCP.
    pub tls: Vec<SocketAddr>,
}

// ---------------------------------------------------------------------------------------------
// Client and scheduler

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
}

// ---------------------------------------------------------------------------------------------
// Process and scheduler

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
    /// Nobody wants these values any more.
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
    /// Results of more bytes than this stay with the process: [`INLINE_RESULT_BYTES_MAX`], or 0
    /// when the scheduler has no room for more.
    pub inline_max: u32,
    /// The inline arguments, one string per task.
    pub payload: Blob,
    /// Where each parameter comes from, in order.
    pub params: Vec<Feed>,
    /// Run numbers that are not 1: (range, number).
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
    /// Values that are here too now: copies fetched as inputs.
    Holds {
        /// Which values.
        values: Vec<TaskId>,
    },
    /// An input could not be had from a holder. The assignment's tasks that need it are given back.
    Missed {
        /// The task whose value it is.
        task: TaskId,
        /// The holder that didn't have it or didn't answer.
        holder: ProcessId,
        /// What is given back: (assignment, range).
        given_back: Vec<(AssignmentId, Range)>,
    },
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
    /// With results that stay with the process: an estimate of each one's length in bytes, for each
    /// part of each task in order.
    Stored(Vec<u64>),
    /// With a failure.
    Failed(Failure),
    /// They did not start, since they were cancelled.
    Cancelled,
}

// ---------------------------------------------------------------------------------------------
// Nanny and scheduler

/// What the scheduler says to nannies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNanny {
    /// Start a process.
    Launch(Launch),
    /// Fetch a program from here, as was asked for.
    FetchProgram {
        /// Which program.
        hash: ProgramHash,
        /// Another nanny and where it listens, or the scheduler.
        from: Option<(NannyId, Contact)>,
    },
    /// End a process.
    Kill {
        /// Which one.
        process: ProcessId,
        /// Why, for the log.
        reason: String,
    },
    /// Answer with [`FromNanny::Pong`].
    Ping {
        /// To be repeated.
        nonce: u64,
    },
    /// End your processes and leave.
    Exit {
        /// Why, for the log.
        reason: String,
    },
}

/// The start of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The number of the process.
    pub process: ProcessId,
    /// The worker in which it starts.
    pub worker: WorkerId,
    /// What it runs.
    pub program: ProgramInfo,
    /// What it inherits.
    pub surroundings: Surroundings,
}

/// What nannies say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNanny {
    /// The program isn't in the cache nor at the client's path. Who has it?
    WantProgram {
        /// Which program.
        hash: ProgramHash,
    },
    /// The program is here now.
    HasProgram {
        /// Which program.
        hash: ProgramHash,
    },
    /// It could not be fetched from where [`ToNanny::FetchProgram`] said.
    FetchFailed {
        /// Which program.
        hash: ProgramHash,
        /// Why.
        message: String,
    },
    /// A process could not be started: what the program cannot find on this node, for example.
    LaunchFailed {
        /// Which process.
        process: ProcessId,
        /// Node and cause.
        message: String,
    },
    /// A process ended.
    Exited {
        /// Which one.
        process: ProcessId,
        /// How.
        exit: Exit,
        /// The tasks that ran at that moment: (array, index, run).
        board: Vec<(TaskId, u32)>,
        /// The last lines of its standard error.
        stderr: Vec<String>,
    },
    /// Notice of the end: give me nothing new.
    Leaving {
        /// Why.
        reason: String,
    },
    /// The answer to [`ToNanny::Ping`].
    Pong {
        /// As in the ping.
        nonce: u64,
    },
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// For lack of memory.
    OutOfMemory,
}

/// What a nanny tells of each of its workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its name, unique in the cluster if the user saw to it.
    pub name: String,
    /// Its slots, at least 1.
    pub slots: u32,
    /// Its memory limit in bytes, 0 for none.
    pub memory_limit: u64,
    /// What else it has, by name, in ten-thousandths.
    pub resources: Vec<(String, u64)>,
}

// ---------------------------------------------------------------------------------------------
// Data connections: one request per stream, then one reply, then raw bytes

/// What the dialer of a data stream asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataRequest {
    /// Send me this value. After [`DataReply::Follows`] come its encoded bytes.
    Get {
        /// Whose result.
        task: TaskId,
        /// Which output of a task with several.
        part: u16,
    },
    /// Keep this value, as the scheduler told us both. Its encoded bytes follow the request.
    Put {
        /// Whose result it is.
        task: TaskId,
        /// As [`ToClient::Put`] said.
        assignment: AssignmentId,
        /// How many bytes follow.
        size: u64,
    },
    /// Send me this program. After [`DataReply::Follows`] come its bytes.
    GetProgram {
        /// Which program.
        hash: ProgramHash,
    },
    /// Keep this program and give it to nannies. Its bytes follow the request.
    PutProgram {
        /// Which program.
        hash: ProgramHash,
        /// How many bytes follow.
        size: u64,
    },
}

/// The answer on a data stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataReply {
    /// What was asked for follows.
    Follows {
        /// How many bytes.
        size: u64,
    },
    /// What was sent has been taken in whole.
    Taken,
    /// It is not here.
    NotHere,
    /// It can't be given or taken.
    Refused {
        /// Why.
        message: String,
    },
}
