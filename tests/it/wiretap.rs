//! What others can see: on the wire, in lists of processes, in logs.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rdask::Client;

use crate::cluster::Cluster;
use crate::proc::wait_until;

/// What is planted in arguments and results.
const MARKER: &[u8] = b"the-marker-that-nobody-may-see";

/// A relay of datagrams between many clients and one server, which records them all.
struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Threads carry datagrams until the tests end.
    fn before(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut backs: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
            let mut buffer = [0; 1 << 16];
            loop {
                let (length, from) = front.recv_from(&mut buffer).unwrap();
                record.lock().unwrap().extend_from_slice(&buffer[..length]);
                let back = backs.entry(from).or_insert_with(|| {
                    let back = UdpSocket::bind("127.0.0.1:0").unwrap();
                    back.connect(server).unwrap();
                    let (other, front) = (back.try_clone().unwrap(), front.try_clone().unwrap());
                    let record = Arc::clone(&record);
                    std::thread::spawn(move || carry_back(&other, &front, from, &record));
                    back
                });
                // The server may be gone.
                drop(back.send(&buffer[..length]));
            }
        });
        Self { address, seen }
    }

    fn has_seen(&self, secret: &[u8]) -> bool {
        let seen = self.seen.lock().unwrap();
        seen.windows(secret.len()).any(|window| window == secret)
    }

    fn bytes_seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn carry_back(back: &UdpSocket, front: &UdpSocket, to: SocketAddr, record: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 1 << 16];
    while let Ok(length) = back.recv(&mut buffer) {
        record.lock().unwrap().extend_from_slice(&buffer[..length]);
        // The client may be gone.
        drop(front.send_to(&buffer[..length], to));
    }
}

/// The text of the key without the lines around it, and its bytes.
fn secrets_of(cluster: &Cluster) -> Vec<Vec<u8>> {
    let file = cluster.read_file();
    let lines = file.join_key.lines().filter(|line| !line.starts_with("-----"));
    let mut secrets: Vec<Vec<u8>> = lines.map(|line| line.as_bytes().to_vec()).collect();
    secrets.push(file.join_identity().unwrap().key_der().to_vec());
    // The last bytes of a key are none that every key has.
    assert!(secrets.iter().all(|secret| secret.len() > 20));
    secrets
}

fn echo(mut text: Vec<u8>) -> Vec<u8> {
    text.reverse();
    text
}

pub(crate) fn the_wire_shows_neither_values_nor_keys() {
    let mut cluster = Cluster::empty();
    let mut file = cluster.read_file();
    let tap = Tap::before(file.addresses[0]);
    // Everybody goes through the tap, workers too.
    (file.addresses, file.tls_addresses) = (vec![tap.address], Vec::new());
    let path: PathBuf = cluster.folder().join("tapped.json");
    file.write(&path).unwrap();
    cluster.add_with_file(&path, "pool", &["w0:1"]);
    let client = Client::connect(&path).unwrap();
    let mut backwards = MARKER.to_vec();
    backwards.reverse();
    let texts = (0..200).map(|_| MARKER.to_vec());
    let answers = client.gather(client.map(echo, texts)).unwrap();
    assert!(answers.iter().all(|answer| *answer == backwards));
    let error = client.try_submit(|text: String| Err::<(), _>(text), ("the-marker-in-an-error",));
    assert!(error.result().is_err());
    assert!(tap.bytes_seen() > 2 * 200 * MARKER.len(), "not everything went through the tap");
    // The tap sees what is plain: this datagram.
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    plain.send_to(b"plain text", tap.address).unwrap();
    wait_until("a plain datagram is seen", || tap.has_seen(b"plain text"));
    for text in [MARKER, &backwards, b"the-marker-in-an-error"] {
        assert!(!tap.has_seen(text), "{} is plain", String::from_utf8_lossy(text));
    }
    assert!(secrets_of(&cluster).iter().all(|secret| !tap.has_seen(secret)), "a key is plain");
}

pub(crate) fn no_secret_is_in_an_argument_list_an_environment_or_a_log() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    assert_eq!(client.gather(client.map(echo, vec![MARKER.to_vec(); 4])).unwrap().len(), 4);
    assert!(client.submit(|_: u8| -> u8 { panic!("on purpose") }, (0,)).result().is_err());
    let secrets = secrets_of(&cluster);
    let has_secret = |bytes: &[u8]| {
        secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == secret))
    };
    // The file itself has it, or this test couldn't fail.
    assert!(has_secret(&fs::read(cluster.file()).unwrap()));
    let mut looked_at = 0;
    for entry in fs::read_dir("/proc").unwrap() {
        let folder = entry.unwrap().path();
        let pid = folder.file_name().unwrap().to_string_lossy().parse::<u32>();
        for name in ["cmdline", "environ"] {
            // Some are other users', and some have ended by now.
            if let (Ok(pid), Ok(bytes)) = (&pid, fs::read(folder.join(name))) {
                assert!(!has_secret(&bytes), "the {name} of process {pid} has a key");
                looked_at += usize::from(cluster.processes().contains(pid));
            }
        }
    }
    assert_eq!(looked_at, 2 * 2, "the cluster's own processes");
    let logs = cluster.logs();
    assert!(logs.contains("rdask::nanny::launch: started"), "{logs}");
    assert!(!has_secret(logs.as_bytes()), "a log has a key");
    assert!(!logs.contains("PRIVATE KEY"));
}
