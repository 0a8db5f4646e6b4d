//! The scheduler: decides which task runs where. See [`Scheduler`].

use crate::id::Peer;
use crate::id::{ClientId, NannyId, ProcessId, ProgramHash, WorkerId};
use crate::message::{
    Contact, FromClient, FromNanny, FromProcess, ProgramInfo, Surroundings, ToClient, ToNanny,
    ToProcess, WorkerInfo,
};
use crate::time::Time;

/// What a nanny tells at registration.
#[derive(Clone, Debug)]
pub struct NannyInfo {
    /// The node's name.
    pub node: String,
    /// The Slurm job or `--pool` label.
    pub pool: String,
    /// What it brings.
    pub workers: Vec<WorkerInfo>,
    /// Where it serves programs.
    pub contact: Contact,
}

/// What a client tells at registration.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// What it runs, and what its processes run.
    pub program: ProgramInfo,
    /// What its processes inherit.
    pub surroundings: Surroundings,
    /// For the log.
    pub name: String,
    /// The process whose tasks it submits for.
    pub nested_in: Option<ProcessId>,
}

/// What the scheduler wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send to a client.
    ToClient(ClientId, ToClient),
    /// Send to a process.
    ToProcess(ProcessId, ToProcess),
    /// Send to a nanny.
    ToNanny(NannyId, ToNanny),
    /// End a link; the peer is told why.
    Close(Peer, String),
    /// Forget the stored bytes of a program.
    ForgetProgram(ProgramHash),
}

/// The knobs of a scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of this start.
    pub epoch: u64,
    /// The most bytes of inline results to keep; what comes beyond stays with processes.
    pub result_bytes_max: u64,
}

/// The scheduler's state machine. Facts go in by `connect_*` and `handle_*`; call
/// [`poll_action`](Self::poll_action) until `None` and look at [`poll_timeout`](Self::poll_timeout)
/// after each batch of them. Time never goes backwards.
#[derive(Debug)]
pub struct Scheduler {}

impl Scheduler {
    /// A scheduler without peers.
    pub fn new(_config: Config) -> Self {
        todo!()
    }
    /// A nanny registers: its number and its workers'.
    pub fn connect_nanny(&mut self, _now: Time, _info: NannyInfo) -> (NannyId, Vec<WorkerId>) {
        todo!()
    }
    /// A client registers.
    pub fn connect_client(&mut self, _now: Time, _info: ClientInfo) -> ClientId {
        todo!()
    }
    /// Somebody registers who only asks.
    pub fn connect_observer(&mut self, _now: Time) -> ClientId {
        todo!()
    }
    /// A launched process registers.
    ///
    /// # Errors
    /// If no such process is awaited: the text says why.
    pub fn connect_process(
        &mut self,
        _now: Time,
        _process: ProcessId,
        _contact: Contact,
    ) -> Result<(), String> {
        todo!()
    }
    /// A client said something.
    pub fn handle_client(&mut self, _now: Time, _from: ClientId, _message: FromClient) {
        todo!()
    }
    /// A process said something.
    pub fn handle_process(&mut self, _now: Time, _from: ProcessId, _message: FromProcess) {
        todo!()
    }
    /// A nanny said something.
    pub fn handle_nanny(&mut self, _now: Time, _from: NannyId, _message: FromNanny) {
        todo!()
    }
    /// A peer's link ended.
    pub fn handle_link_lost(&mut self, _now: Time, _peer: Peer) {
        todo!()
    }
    /// The program that a client was asked to send is stored with the scheduler's process now.
    pub fn handle_program_stored(&mut self, _now: Time, _hash: ProgramHash) {
        todo!()
    }
    /// The time of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, _now: Time) {
        todo!()
    }
    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        todo!()
    }
    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    pub fn poll_timeout(&self) -> Option<Time> {
        todo!()
    }
    /// Since when nothing has been submitted, run or wanted; `None` while something is.
    pub fn idle_since(&self) -> Option<Time> {
        todo!()
    }
}
