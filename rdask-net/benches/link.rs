//! What a wire costs: frames without any wire, messages one way, a message there and back, bulk.
//! Each over QUIC as peers have it, over our stand-in for it, and over a bare TLS stream with the
//! same certificates. Figures of one run compare; those of two machines don't.
//!
//!     cargo bench -p rdask-net

#![allow(missing_docs, reason = "criterion's macros write items without")]
#![allow(clippy::unwrap_used, reason = "who can't connect to itself measures nothing")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rdask_net::{
    Authority, DataStream, Endpoint, EndpointConfig, FrameDecoder, FrameReceiver, FrameSender,
    Identity, Incoming, Link, PeerName, PeerRole, Target, Transport, push_frame,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The length of a message: a report of a few tasks.
const MESSAGE_BYTES: usize = 64;
const MESSAGES: usize = 20_000;

/// So much is gathered for one write, and read at once.
const WRITE_BYTES: usize = 64 << 10;

const BULK_BYTES: usize = 64 << 20;
const CHUNK_BYTES: usize = 256 << 10;

/// The first byte of a message: whether it is to be answered.
const SILENT: u8 = 0;
const ANSWER: u8 = 1;

/// What a connection to the bare server is for.
const CONTROL: u8 = 0;
const BULK: u8 = 1;

const NAME: &str = "scheduler.bench.rdask";

const QUIC: &str = "quic";
const TLS: &str = "tls";
const BARE: &str = "bare tls";
const WIRES: [&str; 3] = [QUIC, TLS, BARE];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn message(first: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    push_frame(&mut frame, |body| {
        body.push(first);
        body.resize(body.len() + MESSAGE_BYTES - 1, 7);
    })
    .unwrap();
    frame
}

/// A stream of frames over any of the wires.
enum Frames {
    Link(FrameSender, FrameReceiver),
    Bare(Box<TlsStream<TcpStream>>, FrameDecoder, Vec<u8>),
}

impl Frames {
    fn of(link: Link) -> Self {
        let (sender, receiver) = link.split();
        Self::Link(sender, receiver)
    }

    fn bare(stream: TlsStream<TcpStream>) -> Self {
        Self::Bare(Box::new(stream), FrameDecoder::new(), vec![0; WRITE_BYTES])
    }

    async fn send(&mut self, frames: &[u8]) {
        match self {
            Self::Link(sender, _) => sender.send(frames).await.unwrap(),
            Self::Bare(stream, ..) => {
                stream.write_all(frames).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    }

    /// The next frame, or nothing at the end.
    async fn receive(&mut self) -> Option<Bytes> {
        match self {
            Self::Link(_, receiver) => receiver.recv().await.ok().flatten(),
            Self::Bare(stream, decoder, buffer) => loop {
                if let Some(frame) = decoder.next_frame().unwrap() {
                    return Some(frame);
                }
                match stream.read(buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(count) => decoder.push(&buffer[..count]),
                }
            },
        }
    }

    /// Answers what asks for it until the other side has gone.
    async fn answer(mut self) {
        let answer = message(SILENT);
        while let Some(frame) = self.receive().await {
            if frame[0] == ANSWER {
                self.send(&answer).await;
            }
        }
    }
}

/// Where the three servers of one run are, and who dials them.
struct Servers {
    quic: Target,
    tls: Target,
    bare: SocketAddr,
    dialer: Identity,
}

impl Servers {
    /// Serves on a thread of its own, as long as the program runs.
    fn start() -> Self {
        let authority = Authority::new("bench").unwrap();
        let own = authority.issue(&PeerName::scheduler("bench").unwrap()).unwrap();
        let dialer = PeerName::new(PeerRole::Process, 1, "bench").unwrap();
        let dialer = authority.issue(&dialer).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let quic = endpoint(&own, Transport::Quic).await;
                let tls = endpoint(&own, Transport::Tls).await;
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send((quic.target(), tls.target(), listener.local_addr().unwrap())).unwrap();
                tokio::join!(serve(&quic), serve(&tls), serve_bare(listener, &own));
            });
        });
        let (quic, tls, bare) = told.recv().unwrap();
        Self { quic, tls, bare, dialer }
    }

    async fn bare(&self, purpose: u8) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.bare).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(Arc::new(client_config(&self.dialer)));
        let connected = connector.connect(NAME.try_into().unwrap(), stream).await;
        let mut stream = TlsStream::from(connected.unwrap());
        stream.write_u8(purpose).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    /// A connection of a kind, and the endpoint that carries it. Nobody else keeps it alive: an idle
    /// one is closed by the time that others have been measured.
    async fn connect(&self, wire: &str) -> (Option<Endpoint>, Frames) {
        let (transport, to) = match wire {
            QUIC => (Transport::Quic, &self.quic),
            TLS => (Transport::Tls, &self.tls),
            _ => return (None, Frames::bare(self.bare(CONTROL).await)),
        };
        let endpoint = endpoint(&self.dialer, transport).await;
        let link = endpoint.dial_control(to).await.unwrap();
        (Some(endpoint), Frames::of(link))
    }
}

async fn endpoint(identity: &Identity, transport: Transport) -> Endpoint {
    let config = EndpointConfig::new(identity.clone()).on_loopback().with_transport(transport);
    Endpoint::bind(config).await.unwrap()
}

