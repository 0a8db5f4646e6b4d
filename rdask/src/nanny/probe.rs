//! Whether a program can run on this node at all, asked before it is given work.
//!
//! What a node lacks (a newer glibc, a shared library, a processor feature) ends a program before
//! its `main`. Asked first with the probe's argument, it comes back as an error that names node
//! and cause, instead of as a process that keeps dying.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rdask_core::hello::PROTOCOL_VERSION;
use thiserror::Error;
use tokio::process::Command;

use crate::handover::{PROBE_ARGUMENT, ProbeAnswer, RDASK_VERSION};

/// A program answers in milliseconds; loading its libraries from a busy file server takes longer.
const PROBE_TIME: Duration = Duration::from_secs(60);

/// The most characters of a program's complaint that are passed on.
const STDERR_CHARS_MAX: usize = 2000;

/// Linux: a file that is being executed or written can't be the other.
const ETXTBSY: i32 = 26;

/// A program can't work on this node.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The kernel doesn't start it.
    #[error("the program does not start{}", hint_of(.0))]
    NotStarted(#[source] io::Error),
    /// It ended without an answer: the loader's or the processor's complaint.
    #[error("the program does not start ({status}): {stderr}{}", loader_hint(.stderr))]
    Ended {
        /// How it ended.
        status: String,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// It started and said nothing in time.
    #[error(
        "the program did not answer within {} s: does its main begin with `rdask::init()` or \
         `#[rdask::main]`?", .0.as_secs()
    )]
    Silent(Duration),
    /// It ran and doesn't know the question.
    #[error(
        "the program ran without answering: its main must begin with `rdask::init()` or \
         `#[rdask::main]`, so that workers can start it"
    )]
    NoAnswer,
    /// It speaks another version.
    #[error(
        "the program speaks protocol version {theirs} (rdask {rdask}), this worker \
         {PROTOCOL_VERSION} (rdask {RDASK_VERSION}): build the program with rdask {RDASK_VERSION}, \
         or install rdask {rdask} for scheduler and workers and start them again"
    )]
    Version {
        /// The program's protocol version.
        theirs: u16,
        /// The program's rdask.
        rdask: String,
    },
}

/// Asks a program whether it runs here.
///
/// # Errors
/// See [`ProbeError`].
pub async fn probe(path: &Path, environment: &[(String, String)]) -> Result<(), ProbeError> {
    let mut command = Command::new(path);
    command.arg(PROBE_ARGUMENT).envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = spawn_patiently(&mut command).await.map_err(ProbeError::NotStarted)?;
    let output = tokio::time::timeout(PROBE_TIME, child.wait_with_output()).await;
    let output = output.map_err(|_| ProbeError::Silent(PROBE_TIME))?;
    let output = output.map_err(ProbeError::NotStarted)?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    match ProbeAnswer::find(&stdout) {
        Some(answer) if answer.protocol != PROTOCOL_VERSION => {
            Err(ProbeError::Version { theirs: answer.protocol, rdask: answer.rdask })
        }
        Some(_) => Ok(()),
        None if output.status.success() => Err(ProbeError::NoAnswer),
        None => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let stderr = stderr.trim().chars().take(STDERR_CHARS_MAX).collect();
            Err(ProbeError::Ended { status: output.status.to_string(), stderr })
        }
    }
}

/// Starts a program whose file may have been written a moment ago. A process that another thread
/// forked meanwhile holds the file open for writing until it executes its own.
///
/// # Errors
/// As `spawn`'s.
pub async fn spawn_patiently(command: &mut Command) -> io::Result<tokio::process::Child> {
    for _ in 0..50 {
        match command.spawn() {
            Err(error) if error.raw_os_error() == Some(ETXTBSY) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other,
        }
    }
    command.spawn()
}

fn hint_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (is the program cache on a file system mounted noexec? RDASK_CACHE names another)"
        }
        io::ErrorKind::NotFound => {
            " (its loader is missing here: was it built for another system?)"
        }
        _ => "",
    }
}

/// What to do about the complaints that people meet.
fn loader_hint(stderr: &str) -> &'static str {
    if stderr.contains("GLIBC_") && stderr.contains("not found") {
        "; it was built on a newer system than this node's: build it on a node like this one, or \
         for the target x86_64-unknown-linux-musl"
    } else if stderr.contains("cannot open shared object file") {
        "; load the module that has this library before you start the client, or set \
         LD_LIBRARY_PATH there"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn probe_script(text: &str) -> Result<(), ProbeError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        probe(&path, &[]).await
    }

    fn answer(protocol: u16) -> String {
        format!("#!/bin/sh\ntest $1 = {PROBE_ARGUMENT} && echo rdask-probe {protocol} 9.9\n")
    }

    #[tokio::test]
    async fn a_program_that_answers_can_work() {
        probe_script(&answer(PROTOCOL_VERSION)).await.unwrap();
    }

    #[tokio::test]
    async fn another_version_is_named_with_the_way_out() {
        let text = probe_script(&answer(99)).await.unwrap_err().to_string();
        assert!(text.contains("99 (rdask 9.9)") && text.contains(RDASK_VERSION), "{text}");
    }

    #[tokio::test]
    async fn a_program_without_init_is_told_so() {
        let error = probe_script("#!/bin/sh\necho hello\n").await.unwrap_err();
        assert!(error.to_string().contains("rdask::init()"), "{error}");
    }

    #[tokio::test]
    async fn the_loaders_complaint_is_passed_on_with_a_hint() {
        let complaint = "/lib/libc.so.6: version `GLIBC_2.34' not found (required by x)";
        let script = format!("#!/bin/sh\necho \"{}\" >&2\nexit 1\n", complaint.replace('`', "\\`"));
        let text = probe_script(&script).await.unwrap_err().to_string();
        assert!(text.contains(complaint) && text.contains("musl"), "{text}");
    }

    #[tokio::test]
    async fn what_is_no_program_does_not_start() {
        let error = probe_script("#!/no/such/loader\n").await.unwrap_err();
        assert!(matches!(error, ProbeError::NotStarted(_)), "{error}");
        assert!(error.to_string().contains("loader"), "{error}");
    }
}
