//! A scheduler on loopback, and those who want something of it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rdask_core::hello::{Hello, HelloError, Role, decode_resumption, decode_welcome, encode_hello};
use rdask_core::message::ProgramInfo;
use rdask_net::{
    Endpoint, EndpointConfig, FileMode, FrameReceiver, FrameSender, KeyRequest, push_frame,
};

use tokio::net::UdpSocket;

use super::*;
use crate::connection::{ConnectError, ConnectionEnd, Persistence, dial, scheduler_target};
use crate::program;

fn options(path: &Path) -> SchedulerOptions {
    SchedulerOptions { host: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), ..SchedulerOptions::new(path) }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Runs a test against a scheduler; the runtime is the client's.
fn with_scheduler(test: impl AsyncFnOnce(&SchedulerFile)) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(options(&folder.path().join("s.json"))).unwrap();
    runtime().block_on(test(server.scheduler_file().unwrap()));
    assert_eq!(server.stop("done"), ServerEnd::Stopped("done".into()));
}

async fn endpoint(file: &SchedulerFile) -> Endpoint {
    let config = EndpointConfig::dial_only(file.join_identity().unwrap());
    Endpoint::bind(config.on_loopback()).await.unwrap()
}

async fn raw(endpoint: &Endpoint, file: &SchedulerFile) -> (FrameSender, FrameReceiver) {
    let target = scheduler_target(file).unwrap();
    endpoint.dial_control(&target).await.unwrap().split()
}

/// What the scheduler answers to a first frame.
async fn answer_to(file: &SchedulerFile, first: &[u8]) -> Result<Welcome, HelloError> {
    let endpoint = endpoint(file).await;
    let (mut sender, mut receiver) = raw(&endpoint, file).await;
    let mut frame = Vec::new();
    push_frame(&mut frame, |body| body.extend_from_slice(first)).unwrap();
    sender.send(&frame).await.unwrap();
    let answer = receiver.recv().await.unwrap().expect("an answer");
    decode_welcome(&answer)
}

async fn ask(file: &SchedulerFile) {
    let endpoint = endpoint(file).await;
    let mut observer =
        dial::<FromClient, ToClient>(&endpoint, file, Role::Observer, Persistence::none())
            .await
            .unwrap();
    let request = FromClient::AskStatus { request: 7, when_ready: false };
    observer.send.send(request).unwrap();
    let answer = observer.receive.recv().await.unwrap();
    assert!(matches!(answer, ToClient::Status { request: 7, .. }), "{answer:?}");
}

fn client() -> ClientInfo {
    let program = ProgramInfo {
        hash: rdask_core::id::ProgramHash([1; 32]),
        size: 1,
        path: "/nowhere".into(),
    };
    ClientInfo {
        program,
        surroundings: program::surroundings(),
        name: "test".into(),
        nested_in: None,
    }
}

#[test]
fn a_greeting_that_is_none_is_refused_and_harms_nobody() {
    with_scheduler(async |file| {
        for garbage in [&b""[..], b"GET / HTTP/1.1", b"rdask", b"rdask\x01\x00\xff\xff\xff"] {
            let answer = answer_to(file, garbage).await;
            assert!(matches!(answer, Err(HelloError::Refused(_))), "{answer:?}");
        }
        ask(file).await;
    });
}

#[test]
fn another_version_is_told_both_versions() {
    with_scheduler(async |file| {
        let answer = answer_to(file, b"rdask\x09\x00whatever").await.unwrap_err();
        let text = answer.to_string();
        assert!(text.contains("version 9") && text.contains("speaks 1"), "{text}");
    });
}

#[test]
fn a_greeting_for_another_run_is_sent_back_to_the_file() {
    with_scheduler(async |file| {
        let hello = Hello {
            run_id: "another".into(),
            certificate_request: KeyRequest::new().unwrap().csr_der().to_vec(),
            role: Role::Observer,
        };
        let error = answer_to(file, &encode_hello(&hello)).await.unwrap_err();
        assert!(error.to_string().contains("scheduler file"), "{error}");
    });
}

#[test]
fn a_process_that_nobody_launched_is_refused() {
    with_scheduler(async |file| {
        let endpoint = endpoint(file).await;
        let contact = Contact { quic: Vec::new(), tls: Vec::new() };
        let role = Role::Process { process: ProcessId(77), pid: 1, contact };
        let error =
            dial::<FromProcess, ToProcess>(&endpoint, file, role, Persistence::none()).await;
        let error = error.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)) && error.is_refusal(), "{error}");
    });
}

