//! Firewalls: everybody reaches the scheduler, and not everybody each other.

use anyhow::ensure;

use super::deaths::blocks;
use super::hosts::{OVER_WITHIN, SILENCE_SEEN_WITHIN};
use crate::cluster::{CLIENT, Cluster};
use crate::ledger::Results;
use crate::net::Faults;
use crate::stage::Stage;

const LEFT: [&str; 2] = ["a0", "a1"];
const RIGHT: [&str; 2] = ["b0", "b1"];
const WORKERS: [&str; 4] = ["a0:left", "a1:left", "b0:right", "b1:right"];

/// Nothing gets from one to the other, whoever begins.
fn part(cluster: &Cluster, some: &[&str], others: &[&str]) -> anyhow::Result<()> {
    for one in some {
        for other in others {
            cluster.net()?.set(one, other, Faults::CUT)?;
            cluster.net()?.set(other, one, Faults::CUT)?;
        }
    }
    Ok(())
}

/// How many pairs the scheduler says to have relayed between: of a client and of two processes.
fn relayed(cluster: &Cluster) -> anyhow::Result<(usize, usize)> {
    let log = cluster.log("scheduler")?;
    let pairs = |who| log.matches(&format!("relays values between {who}")).count();
    Ok((pairs("c"), pairs("p")))
}

pub(super) fn relay(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.networked(&WORKERS, 2)?;
    part(&cluster, &[CLIENT], &[LEFT, RIGHT].concat())?;
    part(&cluster, &LEFT, &RIGHT)?;
    let values = blocks(16, stage.pick(4, 64) << 20);
    for (load, arguments) in [("there-and-back", &values), ("shuffle", &blocks(16, 256 << 10))] {
        let mut client = cluster.client(load, arguments)?;
        let (_, ledger) = stage.result(&mut client, Results::Large)?;
        ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
    }
    let (of_clients, of_processes) = relayed(&cluster)?;
    stage.notes.push(format!("{of_clients} + {of_processes} pairs relayed"));
    ensure!(of_clients > 0 && of_processes > 0, "nothing was relayed: nothing was tested");
    cluster.finish()
}

pub(super) fn crash(stage: &mut Stage) -> anyhow::Result<()> {
    const N: usize = 32;
    let mut cluster = stage.networked(&WORKERS, 2)?;
    part(&cluster, &LEFT, &RIGHT)?;
    let mut client = cluster.client("shuffle", &blocks(N, 64 << 10))?;
    stage.until_begun(&mut client, N + N / 4)?;
    for gone in [LEFT[1], RIGHT[1]] {
        cluster.net()?.set_node(gone, Faults::CUT)?;
    }
    stage.kill(&mut cluster, &[LEFT[1], RIGHT[1]])?;
    let (outcome, ledger) = stage.conclude(cluster, &mut client, Results::Large)?;
    stage.check_rerun_within(&ledger, SILENCE_SEEN_WITHIN)?;
    ensure!(outcome.seconds <= OVER_WITHIN.as_secs_f64(), "somebody waited for the dead");
    Ok(())
}
