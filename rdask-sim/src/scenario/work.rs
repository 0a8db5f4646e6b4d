//! What tasks take, and what they do.

use serde::{Deserialize, Serialize};

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A number of the task's own.
    Inline,
    /// Task `i` takes task `start + i`.
    Each {
        /// Of this array.
        array: u32,
        /// The first one.
        start: u32,
        /// Which of its outputs.
        #[serde(default)]
        part: u16,
    },
    /// Task `i` takes the `i`-th block.
    Block {
        /// Of this array.
        array: u32,
        /// Where the first begins.
        start: u32,
        /// How many make one.
        width: u32,
    },
    /// All take this one.
    One {
        /// Of this array.
        array: u32,
        /// Which.
        index: u32,
        /// Which of its outputs.
        #[serde(default)]
        part: u16,
    },
    /// Task `i` takes output `i` of all of these.
    Shuffle {
        /// Of this array.
        array: u32,
        /// From this one on.
        start: u32,
    },
    /// All take all of these.
    All {
        /// Of this array.
        array: u32,
        /// From this one on.
        start: u32,
    },
}

/// What tasks do, and what they need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Whether the value is the sum of what it takes, instead of a hash of it.
    pub adds: bool,
    /// How long a run usually lasts.
    pub busy_us: u64,
    /// How many values of a hundred stay with the process.
    pub stored_percent: u64,
    /// Which runs fail.
    pub fails: Fails,
    /// See the options of tasks.
    pub priority: i32,
    /// How many slots.
    pub threads: u16,
    /// How many graphics cards.
    pub cards: u64,
    /// Only in this pool.
    pub pool: Option<u32>,
    /// How often to try again.
    pub retries: u32,
    /// How long to wait before.
    pub retry_delay_ms: u64,
    /// How long a run may last.
    pub timeout_ms: Option<u64>,
    /// How long a run may go on that was told to stop.
    pub kill_grace_ms: Option<u64>,
    /// How many tasks it submits itself.
    pub nested: u32,
    /// How many outputs it has.
    pub parts: u16,
    /// How many processes are to have them.
    pub replicas: u8,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            adds: false,
            busy_us: 1000,
            stored_percent: 0,
            fails: Fails::Never,
            priority: 0,
            threads: 1,
            cards: 0,
            pool: None,
            retries: 0,
            retry_delay_ms: 0,
            timeout_ms: None,
            kill_grace_ms: None,
            nested: 0,
            parts: 1,
            replicas: 1,
        }
    }
}

/// Which runs of which tasks fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fails {
    /// None.
    Never,
    /// Of every task those up to this one.
    First(u32),
    /// All runs of every so manieth task.
    Every(u32),
    /// All runs of every so manieth task last longer than they may.
    Hangs(u32),
    /// All runs of every so manieth task end their process.
    Kills(u32),
}
