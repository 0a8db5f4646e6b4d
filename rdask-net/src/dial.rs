//! Dialling: a peer has a name and several addresses, of which the first that answers under that
//! name is taken.
//!
//! Addresses are tried a quarter of a second apart, so that one that swallows packets delays
//! nobody for long. QUIC has 5 s; where it gets no answer TLS over TCP may stand in.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::ConnectionError;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::identity::Identity;
use crate::interface::{MtuTable, route_to};
use crate::peer_name::PeerName;
use crate::socket::in_family;
use crate::tls_wire::{Lingering, TlsWire};
use crate::transport::{Purpose, SILENCE_MAX, Transport, client_config};
use crate::unreachable::Unreachable;

/// How long all addresses together have to answer, per transport.
const DIAL_TIME_MAX: Duration = Duration::from_secs(5);

/// How long an address has before the next one is tried beside it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Addresses tried per transport; a peer's list is no invitation to knock on a whole network.
const ADDRESSES_MAX: usize = 16;

/// A peer to dial: who it must be, and where it may be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its addresses for QUIC, best first.
    pub quic: Vec<SocketAddr>,
    /// Its addresses for TLS over TCP, best first; empty if it has none.
    pub tls: Vec<SocketAddr>,
    /// The name that its certificate must have, exactly.
    pub name: PeerName,
}

/// A peer could not be reached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// There is no address to try with the transports that are allowed.
    #[error("no address of {name} to dial with transport {transport:?}")]
    NoAddress {
        /// The peer.
        name: PeerName,
        /// The transports that are allowed here.
        transport: Transport,
    },
    /// No address answered as the peer.
    #[error("could not reach {name}: {attempts}")]
    Unreachable {
        /// The peer.
        name: PeerName,
        /// What was tried, and how each address failed.
        attempts: Attempts,
    },
    /// The connection broke before its first stream was open.
    #[error("the connection to {name} broke at once")]
    Broken {
        /// The peer.
        name: PeerName,
        /// How.
        #[source]
        source: ConnectionError,
    },
    /// This endpoint was closed.
    #[error("this endpoint is closed")]
    Closed,
    /// Somebody else had begun to dial the peer for all who waited.
    #[error(transparent)]
    Shared(Arc<Self>),
}

impl DialError {
    /// Whether every address was answered, by a node that has nobody there.
    #[must_use]
    pub fn is_nobody_there(&self) -> bool {
        let attempts = match self {
            Self::Unreachable { attempts, .. } => attempts,
            Self::Shared(error) => return error.is_nobody_there(),
            Self::NoAddress { .. } | Self::Broken { .. } | Self::Closed => return false,
        };
        attempts.iter().all(|attempt| match &attempt.cause {
            AttemptError::PortClosed | AttemptError::Family => true,
            AttemptError::Tls(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        })
    }
}

/// Every address that was tried, and how it failed.
#[derive(Debug)]
pub struct Attempts(Vec<Attempt>);

/// One address that was tried.
#[derive(Debug)]
pub struct Attempt {
    /// The address.
    pub address: SocketAddr,
    /// Why it failed.
    pub cause: AttemptError,
}

/// Why one address failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// No answer in time.
    #[error("no answer over QUIC in 4 to 5 s (nobody there, or UDP is blocked on the way)")]
    QuicSilent,
    /// No answer in time.
    #[error("no answer over TLS within 5 s (nobody there, or TCP is blocked on the way)")]
    TlsSilent,
    /// The node answers, but nobody has the port open.
    #[error("QUIC: nobody listens there (the file or address may be of an earlier start)")]
    PortClosed,
    /// The socket has no way to this kind of address.
    #[error("this endpoint's socket is for IPv4 only")]
    Family,
    /// Someone answered, but not the peer; or the peer refused us.
    #[error("QUIC: {0}")]
    Quic(#[source] ConnectionError),
    /// The dial could not even begin.
    #[error("QUIC: {0}")]
    Start(#[from] quinn::ConnectError),
    /// Someone answered, but not the peer; or nobody listens there.
    #[error("TLS: {0}")]
    Tls(#[from] io::Error),
}

impl Attempts {
    /// The attempts, in the order in which they failed.
    pub fn iter(&self) -> std::slice::Iter<'_, Attempt> {
        self.0.iter()
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", attempt.address, attempt.cause)?;
        }
        Ok(())
    }
}

/// All that a dial needs to know of this side.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) quic: Option<quinn::Endpoint>,
    pub(crate) mtus: Arc<MtuTable>,
    pub(crate) bind: IpAddr,
    pub(crate) transport: Transport,
    pub(crate) lingering: Lingering,
    pub(crate) unreachable: Arc<Unreachable>,
}

/// A connection over whichever transport got through.
pub(crate) enum Dialled {
    Quic(quinn::Connection),
    Tls(Box<TlsWire>, SocketAddr),
}