/// What the scheduler answers to somebody who comes back with the identity of an endpoint.
async fn resume(endpoint: &Endpoint, file: &SchedulerFile, role: Role) -> String {
    let (mut sender, mut receiver) = raw(endpoint, file).await;
    let run_id = file.run_id.clone();
    let hello = encode_hello(&Hello { run_id, certificate_request: Vec::new(), role });
    let mut frame = Vec::new();
    push_frame(&mut frame, |body| body.extend_from_slice(&hello)).unwrap();
    sender.send(&frame).await.unwrap();
    match receiver.recv().await {
        Ok(Some(answer)) => format!("{:?}", decode_resumption(&answer)),
        other => format!("{other:?}"),
    }
}

#[test]
fn only_who_was_named_goes_on_under_that_name() {
    with_scheduler(async |file| {
        let client = |name: &str| Role::Client {
            program: client().program,
            surroundings: program::surroundings(),
            name: name.to_owned(),
            nested_in: None,
        };
        let own = endpoint(file).await;
        let other = endpoint(file).await;
        let join = async |endpoint, name| {
            dial::<FromClient, ToClient>(endpoint, file, client(name), Persistence::none()).await
        };
        let (mut first, second) =
            (join(&own, "a").await.unwrap(), join(&other, "b").await.unwrap());
        let who = first.welcome.you.peer();
        let resumption = |who, epoch, attempt| Role::Resume { who, epoch, attempt, received: 0 };
        // With another's certificate, or the one that everybody has.
        let stranger = endpoint(file).await;
        for thief in [&other, &stranger] {
            let answer = resume(thief, file, resumption(who, FIRST_EPOCH, 1)).await;
            assert!(answer.contains("another's"), "{answer}");
        }
        // Of another start, or of nobody.
        let answer = resume(&own, file, resumption(who, FIRST_EPOCH + 1, 1)).await;
        assert_eq!(answer, "Ok(Fenced)");
        first.send.send(FromClient::AskStatus { request: 1, when_ready: false }).unwrap();
        assert!(first.receive.recv().await.is_ok(), "it was not disturbed");
        // The owner may, while its old link still stands; that one ends.
        let answer = resume(&own, file, resumption(who, FIRST_EPOCH, 2)).await;
        assert_eq!(answer, "Ok(Resumed { received: 1 })");
        assert!(matches!(first.receive.recv().await, Err(ConnectionEnd::Lost(_))));
        // An earlier try that comes late is not heard.
        let answer = resume(&own, file, resumption(who, FIRST_EPOCH, 1)).await;
        assert!(answer.contains("Err") || answer.contains("None"), "{answer}");
        drop(second);
    });
}

/// A relay of datagrams for one dialer, until it is cut.
async fn carry_datagrams(front: Arc<UdpSocket>, back: Arc<UdpSocket>) {
    let (mut there, mut here) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut dialer = None;
    loop {
        tokio::select! {
            Ok((length, from)) = front.recv_from(&mut there) => {
                dialer = Some(from);
                back.send(&there[..length]).await.unwrap();
            }
            Ok(length) = back.recv(&mut here) => {
                if let Some(dialer) = dialer {
                    front.send_to(&here[..length], dialer).await.unwrap();
                }
            }
        }
    }
}

#[test]
fn what_quic_loses_tls_brings() {
    with_scheduler(async |file| {
        // Open to the end: whoever hears that a port is closed is sure that nobody is there.
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        back.connect(file.addresses[0]).await.unwrap();
        let detour = vec![front.local_addr().unwrap()];
        let path = tokio::spawn(carry_datagrams(front.clone(), back.clone()));
        let file = SchedulerFile { addresses: detour, ..file.clone() };
        assert!(!file.tls_addresses.is_empty());
        let endpoint = endpoint(&file).await;
        let role = Role::Client {
            program: client().program,
            surroundings: program::surroundings(),
            name: "both".into(),
            nested_in: None,
        };
        let persistence = Persistence::at_most(Duration::from_secs(60));
        let dialled = dial::<FromClient, ToClient>(&endpoint, &file, role, persistence).await;
        let mut client = dialled.unwrap();
        let ask = |request| FromClient::AskStatus { request, when_ready: false };
        client.send.send(ask(1)).unwrap();
        assert!(client.receive.recv().await.is_ok());
        path.abort();
        drop(path.await);
        for request in 2..100 {
            client.send.send(ask(request)).unwrap();
        }
        for asked in 2..100 {
            let answer = client.receive.recv().await.unwrap();
            assert!(matches!(answer, ToClient::Status { request, .. } if request == asked));
        }
    });
}

