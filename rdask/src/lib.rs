//! rdask

pub mod connection;
pub mod handover;
pub mod init;
pub mod memory;
pub mod nanny;
pub mod program;
pub mod scheduler;
pub mod slurm;

pub use init::{init, init_with};
