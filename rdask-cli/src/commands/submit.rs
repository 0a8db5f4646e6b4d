//! `rdask submit` and `rdask map`: commands as tasks.
//!
//! This binary is the client program, so it is also what workers start; its one function runs a
//! command in the submitter's folder.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdask::{Client, ConnectOptions, ConnectionError, Error, slurm};
use serde::{Deserialize, Serialize};

use super::running::{self, Ran};
use super::{Failed, Failure};
use crate::args::{Commands, Map, Submit};
use crate::outcome::Outcome;
use crate::output;

/// What stands for the line in the command of `rdask map`.
const PLACE: &str = "{}";

/// As shells have it: a command that was found and can't be started, and one that wasn't found.
const NOT_STARTED: u8 = 126;
const NOT_FOUND: u8 = 127;

const SIGTERM: i32 = 15;

/// A signal to a whole job reaches all of its processes within so long.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// So long a nanny's notice takes to the scheduler, on a busy node.
const HEAD_START: Duration = Duration::from_millis(300);

/// What all commands of one invocation have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    folder: String,
    environment: Vec<(String, String)>,
}

/// The task: runs a command on some node.
fn run_command(words: Vec<String>, place: &Place) -> Outcome {
    let node = slurm::node_name();
    let not_started = |status, error| Outcome {
        status,
        node: Some(node.clone()),
        error: Some(error),
        ..Outcome::default()
    };
    let folder = &place.folder;
    if !Path::new(folder).is_dir() {
        let reason = format!("node {node} has no folder {folder}: is its file system shared?");
        return not_started(NOT_STARTED, reason);
    }
    let Some((program, arguments)) = words.split_first() else {
        return not_started(NOT_FOUND, "an empty command".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    command.envs(place.environment.iter().map(|(name, value)| (name, value)));
    let context = rdask::try_context();
    let is_cancelled = || context.as_ref().is_some_and(rdask::Context::is_cancelled);
    match running::run(&mut command, is_cancelled) {
        Ok(Ran::Ended(ended)) if ended.status.signal() == Some(SIGTERM) && worker_ends() => {
            rdask::context().give_up()
        }
        Ok(Ran::Ended(ended)) => Outcome {
            status: shell_status(ended.status),
            node: Some(node),
            error: None,
            stdout: ended.stdout,
            stderr: ended.stderr,
        },
        // Who cancels a task is told so, not what came of it.
        Ok(Ran::Cancelled) => not_started(Failure::Task as u8, "it was cancelled".to_owned()),
        Err(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let reason = format!("node {node} can't start {program:?}: {error}");
            not_started(if missing { NOT_FOUND } else { NOT_STARTED }, reason)
        }
    }
}

/// Whether a command that SIGTERM ended was meant: not if the worker itself was told to end, as all
/// processes of a Slurm job are on some sites. Word of that may come a little later.
fn worker_ends() -> bool {
    let Some(context) = rdask::try_context() else { return false };
    let deadline = Instant::now() + NOTICE_TIME_MAX;
    while !context.is_ending() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // The nanny has heard of it, too: the scheduler should hear that before this run is over.
    std::thread::sleep(HEAD_START);
    true
}

/// The exit code, or 128 and the signal, as shells report it.
fn shell_status(status: std::process::ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

pub(super) fn submit(args: Submit) -> Result<u8, Failed> {
    run(&args.commands, vec![args.commands.command.clone()], &[])
}

pub(super) fn map(args: Map) -> Result<u8, Failed> {
    let lines = read_lines(&args.each_line).map_err(|error| Failed::new(Failure::Usage, error))?;
    let commands = lines.iter().map(|line| fill_in(&args.commands.command, line)).collect();
    run(&args.commands, commands, &lines)
}

/// Runs commands, those of `map` for a line each; prints what became of them, in order, as soon as
/// it can be. Returns the status of the first that failed, or 0.
fn run(args: &Commands, commands: Vec<Vec<String>>, lines: &[String]) -> Result<u8, Failed> {
    let folder = std::env::current_dir().context("the current folder is gone");
    let folder = folder.map_err(|error| Failed::new(Failure::Usage, error))?;
    let place =
        Place { folder: folder.to_string_lossy().into_owned(), environment: args.env.clone() };
    let options = ConnectOptions::new().insecure_file_mode(args.insecure_file_mode);
    let client = Client::connect_with(&args.scheduler_file, options).map_err(failed)?;
    let mut first_failure = 0;
    for (index, task) in client.map_with(run_command, commands, place).into_iter().enumerate() {
        let outcome = match task.result() {
            Ok(outcome) => outcome,
            Err(error @ Error::Connection(_)) => return Err(failed(error)),
            Err(error) => lost(&error),
        };
        let printed = if args.json {
            let line = lines.get(index).map(String::as_str);
            output::data(outcome.json(index, line).as_bytes())
        } else {
            outcome.print()
        };
        printed.map_err(Failed::unprinted)?;
        if first_failure == 0 {
            first_failure = outcome.status;
        }
    }
    Ok(first_failure)
}

/// What became of a command whose task has failed itself.
fn lost(error: &Error) -> Outcome {
    let node = error.task().and_then(|task| task.node()).map(str::to_owned);
    let error = Some(error.to_string());
    Outcome { status: Failure::Task as u8, node, error, ..Outcome::default() }
}

fn failed(error: Error) -> Failed {
    let failure = match &error {
        Error::Connection(ConnectionError::NotInitialised) => Failure::Usage,
        Error::Connection(ConnectionError::Refused { .. }) => Failure::Refused,
        Error::Connection(ConnectionError::Version { .. }) => Failure::Version,
        _ => Failure::Unreachable,
    };
    Failed::connecting(failure, error)
}

/// The lines of a file, or of standard input for `-`.
fn read_lines(path: &PathBuf) -> anyhow::Result<Vec<String>> {
    let from: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("can't open {}", path.display()))?)
    };
    let lines: io::Result<Vec<String>> = BufReader::new(from).lines().collect();
    lines.with_context(|| format!("can't read {} as lines of text", path.display()))
}

