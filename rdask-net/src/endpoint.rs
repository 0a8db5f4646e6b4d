//! The endpoint: a peer's one place on the network, for listening and dialling.
//!
//! It owns the sockets, the tasks that accept on them and the pool of data connections. It refuses
//! whoever is not of its run before anyone else hears of them. Links and streams are their
//! takers'; the endpoint never reads or writes one.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::VarInt;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;

use crate::accept::{Acceptor, Incoming, accept_quic, accept_tls};
use crate::bind::{Sockets, advertised, bind_sockets};
use crate::data_stream::DataStream;
use crate::dial::{DialError, Dialer, Dialled, Target};
use crate::identity::Identity;
use crate::interface::MtuTable;
use crate::link::Link;
use crate::local::{self, Guests, Place, Proofs};
use crate::peer_name::PeerName;
use crate::pool::{Lease, Pool, Route, Slot};
use crate::socket::probe;
use crate::tls_wire::{Lingering, TlsWire};
use crate::transport::{Purpose, Transport, server_config};
use crate::unreachable::Unreachable;

/// Peers and streams that wait for [`Endpoint::accept`]. When full, further ones wait with their
/// tasks, and beyond those as pending handshakes.
const INCOMING_MAX: usize = 256;

/// How long closing waits for the last packets to be out.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(3);

/// How often the pool looks for connections that nobody uses.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// The code with which a closing endpoint ends its connections.
const CODE_ENDPOINT_CLOSED: VarInt = VarInt::from_u32(3);

/// How to bind an [`Endpoint`].
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Who this peer is, until [`Endpoint::set_identity`].
    pub identity: Identity,
    /// The address to bind; the wildcard binds all.
    pub bind: IpAddr,
    /// The ports to try in turn; `0..=0` takes any.
    pub ports: RangeInclusive<u16>,
    /// The transports in use.
    pub transport: Transport,
    /// Whether others may connect.
    pub accept: bool,
    /// Whether data streams within this host take a Unix socket beside the data connection, where
    /// there is one.
    pub local_sockets: bool,
    /// Whether the kernel or the network card cuts batches into datagrams. Off costs three times
    /// the CPU, and helps with drivers that get it wrong.
    pub segmentation_offload: bool,
}

impl EndpointConfig {
    /// An endpoint that listens and dials, on any port of all IPv4 addresses.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ports: 0..=0,
            transport: Transport::Auto,
            accept: true,
            local_sockets: true,
            segmentation_offload: true,
        }
    }

    /// An endpoint that only dials.
    pub fn dial_only(identity: Identity) -> Self {
        Self { accept: false, ..Self::new(identity) }
    }

    /// The same on 127.0.0.1 only, for clusters within one machine.
    #[must_use]
    pub fn on_loopback(self) -> Self {
        Self { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), ..self }
    }

    /// The same with the given transports.
    #[must_use]
    pub fn with_transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// The same with local sockets, or without.
    #[must_use]
    pub fn with_local_sockets(self, local_sockets: bool) -> Self {
        Self { local_sockets, ..self }
    }
}

/// An endpoint could not be bound.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// There is no async runtime to bind in.
    #[error("an endpoint must be bound inside a tokio runtime with I/O and time enabled")]
    NoRuntime,
    /// Every port failed.
    #[error(
        "could not bind {address}, ports {first} to {last}; give other ports, or an address of \
         this node"
    )]
    Ports {
        /// The address.
        address: IpAddr,
        /// The first port tried.
        first: u16,
        /// The last port tried.
        last: u16,
        /// Why the last one failed.
        #[source]
        source: io::Error,
    },
    /// The range of ports is empty.
    #[error("the range of ports is empty")]
    NoPorts,
}

/// The identity in use; swapped once, when a joiner gets its own.
pub(crate) struct IdentityCell(watch::Sender<Identity>);

impl IdentityCell {
    pub(crate) fn get(&self) -> Identity {
        self.0.borrow().clone()
    }

    fn set(&self, identity: Identity) {
        self.0.send_replace(identity);
    }
}

