//! Values between processes of one host: which way they take.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rdask::Client;
use rdask::data::{Carrier, bytes_received};

use crate::cluster::Cluster;
use crate::proc::{kill_9, wait_until};

const LENGTH: u32 = 300_000;
const BYTES: u64 = LENGTH as u64 * size_of::<f64>() as u64;

/// What the process that runs it has received by sockets, and by QUIC.
fn received(_: u8) -> [u64; 2] {
    [Carrier::Local, Carrier::Quic].map(bytes_received)
}

fn filled(value: f64) -> Vec<f64> {
    vec![value; LENGTH as usize]
}

#[expect(clippy::ptr_arg, reason = "a parameter names the type of the value")]
fn sum(array: &Vec<f64>) -> f64 {
    array.iter().sum()
}

/// Moves values from worker to worker, to the client and from it; returns what came by sockets and
/// by QUIC to the second worker, to the client and to the first worker.
fn move_values(client: &Client) -> [[u64; 2]; 3] {
    let on = |worker: &str| client.options().workers([worker.to_owned()]);
    let (here, there) = (on("w0"), on("w1"));
    let before = received(0);
    let array = here.submit(filled, (3.0,));
    assert_eq!(there.submit(sum, (&array,)).result().unwrap(), 3.0 * f64::from(LENGTH));
    assert!(array.result().unwrap() == filled(3.0));
    let placed = here.scatter(filled(5.0));
    assert_eq!(here.submit(sum, (&placed,)).result().unwrap(), 5.0 * f64::from(LENGTH));
    let now = received(0);
    let client = [now[0] - before[0], now[1] - before[1]];
    let at = |options: &rdask::Options| options.submit(received, (0,)).result().unwrap();
    [at(&there), client, at(&here)]
}

pub(crate) fn values_stay_on_their_host() {
    let by_socket = move_values(&Cluster::new(2, 1).client());
    assert_eq!(by_socket, [[BYTES, 0]; 3]);
    let by_quic = move_values(&Cluster::over_quic(2, 1).client());
    assert_eq!(by_quic, [[0, BYTES]; 3]);
}

/// Somebody has taken the names of all processes and says nothing.
pub(crate) fn without_sockets_values_go_over_the_network() {
    let mut cluster = Cluster::empty();
    let run = cluster.read_file().run_id;
    let taken = (0..50).map(|process| {
        let name = format!("p{process}.{run}.rdask");
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
    });
    let _taken: Vec<UnixListener> = taken.collect();
    cluster.add_workers(2, 1);
    assert_eq!(move_values(&cluster.client()), [[0, BYTES]; 3]);
}

/// How many sockets of a run there are on this host.
fn sockets(run: &str) -> usize {
    let all = fs::read_to_string("/proc/net/unix").unwrap();
    all.lines().filter(|line| line.ends_with(&format!(".{run}.rdask"))).count()
}

pub(crate) fn a_killed_process_leaves_no_socket_and_its_values_are_made_again() {
    let cluster = Cluster::new(2, 1);
    let run = cluster.read_file().run_id;
    let client = cluster.client();
    let on = |worker: &str| client.options().workers([worker.to_owned()]);
    let pid = |worker: &str| on(worker).submit(|_: u8| std::process::id(), (0,)).result().unwrap();
    let array = on("w0").submit(filled, (3.0,));
    array.wait().unwrap();
    let (holder, all) = (pid("w0"), sockets(&run));
    assert!(all >= 2, "{all} sockets");
    kill_9(holder);
    assert_eq!(on("w1").submit(sum, (&array,)).result().unwrap(), 3.0 * f64::from(LENGTH));
    assert_ne!(pid("w0"), holder);
    drop((array, client));
    drop(cluster);
    wait_until("no socket is left", || sockets(&run) == 0);
}