async fn serve(endpoint: &Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        match incoming {
            Incoming::Control(link) => drop(tokio::spawn(Frames::of(link).answer())),
            Incoming::Data { stream, .. } => drop(tokio::spawn(give(stream))),
        }
    }
}

/// Writes as much as is asked for.
async fn give(mut stream: DataStream) {
    let asked = stream.read_u64_le().await.unwrap();
    let chunk = Bytes::from(vec![5; CHUNK_BYTES]);
    for _ in 0..asked as usize / CHUNK_BYTES {
        stream.write_bytes(chunk.clone()).await.unwrap();
    }
    stream.finish().await.unwrap();
}

async fn serve_bare(listener: TcpListener, own: &Identity) {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(own)));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = TlsStream::from(acceptor.accept(stream).await.unwrap());
        tokio::spawn(async move {
            match stream.read_u8().await.unwrap() {
                CONTROL => Frames::bare(stream).answer().await,
                _ => give_bare(stream).await,
            }
        });
    }
}

/// The same on a bare stream, as often as it is asked.
async fn give_bare(mut stream: TlsStream<TcpStream>) {
    let chunk = vec![5; CHUNK_BYTES];
    while let Ok(asked) = stream.read_u64_le().await {
        for _ in 0..asked as usize / CHUNK_BYTES {
            stream.write_all(&chunk).await.unwrap();
        }
        stream.flush().await.unwrap();
    }
}

/// Only AES-128, as links have it first.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}

type Credentials =
    (Arc<rustls::RootCertStore>, Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>);

fn credentials(identity: &Identity) -> Credentials {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.ca_der().to_vec().into()).unwrap();
    let chain = vec![identity.certificate_der().to_vec().into()];
    (Arc::new(roots), chain, identity.key_der().to_vec().into())
}

fn client_config(identity: &Identity) -> rustls::ClientConfig {
    let (roots, chain, key) = credentials(identity);
    rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key.into())
        .unwrap()
}

fn server_config(identity: &Identity) -> rustls::ServerConfig {
    let (roots, chain, key) = credentials(identity);
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider());
    rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key.into())
        .unwrap()
}

/// Frames, without a wire: written, and cut again.
fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let body = [7; MESSAGE_BYTES];
    group.bench_function("push", |bencher| {
        let mut frames = Vec::new();
        bencher.iter(|| {
            frames.clear();
            for _ in 0..MESSAGES {
                push_frame(&mut frames, |out| out.extend_from_slice(&body)).unwrap();
            }
            frames.len()
        });
    });
    let frames = message(SILENT).repeat(MESSAGES);
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let (mut decoder, mut count) = (FrameDecoder::new(), 0);
            for read in frames.chunks(WRITE_BYTES) {
                decoder.push(read);
                while decoder.next_frame().unwrap().is_some() {
                    count += 1;
                }
            }
            assert_eq!(count, MESSAGES);
        });
    });
    group.finish();
}

/// Messages one way, gathered as a busy peer does, and an answer to the last.
fn messages(criterion: &mut Criterion) {
    let (servers, runtime) = (Servers::start(), runtime());
    let mut frames = message(SILENT).repeat(MESSAGES - 1);
    frames.extend(message(ANSWER));
    let mut group = criterion.benchmark_group("messages");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for name in WIRES {
        let (_endpoint, mut wire) = runtime.block_on(servers.connect(name));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    for write in frames.chunks(WRITE_BYTES) {
                        wire.send(write).await;
                    }
                    wire.receive().await.unwrap()
                })
            });
        });
    }
    group.finish();
}

/// One message there and one back.
fn ping_pong(criterion: &mut Criterion) {
    let (servers, runtime) = (Servers::start(), runtime());
    let ping = message(ANSWER);
    let mut group = criterion.benchmark_group("there and back");
    for name in WIRES {
        let (_endpoint, mut wire) = runtime.block_on(servers.connect(name));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    wire.send(&ping).await;
                    wire.receive().await.unwrap()
                })
            });
        });
    }
    group.finish();
}

/// A get of one large value.
fn bulk(criterion: &mut Criterion) {
    let (servers, runtime) = (Servers::start(), runtime());
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(BULK_BYTES as u64)).sample_size(10);
    for (name, transport, to) in
        [(QUIC, Transport::Quic, &servers.quic), (TLS, Transport::Tls, &servers.tls)]
    {
        let endpoint = runtime.block_on(endpoint(&servers.dialer, transport));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let mut stream = endpoint.open_data(to).await.unwrap();
                    stream.write_u64_le(BULK_BYTES as u64).await.unwrap();
                    stream.finish().await.unwrap();
                    take(&mut stream).await;
                });
            });
        });
    }
    let mut stream = runtime.block_on(servers.bare(BULK));
    group.bench_function(BARE, |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                stream.write_u64_le(BULK_BYTES as u64).await.unwrap();
                stream.flush().await.unwrap();
                take(&mut stream).await;
            });
        });
    });
    group.finish();
}

async fn take(stream: &mut (impl AsyncRead + Unpin)) {
    let (mut buffer, mut left) = (vec![0; CHUNK_BYTES], BULK_BYTES);
    while left > 0 {
        left -= stream.read(&mut buffer).await.unwrap();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = framing, messages, ping_pong, bulk
}
criterion_main!(benches);
