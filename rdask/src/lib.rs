//! rdask

#[doc(hidden)]
pub mod codec;
#[doc(hidden)]
pub mod context;
#[doc(hidden)]
pub mod data;
#[doc(hidden)]
pub mod function;
mod panics;
#[doc(hidden)]
pub mod process;
mod remote;
mod shared;
pub mod task;

pub use codec::Data;
pub use context::{CancelToken, Context, context, try_context};
pub use remote::{Remote, Remotes};
pub use shared::Shared;
