//! rdask

pub mod handover;
pub mod memory;
pub mod nanny;
pub mod program;
pub mod slurm;
