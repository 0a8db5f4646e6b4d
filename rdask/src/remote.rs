//! Handles of results that are, or will be, somewhere in the cluster.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use rdask_core::id::TaskId;
use rdask_core::message::TaskStatus;
use rdask_core::range::Range;

use crate::client::parking::block_on;
use crate::client::parts::BoxFuture;
use crate::client::session::{Session, release};
use crate::codec::Data;
use crate::error::Result;

mod handles;
mod many;
mod parts;

pub use handles::Handles;
pub(crate) use handles::Listed;
pub use many::{IntoIter, Remotes};
pub use parts::{Part, Parts};

/// Which result of which client an argument is. It keeps nothing alive.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The address of the client's session.
    pub(crate) session: usize,
    pub(crate) task: TaskId,
    /// Which output of a task with several.
    pub(crate) part: u16,
}

/// The result of a task, wherever it is: what Dask calls a future.
///
/// It feeds any parameter of type `T`, `&T` or `Shared<T>`, by value or by reference. Dropping the
/// last handle of a task releases it: a result that nobody needs is forgotten, a task that nobody
/// needs doesn't run.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// let client = rdask::Client::local()?;
/// let root = client.submit(f64::sqrt, (16.0,));
/// let half = client.submit(|x: f64| x / 2.0, (&root,));
/// assert_eq!(half.result()?, 2.0);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping the handle releases the task"]
pub struct Remote<T> {
    session: Arc<Session>,
    task: TaskId,
    /// Whether this handle counts, or is lent by a [`Remotes`] that does.
    counted: bool,
    value: PhantomData<fn() -> T>,
}

impl<T> Remote<T> {
    /// A handle that takes over a count that the client's state has.
    pub(crate) fn counted(session: Arc<Session>, task: TaskId) -> Self {
        Self { session, task, counted: true, value: PhantomData }
    }

    /// A handle that lives no longer than one that counts.
    fn lent(session: Arc<Session>, task: TaskId) -> Self {
        Self { session, task, counted: false, value: PhantomData }
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle { session: Arc::as_ptr(&self.session) as usize, task: self.task, part: 0 }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The name of the task, as in logs and errors.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let root = client.submit(f64::sqrt, (16.0,));
    /// println!("{}", root.id()); // c0.0.0
    /// ```
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.task
    }

    /// The task need not run any more. If it has not ended, it fails as cancelled, and so do the
    /// tasks that need its result.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let slow = client.submit(|seconds: u64| {
    ///     std::thread::sleep(std::time::Duration::from_secs(seconds));
    /// }, (3600,));
    /// slow.cancel();
    /// assert!(slow.result().unwrap_err().is_cancelled());
    /// ```
    pub fn cancel(&self) {
        let tasks = [(self.task.array, Range::one(self.task.index))];
        self.session.cancel(&tasks);
    }

    /// Blocks until the task has ended, well or not.
    ///
    /// # Errors
    /// If the connection is lost before. A failed task is no error here.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let root = client.submit(f64::sqrt, (16.0,));
    /// root.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(&self) -> Result<()> {
        let tasks = [(self.task.array, Range::one(self.task.index))];
        block_on(self.session.wait(&tasks))
    }

    /// Blocks until the task has ended or some time has passed. Returns whether it has ended.
    ///
    /// # Errors
    /// If the connection is lost before.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let root = client.submit(f64::sqrt, (16.0,));
    /// while !root.wait_timeout(std::time::Duration::from_secs(1))? {
    ///     println!("still at it");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        let tasks = [(self.task.array, Range::one(self.task.index))];
        block_on(self.session.wait_timeout(&tasks, timeout))
    }

    /// The state of the task. Blocks for one question to the scheduler, unless the client knows.
    ///
    /// # Errors
    /// If the connection is lost.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let root = client.submit(f64::sqrt, (16.0,));
    /// root.wait()?;
    /// assert_eq!(root.status()?, rdask::TaskStatus::Finished);
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Result<TaskStatus> {
        block_on(self.session.status(self.task))
    }
}

impl<T: Data> Remote<T> {
    /// Blocks until the task has ended, and returns its result. In async programs `.await` the
    /// handle, or a reference to it, instead.
    ///
    /// # Errors
    /// If the task failed, or one whose result it needed; if it was cancelled; if the connection
    /// is lost.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let root = client.submit(f64::sqrt, (16.0,));
    /// assert_eq!(root.result()?, 4.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn result(&self) -> Result<T> {
        block_on(self.session.result(self.task))
    }
}

impl<T> Clone for Remote<T> {
    /// Another handle of the same task.
    fn clone(&self) -> Self {
        self.session.retain(self.task.array, Range::one(self.task.index));
        Self::counted(Arc::clone(&self.session), self.task)
    }
}

impl<T> Drop for Remote<T> {
    fn drop(&mut self) {
        if self.counted {
            release(&self.session, self.task.array, Range::one(self.task.index));
        }
    }
}

impl<T> fmt::Debug for Remote<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.task)
    }
}

impl<T: Data> IntoFuture for Remote<T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'static, Result<T>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.session.result(self.task).await })
    }
}

impl<'a, T: Data> IntoFuture for &'a Remote<T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'a, Result<T>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.session.result(self.task))
    }
}
