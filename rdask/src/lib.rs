//! rdask

#[doc(hidden)]
pub mod codec;
pub mod connection;
#[doc(hidden)]
pub mod context;
#[doc(hidden)]
pub mod data;
#[doc(hidden)]
pub mod function;
pub mod handover;
pub mod init;
pub mod memory;
pub mod nanny;
mod panics;
#[doc(hidden)]
pub mod process;
pub mod program;
mod remote;
pub mod scheduler;
mod shared;
pub mod slurm;
pub mod task;

pub use codec::Data;
pub use context::{CancelToken, Context, context, try_context};
pub use init::{init, init_with};
pub use remote::{Remote, Remotes};
pub use shared::Shared;
