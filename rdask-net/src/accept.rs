//! Listening: whoever connects must show a certificate of the run's authority, say what the
//! connection is for, and say its first words in time. All others end here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::VarInt;
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::data_stream::DataStream;
use crate::dial::tune_tcp;
use crate::endpoint::IdentityCell;
use crate::frame::push_close;
use crate::identity::{ALPN_DATA, peer_name};
use crate::interface::MtuTable;
use crate::link::Link;
use crate::local::{Guests, Proofs};
use crate::peer_name::{PeerName, PeerRole};
use crate::tls_wire::{Lingering, TlsWire};
use crate::transport::{
    DATA_STREAMS, PENDING_MAX, PENDING_UNPROVEN_MAX, Purpose, SILENCE_MAX, accepted_transport,
    server_config,
};
use crate::unreachable::Unreachable;

/// From a peer's first packet to its first whole frame.
const FIRST_FRAME_TIME_MAX: Duration = Duration::from_secs(5);

/// QUIC handshakes that are worked on at once; further peers wait for a place, in order. A thousand
/// peers that come at once and are all answered a little each send everything several times over,
/// until packets are lost and handshakes come too late.
const HANDSHAKES_MAX: usize = 32;

/// How long a handshake keeps its place. One that takes longer goes on without: its peer is far
/// away, or doesn't answer, and shall not hold up others.
const PLACE_TIME_MAX: Duration = Duration::from_millis(200);

/// Who has waited for so long for a place gives up before the handshake is over. The next packet
/// that it sends brings it back, at the end of the queue.
const WAIT_TIME_MAX: Duration = SILENCE_MAX.checked_div(2).expect("two is not zero");

/// How long to leave a listener alone after the system refused a connection, as it does when file
/// descriptors run out.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The code of a connection that is refused after its handshake; the reason says why.
const CODE_REFUSED: VarInt = VarInt::from_u32(2);

/// Someone of the run who connected.
#[derive(Debug)]
pub enum Incoming {
    /// A peer that opened its control link; its first frame is there. Schedulers only.
    Control(Link),
    /// A stream for one get or put.
    Data {
        /// The stream.
        stream: DataStream,
        /// Who opened it.
        peer: PeerName,
    },
}

/// Why a peer is turned away although its certificate is good.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("this is {0}, which takes no control connections; dial the scheduler")]
    NotScheduler(PeerName),
    #[error("a join certificate is good for the scheduler only; register first")]
    JoinerWantsData,
    #[error("a {0:?} may not connect to a scheduler's control port")]
    Role(PeerRole),
    #[error("{peer} is not of this run, {run}")]
    OtherRun { peer: PeerName, run: String },
    #[error("the certificate names no peer")]
    Nameless,
    #[error("no frame within 5 s of connecting")]
    Late,
}

/// What accept tasks share.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) identity: Arc<IdentityCell>,
    pub(crate) incoming: mpsc::Sender<Incoming>,
    pub(crate) mtus: Arc<MtuTable>,
    pub(crate) lingering: Lingering,
    pub(crate) unreachable: Arc<Unreachable>,
    pub(crate) guests: Guests,
    pub(crate) pending: Arc<AtomicUsize>,
}

/// Counts a connection that has not shown itself yet.
struct Pending(Arc<AtomicUsize>);

impl Acceptor {
    fn pend(&self) -> Pending {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Pending(self.pending.clone())
    }

    fn pending_count(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    fn admit_quic(
        &self,
        connection: &quinn::Connection,
        purpose: Purpose,
    ) -> Result<PeerName, Refusal> {
        let identity = connection.peer_identity();
        let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
        self.admit(chain.as_ref().map(|chain| chain.as_slice()), purpose)
    }

    /// The peer that a certificate chain names, if it may connect for this purpose.
    fn admit(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        purpose: Purpose,
    ) -> Result<PeerName, Refusal> {
        let leaf = chain.and_then(<[_]>::first).ok_or(Refusal::Nameless)?;
        let peer = peer_name(leaf).map_err(|_| Refusal::Nameless)?;
        let own = self.identity.get();
        may_connect(peer, own.name(), purpose)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The rules on who may connect to whom.
fn may_connect(peer: PeerName, own: &PeerName, purpose: Purpose) -> Result<PeerName, Refusal> {
    if peer.run() != own.run() {
        return Err(Refusal::OtherRun { peer, run: own.run().to_owned() });
    }
    match purpose {
        Purpose::Control if own.role() != PeerRole::Scheduler => {
            Err(Refusal::NotScheduler(own.clone()))
        }
        Purpose::Control => match peer.role() {
            PeerRole::Join | PeerRole::Nanny | PeerRole::Process | PeerRole::Client => Ok(peer),
            PeerRole::Scheduler => Err(Refusal::Role(PeerRole::Scheduler)),
        },
        Purpose::Data if peer.role() == PeerRole::Join => Err(Refusal::JoinerWantsData),
        Purpose::Data => Ok(peer),
    }
}

/// Accepts QUIC connections until the endpoint closes.
pub(crate) async fn accept_quic(endpoint: quinn::Endpoint, acceptor: Acceptor) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    // Dropped with this task, and its tasks with it.
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let pending = acceptor.pending_count();
        if pending >= PENDING_MAX {
            incoming.ignore();
        } else if pending >= PENDING_UNPROVEN_MAX && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "could not ask a peer to prove its address");
            }
        } else {
            let (pending, places) = (acceptor.pend(), places.clone());
            let acceptor = acceptor.clone();
            tasks.spawn(async move {
                if let Some(connection) = shake_hands(incoming, &acceptor, &places).await {
                    serve_quic(connection, acceptor, pending).await;
                }
            });
        }
    }
}

