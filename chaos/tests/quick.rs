//! A few of the scenarios, as they are: real processes, killed.

use std::process::Command;

/// Runs scenarios one after the other. What can't run on this machine says so and is no failure.
fn run(names: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_rdask-chaos"))
        .arg("run")
        .args(names)
        .output()
        .expect("the runner starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    for name in names {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let verdict = line.and_then(|line| line.split_whitespace().nth(1));
        assert!(matches!(verdict, Some("passed" | "skipped")), "{name}: {text}");
    }
    // For whoever looks, with --nocapture: what was skipped, and why.
    #[expect(clippy::print_stderr, reason = "not everything runs everywhere")]
    for line in text.lines().filter(|line| line.contains(" skipped ")) {
        eprintln!("{line}");
    }
}

#[test]
fn losses_cost_no_result_and_cause_no_needless_run() {
    run(&[
        "half-tree",
        "half-kept-tree",
        "half-unwanted",
        "half-shuffle",
        "kill-processes",
        "pool-kill",
        "cut-short",
        "relay",
    ]);
}
