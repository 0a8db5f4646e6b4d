//! The graphs of RSDS, submitted task by task.

use rdask::{Client, Remote};

use super::nap;
use crate::bench::Bench;
use crate::graph::Graph;
use crate::outcome::Outcome;

/// A task's number, and for how many microseconds it sleeps.
type Own = (u64, u32);

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The value of a task: who has it right has run all that it depends on, with the right inputs.
fn value(task: u64, inputs: &[u64]) -> u64 {
    inputs.iter().fold(mix(task + 1), |sum, input| mix(sum.rotate_left(17) ^ input))
}

fn node(own: Own, inputs: &[u64]) -> u64 {
    value(nap(own), inputs)
}

/// Submits one task. As users write it: single inputs as parameters, many as a list.
fn submit(client: &Client, own: Own, inputs: &[&Remote<u64>]) -> Remote<u64> {
    match *inputs {
        [] => client.submit(|own: Own| node(own, &[]), (own,)),
        [a] => client.submit(|own: Own, a: u64| node(own, &[a]), (own, a)),
        [a, b] => client.submit(|own: Own, a: u64, b: u64| node(own, &[a, b]), (own, a, b)),
        [a, b, c] => {
            let function = |own: Own, a: u64, b: u64, c: u64| node(own, &[a, b, c]);
            client.submit(function, (own, a, b, c))
        }
        [a, b, c, d] => {
            let function = |own: Own, a: u64, b: u64, c: u64, d: u64| node(own, &[a, b, c, d]);
            client.submit(function, (own, a, b, c, d))
        }
        _ => {
            let all: Vec<Remote<u64>> = inputs.iter().map(|one| (*one).clone()).collect();
            client.submit(|own: Own, all: Vec<u64>| node(own, &all), (own, &all))
        }
    }
}

/// Submits all tasks; what is left are handles of the sinks.
pub(super) fn submit_all(client: &Client, graph: &Graph) -> Vec<Remote<u64>> {
    let mut remotes: Vec<Remote<u64>> = Vec::with_capacity(graph.tasks() as usize);
    for task in 0..graph.tasks() {
        let inputs = graph.inputs_of(task).iter().map(|input| &remotes[*input as usize]);
        let inputs: Vec<&Remote<u64>> = inputs.collect();
        remotes.push(submit(client, (task.into(), graph.nap_of(task)), &inputs));
    }
    graph.sinks().into_iter().map(|sink| remotes[sink as usize].clone()).collect()
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let setup = bench.setup().clone();
    let graph = setup.graph.graph();
    let expected: Vec<u64> = match setup.emulated {
        true => graph.sinks().into_iter().map(u64::from).collect(),
        false => {
            let values = graph.fold(|task, inputs| value(task.into(), inputs));
            graph.sinks().into_iter().map(|sink| values[sink as usize]).collect()
        }
    };
    let (client, start) = bench.begin()?;
    let sinks = submit_all(&client, &graph);
    let submitted = start.elapsed();
    let values = client.gather(sinks)?;
    let elapsed = start.elapsed();
    let mut outcome = Outcome::new(values == expected, elapsed).with_tasks(graph.tasks());
    if graph.sleep_s() > 0.0 {
        let slots = f64::from(setup.workers * setup.threads);
        outcome = outcome.with_ideal(graph.sleep_s() / slots);
    }
    Ok(outcome
        .with("graph", setup.graph.name)
        .with("tasks", graph.tasks())
        .with("edges", graph.edges())
        .with("longest_path", graph.longest_path())
        .with("submit_s", submitted.as_secs_f64()))
}
