//! The scheduler against a naive model: random graphs, random orders, processes that come and go.

mod accounts;
mod blame;
mod feeds;
mod followers;
mod hostile;
mod leases;
mod leaving;
mod lifetimes;
mod moves;
mod offers;
mod overrun;
mod scenarios;
mod suspects;
mod world;

use proptest::prelude::*;

use self::world::World;

proptest! {
    // More with PROPTEST_CASES=20000.
    #[test]
    fn every_wanted_task_ends_with_the_right_value(seed: u64) {
        World::new(seed).run();
    }
}
