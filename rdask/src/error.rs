//! What can go wrong, as a program gets to see it.

use std::fmt;
use std::sync::Arc;

use rdask_core::failure::Failure;
pub use rdask_core::failure::FailureKind;
use rdask_core::id::TaskId;
pub use rdask_core::message::UnknownWorkers;

use crate::codec::DecodeError;

/// A result, or what went wrong.
///
/// ```
/// fn job() -> rdask::Result<f64> {
///     let client = rdask::Client::local()?;
///     client.submit(f64::sqrt, (16.0,)).result()
/// }
/// # let _ = job;
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
///
/// ```
/// # fn job(client: &rdask::Client) {
/// let half = client.try_submit(|x: u32| x.checked_sub(1).ok_or("too small"), (0,));
/// match half.result() {
///     Ok(number) => println!("{number}"),
///     Err(rdask::Error::Task(error)) => println!("{}", error.message()), // too small
///     Err(other) => println!("{other}"),
/// }
/// # }
/// ```
///
/// It displays the same with `{:?}`: that is how `main` and `unwrap` print it.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A task has no result.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A result came, but its bytes are no such value.
    #[error("the result of task {task} cannot be read: {cause}")]
    Decode {
        /// The task.
        task: TaskId,
        /// Why.
        #[source]
        cause: DecodeError,
    },
    /// The scheduler cannot be reached, or the connection to it broke.
    #[error("{0}")]
    Connection(ConnectionError),
    /// It took longer than the caller wanted to wait.
    #[error("timed out")]
    Timeout,
    /// Nothing was detached under this name.
    #[error("nothing was detached under the name {name:?}")]
    NotDetached {
        /// The name.
        name: String,
    },
    /// Workers that are to be retired are not there.
    #[error(transparent)]
    UnknownWorkers(UnknownWorkers),
    /// The result of a task was asked for after its last handle was dropped.
    #[error("task {task} has been released")]
    Released {
        /// The task.
        task: TaskId,
    },
    /// The process of this task has no way to submit further tasks.
    #[error("tasks of this process cannot submit tasks")]
    NoNesting,
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// The error of the task, if it is one.
    ///
    /// ```
    /// # fn job(error: rdask::Error) {
    /// if let Some(task) = error.task() {
    ///     println!("on {:?}", task.worker());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn task(&self) -> Option<&TaskError> {
        match self {
            Self::Task(error) => Some(error),
            Self::Decode { .. }
            | Self::Connection(_)
            | Self::Timeout
            | Self::NotDetached { .. }
            | Self::UnknownWorkers(_)
            | Self::Released { .. }
            | Self::NoNesting => None,
        }
    }

    /// Whether the task was cancelled.
    ///
    /// ```
    /// # fn job(remote: rdask::Remote<f64>) {
    /// remote.cancel();
    /// let cancelled = remote.result().is_err_and(|error| error.is_cancelled());
    /// # }
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.task().is_some_and(|task| task.kind() == FailureKind::Cancelled)
    }
}

/// Why a task has no result: its own failure, or that of a task whose result it needed.
///
/// It displays as one line: the function, what happened, where, and on which worker.
///
/// ```
/// # fn job(error: rdask::TaskError) {
/// println!("{error}"); // task parse (c0.3.7) failed: invalid float literal (worker w-0 on n12, run 1)
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError(Arc<Failure>);

impl TaskError {
    /// What kind of end the task came to.
    ///
    /// ```
    /// # fn job(error: rdask::TaskError) {
    /// assert_eq!(error.kind(), rdask::FailureKind::Panicked);
    /// # }
    /// ```
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// The message of the error or panic.
    ///
    /// ```
    /// # fn job(error: rdask::TaskError) {
    /// assert_eq!(error.message(), "index out of bounds: the len is 3 but the index is 7");
    /// # }
    /// ```
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The name of the function that failed.
    ///
    /// ```
    /// # fn job(error: rdask::TaskError) {
    /// println!("{} is to blame", error.function());
    /// # }
    /// ```
    #[must_use]
    pub fn function(&self) -> &str {
        &self.0.function
    }

    /// `file:line:column` of a panic.
    ///
    /// ```
    /// # fn job(error: rdask::TaskError) {
    /// println!("{}", error.location().unwrap_or("somewhere"));
    /// # }
    /// ```
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.0.location.as_deref()
    }

    /// The frames between a panic and the task's function.
    ///
    /// ```
    /// # fn job(error: rdask::TaskError) {
    /// println!("{}", error.backtrace().unwrap_or("no frames"));
    /// # }
    /// ```
    #[must_use]
    pub fn backtrace(&self) -> Option<&str> {
        self.0.backtrace.as_deref()
    }

    /// The task that failed itself, if this one only needed its result.
    ///
    /// ```
    /// # fn job(error: rdask::TaskError) {
    /// println!("it began with task {}", error.origin());
    /// # }
    /// ```
    #[must_use]
    pub fn origin(&self) -> TaskId {
        self.0.origin
    }

    /// The name of the worker it failed on, if it ran.
    ///
    /// ```
    /// # fn job(error: rdask::TaskError) {
    /// println!("worker {:?} of node {:?}, run {}", error.worker(), error.node(), error.run());
    /// # }
    /// ```
    #[must_use]
    pub fn worker(&self) -> Option<&str> {
        self.0.worker.as_deref()
    }

    /// The name of the node it failed on, if it ran.
    ///
    /// ```
    /// # fn job(error: rdask::TaskError) {
    /// println!("look at node {:?}", error.node());
    /// # }
    /// ```
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// Which run of the task it was, from 1; 0 if it never ran.
    ///
    /// ```
    /// # fn job(error: rdask::TaskError) {
    /// assert_eq!(error.run(), 1, "nobody asked for retries");
    /// # }
    /// ```
    #[must_use]
    pub fn run(&self) -> u32 {
        self.0.run
    }
}

impl From<Arc<Failure>> for TaskError {
    fn from(failure: Arc<Failure>) -> Self {
        Self(failure)
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for TaskError {}

/// Why the scheduler is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// It never was.
    #[error("cannot connect to the scheduler: {reason}")]
    NotConnected {
        /// Cause and way out.
        reason: String,
    },
    /// Somebody said no, so that trying again won't help: the scheduler, or what is in the place of
    /// its file, such as a file that others can read.
    #[error("cannot connect to the scheduler: {reason}")]
    Refused {
        /// Who said no, and why.
        reason: String,
    },
    /// The scheduler, or its file, is of another protocol version.
    #[error("cannot connect to the scheduler: {reason}")]
    Version {
        /// Both versions.
        reason: String,
    },
    /// It was, and the connection ended.
    #[error("the connection to the scheduler ended: {reason}")]
    Lost {
        /// Cause, as far as known.
        reason: String,
    },
    /// No scheduler was named.
    #[error(
        "no scheduler is named: set RDASK_SCHEDULER_FILE, or name the file in `Client::connect`"
    )]
    NotNamed,
    /// The program's `main` doesn't begin as one that workers can start.
    #[error(
        "this program cannot be started by workers: begin its `main` with `rdask::init()`, or put \
         `#[rdask::main]` before it"
    )]
    NotInitialised,
    /// The client's own thread could not be started.
    #[error("cannot start the client's network thread: {reason}")]
    NoThread {
        /// Cause.
        reason: String,
    },
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Errors that are transparent say the same again.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_and_unwrap_say_what_to_do() {
        let error = Error::from(ConnectionError::NotNamed);
        assert!(format!("{error:?}").contains("set RDASK_SCHEDULER_FILE"));
    }
}
