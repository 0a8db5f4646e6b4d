//! What benchmarks share: a cluster of separate OS processes on this machine.

pub mod cluster;
pub mod usage;
