//! A control connection that outlives its links: what one link loses, the next one carries again.
//!
//! Messages are counted in each direction. The sender keeps them encoded until the receiver has
//! acknowledged them; after a break each side says how many it has, and the other goes on behind
//! those. So each message is handed on exactly once and in order, and whoever sends or receives
//! never notices. Frames that one read brought are decoded together, those that wait are written at
//! once; a peer whose bytes don't decode is closed.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rdask_net::{FrameReceiver, FrameSender, LinkError, SILENCE_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::frame_of;
use super::held::Held;
use super::queue::{self, ConnectionEnd, Drained, Queue};
use super::unacknowledged::Unacknowledged;
use super::weight::Weigh;

/// The most messages taken from a queue at once.
const MESSAGES_PER_WRITE: usize = 512;

/// A write begins once so many bytes are encoded: they fill any window that QUIC gives.
const BYTES_PER_WRITE: usize = 1 << 20;

/// So much may be unacknowledged; what comes after it waits in the queue, and is counted there.
const UNACKNOWLEDGED_MAX: usize = 16 << 20;

/// What has arrived is acknowledged after so long, or at once when it is so much.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(100);
const ACKNOWLEDGE_BYTES: u64 = 64 << 10;

/// How often a link that has no timers of its own says that its peer is there.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The first byte of a frame that acknowledges. No message begins with it: it would be the variant
/// of a number that no enum of ours comes near.
const ACKNOWLEDGEMENT: u8 = 0xFF;

/// A link in its halves.
#[derive(Debug)]
pub(crate) struct Halves {
    pub(crate) sender: FrameSender,
    pub(crate) receiver: FrameReceiver,
    /// Whether the transport itself finds a silent peer.
    pub(crate) is_quic: bool,
}

/// How a link ended.
#[derive(Debug)]
pub(crate) enum LinkEnd {
    /// With the connection.
    Over(ConnectionEnd),
    /// The peer's node says that nobody has its port open.
    Gone,
    /// By itself: another one can take its place.
    Broken {
        /// What is known of it.
        why: String,
        /// How long nothing had been heard by then.
        silent: Duration,
    },
}

/// Where messages go that have arrived.
pub(crate) trait Deliver<M> {
    /// Hands on messages from the front, at least one, as soon as there is room; how many they
    /// were, or `None` if nobody takes them any more.
    ///
    /// # Cancel safety
    /// Cancel safe: what was handed on is always told.
    fn deliver(&mut self, arrived: &mut VecDeque<M>) -> impl Future<Output = Option<u64>> + Send;
}

/// One side of a connection: what it has to say, and what it has heard.
pub(crate) struct Session<Out, In> {
    sending: Sending<Out>,
    counts: Counts,
    heard: PhantomData<fn() -> In>,
}

/// What the two directions tell each other.
#[derive(Debug, Default)]
struct Counts {
    /// How many messages were handed on.
    received: AtomicU64,
    /// How many of them the peer knows of.
    confirmed: AtomicU64,
    /// Whether to tell it at once.
    is_due: AtomicBool,
    /// How many of ours the peer has.
    acknowledged: AtomicU64,
    news: Notify,
}

struct Sending<Out> {
    queue: Queue<Out>,
    /// Taken from the queue; they wait for others.
    held: Held<Out>,
    /// Taken from the queue and not yet encoded; then the reason to close with, if it is time.
    drained: std::vec::IntoIter<Out>,
    close: Option<String>,
    unacknowledged: Unacknowledged,
}

/// How a link ends that is not written to any more.
enum Farewell {
    Finish,
    Close(String),
}

impl<Out: Serialize + Weigh + Send, In: DeserializeOwned + Send> Session<Out, In> {
    pub(crate) fn new(queue: Queue<Out>) -> Self {
        let sending = Sending {
            queue,
            held: Held::new(),
            drained: Vec::new().into_iter(),
            close: None,
            unacknowledged: Unacknowledged::new(),
        };
        Self { sending, counts: Counts::default(), heard: PhantomData }
    }

