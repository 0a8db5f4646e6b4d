//! The UDP socket below QUIC: large buffers, and batches that fit what the kernel takes.
//!
//! The library batches up to ten datagrams into one send. With datagrams above 6550 bytes such a
//! batch exceeds 64 KiB, the kernel refuses it, the library swallows the refusal, takes it for a
//! black hole and falls back to 1200-byte datagrams, slower than it began (all measured). So
//! batches are split here.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::unreachable::{PROBE_EVERY, Probe, Unreachable, ask_for_errors, dead_ports};

/// The size of both kernel buffers, in bytes. The usual default of 208 KiB halves the speed of
/// large datagrams (0.86 instead of 1.53 GB/s: "data alone" of `cargo run --release -p rdask-net
/// --example wire`).
const BUFFER_BYTES: usize = 4 << 20;

/// The most payload that one send may carry: what an IPv4 packet holds.
const BATCH_BYTES_MAX: usize = 65_507;

/// A UDP socket as the QUIC library wants it.
pub(crate) struct DatagramSocket {
    io: UdpSocket,
    state: UdpSocketState,
    segmentation_offload: bool,
    is_ipv6: bool,
    unreachable: Arc<Unreachable>,
}

impl DatagramSocket {
    /// Binds a socket and raises its buffers as far as the system allows.
    pub(crate) fn bind(
        address: SocketAddr,
        segmentation_offload: bool,
        unreachable: Arc<Unreachable>,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // One socket for both families; peers over IPv4 appear as mapped addresses.
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        raise_buffers(&socket);
        if let Err(error) = ask_for_errors(&socket, address.is_ipv6()) {
            tracing::debug!(%error, "dead peers will be noticed by their silence only");
        }
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        let io = UdpSocket::from_std(socket)?;
        Ok(Self { io, state, segmentation_offload, is_ipv6: address.is_ipv6(), unreachable })
    }

    /// Sends, and sends again if the kernel used the occasion to report an earlier packet's fate:
    /// that call sent nothing.
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let socket = || (&self.io).into();
        self.io.try_io(Interest::WRITABLE, || match self.state.try_send(socket(), transmit) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.take_errors();
                self.state.send(socket(), transmit)
            }
            sent => sent,
        })
    }

    fn take_errors(&self) {
        self.send_probes(self.hints());
    }

    /// What to send after what the kernel says of our packets.
    fn hints(&self) -> Vec<Probe> {
        let dead = dead_ports(&self.io).into_iter();
        dead.flat_map(|dead| self.unreachable.hint(dead.address, &dead.quoted)).collect()
    }

    /// Ends because nobody gets more than one probe for hints in a round.
    fn send_probes(&self, mut probes: Vec<Probe>) {
        while !probes.is_empty() {
            let mut has_news = false;
            for probe in &probes {
                has_news |= self.send_probe(probe);
            }
            probes = if has_news { self.hints() } else { Vec::new() };
        }
    }

    /// Sends, and sends again after a call that only reported an earlier packet's fate: true then.
    /// Any other failure is for the next round to make good.
    fn send_probe(&self, probe: &Probe) -> bool {
        let Some(destination) = in_family(probe.to, self.is_ipv6) else { return false };
        let transmit = Transmit {
            destination,
            ecn: None,
            contents: &probe.bytes,
            segment_size: None,
            src_ip: probe.from,
        };
        let send = || self.state.try_send((&self.io).into(), &transmit);
        match self.io.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                let _ = self.io.try_io(Interest::WRITABLE, send);
                true
            }
            Ok(()) | Err(_) => false,
        }
    }
}

/// Probes the peers of accepted links for as long as the socket is there.
pub(crate) async fn probe(socket: Weak<DatagramSocket>) {
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        let Some(socket) = socket.upgrade() else { return };
        socket.send_probes(socket.unreachable.next_round());
    }
}

impl AsyncUdpSocket for DatagramSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritePoller { socket: self, waiting: None })
    }

    /// A batch that is too large goes out in parts. If the kernel's buffer fills up in between,
    /// the library sends the whole batch again; receivers drop what they have by packet number.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if transmit.contents.len() <= BATCH_BYTES_MAX {
            return self.send(transmit);
        }
        let Some(segment) = transmit.segment_size else {
            return self.send(transmit);
        };
        let part_bytes = (BATCH_BYTES_MAX / segment.max(1)).max(1) * segment.max(1);
        for contents in transmit.contents.chunks(part_bytes) {
            self.send(&Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn,
                contents,
                segment_size: (contents.len() > segment).then_some(segment),
                src_ip: transmit.src_ip,
            })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received = self
                .io
                .try_io(Interest::READABLE, || self.state.recv((&self.io).into(), buffers, meta));
            match received {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Reading fails for the fate of packets sent earlier, never for good.
                Err(_) => self.take_errors(),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        if self.segmentation_offload { self.state.max_gso_segments() } else { 1 }
    }

    /// One, because each receive buffer holds the largest datagram, and the kernel never joins
    /// more than that. The library would otherwise allocate 64 times as much.
    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for DatagramSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSocket").field("io", &self.io).finish_non_exhaustive()
    }
}

/// Waits for room in the kernel's buffer, for one of any number of connections.
struct WritePoller {
    socket: Arc<DatagramSocket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for WritePoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.clone();
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(async move { socket.io.writable().await }));
        let result = waiting.as_mut().poll(cx);
        if result.is_ready() {
            self.waiting = None;
        }
        result
    }
}

impl fmt::Debug for WritePoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritePoller").finish_non_exhaustive()
    }
}

/// The address as a socket of the given family needs it; `None` if it can't reach it.
pub(crate) fn in_family(address: SocketAddr, socket_is_ipv6: bool) -> Option<SocketAddr> {
    match (address, socket_is_ipv6) {
        (SocketAddr::V4(v4), true) => {
            Some(SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()))
        }
        (SocketAddr::V6(v6), false) => {
            let v4 = v6.ip().to_ipv4_mapped()?;
            Some(SocketAddr::new(IpAddr::V4(v4), v6.port()))
        }
        (SocketAddr::V4(_), false) | (SocketAddr::V6(_), true) => Some(address),
    }
}

/// The address as people know it: never IPv4 dressed as IPv6.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn raise_buffers(socket: &socket2::Socket) {
    // Best effort: the kernel caps both at net.core.rmem_max and wmem_max.
    let results =
        [socket.set_recv_buffer_size(BUFFER_BYTES), socket.set_send_buffer_size(BUFFER_BYTES)];
    let obtained = socket.recv_buffer_size().unwrap_or(0);
    if results.iter().any(Result::is_err) || obtained < BUFFER_BYTES {
        tracing::info!(
            wanted_bytes = BUFFER_BYTES,
            obtained_bytes = obtained,
            "small socket buffers slow transfers down; raise net.core.rmem_max and wmem_max"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_move_between_families() {
        let v4: SocketAddr = "10.0.0.1:5".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:5".parse().unwrap();
        let v6: SocketAddr = "[fd00::1]:5".parse().unwrap();
        assert_eq!(in_family(v4, true), Some(mapped));
        assert_eq!(in_family(mapped, false), Some(v4));
        assert_eq!(in_family(v6, false), None);
        assert_eq!(canonical(mapped), v4);
    }
}