/// A command for one line: in place of each `{}`, or at the end if there is none.
fn fill_in(command: &[String], line: &str) -> Vec<String> {
    if command.iter().any(|word| word.contains(PLACE)) {
        return command.iter().map(|word| word.replace(PLACE, line)).collect();
    }
    command.iter().cloned().chain([line.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn place(folder: &str) -> Place {
        let environment = vec![("GREETING".to_owned(), "hello".to_owned())];
        Place { folder: folder.to_owned(), environment }
    }

    #[test]
    fn a_line_goes_where_the_braces_are_or_to_the_end() {
        assert_eq!(fill_in(&words("cp {} /x/{}.bak"), "a b"), ["cp", "a b", "/x/a b.bak"]);
        assert_eq!(fill_in(&words("wc -l"), "a b"), ["wc", "-l", "a b"]);
    }

    #[test]
    fn a_command_has_its_folder_its_variables_and_an_empty_input() {
        let script = "cat; pwd; echo $GREETING >&2; exit 3".to_owned();
        let outcome = run_command(vec!["sh".into(), "-c".into(), script], &place("/"));
        let (stdout, stderr) = (b"/\n".to_vec(), b"hello\n".to_vec());
        let node = Some(slurm::node_name());
        assert_eq!(outcome, Outcome { status: 3, node, error: None, stdout, stderr });
        let killed = run_command(words("sh -c kill${IFS}-9${IFS}$$"), &place("/"));
        assert_eq!((killed.status, killed.error), (137, None));
    }

    #[test]
    fn a_folder_or_command_that_a_node_lacks_is_named_with_the_node() {
        for (outcome, status) in [
            (run_command(words("true"), &place("/no/such/folder")), NOT_STARTED),
            (run_command(words("/no/such/command"), &place("/")), NOT_FOUND),
        ] {
            assert_eq!(outcome.status, status);
            let reason = outcome.error.expect("it says why");
            assert!(
                reason.contains(&slurm::node_name()) && reason.contains("/no/such"),
                "{reason}"
            );
        }
    }
}
