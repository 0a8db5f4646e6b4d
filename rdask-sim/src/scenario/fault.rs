//! What goes wrong, and when.

use serde::{Deserialize, Serialize};

/// Something that goes wrong, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// In which direction a link carries nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ways {
    /// To the scheduler and back.
    Both,
    /// To the scheduler.
    Up,
    /// From the scheduler.
    Down,
}

/// Workers that somebody names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// All of a pool.
    Pool(u32),
    /// One.
    Worker {
        /// On which node.
        node: usize,
        /// Which of its workers.
        worker: usize,
    },
}

/// What goes wrong. A duration of `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// SIGKILL to the process of a program in a worker.
    KillProcess {
        /// On which node.
        node: usize,
        /// In which of its workers.
        worker: usize,
        /// Of which program.
        program: u8,
    },
    /// SIGSTOP to such a process, then SIGCONT.
    FreezeProcess {
        /// On which node.
        node: usize,
        /// In which of its workers.
        worker: usize,
        /// Of which program.
        program: u8,
        /// For how long.
        ms: Option<u64>,
    },
    /// SIGKILL to a nanny; its processes die with it.
    KillNanny {
        /// Which.
        node: usize,
        /// When it is started again.
        returns_ms: Option<u64>,
    },
    /// The node loses power.
    CrashNode {
        /// Which.
        node: usize,
        /// When it is up again.
        returns_ms: Option<u64>,
    },
    /// Everything on a node stands still for a while.
    FreezeNode {
        /// Which.
        node: usize,
        /// For how long.
        ms: Option<u64>,
    },
    /// A nanny alone stands still.
    FreezeNanny {
        /// Which.
        node: usize,
        /// For how long.
        ms: Option<u64>,
    },
    /// SIGTERM to a nanny, then SIGKILL.
    Notice {
        /// Which.
        node: usize,
        /// How much time it has.
        grace_ms: u64,
        /// When a new one is started.
        returns_ms: Option<u64>,
    },
    /// The cable of a node.
    CutNode {
        /// Which.
        node: usize,
        /// In which direction.
        ways: Ways,
        /// For how long.
        ms: Option<u64>,
    },
    /// The link of a process alone.
    CutProcess {
        /// On which node.
        node: usize,
        /// In which of its workers.
        worker: usize,
        /// Of which program.
        program: u8,
        /// In which direction.
        ways: Ways,
        /// For how long.
        ms: Option<u64>,
    },
    /// Two nodes don't see each other.
    CutPair {
        /// One.
        one: usize,
        /// The other.
        other: usize,
        /// For how long.
        ms: Option<u64>,
    },
    /// Messages of a node take this much longer for a while.
    SlowNode {
        /// Which.
        node: usize,
        /// By how much.
        delay_ms: u64,
        /// For how long.
        ms: u64,
    },
    /// The next launches on a node fail.
    LaunchesFail {
        /// Which.
        node: usize,
        /// How many.
        count: u32,
    },
    /// A client dies.
    KillClient {
        /// Which.
        client: usize,
    },
    /// A client stands still.
    FreezeClient {
        /// Which.
        client: usize,
        /// For how long.
        ms: Option<u64>,
    },
    /// A client's cable.
    CutClient {
        /// Which.
        client: usize,
        /// In which direction.
        ways: Ways,
        /// For how long.
        ms: Option<u64>,
    },
    /// The links of a node are reset, and nobody there can dial for a while.
    ResetNode {
        /// Which.
        node: usize,
        /// For how long.
        ms: u64,
    },
    /// The link of a process is reset.
    ResetProcess {
        /// On which node.
        node: usize,
        /// In which of its workers.
        worker: usize,
        /// Of which program.
        program: u8,
        /// How long it can't dial.
        ms: u64,
    },
    /// The link of a client is reset.
    ResetClient {
        /// Which.
        client: usize,
        /// How long it can't dial.
        ms: u64,
    },
    /// The scheduler stands still.
    FreezeScheduler {
        /// For how long.
        ms: u64,
    },
    /// `rdask retire`: workers are let go by name.
    Retire {
        /// Which.
        who: Who,
        /// When the nannies that go by it are started again.
        returns_ms: Option<u64>,
    },
    /// The lifetime of a nanny's workers is about to be over.
    Lifetime {
        /// Of which.
        node: usize,
        /// In how long.
        ms: u64,
        /// When the next one is started.
        returns_ms: Option<u64>,
    },
    /// A pool is a job of Slurm's, and is killed at its end.
    JobEnds {
        /// Which.
        pool: u32,
        /// In how long.
        ms: u64,
        /// Whether its nannies know: or else one of them has to ask.
        is_known: bool,
        /// When the next job begins.
        returns_ms: Option<u64>,
    },
}

impl What {
    /// How long it lasts if it doesn't last for ever.
    pub(crate) fn lasts_ms(self) -> u64 {
        match self {
            Self::FreezeProcess { ms, .. }
            | Self::FreezeNode { ms, .. }
            | Self::FreezeNanny { ms, .. }
            | Self::CutNode { ms, .. }
            | Self::CutProcess { ms, .. }
            | Self::CutPair { ms, .. }
            | Self::FreezeClient { ms, .. }
            | Self::CutClient { ms, .. } => ms.unwrap_or(0),
            Self::KillNanny { returns_ms, .. } | Self::CrashNode { returns_ms, .. } => {
                returns_ms.unwrap_or(0)
            }
            Self::Notice { grace_ms, returns_ms, .. } => grace_ms + returns_ms.unwrap_or(0),
            Self::SlowNode { delay_ms, ms, .. } => delay_ms + ms,
            Self::Lifetime { ms, returns_ms, .. } | Self::JobEnds { ms, returns_ms, .. } => {
                ms + returns_ms.unwrap_or(0)
            }
            Self::Retire { returns_ms, .. } => returns_ms.unwrap_or(0),
            Self::FreezeScheduler { ms }
            | Self::ResetNode { ms, .. }
            | Self::ResetProcess { ms, .. }
            | Self::ResetClient { ms, .. } => ms,
            Self::KillProcess { .. } | Self::LaunchesFail { .. } | Self::KillClient { .. } => 0,
        }
    }
}
