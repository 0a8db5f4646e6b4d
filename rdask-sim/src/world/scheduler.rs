//! The shell around the scheduler: batches of facts in, messages out, as its thread does it.

use rdask_core::hello::You;
use rdask_core::id::{ArrayId, Peer, ProgramHash, TaskId, ValueId};
use rdask_core::message::{
    Contact, End, FromClient, FromNanny, FromProcess, ProgramInfo, Surroundings, ToProcess,
    WorkerInfo,
};
use rdask_core::range::Range;
use rdask_core::scheduler::{Action, ClientInfo, Config, NannyInfo, Scheduler};

use super::{Actor, Event, MS, SECOND, US, World, note};
use crate::link::{Message, Way};

/// One that nobody can dial: transfers find their holders by number.
pub(super) fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

/// The hash that stands for a program.
pub(super) fn hash_of(program: u8) -> ProgramHash {
    ProgramHash([program; 32])
}

#[derive(Debug)]
enum Fact {
    Message(usize, Box<Message>),
    Lost(usize),
    Stored(ProgramHash),
}

/// The scheduler, and what waits for it.
pub(super) struct SchedulerShell {
    pub(super) core: Scheduler,
    facts: Vec<Fact>,
    turn_at: Option<u64>,
    busy_until: u64,
    pub(super) frozen_until: u64,
}

impl SchedulerShell {
    pub(super) fn new(result_bytes_max: u64) -> Self {
        let config = Config { result_bytes_max, ..Config::default() };
        Self {
            core: Scheduler::new(config),
            facts: Vec::new(),
            turn_at: None,
            busy_until: 0,
            frozen_until: 0,
        }
    }
}

impl World {
    pub(super) fn scheduler_gets(&mut self, link: usize, message: Message) {
        self.scheduler.facts.push(Fact::Message(link, Box::new(message)));
        self.wake_scheduler(self.now);
    }

    pub(super) fn program_stored(&mut self, hash: ProgramHash) {
        self.scheduler.facts.push(Fact::Stored(hash));
        self.wake_scheduler(self.now);
    }

    pub(super) fn scheduler_loses_link(&mut self, link: usize) {
        if self.links[link].scheduler_has {
            note!(self, "the scheduler gives {:?} up", self.links[link].actor);
            self.links[link].scheduler_has = false;
            self.links[link].down.cut();
            self.scheduler.facts.push(Fact::Lost(link));
            self.wake_scheduler(self.now);
        }
    }

    fn wake_scheduler(&mut self, at: u64) {
        let at = at.max(self.scheduler.busy_until);
        if self.scheduler.turn_at.is_none_or(|turn| turn > at) {
            self.scheduler.turn_at = Some(at);
            self.push(at, Event::SchedulerTurn);
        }
    }

    pub(super) fn scheduler_turn(&mut self) {
        if self.scheduler.turn_at.is_none_or(|at| at > self.now) {
            return;
        }
        self.scheduler.turn_at = None;
        let now = self.time();
        for fact in std::mem::take(&mut self.scheduler.facts) {
            match fact {
                Fact::Message(link, message) => self.scheduler_hears(link, *message),
                Fact::Lost(link) => {
                    self.links[link].core_has = false;
                    if let Some(peer) = self.links[link].peer {
                        self.mark_losses(peer);
                        self.scheduler.core.handle_link_lost(now, peer);
                    }
                }
                Fact::Stored(hash) => self.scheduler.core.handle_program_stored(now, hash),
            }
        }
        if self.scheduler.core.poll_timeout().is_some_and(|at| at <= now) {
            self.scheduler.core.handle_timeout(now);
        }
        while let Some(action) = self.scheduler.core.poll_action() {
            self.scheduler_does(action);
        }
        self.scheduler.core.check_progress();
        self.scheduler.busy_until =
            self.now + self.dice.below(self.scenario.network.turn_us * US + 1);
        if let Some(at) = self.scheduler.core.poll_timeout() {
            if at <= now {
                self.fail(format!("the scheduler's timer stays due: {at:?} at {now:?}"));
            }
            self.wake_scheduler(at.0);
        }
    }

