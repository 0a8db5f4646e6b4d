//! How much memory a worker may use: what the user says, or the least of cgroup, Slurm and RAM.

use std::path::{Path, PathBuf};

use crate::slurm;

/// The memory that this process and its children may use together, in bytes: the least of what the
/// cgroup, Slurm and the machine allow. 0 if none of them tells.
#[must_use]
pub fn available() -> u64 {
    [cgroup_limit(), slurm::memory(), ram()].into_iter().flatten().min().unwrap_or(0)
}

/// The machine's memory in bytes.
#[must_use]
pub fn ram() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The memory of this process that is in RAM, in bytes.
#[must_use]
pub fn resident(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// How many processes the kernel has ended in this cgroup for lack of memory.
#[must_use]
pub fn out_of_memory_kills() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    folders(&own).into_iter().find_map(|folder| {
        let file = if folder.starts_with("/sys/fs/cgroup/memory") {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        let text = std::fs::read_to_string(folder.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    })
}

fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    folders(&own).iter().flat_map(|folder| folder.ancestors()).filter_map(limit_of).min()
}

fn limit_of(folder: &Path) -> Option<u64> {
    let read = |file| std::fs::read_to_string(folder.join(file)).ok();
    let text = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
    // "max", or in version 1 a number beyond any machine, is no limit.
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

/// The folders that `/proc/self/cgroup` names for memory, of version 2 and 1.
fn folders(own: &str) -> Vec<PathBuf> {
    let folder = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            some if some.split(',').any(|name| name == "memory") => {
                Path::new("/sys/fs/cgroup/memory")
            }
            _ => return None,
        };
        Some(root.join(path.trim_start_matches('/')))
    };
    own.lines().filter_map(folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_memory_and_so_has_this_process() {
        let available = available();
        assert!(available > 0 && available <= ram().unwrap());
        assert!(resident(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn both_versions_of_cgroups_are_understood() {
        let text = "5:cpu,cpuacct:/a\n4:memory:/slurm/uid_1/job_2\n0::/user.slice/x\n";
        let expected = ["/sys/fs/cgroup/memory/slurm/uid_1/job_2", "/sys/fs/cgroup/user.slice/x"];
        assert_eq!(folders(text), expected.map(PathBuf::from));
    }
}
