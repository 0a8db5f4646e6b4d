//! Every message between scheduler, nannies, processes and clients. Only here.
//!
//! Commands are imperative ([`ToProcess::Assign`]), facts are past ([`Finished`]).
//! Nothing on the wire is recursive and no sequence has elements without bytes, so that what a
//! frame decodes to is bounded by the frame. The first frame of a link is [`hello`](crate::hello).
//!
//! A task's inputs are its *parameters*, in order. A parameter is either part of the payload (the
//! encoded inline arguments of one task, back to back) or comes from other tasks.

use std::time::Duration;

mod client;
mod data;
mod explain;
mod leaving;
mod nanny;
mod process;
mod task;

pub use client::{
    ClusterStatus, FromClient, Outcome, Parent, TaskStatus, ToClient, UnknownWorkers, WorkerStatus,
};
pub use data::{DataReply, DataRequest, DataWord, MemoryArea};
pub use explain::{Explanation, InputState, Lack, Moving, NAMED_MAX, ProgramState, Why};
pub use leaving::{LEAVING_MAX, LeavingWorker};
pub use nanny::{Exit, FromNanny, Launch, Returning, ToNanny, WorkerInfo};
pub use process::{
    Assign, End, Feed, Finished, FromProcess, Offered, Offering, Place, Source, ToProcess,
};
pub use task::{Batch, Contact, Edge, Param, ProgramInfo, Shape, Surroundings, TaskOptions};

/// Results of at most this many bytes ride along with the report and stay with the scheduler.
pub const INLINE_RESULT_BYTES_MAX: usize = 1024;

/// Arguments of more than this many bytes are scattered instead of travelling in the payload.
pub const INLINE_ARGUMENT_BYTES_MAX: usize = 64 * 1024;

/// What fetching a value takes, however short it is: a stream, a request, threads to wake.
pub const FETCH_TIME: Duration = Duration::from_millis(1);

/// Submits and reports are split so that a frame stays well below its limit of 1 MiB.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// The most tasks in one payload chunk or report.
pub const CHUNK_TASKS_MAX: u32 = 64 * 1024;

/// The most tasks in one batch.
pub const BATCH_TASKS_MAX: u32 = 8 * 1024;
