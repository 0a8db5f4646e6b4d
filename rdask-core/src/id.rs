//! The names of things: numbers that are never mixed up and never used twice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! incarnation {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

incarnation!(
    /// A nanny: one `rdask worker` command. Given at registration, never used twice in an epoch.
    NannyId,
    "n"
);
incarnation!(
    /// A worker: slots and a memory limit on a node. Given at its nanny's registration.
    WorkerId,
    "w"
);
incarnation!(
    /// A process: one program at work inside a worker. Given at launch, so that a process that
    /// dies before it registers has a name too.
    ProcessId,
    "p"
);
incarnation!(
    /// A client, or the client that the tasks of one process share for nested submits.
    ClientId,
    "c"
);

/// Any peer of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// A nanny.
    Nanny(NannyId),
    /// A program's process.
    Process(ProcessId),
    /// A client.
    Client(ClientId),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nanny(id) => write!(f, "{id}"),
            Self::Process(id) => write!(f, "{id}"),
            Self::Client(id) => write!(f, "{id}"),
        }
    }
}

/// What one `map`, one flush of `submit` calls or one `scatter` creates.
///
/// The client numbers its arrays and batches itself, so that submitting needs no round trip.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArrayId {
    /// The client that created it.
    pub client: ClientId,
    /// Counted by that client from 0.
    pub number: u32,
}

impl fmt::Display for ArrayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.client, self.number)
    }
}

impl fmt::Debug for ArrayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One element of an array or batch: what users see, wait for, cancel and retry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The array or batch.
    pub array: ArrayId,
    /// The position in it, from 0.
    pub index: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.array, self.index)
    }
}

/// A text is no task's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no task: they have names such as c3.0.17, as logs and errors show them")]
pub struct NoTask(String);

impl FromStr for TaskId {
    type Err = NoTask;

    fn from_str(text: &str) -> Result<Self, NoTask> {
        let numbers = text.strip_prefix('c').map(|rest| rest.split('.').map(str::parse::<u32>));
        let numbers: Option<Vec<u32>> = numbers.and_then(|all| all.collect::<Result<_, _>>().ok());
        match numbers.as_deref() {
            Some(&[client, number, index]) => {
                Ok(Self { array: ArrayId { client: ClientId(client), number }, index })
            }
            _ => Err(NoTask(text.to_owned())),
        }
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One output of one task: what is fetched, held and dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ValueId {
    /// Whose result.
    pub task: TaskId,
    /// Which output of a task with several, from 0.
    pub part: u16,
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            0 => write!(f, "{}", self.task),
            part => write!(f, "{}/{part}", self.task),
        }
    }
}

impl fmt::Debug for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One handing of a range to a process. A late answer is known by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AssignmentId(pub u64);

/// One steal: asked of a victim, answered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StealId(pub u64);

/// The BLAKE3 hash of an executable's bytes: the name of a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProgramHash(pub [u8; 32]);

impl fmt::Display for ProgramHash {
    /// The first eight hexadecimal digits, or all with `{:#}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if f.alternate() { 32 } else { 4 };
        self.0[..shown].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ProgramHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a function inside its program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionKey(pub u64);

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_found_by_the_names_they_show() {
        let array = ArrayId { client: ClientId(3), number: 7 };
        let task = TaskId { array, index: 17 };
        assert_eq!(task.to_string().parse(), Ok(task));
        for text in ["", "c", "c3.7", "3.7.17", "c3.7.17.1", "c3.7.x", "c3..7", "c-1.0.0"] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }
}
