//! A peer that is killed, as `kill -9` and the kernel's memory guard do it: without a last word.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rdask_net::{
    Endpoint, EndpointConfig, FileMode, LinkError, PeerRole, SchedulerFile, Target, Transport,
};

use crate::cluster::{Cluster, Ends, accept_control, on_both_transports, soon};

/// Set for the child only: the scheduler file to join with.
const CHILD_FILE: &str = "RDASK_NET_TEST_SCHEDULER_FILE";

on_both_transports!(a_killed_peer_is_noticed_within_a_second_of_the_next_packet);

async fn a_killed_peer_is_noticed_within_a_second_of_the_next_packet(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let folder = tempfile::tempdir().unwrap();
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
    };
    file.write(&path).unwrap();
    let mut child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::the_child_joins_and_waits_for_its_end", "--nocapture"])
            .env(CHILD_FILE, &path)
            .spawn()
            .unwrap(),
    );
    let mut far = Ends::of(accept_control(&scheduler).await);
    assert_eq!(far.receive().await.unwrap().unwrap(), "hello");
    child.0.kill().unwrap();
    child.0.wait().unwrap();

    let before = Instant::now();
    let Ends { mut sender, mut receiver } = far;
    // Pings four times as often as the scheduler's.
    let pinging = async {
        while sender.send(&[1, 0, 0, 0, 7]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(125)).await;
        }
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        () = pinging => unreachable!("pinging never returns"),
        received = soon("the end", receiver.recv()) => received.unwrap_err(),
    };
    let waited = before.elapsed();
    let expected = match transport {
        Transport::Quic => matches!(error, LinkError::Gone { .. }),
        // TCP's own end of the connection.
        Transport::Tls | Transport::Auto => matches!(error, LinkError::Lost { .. }),
    };
    assert!(expected, "{error:?}");
    assert!(waited < Duration::from_secs(1), "noticed after {waited:?}");
}

/// Does nothing but in the child of the test above.
#[test]
fn the_child_joins_and_waits_for_its_end() {
    let Ok(path) = std::env::var(CHILD_FILE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let file = SchedulerFile::read(path, FileMode::Private).unwrap();
        let join = file.join_identity().unwrap();
        let name = rdask_net::PeerName::scheduler(&file.run_id).unwrap();
        let to = Target { quic: file.addresses, tls: file.tls_addresses, name };
        let config = EndpointConfig::dial_only(join).on_loopback();
        let endpoint = Endpoint::bind(config).await.unwrap();
        let mut near = Ends::of(endpoint.dial_control(&to).await.unwrap());
        near.send(b"hello").await;
        // Killed here. If not, the test's patience is longer than this.
        tokio::time::sleep(Duration::from_secs(30)).await;
    });
}

/// No child outlives its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It is usually dead and reaped already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
