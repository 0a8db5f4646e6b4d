//! Networks that lose packets, some or all.

use std::time::Duration;

use anyhow::ensure;

use super::deaths::blocks;
use super::freezes::works_again;
use super::naps;
use crate::cluster::{CLIENT, Cluster, SCHEDULER};
use crate::ledger::{Results, now};
use crate::net::Faults;
use crate::stage::Stage;

const FOUR: [&str; 4] = ["w0", "w1", "w2", "w3"];

fn cut(cluster: &Cluster, node: &str, time: Duration) -> anyhow::Result<()> {
    let net = cluster.net()?;
    net.set_node(node, Faults::CUT)?;
    std::thread::sleep(time);
    net.set_node(node, Faults::NONE)
}

pub(super) fn short(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.networked(&FOUR, 4)?;
    let mut client = cluster.client("naps", &naps(4000))?;
    stage.until_begun(&mut client, 400)?;
    cut(&cluster, "w1", Duration::from_secs(2))?;
    let (_, ledger) = stage.conclude(cluster, &mut client, Results::Small)?;
    ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
    Ok(())
}

pub(super) fn long(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.networked(&FOUR, 4)?;
    let mut client = cluster.client("naps", &naps(stage.pick(11_200, 60_000)))?;
    stage.until_begun(&mut client, 400)?;
    stage.lose(&mut cluster, "w1")?;
    cut(&cluster, "w1", Duration::from_secs(stage.pick(8, 60)))?;
    let healed = now();
    let (_, ledger) = stage.result(&mut client, Results::Small)?;
    works_again(stage, &mut cluster, "w1", &ledger, healed)?;
    cluster.finish()
}

/// One direction of a node's cable is cut while a load runs.
fn one_way(stage: &mut Stage, out: bool) -> anyhow::Result<()> {
    let mut cluster = stage.networked(&FOUR, 4)?;
    let mut client = cluster.client("naps", &naps(3200))?;
    stage.until_begun(&mut client, 400)?;
    stage.lose(&mut cluster, "w1")?;
    let one_way = |cluster: &Cluster, faults| {
        for other in [SCHEDULER, CLIENT, "w0", "w2", "w3"] {
            let (from, to) = if out { ("w1", other) } else { (other, "w1") };
            cluster.net()?.set(from, to, faults)?;
        }
        anyhow::Ok(())
    };
    one_way(&cluster, Faults::CUT)?;
    stage.result(&mut client, Results::Small)?;
    one_way(&cluster, Faults::NONE)?;
    let healed = now();
    until_at_work(stage, &mut cluster, "w1", healed)?;
    cluster.finish()
}

/// Gives work until a worker takes its part of it.
pub(super) fn until_at_work(
    stage: &mut Stage,
    cluster: &mut Cluster,
    name: &str,
    healed: u64,
) -> anyhow::Result<()> {
    loop {
        let mut client = cluster.client("naps", &naps(100))?;
        client.outcome(stage.time_left())?;
        let ledger = stage.ledger()?;
        ledger.check(&stage.losses, Results::Small)?;
        let processes = cluster.processes(name)?.into_iter().collect();
        if let Some(begun) = ledger.first_begin_of(&processes, healed) {
            let after = (begun - healed) as f64 / 1e6;
            stage.notes.push(format!("at work again after {after:.1} s"));
            return Ok(());
        }
    }
}

pub(super) fn out(stage: &mut Stage) -> anyhow::Result<()> {
    one_way(stage, true)
}

pub(super) fn into(stage: &mut Stage) -> anyhow::Result<()> {
    one_way(stage, false)
}

pub(super) fn flapping(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.networked(&FOUR, 4)?;
    let mut client = cluster.client("naps", &naps(stage.pick(7200, 60_000)))?;
    stage.until_begun(&mut client, 400)?;
    while !client.ended()? {
        cut(&cluster, "w1", Duration::from_secs(1))?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let (_, ledger) = stage.conclude(cluster, &mut client, Results::Small)?;
    ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
    Ok(())
}

pub(super) fn loss(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.networked(&FOUR, 4)?;
    let faults = Faults { cut: false, loss: 50, duplicate: 50, reorder: 250 };
    cluster.net()?.set_all(faults)?;
    let shuffle = blocks(16, 65_536);
    for (load, arguments) in [("shuffle", &shuffle[..]), ("tree", &["8192".to_owned()])] {
        let mut client = cluster.client(load, arguments)?;
        let (_, ledger) = stage.result(&mut client, Results::Large)?;
        ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
    }
    let (carried, lost) = cluster.net()?.counts();
    stage.notes.push(format!("{lost} of {} packets lost", carried + lost));
    ensure!(lost > 0, "nothing was lost: nothing was tested");
    cluster.net()?.set_all(Faults::NONE)?;
    cluster.finish()
}
