//! The first frame of a control link in each direction. Its first bytes never change again.
//!
//! Both frames begin with the five bytes `rdask` and the sender's protocol version as two bytes,
//! low byte first. A peer of another version reads no further: it knows both versions by then and
//! says so. What follows may differ between versions. The scheduler's answer has one more frozen
//! byte: 0 for a welcome, 1 for a refusal, which is UTF-8 text up to the frame's end; 2 for a
//! connection that goes on, with how many messages have arrived, 3 for one that can't.

use serde::{Deserialize, Serialize};

use crate::id::{ClientId, NannyId, Peer, ProcessId, WorkerId};
use crate::message::{Contact, ProgramInfo, Returning, Surroundings, WorkerInfo};

/// The version of everything that follows the first seven bytes.
pub const PROTOCOL_VERSION: u16 = 1;

const MAGIC: &[u8; 5] = b"rdask";
const WELCOME: u8 = 0;
const REFUSED: u8 = 1;
const RESUMED: u8 = 2;
const FENCED: u8 = 3;

/// Who dials, and what the scheduler must know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The run that the dialer's scheduler file names.
    pub run_id: String,
    /// A request for a certificate (PKCS#10, DER); the key stays with the dialer.
    pub certificate_request: Vec<u8>,
    /// In which role it comes.
    pub role: Role,
}

/// The role of a dialer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// An `rdask worker` command.
    Nanny {
        /// The node's name.
        node: String,
        /// The Slurm job or `--pool` label.
        pool: String,
        /// The nanny's process number on its node.
        pid: u32,
        /// What it brings.
        workers: Vec<WorkerInfo>,
        /// Where it serves programs.
        contact: Contact,
        /// The processes that it still has of a time when this scheduler knew it by another number.
        returning: Vec<Returning>,
    },
    /// A program in worker mode.
    Process {
        /// As its launch said.
        process: ProcessId,
        /// The process number on its node.
        pid: u32,
        /// Where it serves values.
        contact: Contact,
    },
    /// A client program.
    Client {
        /// What it runs, and what its workers will run.
        program: ProgramInfo,
        /// What its processes inherit.
        surroundings: Surroundings,
        /// For the log: the program's file name.
        name: String,
        /// The process whose tasks it submits for.
        nested_in: Option<ProcessId>,
    },
    /// Somebody who only asks, as `rdask status`.
    Observer,
    /// A nanny, process or client whose link broke, and who goes on over this one. It dials with
    /// the certificate that names it.
    Resume {
        /// What the scheduler called it.
        who: Peer,
        /// The scheduler's start that did.
        epoch: u64,
        /// Higher than in all earlier tries: of two links the one with the higher number counts.
        attempt: u64,
        /// How many messages it has had from the scheduler.
        received: u64,
    },
}

/// The scheduler's answer to a dialer it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The number of this start of the scheduler.
    pub epoch: u64,
    /// The dialer's own certificate (DER), for the names below.
    pub certificate: Vec<u8>,
    /// The dialer's number.
    pub you: You,
}

/// The number that the scheduler gives a dialer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum You {
    /// A nanny, and its workers in the order it named them.
    Nanny(NannyId, Vec<WorkerId>),
    /// A process.
    Process(ProcessId),
    /// A client, or an observer.
    Client(ClientId),
}

impl You {
    /// The same, as one of all peers.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match self {
            Self::Nanny(id, _) => Peer::Nanny(*id),
            Self::Process(id) => Peer::Process(*id),
            Self::Client(id) => Peer::Client(*id),
        }
    }
}

/// The scheduler's answer to [`Role::Resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// Go on.
    Resumed {
        /// How many messages the scheduler has had.
        received: u64,
    },
    /// Your number means nothing any more. Join anew.
    Fenced,
}

/// Why a first frame leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The peer speaks another version.
    #[error(
        "the peer speaks protocol version {theirs}, this rdask speaks {ours}: \
         build both with the same rdask and start them again"
    )]
    Version {
        /// The peer's.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// The peer doesn't speak rdask.
    #[error("the peer's first bytes are not rdask's")]
    NotRdask,
    /// The version is right and the rest is not.
    #[error("the peer's greeting doesn't decode")]
    Garbled,
    /// The scheduler said no.
    #[error("the scheduler refused: {0}")]
    Refused(String),
}

fn begin(version: u16) -> Vec<u8> {
    let mut frame = MAGIC.to_vec();
    frame.extend_from_slice(&version.to_le_bytes());
    frame
}

/// The version that a first frame claims, and what follows it.
fn split(frame: &[u8]) -> Result<(u16, &[u8]), HelloError> {
    let rest = frame.strip_prefix(MAGIC).ok_or(HelloError::NotRdask)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(HelloError::NotRdask)?;
    Ok((u16::from_le_bytes(*version), rest))
}

fn check_version(theirs: u16) -> Result<(), HelloError> {
    let ours = PROTOCOL_VERSION;
    if theirs == ours { Ok(()) } else { Err(HelloError::Version { theirs, ours }) }
}

