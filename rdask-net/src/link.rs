//! A link: the one long stream of frames between two peers, over QUIC or TLS.
//!
//! A link is ordered and whole: frames arrive as sent until it ends, and an end has a reason. What
//! the frames mean is the callers' business. The sending half has no queue of its own; whoever
//! owns it gathers frames and writes many at once.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, TransportErrorCode, VarInt, WriteError};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::frame::{FrameDecoder, FrameError, push_close};
use crate::peer_name::PeerName;
use crate::socket::canonical;
use crate::tls_wire::TlsWire;
use crate::unreachable::Watch;

/// How long a closing half waits for the peer to have received what was sent.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(3);

/// The code of a connection that was closed with a reason; the reason says the rest.
pub(crate) const CODE_CLOSED: VarInt = VarInt::from_u32(1);

/// A link failed or was closed by the peer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed the link and said why.
    #[error("{peer} closed the link: {reason}")]
    Closed {
        /// The peer.
        peer: PeerName,
        /// Its own words.
        reason: String,
    },
    /// The peer refused our certificate, or we must not connect to it.
    #[error(
        "{peer} refused our certificate ({detail}); re-read the scheduler file, it may be of an \
         earlier run"
    )]
    Refused {
        /// The peer.
        peer: PeerName,
        /// What TLS says.
        detail: String,
    },
    /// Nothing was heard from the peer for the link's idle time.
    #[error("{peer} has been silent for too long; its process or node is gone or frozen")]
    Silent {
        /// The peer.
        peer: PeerName,
    },
    /// The peer's node answers, but nobody has the peer's port open any more.
    #[error("the process of {peer} is gone: its node says that the port is closed")]
    Gone {
        /// The peer.
        peer: PeerName,
    },
    /// The link was closed on this side.
    #[error("the link to {peer} was closed on this side")]
    ClosedHere {
        /// The peer.
        peer: PeerName,
    },
    /// The peer sent what is no frame.
    #[error("{peer} broke the protocol")]
    Protocol {
        /// The peer.
        peer: PeerName,
        /// What it did.
        #[source]
        source: FrameError,
    },
    /// The connection broke.
    #[error("the connection to {peer} broke; its process may have ended")]
    Lost {
        /// The peer.
        peer: PeerName,
        /// How it showed.
        #[source]
        source: io::Error,
    },
}

/// A stream of frames to and from one peer, not yet split into its halves.
#[derive(Debug)]
pub struct Link {
    remote_address: SocketAddr,
    sender: FrameSender,
    receiver: FrameReceiver,
}

impl Link {
    pub(crate) fn quic(
        connection: quinn::Connection,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
        watch: Watch,
        peer: PeerName,
    ) -> Self {
        let remote_address = canonical(connection.remote_address());
        let wire = SendWire::Quic { connection: connection.clone(), stream: send };
        let sender = FrameSender { peer: peer.clone(), wire };
        let wire = ReceiveWire::Quic { connection, stream: receive, watch };
        let receiver = FrameReceiver { peer, wire, decoder: FrameDecoder::new() };
        Self { remote_address, sender, receiver }
    }

    pub(crate) fn tls(stream: TlsWire, remote_address: SocketAddr, peer: PeerName) -> Self {
        let (read, write) = tokio::io::split(stream);
        let sender = FrameSender { peer: peer.clone(), wire: SendWire::Tls(write) };
        let wire = ReceiveWire::Tls(read);
        let receiver = FrameReceiver { peer, wire, decoder: FrameDecoder::new() };
        Self { remote_address: canonical(remote_address), sender, receiver }
    }

    /// Whom the peer's certificate names.
    pub fn peer(&self) -> &PeerName {
        &self.receiver.peer
    }

