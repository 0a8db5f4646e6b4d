//! What the kernel knows of processes, and waiting for it to be so.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Whatever a test waits for takes a fraction of this on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until something is there.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, look)
}

/// Waits for some time until something is there.
#[track_caller]
pub fn wait_within<T>(time: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + time;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {time:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// Ends a process without a word.
pub fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

/// Gives a process notice.
pub fn terminate(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).unwrap();
}

/// Stops processes where they are.
pub fn stand_still(pids: &[u32]) {
    for pid in pids {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).unwrap();
    }
}

/// Lets stopped processes go on. Those that were given up for their silence are gone by now.
pub fn go_on(pids: &[u32]) {
    for pid in pids {
        match kill(Pid::from_raw(pid.cast_signed()), Signal::SIGCONT) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("process {pid} does not go on: {error}"),
        }
    }
}

/// Whether a process runs.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// The processes that a process has started and that live.
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = list.split_whitespace().filter_map(|child| child.parse().ok());
    children.filter(|child| is_alive(*child)).collect()
}

/// A line of a process's status, in bytes: `VmRSS` is what it occupies, `VmHWM` the most so far.
/// Nothing of a process that ends: it gives its memory back before it is gone.
pub fn memory(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    value.map_or(0, |value| value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024)
}

/// The ports of IPv4 that a process has open, of `udp` or (listening) `tcp`.
pub fn ports(pid: u32, protocol: &str) -> Vec<SocketAddr> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    let inodes: BTreeSet<String> = links
        .filter_map(|link| {
            let link = link.to_string_lossy();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/{protocol}")).unwrap();
    let sockets = table.lines().skip(1).filter_map(|line| {
        const LISTENS: &str = "0A";
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_one = inodes.contains(words[9]) && (protocol != "tcp" || words[3] == LISTENS);
        let port = words[1].split_once(':').unwrap().1;
        let port = u16::from_str_radix(port, 16).unwrap();
        is_one.then_some((Ipv4Addr::LOCALHOST, port).into())
    });
    sockets.collect()
}
