//! Clusters of real processes on this machine: the program that uses this crate, started again as a
//! scheduler, nannies and clients. For tests, benchmarks and whatever else kills processes; each of
//! these is a program of its own, without the harness of `cargo test`.
//!
//! ```no_run
//! use rdask_testbed::{cluster::Cluster, role};
//!
//! fn main() {
//!     rdask::init();
//!     role::play(|scene, _file, _arguments| panic!("no scene {scene}"));
//!     let mut cluster = Cluster::new(2, 4);
//!     let client = cluster.client();
//!     let squares = client.map(|x: f64| x * x, [1.0, 2.0, 3.0]);
//!     cluster.nannies[1].kill();
//!     assert_eq!(client.gather(squares).expect("losses cost no result"), [1.0, 4.0, 9.0]);
//! }
//! ```
//!
//! What can't go on ends the program with a message: its users have nothing to do then.

#![expect(clippy::unwrap_used, reason = "what can not go on ends")]

pub mod cluster;
pub mod proc;
pub mod role;
