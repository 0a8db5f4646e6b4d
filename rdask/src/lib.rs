//! rdask

pub mod aio;
mod as_completed;
mod client;
#[doc(hidden)]
pub mod codec;
pub mod connection;
mod error;
#[doc(hidden)]
pub mod function;
pub mod handover;
pub mod init;
pub mod memory;
pub mod nanny;
mod options;
mod panics;
pub mod program;
mod remote;
pub mod scheduler;
mod shared;
pub mod slurm;
pub mod task;

pub use as_completed::AsCompleted;
pub use client::{Client, Core, Waited};
pub use codec::{Data, DecodeError};
pub use error::{ConnectionError, Error, FailureKind, Result, TaskError};
pub use init::{init, init_with};
pub use options::Options;
pub use rdask_core::id::TaskId;
pub use rdask_core::message::{ClusterStatus, TaskStatus, WorkerStatus};
pub use remote::{Handles, IntoIter, Remote, Remotes};
pub use shared::Shared;