/// A peer's place on the network; clones are the same place.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Arc<IdentityCell>,
    dialer: Dialer,
    accepts: bool,
    local_sockets: bool,
    quic_addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    pool: Arc<Pool>,
    unreachable: Arc<Unreachable>,
    /// Whether QUIC failed where TLS worked, so that further dials need not wait for it again.
    tls_first: AtomicBool,
    /// Whether QUIC has ever worked: what fails then is the peer or the path, not UDP.
    quic_works: AtomicBool,
    /// Locked by whoever accepts; waits in turn.
    incoming: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    /// Accept loops, probes and the pool's sweeper; aborted when the last clone goes.
    tasks: Mutex<JoinSet<()>>,
}

impl Endpoint {
    /// Binds sockets and starts to listen, if asked to. Must run inside a tokio runtime, which
    /// then drives the endpoint; a current-thread runtime on a thread of its own has the lowest
    /// latency.
    ///
    /// # Errors
    ///
    /// A [`BindError`] if no port could be bound.
    pub async fn bind(config: EndpointConfig) -> Result<Self, BindError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BindError::NoRuntime);
        }
        let unreachable = Arc::new(Unreachable::default());
        let Sockets { quic, tls, datagrams } = bind_sockets(&config, &unreachable)?;
        let quic_bound = quic.as_ref().and_then(|endpoint| endpoint.local_addr().ok());
        let tls_bound = tls.as_ref().and_then(|listener| listener.local_addr().ok());
        let mtus = Arc::new(MtuTable::read());
        let identity = Arc::new(IdentityCell(watch::Sender::new(config.identity.clone())));
        let lingering = Lingering::default();
        let (sender, incoming) = mpsc::channel(INCOMING_MAX);
        let acceptor = Acceptor {
            identity: identity.clone(),
            incoming: sender,
            mtus: mtus.clone(),
            lingering: lingering.clone(),
            unreachable: unreachable.clone(),
            guests: Guests::default(),
            pending: Arc::default(),
        };
        let mut tasks = JoinSet::new();

        if config.accept && config.local_sockets {
            let (guests, incoming) = (acceptor.guests.clone(), acceptor.incoming.clone());
            tasks.spawn(local::accept(identity.0.subscribe(), guests, incoming));
        }
        if let Some(endpoint) = quic.clone().filter(|_| config.accept) {
            tasks.spawn(accept_quic(endpoint, acceptor.clone()));
            tasks.spawn(probe(datagrams));
        }
        if let Some(listener) = tls {
            tasks.spawn(accept_tls(listener, acceptor));
        }
        let pool = Arc::new(Pool::default());
        tasks.spawn(sweep(pool.clone()));
        let dialer = Dialer {
            quic,
            mtus,
            bind: config.bind,
            transport: config.transport,
            lingering,
            unreachable: unreachable.clone(),
        };
        let shared = Shared {
            identity,
            dialer,
            accepts: config.accept,
            local_sockets: config.local_sockets,
            quic_addresses: quic_bound.map(advertised).unwrap_or_default(),
            tls_addresses: tls_bound.map(advertised).unwrap_or_default(),
            pool,
            unreachable,
            tls_first: AtomicBool::new(false),
            quic_works: AtomicBool::new(false),
            incoming: tokio::sync::Mutex::new(incoming),
            tasks: Mutex::new(tasks),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where others reach this endpoint over QUIC (UDP), best first; empty without QUIC.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.quic_addresses.clone()
    }

    /// Where others reach this endpoint over TLS (TCP), best first; empty if it doesn't listen
    /// there.
    pub fn tls_addresses(&self) -> Vec<SocketAddr> {
        self.shared.tls_addresses.clone()
    }

    /// Who this endpoint is at present.
    pub fn identity(&self) -> Identity {
        self.shared.identity.get()
    }

    /// How others dial this endpoint.
    pub fn target(&self) -> Target {
        Target {
            quic: self.addresses(),
            tls: self.tls_addresses(),
            name: self.identity().name().clone(),
        }
    }

    /// Takes another identity for all later connections, as a joiner does when the scheduler has
    /// signed its own. Connections that exist keep theirs.
    pub fn set_identity(&self, identity: Identity) {
        if let Some(endpoint) = self.shared.dialer.quic.as_ref().filter(|_| self.shared.accepts) {
            endpoint.set_server_config(Some(server_config(&identity)));
        }
        self.shared.identity.set(identity);
    }

    /// The next peer or stream; `None` once the endpoint is closed or if it doesn't listen.
    ///
    /// Only peers with a certificate of the run come out of here. Several callers take turns.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    pub async fn accept(&self) -> Option<Incoming> {
        self.shared.incoming.lock().await.recv().await
    }

    /// Opens a control link: a connection of its own with one long stream.
    ///
    /// That the link exists does not mean that the peer took it: a peer that refuses our
    /// certificate says so after we think we are connected. Wait for its first frame.
    ///
    /// # Errors
    ///
    /// A [`DialError`] with every address tried.
    pub async fn dial_control(&self, to: &Target) -> Result<Link, DialError> {
        match self.dial(to, Purpose::Control).await? {
            Dialled::Quic(connection) => {
                let opened = connection.open_bi().await;
                let (send, receive) =
                    opened.map_err(|source| DialError::Broken { name: to.name.clone(), source })?;
                let watch = self.shared.unreachable.watch(connection.remote_address());
                Ok(Link::quic(connection, send, receive, watch, to.name.clone()))
            }
            Dialled::Tls(stream, address) => Ok(Link::tls(*stream, address, to.name.clone())),
        }
    }

    /// Finds a way to a peer for data, as [`open_data`](Self::open_data) would: dials it, unless that
    /// has been done.
    ///
    /// # Errors
    ///
    /// A [`DialError`] with every address tried.
    pub async fn reach(&self, to: &Target) -> Result<(), DialError> {
        let lease = self.shared.pool.lease(&to.name, Instant::now());
        self.route(to, lease.slot(), &mut None).await.map(drop)
    }

    /// Opens a stream for one get or put, on the pooled connection to that peer, or on the socket
    /// beside it if the peer is on this host. Waits while 16 streams to it are open already.
    ///
    /// # Errors
    ///
    /// A [`DialError`] with every address tried.
    pub async fn open_data(&self, to: &Target) -> Result<DataStream, DialError> {
        self.open(to, self.shared.local_sockets).await
    }

    /// The same, but never on a socket of this host: for a stream whose other end is to be nobody of
    /// this host in the peer's eyes.
    ///
    /// # Errors
    ///
    /// A [`DialError`] with every address tried.
    pub async fn open_data_by_network(&self, to: &Target) -> Result<DataStream, DialError> {
        self.open(to, false).await
    }

    /// How data gets to a peer. A TLS stream that was dialled to find out is `fresh`.
    async fn route<'slot>(
        &self,
        to: &Target,
        slot: &'slot Slot,
        fresh: &mut Option<Box<TlsWire>>,
    ) -> Result<&'slot Route, DialError> {
        let came = Instant::now();
        let dialled = slot.route.get_or_try_init(|| async {
            if let Some(error) = slot.failed_since(came) {
                return Err(error);
            }
            let own = self.identity().name().clone();
            match self.dial(to, Purpose::Data).await {
                Ok(Dialled::Quic(connection)) => {
                    self.spawn(close_when_gone(connection.clone(), &self.shared.unreachable));
                    Ok(Route::Quic(connection, own))
                }
                Ok(Dialled::Tls(stream, _)) => {
                    *fresh = Some(stream);
                    Ok(Route::Tls)
                }
                Err(error) => Err(slot.fail(error)),
            }
        });
        dialled.await
    }

    async fn open(&self, to: &Target, local: bool) -> Result<DataStream, DialError> {
        let mut first_try = true;
        loop {
            let lease = self.shared.pool.lease(&to.name, Instant::now());
            let mut fresh = None;
            let (connection, own) = match self.route(to, lease.slot(), &mut fresh).await? {
                Route::Quic(connection, own) => (connection.clone(), own),
                Route::Tls => {
                    let stream = match fresh {
                        Some(stream) => stream,
                        None => match self.dial(to, Purpose::Data).await? {
                            Dialled::Tls(stream, _) => stream,
                            Dialled::Quic(connection) => {
                                // UDP works again: start over with a place for it.
                                drop(connection);
                                self.shared.pool.forget(&to.name, &lease);
                                continue;
                            }
                        },
                    };
                    return Ok(DataStream::tls(stream, to.name.clone()));
                }
            };
            if local
                && let Some((stream, permit)) =
                    self.open_local(own, &to.name, &connection, &lease).await
            {
                let place = Place::Lease(lease, permit);
                return Ok(DataStream::local(stream, place, to.name.clone()));
            }
            match connection.open_bi().await {
                Ok((send, receive)) => {
                    return Ok(DataStream::quic(send, receive, Some(lease), to.name.clone()));
                }
                Err(source) => {
                    self.shared.pool.forget(&to.name, &lease);
                    if !first_try {
                        return Err(DialError::Broken { name: to.name.clone(), source });
                    }
                    first_try = false;
                }
            }
        }
    }

    /// A stream on the socket beside a data connection, by the name under which that was dialled, if
    /// that is there and is to be tried now.
    async fn open_local(
        &self,
        own: &PeerName,
        peer: &PeerName,
        connection: &quinn::Connection,
        lease: &Lease,
    ) -> Option<(UnixStream, OwnedSemaphorePermit)> {
        let way = &lease.slot().local;
        let permit = way.enter().await?;
        let began = Instant::now();
        match local::dial(own, peer, &Proofs::of(connection)?).await {
            Ok(stream) => {
                way.works();
                Some((stream, permit))
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "there is no local way now");
                way.refused(&error, began, Instant::now());
                None
            }
        }
    }

    /// Closes every connection and stops listening. Waits, at most 3 s, until peers have been
    /// told. What links had not delivered is lost: close those first.
    pub async fn close(&self) {
        self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if let Some(endpoint) = &self.shared.dialer.quic {
            endpoint.close(CODE_ENDPOINT_CLOSED, b"the peer's endpoint was closed");
            if tokio::time::timeout(CLOSE_TIME_MAX, endpoint.wait_idle()).await.is_err() {
                tracing::debug!("some peers may not know yet that this endpoint closed");
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    async fn dial(&self, to: &Target, purpose: Purpose) -> Result<Dialled, DialError> {
        let tls_first = self.shared.tls_first.load(Ordering::Relaxed);
        let identity = self.identity();
        let dialled = self.shared.dialer.dial(to, &identity, purpose, tls_first).await?;
        match dialled {
            Dialled::Quic(_) => {
                self.shared.quic_works.store(true, Ordering::Relaxed);
                self.shared.tls_first.store(false, Ordering::Relaxed);
            }
            Dialled::Tls(..) => {
                let quic_works = self.shared.quic_works.load(Ordering::Relaxed);
                let tls_first = !quic_works && !to.quic.is_empty();
                self.shared.tls_first.store(tls_first, Ordering::Relaxed);
            }
        }
        Ok(dialled)
    }
}

/// Closes a dialled data connection when its peer's port is found dead; ends with the connection.
fn close_when_gone(
    connection: quinn::Connection,
    unreachable: &Arc<Unreachable>,
) -> impl Future<Output = ()> + Send + 'static {
    let mut watch = unreachable.watch(connection.remote_address());
    async move {
        tokio::select! {
            _ = connection.closed() => {}
            () = watch.gone() => connection.close(CODE_ENDPOINT_CLOSED, b"unreachable"),
        }
    }
}

/// Closes data connections that nobody uses, for as long as the endpoint lives.
async fn sweep(pool: Arc<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        pool.sweep(Instant::now());
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("identity", &self.identity())
            .field("addresses", &self.shared.quic_addresses)
            .field("tls_addresses", &self.shared.tls_addresses)
            .finish_non_exhaustive()
    }
}
