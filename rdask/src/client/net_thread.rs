//! The thread that all of a client's network traffic lives on. User code never runs there.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

use crate::error::ConnectionError;

/// How long an ending client lets its last words leave before it cuts them off.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A thread with a tokio runtime of its own. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct NetThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NetThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread or no event queue.
    pub(crate) fn start() -> Result<Self, ConnectionError> {
        let no_thread =
            |error: std::io::Error| ConnectionError::NoThread { reason: error.to_string() };
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name("rdask-net".into())
            .spawn(move || {
                // An error means that the sender is gone, which is how it stops.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_timeout(LAST_WORDS);
            })
            .map_err(no_thread)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// To spawn tasks there.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for NetThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic there has been printed there.
            let _ = thread.join();
        }
    }
}
