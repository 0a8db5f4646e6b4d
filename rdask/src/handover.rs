//! What a nanny hands to a process it starts, and the answer to its probe. Frozen formats.
//!
//! Nanny and program may be linked against different versions of rdask, so the first line of
//! either never changes its form: it is all that a stranger needs to name both versions.
//!
//! The hand-over goes down a pipe that is the process's standard input: neither the command line
//! nor the environment shows it, and nothing the program starts inherits it. The pipe stays open
//! as long as the nanny lives; its end is the nanny's end.

use std::io::{self, BufRead};

use rdask_core::hello::PROTOCOL_VERSION;
use rdask_core::id::{NannyId, ProcessId, ProgramHash, WorkerId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::program::FileState;

/// The argument by which a program knows that a nanny started it to work.
pub const PROCESS_ARGUMENT: &str = "--rdask-process";

/// The argument that asks a program which protocol it speaks.
pub const PROBE_ARGUMENT: &str = "--rdask-probe";

/// This rdask, for messages about versions.
pub const RDASK_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The form of the lines that follow the first one. A new field that may be absent is no new form.
const FORMAT: u32 = 1;

/// A longer line is none of ours.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What a process must know to join its scheduler.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The nanny's version of rdask.
    pub rdask: String,
    /// The text of the scheduler file. It holds a key: never log it.
    pub scheduler_file: String,
    /// The number of the process.
    pub process: ProcessId,
    /// The worker in which it runs.
    pub worker: WorkerId,
    /// The nanny that looks after it.
    pub nanny: NannyId,
    /// The worker's name.
    pub worker_name: String,
    /// The node's name.
    pub node: String,
    /// The worker's pool.
    pub pool: String,
    /// The worker's slots.
    pub slots: u32,
    /// The worker's memory limit in bytes, 0 for none.
    pub memory_limit: u64,
    /// The hash that the program must have, as 64 hexadecimal digits.
    pub program: String,
    /// The file that has it, as it was when the nanny read it.
    #[serde(default)]
    pub file: Option<FileState>,
    /// The client's umask.
    pub umask: u32,
    /// Where the process may write what nobody needs later.
    pub scratch: String,
    /// The [board](crate::board) on which the process notes what it runs.
    #[serde(default)]
    pub board: Option<String>,
    /// The network interface to listen on, if the nanny was told one.
    #[serde(default)]
    pub interface: Option<String>,
    /// The address to listen on, if the nanny was told one.
    #[serde(default)]
    pub host: Option<String>,
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover")
            .field("process", &self.process)
            .field("worker", &self.worker)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// A hand-over can't be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The pipe broke.
    #[error("the nanny's hand-over can't be read")]
    Read(#[source] io::Error),
    /// What came is no hand-over.
    #[error(
        "standard input holds no hand-over: {PROCESS_ARGUMENT} is for `rdask worker` only, \
         start the program without it"
    )]
    NotOurs,
    /// The nanny speaks another version.
    #[error(
        "this program speaks protocol version {ours} (rdask {RDASK_VERSION}), the `rdask worker` \
         that started it speaks {theirs}: build the program with the rdask that the workers have, \
         or install that of the program and start scheduler and workers again"
    )]
    Version {
        /// The nanny's protocol version.
        theirs: String,
        /// The program's.
        ours: u16,
    },
    /// The version is right and the rest is not.
    #[error("the nanny's hand-over doesn't decode")]
    Garbled(#[source] serde_json::Error),
}

impl HandoverError {
    /// Whether versions differ.
    #[must_use]
    pub fn is_version(&self) -> bool {
        matches!(self, Self::Version { .. })
    }
}

impl Handover {
    /// The bytes that go down the pipe.
    #[must_use]
    pub fn encode(&self) -> String {
        let json = serde_json::to_string(self).expect("a hand-over has nothing JSON can't say");
        format!("rdask-handover {FORMAT} {PROTOCOL_VERSION}\n{json}\n")
    }

    /// Reads a hand-over and nothing beyond it.
    ///
    /// # Errors
    /// See [`HandoverError`].
    pub fn read(from: &mut impl BufRead) -> Result<Self, HandoverError> {
        let first = read_line(from)?;
        let mut words = first.split_ascii_whitespace();
        let (Some("rdask-handover"), Some(format), Some(protocol)) =
            (words.next(), words.next(), words.next())
        else {
            return Err(HandoverError::NotOurs);
        };
        if format != FORMAT.to_string() || protocol != PROTOCOL_VERSION.to_string() {
            let theirs = protocol.to_owned();
            return Err(HandoverError::Version { theirs, ours: PROTOCOL_VERSION });
        }
        serde_json::from_str(&read_line(from)?).map_err(HandoverError::Garbled)
    }
}

/// The line by which a nanny tells a process, later on, that the scheduler has given both up and
/// takes the process back under this number. Who doesn't know it reads on.
#[must_use]
pub fn encode_return(process: ProcessId) -> String {
    format!("rdask-return {}\n", process.0)
}

/// The next such number, as soon as there is one; `None` at the end of the nanny.
///
/// # Errors
/// If the pipe breaks.
pub fn read_return(from: &mut impl BufRead) -> io::Result<Option<ProcessId>> {
    loop {
        let mut line = Vec::new();
        if io::Read::take(&mut *from, LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let number = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| line.strip_prefix("rdask-return ")?.trim_end().parse().ok());
        if let Some(number) = number {
            return Ok(Some(ProcessId(number)));
        }
    }
}

