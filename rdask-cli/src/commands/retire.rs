//! `rdask retire`.

use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rdask::connection::LeavingWorker;
use rdask::connection::observer::Observer;
use rdask::scheduler::WorkerId;

use super::status::failed;
use super::{Failed, Failure, file_mode};
use crate::args::Retire;
use crate::output;

/// How often a waiting command looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it says what has changed.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// As shells have it, of a command that Ctrl-C ends.
const INTERRUPTED: u8 = 130;

pub(super) fn run(args: Retire) -> Result<u8, Failed> {
    let mode = file_mode(args.insecure_file_mode);
    let mut observer = Observer::connect(&args.scheduler_file, mode).map_err(failed)?;
    let interrupt = interrupt().map_err(|error| Failed::new(Failure::Task, error))?;
    let retired = observer.retire(args.names, args.timeout).map_err(failed)?;
    let retired = retired.map_err(|error| Failed::new(Failure::Usage, error))?;
    let mut left = observer.leaving(&retired).map_err(failed)?;
    let mut is_interrupted = false;
    if !args.no_wait {
        is_interrupted = !wait(&mut observer, &retired, &mut left, &interrupt)?;
    }
    let text = if args.json {
        output::retired_json(&retired, &left)
    } else {
        output::retired_text(&retired, &left)
    };
    output::data(text.as_bytes()).map_err(Failed::unprinted)?;
    Ok(if is_interrupted { INTERRUPTED } else { 0 })
}

/// Waits until they are gone, and says what for. False if somebody pressed Ctrl-C.
fn wait(
    observer: &mut Observer,
    retired: &[WorkerId],
    left: &mut Vec<LeavingWorker>,
    interrupt: &SignalFd,
) -> Result<bool, Failed> {
    let mut said = (String::new(), Instant::now());
    while !left.is_empty() {
        let text = output::leaving_text(left);
        let is_time = said.0.is_empty() || said.1.elapsed() >= SAY_EVERY;
        if is_time && said.0 != text {
            output::diagnostics(text.as_bytes());
            said = (text, Instant::now());
        }
        // No signal, or none that can be read.
        if let Ok(Some(_)) = interrupt.read_signal() {
            return Ok(false);
        }
        std::thread::sleep(LOOK_EVERY);
        *left = observer.leaving(retired).map_err(failed)?;
    }
    Ok(true)
}

/// Ctrl-C ends the wait from now on, not the command.
fn interrupt() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
