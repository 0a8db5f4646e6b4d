//! From nothing to a first result.

use crate::bench::Bench;
use crate::outcome::Outcome;

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<Outcome> {
    let (client, start) = bench.begin_cold()?;
    let ok = client.submit(|x: u32| x + 1, (1,)).result()? == 2;
    Ok(Outcome::new(ok, start.elapsed()))
}
