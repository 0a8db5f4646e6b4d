//! Between nannies and the scheduler.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::task::{Contact, ProgramInfo, Surroundings};
use crate::id::{NannyId, ProcessId, ProgramHash, TaskId, WorkerId};

/// What the scheduler says to nannies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNanny {
    /// Start a process.
    Launch(Launch),
    /// Fetch a program from here, as was asked for.
    FetchProgram {
        /// Which program.
        hash: ProgramHash,
        /// Another nanny and where it listens, or the scheduler.
        from: Option<(NannyId, Contact)>,
    },
    /// End a process.
    Kill {
        /// Which one.
        process: ProcessId,
        /// Why, for the log.
        reason: String,
    },
    /// End your processes and leave.
    Exit {
        /// Why, for the log.
        reason: String,
    },
    /// Ask Slurm when your job ends, and answer with [`FromNanny::JobEndsIn`]. One nanny of a job
    /// is told so.
    AskJobEnd,
    /// A process that you had when you were given up is one of yours again, under a new number:
    /// tell it. Those that are of no use are named by [`ToNanny::Kill`].
    Keep {
        /// Its number before.
        was: ProcessId,
        /// Its number from now on.
        process: ProcessId,
    },
}

/// A process that a nanny still has which was given up and joins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returning {
    /// The number that the process had.
    pub was: ProcessId,
    /// In which of the nanny's workers it runs, counted from 0.
    pub worker: u32,
    /// What it runs.
    pub program: ProgramHash,
}

/// The start of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The number of the process.
    pub process: ProcessId,
    /// The worker in which it starts.
    pub worker: WorkerId,
    /// What it runs.
    pub program: ProgramInfo,
    /// What it inherits.
    pub surroundings: Surroundings,
}

/// What nannies say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNanny {
    /// The program isn't in the cache nor at the client's path. Who has it?
    WantProgram {
        /// Which program.
        hash: ProgramHash,
    },
    /// The program is here now.
    HasProgram {
        /// Which program.
        hash: ProgramHash,
    },
    /// It could not be fetched from where [`ToNanny::FetchProgram`] said.
    FetchFailed {
        /// Which program.
        hash: ProgramHash,
        /// Why.
        message: String,
    },
    /// A process could not be started: what the program cannot find on this node, for example.
    LaunchFailed {
        /// Which process.
        process: ProcessId,
        /// Node and cause.
        message: String,
    },
    /// A process ended.
    Exited {
        /// Which one.
        process: ProcessId,
        /// How.
        exit: Exit,
        /// The tasks whose bodies ran at that moment, and in which run; 0 where not the body ran
        /// but a result of the task was being encoded for others.
        board: Vec<(TaskId, u32)>,
        /// The last lines of its standard error.
        stderr: Vec<String>,
    },
    /// Notice of the end: give me nothing new.
    Leaving {
        /// Why.
        reason: String,
    },
    /// Give my workers notice after so long.
    EndsIn {
        /// From now.
        time: Duration,
        /// Whether it is the job's end that is near then, so that time is short.
        is_job: bool,
    },
    /// I run in this Slurm job, and don't know when it ends. I can ask.
    InJob {
        /// The job.
        job: String,
    },
    /// The answer to [`ToNanny::AskJobEnd`]: give the job's workers notice after so long, if it
    /// ends at all.
    JobEndsIn {
        /// From now.
        time: Option<Duration>,
    },
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// For lack of memory.
    OutOfMemory,
    /// Its nanny ended it: the scheduler said so, or the nanny leaves. Nobody is to blame.
    Planned,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "it exited with code {code}"),
            Self::Signal(signal) => match name_of(*signal) {
                Some(name) => write!(f, "signal {signal} ({name}) ended it"),
                None => write!(f, "signal {signal} ended it"),
            },
            Self::OutOfMemory => f.write_str("it ran out of memory"),
            Self::Planned => f.write_str("its nanny ended it"),
        }
    }
}

/// What people call a signal that ends programs: the numbers are those of Linux.
fn name_of(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// What a nanny tells of each of its workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its name, unique in the cluster if the user saw to it.
    pub name: String,
    /// Its slots, at least 1.
    pub slots: u32,
    /// Its memory limit in bytes, 0 for none.
    pub memory_limit: u64,
    /// What else it has, by name, in ten-thousandths.
    pub resources: Vec<(String, u64)>,
}
