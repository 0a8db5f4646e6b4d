//! Processes, nannies, workers and clients that are killed.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use rdask_testbed::proc::{is_alive, memory};

use super::naps;
use crate::cluster::{Client, Cluster, PATIENCE, signal, wait_for};
use crate::ledger::{Results, now};
use crate::load::GO_ON;
use crate::stage::Stage;

/// A nanny sees how a process of its own ends, at once.
const PROCESS_SEEN_WITHIN: Duration = Duration::from_millis(300);

/// A host says that nobody listens at a port any more, when it's asked twice.
pub(super) const NANNY_SEEN_WITHIN: Duration = Duration::from_millis(1500);

const FOUR: [&str; 4] = ["w0", "w1", "w2", "w3"];

pub(super) fn processes(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&FOUR, 8)?;
    let mut client = cluster.client("kept-naps", &naps(stage.pick(4000, 40_000)))?;
    stage.until_begun(&mut client, 200)?;
    let mut killed = 0;
    for name in FOUR.iter().cycle().take(stage.pick(6, 60)) {
        if client.ended()? {
            break;
        }
        for pid in cluster.processes(name)? {
            stage.losses.add(pid);
            signal(pid, Signal::SIGKILL);
            killed += 1;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    ensure!(killed >= 4, "only {killed} processes were there to be killed");
    stage.notes.push(format!("{killed} killed"));
    let (_, ledger) = stage.conclude(cluster, &mut client, Results::Large)?;
    stage.check_rerun_within(&ledger, PROCESS_SEEN_WITHIN)
}

pub(super) fn nannies(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&FOUR, 8)?;
    let mut client = cluster.client("kept-naps", &naps(stage.pick(4000, 40_000)))?;
    stage.until_begun(&mut client, 200)?;
    for name in FOUR.iter().cycle().take(stage.pick(3, 30)) {
        let processes = cluster.processes(name)?;
        stage.lose(&mut cluster, name)?;
        signal(cluster.nanny(name)?, Signal::SIGKILL);
        cluster.left(name, PATIENCE)?;
        wait_for("the processes end with their nanny", Duration::from_secs(2), || {
            Ok((!processes.iter().any(|pid| is_alive(*pid))).then_some(()))
        })?;
        std::thread::sleep(Duration::from_millis(500));
        cluster.add(name, "pool", 8)?;
    }
    let (_, ledger) = stage.conclude(cluster, &mut client, Results::Large)?;
    stage.check_rerun_within(&ledger, NANNY_SEEN_WITHIN)
}

pub(super) fn half_map(stage: &mut Stage) -> anyhow::Result<()> {
    /// 2.5 s on four slots, 200 tasks on two, and what was at work when they died.
    const IDEAL: f64 = 2.5 + 200.0 * 0.05 / 2.0 + 0.05;
    let mut cluster = stage.cluster(&FOUR, 1)?;
    let arguments = ["400", "--millis", "50"].map(str::to_owned);
    let mut client = cluster.client("naps", &arguments)?;
    stage.until_begun(&mut client, 200)?;
    stage.kill(&mut cluster, &FOUR[2..])?;
    let (outcome, ledger) = stage.conclude(cluster, &mut client, Results::Small)?;
    stage.notes.push(format!("{:.3} of the least possible time", outcome.seconds / IDEAL));
    // What the dead had at work, and what they had ended in their last moments.
    ensure!(ledger.reruns() <= 4, "{} tasks ran again", ledger.reruns());
    Ok(())
}

/// Half the workers are killed when so many runs have begun.
fn half(
    stage: &mut Stage,
    load: &str,
    arguments: &[String],
    at: usize,
    results: Results,
) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&FOUR, 2)?;
    let mut client = cluster.client(load, arguments)?;
    stage.until_begun(&mut client, at)?;
    stage.kill(&mut cluster, &FOUR[2..])?;
    let killed = now();
    let (_, ledger) = stage.conclude(cluster, &mut client, results)?;
    let after = ledger.begun_after(killed);
    stage.notes.push(format!("{after} begun after the kill"));
    ensure!(after > at / 10, "it was over before the kill: nothing was tested");
    Ok(())
}

pub(super) fn half_tree(stage: &mut Stage) -> anyhow::Result<()> {
    half(stage, "tree", &["65536".to_owned()], 20_000, Results::Small)
}

pub(super) fn half_kept_tree(stage: &mut Stage) -> anyhow::Result<()> {
    let leaves: usize = stage.pick(8192, 65_536);
    half(stage, "kept-tree", &[leaves.to_string()], leaves / 3, Results::Large)
}

/// Rows and columns of a shuffle, and how many bytes a block of it has.
pub(super) fn blocks(n: usize, size: usize) -> [String; 3] {
    [n.to_string(), "--size".to_owned(), size.to_string()]
}

/// The workers die when a quarter of the columns have begun: the dead have had rows that all others
/// need.
fn half_shuffle_of(stage: &mut Stage, size: usize) -> anyhow::Result<()> {
    const N: usize = 64;
    half(stage, "shuffle", &blocks(N, size), N + N / 4, Results::Large)
}

