//! What the scheduler keeps of tasks that nobody runs yet. Then they are run.

use anyhow::Context;
use rdask::Client;
use rdask_testbed::proc::wait_until;

use super::maps::identity;
use super::rsds::submit_all;
use crate::bench::Bench;
use crate::outcome::Outcome;

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let setup = bench.setup().clone();
    let client = bench.connect_alone()?;
    client.status()?;
    let start = bench.start_clock();
    let (tasks, remotes, expected) = if setup.variant == Some("map") {
        let values = 0..u64::from(setup.n);
        let remotes = client.map(identity, values.clone());
        (setup.n, remotes.into_iter().collect::<Vec<_>>(), values.collect::<Vec<_>>())
    } else {
        let graph = setup.graph.graph();
        let expected = graph.sinks().into_iter().map(u64::from);
        (graph.tasks(), submit_all(&client, &graph), expected.collect())
    };
    wait_until("all tasks are pending", || is_pending(&client, tasks));
    let elapsed = start.elapsed();
    let grown = bench.scheduler_grown().context("a scheduler of its own")?;
    bench.emulate(setup.workers, setup.threads)?;
    let ok = client.gather(remotes)? == expected;
    Ok(Outcome::new(ok, elapsed)
        .with("tasks", tasks)
        .with("scheduler_bytes_per_pending_task", grown as f64 / f64::from(tasks)))
}

/// At least: a list of inputs is made by a task of its own.
fn is_pending(client: &Client, tasks: u32) -> bool {
    client.status().is_ok_and(|status| status.waiting + status.ready >= u64::from(tasks))
}