    /// Where the peer is.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote_address
    }

    /// Whether the link runs over QUIC; if not, over TLS on TCP.
    pub fn is_quic(&self) -> bool {
        matches!(self.receiver.wire, ReceiveWire::Quic { .. })
    }

    /// The two halves, each for a task of its own. The link ends when both are gone.
    pub fn split(self) -> (FrameSender, FrameReceiver) {
        (self.sender, self.receiver)
    }

    /// Waits until one whole frame, or the peer's last word, is there.
    pub(crate) async fn first_frame(&mut self) -> Result<(), LinkError> {
        self.receiver.fill_first_frame().await
    }
}

/// The sending half of a [`Link`].
pub struct FrameSender {
    peer: PeerName,
    wire: SendWire,
}

enum SendWire {
    Quic { connection: quinn::Connection, stream: quinn::SendStream },
    Tls(WriteHalf<TlsWire>),
}

impl FrameSender {
    /// Whom the peer's certificate names.
    pub fn peer(&self) -> &PeerName {
        &self.peer
    }

    /// Sends bytes made with [`push_frame`](crate::push_frame): one frame or many.
    ///
    /// Returns when the bytes are buffered, which waits for a peer that doesn't read.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of the bytes may be on their way. Drop the link then.
    ///
    /// # Errors
    ///
    /// A [`LinkError`] if the link has ended.
    pub async fn send(&mut self, frames: &[u8]) -> Result<(), LinkError> {
        let written = match &mut self.wire {
            SendWire::Quic { stream, .. } => {
                stream.write_all(frames).await.map_err(io::Error::from)
            }
            SendWire::Tls(stream) => write_and_flush(stream, frames).await,
        };
        written.map_err(|error| link_error(&self.peer, error))
    }

    /// Ends this direction in good order and waits, at most 3 s, until all was received. The peer
    /// reads what was sent, then a clean end. The other direction stays open while the receiving
    /// half lives.
    ///
    /// # Errors
    ///
    /// A [`LinkError`] if the link has ended, or the peer took longer.
    pub async fn finish(mut self) -> Result<(), LinkError> {
        let delivered = tokio::time::timeout(DELIVERY_TIME_MAX, self.end_stream()).await;
        delivered.unwrap_or_else(|_| Err(LinkError::Silent { peer: self.peer.clone() }))
    }

    /// Closes the link in both directions and says why, once the peer has received what was sent
    /// before, or after 3 s.
    pub async fn close(mut self, reason: &str) {
        let mut farewell = Vec::new();
        push_close(&mut farewell, reason);
        let delivered = tokio::time::timeout(DELIVERY_TIME_MAX, async {
            self.send(&farewell).await?;
            self.end_stream().await
        });
        if let Ok(Err(error)) | Err(error) = delivered.await.map_err(|_| self.silent()) {
            tracing::debug!(peer = %self.peer, %error, reason, "the reason for closing may be lost");
        }
        if let SendWire::Quic { connection, .. } = &self.wire {
            connection.close(CODE_CLOSED, reason.as_bytes());
        }
    }

    async fn end_stream(&mut self) -> Result<(), LinkError> {
        let ended = match &mut self.wire {
            SendWire::Quic { stream, .. } => {
                // Finishing twice, or after a stop by the peer, is no news.
                let _ = stream.finish();
                stream.stopped().await.map(|_| ()).map_err(io::Error::other)
            }
            SendWire::Tls(stream) => stream.shutdown().await,
        };
        ended.map_err(|error| link_error(&self.peer, error))
    }

    fn silent(&self) -> LinkError {
        LinkError::Silent { peer: self.peer.clone() }
    }
}

impl fmt::Debug for FrameSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSender").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The receiving half of a [`Link`].
pub struct FrameReceiver {
    peer: PeerName,
    wire: ReceiveWire,
    decoder: FrameDecoder,
}

enum ReceiveWire {
    Quic { connection: quinn::Connection, stream: quinn::RecvStream, watch: Watch },
    Tls(ReadHalf<TlsWire>),
}

impl FrameReceiver {
    /// Whom the peer's certificate names.
    pub fn peer(&self) -> &PeerName {
        &self.peer
    }

