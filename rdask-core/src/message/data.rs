//! On data connections: one request per stream, then one reply, then raw bytes.

use serde::{Deserialize, Serialize};

use crate::id::{AssignmentId, ProgramHash, TaskId};

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
}