impl Dialer {
    /// Dials over the allowed transports; with `Auto` QUIC comes first unless `tls_first`.
    pub(crate) async fn dial(
        &self,
        target: &Target,
        identity: &Identity,
        purpose: Purpose,
        tls_first: bool,
    ) -> Result<Dialled, DialError> {
        let order = match self.transport {
            Transport::Quic => &[Transport::Quic][..],
            Transport::Tls => &[Transport::Tls],
            Transport::Auto if tls_first => &[Transport::Tls, Transport::Quic],
            Transport::Auto => &[Transport::Quic, Transport::Tls],
        };
        let mut failed = Vec::new();
        for transport in order {
            let dialled = if *transport == Transport::Tls {
                self.dial_tls(target, identity, purpose).await
            } else {
                self.dial_quic(target, identity, purpose).await
            };
            match dialled {
                Ok(dialled) => return Ok(dialled),
                Err(attempts) => failed.extend(attempts),
            }
        }
        let name = target.name.clone();
        if failed.is_empty() {
            return Err(DialError::NoAddress { name, transport: self.transport });
        }
        Err(DialError::Unreachable { name, attempts: Attempts(failed) })
    }

    async fn dial_quic(
        &self,
        target: &Target,
        identity: &Identity,
        purpose: Purpose,
    ) -> Result<Dialled, Vec<Attempt>> {
        let Some(endpoint) = &self.quic else {
            return Err(Vec::new());
        };
        let connect = |address| {
            let (endpoint, identity) = (endpoint.clone(), identity.clone());
            let (mtus, bind) = (self.mtus.clone(), self.bind);
            let (name, unreachable) = (target.name.to_string(), self.unreachable.clone());
            async move {
                let remote = in_family(address, bind.is_ipv6()).ok_or(AttemptError::Family)?;
                let local = if bind.is_unspecified() { route_to(address).ok() } else { Some(bind) };
                let mtu = mtus.towards(local, address.ip());
                let config = client_config(&identity, purpose, mtu);
                let mut watch = unreachable.watch(address);
                let connecting = endpoint.connect_with(config, remote, &name)?;
                tokio::select! {
                    connected = connecting => connected.map_err(|error| match error {
                        ConnectionError::TimedOut => AttemptError::QuicSilent,
                        other => AttemptError::Quic(other),
                    }),
                    () = watch.gone() => Err(AttemptError::PortClosed),
                }
            }
        };
        let silent = || AttemptError::QuicSilent;
        let (connection, _) = first_to_answer(&target.quic, connect, silent).await?;
        Ok(Dialled::Quic(connection))
    }

    pub(crate) async fn dial_tls(
        &self,
        target: &Target,
        identity: &Identity,
        purpose: Purpose,
    ) -> Result<Dialled, Vec<Attempt>> {
        let config = match purpose {
            Purpose::Control => identity.control_client(),
            Purpose::Data => identity.data_client(),
        };
        let connect = |address| {
            let (connector, bind) = (TlsConnector::from(config.clone()), self.bind);
            let name = target.name.to_string();
            async move {
                let stream = connect_tcp(address, bind).await?;
                tune_tcp(&stream);
                let name = ServerName::try_from(name).map_err(io::Error::other)?;
                Ok(connector.connect(name, stream).await?)
            }
        };
        let silent = || AttemptError::TlsSilent;
        let (stream, address) = first_to_answer(&target.tls, connect, silent).await?;
        let wire = TlsWire::new(stream, self.lingering.clone());
        Ok(Dialled::Tls(Box::new(wire), address))
    }
}

/// Tries addresses side by side, each started a moment after the one before it or when that
/// failed; the first connection wins and the others are dropped.
async fn first_to_answer<T, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
    silent: impl Fn() -> AttemptError,
) -> Result<(T, SocketAddr), Vec<Attempt>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, AttemptError>> + Send + 'static,
{
    let deadline = Instant::now() + DIAL_TIME_MAX;
    let mut waiting = addresses.iter().copied().take(ADDRESSES_MAX);
    let mut unanswered: Vec<SocketAddr> = Vec::new();
    let mut failed = Vec::new();
    // Dropped at the end, and with it the dials that lost.
    let mut dials = JoinSet::new();
    loop {
        let next = waiting.next();
        if let Some(address) = next {
            unanswered.push(address);
            let connecting = connect(address);
            dials.spawn(async move { (address, connecting.await) });
        }
        let until = match next {
            Some(_) => deadline.min(Instant::now() + NEXT_ADDRESS_AFTER),
            None => deadline,
        };
        match tokio::time::timeout_at(until, dials.join_next()).await {
            Ok(Some(Ok((address, Ok(connected))))) => return Ok((connected, address)),
            Ok(Some(Ok((address, Err(cause))))) => {
                unanswered.retain(|one| *one != address);
                failed.push(Attempt { address, cause });
            }
            Ok(Some(Err(broken))) => tracing::error!(%broken, "a dial ended by itself"),
            Ok(None) => return Err(failed),
            Err(_) if Instant::now() < deadline => {}
            Err(_) => {
                let cut = unanswered.into_iter();
                failed.extend(cut.map(|address| Attempt { address, cause: silent() }));
                return Err(failed);
            }
        }
    }
}

async fn connect_tcp(address: SocketAddr, bind: IpAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !bind.is_unspecified() && bind.is_ipv4() == address.is_ipv4() {
        socket.bind(SocketAddr::new(bind, 0))?;
    }
    socket.connect(address).await
}

/// Makes TCP send at once and notice a lost node about as soon as QUIC does. Best effort: a
/// connection with the system's settings still works.
pub(crate) fn tune_tcp(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    let results = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_keepalive(&probes),
        socket.set_tcp_user_timeout(Some(SILENCE_MAX)),
    ];
    if let Some(error) = results.into_iter().find_map(Result::err) {
        tracing::debug!(%error, "a TCP connection keeps the system's settings");
    }
}
