//! rdask

#[doc(hidden)]
pub mod codec;
#[doc(hidden)]
pub mod function;
mod panics;
mod remote;
mod shared;
pub mod task;

pub use codec::Data;
pub use remote::{Remote, Remotes};
pub use shared::Shared;
