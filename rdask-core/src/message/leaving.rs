//! What workers that leave have left to do: what `rdask retire` shows while it waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{TaskId, WorkerId};

/// The most workers of which one answer tells.
pub const LEAVING_MAX: usize = 1_000;

/// A worker that is to go, and is there for what is left to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingWorker {
    /// Its number.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// How many tasks it has that have not ended.
    pub runs: u64,
    /// The first of them.
    pub first_runs: Vec<TaskId>,
    /// How many values are to be copied to others.
    pub values: u64,
    /// About how many bytes they have.
    pub bytes: u64,
    /// The first of them.
    pub first_values: Vec<TaskId>,
    /// When it goes in any case, if that was said.
    pub left: Option<Duration>,
}
