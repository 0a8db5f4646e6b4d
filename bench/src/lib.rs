//! What benchmarks share.

pub mod usage;
