//! The seam between a client and what connects it: messages, values, a thread to run on.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use rdask_core::bulk::Bulk;
use rdask_core::id::{AssignmentId, ClientId, ProcessId, TaskId};
use rdask_core::message::{Contact, FromClient, ToClient};

use super::net_thread::NetThread;
use crate::connection::{Inbox, Outbox};

/// A future that a driver can keep beside others.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a client is made from, once the scheduler has welcomed it.
pub(crate) struct ClientParts {
    /// The number that the scheduler gave it.
    pub(crate) id: ClientId,
    /// To the scheduler. It never makes the client wait.
    pub(crate) send: Outbox<FromClient>,
    /// From the scheduler, then how the link ended.
    pub(crate) receive: Inbox<ToClient>,
    /// Where values that processes hold come from, and scattered ones go.
    pub(crate) values: Arc<dyn ValueSource>,
    /// The thread that the link lives on. The client's driver goes there, too.
    pub(crate) net: Arc<NetThread>,
    /// Whether it is the client that the tasks of a process share for nested submits.
    pub(crate) nested: bool,
}

impl fmt::Debug for ClientParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientParts")
            .field("id", &self.id)
            .field("nested", &self.nested)
            .finish_non_exhaustive()
    }
}

/// A value has not come from its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotFetched {
    /// For the log.
    pub(crate) reason: String,
    /// Whether the holder said itself that it has not got it.
    pub(crate) denied: bool,
}

impl From<String> for NotFetched {
    /// Of a holder in the same process: what it says is all there is.
    fn from(reason: String) -> Self {
        Self { reason, denied: true }
    }
}

/// Moves values between a client and processes: over data connections, or inside one process.
///
/// Errors are texts for the log and for the scheduler, which finds another way.
pub(crate) trait ValueSource: Send + Sync {
    /// The encoded value of a task, from the process that holds it.
    fn get(
        &self,
        task: TaskId,
        holder: ProcessId,
        contact: Contact,
    ) -> BoxFuture<'_, Result<Bulk, NotFetched>>;

    /// Puts a scattered value with a process.
    fn put(&self, put: Put) -> BoxFuture<'_, Result<(), String>>;

    /// Brings the bytes of the running program to the scheduler.
    fn send_program(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Comes last, when the client has left: lets what is on its way arrive.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A scattered value on its way to a process.
#[derive(Debug)]
pub(crate) struct Put {
    /// The task whose result it is.
    pub(crate) task: TaskId,
    /// As the scheduler told both.
    pub(crate) assignment: AssignmentId,
    /// With whom.
    pub(crate) process: ProcessId,
    /// Where that process listens.
    pub(crate) contact: Contact,
    /// The encoded value.
    pub(crate) value: Bytes,
}
