//! A large array to another worker, to the client and from it.

use std::time::Instant;

use rdask::Options;
use rdask::data::{Carrier, bytes_received};

use crate::bench::Bench;
use crate::outcome::Outcome;

/// How often; a new array each time.
const REPETITIONS: u32 = 5;

fn filled((len, value): (u32, f64)) -> Vec<f64> {
    vec![value; len as usize]
}

/// Adds in lanes, as the peers' numpy does. A single sum waits for each addition to end: twice as
/// long as memory takes.
#[expect(clippy::ptr_arg, reason = "a parameter names the type of the value")]
fn sum(array: &Vec<f64>) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0; LANES];
    let (rows, rest) = array.as_chunks::<LANES>();
    for row in rows {
        for (lane, number) in lanes.iter_mut().zip(row) {
            *lane += number;
        }
    }
    lanes.iter().chain(rest).sum()
}

/// How many bytes of values have come to the process that runs it, by carrier.
pub(super) fn received(_: ()) -> [u64; 5] {
    [Carrier::Memory, Carrier::Local, Carrier::Quic, Carrier::Tls, Carrier::Relay]
        .map(bytes_received)
}

/// What nearly all bytes came by.
pub(super) fn carrier(received: [u64; 5]) -> &'static str {
    let most = received.iter().sum::<u64>() / 100 * 99;
    let names = ["memory", "local", "quic", "tls", "relay"].into_iter().zip(received);
    names.filter(|(_, bytes)| *bytes > most).map(|(name, _)| name).next().unwrap_or("several")
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let setup = bench.setup().clone();
    let (client, start) = bench.begin()?;
    let on = |worker: u32| client.options().workers([format!("w{worker}")]);
    let (here, there) = (on(0), on(1));
    let (n, gigabytes) = (setup.n, f64::from(setup.n) * size_of::<f64>() as f64 / 1e9);
    let mut ok = true;
    let (mut local, mut remote, mut gather, mut scatter) = (vec![], vec![], vec![], vec![]);
    for repetition in 0..REPETITIONS {
        let value = f64::from(repetition);
        let expected = value * f64::from(n);
        let array = here.submit(filled, ((n, value),));
        array.wait()?;

        let clock = Instant::now();
        ok &= here.submit(sum, (&array,)).result()? == expected;
        local.push(clock.elapsed().as_secs_f64());

        let clock = Instant::now();
        ok &= there.submit(sum, (&array,)).result()? == expected;
        remote.push(clock.elapsed().as_secs_f64());

        let clock = Instant::now();
        let values = array.result()?;
        gather.push(clock.elapsed().as_secs_f64());
        ok &= values.len() == n as usize && values.iter().all(|one| *one == value);
        drop((values, array));

        let another = filled((n, value));
        let clock = Instant::now();
        let placed = here.scatter(another);
        ok &= here.submit(|array: &Vec<f64>| array.len() as u64, (&placed,)).result()?
            == u64::from(n);
        scatter.push(clock.elapsed().as_secs_f64());
    }
    let elapsed = start.elapsed();
    let by = |on: &Options| Ok::<_, rdask::Error>(carrier(on.submit(received, ((),)).result()?));
    let (to_holder, to_other) = (by(&here)?, by(&there)?);
    let [local, remote, gather, scatter] = [local, remote, gather, scatter].map(median);
    Ok(Outcome::new(ok, elapsed)
        .with("local_sum_s", local)
        .with("remote_sum_s", remote)
        .with("transfer_by", to_other)
        .with("gather_by", carrier(received(())))
        .with("scatter_by", to_holder)
        .with("transfer_GBps", gigabytes / remote)
        .with("transfer_net_GBps", gigabytes / (remote - local))
        .with("gather_GBps", gigabytes / gather)
        .with("scatter_GBps", gigabytes / scatter))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
