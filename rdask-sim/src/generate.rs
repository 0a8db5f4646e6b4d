//! A scenario from a seed: first a swarm configuration, which kinds of work and of faults there
//! are and how strong; then the lists.

mod faults;
mod program;

use crate::dice::Dice;
use crate::scenario::{Client, Network, Node, Scenario};

use faults::faults;
use program::Program;

/// The scenario of a seed.
#[must_use]
pub fn generate(seed: u64) -> Scenario {
    let dice = &mut Dice::new(seed, 100);
    let programs = if dice.chance(15) { 2 } else { 1 };
    let most = if dice.chance(50) { 1 } else { 4 };
    let clients = dice.between(1, most);
    let heal_ms = dice.magnitude(200, 40_000);
    let nodes = nodes(&mut Dice::new(seed, 101), heal_ms);
    let mut names = 0;
    let clients: Vec<Client> = (0..clients)
        .map(|nth| {
            let mut dice = Dice::new(seed, 200 + nth);
            let steps = Program::new(&mut dice, &mut names, &nodes).write();
            Client {
                start_ms: if nth == 0 { 0 } else { dice.below(heal_ms) },
                program: dice.below(programs) as u8,
                returns: dice.chance(60),
                steps,
            }
        })
        .collect();
    let faults = faults(&mut Dice::new(seed, 102), heal_ms, &nodes, clients.len(), programs as u8);
    let fetch_fails_percent =
        if !faults.is_empty() && dice.chance(30) { dice.between(1, 20) } else { 0 };
    let low = dice.magnitude(20, 2_000);
    Scenario {
        seed,
        network: Network {
            delay_us: (low, low * dice.between(1, 20)),
            slow_percent: *dice.pick(&[0, 1, 10]),
            turn_us: *dice.pick(&[0, 50, 1_000, 20_000]),
            launch_ms: dice.magnitude(1, 500),
            fetch_fails_percent,
            tail_percent: *dice.pick(&[0, 0, 1, 5]),
        },
        result_bytes_max: *dice.pick(&[u64::MAX, u64::MAX, u64::MAX, 40, 0]),
        heal_ms,
        nodes,
        clients,
        faults,
    }
}

fn nodes(dice: &mut Dice, heal_ms: u64) -> Vec<Node> {
    let most = if dice.chance(30) { 8 } else { 3 };
    let count = dice.between(1, most);
    let have_programs = dice.chance(80);
    (0..count)
        .map(|nth| {
            // The first is always of the core, and fits every task.
            let is_first = nth == 0;
            let workers = dice.between(1, 2);
            Node {
                join_ms: if is_first || dice.chance(60) { 0 } else { dice.below(heal_ms) },
                pool: if is_first { 0 } else { dice.below(2) as u32 },
                core: is_first || dice.chance(50),
                has_programs: have_programs,
                slowness: *dice.pick(&[100, 100, 100, 300, 1000]),
                slots: (0..workers)
                    .map(|_| dice.between(if is_first { 2 } else { 1 }, 4) as u32)
                    .collect(),
                cards: if is_first || dice.chance(30) { dice.between(1, 2) } else { 0 },
            }
        })
        .collect()
}