pub(super) fn half_shuffle(stage: &mut Stage) -> anyhow::Result<()> {
    half_shuffle_of(stage, stage.pick(64 << 10, 1 << 20))
}

pub(super) fn half_unwanted(stage: &mut Stage) -> anyhow::Result<()> {
    const COUNT: usize = 2000;
    let mut cluster = stage.cluster(&FOUR, 8)?;
    let mut client = cluster.client("half-kept", &naps(COUNT as u32))?;
    wait_for("the client drops half of them", stage.time_left(), || {
        ensure!(!client.ended()?, "the client has ended: {:?}", client.outcome(Duration::ZERO));
        Ok((stage.ledger()?.dropped() == COUNT / 2).then_some(()))
    })?;
    stage.kill(&mut cluster, &FOUR[2..])?;
    std::fs::write(stage.folder.join(GO_ON), "")?;
    let (_, ledger) = stage.conclude(cluster, &mut client, Results::Large)?;
    // Those of the other half that the dead held.
    ensure!(ledger.reruns() >= COUNT / 8, "only {} ran again", ledger.reruns());
    Ok(())
}

pub(super) fn half_shuffle_4gib(stage: &mut Stage) -> anyhow::Result<()> {
    half_shuffle_of(stage, 1 << 20)
}

pub(super) fn all_workers(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&FOUR, 2)?;
    let mut client = cluster.client("shuffle", &blocks(32, 65_536))?;
    stage.until_begun(&mut client, 32 + 8)?;
    stage.kill(&mut cluster, &FOUR)?;
    ensure!(!client.ended()?, "the client had ended before the injection");
    std::thread::sleep(Duration::from_secs(stage.pick(1, 20)));
    for name in ["x0", "x1"] {
        cluster.add(name, "pool", 2)?;
    }
    stage.conclude(cluster, &mut client, Results::Large).map(drop)
}

pub(super) fn client(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&FOUR, 8)?;
    const COUNT: u32 = 4000;
    let mut first = cluster.client("kept-naps", &naps(COUNT))?;
    stage.until_begun(&mut first, 400)?;
    let mut second = cluster.client("naps", &naps(COUNT))?;
    stage.until_begun(&mut second, 400)?;
    first.kill()?;
    let died = Instant::now();
    // Of both clients: who died never held up who lives, and nothing ran without a cause.
    stage.result(&mut second, Results::Large)?;
    cluster.finish()?;
    stage.notes.push(format!("released within {:.1} s", died.elapsed().as_secs_f64()));
    let begun = stage.ledger()?.tasks();
    ensure!(begun < 2 * COUNT as usize, "the tasks of the dead client all ran: {begun}");
    Ok(())
}

const LEFT_AND_RIGHT: [&str; 4] = ["l0:left", "l1:left", "r0:right", "r1:right"];

/// Starts the transfer of 1 GB and waits for its middle: the reader, by the memory it fills.
fn transfer(stage: &mut Stage) -> anyhow::Result<(Cluster, Client, &'static str)> {
    const BYTES: u64 = 1_000_000_000;
    let mut cluster = stage.cluster(&LEFT_AND_RIGHT, 1)?;
    let arguments = ["1", "--size", &BYTES.to_string()].map(str::to_owned);
    let mut client = cluster.client("transfer", &arguments)?;
    let reader = wait_for("the middle of the transfer", stage.time_left(), || {
        if client.ended()? {
            client.outcome(Duration::ZERO)?;
            anyhow::bail!("the client had ended before the injection");
        }
        for name in ["r0", "r1"] {
            for pid in cluster.processes(name)? {
                if is_alive(pid) && memory(pid, "VmRSS") > BYTES / 4 {
                    return Ok(Some(name));
                }
            }
        }
        Ok(None)
    })?;
    Ok((cluster, client, reader))
}

pub(super) fn transfer_holder(stage: &mut Stage) -> anyhow::Result<()> {
    let (mut cluster, mut client, _) = transfer(stage)?;
    let holders = stage.ledger()?.processes();
    let mut holder = "";
    for name in ["l0", "l1"] {
        if cluster.processes(name)?.iter().any(|pid| holders.contains(pid)) {
            holder = name;
        }
    }
    let killed = now();
    stage.kill(&mut cluster, &[holder])?;
    let (_, ledger) = stage.conclude(cluster, &mut client, Results::Large)?;
    ensure!(ledger.reruns() >= 1, "it was read before its holder died: nothing was tested");
    ensure!(ledger.begun_after(killed) > 0, "nothing began after the kill");
    Ok(())
}

pub(super) fn transfer_reader(stage: &mut Stage) -> anyhow::Result<()> {
    let (mut cluster, mut client, reader) = transfer(stage)?;
    let before = stage.ledger()?;
    stage.kill(&mut cluster, &[reader])?;
    let (_, ledger) = stage.conclude(cluster, &mut client, Results::Large)?;
    let made = before.processes();
    let maker = made.iter().next().context("somebody made it")?;
    ensure!(before.tasks() == 1, "it had been read before the reader died: nothing was tested");
    ensure!(ledger.begun_by(&[*maker].into(), 0) == 1, "it was made again");
    Ok(())
}
