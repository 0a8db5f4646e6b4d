//! What the compiler says to users who get it wrong: the messages are part of the interface.
//!
//! That a function captures nothing is found when a program is built, not when it is checked. There
//! is a case that passes, so `trybuild` builds them all.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::process::Command;

/// The compiler whose words the expected messages are. Others word and wrap them otherwise.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn messages_of_the_compiler() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc).arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if version.starts_with(COMPILER) {
        cases.compile_fail("tests/ui/fail/*.rs");
    } else {
        eprintln!("skipped: the messages are those of {COMPILER}x, this is {}", version.trim());
    }
}
