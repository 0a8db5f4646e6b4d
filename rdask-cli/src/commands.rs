//! What the subcommands do, one file each, and how they end.

mod explain;
mod retire;
mod running;
mod scheduler;
mod status;
mod submit;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use rdask::connection::FileMode;

use crate::args::{Arguments, Command, Transport};
use crate::mistakes::Mistake;
use crate::{mistakes, output};

/// How a command that could not do its work ended. The numbers are for scripts and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A task ended badly.
    Task = 1,
    /// Wrong arguments.
    Usage = 2,
    /// No scheduler can be reached.
    Unreachable = 3,
    /// Somebody said no: permissions, certificates, a file that is none of a scheduler.
    Refused = 4,
    /// Different versions of rdask.
    Version = 5,
    /// The scheduler is there, and fewer workers than were waited for.
    TooFewWorkers = 6,
}

/// An error to show, what to do about it, and the exit code.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) error: anyhow::Error,
    pub(crate) hint: Option<String>,
}

impl Failed {
    pub(crate) fn new(failure: Failure, error: impl Into<anyhow::Error>) -> Self {
        Self { failure, error: error.into(), hint: None }
    }

    /// Somebody who needs a scheduler did not get through to one.
    pub(crate) fn connecting(failure: Failure, error: impl Into<anyhow::Error>) -> Self {
        let failed = Self::new(failure, error);
        match failure {
            Failure::Unreachable => failed.with_hint(
                "is the scheduler running with this --scheduler-file? Start one with `rdask \
                 scheduler`, or wait for it with `rdask status --wait`",
            ),
            _ => failed,
        }
    }

    /// What there is to say is lost.
    pub(crate) fn unprinted(error: anyhow::Error) -> Self {
        Self::new(Failure::Task, error)
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Understands the arguments and does what they say.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    if let Some(mistake) = mistakes::find(&arguments) {
        return mistaken(mistake);
    }
    let command = arguments.get(1).cloned().unwrap_or_default();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            if let Some(mistake) = mistakes::unexpected(&error, &command.to_string_lossy()) {
                return mistaken(mistake);
            }
            output::clap(&error);
            let fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if fine { ExitCode::SUCCESS } else { code(Failure::Usage) };
        }
    };
    output::log_to_stderr();
    let done = match arguments.command {
        Command::Scheduler(args) => scheduler::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Status(args) => status::run(&args),
        Command::Retire(args) => retire::run(args),
        Command::Explain(args) => explain::run(&args),
        Command::Submit(args) => submit::submit(args),
        Command::Map(args) => submit::map(args),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(failed) => {
            output::error(&failed.error, failed.hint.as_deref());
            code(failed.failure)
        }
    }
}

fn mistaken(mistake: Mistake) -> ExitCode {
    output::error(&anyhow::Error::msg(mistake.error), Some(&mistake.hint));
    code(Failure::Usage)
}

fn code(failure: Failure) -> ExitCode {
    ExitCode::from(failure as u8)
}

fn file_mode(insecure: bool) -> FileMode {
    if insecure { FileMode::Insecure } else { FileMode::Private }
}

impl From<Transport> for rdask::connection::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Auto => Self::Auto,
            Transport::Quic => Self::Quic,
            Transport::Tls => Self::Tls,
        }
    }
}
