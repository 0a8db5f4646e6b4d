//! Clients inside tasks: hooks that the runtime of a process sets.
//!
//! A task's client is its process's, made on first use. What a task submits belongs to its run,
//! and while it waits its slot is given back.

use std::sync::{Mutex, OnceLock, PoisonError};

use rdask_core::message::Parent;

use super::Client;
use crate::error::{Error, Result};

/// What the runtime of a process provides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hooks {
    /// Connects the client that the tasks of this process share.
    pub(crate) connect: fn() -> Result<Client>,
    /// The run that this thread is at, if any.
    pub(crate) current: fn() -> Option<Parent>,
    /// Gives back the slot of the run that this thread is at, while the closure waits.
    pub(crate) park: fn(&mut dyn FnMut()),
}

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// Sets the hooks, once in a process. Later calls change nothing.
pub(crate) fn set_hooks(hooks: Hooks) {
    // A process has one runtime; a second one would set the same.
    let _ = HOOKS.set(hooks);
}

/// The client of this task's process.
///
/// # Errors
/// Outside of tasks, or if it cannot connect.
pub(crate) fn client() -> Result<Client> {
    /// Connecting is done by one task, others wait for it.
    static CLIENT: Mutex<Option<Client>> = Mutex::new(None);
    let hooks = HOOKS.get().ok_or(Error::NoTask)?;
    let mut client = CLIENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(client) = &*client {
        return Ok(client.clone());
    }
    let connected = (hooks.connect)()?;
    *client = Some(connected.clone());
    Ok(connected)
}

/// The run that this thread is at, if any.
pub(super) fn parent() -> Option<Parent> {
    HOOKS.get().and_then(|hooks| (hooks.current)())
}

/// Whether this thread runs a task.
pub(super) fn in_task() -> bool {
    parent().is_some()
}

/// Waits with the slot given back.
pub(super) fn park_while<R>(wait: impl FnOnce() -> R) -> R {
    let Some(hooks) = HOOKS.get() else {
        return wait();
    };
    let (mut wait, mut result) = (Some(wait), None);
    (hooks.park)(&mut || {
        if let Some(wait) = wait.take() {
            result = Some(wait());
        }
    });
    result.expect("the hook calls the closure once")
}
