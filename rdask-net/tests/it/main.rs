//! Two or more endpoints over real sockets on loopback, each test with a run of its own.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, helpers too")]

mod cluster;
mod data;
mod hostile;
mod killed;
mod links;
mod local;
mod scheduler_file;
