//! Strangers, garbage, and peers of another version.

use std::future::Future;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rdask::Client;
use rdask_core::hello::{Hello, PROTOCOL_VERSION, Role};
use rdask_core::message::{ProgramInfo, Surroundings, ToClient};
use rdask_net::{
    Authority, Endpoint, EndpointConfig, FrameReceiver, FrameSender, Identity, Incoming,
    KeyRequest, PeerName, PeerRole, SchedulerFile, Target, push_frame,
};

use crate::cluster::Cluster;
use crate::proc::{memory, ports, wait_for};

/// A protocol version that nobody speaks.
const OTHER_VERSION: u16 = 999;

/// What must come, comes in this time.
const SOON: Duration = Duration::from_secs(20);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(6 * SOON, test).await.expect("it hangs") })
}

fn scheduler_of(file: &SchedulerFile) -> Target {
    Target {
        quic: file.addresses.clone(),
        tls: file.tls_addresses.clone(),
        name: PeerName::scheduler(&file.run_id).unwrap(),
    }
}

async fn endpoint(identity: Identity) -> Endpoint {
    Endpoint::bind(EndpointConfig::new(identity).on_loopback()).await.unwrap()
}

/// A link with the scheduler of a file, with the file's identity, after one frame.
async fn greeted_with(
    endpoint: &Endpoint,
    file: &SchedulerFile,
    frame: &[u8],
) -> (FrameSender, FrameReceiver) {
    let link = endpoint.dial_control(&scheduler_of(file)).await.unwrap();
    let (mut sender, receiver) = link.split();
    sender.send(&framed(frame)).await.unwrap();
    (sender, receiver)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    push_frame(&mut frame, |buffer| buffer.extend_from_slice(body)).unwrap();
    frame
}

fn names_both_versions(text: &str) -> bool {
    let has = |version: u16| {
        text.split(|c: char| !c.is_ascii_digit()).any(|word| word == version.to_string())
    };
    has(OTHER_VERSION) && has(PROTOCOL_VERSION)
}

fn error_of(file: &std::path::Path) -> String {
    Client::connect(file).map(drop).unwrap_err().to_string()
}

pub(crate) fn a_stranger_without_the_file_is_turned_away() {
    let cluster = Cluster::new(1, 1);
    let client = cluster.client();
    let file = cluster.read_file();
    run(async {
        // It makes its own certificates, and trusts whatever it is told to.
        let authority = Authority::new(&file.run_id).unwrap();
        let name = PeerName::new(PeerRole::Client, 1, &file.run_id).unwrap();
        let own = authority.issue(&name).unwrap();
        let stranger = endpoint(own.clone()).await;
        assert!(stranger.dial_control(&scheduler_of(&file)).await.is_err());
        let ca = file.join_identity().unwrap().ca_der().to_vec();
        for with_certificate in [false, true] {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(ca.clone().into()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots);
            let mut config = if with_certificate {
                let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.key_der().to_vec());
                let chain = vec![own.certificate_der().to_vec().into()];
                builder.with_client_auth_cert(chain, key.into()).unwrap()
            } else {
                builder.with_no_client_auth()
            };
            config.alpn_protocols = vec![b"rdask".to_vec()];
            let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
            let config = quinn::ClientConfig::new(Arc::new(config));
            let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let name = format!("scheduler.{}.rdask", file.run_id);
            let connection =
                endpoint.connect_with(config, file.addresses[0], &name).unwrap().await.unwrap();
            let answer = async {
                let (mut send, mut receive) = connection.open_bi().await?;
                send.write_all(&framed(b"rdask")).await.ok();
                Ok::<_, quinn::ConnectionError>(receive.read_to_end(1 << 16).await.ok())
            };
            let answer = tokio::time::timeout(SOON, answer).await.expect("it is left waiting");
            assert!(!matches!(answer, Ok(Some(_))), "the stranger got {answer:?}");
            assert!(connection.close_reason().is_some(), "the connection is still open");
        }
    });
    assert_eq!(client.submit(|x: u32| x, (1,)).result().unwrap(), 1);
}

pub(crate) fn the_file_of_another_run_is_told_to_be_so() {
    let (one, other) = (Cluster::empty(), Cluster::empty());
    let mut file = one.read_file();
    let theirs = other.read_file();
    (file.addresses, file.tls_addresses) = (theirs.addresses, theirs.tls_addresses);
    let path = one.folder().join("mixed.json");
    file.write(&path).unwrap();
    let error = error_of(&path);
    assert!(error.contains("its file may be of a scheduler that has ended"), "{error}");
    assert!(error.contains("certificate"), "{error}");
}

