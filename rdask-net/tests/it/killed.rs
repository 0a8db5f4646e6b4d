//! Peers that are killed, as `kill -9` and the kernel's memory guard do it: without a last word.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rdask_net::{
    Endpoint, EndpointConfig, FileMode, LinkError, PeerName, PeerRole, SchedulerFile, Target,
    Transport,
};

use crate::cluster::{Cluster, Ends, accept_control, on_both_transports, run, soon};

/// Set for a child only: the scheduler file to join with, from how many ports, at which address.
const CHILD_FILE: &str = "RDASK_NET_TEST_SCHEDULER_FILE";
const CHILD_LINKS: &str = "RDASK_NET_TEST_LINKS";
const CHILD_ADDRESS: &str = "RDASK_NET_TEST_ADDRESS";

/// Set for the test that runs itself again in a network of its own.
const IN_OWN_NETWORK: &str = "RDASK_NET_TEST_IN_OWN_NETWORK";

/// The two ends of a cable.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Linux answers for six at once; one answer may go to a packet of QUIC.
const DEAD_AT_ONCE: usize = 5;

const AT_ONCE: Duration = Duration::from_secs(1);

on_both_transports!(a_killed_peer_is_noticed_within_a_second);

/// Nothing is sent to it but what the endpoint sends by itself.
async fn a_killed_peer_is_noticed_within_a_second(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let folder = tempfile::tempdir().unwrap();
    let path = write_file(&cluster, &scheduler, &folder);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(CHILD_ARGUMENTS).env(CHILD_FILE, &path);
    let mut child = Killed(command.spawn().unwrap());
    let far = joined(&scheduler).await;
    child.kill();
    let before = Instant::now();
    let Ends { sender: _sender, mut receiver } = far;
    let error = soon("the end", receiver.recv()).await.unwrap_err();
    let waited = before.elapsed();
    let expected = match transport {
        Transport::Quic => matches!(error, LinkError::Gone { .. }),
        // TCP's own end of the connection.
        Transport::Tls | Transport::Auto => matches!(error, LinkError::Lost { .. }),
    };
    assert!(expected, "{error:?}");
    assert!(waited < AT_ONCE, "noticed after {waited:?}");
}

/// A node is sparing with words about dead ports, but not on loopback.
#[test]
#[allow(clippy::print_stderr, reason = "it says why it is skipped")]
fn all_killed_peers_of_a_node_are_noticed_within_a_second() {
    if std::env::var_os(IN_OWN_NETWORK).is_some() {
        return run(notice_all_across_a_cable());
    }
    let probe = "ip link set lo up && ip link add here type veth peer name there";
    match Command::new("unshare").args(["--net", "sh", "-c", probe]).output() {
        Ok(output) if output.status.success() => {}
        // The harness shows this with --nocapture.
        _ => return eprintln!("skipped: it takes root, `unshare`, `nsenter`, `ip` and veth"),
    }
    let test = "killed::all_killed_peers_of_a_node_are_noticed_within_a_second";
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(IN_OWN_NETWORK, "yes")
        .status();
    assert!(status.unwrap().success(), "it failed in its own network, see above");
}

async fn notice_all_across_a_cable() {
    shell("ip link set lo up && ip link add here type veth peer name there");
    shell(&format!("ip addr add {HERE}/24 dev here && ip link set here up"));
    let cluster = Cluster::new(Transport::Quic);
    let identity = cluster.identity(PeerRole::Scheduler, 0);
    let config = EndpointConfig { bind: IpAddr::V4(HERE), ..EndpointConfig::new(identity) };
    let scheduler = Endpoint::bind(config.with_transport(Transport::Quic)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = write_file(&cluster, &scheduler, &folder);
    // The node: its network is there for as long as somebody is in it.
    let node = Killed(Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap());
    let network = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).unwrap();
    let number = node.0.id().to_string();
    while network(&number) == network("self") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shell(&format!("ip link set there netns {number}"));
    let up = format!("ip addr add {THERE}/24 dev there && ip link set there up");
    shell(&format!("nsenter --target {number} --net sh -c '{up}'"));
    let child = Command::new("nsenter")
        .args(["--target", &number, "--net"])
        .arg(std::env::current_exe().unwrap())
        .args(CHILD_ARGUMENTS)
        .env(CHILD_FILE, &path)
        .env(CHILD_LINKS, DEAD_AT_ONCE.to_string())
        .env(CHILD_ADDRESS, THERE.to_string())
        .spawn();
    let mut child = Killed(child.unwrap());
    let mut links = Vec::new();
    for _ in 0..DEAD_AT_ONCE {
        links.push(joined(&scheduler).await);
    }
    // Those who live are probed too, and nothing comes of it.
    let nothing = tokio::time::timeout(AT_ONCE, links[0].receiver.recv()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    child.kill();
    let before = Instant::now();
    let mut waited = String::new();
    for far in &mut links {
        let error = soon("the end", far.receiver.recv()).await.unwrap_err();
        assert!(matches!(error, LinkError::Gone { .. }), "{error:?}");
        write!(waited, " {:?}", before.elapsed()).unwrap();
    }
    assert!(before.elapsed() < AT_ONCE, "noticed after{waited}");
}

fn shell(script: &str) {
    let status = Command::new("sh").args(["-c", script]).status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

fn write_file(
    cluster: &Cluster,
    scheduler: &Endpoint,
    folder: &tempfile::TempDir,
) -> std::path::PathBuf {
    let path = folder.path().join("scheduler.json");
    let join = cluster.identity(PeerRole::Join, 0);
    let file = SchedulerFile {
        version: SchedulerFile::VERSION,
        run_id: "r1".to_owned(),
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
    file.write(&path).unwrap();
    path
}

async fn joined(scheduler: &Endpoint) -> Ends {
    let mut far = Ends::of(accept_control(scheduler).await);
    assert_eq!(far.receive().await.unwrap().unwrap(), "hello");
    far
}

const CHILD_ARGUMENTS: [&str; 3] =
    ["--exact", "killed::the_child_joins_and_waits_for_its_end", "--nocapture"];

/// Does nothing but in the child of the tests above.
#[test]
fn the_child_joins_and_waits_for_its_end() {
    let Ok(path) = std::env::var(CHILD_FILE) else {
        return;
    };
    let links = std::env::var(CHILD_LINKS).map_or(1, |links| links.parse().unwrap());
    let address = std::env::var(CHILD_ADDRESS).map(|address| address.parse().unwrap());
    let bind = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let file = SchedulerFile::read(path, FileMode::Private).unwrap();
        let name = PeerName::scheduler(&file.run_id).unwrap();
        let join = file.join_identity().unwrap();
        let to = Target { quic: file.addresses, tls: file.tls_addresses, name };
        let mut held = Vec::new();
        for _ in 0..links {
            let config = EndpointConfig { bind, ..EndpointConfig::dial_only(join.clone()) };
            let endpoint = Endpoint::bind(config).await.unwrap();
            let mut near = Ends::of(endpoint.dial_control(&to).await.unwrap());
            near.send(b"hello").await;
            held.push((endpoint, near));
        }
        // Killed here. If not, the test's patience is longer than this.
        tokio::time::sleep(Duration::from_secs(30)).await;
    });
}

/// No child outlives its test.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It is usually dead and reaped already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
