//! Between nannies and the scheduler.

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
        /// The tasks that ran at that moment: (array, index, run).
        board: Vec<(TaskId, u32)>,
        /// The last lines of its standard error.
        stderr: Vec<String>,
    },
    /// Notice of the end: give me nothing new.
    Leaving {
        /// Why.
        reason: String,
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
