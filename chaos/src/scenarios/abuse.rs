//! What machines and strangers do.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::naps;
use crate::cluster::{Cluster, Special, wait_for};
use crate::ledger::Results;
use crate::load::mixed;
use crate::stage::{SmallDisk, Stage};

pub(super) fn full_disk(stage: &mut Stage) -> anyhow::Result<()> {
    let folder = stage.folder.join("small");
    std::fs::create_dir(&folder)?;
    let disk = SmallDisk::mount(&folder, 1)?;
    let mut cluster = stage.cluster(&["w0", "w1"], 8)?;
    let special = Special { arguments: &[], cache: Some(&folder) };
    cluster.add_special("small", "pool", 8, special)?;
    cluster.wait_for_workers(3)?;
    let mut client = cluster.client("naps", &naps(4000))?;
    stage.result(&mut client, Results::Small)?;
    wait_for("the nanny says what is the matter", Duration::from_secs(5), || {
        Ok(cluster.log("nanny-small")?.contains("can't be kept").then_some(()))
    })?;
    let status = cluster.status()?;
    let small = status.workers.iter().find(|worker| worker.name == "small");
    ensure!(small.context("the worker left")?.processes == 0, "the program runs there");
    cluster.finish()?;
    drop(disk);
    Ok(())
}

pub(super) fn garbage(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&["w0", "w1", "w2", "w3"], 2)?;
    let mut seconds = |cluster: &mut Cluster| {
        let mut client = cluster.client("tree", &["65536".to_owned()])?;
        let (outcome, ledger) = stage.result(&mut client, Results::Small)?;
        ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
        Ok(outcome.seconds)
    };
    let clean = seconds(&mut cluster)?;
    let target = address_in(&cluster)?;
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let attacked = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| attack(target, &over, &sent));
        let attacked = seconds(&mut cluster);
        over.store(true, Ordering::Relaxed);
        attacker.join().expect("it does not panic")?;
        attacked
    })?;
    let sent = sent.into_inner();
    stage.notes.push(format!("{sent} datagrams"));
    ensure!(sent > 1000, "too few datagrams: nothing was tested");
    ensure!(attacked <= (clean * 1.43).max(clean + 1.0), "{attacked:.2} s, {clean:.2} s without");
    cluster.finish()
}

/// Where the scheduler listens.
fn address_in(cluster: &Cluster) -> anyhow::Result<SocketAddr> {
    let text = std::fs::read_to_string(cluster.file())?;
    let file: serde_json::Value = serde_json::from_str(&text)?;
    let address = file["addresses"][0].as_str().context("no address in the scheduler file")?;
    Ok(address.parse()?)
}

/// Sends ten datagrams each millisecond: noise, and noise that begins as QUIC does.
fn attack(target: SocketAddr, over: &AtomicBool, sent: &AtomicU64) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut state = 1;
    while !over.load(Ordering::Relaxed) {
        for nth in 0..10 {
            let mut datagram: Vec<u8> = Vec::with_capacity(1200);
            while datagram.len() < 1200 {
                state = mixed(state);
                datagram.extend(state.to_le_bytes());
            }
            if nth % 2 == 0 {
                // A long header of version 1, the first packet of a connection.
                datagram[..6].copy_from_slice(&[0xC3, 0, 0, 0, 1, 8]);
            }
            // A full queue is none of ours.
            sent.fetch_add(u64::from(socket.send_to(&datagram, target).is_ok()), Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
