//! The client: numbers what its program submits, waits for how it ends, and releases what its
//! program has no handle of any more. See [`Client`].
//!
//! Everything is kept by range, so that waiting for a million results and dropping their handles
//! costs a few intervals. Values come as bytes and leave as bytes: the caller knows their types.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::id::{ArrayId, AssignmentId, ClientId, ProcessId, TaskId, WorkerId};
use crate::message::{
    ClusterStatus, Contact, Explanation, FromClient, TaskStatus, ToClient, UnknownWorkers,
};
use crate::range::{Range, RangeSet};
use crate::time::Time;

mod array;
mod batch;
mod ended;
mod here;
mod payload;
mod submit;
mod wait;

#[cfg(test)]
mod tests;

use array::Array;
use batch::OpenBatch;
pub use payload::cut_payload;
use wait::Waiter;
pub use wait::{Interest, Piece, WaiterId};

/// The most values that are fetched at the same time. Enough to keep a fast network busy with
/// values of a megabyte; ten times more would hold that much more memory for no gain.
const FETCHES_MAX: usize = 64;

/// The most ranges that one `Release` names, so that it stays a small frame.
const RELEASE_RANGES_MAX: usize = 8 * 1024;

/// After how many bytes of inline results the scheduler hears that they have been taken.
const TAKEN_BYTES: u64 = 64 * 1024;

/// What the client wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send to the scheduler.
    Send(FromClient),
    /// Get the value from its holder; answer with [`Client::handle_fetched`] or
    /// [`Client::handle_fetch_failed`].
    Fetch {
        /// Whose result.
        task: TaskId,
        /// Who has it.
        holder: ProcessId,
        /// Where that process listens.
        contact: Contact,
    },
    /// Put a scattered value with a process; answer with [`Client::handle_put`] or
    /// [`Client::handle_put_failed`].
    Put {
        /// The task whose result it is.
        task: TaskId,
        /// To be named in the put.
        assignment: AssignmentId,
        /// With whom.
        process: ProcessId,
        /// Where that process listens.
        contact: Contact,
        /// The encoded value.
        value: Bytes,
    },
    /// Of what a waiter that reports each task waits for, this is there now.
    Progress {
        /// Which waiter.
        waiter: WaiterId,
        /// Which array.
        array: ArrayId,
        /// Which tasks.
        range: Range,
    },
    /// There is nothing left to wait for.
    Complete(WaiterId),
    /// The answer to [`Client::attach`]: the tasks, of which there is a handle now.
    Attached {
        /// The request.
        request: u32,
        /// The tasks in the order they were detached in, or nothing of that name.
        ranges: Option<Vec<(ArrayId, Range)>>,
    },
    /// The answer to [`Client::ask_states`].
    States {
        /// The request.
        request: u32,
        /// States, in order.
        states: Vec<(Range, TaskStatus)>,
    },
    /// The answer to [`Client::ask_status`].
    Status {
        /// The request.
        request: u32,
        /// The cluster.
        status: ClusterStatus,
    },
    /// The answer to [`Client::retire`].
    Retiring {
        /// The request.
        request: u32,
        /// The workers that go, or why none does.
        workers: Result<Vec<WorkerId>, UnknownWorkers>,
    },
    /// The answer to [`Client::ask_why`].
    Explained {
        /// The request.
        request: u32,
        /// How it is with the task.
        explanation: Explanation,
    },
    /// Bring the program's bytes to the scheduler.
    SendProgram,
    /// Tell the user.
    Warn(String),
    /// The scheduler breaks the protocol: end the link.
    Close(String),
}

/// The client's state machine.
///
/// Facts go in by `handle_*`, the program's wishes by the other methods; after each of them call
/// [`poll_action`](Self::poll_action) until `None`, soon, and [`handle_timeout`](Self::handle_timeout)
/// when [`poll_timeout`](Self::poll_timeout) says. Time never goes backwards. The same calls give
/// the same actions.
///
/// Consecutive submits are gathered into one batch, which leaves when it is full, when somebody
/// waits, or a millisecond after its first task.
#[derive(Debug)]
pub struct Client {
    id: ClientId,
    next_number: u32,
    /// Numbers from here on are of tasks that failed before they were submitted.
    first_here: u32,
    open: Option<OpenBatch>,
    /// What there are handles of.
    arrays: BTreeMap<ArrayId, Array>,
    /// What there were handles of, until the next flush.
    released: BTreeMap<ArrayId, RangeSet>,
    /// Questions for detached tasks that have no answer yet. Releases wait for it: the tasks may
    /// be among those that are released, and then there is a handle of them again.
    attaching: u32,
    waits: Waits,
    fetches: Fetches,
    /// Scattered values that no process has yet.
    scattered: BTreeMap<TaskId, Bytes>,
    flush_at: Option<Time>,
    next_request: u32,
    taken_bytes: u64,
    outbox: VecDeque<Action>,
}

/// Who waits.
#[derive(Debug, Default)]
struct Waits {
    next: u64,
    waiters: BTreeMap<WaiterId, Waiter>,
}

/// What is on its way from holders.
#[derive(Debug, Default)]
struct Fetches {
    contacts: BTreeMap<ProcessId, Contact>,
    queue: VecDeque<(ArrayId, Range)>,
    running: BTreeMap<TaskId, ProcessId>,
}

