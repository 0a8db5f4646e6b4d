//! Why a task has no result.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::TaskId;

/// What kind of end a task without a result came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// The function returned an `Err` through one of the `try_*` calls.
    Returned,
    /// The function panicked.
    Panicked,
    /// The task ended its process too often.
    Killed,
    /// Somebody cancelled the task.
    Cancelled,
    /// An input that cannot be recomputed lost its last copy, or one that can is out of reach of who
    /// wants it, however often it is made.
    InputLost,
    /// The program cannot run this task: no such function, bytes that don't decode, no program.
    Unrunnable,
    /// The task ran longer than its timeout.
    TimedOut,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Returned => "failed",
            Self::Panicked => "panicked",
            Self::Killed => "killed its process",
            Self::Cancelled => "was cancelled",
            Self::InputLost => "lost an input",
            Self::Unrunnable => "cannot run",
            Self::TimedOut => "timed out",
        })
    }
}

/// The error of one task, as its dependents and clients get to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// The message: of the error, of the panic, or of the scheduler. At most 10,000 characters.
    pub message: String,
    /// The task that failed itself; a dependent carries the failure of its origin.
    pub origin: TaskId,
    /// The name of the origin's function.
    pub function: String,
    /// `file:line:column` of a panic.
    pub location: Option<String>,
    /// The frames between the panic and the task's function.
    pub backtrace: Option<String>,
    /// The worker's name.
    pub worker: Option<String>,
    /// The node's name.
    pub node: Option<String>,
    /// Which run of the task it was, from 1; 0 if it never ran.
    pub run: u32,
}

impl Failure {
    /// The most characters of a message or backtrace that travel.
    pub const TEXT_MAX: usize = 10_000;

    /// The same, with no more than the first characters of each text.
    pub(crate) fn shortened(&self, chars_max: usize) -> Self {
        let cut = |text: &String| match text.char_indices().nth(chars_max) {
            Some((end, _)) => text[..end].to_owned(),
            None => text.clone(),
        };
        Self {
            kind: self.kind,
            message: cut(&self.message),
            origin: self.origin,
            function: cut(&self.function),
            location: self.location.as_ref().map(cut),
            backtrace: self.backtrace.as_ref().map(cut),
            worker: self.worker.as_ref().map(cut),
            node: self.node.as_ref().map(cut),
            run: self.run,
        }
    }

    /// A failure that no run of the task had a part in.
    #[must_use]
    pub fn of_scheduler(kind: FailureKind, message: impl Into<String>, origin: TaskId) -> Self {
        Self {
            kind,
            message: message.into(),
            origin,
            function: String::new(),
            location: None,
            backtrace: None,
            worker: None,
            node: None,
            run: 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task ")?;
        if self.function.is_empty() {
            write!(f, "{}", self.origin)?;
        } else {
            write!(f, "{} ({})", self.function, self.origin)?;
        }
        write!(f, " {}", self.kind)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(location) = &self.location {
            write!(f, ", at {location}")?;
        }
        match (&self.worker, &self.node) {
            (Some(worker), Some(node)) => {
                write!(f, " (worker {worker} on {node}, run {})", self.run)
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}
