//! Why a task isn't running: what `rdask explain` tells.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::task::TaskOptions;
use crate::failure::Failure;
use crate::id::{ProcessId, TaskId};

/// The most inputs, workers and processes that an explanation names. It counts all.
pub const NAMED_MAX: usize = 8;

/// The answer to [`FromClient::Explain`](super::FromClient::Explain).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Which task.
    pub task: TaskId,
    /// What it runs: empty for scattered values and for tasks that nobody knows.
    pub function: String,
    /// The number of its current or next run.
    pub run: u32,
    /// How it is with the task.
    pub why: Why,
}

/// How it is with a task, and, if it isn't running, what that is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// There is no such task: it was never submitted, or it was forgotten, since nobody has a handle
    /// of it any more.
    Unknown,
    /// It has a result.
    Done {
        /// The processes that have it; none if it is small and with the scheduler.
        holders: Vec<ProcessId>,
    },
    /// It failed, or was cancelled.
    Failed(Failure),
    /// It was released before it ended.
    Released,
    /// It waits for results of others.
    Inputs {
        /// How many are missing.
        missing: u64,
        /// The first of them, and how it is with each.
        first: Vec<(TaskId, InputState)>,
    },
    /// Its arguments have not come from its client in full.
    Arguments,
    /// It failed, and is run again after its delay; or it could not get an input, and tries again.
    Delay {
        /// What is left of it.
        left: Duration,
    },
    /// Processes died while it ran. It runs again once it is known whether they died of it, or in a
    /// process of its own.
    Suspected {
        /// How many deaths count against it.
        deaths: u32,
    },
    /// There are no workers at all.
    NoWorkers,
    /// No worker could ever run it.
    Unsuited {
        /// What it needs.
        needs: TaskOptions,
        /// How many workers there are.
        count: u64,
        /// The first of them, and what each lacks.
        workers: Vec<(String, Lack)>,
    },
    /// Its program isn't at work in any worker that could run it.
    Program {
        /// How many such workers there are.
        count: u64,
        /// The first of them, and how far the program is in each.
        workers: Vec<(String, ProgramState)>,
    },
    /// No process that could run it has room.
    NoRoom {
        /// How many processes could run it.
        processes: u64,
        /// How many tasks of its client that could run now go first.
        ahead: u64,
        /// How many other clients have tasks that could run now; slots are shared equally.
        sharers: u64,
        /// Whether what is lacking is a resource, rather than slots.
        resource: Option<String>,
        /// How many slots it takes, all of one process.
        threads: u16,
    },
    /// Another task goes first, and holds a place until enough is free for it.
    Behind {
        /// That task.
        task: TaskId,
    },
    /// A process has its inputs and is busy. Moving them would take longer than waiting.
    Holder {
        /// The process.
        process: ProcessId,
        /// Its worker.
        worker: String,
        /// When any idle process may have it, at the latest.
        left: Duration,
    },
    /// A process has it. What it has is run in this order, as its slots come free; whether a run has
    /// begun the process tells with its end only.
    Assigned {
        /// The process.
        process: ProcessId,
        /// Its worker.
        worker: String,
        /// The node.
        node: String,
        /// How many tasks the process was given before this one, and has not ended.
        ahead: u64,
        /// How many slots the process has.
        slots: u32,
        /// How many of its inputs are still to be made. It was given what it waits for, too, or had it.
        missing: u64,
        /// How many of its inputs other processes have: it starts when these have been fetched.
        fetched: u64,
        /// What may change that, if anything.
        moving: Option<Moving>,
    },
    /// Its value is on its way from the client to a process.
    Put {
        /// The process.
        process: ProcessId,
        /// Its worker.
        worker: String,
    },
    /// It is a scattered value, and the node that has it was given up. That may come back.
    Away {
        /// How long it is waited for.
        left: Duration,
    },
}

/// How it is with an input that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputState {
    /// It waits itself.
    Waiting,
    /// It could run.
    Ready,
    /// A process has it.
    Assigned,
    /// It was done and is to run again, since its result was lost.
    Lost,
    /// Nobody knows it.
    Unknown,
}

/// Why a worker can't run a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lack {
    /// It has too few slots: so many.
    Slots(u32),
    /// It has too little of a resource, or none: the name and what it has, in ten-thousandths.
    Resource(String, u64),
    /// It has another name than those that were asked for.
    Name,
    /// It is in another pool than those that were asked for: this one.
    Pool(String),
    /// It is leaving.
    Leaving,
}

/// How far a program is in a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgramState {
    /// Its process is being started; the node may have to fetch the program first.
    Starting,
    /// The node fetches the program, or waits its turn to.
    Fetching,
    /// It could not be started, and is tried again.
    Failed(String),
    /// It could not be started, and is tried again only once a minute.
    GivenUp(String),
    /// Its process is there, but the link to it is broken.
    Silent,
    /// Its process is about to be ended, for a run in it that does not stop; another one follows.
    Ending,
    /// Its process was given up and is back, and has to tell first what it still holds.
    Returning,
    /// Its worker ends before the task likely would, in so long. Another one lives longer.
    EndsSooner(Duration),
}

/// What may take an assigned task from its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moving {
    /// The process was asked to give tasks back that it has not started.
    AskedBack,
    /// Its worker is leaving.
    Leaving,
}
