//! The queues at the two ends of a control connection.
//!
//! An [`Outbox`] never makes its owner wait: the core must not wait for a peer, nor a slot for the
//! scheduler. What it holds is counted in bytes instead, and whoever fills it looks at the count;
//! the scheduler closes a peer past its limit. An [`Inbox`] is bounded and makes the peer wait.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::session::Deliver;
use super::weight::Weigh;

/// Messages that wait in an inbox. When full, the peer's frames wait on the wire.
pub(crate) const INBOX_MAX: usize = 1024;

/// Messages put into an inbox in one go.
const INBOX_AT_ONCE: usize = 256;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectionEnd {
    /// The peer closed it and said why.
    #[error("closed by the peer: {0}")]
    Closed(String),
    /// It broke.
    #[error("lost: {0}")]
    Lost(String),
    /// The peer sent what doesn't decode.
    #[error("the peer sent a message that doesn't decode")]
    Garbled,
    /// Nobody here reads or writes it any more.
    #[error("closed on this side")]
    Here,
    /// The scheduler had heard nothing for so long that it has given us up.
    #[error("there was no link for so long that the scheduler has given this peer up")]
    Fenced,
    /// Its link broke, and no new one could be made.
    #[error("no link to the scheduler for {} s: {last}", .time.as_secs())]
    NoScheduler {
        /// For how long.
        time: Duration,
        /// How the last try failed.
        last: String,
    },
}

/// The connection of an outbox has ended; its inbox says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the connection has ended")]
pub struct Ended;

pub(crate) enum Outgoing<M> {
    Message(M),
    Close(String),
}

/// Where messages to a peer are put; clones are the same place.
pub struct Outbox<M> {
    sender: mpsc::UnboundedSender<Outgoing<M>>,
    bytes: Arc<AtomicUsize>,
    /// Why to end at once, when it is time.
    abort: watch::Sender<Option<String>>,
}

/// The other end of an [`Outbox`].
pub struct Queue<M> {
    receiver: mpsc::UnboundedReceiver<Outgoing<M>>,
    bytes: Arc<AtomicUsize>,
    aborted: watch::Receiver<Option<String>>,
}

/// An outbox and its other end.
#[must_use]
pub fn outbox<M: Weigh>() -> (Outbox<M>, Queue<M>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (abort, aborted) = watch::channel(None);
    let bytes = Arc::new(AtomicUsize::new(0));
    let outbox = Outbox { sender, bytes: Arc::clone(&bytes), abort };
    (outbox, Queue { receiver, bytes, aborted })
}

impl<M: Weigh> Outbox<M> {
    /// Puts a message behind those that wait.
    ///
    /// # Errors
    /// If the connection has ended.
    pub fn send(&self, message: M) -> Result<(), Ended> {
        self.bytes.fetch_add(message.weight(), Ordering::Relaxed);
        self.sender.send(Outgoing::Message(message)).map_err(|_| Ended)
    }

    /// Ends the connection once everything before is sent; the peer is told why.
    ///
    /// # Errors
    /// If the connection has ended.
    pub fn close(&self, reason: &str) -> Result<(), Ended> {
        self.sender.send(Outgoing::Close(reason.to_owned())).map_err(|_| Ended)
    }

    /// Ends the connection now: what waits is dropped, and a peer that reads is told why.
    pub fn abort(&self, reason: &str) {
        self.abort.send_replace(Some(reason.to_owned()));
    }

    /// About how many bytes wait.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until nothing reads this queue any more: the connection has ended.
    pub async fn ended(&self) {
        self.sender.closed().await;
    }
}

impl<M> Clone for Outbox<M> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            bytes: Arc::clone(&self.bytes),
            abort: self.abort.clone(),
        }
    }
}

impl<M> fmt::Debug for Outbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// What the other end of an outbox takes at once.
pub struct Drained<M> {
    /// The messages, in order.
    pub messages: Vec<M>,
    /// The reason to close with after them, if it is time.
    pub close: Option<String>,
}

impl<M: Weigh> Queue<M> {
    /// Waits for messages and takes all that are there, at most `limit`; `None` when every outbox
    /// was dropped.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost when the future is dropped.
    pub async fn drain(&mut self, limit: usize) -> Option<Drained<M>> {
        let mut taken = Vec::new();
        if self.receiver.recv_many(&mut taken, limit).await == 0 {
            return None;
        }
        let mut drained = Drained { messages: Vec::with_capacity(taken.len()), close: None };
        for outgoing in taken {
            match outgoing {
                Outgoing::Message(message) => {
                    self.bytes.fetch_sub(message.weight(), Ordering::Relaxed);
                    drained.messages.push(message);
                }
                Outgoing::Close(reason) => {
                    drained.close = Some(reason);
                    break;
                }
            }
        }
        Some(drained)
    }
}

/// Resolves to the reason once the connection is to end at once; never, if that doesn't come.
pub(crate) async fn aborted(mut reason: watch::Receiver<Option<String>>) -> String {
    if let Ok(reason) = reason.wait_for(Option::is_some).await
        && let Some(reason) = &*reason
    {
        return reason.clone();
    }
    std::future::pending().await
}

/// Resolves once every outbox was dropped, or the connection is to end at once.
pub(crate) async fn abandoned(mut reason: watch::Receiver<Option<String>>) {
    // An error says that no outbox is left.
    let _ = reason.wait_for(Option::is_some).await;
}

impl<M> Queue<M> {
    pub(crate) fn abort_signal(&self) -> watch::Receiver<Option<String>> {
        self.aborted.clone()
    }
}

