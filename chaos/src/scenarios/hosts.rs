//! Losses between hosts: each worker on a node of its own, behind a network.

use std::time::Duration;

use anyhow::ensure;

use super::cuts::until_at_work;
use super::deaths::{NANNY_SEEN_WITHIN, blocks};
use super::naps;
use crate::ledger::{Results, now};
use crate::net::Faults;
use crate::stage::Stage;

const FOUR: [&str; 4] = ["w0", "w1", "w2", "w3"];

/// Of a host that is gone nobody tells, and five seconds of silence must do.
pub(super) const SILENCE_SEEN_WITHIN: Duration = Duration::from_secs(6);

/// Who was fetching from a host that is gone does not wait until the link has found out: it would take
/// half a minute, and all of this takes two seconds.
pub(super) const OVER_WITHIN: Duration = Duration::from_secs(12);

pub(super) fn kill(stage: &mut Stage) -> anyhow::Result<()> {
    const N: usize = 32;
    let mut cluster = stage.networked(&FOUR, 2)?;
    let mut client = cluster.client("shuffle", &blocks(N, 256 << 10))?;
    stage.until_begun(&mut client, N + N / 4)?;
    stage.kill(&mut cluster, &FOUR[2..])?;
    let (outcome, ledger) = stage.conclude(cluster, &mut client, Results::Large)?;
    stage.check_rerun_within(&ledger, NANNY_SEEN_WITHIN)?;
    ensure!(outcome.seconds <= OVER_WITHIN.as_secs_f64(), "somebody waited for the dead");
    Ok(())
}

pub(super) fn crash(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.networked(&FOUR, 4)?;
    let mut client = cluster.client("kept-naps", &naps(4000))?;
    stage.until_begun(&mut client, 1000)?;
    cluster.net()?.set_node("w1", Faults::CUT)?;
    stage.kill(&mut cluster, &["w1"])?;
    let (_, ledger) = stage.result(&mut client, Results::Large)?;
    stage.check_rerun_within(&ledger, SILENCE_SEEN_WITHIN)?;
    // The node is started again.
    cluster.net()?.set_node("w1", Faults::NONE)?;
    cluster.add("w1", "pool", 4)?;
    let back = now();
    until_at_work(stage, &mut cluster, "w1", back)?;
    cluster.finish()
}
