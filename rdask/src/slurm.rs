//! What Slurm tells a program of its allocation, by environment variables only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The Slurm job that this program runs in. Array elements have numbers of their own.
#[must_use]
pub fn job_id() -> Option<String> {
    variable("SLURM_JOB_ID")
}

/// The node's name: Slurm's, or else the host's without its domain.
#[must_use]
pub fn node_name() -> String {
    variable("SLURMD_NODENAME").unwrap_or_else(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim().split('.').next().unwrap_or_default().to_owned();
        if name.is_empty() { "localhost".to_owned() } else { name }
    })
}

/// The position of this task in its job step, if it is part of one.
#[must_use]
pub fn step_position() -> Option<u32> {
    variable("SLURM_PROCID")?.parse().ok()
}

/// The processors that each task of a step was given.
#[must_use]
pub fn cpus_per_task() -> Option<u32> {
    variable("SLURM_CPUS_PER_TASK")?.parse().ok().filter(|cpus| *cpus > 0)
}

/// The memory that the job has on this node, in bytes.
#[must_use]
pub fn memory() -> Option<u64> {
    let mebibytes = |name| variable(name).and_then(|text| text.parse::<u64>().ok());
    let per_node = mebibytes("SLURM_MEM_PER_NODE").filter(|mem| *mem > 0);
    let per_cpu = || {
        let cpus = mebibytes("SLURM_CPUS_ON_NODE")?;
        mebibytes("SLURM_MEM_PER_CPU")?.checked_mul(cpus)
    };
    per_node.or_else(per_cpu)?.checked_mul(1 << 20)
}

/// The time until Slurm ends the job, where it tells (23.02 and later).
#[must_use]
pub fn time_left() -> Option<Duration> {
    let end = variable("SLURM_JOB_END_TIME")?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(end).saturating_sub(now))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
