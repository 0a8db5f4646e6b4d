//! On data connections: one request per stream, then one reply, then raw bytes.

use serde::{Deserialize, Serialize};

use crate::id::{AssignmentId, ProcessId, ProgramHash, TaskId};

/// What the dialer of a data stream asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataRequest {
    /// Send me this value. After [`DataReply::Follows`] come its encoded bytes.
    Get {
        /// Whose result.
        task: TaskId,
        /// Which output of a task with several.
        part: u16,
    },
    /// Keep this value, as the scheduler told us both. Its encoded bytes follow the request.
    Put {
        /// Whose result it is.
        task: TaskId,
        /// As [`ToClient::Put`](super::ToClient::Put) said.
        assignment: AssignmentId,
        /// How many bytes follow.
        size: u64,
    },
    /// Send me this program. After [`DataReply::Follows`] come its bytes.
    GetProgram {
        /// Which program.
        hash: ProgramHash,
    },
    /// Keep this program and give it to nannies. Its bytes follow the request.
    PutProgram {
        /// Which program.
        hash: ProgramHash,
        /// How many bytes follow.
        size: u64,
    },
    /// As [`Put`](Self::Put), by a dialer of the same host: the bytes lie in its memory, and what
    /// follows is what is said about them ([`DataWord`]).
    PutShown {
        /// Whose result it is.
        task: TaskId,
        /// As [`ToClient::Put`](super::ToClient::Put) said.
        assignment: AssignmentId,
        /// Where they lie.
        at: MemoryArea,
    },
    /// To the scheduler: carry this stream on to a process that can't be reached from here. After
    /// [`DataReply::Connected`] comes a request, as if the process had been dialled.
    Relay {
        /// Which process.
        process: ProcessId,
    },
}

/// Bytes in the memory of whoever says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryArea {
    /// Where they begin.
    pub address: u64,
    /// How many.
    pub size: u64,
}

/// What is said about bytes that are shown where they lie, on streams within a host. Whoever shows
/// them keeps them until the reader has spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataWord {
    /// The reader has read them.
    Read,
    /// The reader can't read them there: they are to follow.
    Unreadable,
    /// The answer to [`Read`](Self::Read): they have been there all the time.
    Kept,
}

/// The answer on a data stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataReply {
    /// What was asked for follows.
    Follows {
        /// How many bytes.
        size: u64,
    },
    /// What was sent has been taken in whole.
    Taken,
    /// It is not here.
    NotHere,
    /// It can't be given or taken.
    Refused {
        /// Why.
        message: String,
    },
    /// What was asked for lies in our memory; on a stream within a host. What follows is what is
    /// said about it ([`DataWord`]).
    Shown {
        /// Where.
        at: MemoryArea,
    },
    /// From here on the stream leads to the process that was asked for.
    Connected,
}