/// Waits for a place and does the handshake; nothing if that fails.
async fn shake_hands(
    incoming: quinn::Incoming,
    acceptor: &Acceptor,
    places: &Semaphore,
) -> Option<quinn::Connection> {
    let remote = incoming.remote_address();
    let come = Instant::now();
    let place = places.acquire().await.ok()?;
    if come.elapsed() >= WAIT_TIME_MAX {
        incoming.ignore();
        return None;
    }
    let mtu = acceptor.mtus.towards(incoming.local_ip(), remote.ip());
    let mut config = server_config(&acceptor.identity.get());
    config.transport_config(accepted_transport(mtu));
    let mut connecting = incoming.accept_with(Arc::new(config)).ok()?;
    let quick = tokio::time::timeout(PLACE_TIME_MAX, &mut connecting).await;
    drop(place);
    let connected = match quick {
        Ok(connected) => Ok(connected),
        Err(_) => tokio::time::timeout(FIRST_FRAME_TIME_MAX, connecting).await,
    };
    match connected {
        Ok(Ok(connection)) => return Some(connection),
        Ok(Err(error)) => tracing::debug!(%remote, %error, "a handshake failed"),
        Err(_) => tracing::debug!(%remote, "a handshake took longer than 5 s"),
    }
    None
}

async fn serve_quic(connection: quinn::Connection, acceptor: Acceptor, pending: Pending) {
    let remote = connection.remote_address();
    let purpose = quic_purpose(&connection);
    let served = match acceptor.admit_quic(&connection, purpose) {
        Ok(peer) => match purpose {
            Purpose::Control => serve_control(&connection, &acceptor, peer).await,
            Purpose::Data => {
                drop(pending);
                serve_data(&connection, &acceptor, peer).await;
                Ok(())
            }
        },
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = served {
        tracing::debug!(%remote, %refusal, "a peer was turned away");
        connection.close(CODE_REFUSED, refusal.to_string().as_bytes());
    }
}

async fn serve_control(
    connection: &quinn::Connection,
    acceptor: &Acceptor,
    peer: PeerName,
) -> Result<(), Refusal> {
    let first = tokio::time::timeout(FIRST_FRAME_TIME_MAX, async {
        let (send, receive) = connection.accept_bi().await.ok()?;
        // The dialer keeps the link alive, so that we may send nothing for as long as it lives.
        let (peer_address, own) = (connection.remote_address(), connection.local_ip());
        let watch = acceptor.unreachable.watch_and_probe(peer_address, own);
        let mut link = Link::quic(connection.clone(), send, receive, watch, peer);
        link.first_frame().await.ok()?;
        Some(link)
    });
    match first.await {
        Ok(Some(link)) => hand_over(acceptor, Incoming::Control(link)).await,
        // The peer went away by itself.
        Ok(None) => {}
        Err(_) => return Err(Refusal::Late),
    }
    Ok(())
}

/// Serves a data connection until its dialer closes it.
async fn serve_data(connection: &quinn::Connection, acceptor: &Acceptor, peer: PeerName) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(DATA_STREAMS));
    let proofs = Proofs::of(connection);
    let _invitation = proofs.map(|proofs| acceptor.guests.invite(&peer, proofs));
    let mut watch = acceptor.unreachable.watch(connection.remote_address());
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept_bi() => accepted,
            () = watch.gone() => return connection.close(CODE_REFUSED, b"unreachable"),
        };
        let Ok((send, receive)) = accepted else {
            return;
        };
        let stream = DataStream::quic(send, receive, None, peer.clone());
        hand_over(acceptor, Incoming::Data { stream, peer: peer.clone() }).await;
    }
}