fn read_line(from: &mut impl BufRead) -> Result<String, HandoverError> {
    let mut line = String::new();
    io::Read::take(from, LINE_BYTES_MAX).read_line(&mut line).map_err(HandoverError::Read)?;
    Ok(line)
}

/// A program's answer to [`PROBE_ARGUMENT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The protocol version that it speaks.
    pub protocol: u16,
    /// Its version of rdask, for people.
    pub rdask: String,
}

impl ProbeAnswer {
    /// The answer's one line.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("rdask-probe {} {}", self.protocol, self.rdask)
    }

    /// Reads the answer out of what a program wrote, `None` if there is none.
    #[must_use]
    pub fn find(output: &str) -> Option<Self> {
        output.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            if words.next() != Some("rdask-probe") {
                return None;
            }
            Some(Self {
                protocol: words.next()?.parse().ok()?,
                rdask: words.next().unwrap_or("unknown").to_owned(),
            })
        })
    }
}

/// The hash that 64 hexadecimal digits spell.
#[must_use]
pub fn parse_hash(digits: &str) -> Option<ProgramHash> {
    let hash = blake3::Hash::from_hex(digits).ok()?;
    Some(ProgramHash(*hash.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handover() -> Handover {
        Handover {
            rdask: "0.1.0".into(),
            scheduler_file: "{\n}".into(),
            process: ProcessId(7),
            worker: WorkerId(2),
            nanny: NannyId(1),
            worker_name: "node3-0".into(),
            node: "node3".into(),
            pool: "4711".into(),
            slots: 4,
            memory_limit: 1024,
            program: format!("{:#}", ProgramHash([0xab; 32])),
            file: None,
            umask: 0o022,
            scratch: "/tmp/x".into(),
            board: None,
            interface: None,
            host: None,
        }
    }

    #[test]
    fn the_format_is_frozen() {
        let text = concat!(
            "rdask-handover 1 1\n",
            r#"{"rdask":"0.1.0","scheduler_file":"{\n}","process":7,"worker":2,"nanny":1,"#,
            r#""worker_name":"node3-0","node":"node3","pool":"4711","slots":4,"#,
            r#""memory_limit":1024,"#,
            r#""program":"abababababababababababababababababababababababababababababababab","#,
            r#""file":null,"umask":18,"scratch":"/tmp/x","board":null,"interface":null,"host":null}"#,
            "\n"
        );
        assert_eq!(handover().encode(), text);
        assert_eq!(Handover::read(&mut text.as_bytes()).unwrap(), handover());
    }

    #[test]
    fn what_follows_a_handover_is_left_and_later_fields_are_ignored() {
        let text = handover().encode().replace("{\"rdask\"", "{\"new\":[1],\"rdask\"") + "rest";
        let mut bytes = text.as_bytes();
        assert_eq!(Handover::read(&mut bytes).unwrap(), handover());
        assert_eq!(bytes, b"rest");
    }

    #[test]
    fn new_numbers_follow_a_handover_and_other_lines_are_ignored() {
        let text = encode_return(ProcessId(23)) + "new words\n\n" + &encode_return(ProcessId(5));
        assert!(text.starts_with("rdask-return 23\n"));
        let mut bytes = text.as_bytes();
        for expected in [Some(ProcessId(23)), Some(ProcessId(5)), None] {
            assert_eq!(read_return(&mut bytes).unwrap(), expected);
        }
    }

    #[test]
    fn another_version_is_named() {
        let error = Handover::read(&mut &b"rdask-handover 1 9\nwhatever"[..]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("speaks 9") && text.contains(RDASK_VERSION), "{text}");
    }

    #[test]
    fn other_input_is_no_handover() {
        for text in ["", "\n", "hello world 1 1\n", "rdask-handover\n"] {
            let error = Handover::read(&mut text.as_bytes()).unwrap_err();
            assert!(matches!(error, HandoverError::NotOurs), "{text:?}: {error}");
        }
        let error = Handover::read(&mut &b"rdask-handover 1 1\n{\"rdask\":3}\n"[..]).unwrap_err();
        assert!(matches!(error, HandoverError::Garbled(_)), "{error}");
    }

    #[test]
    fn debug_output_holds_no_key() {
        let mut handover = handover();
        handover.scheduler_file = "SECRET".into();
        assert!(!format!("{handover:?}").contains("SECRET"));
    }

    #[test]
    fn the_answer_to_a_probe_is_frozen_and_found_among_other_lines() {
        let answer = ProbeAnswer { protocol: 1, rdask: "0.1.0".into() };
        let line = "rdask-probe 1 0.1.0";
        assert_eq!(answer.encode(), line);
        assert_eq!(ProbeAnswer::find(&format!("hello\n{line}\nbye\n")), Some(answer));
        let short = ProbeAnswer::find("rdask-probe 2").unwrap();
        assert_eq!((short.protocol, short.rdask.as_str()), (2, "unknown"));
        for text in ["", "rdask-probe", "rdask-probe x 0.1.0"] {
            assert_eq!(ProbeAnswer::find(text), None, "{text}");
        }
    }
}
