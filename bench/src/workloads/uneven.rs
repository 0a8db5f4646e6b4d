//! Sleeps of very different lengths: on workers that are all there, or of which all but one come
//! late.

use std::time::Duration;

use crate::bench::Bench;
use crate::joins::{Watch, ideal_divisible_s, slots};
use crate::outcome::Outcome;

fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Seconds from a heavy-tailed distribution, cut at 200 times the least, scaled to `total`.
pub(crate) fn lengths(n: u32, total: f64) -> Vec<f64> {
    let uniform = |i: u32| (splitmix64(42 + u64::from(i)) >> 11) as f64 / (1u64 << 53) as f64;
    let raw: Vec<f64> = (0..n).map(|i| (1.0 - uniform(i)).powf(-1.0 / 1.2).min(200.0)).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|r| total * r / sum).collect()
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let setup = bench.setup().clone();
    let is_late = setup.variant == Some("late");
    let (client, start) = bench.begin_with(if is_late { 1 } else { setup.workers })?;
    let nap = |(i, seconds): (u32, f64)| {
        std::thread::sleep(Duration::from_secs_f64(seconds));
        i
    };
    let remotes = client.map(nap, (0..setup.n).zip(lengths(setup.n, setup.total)));
    let mut joined_s = vec![0.0; setup.workers as usize];
    let values = if is_late {
        let watch = Watch::start(&client, start)?;
        bench.cluster()?.add_workers(setup.workers - 1, setup.threads);
        let values = client.gather(remotes)?;
        joined_s = watch.joined_s()?;
        values
    } else {
        client.gather(remotes)?
    };
    let elapsed = start.elapsed();
    let ok = values.into_iter().eq(0..setup.n);
    let ideal_s = ideal_divisible_s(setup.total, &slots(&joined_s, setup.threads));
    Ok(Outcome::new(ok, elapsed).with_ideal(ideal_s).with("joined_s", joined_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_defined() {
        let lengths = lengths(2000, 20.0);
        let rounded = |seconds: f64| (seconds * 1e6).round();
        assert_eq!((rounded(lengths[0]), rounded(lengths[1])), (7763.0, 7443.0));
        let greatest = lengths.iter().copied().fold(0.0, f64::max);
        let least = lengths.iter().copied().fold(1.0, f64::min);
        assert!((0.0025..0.0026).contains(&least) && (0.495..0.505).contains(&greatest));
        assert_eq!(rounded(lengths.iter().sum()), 2e7);
    }
}
