//! Tasks that end their processes.

use anyhow::{Context, ensure};

use crate::cluster::{Cluster, Special};
use crate::ledger::Results;
use crate::load::Failure;
use crate::stage::Stage;

/// A task that is found at work at so many deaths is to blame.
const DEATHS_MAX: usize = 3;

pub(super) fn poison(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = stage.cluster(&["w0", "w1", "w2", "w3"], 4)?;
    let arguments = ["1000", "--millis", "5"].map(str::to_owned);
    let failure = judge(stage, cluster, "poison", &arguments)?;
    ensure!(failure.text.contains("killer"), "it does not name the function: {}", failure.text);
    Ok(())
}

pub(super) fn hog(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&[], 4)?;
    for name in ["w0", "w1", "w2", "w3"] {
        let special = Special { arguments: &["--memory-limit", "512MiB"], cache: None };
        cluster.add_special(name, "pool", 4, special)?;
    }
    cluster.wait_for_workers(4)?;
    let arguments = ["1000", "--millis", "5", "--size", "2000000000"].map(str::to_owned);
    let failure = judge(stage, cluster, "hog", &arguments)?;
    ensure!(failure.text.contains("memory"), "it does not say why: {}", failure.text);
    Ok(())
}

/// Runs a load with one bad task. Only processes that it ran in are lost, and not too many.
fn judge(
    stage: &mut Stage,
    mut cluster: Cluster,
    load: &str,
    arguments: &[String],
) -> anyhow::Result<Failure> {
    let mut client = cluster.client(load, arguments)?;
    let outcome = client.outcome(stage.time_left())?;
    let ledger = stage.ledger()?;
    let cut_short = ledger.cut_short();
    for (pid, since) in &cut_short {
        stage.losses.add_at(*pid, *since);
    }
    let deaths = cut_short.len();
    stage.notes.push(format!("{deaths} processes ended, {} run again", ledger.reruns()));
    ledger.check(&stage.losses, Results::Small)?;
    cluster.finish()?;
    let failure = outcome.failure.context("the client says nothing of the bad task")?;
    ensure!(failure.kind == "Killed", "the bad task ended as {}: {}", failure.kind, failure.text);
    ensure!(deaths <= DEATHS_MAX, "{deaths} processes ended for one task");
    Ok(failure)
}