impl Client {
    /// A client that has submitted nothing.
    #[must_use]
    pub fn new(id: ClientId) -> Self {
        Self {
            id,
            next_number: 0,
            first_here: u32::MAX,
            open: None,
            arrays: BTreeMap::new(),
            released: BTreeMap::new(),
            attaching: 0,
            waits: Waits::default(),
            fetches: Fetches::default(),
            scattered: BTreeMap::new(),
            flush_at: None,
            next_request: 0,
            taken_bytes: 0,
            outbox: VecDeque::new(),
        }
    }

    /// The client's number.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// The scheduler said something.
    pub fn handle_message(&mut self, _now: Time, message: ToClient) {
        match message {
            ToClient::Ended { array, range, outcome } => self.handle_ended(array, range, outcome),
            ToClient::Put { task, assignment, process, contact } => {
                self.handle_put_wanted(task, assignment, process, contact)
            }
            ToClient::SendProgram => self.outbox.push_back(Action::SendProgram),
            ToClient::Attached { request, ranges } => self.handle_attached(request, ranges),
            ToClient::States { request, states } => {
                self.outbox.push_back(Action::States { request, states });
            }
            ToClient::Status { request, status } => {
                self.outbox.push_back(Action::Status { request, status });
            }
            ToClient::Retiring { request, workers } => {
                self.outbox.push_back(Action::Retiring { request, workers });
            }
            ToClient::Explained { request, explanation } => {
                self.outbox.push_back(Action::Explained { request, explanation });
            }
            ToClient::Warning { message } => self.outbox.push_back(Action::Warn(message)),
            ToClient::Gone { process } => self.handle_gone(process),
            // Only observers ask.
            ToClient::Leaving { .. } => {}
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.flush_at
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.outbox.pop_front()
    }

    /// Whether [`poll_action`](Self::poll_action) has something.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends what has been gathered: the open batch, then releases.
    pub fn flush(&mut self) {
        self.flush_at = None;
        self.flush_batch();
        if self.attaching > 0 {
            return;
        }
        let mut ranges = Vec::new();
        for (array, set) in std::mem::take(&mut self.released) {
            for range in set.iter() {
                ranges.push((array, range));
                if ranges.len() == RELEASE_RANGES_MAX {
                    let ranges = std::mem::take(&mut ranges);
                    self.send(FromClient::Release { ranges });
                }
            }
        }
        if !ranges.is_empty() {
            self.send(FromClient::Release { ranges });
        }
    }

    /// Tasks need not run any more. Those that have not ended fail as cancelled.
    pub fn cancel(&mut self, tasks: &[(ArrayId, Range)]) {
        self.flush_batch();
        for &(array, range) in tasks {
            if !self.is_here(array) {
                self.send(FromClient::Cancel { array, range });
            }
        }
    }

    /// Keeps results under a name until somebody attaches to it.
    pub fn detach(&mut self, name: String, ranges: Vec<(ArrayId, Range)>) {
        self.flush_batch();
        self.send(FromClient::Detach { name, ranges });
    }

    /// Asks for the tasks that were detached under a name. The answer is [`Action::Attached`].
    pub fn attach(&mut self, name: String) -> u32 {
        self.flush_batch();
        self.attaching += 1;
        let request = self.number_request();
        self.send(FromClient::Attach { request, name });
        request
    }

    /// Asks for the states of tasks. The answer is [`Action::States`].
    pub fn ask_states(&mut self, array: ArrayId, range: Range) -> u32 {
        self.flush_batch();
        let request = self.number_request();
        self.send(FromClient::AskStates { request, array, range });
        request
    }

    /// Asks what the cluster looks like. The answer is [`Action::Status`], and whatever was sent
    /// before it has been taken in by then.
    pub fn ask_status(&mut self, when_ready: bool) -> u32 {
        self.flush_batch();
        let request = self.number_request();
        self.send(FromClient::AskStatus { request, when_ready });
        request
    }

    /// Lets workers go: pools, or workers by name. The answer is [`Action::Retiring`].
    pub fn retire(&mut self, names: Vec<String>) -> u32 {
        self.flush_batch();
        let request = self.number_request();
        self.send(FromClient::Retire { request, names, within: None });
        request
    }

    /// Asks how it is with a task. The answer is [`Action::Explained`].
    pub fn ask_why(&mut self, task: TaskId) -> u32 {
        self.flush_batch();
        let request = self.number_request();
        self.send(FromClient::Explain { request, task });
        request
    }

    fn handle_attached(&mut self, request: u32, ranges: Option<Vec<(ArrayId, Range)>>) {
        for &(array, range) in ranges.iter().flatten() {
            self.retain(array, range);
            if let Some(released) = self.released.get_mut(&array) {
                released.remove(range);
            }
        }
        self.attaching = self.attaching.saturating_sub(1);
        self.flush();
        self.outbox.push_back(Action::Attached { request, ranges });
    }

    fn number_request(&mut self) -> u32 {
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        request
    }

    fn send(&mut self, message: FromClient) {
        self.outbox.push_back(Action::Send(message));
    }

    fn flush_by(&mut self, at: Time) {
        self.flush_at = Some(self.flush_at.map_or(at, |earlier| earlier.min(at)));
    }
}
