//! What goes wrong.

use crate::dice::Dice;
use crate::scenario::{Fault, Node, Ways, What, Who};

pub(super) fn faults(
    dice: &mut Dice,
    heal_ms: u64,
    nodes: &[Node],
    clients: usize,
    programs: u8,
) -> Vec<Fault> {
    // One seed of ten has no fault, one of ten one kind.
    const KINDS: u64 = 22;
    let kinds: Vec<u64> = match dice.below(10) {
        0 => return Vec::new(),
        1 => vec![dice.below(KINDS)],
        _ => {
            let percent = dice.between(10, 60);
            (0..KINDS).filter(|_| dice.chance(percent)).collect()
        }
    };
    if kinds.is_empty() {
        return Vec::new();
    }
    let count = dice.magnitude(1, 24);
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let what = fault(dice, &kinds, nodes, clients, programs);
            Fault { at_ms: dice.below(heal_ms), what }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

fn fault(dice: &mut Dice, kinds: &[u64], nodes: &[Node], clients: usize, programs: u8) -> What {
    let node = dice.below(nodes.len() as u64) as usize;
    let worker = dice.below(nodes[node].slots.len() as u64) as usize;
    let program = dice.below(u64::from(programs)) as u8;
    let client = dice.below(clients as u64) as usize;
    let ways = *dice.pick(&[Ways::Both, Ways::Up, Ways::Down]);
    // Within the lease, beyond it, or for ever.
    let ms = match dice.below(10) {
        0..5 => Some(dice.magnitude(10, 4_900)),
        5..9 => Some(dice.magnitude(5_000, 60_000)),
        _ => None,
    };
    let returns_ms = (!dice.chance(20)).then(|| dice.magnitude(10, 10_000));
    let down_ms = dice.magnitude(1, 8_000);
    match *dice.pick(kinds) {
        0 => What::KillProcess { node, worker, program },
        1 => What::FreezeProcess { node, worker, program, ms },
        2 => What::KillNanny { node, returns_ms },
        3 => What::CrashNode { node, returns_ms },
        4 => What::FreezeNode { node, ms },
        5 => What::FreezeNanny { node, ms },
        6 => What::Notice { node, grace_ms: dice.magnitude(10, 30_000), returns_ms },
        7 => What::CutNode { node, ways, ms },
        8 => What::CutProcess { node, worker, program, ways, ms },
        9 => What::CutPair { one: node, other: dice.below(nodes.len() as u64) as usize, ms },
        10 => What::SlowNode {
            node,
            delay_ms: dice.magnitude(1, 2_000),
            ms: dice.magnitude(100, 20_000),
        },
        11 => What::LaunchesFail { node, count: dice.between(1, 2) as u32 },
        12 => What::KillClient { client },
        13 => What::FreezeClient { client, ms },
        14 => What::CutClient { client, ways, ms },
        15 => What::ResetNode { node, ms: down_ms },
        16 => What::ResetProcess { node, worker, program, ms: down_ms },
        17 => What::ResetClient { client, ms: dice.magnitude(1, 60_000) },
        18 => What::FreezeScheduler { ms: dice.magnitude(10, 40_000) },
        19 => {
            let pool = nodes[node].pool;
            let who = if dice.chance(50) { Who::Pool(pool) } else { Who::Worker { node, worker } };
            What::Retire { who, returns_ms }
        }
        20 => What::Lifetime { node, ms: dice.magnitude(10, 20_000), returns_ms },
        _ => What::JobEnds {
            pool: nodes[node].pool,
            ms: dice.magnitude(10, 60_000),
            is_known: dice.chance(50),
            returns_ms,
        },
    }
}
