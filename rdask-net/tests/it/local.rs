//! Streams within a host: on a Unix socket, and only between two of one run and one user.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rdask_net::{
    Authority, Carrier, DataStream, Endpoint, EndpointConfig, Identity, PeerName, PeerRole,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{accept_data, run, soon};

/// Has the name of the socket that a stranger is to try.
const NAME: &str = "RDASK_NET_TEST_LOCAL_NAME";

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

/// One run. Names of sockets are the host's, so each test has a run that no other has.
struct Run(Authority, String);

impl Run {
    fn new(test: &str) -> Self {
        let run = format!("{test}-{}", std::process::id());
        Self(Authority::new(&run).unwrap(), run)
    }

    fn identity(&self, id: u64) -> Identity {
        let name = PeerName::new(PeerRole::Process, id, &self.1).unwrap();
        self.0.issue(&name).unwrap()
    }

    fn config(&self, id: u64) -> EndpointConfig {
        EndpointConfig::new(self.identity(id)).on_loopback()
    }

    async fn endpoint(&self, id: u64) -> Endpoint {
        Endpoint::bind(self.config(id)).await.unwrap()
    }
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::from_abstract_name(endpoint.target().name.to_string()).unwrap()
}

/// A stream and its other end, after a word went there and back.
async fn streams(asker: &Endpoint, holder: &Endpoint) -> (DataStream, DataStream) {
    let target = holder.target();
    let asking = async {
        let mut near = soon("a dial", asker.open_data(&target)).await.unwrap();
        near.write_all(b"word").await.unwrap();
        let mut word = [0; 4];
        soon("an answer", near.read_exact(&mut word)).await.unwrap();
        assert_eq!(&word, b"word");
        near
    };
    let answering = async {
        let mut far = accept_data(holder).await;
        let mut word = [0; 4];
        soon("a question", far.read_exact(&mut word)).await.unwrap();
        far.write_all(&word).await.unwrap();
        far
    };
    let (near, far) = tokio::join!(asking, answering);
    assert_eq!(near.peer(), holder.identity().name());
    assert_eq!(far.peer(), asker.identity().name());
    assert_eq!(near.carrier(), far.carrier());
    (near, far)
}

#[test]
fn a_connection_keeps_its_socket_when_its_dialer_gets_another_name() {
    run(async {
        let cluster = Run::new("renamed");
        let (asker, holder) = (cluster.endpoint(1).await, cluster.endpoint(2).await);
        let first = streams(&asker, &holder).await;
        assert_eq!(first.0.carrier(), Carrier::Local);
        asker.set_identity(cluster.identity(3));
        let target = holder.target();
        let near = soon("a dial", asker.open_data(&target)).await.unwrap();
        assert_eq!(near.carrier(), Carrier::Local);
        let far = accept_data(&holder).await;
        assert_eq!(far.peer(), first.1.peer(), "known by the certificate of the connection");
    });
}

#[test]
fn two_of_one_run_and_host_meet_on_a_socket() {
    run(async {
        let cluster = Run::new("meet");
        let (asker, holder) = (cluster.endpoint(1).await, cluster.endpoint(2).await);
        let mut open = Vec::new();
        // As many as one may have at a time.
        for _ in 0..16 {
            let (near, far) = streams(&asker, &holder).await;
            assert_eq!(near.carrier(), Carrier::Local);
            open.push((near, far));
        }
        let (mut near, mut far) = open.pop().unwrap();
        let bytes: bytes::Bytes = (0..20_000_000_u32).map(|at| at as u8).collect();
        let mut came = Vec::new();
        let (sent, read) = tokio::join!(
            async {
                far.write_bytes(bytes.clone()).await.unwrap();
                far.finish().await
            },
            soon("many bytes", near.read_to_end(&mut came))
        );
        sent.unwrap();
        assert_eq!(read.unwrap(), bytes.len());
        assert!(came == bytes);
    });
}

#[test]
fn without_a_socket_there_is_the_data_connection() {
    run(async {
        let cluster = Run::new("none");
        let asker = cluster.endpoint(1).await;
        let holder = Endpoint::bind(cluster.config(2).with_local_sockets(false)).await.unwrap();
        assert_eq!(streams(&asker, &holder).await.0.carrier(), Carrier::Quic);
        let asker = Endpoint::bind(cluster.config(3).with_local_sockets(false)).await.unwrap();
        let holder = cluster.endpoint(4).await;
        assert_eq!(streams(&asker, &holder).await.0.carrier(), Carrier::Quic);
    });
}

