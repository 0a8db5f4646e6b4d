//! What tasks are: what submits carry and assignments repeat.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::blob::Blob;
use crate::id::{ArrayId, FunctionKey, ProgramHash, TaskId};
use crate::range::Range;

/// What is the same for all tasks of an array, and for many tasks of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What runs.
    pub function: FunctionKey,
    /// The function's name, for people.
    pub name: String,
    /// Where each parameter comes from, in order. In a batch, patterns name no tasks: the k-th
    /// parameter that is not inline takes its sources from the task's own edges.
    pub params: Vec<Param>,
    /// How and where to run it.
    pub options: TaskOptions,
}

/// Where one parameter of a function comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Param {
    /// The task's payload.
    Inline,
    /// Task `i` takes the result of task `start + i` of `array`.
    Each {
        /// The array it depends on.
        array: ArrayId,
        /// What task 0 takes.
        start: u32,
        /// Which output of a task with several.
        part: u16,
    },
    /// Task `i` takes the results of tasks `start + i * width` up to `start + (i + 1) * width` or
    /// `end`, whichever is less, as a list: one level of a tree reduction.
    Block {
        /// The array it depends on.
        array: ArrayId,
        /// Where the first block begins.
        start: u32,
        /// One past the last task of the last block.
        end: u32,
        /// How many tasks make a block, at least 1.
        width: u32,
    },
    /// Every task takes the result of this one task.
    One {
        /// The task.
        task: TaskId,
        /// Which output of a task with several.
        part: u16,
    },
    /// Every task takes all these results, as a list.
    All {
        /// The array it depends on.
        array: ArrayId,
        /// Which of its tasks.
        range: Range,
    },
    /// In a batch: the next edge of the task.
    Edge,
    /// In a batch: all edges of the task that are left, as a list. Only as the last parameter.
    Edges,
}

/// How and where a task runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskOptions {
    /// A name of the user's choice, for people.
    pub name: Option<String>,
    /// Higher goes first, within one client. Usually 0.
    pub priority: i32,
    /// How often a failed task is run again.
    pub retries: u32,
    /// How long to wait before such a run.
    pub retry_delay: Duration,
    /// A run that takes longer fails.
    pub timeout: Option<Duration>,
    /// How many slots a run takes, at least 1.
    pub threads: u16,
    /// What else a run takes of its worker, by name, in ten-thousandths. Sorted by name.
    pub resources: Vec<(String, u64)>,
    /// Only workers of these names, if any are given.
    pub workers: Vec<String>,
    /// Only workers of these pools, if any are given.
    pub pools: Vec<String>,
    /// How many outputs a task has: 1 but for shuffles.
    pub parts: u16,
    /// How many processes are to hold each large result. More than 1 survive the loss of one.
    pub replicas: u8,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            name: None,
            priority: 0,
            retries: 0,
            retry_delay: Duration::ZERO,
            timeout: None,
            threads: 1,
            resources: Vec::new(),
            workers: Vec::new(),
            pools: Vec::new(),
            parts: 1,
            replicas: 1,
        }
    }
}

impl TaskOptions {
    /// Whether tasks with these and with the other options may be of one batch: its tasks stand in
    /// one queue, so they have one priority and need the same of a worker.
    #[must_use]
    pub fn fit_a_batch_with(&self, other: &Self) -> bool {
        let what = |options: &Self| (options.priority, options.threads, options.replicas);
        what(self) == what(other)
            && self.resources == other.resources
            && self.workers == other.workers
            && self.pools == other.pools
    }
}

/// An edge of a batch: whose result a task takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The task.
    pub task: TaskId,
    /// Which output of a task with several.
    pub part: u16,
}

/// A piece of graph: one record per task, edges packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The shapes that its tasks have. Their options [fit](TaskOptions::fit_a_batch_with).
    pub shapes: Vec<Shape>,
    /// Which shape each task has.
    pub shape_of: Vec<u16>,
    /// The inline arguments of each task.
    pub payload: Blob,
    /// Task `i` has the edges before `edge_ends[i]` that no task before it has.
    pub edge_ends: Vec<u32>,
    /// Only to tasks of earlier arrays and batches, or to earlier tasks of this one.
    pub edges: Vec<Edge>,
}

/// A program, as its client announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramInfo {
    /// Its name.
    pub hash: ProgramHash,
    /// Its length in bytes.
    pub size: u64,
    /// Where the client has it. A node takes it from there if a file there has that hash.
    pub path: String,
}

/// What a process inherits of its client, since a process starts as its user expects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// The client's working folder.
    pub folder: String,
    /// The client's umask.
    pub umask: u32,
    /// Variables of the client that an allow-list lets through.
    pub environment: Vec<(String, String)>,
    /// The processor features that the client's machine has, as in `/proc/cpuinfo`.
    pub cpu_features: Vec<String>,
}

/// How to reach a peer's data listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// By QUIC.
    pub quic: Vec<SocketAddr>,
    /// By TLS over TCP.
    pub tls: Vec<SocketAddr>,
}