/// The dialer's first frame.
#[must_use]
pub fn encode_hello(hello: &Hello) -> Vec<u8> {
    postcard::to_extend(hello, begin(PROTOCOL_VERSION)).expect("a greeting encodes into memory")
}

/// Reads a dialer's first frame.
///
/// # Errors
/// See [`HelloError`]; answer it with [`encode_refusal`].
pub fn decode_hello(frame: &[u8]) -> Result<Hello, HelloError> {
    let (version, rest) = split(frame)?;
    check_version(version)?;
    postcard::from_bytes(rest).map_err(|_| HelloError::Garbled)
}

/// The scheduler's first frame to a dialer it takes.
#[must_use]
pub fn encode_welcome(welcome: &Welcome) -> Vec<u8> {
    let mut frame = begin(PROTOCOL_VERSION);
    frame.push(WELCOME);
    postcard::to_extend(welcome, frame).expect("a welcome encodes into memory")
}

/// The scheduler's first and last frame to a dialer it doesn't take. Any version can read it.
#[must_use]
pub fn encode_refusal(reason: &str) -> Vec<u8> {
    let mut frame = begin(PROTOCOL_VERSION);
    frame.push(REFUSED);
    frame.extend_from_slice(reason.as_bytes());
    frame
}

/// Reads the scheduler's first frame.
///
/// # Errors
/// See [`HelloError`]. A refusal by a scheduler of another version is reported as that version.
pub fn decode_welcome(frame: &[u8]) -> Result<Welcome, HelloError> {
    let (version, rest) = split(frame)?;
    check_version(version)?;
    match rest.split_first() {
        Some((&WELCOME, rest)) => postcard::from_bytes(rest).map_err(|_| HelloError::Garbled),
        Some((&REFUSED, reason)) => {
            Err(HelloError::Refused(String::from_utf8_lossy(reason).into_owned()))
        }
        _ => Err(HelloError::Garbled),
    }
}

/// The scheduler's first frame to a dialer that comes back.
#[must_use]
pub fn encode_resumption(resumption: &Resumption) -> Vec<u8> {
    let mut frame = begin(PROTOCOL_VERSION);
    match resumption {
        Resumption::Resumed { received } => {
            frame.push(RESUMED);
            frame.extend_from_slice(&received.to_le_bytes());
        }
        Resumption::Fenced => frame.push(FENCED),
    }
    frame
}

/// Reads the scheduler's first frame to a dialer that comes back.
///
/// # Errors
/// See [`HelloError`].
pub fn decode_resumption(frame: &[u8]) -> Result<Resumption, HelloError> {
    let (version, rest) = split(frame)?;
    check_version(version)?;
    match rest.split_first() {
        Some((&RESUMED, count)) => {
            let count = count.try_into().map_err(|_| HelloError::Garbled)?;
            Ok(Resumption::Resumed { received: u64::from_le_bytes(count) })
        }
        Some((&FENCED, [])) => Ok(Resumption::Fenced),
        Some((&REFUSED, reason)) => {
            Err(HelloError::Refused(String::from_utf8_lossy(reason).into_owned()))
        }
        _ => Err(HelloError::Garbled),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello { run_id: "r".into(), certificate_request: vec![1, 2], role: Role::Observer }
    }

    #[test]
    fn greetings_survive_the_wire() {
        assert_eq!(decode_hello(&encode_hello(&hello())), Ok(hello()));
        let welcome = Welcome { epoch: 7, certificate: vec![3], you: You::Client(ClientId(4)) };
        assert_eq!(decode_welcome(&encode_welcome(&welcome)), Ok(welcome));
        let refused = decode_welcome(&encode_refusal("go away"));
        assert_eq!(refused, Err(HelloError::Refused("go away".into())));
        for answer in [Resumption::Resumed { received: 1 << 40 }, Resumption::Fenced] {
            assert_eq!(decode_resumption(&encode_resumption(&answer)), Ok(answer));
        }
        let refused = decode_resumption(&encode_refusal("go away"));
        assert_eq!(refused, Err(HelloError::Refused("go away".into())));
    }

    #[test]
    fn the_first_bytes_are_frozen() {
        assert_eq!(&encode_hello(&hello())[..7], b"rdask\x01\x00");
        assert_eq!(&encode_refusal("no")[..], b"rdask\x01\x00\x01no");
    }

    #[test]
    fn another_version_is_named_before_anything_else_is_read() {
        let frame = b"rdask\x09\x00whatever comes in that version";
        let error = HelloError::Version { theirs: 9, ours: PROTOCOL_VERSION };
        assert_eq!(decode_hello(frame), Err(error.clone()));
        assert_eq!(decode_welcome(frame), Err(error.clone()));
        let text = error.to_string();
        assert!(text.contains('9') && text.contains(&PROTOCOL_VERSION.to_string()), "{text}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(frame in prop::collection::vec(any::<u8>(), 0..200), with_magic: bool) {
            let frame = if with_magic { [begin(PROTOCOL_VERSION), frame].concat() } else { frame };
            let _ = decode_hello(&frame);
            let _ = decode_welcome(&frame);
            let _ = decode_resumption(&frame);
        }
    }
}
