//! Clients inside tasks.
//!
//! A task's client is its process's, made on first use. What a task submits belongs to its run,
//! and while it waits its slot is given back.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rdask_core::message::Parent;

use super::Client;
use crate::context::{self, Context};
use crate::error::{Error, Result};

type Connect = dyn Fn() -> Result<Client> + Send + Sync;

/// The client that the tasks of one process share. Clones are the same client.
#[derive(Clone, Default)]
pub struct NestedClient(Arc<Inner>);

#[derive(Default)]
struct Inner {
    connect: Option<Box<Connect>>,
    /// The lock is held while the first task that needs it connects; others wait for it.
    client: Mutex<Option<Client>>,
}

impl NestedClient {
    /// A client that is connected when a task first asks for it.
    pub fn new(connect: impl Fn() -> Result<Client> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { connect: Some(Box::new(connect)), client: Mutex::default() }))
    }

    /// The next task that needs it connects anew.
    pub(crate) fn forget(&self) {
        drop(self.0.client.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn get(&self) -> Result<Client> {
        let connect = self.0.connect.as_ref().ok_or(Error::NoNesting)?;
        let mut client = self.0.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let connected = connect()?;
        *client = Some(connected.clone());
        Ok(connected)
    }
}

impl PartialEq for NestedClient {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for NestedClient {}

impl fmt::Debug for NestedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NestedClient").finish_non_exhaustive()
    }
}

impl Context {
    /// A client for this task to submit further tasks with. They belong to the task's run: when it
    /// is cancelled or run again, they are cancelled. While the task waits for them, its slot is
    /// given to others.
    ///
    /// # Errors
    /// If the process cannot connect to the scheduler.
    ///
    /// ```
    /// fn fibonacci(n: u64) -> rdask::Result<u64> {
    ///     if n < 2 {
    ///         return Ok(n);
    ///     }
    ///     let client = rdask::context().client()?;
    ///     let smaller = client.try_map(fibonacci, [n - 1, n - 2]);
    ///     Ok(client.gather(smaller)?.iter().sum())
    /// }
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// assert_eq!(client.try_submit(fibonacci, (10,)).result()?, 55);
    /// # Ok(())
    /// # }
    /// ```
    pub fn client(&self) -> Result<Client> {
        self.nested().get()
    }
}

/// The run that this thread is at, if any.
pub(super) fn parent() -> Option<Parent> {
    let context = context::try_context()?;
    Some(Parent { task: context.task(), run: context.run() })
}
