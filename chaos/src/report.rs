//! What people and scripts get to see.

use std::path::Path;

use serde_json::{Value, json};

use crate::scenario::{Outcome, Scenario, Verdict};
use crate::scenarios::BY_NAME;
use crate::stage::Scale;

/// All scenarios and what they are.
pub(crate) fn list(scenarios: &[Scenario]) {
    for scenario in scenarios {
        let by_name = if BY_NAME.contains(&scenario.name) { " (only by name)" } else { "" };
        println!("{}{by_name}", scenario.name);
        println!("    load       {}", scenario.load);
        println!("    injection  {}", scenario.injection);
        println!("    pass       {}", scenario.pass);
        println!("    limit      {} s", scenario.limit.as_secs());
    }
}

/// The first line of the table.
pub(crate) fn head() {
    println!("{:<20} {:<8} {:>8}  what came of it", "scenario", "verdict", "seconds");
}

/// One line of the table, as soon as it is known.
pub(crate) fn line(outcome: &Outcome) {
    let mut words = outcome.notes.clone();
    if let Verdict::Failed(reason) | Verdict::Skipped(reason) = &outcome.verdict {
        words.insert(0, reason.clone());
    }
    let (name, verdict) = (outcome.scenario.name, word(&outcome.verdict));
    println!("{name:<20} {verdict:<8} {:>8.2}  {}", outcome.seconds, words.join("; "));
}

/// The last line.
pub(crate) fn sum(outcomes: &[Outcome]) {
    let count = |verdict| outcomes.iter().filter(|one| word(&one.verdict) == verdict).count();
    let seconds: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
    println!(
        "{} passed, {} failed, {} skipped in {seconds:.0} s",
        count("passed"),
        count("FAILED"),
        count("skipped")
    );
}

/// All of it for scripts.
pub(crate) fn json(path: &Path, scale: Scale, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let runs: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let reason = match &outcome.verdict {
                Verdict::Passed => None,
                Verdict::Failed(reason) | Verdict::Skipped(reason) => Some(reason),
            };
            json!({
                "scenario": outcome.scenario.name,
                "verdict": word(&outcome.verdict).to_lowercase(),
                "reason": reason,
                "seconds": outcome.seconds,
                "notes": outcome.notes,
            })
        })
        .collect();
    let soak = scale == Scale::Soak;
    let document = json!({ "schema": "rdask-chaos", "version": 1, "soak": soak, "runs": runs });
    std::fs::write(path, format!("{document:#}\n"))?;
    Ok(())
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed(_) => "FAILED",
        Verdict::Skipped(_) => "skipped",
    }
}
