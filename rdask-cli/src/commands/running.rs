//! A command while it runs: what it writes is read, and it ends with its task and its process.
//!
//! It leads a process group of its own. Once its task is cancelled the group gets SIGTERM, and
//! SIGKILL if it goes on. If the process is killed, the kernel kills the command, and the nanny what
//! the command has started. Asking the kernel for that is the one place with `unsafe` code here,
//! `end_with_this_process`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpgid, getpid, getppid};

/// How long a command may take to end after SIGTERM. A process that has a run which doesn't stop is
/// ended after 10 s; a command shall not cost its neighbours that.
const TERM_TIME_MAX: Duration = Duration::from_secs(5);

/// How often a running command's task is asked whether it was cancelled.
const LOOK_EVERY: u16 = 50;

/// A command ends a moment after it has closed its outputs. This is the first look whether it has;
/// each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_micros(50);

const PIECE_BYTES: usize = 64 << 10;

/// What became of it.
#[derive(Debug)]
pub(super) enum Ran {
    /// It ended by itself.
    Ended(Output),
    /// It was told to end, and nothing of its group is left.
    Cancelled,
}

/// Runs a command to its end, or until `is_cancelled`.
///
/// # Errors
/// If it can't be started, read from, or waited for.
pub(super) fn run(command: &mut Command, is_cancelled: impl Fn() -> bool) -> io::Result<Ran> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    end_with_this_process(command);
    let mut child = command.spawn()?;
    let followed = follow(&mut child, is_cancelled);
    if !matches!(followed, Ok(Some(_))) {
        // Its number is its group's until it is waited for. What is left there wasn't asked to stay.
        let _ = killpg(pid_of(&child), Signal::SIGKILL);
    }
    let status = child.wait()?;
    Ok(match followed? {
        Some([stdout, stderr]) => Ran::Ended(Output { status, stdout, stderr }),
        None => Ran::Cancelled,
    })
}