    fn scheduler_hears(&mut self, link: usize, message: Message) {
        let now = self.time();
        let actor = self.links[link].actor;
        if let Message::Hello(process) = message {
            if self.links[link].scheduler_has {
                self.welcome(link, actor, process);
            }
            return;
        }
        match (self.links[link].peer, message) {
            (Some(Peer::Nanny(id)), Message::FromNanny(message)) => {
                if let FromNanny::LaunchFailed { .. } = message {
                    self.launches_failed += 1;
                }
                self.scheduler.core.handle_nanny(now, id, message);
            }
            (Some(Peer::Process(id)), Message::FromProcess(message)) => {
                self.observe_process(id, &message);
                self.scheduler.core.handle_process(now, id, message);
            }
            (Some(Peer::Client(id)), Message::FromClient(message)) => {
                let is_known = self.links[link].core_has;
                self.observe_client(id, &message, is_known);
                self.scheduler.core.handle_client(now, id, message);
            }
            // It was never welcomed, and speaks as if it had been.
            (None, _) => {}
            (peer, message) => self.fail(format!("{peer:?} said {message:?}")),
        }
    }

    fn welcome(&mut self, link: usize, actor: Actor, process: Option<rdask_core::id::ProcessId>) {
        let now = self.time();
        let core = &mut self.scheduler.core;
        let you = match actor {
            Actor::Nanny(node, _) => {
                let spec = &self.scenario.nodes[node];
                let workers = spec.slots.iter().enumerate().map(|(nth, slots)| WorkerInfo {
                    name: format!("n{node}-{nth}"),
                    slots: *slots,
                    memory_limit: 0,
                    resources: if spec.cards > 0 {
                        vec![("card".to_owned(), spec.cards * 10_000)]
                    } else {
                        Vec::new()
                    },
                });
                let info = NannyInfo {
                    node: format!("n{node}"),
                    pool: format!("p{}", spec.pool),
                    workers: workers.collect(),
                    contact: contact(),
                };
                let (id, workers) = core.connect_nanny(now, info);
                self.links[link].peer = Some(Peer::Nanny(id));
                You::Nanny(id, workers)
            }
            Actor::Process(_) => {
                let id = process.expect("processes say which they are");
                if let Err(reason) = core.connect_process(now, id, contact()) {
                    self.send(link, Way::Down, Message::Refused(reason));
                    return;
                }
                self.links[link].peer = Some(Peer::Process(id));
                You::Process(id)
            }
            Actor::Client(client) => {
                let program = self.clients[client].program;
                let program = ProgramInfo { hash: hash_of(program), size: 1, path: "p".into() };
                let info = ClientInfo {
                    program,
                    surroundings: Surroundings::default(),
                    name: format!("client {client}"),
                    nested_in: process,
                };
                let id = core.connect_client(now, info);
                self.links[link].peer = Some(Peer::Client(id));
                You::Client(id)
            }
        };
        note!(self, "the scheduler welcomes {you:?}");
        if let Some(peer) = self.links[link].peer {
            self.links_by_peer.insert(peer, link);
        }
        self.send(link, Way::Down, Message::Welcome(you));
    }

    fn scheduler_does(&mut self, action: Action) {
        let (peer, message) = match action {
            Action::ToClient(id, message) => (Peer::Client(id), Message::ToClient(message)),
            Action::ToProcess(id, message) => {
                self.observe_order(&message);
                (Peer::Process(id), Message::ToProcess(message))
            }
            Action::ToNanny(id, message) => (Peer::Nanny(id), Message::ToNanny(message)),
            Action::Close(peer @ Peer::Process(_), _) => {
                if let Some(link) = self.link_of(peer) {
                    self.links[link].scheduler_has = false;
                    let at = self.now + 10 * MS;
                    self.push(at, Event::PeerLosesLink(link));
                }
                return;
            }
            Action::Close(peer, reason) => {
                self.fail(format!("the scheduler closes the link to {peer}: {reason}"));
                return;
            }
            Action::ForgetProgram(_) => return,
        };
        if let Some(link) = self.link_of(peer)
            && self.links[link].scheduler_has
        {
            self.send(link, Way::Down, message);
        }
    }

    /// The link of a peer. Numbers of peers are never used twice.
    fn link_of(&self, peer: Peer) -> Option<usize> {
        self.links_by_peer.get(&peer).copied()
    }

