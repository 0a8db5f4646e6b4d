//! What a process leaves behind.
//!
//! A process leads a session of its own, and what its tasks start is in it, unless it has gone to
//! some trouble not to be. When the process has ended, however that came, nobody is left to end the
//! rest, and its tasks may be about to run a second time elsewhere.

use std::{fs, io, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use tokio::sync::oneshot;

/// Who is killed may have started something a moment before.
const LOOKS_MAX: usize = 10;

/// Kills all that is left of the session that this process led. It has been waited for.
pub(super) async fn end(leader: u32) {
    let session = Pid::from_raw(leader.cast_signed());
    match kill_all_beside(session).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(pid = leader, count, "killed what a process had started"),
        Err(error) => {
            tracing::error!(pid = leader, %error, "what a process had started may live on");
        }
    }
}

/// Reading `/proc` takes milliseconds on a busy node. Where the process and what it started have
/// taken all threads that a user may have, the nanny takes that time: it must not fail then.
async fn kill_all_beside(session: Pid) -> io::Result<usize> {
    let (sender, killed) = oneshot::channel();
    let kill = move || {
        // The receiver waits for it.
        let _ = sender.send(kill_all(session));
    };
    match thread::Builder::new().name("session".to_owned()).spawn(kill) {
        Ok(_) => killed.await.unwrap_or_else(|_| Err(io::Error::other("its thread panicked"))),
        Err(_) => kill_all(session),
    }
}

/// How many it killed.
fn kill_all(session: Pid) -> io::Result<usize> {
    let mut killed: Vec<Pid> = Vec::new();
    for _ in 0..LOOKS_MAX {
        let members = members(session)?;
        // A number is given again only when nobody is left in the session that had it. A process
        // that has it now is somebody else's, and so is its session.
        if members.contains(&session) || members.iter().all(|pid| killed.contains(pid)) {
            break;
        }
        for pid in members.into_iter().filter(|pid| !killed.contains(pid)).collect::<Vec<_>>() {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGKILL);
            killed.push(pid);
        }
    }
    Ok(killed.len())
}

fn members(session: Pid) -> io::Result<Vec<Pid>> {
    let numbers =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let of_session = |pid: &Pid| getsid(Some(*pid)) == Ok(session);
    Ok(numbers.map(Pid::from_raw).filter(of_session).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// A leader, whose output its children have open as long as they live.
    fn session(script: &str) -> std::process::Child {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().unwrap()
    }

    #[tokio::test]
    async fn all_that_is_left_of_a_session_is_killed_once_its_leader_is_gone() {
        // One is in a group of its own, one is deaf to what is said politely.
        let others = "timeout 1000 sleep 1000 & sh -c 'trap \"\" TERM; sleep 1000' &";
        let mut leader = session(&format!("{others} echo; wait"));
        let mut out = leader.stdout.take().unwrap();
        out.read_exact(&mut [0]).unwrap();
        let pid = leader.id();
        end(pid).await;
        assert_eq!(leader.try_wait().unwrap(), None, "a leader that lives may be somebody else's");
        leader.kill().unwrap();
        leader.wait().unwrap();
        let killed = Instant::now();
        end(pid).await;
        // The end of the output: nobody has it any more.
        out.read_to_end(&mut Vec::new()).unwrap();
        assert!(killed.elapsed() < Duration::from_secs(100), "they have ended by themselves");
    }
}
