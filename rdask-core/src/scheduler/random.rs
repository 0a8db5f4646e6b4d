//! POLICY: the control. Ready tasks go to random eligible processes with room.
//!
//! Everything else is as ever: windows, priorities, shares, requirements, stealing. So what this
//! policy does worse is what placement by load and locality is worth.

use crate::id::ProcessId;

use super::{Policy, Scheduler};

/// SplitMix64: the state is all there is, so the same seed gives the same decisions.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(policy: Policy) -> Self {
        match policy {
            Policy::Random { seed } => Self(seed),
            Policy::Locality => Self(0),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

impl Scheduler {
    /// Hands out ready work, one task after the other to whoever is drawn.
    pub(crate) fn place_at_random(&mut self, open: &[ProcessId]) {
        for ahead in [false, true] {
            let mut left = open.to_vec();
            while !left.is_empty() {
                let nth = self.dice.below(left.len());
                let id = left[nth];
                let idle = if ahead { Some(0) } else { self.idle_slots(id).map(|_| 1) };
                if !idle.is_some_and(|idle| self.fill(id, idle, ahead)) {
                    left.swap_remove(nth);
                }
            }
        }
    }
}
