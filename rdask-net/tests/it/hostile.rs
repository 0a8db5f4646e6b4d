//! Strangers: without a certificate, with another run's, with garbage, or with nothing to say.

use std::io::Write;
use std::sync::Arc;

use rdask_net::{Endpoint, LinkError, PeerRole, Transport};

use crate::cluster::{Cluster, Ends, accept_control, endpoint, on_both_transports, run, soon};

on_both_transports!(
    another_run_never_comes_out_of_accept,
    a_leaked_join_certificate_can_not_listen,
    an_overlong_frame_ends_the_link_only,
);

/// Fails if anyone comes out while the attack runs.
async fn nobody_comes_out(endpoint: &Endpoint, attack: impl Future<Output = ()>) {
    tokio::select! {
        () = attack => {}
        incoming = endpoint.accept() => panic!("a stranger came out: {incoming:?}"),
    }
}

/// The endpoint still lets an honest peer in.
async fn still_works(cluster: &Cluster, scheduler: &Endpoint) {
    let client = cluster.endpoint(PeerRole::Client, 77).await;
    let (mut near, mut far) = cluster.linked(&client, scheduler).await;
    far.send(b"welcome").await;
    assert_eq!(near.receive().await.unwrap().unwrap(), "welcome");
}

async fn another_run_never_comes_out_of_accept(transport: Transport) {
    let (cluster, other) = (Cluster::new(transport), Cluster::new(transport));
    let scheduler = cluster.scheduler().await;
    let stranger = other.endpoint(PeerRole::Client, 1).await;
    nobody_comes_out(&scheduler, async {
        // Of the same run id, but of another authority: the stranger refuses us ...
        let error =
            soon("a refusal", stranger.dial_control(&scheduler.target())).await.unwrap_err();
        assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    })
    .await;
    // ... and one that trusts our authority is refused by us.
    let foreign = other.identity(PeerRole::Client, 1);
    let config = foreign_client(&cluster, foreign.certificate_der(), foreign.key_der());
    nobody_comes_out(&scheduler, intrude(&scheduler, Some(config), transport)).await;
    let config = nameless_client(&cluster);
    nobody_comes_out(&scheduler, intrude(&scheduler, Some(config), transport)).await;
    still_works(&cluster, &scheduler).await;
}

async fn a_leaked_join_certificate_can_not_listen(transport: Transport) {
    let cluster = Cluster::new(transport);
    let thief = cluster.endpoint(PeerRole::Join, 0).await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    // Even under its own name.
    let error = soon("a refusal", client.dial_control(&thief.target())).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

async fn an_overlong_frame_ends_the_link_only(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let (mut near, mut far) = cluster.linked(&client, &scheduler).await;
    near.sender.send(&[0xfe; 100]).await.unwrap();
    let error = far.receive().await.unwrap_err();
    assert!(matches!(error, LinkError::Protocol { .. }), "{error}");
    drop(far);
    assert!(near.receive().await.is_err());
    still_works(&cluster, &scheduler).await;
}

fn client_builder(
    cluster: &Cluster,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cluster.authority.ca_der().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}

fn nameless_client(cluster: &Cluster) -> rustls::ClientConfig {
    let mut config = client_builder(cluster).with_no_client_auth();
    config.alpn_protocols = vec![b"rdask".to_vec()];
    config
}

fn foreign_client(cluster: &Cluster, certificate: &[u8], key: &[u8]) -> rustls::ClientConfig {
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.to_vec());
    let chain = vec![certificate.to_vec().into()];
    let mut config = client_builder(cluster).with_client_auth_cert(chain, key.into()).unwrap();
    config.alpn_protocols = vec![b"rdask".to_vec()];
    config
}

/// Connects with any TLS configuration and says hello; must end in an error.
async fn intrude(scheduler: &Endpoint, config: Option<rustls::ClientConfig>, transport: Transport) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let config = Arc::new(config.unwrap());
    let name = "scheduler.r1.rdask";
    if transport == Transport::Tls {
        let stream = tokio::net::TcpStream::connect(scheduler.tls_addresses()[0]).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let mut stream = connector.connect(name.try_into().unwrap(), stream).await.unwrap();
        // The refusal may arrive while we write.
        let _ = stream.write_all(&[1, 0, 0, 0, 7]).await;
        let read = soon("a refusal", stream.read_to_end(&mut Vec::new())).await;
        assert!(read.is_err());
        return;
    }
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, scheduler.addresses()[0], name).unwrap();
    let connection = soon("a handshake", connecting).await.unwrap();
    if let Ok((mut send, _receive)) = connection.open_bi().await {
        let _ = send.write_all(&[1, 0, 0, 0, 7]).await;
        soon("a refusal", connection.closed()).await;
    }
    assert!(connection.close_reason().is_some());
}

