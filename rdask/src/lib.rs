//! rdask

pub mod aio;
mod as_completed;
mod client;
#[doc(hidden)]
pub mod codec;
mod error;
#[doc(hidden)]
pub mod function;
mod options;
mod panics;
mod remote;
mod shared;
pub mod task;

pub use as_completed::AsCompleted;
pub use client::{Client, Core, Waited};
pub use codec::{Data, DecodeError};
pub use error::{ConnectionError, Error, FailureKind, Result, TaskError};
pub use options::Options;
pub use rdask_core::id::TaskId;
pub use rdask_core::message::{ClusterStatus, TaskStatus, WorkerStatus};
pub use remote::{Handles, IntoIter, Remote, Remotes};
pub use shared::Shared;
