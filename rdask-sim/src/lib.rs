//! The simulator: a whole cluster in one thread, in virtual time, from one seed.
//!
//! The scheduler, the processes and the clients are the real state machines of `rdask-core`. Links,
//! nannies, slot threads, data streams and user code are simulated, and go wrong as a seed says.
//! What comes out is compared with what should: exact values, a ledger of runs and their causes, no
//! task and no byte left at rest. The same seed gives the same run, byte for byte.

mod coverage;
mod dice;
mod generate;
mod ledger;
mod link;
mod scenario;
mod shrink;
mod value;
mod world;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

pub use coverage::Coverage;
pub use generate::generate;
pub use scenario::Scenario;
pub use shrink::shrink;
pub use world::Report;
use world::World;

thread_local! {
    /// Set while this thread simulates: panics are findings then, kept for the report.
    static SIMULATES: Cell<bool> = const { Cell::new(false) };
    /// Where and why the last of them was.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if SIMULATES.get() {
                let text = panic.to_string();
                LAST_PANIC.with(|last| *last.borrow_mut() = Some(text));
            } else {
                others(panic);
            }
        }));
    });
}

/// Runs a scenario. With `traced` its story is in the report.
#[must_use]
pub fn run(scenario: &Scenario, traced: bool) -> Report {
    keep_panics();
    let mut world = World::new(scenario.clone(), traced);
    SIMULATES.set(true);
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    SIMULATES.set(false);
    let panic = match played {
        Ok(()) => None,
        Err(_) => LAST_PANIC.with(|last| last.borrow_mut().take()).or(Some("a panic".into())),
    };
    world.report(panic)
}
