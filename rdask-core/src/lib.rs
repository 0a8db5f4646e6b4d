//! The brain of rdask: data model, scheduler, worker and client state machines. Pure.
//!
//! No socket, thread, clock or source of randomness lives here. Facts go in, actions come out,
//! time is an argument; the same inputs give the same outputs, byte for byte.

pub mod blob;
pub mod bulk;
pub mod client;
pub mod failure;
pub mod hello;
pub mod id;
pub mod message;
pub mod process;
pub mod range;
pub mod scheduler;
pub mod time;