/// Reads until the command has ended, and not just closed its outputs. `None` if it was cancelled
/// and has ended or had its time to.
fn follow(child: &mut Child, is_cancelled: impl Fn() -> bool) -> io::Result<Option<[Vec<u8>; 2]>> {
    let pid = pid_of(child);
    let stdout = child.stdout.take().map(OwnedFd::from);
    let stderr = child.stderr.take().map(OwnedFd::from);
    let mut pipes = [Pipe::new(stdout), Pipe::new(stderr)];
    let mut pause = FIRST_PAUSE;
    let mut told: Option<Instant> = None;
    loop {
        if pipes.iter().any(|pipe| pipe.from.is_some()) {
            read_what_comes(&mut pipes)?;
        } else if has_ended(pid)? && (told.is_none() || !group_lives(pid)) {
            let written = pipes.map(|pipe| pipe.bytes);
            return Ok(told.is_none().then_some(written));
        } else {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(LOOK_EVERY.into()));
        }
        match told {
            Some(time) if time.elapsed() > TERM_TIME_MAX => return Ok(None),
            None if is_cancelled() => {
                killpg(pid, Signal::SIGTERM)?;
                told = Some(Instant::now());
            }
            _ => {}
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Whether it has ended. It can be waited for all the same, so its number stays its own.
fn has_ended(pid: Pid) -> io::Result<bool> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    Ok(waitid(Id::Pid(pid), flags)? != WaitStatus::StillAlive)
}

/// Whether anybody of a group runs. A shell ends at once on SIGTERM, and what it has started may
/// still be saving its work: that is what its time is for.
fn group_lives(group: Pid) -> bool {
    let Ok(all) = std::fs::read_dir("/proc") else { return false };
    let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let members = numbers.filter(|pid| getpgid(Some(Pid::from_raw(*pid))) == Ok(group));
    members.into_iter().any(is_running)
}

/// Whether it is more than what is left to be waited for.
fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// An output of the command, until it is closed, and what came.
#[derive(Debug)]
struct Pipe {
    from: Option<File>,
    bytes: Vec<u8>,
}

impl Pipe {
    fn new(from: Option<OwnedFd>) -> Self {
        Self { from: from.map(File::from), bytes: Vec::new() }
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(from) = &mut self.from else { return Ok(()) };
        let mut piece = vec![0; PIECE_BYTES];
        let count = from.read(&mut piece)?;
        self.bytes.extend_from_slice(&piece[..count]);
        if count == 0 {
            self.from = None;
        }
        Ok(())
    }
}

/// Reads once what is there, or waits for it a little.
fn read_what_comes(pipes: &mut [Pipe]) -> io::Result<()> {
    let mut open: Vec<&mut Pipe> = pipes.iter_mut().filter(|pipe| pipe.from.is_some()).collect();
    let fds = open.iter().filter_map(|pipe| pipe.from.as_ref());
    let mut fds: Vec<PollFd<'_>> =
        fds.map(|from| PollFd::new(from.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut fds, PollTimeout::from(LOOK_EVERY)) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    let has_come: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
    for (pipe, _) in open.iter_mut().zip(has_come).filter(|(_, has_come)| *has_come) {
        pipe.read()?;
    }
    Ok(())
}

/// The command is killed when this process dies, however that comes.
#[allow(unsafe_code, reason = "what a child does before it executes its program")]
fn end_with_this_process(command: &mut Command) {
    let parent = getpid();
    let in_child = move || {
        // The kernel goes by the thread that starts it. That is the task's own, and it waits.
        set_pdeathsig(Signal::SIGKILL)?;
        // It may have died before that.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: it runs after `fork` in what may have been a process of several threads, so it must
    // only do what a signal handler may: it makes two system calls on its own copies of two numbers,
    // takes no lock, and allocates nothing, also for its error, which is a number.
    unsafe {
        command.pre_exec(in_child);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn long_outputs_are_read_side_by_side() {
        let script = "head -c 300000 /dev/zero & head -c 200000 /dev/zero >&2; wait; exit 3";
        let Ran::Ended(output) = run(&mut shell(script), || false).unwrap() else { panic!() };
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 200_000));
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_command_may_close_its_outputs_and_go_on() {
        let script = "exec >&- 2>&-; sleep 0.3; exit 4";
        let Ran::Ended(output) = run(&mut shell(script), || false).unwrap() else { panic!() };
        assert_eq!(output.status.code(), Some(4));
    }

    /// Cancels a script when it has written the numbers of its processes; returns those.
    fn cancelled(script: &str) -> (Vec<i32>, Duration) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let numbers = || -> Vec<i32> {
            let text = std::fs::read_to_string(file.path()).unwrap();
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let begun = Cell::new(Instant::now());
        let is_cancelled = || {
            numbers().len() == 2 || {
                begun.set(Instant::now());
                false
            }
        };
        let ran = run(shell(script).env("NUMBERS", file.path()), is_cancelled).unwrap();
        assert!(matches!(ran, Ran::Cancelled), "{ran:?}");
        (numbers(), begun.get().elapsed())
    }

    fn check_that_they_end(numbers: &[i32]) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while numbers.iter().any(|pid| is_running(*pid)) {
            assert!(Instant::now() < deadline, "still there: {numbers:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_cancelled_command_ends_with_all_that_it_started() {
        let (numbers, _) = cancelled("sleep 1000 & echo $$ $! > $NUMBERS; wait");
        check_that_they_end(&numbers);
    }

    /// A shell that starts a script, which keeps no output of it open.
    fn started(script: &str) -> String {
        let script = script.replace('$', "\\$");
        format!("sh -c \"{script}\" > /dev/null 2>&1 & echo $$ >> $NUMBERS; wait")
    }

    #[test]
    fn what_a_shell_has_started_has_its_time_to_save_its_work() {
        let saved = tempfile::NamedTempFile::new().unwrap();
        let save = format!("sleep 0.5; echo saved > {}; exit", saved.path().display());
        let work = "while :; do sleep 0.01; done";
        cancelled(&started(&format!("trap '{save}' TERM; echo $$ >> $NUMBERS; {work}")));
        assert_eq!(std::fs::read_to_string(saved.path()).unwrap(), "saved\n");
    }

    #[test]
    fn what_a_shell_has_started_has_its_time_and_no_more() {
        let (numbers, time) =
            cancelled(&started("trap '' TERM; echo $$ >> $NUMBERS; exec sleep 1000"));
        assert!(time >= TERM_TIME_MAX, "{time:?}");
        check_that_they_end(&numbers);
    }

    #[test]
    fn a_command_that_ignores_sigterm_has_its_time_and_no_more() {
        let script = "trap '' TERM; sleep 1000 & echo $$ $! > $NUMBERS; wait";
        let (numbers, time) = cancelled(script);
        assert!(time >= TERM_TIME_MAX, "{time:?}");
        check_that_they_end(&numbers);
    }
}
