//! The unit tests of `bench/compare`, which is in Python.

use std::io::ErrorKind;
use std::process::Command;

#[test]
#[expect(clippy::print_stderr, reason = "what a test that is left out should say")]
fn the_comparison_passes_its_tests() {
    let mut python = Command::new("python3");
    python.args(["-B", "-m", "unittest", "comparison.tests"]);
    let output = match python.current_dir(env!("CARGO_MANIFEST_DIR")).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return eprintln!("no python3"),
        output => output.expect("python3 starts"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