pub(crate) fn a_scheduler_tells_a_client_of_another_version_both_versions() {
    let cluster = Cluster::empty();
    let file = cluster.read_file();
    run(async {
        let endpoint = endpoint(file.join_identity().unwrap()).await;
        let hello = [b"rdask".as_slice(), &OTHER_VERSION.to_le_bytes(), b"whatever"].concat();
        let (_sender, mut receiver) = greeted_with(&endpoint, &file, &hello).await;
        let refusal = receiver.recv().await.unwrap().unwrap();
        // The frozen part of a refusal: magic, version, 1, text.
        assert_eq!(&refusal[..5], b"rdask");
        assert_eq!((&refusal[5..7], refusal[7]), (PROTOCOL_VERSION.to_le_bytes().as_slice(), 1));
        let text = String::from_utf8(refusal[8..].to_vec()).unwrap();
        assert!(names_both_versions(&text), "{text}");
        assert!(text.contains("same rdask"), "{text}");
    });
}

/// A scheduler that speaks another version, and its file.
async fn other_scheduler(path: PathBuf) {
    let authority = Authority::new("other").unwrap();
    let name = PeerName::scheduler("other").unwrap();
    let scheduler = endpoint(authority.issue(&name).unwrap()).await;
    let join = PeerName::new(PeerRole::Join, 0, "other").unwrap();
    let join = authority.issue(&join).unwrap();
    let file = SchedulerFile {
        version: SchedulerFile::VERSION,
        run_id: "other".to_owned(),
        epoch: 1,
        addresses: scheduler.addresses(),
        tls_addresses: scheduler.tls_addresses(),
        ca_certificate: join.ca_pem(),
        join_certificate: join.certificate_pem(),
        join_key: join.key_pem(),
        pid: std::process::id(),
        host: "here".to_owned(),
        started: 0,
        slurm_job_id: None,
        local_sockets: true,
    };
    file.write(path).unwrap();
    let mut links = Vec::new();
    while let Some(incoming) = scheduler.accept().await {
        let Incoming::Control(link) = incoming else { continue };
        let (mut sender, mut receiver) = link.split();
        assert_eq!(&receiver.recv().await.unwrap().unwrap()[..5], b"rdask");
        let answer = [b"rdask".as_slice(), &OTHER_VERSION.to_le_bytes(), b"\x01no"].concat();
        sender.send(&framed(&answer)).await.unwrap();
        links.push((sender, receiver));
    }
}

pub(crate) fn clients_and_workers_of_another_version_than_the_scheduler_say_both_versions() {
    let mut cluster = Cluster::empty();
    let path = cluster.folder().join("other.json");
    let server = path.clone();
    // It serves until the tests end.
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(other_scheduler(server));
    });
    wait_for("its file", || path.exists().then_some(()));
    let error = error_of(&path);
    assert!(names_both_versions(&error) && error.contains("same rdask"), "{error}");
    cluster.add_with_file(&path, "pool", &["w0:1"]);
    let nanny = &mut cluster.nannies[0];
    assert_eq!(nanny.wait().code(), Some(5), "{}", nanny.log());
    let log = nanny.log();
    assert!(log.lines().any(names_both_versions), "{log}");
}

pub(crate) fn a_program_of_another_version_than_the_nanny_says_both_versions() {
    let mut child = Command::new("/proc/self/exe")
        .arg(rdask::handover::PROCESS_ARGUMENT)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let handover = format!("rdask-handover 1 {OTHER_VERSION}\nwhatever\n");
    child.stdin.take().unwrap().write_all(handover.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(rdask::init::EXIT_VERSION), "{error}");
    assert!(names_both_versions(&error), "{error}");
}

/// The other way round: a program that answers a nanny's probe with another version.
pub(crate) fn a_nanny_tells_the_client_of_a_program_of_another_version_both_versions() {
    let cluster = Cluster::new(1, 1);
    // Another client sees to it that the worker is there.
    let _client = cluster.client();
    let script = "#!/bin/sh\necho rdask-probe 999 $(printf '%064d' 0) 9.9.9\n";
    let path = cluster.folder().join("program");
    std::fs::write(&path, script).unwrap();
    let hash = rdask::program::hash_file(&path).unwrap();
    let file = cluster.read_file();
    let warning = run(async {
        let endpoint = endpoint(file.join_identity().unwrap()).await;
        let hello = Hello {
            run_id: file.run_id.clone(),
            certificate_request: KeyRequest::new().unwrap().csr_der().to_vec(),
            role: Role::Client {
                program: ProgramInfo {
                    hash,
                    size: script.len() as u64,
                    path: path.to_str().unwrap().to_owned(),
                },
                surroundings: Surroundings::default(),
                name: "doctored".to_owned(),
                nested_in: None,
            },
        };
        let hello = rdask_core::hello::encode_hello(&hello);
        let (_sender, mut receiver) = greeted_with(&endpoint, &file, &hello).await;
        let _welcome = receiver.recv().await.unwrap().unwrap();
        loop {
            let frame = receiver.recv().await.unwrap().expect("the link stays open");
            if let Ok(ToClient::Warning { message }) = postcard::from_bytes(&frame) {
                return message;
            }
        }
    });
    assert!(names_both_versions(&warning) && warning.contains("node here"), "{warning}");
}

