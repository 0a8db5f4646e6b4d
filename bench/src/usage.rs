//! What an OS process has used, from its files under `/proc`.

use std::fs;
use std::time::Duration;

/// The peak resident memory of a process in MiB, 0 if it has ended.
#[must_use]
pub fn peak_rss_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 =
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

/// User and system time of a process, zero if it has ended.
#[must_use]
pub fn cpu_time(pid: u32) -> Duration {
    /// Clock ticks per second of `/proc`, the same on every Linux that rdask runs on.
    const TICKS: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold anything but ends with the last parenthesis; user time is field 14.
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace().collect(),
        None => return Duration::ZERO,
    };
    let ticks = |nth: usize| fields.get(nth).and_then(|field| field.parse().ok()).unwrap_or(0);
    let all: u64 = ticks(11) + ticks(12);
    Duration::from_millis(all * 1000 / TICKS)
}
