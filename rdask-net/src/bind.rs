//! Sockets for an endpoint: the same port for UDP and TCP where both are wanted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use quinn::TokioRuntime;
use tokio::net::{TcpListener, TcpSocket};

use crate::endpoint::{BindError, EndpointConfig};
use crate::interface::advertised_addresses;
use crate::socket::{DatagramSocket, canonical};
use crate::transport::{Transport, endpoint_config, server_config};
use crate::unreachable::Unreachable;

/// Connections that the kernel holds for a TCP listener before we accept them.
const TCP_BACKLOG: u32 = 1024;

/// How often "any port" is asked for anew when the system gave one whose TCP twin is taken.
const ANY_PORT_TRIES: u16 = 16;

/// What an endpoint stands on; which of the two depends on its transports.
pub(crate) struct Sockets {
    pub(crate) quic: Option<quinn::Endpoint>,
    pub(crate) tls: Option<TcpListener>,
    /// What is below QUIC.
    pub(crate) datagrams: Weak<DatagramSocket>,
}

/// Binds the first port of the range that is free for every transport in use.
pub(crate) fn bind_sockets(
    config: &EndpointConfig,
    unreachable: &Arc<Unreachable>,
) -> Result<Sockets, BindError> {
    let (first, last) = (*config.ports.start(), *config.ports.end());
    let ports: Box<dyn Iterator<Item = u16>> = if (first, last) == (0, 0) {
        Box::new((0..ANY_PORT_TRIES).map(|_| 0))
    } else {
        Box::new(config.ports.clone())
    };
    let mut failed = None;
    for port in ports {
        match bind_port(config, port, unreachable) {
            Ok(sockets) => return Ok(sockets),
            Err(error) => failed = Some(error),
        }
    }
    let source = failed.ok_or(BindError::NoPorts)?;
    Err(BindError::Ports { address: config.bind, first, last, source })
}

fn bind_port(
    config: &EndpointConfig,
    port: u16,
    unreachable: &Arc<Unreachable>,
) -> io::Result<Sockets> {
    let mut address = SocketAddr::new(config.bind, port);
    let mut quic = None;
    let mut datagrams = Weak::new();
    if config.transport != Transport::Tls {
        let socket = Arc::new(DatagramSocket::bind(
            address,
            config.segmentation_offload,
            unreachable.clone(),
        )?);
        datagrams = Arc::downgrade(&socket);
        let server = config.accept.then(|| server_config(&config.identity));
        let runtime = Arc::new(TokioRuntime);
        let endpoint =
            quinn::Endpoint::new_with_abstract_socket(endpoint_config(), server, socket, runtime)?;
        address.set_port(endpoint.local_addr()?.port());
        quic = Some(endpoint);
    }
    let mut tls = None;
    if config.accept && config.transport != Transport::Quic {
        tls = Some(listen(address)?);
    }
    Ok(Sockets { quic, tls, datagrams })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted scheduler takes its port again while old connections still linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(TCP_BACKLOG)
}

/// What to tell others of a bound address: itself, or all of the node's for the wildcard.
pub(crate) fn advertised(bound: SocketAddr) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![canonical(bound)];
    }
    let reachable = |address: &IpAddr| address.is_ipv4() || bound.is_ipv6();
    match advertised_addresses() {
        Ok(addresses) => addresses
            .into_iter()
            .filter(reachable)
            .map(|address| SocketAddr::new(address, bound.port()))
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "no address to advertise; bind one explicitly");
            Vec::new()
        }
    }
}