    /// How many messages have arrived, to be told when a new link begins. No earlier link may be
    /// running.
    pub(crate) fn received(&self) -> u64 {
        let received = self.counts.received.load(Ordering::Relaxed);
        self.counts.confirmed.store(received, Ordering::Relaxed);
        received
    }

    /// A new link begins, and the peer has so many of our messages.
    ///
    /// # Errors
    /// If that can't be.
    pub(crate) fn rewind(&mut self, count: u64) -> Result<(), ConnectionEnd> {
        self.sending.unacknowledged.rewind(count).map_err(|error| {
            tracing::warn!(%error, "a peer resumes what never was");
            ConnectionEnd::Garbled
        })
    }

    #[cfg(test)]
    pub(crate) fn unacknowledged_bytes(&self) -> usize {
        self.sending.unacknowledged.bytes()
    }

    /// Resolves when nobody has anything to say here any more, or it is to end at once. For the
    /// time between two links.
    pub(crate) fn abandoned(&self) -> impl Future<Output = ()> + Send + use<Out, In> {
        queue::abandoned(self.sending.queue.abort_signal())
    }

    /// Carries messages over a link until it ends or the connection does.
    ///
    /// # Cancel safety
    /// Cancel safe, in that the next link carries what this one has not.
    pub(crate) async fn run(&mut self, link: Halves, to: &mut impl Deliver<In>) -> LinkEnd {
        let Self { sending, counts, .. } = self;
        let Halves { mut sender, mut receiver, is_quic } = link;
        // Neither direction goes first: a flood in one must not hold up the other.
        let farewell = tokio::select! {
            end = read::<In>(&mut receiver, is_quic, to, counts) => match end {
                LinkEnd::Over(ConnectionEnd::Garbled) => {
                    let reason = "you sent a message that does not decode; versions may differ";
                    sender.close(reason).await;
                    return LinkEnd::Over(ConnectionEnd::Garbled);
                }
                end => return end,
            },
            farewell = sending.write(&mut sender, is_quic, counts) => farewell,
        };
        match farewell {
            Farewell::Close(reason) => sender.close(&reason).await,
            Farewell::Finish => {
                if let Err(error) = sender.finish().await {
                    tracing::debug!(%error, "a link was not ended in good order");
                }
            }
        }
        LinkEnd::Over(ConnectionEnd::Here)
    }
}

impl<Out: Serialize + Weigh> Sending<Out> {
    /// Encodes and writes what comes out of the queue until that ends or is aborted: a peer that
    /// doesn't read must not keep what waits for it. A link that broke is the reader's to report.
    async fn write(
        &mut self,
        sender: &mut FrameSender,
        is_quic: bool,
        counts: &Counts,
    ) -> Farewell {
        let aborted = queue::aborted(self.queue.abort_signal());
        tokio::pin!(aborted);
        let mut clock = Clock::new(is_quic);
        loop {
            if self.unacknowledged.acknowledge(counts.acknowledged.load(Ordering::Relaxed)).is_err()
            {
                return Farewell::Close("you acknowledged what was never sent".to_owned());
            }
            while let Some(frames) = self.unacknowledged.unwritten() {
                if let Err(reason) = send(sender, frames, aborted.as_mut()).await {
                    return Farewell::Close(reason);
                }
                self.unacknowledged.mark_written();
                clock.written();
            }
            let has_room = self.unacknowledged.bytes() < UNACKNOWLEDGED_MAX;
            if has_room && self.drained.len() > 0 {
                if let Err(error) = self.encode() {
                    // Senders split what is long; this is a bug of ours, and half a conversation
                    // is worse than none.
                    tracing::error!(%error, peer = %sender.peer(), "a message can't be sent");
                    return Farewell::Close("a message was too long to be sent".to_owned());
                }
                continue;
            }
            if self.drained.len() == 0
                && let Some(reason) = self.close.take()
            {
                return Farewell::Close(reason);
            }
            let may_drain = has_room && self.drained.len() == 0;
            tokio::select! {
                // The queue comes last: it may never be empty.
                biased;
                () = counts.news.notified() => clock.note(counts),
                () = clock.rung() => {
                    let frame = acknowledgement(counts.confirm());
                    if let Err(reason) = send(sender, &frame, aborted.as_mut()).await {
                        return Farewell::Close(reason);
                    }
                    clock.acknowledged();
                }
                reason = &mut aborted => return Farewell::Close(reason),
                drained = self.queue.drain(MESSAGES_PER_WRITE),
                    if may_drain => match drained {
                    Some(Drained { messages, close: None }) => {
                        self.drained = self.held.admit(messages).into_iter();
                    }
                    Some(Drained { messages, close }) => {
                        self.drained = self.held.take_with(messages).into_iter();
                        self.close = close;
                    }
                    None if self.held.is_empty() => return Farewell::Finish,
                    None => self.drained = self.held.take().into_iter(),
                },
                () = self.held.waited(), if may_drain && !self.held.is_empty() => {
                    self.drained = self.held.take().into_iter();
                }
            }
        }
    }

