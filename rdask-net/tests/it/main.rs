//! Two or more endpoints over real sockets on loopback, each test with a run of its own.

mod cluster;
mod data;
mod hostile;
mod links;
mod scheduler_file;
