//! What OS processes have used, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

/// User and system time of processes so far.
#[derive(Debug, Default)]
pub(crate) struct Usage(BTreeMap<u32, Duration>);

impl Usage {
    /// Of these processes, if they live.
    pub(crate) fn of(pids: &[u32]) -> Self {
        Self(pids.iter().map(|pid| (*pid, cpu_time(*pid))).collect())
    }

    /// What those that live have used since then, or since their start.
    pub(crate) fn since(&self, before: Option<&Self>) -> Duration {
        let of = |pid: &u32| before.and_then(|before| before.0.get(pid)).copied();
        let spent = self.0.iter().map(|(pid, now)| now.saturating_sub(of(pid).unwrap_or_default()));
        spent.sum()
    }
}

/// The peak resident memory of a process in MiB, 0 if it has ended.
pub(crate) fn peak_rss_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or(0).div_ceil(1024)
}

/// The machine's load over the last minute.
pub(crate) fn load_1() -> f64 {
    let loads = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    loads.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// User and system time of a process, zero if it has ended.
fn cpu_time(pid: u32) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed()));
    clock.and_then(ClockId::now).map_or(Duration::ZERO, Duration::from)
}
