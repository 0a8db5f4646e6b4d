//! Processes that stop and go on, or hardly go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;

use super::naps;
use crate::cluster::{Cluster, signal};
use crate::ledger::{Ledger, Results, now};
use crate::stage::Stage;

const FOUR: [&str; 4] = ["w0", "w1", "w2", "w3"];

/// Who comes back works again within this time.
const BACK_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn short(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&FOUR, 8)?;
    let mut client = cluster.client("naps", &naps(4000))?;
    stage.until_begun(&mut client, 400)?;
    stage.freeze(&mut cluster, "w1", Duration::from_secs(2))?;
    let (_, ledger) = stage.conclude(cluster, &mut client, Results::Small)?;
    ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
    Ok(())
}

pub(super) fn long(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&FOUR, 4)?;
    let mut client = cluster.client("naps", &naps(stage.pick(11_200, 60_000)))?;
    stage.until_begun(&mut client, 400)?;
    stage.lose(&mut cluster, "w1")?;
    stage.freeze(&mut cluster, "w1", Duration::from_secs(stage.pick(8, 60)))?;
    let thawed = now();
    let (_, ledger) = stage.result(&mut client, Results::Small)?;
    works_again(stage, &mut cluster, "w1", &ledger, thawed)?;
    cluster.finish()
}

/// A worker that was given up begins tasks after it came back, and soon.
pub(super) fn works_again(
    stage: &mut Stage,
    cluster: &mut Cluster,
    name: &str,
    ledger: &Ledger,
    back: u64,
) -> anyhow::Result<()> {
    // What it still had of before it learned of its fate doesn't count.
    let learned = back + 1_000_000;
    let processes = cluster.processes(name)?.into_iter().collect();
    let Some(begun) = ledger.first_begin_of(&processes, learned) else {
        anyhow::bail!("{name} came back and got nothing to do");
    };
    let after = Duration::from_micros(begun - back);
    stage.notes.push(format!("at work again after {:.1} s", after.as_secs_f64()));
    ensure!(after <= BACK_WITHIN, "too late");
    Ok(())
}

pub(super) fn scheduler(stage: &mut Stage) -> anyhow::Result<()> {
    let mut cluster = stage.cluster(&FOUR, 8)?;
    let before = cluster.members()?;
    let mut client = cluster.client("naps", &naps(6400))?;
    stage.until_begun(&mut client, 1000)?;
    signal(cluster.scheduler(), Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(stage.pick(10, 40)));
    signal(cluster.scheduler(), Signal::SIGCONT);
    let (_, ledger) = stage.result(&mut client, Results::Small)?;
    ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
    let after = cluster.members()?;
    ensure!(before == after, "workers were given up: {before:?} became {after:?}");
    cluster.finish()
}

/// So many threads that do nothing but take the processors' time.
const BUSY_THREADS: usize = 64;

pub(super) fn busy(stage: &mut Stage) -> anyhow::Result<()> {
    let time = Duration::from_secs(stage.pick(10, 60));
    let mut cluster = stage.cluster(&FOUR, 4)?;
    let before = cluster.members()?;
    let mut client = cluster.client("naps", &naps(stage.pick(10_000, 60_000)))?;
    stage.until_begun(&mut client, 400)?;
    let over = AtomicBool::new(false);
    let turns = std::thread::scope(|scope| {
        let spin = || {
            let mut turns = 0_u64;
            while !over.load(Ordering::Relaxed) {
                turns = std::hint::black_box(turns + 1);
            }
            turns
        };
        let threads: Vec<_> = (0..BUSY_THREADS).map(|_| scope.spawn(spin)).collect();
        std::thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        let turns = threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
        turns.collect::<Vec<u64>>()
    });
    ensure!(turns.iter().all(|turns| *turns > 0), "a thread never had its turn");
    ensure!(!client.ended()?, "the client had ended before the threads: nothing was tested");
    let (_, ledger) = stage.result(&mut client, Results::Small)?;
    ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
    let after = cluster.members()?;
    ensure!(before == after, "workers were given up: {before:?} became {after:?}");
    cluster.finish()
}

pub(super) fn slow(stage: &mut Stage) -> anyhow::Result<()> {
    const COUNT: u32 = 4000;
    let mut cluster = stage.cluster(&FOUR, 8)?;
    let mut client = cluster.client("naps", &naps(COUNT))?;
    stage.until_begun(&mut client, 100)?;
    let mut pids = cluster.processes("w1")?;
    pids.push(cluster.nanny("w1")?);
    let over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (what, time) in [(Signal::SIGSTOP, 180), (Signal::SIGCONT, 20)] {
                    pids.iter().for_each(|pid| signal(*pid, what));
                    std::thread::sleep(Duration::from_millis(time));
                }
            }
        });
        let done = stage.result(&mut client, Results::Small);
        over.store(true, Ordering::Relaxed);
        done
    });
    let (outcome, ledger) = done?;
    ensure!(ledger.reruns() == 0, "{} tasks ran again", ledger.reruns());
    let of_three = f64::from(COUNT) * 0.02 / 24.0;
    let ratio = outcome.seconds / of_three;
    stage.notes.push(format!("{ratio:.2} of the time of three workers"));
    ensure!(ratio <= 1.3, "too slow");
    cluster.finish()
}
