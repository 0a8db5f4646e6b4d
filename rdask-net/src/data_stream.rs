//! A data stream: raw bytes both ways between two peers, one stream per get or put.
//!
//! An end is never mistaken for completeness: a stream that is dropped before it was finished is
//! reset, and its reader gets an error. But for local ones: there an end is an end, and whoever
//! reads must know how many bytes are due.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use crate::local::Place;
use crate::neighbour::Neighbour;
use crate::peer_name::PeerName;
use crate::pool::Lease;
use crate::tls_wire::TlsWire;

/// The code of a stream that was dropped before it was finished.
const CODE_DROPPED: u32 = 0;

/// How much is read at a time where chunks have to be copied.
const CHUNK_BYTES: usize = 64 << 10;

/// What carries a stream, or the bytes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carrier {
    /// A QUIC connection.
    Quic,
    /// TLS over TCP.
    Tls,
    /// A Unix socket within the host.
    Local,
    /// One process of the host reads the other's memory, as agreed on a local stream.
    Memory,
    /// The scheduler, between two others.
    Relay,
}

/// One bidirectional stream of raw bytes; read and write it as any other.
pub struct DataStream {
    peer: PeerName,
    wire: Wire,
    finished: bool,
    /// Whether the peer has begun to carry it on to somebody else.
    relayed: bool,
}

enum Wire {
    Quic { send: quinn::SendStream, receive: quinn::RecvStream, _lease: Option<Lease> },
    Tls(Box<TlsWire>),
    Local { stream: UnixStream, _place: Place },
}

impl DataStream {
    pub(crate) fn quic(
        send: quinn::SendStream,
        receive: quinn::RecvStream,
        lease: Option<Lease>,
        peer: PeerName,
    ) -> Self {
        Self::new(peer, Wire::Quic { send, receive, _lease: lease })
    }

    pub(crate) fn tls(stream: Box<TlsWire>, peer: PeerName) -> Self {
        Self::new(peer, Wire::Tls(stream))
    }

    pub(crate) fn local(stream: UnixStream, place: Place, peer: PeerName) -> Self {
        Self::new(peer, Wire::Local { stream, _place: place })
    }

    fn new(peer: PeerName, wire: Wire) -> Self {
        Self { peer, wire, finished: false, relayed: false }
    }

    /// The same stream, whose peer carries it on to somebody else from here on.
    #[must_use]
    pub fn into_relayed(mut self) -> Self {
        self.relayed = true;
        self
    }

    /// What carries the stream.
    pub fn carrier(&self) -> Carrier {
        match self.wire {
            _ if self.relayed => Carrier::Relay,
            Wire::Quic { .. } => Carrier::Quic,
            Wire::Tls(_) => Carrier::Tls,
            Wire::Local { .. } => Carrier::Local,
        }
    }

    /// The process at the other end of a local stream, if nobody is in between.
    pub fn neighbour(&self) -> Option<Neighbour> {
        match &self.wire {
            _ if self.relayed => None,
            Wire::Local { stream, .. } => Neighbour::new(stream.peer_cred().ok()?.pid()),
            Wire::Quic { .. } | Wire::Tls(_) => None,
        }
    }

    /// Whom the peer's certificate names.
    pub fn peer(&self) -> &PeerName {
        &self.peer
    }

    /// Writes bytes without copying them, where the transport can.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of the bytes may be on their way.
    ///
    /// # Errors
    ///
    /// An I/O error if the stream or its connection has ended.
    pub async fn write_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        match &mut self.wire {
            Wire::Quic { send, .. } => Ok(send.write_chunk(bytes).await?),
            Wire::Tls(stream) => stream.write_all(&bytes).await,
            Wire::Local { stream, .. } => stream.write_all(&bytes).await,
        }
    }

    /// Reads what has come, without copying it where the transport can, into as many chunks as there
    /// are, and waits only if there are none. Returns how many; 0 at the end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// An I/O error if the stream or its connection has ended without a finish.
    pub async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> io::Result<usize> {
        if let Wire::Quic { receive, .. } = &mut self.wire {
            return Ok(receive.read_chunks(chunks).await?.unwrap_or(0));
        }
        let Some(chunk) = chunks.first_mut() else { return Ok(0) };
        let mut read = BytesMut::with_capacity(CHUNK_BYTES);
        self.read_buf(&mut read).await?;
        *chunk = read.freeze();
        Ok(usize::from(!chunk.is_empty()))
    }

    /// Says that nothing more will be written; the peer then reads a clean end. Reading goes on.
    ///
    /// Over QUIC this does not wait for the peer; what was written is delivered as long as the
    /// endpoint lives, also after the stream is dropped.
    ///
    /// # Errors
    ///
    /// An I/O error if the stream or its connection has ended.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.shutdown().await
    }

    /// Gives the stream up in both directions: refused, lost or no longer wanted. Over QUIC the
    /// peer finds the code with [`reset_code`](Self::reset_code); over TLS it only sees a broken
    /// connection, and locally an end.
    pub fn reset(mut self, code: u32) {
        self.give_up(code);
    }

    /// The code with which the peer gave the stream up, if that is what an error of reading or
    /// writing says.
    pub fn reset_code(error: &io::Error) -> Option<u32> {
        let inner = error.get_ref()?;
        let code = match (inner.downcast_ref(), inner.downcast_ref()) {
            (Some(ReadError::Reset(code)), _) | (_, Some(WriteError::Stopped(code))) => *code,
            _ => return None,
        };
        u32::try_from(code.into_inner()).ok()
    }

    fn give_up(&mut self, code: u32) {
        self.finished = true;
        match &mut self.wire {
            Wire::Quic { send, receive, .. } => {
                // Both fail only if the direction has already ended.
                let _ = send.reset(VarInt::from_u32(code));
                let _ = receive.stop(VarInt::from_u32(code));
            }
            Wire::Tls(stream) => stream.abort(),
            // Dropping it ends both directions.
            Wire::Local { .. } => {}
        }
    }
}

impl AsyncRead for DataStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Quic { receive, .. } => AsyncRead::poll_read(Pin::new(receive), cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Local { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for DataStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Quic { send, .. } => AsyncWrite::poll_write(Pin::new(send), cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Local { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Quic { send, .. } => AsyncWrite::poll_flush(Pin::new(send), cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Local { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = match &mut self.wire {
            Wire::Quic { send, .. } => AsyncWrite::poll_shutdown(Pin::new(send), cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Local { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        };
        if let Poll::Ready(Ok(())) = ended {
            self.finished = true;
        }
        ended
    }
}

impl Drop for DataStream {
    fn drop(&mut self) {
        if !self.finished {
            self.give_up(CODE_DROPPED);
        }
    }
}

impl fmt::Debug for DataStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}
