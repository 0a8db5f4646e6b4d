//! Tasks on the results of tasks, by single submits.

use rdask::Remote;

use crate::bench::Bench;
use crate::outcome::Outcome;

fn identity(x: u64) -> u64 {
    x
}

fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}

pub(super) fn tree(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let n = bench.setup().n;
    let mut level: Vec<Remote<u64>> =
        (0..n).map(|i| client.submit(identity, (u64::from(i),))).collect();
    while level.len() > 1 {
        let mut next = Vec::with_capacity(level.len().div_ceil(2));
        for pair in level.chunks(2) {
            next.push(match pair {
                [a, b] => client.submit(add, (a, b)),
                [a] => a.clone(),
                _ => unreachable!("chunks of two"),
            });
        }
        level = next;
    }
    let submitted = start.elapsed();
    let sum = level[0].result()?;
    let elapsed = start.elapsed();
    let ok = sum == u64::from(n) * u64::from(n - 1) / 2;
    let outcome = Outcome::new(ok, elapsed).with_tasks(2 * n - 1);
    Ok(outcome.with("submit_s", submitted.as_secs_f64()))
}

pub(super) fn merge(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let n = bench.setup().n;
    let values = client.map(|x: u64| x + 1, (0..n).map(u64::from));
    let sum = client.submit(|all: Vec<u64>| all.iter().sum::<u64>(), (&values,)).result()?;
    let elapsed = start.elapsed();
    let ok = sum == u64::from(n) * (u64::from(n) + 1) / 2;
    Ok(Outcome::new(ok, elapsed).with_tasks(n + 1))
}

pub(super) fn chain(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let n = bench.setup().n;
    let mut last = client.submit(|x: u64| x + 1, (0,));
    for _ in 1..n {
        last = client.submit(|x: u64| x + 1, (last,));
    }
    let value = last.result()?;
    Ok(Outcome::new(value == u64::from(n), start.elapsed()).with_tasks(n))
}

/// Each task takes the results of two earlier ones; the client computes the same.
pub(super) fn random(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin()?;
    let n = bench.setup().n;
    let mut state = 42_u64;
    let mut draw = |bound: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mix = |a: u64, b: u64| (a ^ b.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut remotes: Vec<Remote<u64>> = vec![client.submit(identity, (1,))];
    let mut expected = vec![1_u64];
    for _ in 1..n {
        let (a, b) = (draw(remotes.len()), draw(remotes.len()));
        remotes.push(client.submit(mix, (&remotes[a], &remotes[b])));
        expected.push(mix(expected[a], expected[b]));
    }
    let values = client.gather(remotes)?;
    Ok(Outcome::new(values == expected, start.elapsed()).with_tasks(n))
}