#[test]
fn garbage_datagrams_and_cut_off_handshakes_change_nothing() {
    run(async {
        let cluster = Cluster::new(Transport::Quic);
        let scheduler = cluster.scheduler().await;
        let to = scheduler.addresses()[0];
        still_works(&cluster, &scheduler).await;
        let before = resident_bytes();
        let attack = async {
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut state = 1_u64;
            for round in 0..10_000_usize {
                let mut datagram = vec![0; 1 + round % 1400];
                for byte in &mut datagram {
                    // A linear congruence: same garbage every time.
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = (state >> 56) as u8;
                }
                if round % 2 == 0 {
                    // Looks like the first packet of a version 1 handshake.
                    datagram.resize(1200, 0);
                    datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
                    datagram[14..18].copy_from_slice(&[0, 0, 0x44, 0x96]);
                }
                socket.send_to(&datagram, to).await.unwrap();
                if round % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        nobody_comes_out(&scheduler, attack).await;
        still_works(&cluster, &scheduler).await;
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    });
}

#[test]
fn peers_that_say_nothing_more_hold_up_nobody() {
    run(async {
        let cluster = Cluster::new(Transport::Quic);
        let scheduler = cluster.scheduler().await;
        // More than are worked on at once. Without an answer to what it said, a handshake lasts 5 s;
        // an honest peer gives up after 4 s.
        let mut held = Vec::new();
        for first in first_packets(&cluster, 100).await {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(&first, scheduler.addresses()[0]).unwrap();
            held.push(socket);
        }
        still_works(&cluster, &scheduler).await;
    });
}

#[test]
fn three_hundred_peers_at_once_all_get_in() {
    run(async {
        let cluster = Cluster::new(Transport::Quic);
        let scheduler = cluster.scheduler().await;
        let mut dials = tokio::task::JoinSet::new();
        for id in 0..300 {
            let (client, to) = (cluster.endpoint(PeerRole::Client, id).await, scheduler.target());
            dials.spawn(async move {
                let mut near = Ends::of(client.dial_control(&to).await.unwrap());
                near.send(b"hello").await;
                (client, near)
            });
        }
        let mut names = std::collections::BTreeSet::new();
        while names.len() < 300 {
            names.insert(accept_control(&scheduler).await.peer().to_string());
        }
        assert_eq!(dials.join_all().await.len(), 300);
    });
}

/// The packets by which so many handshakes begin.
async fn first_packets(cluster: &Cluster, count: usize) -> Vec<Vec<u8>> {
    let catcher = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = catcher.local_addr().unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(nameless_client(cluster));
    let config = quinn::ClientConfig::new(Arc::new(crypto.unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connect = |_| endpoint.connect_with(config.clone(), to, "scheduler.r1.rdask").unwrap();
    let _connecting: Vec<_> = (0..count).map(connect).collect();
    let mut packets = std::collections::BTreeMap::new();
    let mut buffer = [0; 1500];
    while packets.len() < count {
        let received = soon("a first packet", catcher.recv(&mut buffer)).await.unwrap();
        // By the connection's name: a packet may come twice.
        packets.insert(buffer[6..14].to_vec(), buffer[..received].to_vec());
    }
    packets.into_values().collect()
}

#[test]
fn silent_and_babbling_tcp_connections_change_nothing() {
    run(async {
        let cluster = Cluster::new(Transport::Tls);
        let scheduler = cluster.scheduler().await;
        let to = scheduler.tls_addresses()[0];
        let attack = async {
            let mut held = Vec::new();
            for round in 0..200_u8 {
                let mut stream = std::net::TcpStream::connect(to).unwrap();
                if round % 2 == 0 {
                    stream.write_all(&[round; 300]).unwrap();
                }
                held.push(stream);
                tokio::task::yield_now().await;
            }
        };
        nobody_comes_out(&scheduler, attack).await;
        still_works(&cluster, &scheduler).await;
    });
}

#[test]
fn a_peer_without_a_first_frame_is_turned_away_in_time() {
    run(async {
        let cluster = Cluster::new(Transport::Quic);
        let scheduler = cluster.scheduler().await;
        let client = endpoint(cluster.identity(PeerRole::Client, 1), Transport::Quic).await;
        let mut mute = Ends::of(client.dial_control(&scheduler.target()).await.unwrap());
        nobody_comes_out(&scheduler, async {
            let error = mute.receive().await.unwrap_err();
            let LinkError::Closed { reason, .. } = error else { panic!("{error}") };
            assert!(reason.contains("no frame within 5 s"), "{reason}");
        })
        .await;
    });
}

/// What the process occupies, in bytes.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
