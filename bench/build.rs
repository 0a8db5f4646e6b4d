//! Which commit is measured: what `git` says when this is built, for the lines of results.

use std::path::Path;
use std::process::Command;

/// What ends up in the program that is measured.
const SOURCES: [&str; 6] = ["bench", "rdask", "rdask-core", "rdask-macros", "rdask-net", "testbed"];

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir("..").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

fn main() {
    let commit = git(&["describe", "--always", "--dirty", "--exclude", "*"]);
    println!("cargo::rustc-env=RDASK_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    for folder in SOURCES {
        println!("cargo::rerun-if-changed=../{folder}");
    }
    // A file that is not there would have this run each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]).map(|log| Path::new("..").join(log));
    if let Some(log) = log.filter(|log| log.exists()) {
        println!("cargo::rerun-if-changed={}", log.display());
    }
}