    /// What the ledger has to know of what a process says.
    fn observe_process(&mut self, from: rdask_core::id::ProcessId, message: &FromProcess) {
        let is_known = self.scheduler.core.knows(from);
        let mark = |world: &mut Self, array, index, event| {
            let look = world.scheduler.core.look(TaskId { array, index });
            world.coverage.mark(look, event);
        };
        match message {
            FromProcess::Report { finished, .. } => {
                for one in finished {
                    let event = match (&one.end, is_known) {
                        (_, false) => "late report",
                        (End::Inline(_), _) => "ended inline",
                        (End::Stored(_), _) => "ended stored",
                        (End::Failed(_), _) => "failed",
                        (End::Cancelled | End::Lost, _) => "not run",
                    };
                    mark(self, one.array, one.range.start, event);
                    if is_known {
                        for index in one.range {
                            self.ledger.taken(TaskId { array: one.array, index }, from);
                        }
                    }
                }
            }
            FromProcess::Holds { values } => {
                for ValueId { task, .. } in values {
                    mark(self, task.array, task.index, "copied");
                }
            }
            FromProcess::Missed { task, .. } => {
                mark(self, task.array, task.index, "missed by a process");
                self.ledger.missed(*task);
                self.missed.insert(*task);
            }
            FromProcess::NotAcquired { .. }
            | FromProcess::Fetched { .. }
            | FromProcess::Stopped { .. }
            | FromProcess::SlotsFree { .. }
            | FromProcess::Parked { .. }
            | FromProcess::GaveUp { .. }
            | FromProcess::Offer { .. } => {}
        }
    }

    fn observe_client(
        &mut self,
        from: rdask_core::id::ClientId,
        message: &FromClient,
        is_known: bool,
    ) {
        if !is_known {
            return;
        }
        let mut mark = |array: ArrayId, range: Range, event| {
            if !range.is_empty() {
                let look = self.scheduler.core.look(TaskId { array, index: range.start });
                self.coverage.mark(look, event);
            }
        };
        match message {
            FromClient::Want { array, range, .. } => mark(*array, *range, "wanted"),
            FromClient::Release { ranges } => {
                for (array, range) in ranges {
                    mark(*array, *range, "released");
                }
            }
            FromClient::Cancel { array, range } => mark(*array, *range, "cancelled"),
            FromClient::Detach { name, ranges } => {
                for (array, range) in ranges {
                    mark(*array, *range, "detached");
                }
                self.name_kept(name, ranges);
            }
            FromClient::Attach { name, .. } => self.name_taken(name),
            FromClient::Missed { task, .. } => {
                mark(task.array, Range::one(task.index), "missed by a client");
                self.ledger.missed(*task);
                self.missed.insert(*task);
            }
            FromClient::SubmitBatch { number, batch, .. } => {
                let own = ArrayId { client: from, number: *number };
                for edge in batch.edges.iter().filter(|edge| edge.task.array != own) {
                    mark(edge.task.array, Range::one(edge.task.index), "depended on");
                }
            }
            _ => {}
        }
    }

    /// What a lost process had, as the scheduler sees it.
    fn mark_losses(&mut self, peer: Peer) {
        let Peer::Process(id) = peer else { return };
        let Some(process) = self.by_id.get(&id) else { return };
        let held: Vec<TaskId> =
            self.processes[*process].store.keys().map(|value| value.task).collect();
        for task in held {
            let look = self.scheduler.core.look(task);
            self.coverage.mark(look, "a holder is lost");
        }
        for task in self.processes[*process].running_tasks() {
            let look = self.scheduler.core.look(task);
            self.coverage.mark(look, "its process is lost");
        }
    }

    fn observe_order(&mut self, message: &ToProcess) {
        let mut dropped = |array: ArrayId, range: Range| {
            for index in range {
                let task = TaskId { array, index };
                self.ledger.dropped(task);
                if self.puts.contains_key(&task) {
                    self.dropped_puts.insert(task);
                }
            }
        };
        match message {
            ToProcess::Cancel { array, range } => dropped(*array, *range),
            ToProcess::Drop { ranges } => {
                ranges.iter().for_each(|(array, range)| dropped(*array, *range));
            }
            ToProcess::Steal { .. } => {
                self.coverage.mark(rdask_core::scheduler::Look::Assigned, "asked back");
            }
            _ => {}
        }
    }

    /// How long it may take until the scheduler knows that a peer on a living host is dead.
    pub(super) const fn soon() -> u64 {
        SECOND
    }
}