/// A linear congruence: the same garbage every time.
struct Garbage(u64);

impl Garbage {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let bytes = std::iter::repeat_with(|| {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 56) as u8
        });
        bytes.take(length).collect()
    }
}

/// Garbage, and what looks like the first packet of a handshake.
fn throw_datagrams(at: SocketAddr, count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut garbage = Garbage(1);
    for round in 0..count {
        let mut datagram = garbage.bytes(1 + round % 1400);
        if round % 2 == 0 {
            datagram.resize(1200, 0);
            datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            datagram[14..18].copy_from_slice(&[0, 0, 0x44, 0x96]);
        }
        // The receiver's buffer may be full, as on any network.
        drop(socket.send_to(&datagram, at));
        if round % 64 == 0 {
            std::thread::yield_now();
        }
    }
}

fn throw_streams(at: SocketAddr, count: usize) {
    let mut garbage = Garbage(2);
    for round in 0..count {
        // It may refuse us by then.
        let Ok(mut stream) = TcpStream::connect(at) else { continue };
        let mut bytes = garbage.bytes(round % 600);
        if round % 2 == 0 {
            // A TLS record that begins a handshake.
            bytes.splice(0..0, [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
        }
        drop(stream.write_all(&bytes));
    }
}

/// Broken frames of somebody who has the file.
async fn throw_frames(endpoint: &Endpoint, file: &SchedulerFile, count: usize) {
    let mut garbage = Garbage(3);
    for round in 0..count {
        let link = endpoint.dial_control(&scheduler_of(file)).await.unwrap();
        let (mut sender, mut receiver) = link.split();
        let hello = [b"rdask".as_slice(), &PROTOCOL_VERSION.to_le_bytes()].concat();
        let bytes = match round % 5 {
            0 => framed(&garbage.bytes(1 + round)),
            1 => framed(&[hello, garbage.bytes(300)].concat()),
            // Truncated.
            2 => framed(&hello)[..7].to_vec(),
            // Longer than any frame.
            3 => u32::MAX.to_le_bytes().map(|byte| byte & 0x7f).to_vec(),
            _ => garbage.bytes(2000),
        };
        sender.send(&bytes).await.unwrap();
        drop(sender);
        // It says no, or only ends the link; within its own deadline for greetings.
        let end = async { while let Ok(Some(_)) = receiver.recv().await {} };
        tokio::time::timeout(SOON, end).await.expect("the link is left open");
    }
}

pub(crate) fn garbage_harms_neither_scheduler_nor_workers() {
    const GROWTH_MAX: u64 = 20 << 20;
    const MOST: usize = 4500;
    let cluster = Cluster::new(1, 1);
    let client = cluster.client();
    let works = || {
        let values = client.map(|x: u32| vec![x; 1000], 0..1000);
        assert_eq!(client.gather(values).unwrap()[999], vec![999; 1000]);
    };
    works();
    let file = cluster.read_file();
    let [process] = cluster.processes()[..] else { panic!("one process") };
    let pids = [cluster.scheduler.pid(), process];
    // Each has been attacked once before memory is looked at: pools and tables are as long then as
    // they get.
    for at in [ports(process, "udp")[0], file.addresses[0]] {
        throw_datagrams(at, 500);
    }
    works();
    let before = pids.map(|pid| memory(pid, "VmRSS"));
    for at in ports(process, "udp").into_iter().chain(file.addresses.iter().copied()) {
        throw_datagrams(at, MOST);
    }
    for at in ports(process, "tcp").into_iter().chain(file.tls_addresses.iter().copied()) {
        throw_streams(at, 300);
    }
    run(async {
        let endpoint = endpoint(file.join_identity().unwrap()).await;
        throw_frames(&endpoint, &file, 400).await;
    });
    works();
    for (pid, before) in pids.into_iter().zip(before) {
        let after = memory(pid, "VmRSS");
        let grown = after.saturating_sub(before);
        assert!(grown < GROWTH_MAX, "process {pid} grew from {before} to {after} bytes");
    }
    assert_eq!(cluster.processes(), [process], "the process has ended");
    let logs = cluster.logs();
    assert!(!logs.contains("panicked"), "{logs}");
}
