//! Why a task isn't running: what [`Client::explain`](crate::Client::explain) and `rdask explain`
//! tell.

pub use rdask_core::failure::Failure;
pub use rdask_core::id::{ProcessId, WorkerId};
pub use rdask_core::message::{
    Explanation, InputState, Lack, Moving, ProgramState, TaskOptions, Why,
};
