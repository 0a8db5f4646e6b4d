//! Whether bulk holds up everything else.

use std::time::{Duration, Instant};

use super::transfer::{carrier, received};
use crate::bench::Bench;
use crate::outcome::Outcome;

/// How often; a new array each time.
const REPETITIONS: u32 = 3;

fn filled((len, value): (u32, f64)) -> Vec<f64> {
    vec![value; len as usize]
}

/// The round trip passes the scheduler and the net thread of the process that receives, both ways.
pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let setup = bench.setup().clone();
    let (client, start) = bench.begin()?;
    let on = |worker: u32| client.options().workers([format!("w{worker}")]);
    let (here, there) = (on(0), on(1));
    let round_trip = |x: u64| {
        let clock = Instant::now();
        let result = there.submit(|x: u64| x, (x,)).result();
        result.map(|y| (x == y, clock.elapsed()))
    };
    let mut ok = true;
    let mut alone = Vec::new();
    for x in 0..1000 {
        let (right, time) = round_trip(x)?;
        ok &= right;
        alone.push(time);
    }
    let (mut beside, mut transfers) = (Vec::new(), Duration::ZERO);
    for repetition in 0..REPETITIONS {
        let array = here.submit(filled, ((setup.n, f64::from(repetition)),));
        array.wait()?;
        let clock = Instant::now();
        let arrived = there.submit(|array: &Vec<f64>| array.len() as u64, (&array,));
        while !arrived.wait_timeout(Duration::ZERO)? {
            let (right, time) = round_trip(beside.len() as u64)?;
            ok &= right;
            beside.push(time);
        }
        transfers += clock.elapsed();
        ok &= arrived.result()? == u64::from(setup.n);
    }
    let elapsed = start.elapsed();
    let by = carrier(there.submit(received, ((),)).result()?);
    let bytes = f64::from(REPETITIONS) * f64::from(setup.n) * size_of::<f64>() as f64;
    Ok(Outcome::new(ok, elapsed)
        .with("transfer_by", by)
        .with("transfer_GBps", bytes / 1e9 / transfers.as_secs_f64())
        .with("round_trips", beside.len())
        .with("alone_p50_us", at(&mut alone, 50))
        .with("alone_p99_us", at(&mut alone, 99))
        .with("beside_p50_us", at(&mut beside, 50))
        .with("beside_p99_us", at(&mut beside, 99))
        .with("beside_max_us", at(&mut beside, 100)))
}

fn at(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6
}
