//! What Slurm tells a program of its allocation: by environment variables, and when it is asked.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A controller under load takes some seconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

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

/// Asks Slurm for the time until it ends a job: by `squeue`, one question to its controller. `None`
/// if it doesn't know or answer, or the job never ends.
pub async fn ask_time_left(job: &str) -> Option<Duration> {
    let mut squeue = tokio::process::Command::new("squeue");
    squeue.args(["--noheader", "--job", job, "--format", "%L"]);
    squeue.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_TIME_MAX, squeue.output()).await;
    let output = match output {
        Ok(Ok(output)) if output.status.success() => output,
        other => {
            tracing::warn!(job, answer = ?other, "Slurm does not say when the job ends");
            return None;
        }
    };
    parse_time(String::from_utf8_lossy(&output.stdout).lines().next()?.trim())
}

/// `[days-][[hours:]minutes:]seconds`. There are words, too, for jobs without an end.
fn parse_time(text: &str) -> Option<Duration> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let parts = clock.split(':').map(|part| part.parse::<u32>().ok());
    let parts: Vec<u64> = parts.map(|part| part.map(u64::from)).collect::<Option<_>>()?;
    let clock = parts.iter().take(3).fold(0, |sum, part| sum * 60 + part);
    let days = u64::from(days.parse::<u32>().ok()?);
    (parts.len() <= 3).then(|| Duration::from_secs(days * 24 * 3600 + clock))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_squeue_writes_them() {
        for (text, seconds) in [
            ("0:30", Some(30)),
            ("10:00", Some(600)),
            ("1:02:03", Some(3723)),
            ("2-00:00:01", Some(172_801)),
            ("UNLIMITED", None),
            ("INVALID", None),
            ("NOT_SET", None),
            ("", None),
            ("1:2:3:4", None),
        ] {
            assert_eq!(parse_time(text), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