impl<M> fmt::Debug for Queue<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Drained<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drained").field("messages", &self.messages.len()).finish_non_exhaustive()
    }
}

/// Where messages from a peer come out.
pub struct Inbox<M> {
    source: Origin<M>,
}

impl<M: Send> Deliver<M> for mpsc::Sender<Result<M, ConnectionEnd>> {
    async fn deliver(&mut self, arrived: &mut VecDeque<M>) -> Option<u64> {
        let count = arrived.len().min(INBOX_AT_ONCE);
        let places = self.reserve_many(count).await.ok()?;
        for (place, message) in places.zip(arrived.drain(..count)) {
            place.send(Ok(message));
        }
        Some(count as u64)
    }
}

enum Origin<M> {
    /// From the task that reads a link.
    Link(mpsc::Receiver<Result<M, ConnectionEnd>>),
    /// From a queue in the same program.
    Queue(mpsc::UnboundedReceiver<Outgoing<M>>, Arc<AtomicUsize>),
}

impl<M: Weigh> Inbox<M> {
    pub(crate) fn new() -> (mpsc::Sender<Result<M, ConnectionEnd>>, Self) {
        let (sender, receiver) = mpsc::channel(INBOX_MAX);
        (sender, Self { source: Origin::Link(receiver) })
    }

    /// What comes out of a queue, without a link between.
    #[must_use]
    pub fn of_queue(queue: Queue<M>) -> Self {
        Self { source: Origin::Queue(queue.receiver, queue.bytes) }
    }

    /// The next message.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the connection has ended: how.
    pub async fn recv(&mut self) -> Result<M, ConnectionEnd> {
        match &mut self.source {
            Origin::Link(receiver) => receiver.recv().await.unwrap_or(Err(ConnectionEnd::Here)),
            Origin::Queue(receiver, bytes) => arrived(receiver.recv().await, bytes),
        }
    }

    /// The next message if it is there already.
    ///
    /// # Errors
    /// When the connection has ended: how.
    pub fn try_recv(&mut self) -> Result<Option<M>, ConnectionEnd> {
        let next = match &mut self.source {
            Origin::Link(receiver) => match receiver.try_recv() {
                Ok(next) => return next.map(Some),
                Err(error) => error,
            },
            Origin::Queue(receiver, bytes) => match receiver.try_recv() {
                Ok(next) => return arrived(Some(next), bytes).map(Some),
                Err(error) => error,
            },
        };
        match next {
            mpsc::error::TryRecvError::Empty => Ok(None),
            mpsc::error::TryRecvError::Disconnected => Err(ConnectionEnd::Here),
        }
    }

    /// The next message, on a thread without a runtime.
    ///
    /// # Errors
    /// When the connection has ended: how.
    pub fn blocking_recv(&mut self) -> Result<M, ConnectionEnd> {
        match &mut self.source {
            Origin::Link(receiver) => receiver.blocking_recv().unwrap_or(Err(ConnectionEnd::Here)),
            Origin::Queue(receiver, bytes) => arrived(receiver.blocking_recv(), bytes),
        }
    }
}

fn arrived<M: Weigh>(next: Option<Outgoing<M>>, bytes: &AtomicUsize) -> Result<M, ConnectionEnd> {
    match next {
        Some(Outgoing::Message(message)) => {
            bytes.fetch_sub(message.weight(), Ordering::Relaxed);
            Ok(message)
        }
        Some(Outgoing::Close(reason)) => Err(ConnectionEnd::Closed(reason)),
        None => Err(ConnectionEnd::Here),
    }
}

impl<M> fmt::Debug for Inbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rdask_core::message::ToNanny;

    use super::*;

    fn kill(number: u32) -> ToNanny {
        ToNanny::Kill { process: rdask_core::id::ProcessId(number), reason: String::new() }
    }

    #[tokio::test]
    async fn everything_that_waits_is_taken_at_once_and_counted() {
        let (outbox, mut queue) = outbox();
        outbox.send(kill(1)).unwrap();
        outbox.send(kill(2)).unwrap();
        assert_eq!(outbox.queued_bytes(), 2 * kill(1).weight());
        let drained = queue.drain(100).await.unwrap();
        assert_eq!(drained.messages, [kill(1), kill(2)]);
        assert_eq!((drained.close, outbox.queued_bytes()), (None, 0));
        drop(outbox);
        assert!(queue.drain(100).await.is_none());
    }

    #[tokio::test]
    async fn a_reason_to_close_comes_after_what_was_sent_before() {
        let (outbox, mut queue) = outbox();
        outbox.send(kill(1)).unwrap();
        outbox.close("enough").unwrap();
        outbox.send(kill(2)).unwrap();
        let drained = queue.drain(100).await.unwrap();
        assert_eq!(drained.messages, [kill(1)]);
        assert_eq!(drained.close.as_deref(), Some("enough"));
        drop(queue);
        assert_eq!(outbox.send(kill(3)), Err(Ended));
    }

    #[tokio::test]
    async fn an_inbox_ends_with_the_reason() {
        let (sender, mut inbox) = Inbox::new();
        sender.send(Ok(kill(1))).await.unwrap();
        sender.send(Err(ConnectionEnd::Garbled)).await.unwrap();
        drop(sender);
        assert_eq!(inbox.recv().await, Ok(kill(1)));
        assert_eq!(inbox.recv().await, Err(ConnectionEnd::Garbled));
        assert_eq!(inbox.recv().await, Err(ConnectionEnd::Here));
    }
}