#[test]
fn who_has_taken_a_name_gets_nothing_but_the_data_connection_to_go_by() {
    run(async {
        let cluster = Run::new("taken");
        let name = "p2.".to_owned() + &cluster.1 + ".rdask";
        let squatter = SocketAddr::from_abstract_name(name).unwrap();
        let squatter = UnixListener::bind_addr(&squatter).unwrap();
        let squatting = std::thread::spawn(move || {
            let (mut stream, _) = squatter.accept().unwrap();
            stream.write_all(&[7; 32]).unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            heard
        });
        let (asker, holder) = (cluster.endpoint(1).await, cluster.endpoint(2).await);
        for _ in 0..2 {
            assert_eq!(streams(&asker, &holder).await.0.carrier(), Carrier::Quic);
        }
        let heard = squatting.join().unwrap();
        assert!(!heard.windows(4).any(|window| window == b"word"), "{heard:?}");
    });
}

/// Streams until one of them is on a socket.
async fn until_local(asker: &Endpoint, holder: &Endpoint) {
    let tries = async {
        while streams(asker, holder).await.0.carrier() != Carrier::Local {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("a local stream", tries).await;
}

#[test]
fn who_was_turned_away_for_a_while_comes_back_to_the_socket() {
    run(async {
        let cluster = Run::new("again");
        let asker = cluster.endpoint(1).await;
        let name = "p2.".to_owned() + &cluster.1 + ".rdask";
        let squatter = SocketAddr::from_abstract_name(name).unwrap();
        let squatter = UnixListener::bind_addr(&squatter).unwrap();
        let holder = cluster.endpoint(2).await;
        let squatting = std::thread::spawn(move || drop(squatter.accept().unwrap()));
        let first = streams(&asker, &holder).await;
        assert_eq!(first.0.carrier(), Carrier::Quic);
        squatting.join().unwrap();
        // Beside the same connection, which `first` keeps.
        until_local(&asker, &holder).await;
    });
}

#[test]
fn a_holder_under_another_name_is_found_at_its_socket() {
    run(async {
        let cluster = Run::new("holder");
        let (asker, holder) = (cluster.endpoint(1).await, cluster.endpoint(2).await);
        let first = streams(&asker, &holder).await;
        assert_eq!(first.0.carrier(), Carrier::Local);
        holder.set_identity(cluster.identity(3));
        until_local(&asker, &holder).await;
        // A process registers anew before it knows what it is: nobody finds it before that.
        let late = Endpoint::bind(cluster.config(4)).await.unwrap();
        late.set_identity(cluster.identity(5));
        assert_eq!(streams(&asker, &late).await.0.carrier(), Carrier::Local);
    });
}

#[test]
fn who_has_no_proof_of_the_run_is_turned_away() {
    run(async {
        let cluster = Run::new("proof");
        let (asker, holder) = (cluster.endpoint(1).await, cluster.endpoint(2).await);
        let (near, _far) = streams(&asker, &holder).await;
        assert_eq!(near.carrier(), Carrier::Local);
        let own = asker.identity().name().to_string();
        // A guest's name with a proof that is made up, names of nobody, and garbage.
        let greeting = |name: &str| [&[name.len() as u8], name.as_bytes(), &[9; 32]].concat();
        let greetings = [
            greeting(&own),
            greeting("p1.another.rdask"),
            greeting("no name at all"),
            vec![255; 300],
            vec![0; 40],
            Vec::new(),
        ];
        for greeting in greetings {
            let mut stream = UnixStream::connect_addr(&address(&holder)).unwrap();
            stream.write_all(&greeting).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let answer = tokio::task::spawn_blocking(move || {
                let mut answer = Vec::new();
                // It may be reset.
                let _ = stream.read_to_end(&mut answer);
                answer
            });
            let answer = soon("an end", answer).await.unwrap();
            assert!(answer.is_empty(), "{answer:?} answers {greeting:?}");
        }
        tokio::select! {
            biased;
            incoming = holder.accept() => panic!("a stranger came in: {incoming:?}"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(streams(&asker, &holder).await.0.carrier(), Carrier::Local);
    });
}

/// What another user does in the next test, in a process of its own.
#[test]
fn another_user_tries() {
    let Ok(name) = std::env::var(NAME) else { return };
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let mut stream = UnixStream::connect_addr(&address).unwrap();
    let mut answer = Vec::new();
    // Turned away before a word is said: the listener closes at once.
    assert_eq!(stream.read_to_end(&mut answer).unwrap_or(0), 0);
}

#[test]
fn another_user_is_turned_away() {
    // Only root can be somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    run(async {
        let cluster = Run::new("user");
        let holder = cluster.endpoint(2).await;
        let name = holder.target().name.to_string();
        let status = tokio::task::spawn_blocking(move || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "local::another_user_tries"]).env(NAME, name);
            command.uid(NOBODY).status().unwrap()
        });
        assert!(soon("a try", status).await.unwrap().success());
        tokio::select! {
            biased;
            incoming = holder.accept() => panic!("a stranger came in: {incoming:?}"),
            () = tokio::task::yield_now() => {}
        }
    });
}
