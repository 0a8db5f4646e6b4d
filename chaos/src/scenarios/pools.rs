//! Pools that come and go.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::naps;
use crate::cluster::{Client, Cluster, PATIENCE};
use crate::ledger::Results;
use crate::stage::Stage;

const TWO_POOLS: [&str; 4] = ["a0:stays", "a1:stays", "b0:goes", "b1:goes"];
const GO: [&str; 2] = ["b0", "b1"];

fn at_work(stage: &mut Stage) -> anyhow::Result<(Cluster, Client)> {
    let mut cluster = stage.cluster(&TWO_POOLS, 8)?;
    let mut client = cluster.client("kept-naps", &naps(4000))?;
    stage.until_begun(&mut client, 1500)?;
    Ok((cluster, client))
}

pub(super) fn term(stage: &mut Stage) -> anyhow::Result<()> {
    let (mut cluster, mut client) = at_work(stage)?;
    let told = Instant::now();
    stage.kill_pool("goes", "TERM")?;
    for name in GO {
        let status = cluster.left(name, PATIENCE)?;
        ensure!(status.success(), "{name} left with {status}: {}", cluster.log("nanny-b0")?);
    }
    stage.notes.push(format!("left within {:.2} s", told.elapsed().as_secs_f64()));
    let (_, ledger) = stage.conclude(cluster, &mut client, Results::Large)?;
    ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
    Ok(())
}

pub(super) fn kill(stage: &mut Stage) -> anyhow::Result<()> {
    let (mut cluster, mut client) = at_work(stage)?;
    for name in GO {
        stage.lose(&mut cluster, name)?;
    }
    stage.kill_pool("goes", "KILL")?;
    for name in GO {
        cluster.left(name, PATIENCE)?;
    }
    stage.conclude(cluster, &mut client, Results::Large).map(drop)
}

pub(super) fn churn(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&TWO_POOLS[..2], 4)?;
    let mut client = cluster.client("kept-naps", &naps(stage.pick(8400, 36_000)))?;
    stage.until_begun(&mut client, 100)?;
    let mut times = 0;
    for signal in ["TERM", "KILL"].into_iter().cycle() {
        for name in GO {
            cluster.add(name, "goes", 4)?;
        }
        std::thread::sleep(Duration::from_secs(2));
        if signal == "KILL" {
            for name in GO {
                stage.lose(&mut cluster, name)?;
            }
        }
        stage.kill_pool("goes", signal)?;
        times += 1;
        for name in GO {
            let status = cluster.left(name, PATIENCE)?;
            ensure!(status.success() || signal == "KILL", "{name} left with {status}");
        }
        if client.ended()? {
            break;
        }
    }
    stage.notes.push(format!("came and went {times} times"));
    stage.conclude(cluster, &mut client, Results::Large).map(drop)
}
