//! A TLS connection over TCP that ends well.
//!
//! TCP has a trap: if a socket is closed while bytes from the peer are unread, the kernel resets
//! the connection, and the peer loses what it had not read yet: the tail of a value, or the reason
//! for closing. So a connection that was shut down in good order is read to its end, for a while,
//! after its owner has dropped it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsStream;

/// How long a peer has to read what was sent and close its side.
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);

/// Connections that may linger at once; further ones are closed at once.
const LINGERING_MAX: usize = 1024;

/// The tasks that read dropped connections to their end; aborted with the endpoint's last stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lingering(Arc<Mutex<JoinSet<()>>>);

/// A TLS stream that knows how it ended.
#[derive(Debug)]
pub(crate) struct TlsWire {
    /// There until the wire is dropped.
    stream: Option<TlsStream<TcpStream>>,
    lingering: Lingering,
    is_shut_down: bool,
    is_at_end: bool,
}

impl TlsWire {
    pub(crate) fn new(stream: impl Into<TlsStream<TcpStream>>, lingering: Lingering) -> Self {
        let stream = Some(stream.into());
        Self { stream, lingering, is_shut_down: false, is_at_end: false }
    }

    /// Makes the end a reset, which nobody takes for a clean one.
    pub(crate) fn abort(&mut self) {
        self.is_shut_down = false;
        if let Some(stream) = &self.stream {
            let socket = SockRef::from(stream.get_ref().0);
            if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
                tracing::debug!(%error, "a connection ends without a reset");
            }
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TlsStream<TcpStream>>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for TlsWire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, had_room) = (buffer.filled().len(), buffer.remaining() > 0);
        ready!(self.stream()?.poll_read(cx, buffer))?;
        self.is_at_end |= had_room && buffer.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsWire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream()?.poll_shutdown(cx))?;
        self.is_shut_down = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for TlsWire {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take().filter(|_| self.is_shut_down && !self.is_at_end) {
            self.lingering.read_to_end(stream);
        }
    }
}

impl Lingering {
    /// Reads what the peer still sends, until it closes its side or its time is up.
    fn read_to_end(&self, mut stream: TlsStream<TcpStream>) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= LINGERING_MAX {
            return;
        }
        tasks.spawn(async move {
            let reading = async {
                let mut rest = vec![0; 16 << 10];
                // Below TLS: what it says interests nobody any more.
                let socket = stream.get_mut().0;
                while socket.read(&mut rest).await.is_ok_and(|count| count > 0) {}
            };
            // Whether the peer was done in time changes nothing any more.
            let _ = tokio::time::timeout(LINGER_TIME_MAX, reading).await;
        });
    }
}