    /// The body of the next frame; `None` when the peer ended the link in good order.
    ///
    /// Bodies share the memory of one read, 64 KiB: copy what is kept for long.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// A [`LinkError`] that says how the link ended.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            if let Some(body) = self.try_recv_buffered()? {
                return Ok(Some(body));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// The next frame that an earlier read brought whole, without waiting; `None` if
    /// [`recv`](Self::recv) must read again. For taking all frames of one read in one go.
    ///
    /// # Errors
    ///
    /// A [`LinkError`] if the peer closed the link or broke the protocol.
    pub fn try_recv_buffered(&mut self) -> Result<Option<Bytes>, LinkError> {
        self.decoder.next_frame().map_err(|error| match error {
            FrameError::Closed { reason } => LinkError::Closed { peer: self.peer.clone(), reason },
            source @ FrameError::TooLong { .. } => {
                if let ReceiveWire::Quic { connection, .. } = &self.wire {
                    connection.close(CODE_CLOSED, source.to_string().as_bytes());
                }
                LinkError::Protocol { peer: self.peer.clone(), source }
            }
        })
    }

    /// Reads once; false at the end of the stream.
    async fn read(&mut self) -> Result<bool, LinkError> {
        let buffer = self.decoder.read_buffer();
        let read = match &mut self.wire {
            ReceiveWire::Quic { connection, stream, watch } => tokio::select! {
                // What has arrived comes before what it ended with.
                biased;
                read = stream.read_buf(buffer) => read,
                () = watch.gone() => {
                    connection.close(CODE_CLOSED, b"unreachable");
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
            },
            ReceiveWire::Tls(stream) => stream.read_buf(buffer).await,
        };
        match read {
            Ok(0) if self.decoder.is_between_frames() => Ok(false),
            Ok(0) => Err(link_error(&self.peer, io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(true),
            Err(error) => Err(link_error(&self.peer, error)),
        }
    }

    async fn fill_first_frame(&mut self) -> Result<(), LinkError> {
        while !self.decoder.has_frame() && self.read().await? {}
        Ok(())
    }
}

impl fmt::Debug for FrameReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReceiver").field("peer", &self.peer).finish_non_exhaustive()
    }
}

async fn write_and_flush(stream: &mut WriteHalf<TlsWire>, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// What an I/O error of a link's stream says about the link.
pub(crate) fn link_error(peer: &PeerName, error: io::Error) -> LinkError {
    let peer = peer.clone();
    if let Some(connection) = connection_error(&error) {
        return match connection {
            ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                LinkError::Closed { peer, reason }
            }
            ConnectionError::ConnectionClosed(close) if is_alert(close.error_code) => {
                LinkError::Refused { peer, detail: close.to_string() }
            }
            ConnectionError::TimedOut => LinkError::Silent { peer },
            ConnectionError::LocallyClosed => LinkError::ClosedHere { peer },
            ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::ApplicationClosed(_)
            | ConnectionError::Reset
            | ConnectionError::CidsExhausted => LinkError::Lost { peer, source: error },
        };
    }
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::AlertReceived(alert)) = tls {
        return LinkError::Refused { peer, detail: format!("TLS alert {alert:?}") };
    }
    match error.kind() {
        io::ErrorKind::TimedOut => LinkError::Silent { peer },
        // Ours: the socket's verdict on the peer's port.
        io::ErrorKind::ConnectionRefused => LinkError::Gone { peer },
        _ => LinkError::Lost { peer, source: error },
    }
}

fn connection_error(error: &io::Error) -> Option<&ConnectionError> {
    let inner = error.get_ref()?;
    if let Some(ReadError::ConnectionLost(lost)) = inner.downcast_ref() {
        return Some(lost);
    }
    if let Some(WriteError::ConnectionLost(lost)) = inner.downcast_ref() {
        return Some(lost);
    }
    if let Some(quinn::StoppedError::ConnectionLost(lost)) = inner.downcast_ref() {
        return Some(lost);
    }
    inner.downcast_ref()
}

/// Whether a QUIC error code carries a TLS alert.
fn is_alert(code: TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}