#[test]
fn words_that_do_not_decode_end_the_connection_with_a_reason() {
    with_scheduler(async |file| {
        let endpoint = endpoint(file).await;
        let (mut sender, mut receiver) = raw(&endpoint, file).await;
        let request = KeyRequest::new().unwrap();
        let hello = encode_hello(&Hello {
            run_id: file.run_id.clone(),
            certificate_request: request.csr_der().to_vec(),
            role: Role::Observer,
        });
        let mut frames = Vec::new();
        push_frame(&mut frames, |body| body.extend_from_slice(&hello)).unwrap();
        push_frame(&mut frames, |body| body.extend_from_slice(&[0xff; 20])).unwrap();
        sender.send(&frames).await.unwrap();
        decode_welcome(&receiver.recv().await.unwrap().unwrap()).unwrap();
        let end = receiver.recv().await.unwrap_err().to_string();
        assert!(end.contains("does not decode"), "{end}");
        ask(file).await;
    });
}

#[test]
fn clients_hear_why_a_scheduler_ends() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(options(&folder.path().join("s.json"))).unwrap();
    let file = server.scheduler_file().unwrap().clone();
    let runtime = runtime();
    let (endpoint, mut observer) = runtime.block_on(async {
        let endpoint = endpoint(&file).await;
        let observer =
            dial::<FromClient, ToClient>(&endpoint, &file, Role::Observer, Persistence::none())
                .await;
        (endpoint, observer.unwrap())
    });
    server.stop("lunch");
    let end = runtime.block_on(observer.receive.recv()).unwrap_err();
    assert_eq!(end, ConnectionEnd::Closed("lunch".into()));
    drop(endpoint);
}

#[test]
fn the_file_is_private_and_goes_with_its_scheduler() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.json");
    let pid_file = folder.path().join("pid");
    let options = SchedulerOptions { pid_file: Some(pid_file.clone()), ..options(&path) };
    let server = Server::start(options).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string());
    drop(server);
    assert!(!path.exists() && !pid_file.exists());
}

#[test]
fn a_file_whose_scheduler_answers_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.json");
    let first = Server::start(options(&path)).unwrap();
    let run = first.scheduler_file().unwrap().run_id.clone();
    let error = Server::start(options(&path)).unwrap_err();
    assert!(matches!(error, StartError::Claim(ClaimError::Taken { .. })), "{error}");
    assert!(error.to_string().contains(&run), "{error}");
    assert_eq!(SchedulerFile::read(&path, FileMode::Private).unwrap().run_id, run);
    first.stop("done");
}

#[test]
fn a_file_whose_scheduler_has_ended_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.json");
    let first = Server::start(options(&path)).unwrap();
    let old = first.scheduler_file().unwrap().clone();
    first.stop("done");
    old.write(&path).unwrap();
    let second = Server::start(options(&path)).unwrap();
    assert_ne!(second.scheduler_file().unwrap().run_id, old.run_id);
    second.stop("done");
}

#[test]
fn what_is_no_scheduler_file_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("thesis.tex");
    std::fs::write(&path, "precious").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let error = Server::start(options(&path)).unwrap_err();
    assert!(matches!(error, StartError::Claim(ClaimError::NotOurs { .. })), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn of_schedulers_that_start_together_one_gets_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.json");
    let started: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| Server::start(options(&path)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winners: Vec<_> = started.iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{started:?}");
    let file = SchedulerFile::read(&path, FileMode::Private).unwrap();
    assert_eq!(file.run_id, winners[0].scheduler_file().unwrap().run_id);
}

#[test]
fn a_local_client_needs_no_network() {
    let server = Server::start(SchedulerOptions::local()).unwrap();
    assert!(server.scheduler_file().is_none());
    let mut connected = server.door().connect_client(client()).unwrap();
    connected.send.send(FromClient::AskStatus { request: 1, when_ready: false }).unwrap();
    let answer = connected.receive.blocking_recv().unwrap();
    let ToClient::Status { status, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(status.clients, 1);
    server.stop("done");
    let end = connected.receive.blocking_recv().unwrap_err();
    assert_eq!(end, ConnectionEnd::Closed("done".into()));
}

#[test]
fn an_idle_scheduler_ends() {
    let idle_timeout = Some(Duration::from_millis(50));
    let server = Server::start(SchedulerOptions { idle_timeout, ..SchedulerOptions::local() });
    let end = server.unwrap().wait();
    assert_eq!(end, ServerEnd::Idle(Duration::from_millis(50)));
}
