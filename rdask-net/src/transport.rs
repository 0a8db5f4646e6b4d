//! How QUIC is tuned: windows, timers and sizes, each for a reason that was measured.
//!
//! One rule stands over all numbers: a connection's own windows are never smaller than its streams
//! times their windows. Otherwise one stream that nobody reads shuts out the others for seconds.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};

use crate::identity::Identity;
use crate::interface::PathMtu;

/// Which wire a peer speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC, and TLS over TCP where QUIC doesn't get through within 5 s.
    #[default]
    Auto,
    /// QUIC only.
    Quic,
    /// TLS over TCP only.
    Tls,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Control,
    Data,
}

/// After this much silence a control connection is lost. Two seconds of silence always survive;
/// the scheduler's own verdict on a node falls at 5 s.
pub const SILENCE_MAX: Duration = Duration::from_secs(4);

/// How often the dialer of a control connection says that it is there: eight times per idle time.
const CONTROL_KEEP_ALIVE: Duration = Duration::from_millis(500);

/// After this much silence a data connection is lost; the pool closes unused ones at the same age.
pub(crate) const DATA_IDLE: Duration = Duration::from_secs(30);

/// A third of the idle time, so that a slow get survives two lost packets.
const DATA_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The first guess of a round trip. The library's 333 ms makes one lost handshake packet cost a
/// second.
const INITIAL_RTT: Duration = Duration::from_millis(20);

/// Streams on a control connection: one is used.
const CONTROL_STREAMS: u32 = 4;

/// Streams on a data connection: further gets wait for one of these. The library allocates them
/// ahead, 2 KiB each.
pub(crate) const DATA_STREAMS: u32 = 16;

/// What may be under way to us on one stream. It is also the queue that a control message of the
/// same thread may have to wait behind. Over loopback (`cargo run --release -p rdask-net --example
/// wire`, with each) 256 KiB give 0.9 to 1.0 GB/s beside pings with a p99 of 0.4 ms, 512 KiB 1.2
/// GB/s and 0.7 ms, 1 MiB 1.4 GB/s and 1.2 to 3.8 ms. Between processes that have more to do 1 MiB is
/// a tenth faster and takes a tenth less CPU than 512 KiB: a third of the waking is gone.
const DATA_STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// The same for what the scheduler sends on a control connection.
const CONTROL_STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// What we buffer for a peer that doesn't acknowledge.
const CONTROL_SEND_WINDOW_BYTES: u64 = 8 << 20;
const DATA_SEND_WINDOW_BYTES: u64 = 32 << 20;

/// What may be under way before the first acknowledgement. Below the size of one datagram nothing
/// is ever sent (a trap of the library with loopback's MTU), so: a handful of the largest.
const INITIAL_WINDOW_BYTES: u64 = 512 << 10;

/// The largest datagram that a peer may send us; also what makes room for discovery above 1472.
const DATAGRAM_BYTES_MAX: u16 = 65_527;

/// The largest datagram that discovery looks for.
const DISCOVERED_BYTES_MAX: usize = 65_000;

/// What every path carries, as QUIC demands.
const DATAGRAM_BYTES_MIN: usize = 1200;

/// An IPv6 header and a UDP header.
const HEADERS_BYTES: usize = 48;

/// Handshakes that a listener holds before their peer has shown itself; each costs up to 42 KiB.
pub(crate) const PENDING_MAX: usize = 1024;

/// Above this many pending handshakes a stranger must prove its address first.
pub(crate) const PENDING_UNPROVEN_MAX: usize = 256;

pub(crate) fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(DATAGRAM_BYTES_MAX).expect("65,527 is within the library's limits");
    config
}

/// A listener's configuration, but for the transport of each connection.
///
/// What a connection is for is known only after its handshake. So the shorter idle time of a
/// control connection is the dialer's to ask for, and the streams of a data connection are granted
/// later.
pub(crate) fn server_config(identity: &Identity) -> ServerConfig {
    let crypto = QuicServerConfig::try_from(identity.server())
        .expect("the TLS configuration has AES-128, which QUIC needs");
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .migration(false)
        .max_incoming(PENDING_MAX)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(8 << 20);
    config
}

/// The transport of accepted connections over a path.
pub(crate) fn accepted_transport(mtu: PathMtu) -> Arc<TransportConfig> {
    let mut transport = base_transport(mtu);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(CONTROL_STREAMS))
        .stream_receive_window(VarInt::from_u32(DATA_STREAM_WINDOW_BYTES))
        .send_window(DATA_SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(idle(DATA_IDLE)));
    Arc::new(transport)
}

/// A dialer's configuration for a connection over a path.
pub(crate) fn client_config(identity: &Identity, purpose: Purpose, mtu: PathMtu) -> ClientConfig {
    let tls = match purpose {
        Purpose::Control => identity.control_client(),
        Purpose::Data => identity.data_client(),
    };
    let crypto = QuicClientConfig::try_from(tls)
        .expect("the TLS configuration has AES-128, which QUIC needs");
    let mut transport = base_transport(mtu);
    // The acceptor opens no streams.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    match purpose {
        Purpose::Control => transport
            .stream_receive_window(VarInt::from_u32(CONTROL_STREAM_WINDOW_BYTES))
            .send_window(CONTROL_SEND_WINDOW_BYTES)
            .max_idle_timeout(Some(idle(SILENCE_MAX)))
            .keep_alive_interval(Some(CONTROL_KEEP_ALIVE)),
        Purpose::Data => transport
            .stream_receive_window(VarInt::from_u32(DATA_STREAM_WINDOW_BYTES))
            .send_window(DATA_SEND_WINDOW_BYTES)
            .max_idle_timeout(Some(idle(DATA_IDLE)))
            .keep_alive_interval(Some(DATA_KEEP_ALIVE)),
    };
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

fn base_transport(mtu: PathMtu) -> TransportConfig {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(cubic))
        .mtu_discovery_config(Some(discovery(mtu)));
    if let PathMtu::Known(mtu) = mtu {
        // A search up to loopback's MTU sends some 700 KiB of padding each way, which the library
        // goes through byte by byte: 8 ms of CPU on either side of every new connection.
        transport.initial_mtu(payload_max(mtu));
    }
    transport
}

fn discovery(mtu: PathMtu) -> MtuDiscoveryConfig {
    let (PathMtu::Known(mtu) | PathMtu::AtMost(mtu)) = mtu;
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(payload_max(mtu));
    discovery
}

/// The largest datagram that a packet of so many bytes carries.
fn payload_max(mtu: usize) -> u16 {
    let bound = mtu.saturating_sub(HEADERS_BYTES).clamp(DATAGRAM_BYTES_MIN, DISCOVERED_BYTES_MAX);
    u16::try_from(bound).unwrap_or(u16::MAX)
}

fn idle(time: Duration) -> IdleTimeout {
    IdleTimeout::try_from(time).expect("seconds fit the protocol's milliseconds")
}