/// Accepts TCP connections until its task is dropped.
pub(crate) async fn accept_tls(listener: TcpListener, acceptor: Acceptor) {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, remote)) if acceptor.pending_count() < PENDING_MAX => {
                let pending = acceptor.pend();
                tasks.spawn(serve_tls(stream, remote, acceptor.clone(), pending));
            }
            Ok((_, remote)) => tracing::debug!(%remote, "too many handshakes pending"),
            Err(error) => {
                tracing::warn!(%error, "could not accept a TCP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_tls(stream: TcpStream, remote: SocketAddr, acceptor: Acceptor, _pending: Pending) {
    let greeted = greet_tls(stream, remote, &acceptor);
    match tokio::time::timeout(FIRST_FRAME_TIME_MAX, greeted).await {
        Ok(Some(incoming)) => hand_over(&acceptor, incoming).await,
        Ok(None) => {}
        Err(_) => tracing::debug!(%remote, refusal = %Refusal::Late, "a peer was turned away"),
    }
}

async fn greet_tls(stream: TcpStream, remote: SocketAddr, acceptor: &Acceptor) -> Option<Incoming> {
    tune_tcp(&stream);
    let tls = TlsAcceptor::from(acceptor.identity.get().server());
    let mut stream = match tls.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%remote, %error, "a handshake failed");
            return None;
        }
    };
    let session = stream.get_ref().1;
    let purpose = purpose_of(session.alpn_protocol());
    let peer = match acceptor.admit(session.peer_certificates(), purpose) {
        Ok(peer) => peer,
        Err(refusal) => {
            tracing::debug!(%remote, %refusal, "a peer was turned away");
            if let Err(error) = refuse_tls(&mut stream, &refusal).await {
                tracing::debug!(%remote, %error, "it may not know why");
            }
            return None;
        }
    };
    let wire = TlsWire::new(stream, acceptor.lingering.clone());
    if purpose == Purpose::Data {
        let stream = DataStream::tls(Box::new(wire), peer.clone());
        return Some(Incoming::Data { stream, peer });
    }
    let mut link = Link::tls(wire, remote, peer);
    link.first_frame().await.ok()?;
    Some(Incoming::Control(link))
}

async fn refuse_tls(
    stream: &mut tokio_rustls::server::TlsStream<TcpStream>,
    refusal: &Refusal,
) -> io::Result<()> {
    let mut farewell = Vec::new();
    push_close(&mut farewell, &refusal.to_string());
    stream.write_all(&farewell).await?;
    stream.shutdown().await?;
    // What the peer still sends must be read, or the kernel resets the connection under the
    // reason. Bounded by the caller's deadline.
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Gives a peer to whoever accepts. Waits while the queue is full, which in turn leaves further
/// peers pending.
async fn hand_over(acceptor: &Acceptor, incoming: Incoming) {
    if acceptor.incoming.send(incoming).await.is_err() {
        tracing::debug!("a peer connected while the endpoint closed");
    }
}

fn quic_purpose(connection: &quinn::Connection) -> Purpose {
    let handshake = connection.handshake_data();
    let handshake = handshake.as_ref().and_then(|any| any.downcast_ref::<HandshakeData>());
    purpose_of(handshake.and_then(|data| data.protocol.as_deref()))
}

fn purpose_of(alpn: Option<&[u8]>) -> Purpose {
    if alpn == Some(ALPN_DATA) { Purpose::Data } else { Purpose::Control }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(role: PeerRole, run: &str) -> PeerName {
        PeerName::new(role, 1, run).unwrap()
    }

    #[test]
    fn only_the_scheduler_takes_control_and_joiners_get_no_data() {
        use PeerRole::{Client, Join, Nanny, Process, Scheduler};
        let everyone = [Scheduler, Join, Nanny, Process, Client];
        for own in everyone {
            for peer in everyone {
                let control = own == Scheduler && peer != Scheduler;
                let data = peer != Join;
                for (purpose, allowed) in [(Purpose::Control, control), (Purpose::Data, data)] {
                    let verdict = may_connect(name(peer, "r1"), &name(own, "r1"), purpose);
                    assert_eq!(verdict.is_ok(), allowed, "{peer:?} to {own:?} for {purpose:?}");
                    assert!(may_connect(name(peer, "r2"), &name(own, "r1"), purpose).is_err());
                }
            }
        }
    }
}
