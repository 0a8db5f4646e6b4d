//! Values between processes of one host: which way they take.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rdask::Client;
use rdask::data::{Carrier, bytes_received};

use crate::cluster::Cluster;
use crate::proc::{go_on, kill_9, stand_still, wait_until};

const LENGTH: u32 = 300_000;
const BYTES: u64 = LENGTH as u64 * size_of::<f64>() as u64;

/// What the process that runs it has received out of memory, by sockets, and by QUIC.
fn received(_: u8) -> [u64; 3] {
    [Carrier::Memory, Carrier::Local, Carrier::Quic].map(bytes_received)
}

fn filled(value: f64) -> Vec<f64> {
    vec![value; LENGTH as usize]
}

#[expect(clippy::ptr_arg, reason = "a parameter names the type of the value")]
fn sum(array: &Vec<f64>) -> f64 {
    array.iter().sum()
}

/// Moves values from worker to worker, to the client and from it; returns what [`received`] says
/// at the second worker, at the client and at the first worker.
fn move_values(client: &Client) -> [[u64; 3]; 3] {
    let on = |worker: &str| client.options().workers([worker.to_owned()]);
    let (here, there) = (on("w0"), on("w1"));
    let before = received(0);
    let array = here.submit(filled, (3.0,));
    assert_eq!(there.submit(sum, (&array,)).result().unwrap(), 3.0 * f64::from(LENGTH));
    assert!(array.result().unwrap() == filled(3.0));
    let placed = here.scatter(filled(5.0));
    assert_eq!(here.submit(sum, (&placed,)).result().unwrap(), 5.0 * f64::from(LENGTH));
    let now = received(0);
    let client = std::array::from_fn(|by| now[by] - before[by]);
    let at = |options: &rdask::Options| options.submit(received, (0,)).result().unwrap();
    [at(&there), client, at(&here)]
}

pub(crate) fn values_stay_on_their_host() {
    let in_memory = move_values(&Cluster::new(2, 1).client());
    assert_eq!(in_memory, [[BYTES, 0, 0]; 3]);
    let by_quic = move_values(&Cluster::over_quic(2, 1).client());
    assert_eq!(by_quic, [[0, 0, BYTES]; 3]);
}

/// Numbers that are all different.
fn counted(length: u32) -> Vec<u32> {
    (0..length).map(|at| at.wrapping_mul(0x9E37_79B9)).collect()
}

fn hash(numbers: &[u32]) -> u64 {
    let fold = |hash: u64, one: &u32| (hash ^ u64::from(*one)).wrapping_mul(0x0100_0000_01b3);
    numbers.iter().fold(0, fold)
}

/// The process forbids others of its user to look into it, as many a system does.
pub(crate) fn what_may_not_be_read_in_memory_comes_by_socket() {
    let mut cluster = Cluster::new(1, 1);
    cluster.add_without_privileges("pool", &["w1:1"]);
    let client = cluster.client();
    let on = |worker: &str| client.options().workers([worker.to_owned()]);
    on("w0").submit(|_: u8| nix::sys::prctl::set_dumpable(false).unwrap(), (0,)).result().unwrap();
    let array = on("w0").submit(counted, (LENGTH,));
    let there = on("w1").submit(|array: &Vec<u32>| hash(array), (&array,)).result().unwrap();
    assert_eq!(there, hash(&counted(LENGTH)));
    let by = on("w1").submit(received, (0,)).result().unwrap();
    assert_eq!(by, [0, u64::from(LENGTH) * size_of::<u32>() as u64, 0]);
}

/// The reader is stopped somewhere in the middle, now earlier, now later; when it goes on the memory
/// that it reads is gone.
pub(crate) fn who_dies_while_its_memory_is_read_gives_no_value() {
    const LONG: u32 = 8_000_000;
    let expected = hash(&counted(LONG));
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let on = |worker: &str| client.options().workers([worker.to_owned()]);
    let pid = |worker: &str| on(worker).submit(|_: u8| std::process::id(), (0,)).result().unwrap();
    let reader = pid("w1");
    for spins in [0, 1, 3, 6, 12] {
        let holder = pid("w0");
        let array = on("w0").submit(counted, (LONG,));
        array.wait().unwrap();
        let sum = on("w1").submit(|array: &Vec<u32>| hash(array), (&array,));
        for _ in 0..spins {
            client.submit(|x: u8| x, (0,)).wait().unwrap();
        }
        stand_still(&[reader]);
        kill_9(holder);
        go_on(&[reader]);
        assert_eq!(sum.result().unwrap(), expected);
        assert_eq!(pid("w1"), reader);
    }
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
    assert_eq!(move_values(&cluster.client()), [[0, 0, BYTES]; 3]);
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
