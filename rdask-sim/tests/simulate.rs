//! Some hundred clusters, all that ever failed, and the promise that a seed tells the same story twice.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rdask_sim::{Scenario, generate, run, shrink};

/// How many seeds: without optimisation, but with all checks. `rdask-sim --seeds` runs more.
const SEEDS: u64 = 150;

#[test]
fn the_first_seeds_end_well() {
    let next = AtomicU64::new(0);
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    let scenario = generate(seed);
                    if let Some(failure) = run(&scenario, false).failure {
                        next.store(SEEDS, Ordering::Relaxed);
                        let (small, smallest) = shrink(&scenario);
                        panic!("seed {seed}: {failure}\n{smallest}\n{}", small.print());
                    }
                }
            });
        }
    });
}

#[test]
fn what_failed_once_ends_well() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        // Chance has moved on since then: a few others beside the one that failed.
        for salt in 0..20 {
            let mut scenario = scenario.clone();
            scenario.seed = scenario.seed.wrapping_add(salt);
            let failure = run(&scenario, false).failure;
            assert_eq!(failure, None, "{} with seed {}", path.display(), scenario.seed);
        }
        count += 1;
    }
    assert!(count > 0, "there are regressions");
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 0..40 {
        let scenario = generate(seed);
        let (first, second) = (run(&scenario, false), run(&scenario, true));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!((first.events, first.time_ns), (second.events, second.time_ns));
        assert!(!second.story.is_empty());
    }
}

#[test]
fn seeds_tell_different_stories() {
    let hash = |seed| run(&generate(seed), false).hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_scenario_survives_being_written_down() {
    for seed in 0..200 {
        let scenario = generate(seed);
        assert_eq!(Scenario::parse(&scenario.print()).unwrap(), scenario, "seed {seed}");
    }
}

/// A canary: what can't end well is told, and made small.
#[test]
fn what_cannot_end_well_fails() {
    let mut scenario = generate(3);
    for node in &mut scenario.nodes {
        node.core = false;
    }
    scenario.heal_ms = 1;
    let report = run(&scenario, false);
    assert!(report.failure.is_some(), "nobody is left to run anything, and all ended well");
    let (small, _) = shrink(&scenario);
    assert!(small.nodes.len() <= scenario.nodes.len());
    assert!(run(&small, false).failure.is_some());
}