    /// Encodes what was drained, as much as one write takes.
    fn encode(&mut self) -> io::Result<()> {
        let before = self.unacknowledged.bytes();
        while self.unacknowledged.bytes() - before < BYTES_PER_WRITE
            && let Some(message) = self.drained.next()
        {
            let mut encoded = Ok(());
            let pushed = self.unacknowledged.push(|body| {
                encoded = postcard::to_io(&message, body).map(|_| ());
            });
            encoded.map_err(io::Error::other)?;
            pushed.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Sends frames, or returns why to end at once. On a link that broke only that comes.
async fn send(
    sender: &mut FrameSender,
    frames: &[u8],
    mut aborted: Pin<&mut impl Future<Output = String>>,
) -> Result<(), String> {
    let sent = tokio::select! {
        biased;
        sent = sender.send(frames) => sent,
        reason = &mut aborted => return Err(reason),
    };
    match sent {
        Ok(()) => Ok(()),
        // The reading half reports how it ended.
        Err(_) => Err(aborted.await),
    }
}

/// When to acknowledge, or to say that we are there.
struct Clock {
    sleep: Pin<Box<Sleep>>,
    /// Something is to be acknowledged.
    is_set: bool,
    has_heartbeat: bool,
}

impl Clock {
    fn new(is_quic: bool) -> Self {
        Self { sleep: Box::pin(sleep(HEARTBEAT)), is_set: false, has_heartbeat: !is_quic }
    }

    /// Something has arrived.
    fn note(&mut self, counts: &Counts) {
        if counts.is_due.swap(false, Ordering::Relaxed) {
            self.ring_in(Duration::ZERO);
        } else if !self.is_set && counts.is_behind() {
            self.ring_in(ACKNOWLEDGE_AFTER);
        }
    }

    fn ring_in(&mut self, time: Duration) {
        self.is_set = true;
        self.sleep.as_mut().reset(Instant::now() + time);
    }

    /// Something went out, so that the peer knows that we are there.
    fn written(&mut self) {
        if self.has_heartbeat && !self.is_set {
            self.sleep.as_mut().reset(Instant::now() + HEARTBEAT);
        }
    }

    fn acknowledged(&mut self) {
        self.is_set = false;
        self.written();
    }

    async fn rung(&mut self) {
        if self.is_set || self.has_heartbeat {
            self.sleep.as_mut().await;
        } else {
            std::future::pending().await
        }
    }
}

impl Counts {
    fn is_behind(&self) -> bool {
        self.received.load(Ordering::Relaxed) != self.confirmed.load(Ordering::Relaxed)
    }

    /// Messages were handed on.
    fn add_received(&self, count: u64) {
        let was_behind = self.is_behind();
        self.received.fetch_add(count, Ordering::Relaxed);
        if !was_behind {
            self.news.notify_one();
        }
    }

    fn hurry(&self) {
        self.is_due.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// How many messages to acknowledge; they count as acknowledged from now on.
    fn confirm(&self) -> u64 {
        let received = self.received.load(Ordering::Relaxed);
        self.confirmed.store(received, Ordering::Relaxed);
        received
    }

    fn acknowledge(&self, count: u64) {
        self.acknowledged.fetch_max(count, Ordering::Relaxed);
        self.news.notify_one();
    }
}

fn acknowledgement(count: u64) -> Vec<u8> {
    let mut body = [ACKNOWLEDGEMENT; 9];
    body[1..].copy_from_slice(&count.to_le_bytes());
    frame_of(&body)
}

/// Hands on what a link brings until it ends; what has arrived comes before how it ended.
async fn read<In: DeserializeOwned>(
    receiver: &mut FrameReceiver,
    is_quic: bool,
    to: &mut impl Deliver<In>,
    counts: &Counts,
) -> LinkEnd {
    let mut arrived = VecDeque::new();
    let mut bytes = 0;
    loop {
        let end = match next_frame(receiver, is_quic).await {
            Ok(Some(frame)) => decode_all(receiver, frame, &mut arrived, &mut bytes, counts).err(),
            Ok(None) => Some(LinkEnd::Over(ConnectionEnd::Closed("it left".to_owned()))),
            Err(end) => Some(end),
        };
        while !arrived.is_empty() {
            let Some(count) = to.deliver(&mut arrived).await else {
                return LinkEnd::Over(ConnectionEnd::Here);
            };
            counts.add_received(count);
        }
        if let Some(end) = end {
            return end;
        }
        if bytes >= ACKNOWLEDGE_BYTES {
            bytes = 0;
            counts.hurry();
        }
    }
}

/// The first frame of a read. TLS on its own does not tell a silent peer from an idle one.
async fn next_frame(receiver: &mut FrameReceiver, is_quic: bool) -> Result<Option<Bytes>, LinkEnd> {
    let received = if is_quic {
        receiver.recv().await
    } else {
        let silent = LinkError::Silent { peer: receiver.peer().clone() };
        timeout(SILENCE_MAX, receiver.recv()).await.unwrap_or(Err(silent))
    };
    received.map_err(LinkEnd::of)
}

/// Decodes all frames of one read.
fn decode_all<In: DeserializeOwned>(
    receiver: &mut FrameReceiver,
    first: Bytes,
    into: &mut VecDeque<In>,
    bytes: &mut u64,
    counts: &Counts,
) -> Result<(), LinkEnd> {
    let garbled = || LinkEnd::Over(ConnectionEnd::Garbled);
    let mut next = Some(first);
    while let Some(frame) = next {
        if let Some((&ACKNOWLEDGEMENT, count)) = frame.split_first() {
            let count = count.try_into().map_err(|_| garbled())?;
            counts.acknowledge(u64::from_le_bytes(count));
        } else {
            *bytes += frame.len() as u64;
            into.push_back(postcard::from_bytes(&frame).map_err(|_| garbled())?);
        }
        next = receiver.try_recv_buffered().map_err(LinkEnd::of)?;
    }
    Ok(())
}

impl LinkEnd {
    pub(crate) fn of(error: LinkError) -> Self {
        match error {
            LinkError::Closed { reason, .. } => Self::Over(ConnectionEnd::Closed(reason)),
            LinkError::ClosedHere { .. } => Self::Over(ConnectionEnd::Here),
            LinkError::Gone { .. } => Self::Gone,
            // Who the peer is, those who report this end know better than its certificate: it may
            // have dialled before it had one in its own name.
            LinkError::Silent { .. } => {
                let why = "silent for too long; its process or node is gone or frozen".to_owned();
                Self::Broken { why, silent: SILENCE_MAX }
            }
            error @ LinkError::Lost { .. } => {
                Self::Broken { why: error.to_string(), silent: Duration::ZERO }
            }
            other => Self::Over(ConnectionEnd::Lost(other.to_string())),
        }
    }

    /// How the connection ended, for those who don't go on after the end of a link.
    pub(crate) fn into_connection_end(self) -> ConnectionEnd {
        match self {
            Self::Over(end) => end,
            Self::Gone => ConnectionEnd::Lost("its node says that its process is gone".to_owned()),
            Self::Broken { why, .. } => ConnectionEnd::Lost(why),
        }
    }
}
