//! The shell around the scheduler: batches of facts in, messages out, as its thread does it.

mod observe;

use rdask_core::hello::You;
use rdask_core::id::{NannyId, Peer, ProcessId, ProgramHash, TaskId};
use rdask_core::message::{Contact, FromNanny, ProgramInfo, Returning, Surroundings, WorkerInfo};
use rdask_core::scheduler::{Action, ClientInfo, Config, NannyInfo, Scheduler};

use super::leases::Leases;
use super::{Actor, Event, MS, US, World, note};
use crate::link::{Message, SILENCE_NS, Way};

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
    Broken(usize, u64),
    Resumed(usize),
    Stored(ProgramHash),
}

/// The scheduler, and what waits for it.
pub(super) struct SchedulerShell {
    pub(super) core: Scheduler,
    facts: Vec<Fact>,
    turn_at: Option<u64>,
    busy_until: u64,
    pub(super) frozen_until: u64,
    /// It was frozen for longer than it takes to notice.
    stood_still: bool,
    pub(super) leases: Leases,
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
            stood_still: false,
            leases: Leases::default(),
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
            self.links[link].down.close();
            self.scheduler.facts.push(Fact::Lost(link));
            self.wake_scheduler(self.now);
        }
    }

    pub(super) fn scheduler_misses_link(&mut self, link: usize, age: u32) {
        let state = &mut self.links[link];
        if state.age != age || state.carries || !state.scheduler_has {
            return;
        }
        state.up.lose_flight();
        // An idle link says so after a fixed time, a reset one nothing about it.
        let is_idle = self.now - state.dead_since >= SILENCE_NS - 500 * MS;
        let silent = if is_idle { SILENCE_NS } else { 0 };
        note!(self, "the scheduler learns that the link of {:?} broke", self.links[link].actor);
        self.scheduler.facts.push(Fact::Broken(link, silent));
        self.wake_scheduler(self.now);
    }

    pub(super) fn scheduler_has_link(&mut self, link: usize) {
        self.scheduler.facts.push(Fact::Resumed(link));
        self.wake_scheduler(self.now);
    }

    pub(super) fn scheduler_stands_still(&mut self, until: u64) {
        // Its threads look at the clock each half second, and find that it is a second late.
        let unseen = self.dice.below(500 * MS);
        self.scheduler.stood_still |= until - self.now + unseen > 1_500 * MS;
        self.scheduler.frozen_until = self.scheduler.frozen_until.max(until);
        let all: Vec<Actor> = self
            .links
            .iter()
            .filter(|link| link.scheduler_has && link.carries)
            .map(|link| link.actor)
            .collect();
        self.fall_silent(&all, until);
        self.wake_scheduler(until);
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
        if std::mem::take(&mut self.scheduler.stood_still) {
            self.scheduler.core.handle_stall(now);
            self.scheduler.leases.stalled(now);
        }
        for fact in std::mem::take(&mut self.scheduler.facts) {
            match fact {
                Fact::Message(link, message) => self.scheduler_hears(link, *message),
                Fact::Lost(link) => {
                    self.links[link].core_has = false;
                    if let Some(peer) = self.links[link].peer {
                        self.mark_losses(peer);
                        self.scheduler.leases.forget(peer);
                        self.notices.is_gone(peer);
                        self.scheduler.core.handle_link_lost(now, peer);
                        self.note_gone(peer);
                    }
                }
                Fact::Broken(link, silent) => self.link_broke(link, silent),
                Fact::Resumed(link) => self.link_resumed(link),
                Fact::Stored(hash) => self.scheduler.core.handle_program_stored(now, hash),
            }
        }
        let silent = self.scheduler.leases.ended(now);
        let staying = self.staying(&silent);
        silent.iter().for_each(|peer| self.mark_losses(*peer));
        if self.scheduler.core.poll_timeout().is_some_and(|at| at <= now) {
            self.scheduler.core.handle_timeout(now);
        }
        self.stops.look(self.now);
        while let Some(action) = self.scheduler.core.poll_action() {
            self.scheduler_does(action, &silent);
        }
        self.check_recalled();
        self.scheduler.core.check_progress();
        self.check_given_up(&silent, &staying);
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
        if let Message::Hello(process, returning) = message {
            if self.links[link].scheduler_has {
                self.welcome(link, actor, process, &returning);
            }
            return;
        }
        match (self.links[link].peer, message) {
            (Some(Peer::Nanny(id)), Message::FromNanny(message)) => {
                if let FromNanny::LaunchFailed { .. } = message {
                    self.launches_failed += 1;
                }
                self.observe_nanny(id, &message);
                self.hear_nanny(id, message);
            }
            (Some(Peer::Process(id)), Message::FromProcess(message)) => {
                self.observe_process(id, &message);
                self.observe_offer(id, &message);
                self.stops.hear(id, &message, self.now);
                let offers = self.open_offers(id, &message);
                self.scheduler.core.handle_process(now, id, message);
                self.check_missed();
                self.observe_adoptions(id, offers);
            }
            (Some(Peer::Client(id)), Message::FromClient(message)) => {
                let is_known = self.links[link].core_has;
                self.observe_client(id, &message, is_known);
                self.scheduler.core.handle_client(now, id, message);
                self.check_missed();
            }
            // It was never welcomed, and speaks as if it had been.
            (None, _) => {}
            (peer, message) => self.fail(format!("{peer:?} said {message:?}")),
        }
    }

    /// A nanny speaks. Who is blamed for the end of a process was seen to run, as it ended by itself.
    fn hear_nanny(&mut self, id: NannyId, message: FromNanny) {
        let board: Vec<TaskId> = match &message {
            FromNanny::Exited { board, .. } => board.iter().map(|(task, _)| *task).collect(),
            _ => Vec::new(),
        };
        let now = self.time();
        let exited = match &message {
            FromNanny::Exited { process, .. } => Some(Peer::Process(*process)),
            _ => None,
        };
        self.scheduler.core.handle_nanny(now, id, message);
        exited.into_iter().for_each(|process| self.note_gone(process));
        for task in board {
            let counted = self.scheduler.core.deaths(task);
            let seen = self.deaths.get(&task).map_or(0, |(count, _)| *count);
            if counted > seen {
                self.fail(format!("{task} is blamed for {counted} deaths, not {seen}"));
            }
        }
    }

    /// Who a process was gone with: what it had is lost before anything else is heard.
    fn note_gone(&mut self, peer: Peer) {
        let gone: Vec<ProcessId> = match peer {
            Peer::Process(id) => vec![id],
            Peer::Nanny(_) => {
                let ids = self.by_id.iter();
                let own = ids.filter(|(id, _)| self.nanny_of(**id) == Some(peer));
                own.map(|(id, _)| *id).collect()
            }
            Peer::Client(_) => Vec::new(),
        };
        for id in gone {
            if !self.scheduler.core.knows(id) {
                self.holders.is_gone(id, 0);
            }
        }
    }

    fn welcome(
        &mut self,
        link: usize,
        actor: Actor,
        process: Option<ProcessId>,
        returning: &[Returning],
    ) {
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
                self.notices.joined(id, &workers);
                core.handle_return(now, id, returning);
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
                if self.clients[client].retires.is_some() {
                    let id = core.connect_observer(now);
                    self.links[link].peer = Some(Peer::Client(id));
                    return self.welcomed(link, You::Client(id));
                }
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
        self.welcomed(link, you);
    }

    fn welcomed(&mut self, link: usize, you: You) {
        note!(self, "the scheduler welcomes {you:?}");
        if let Some(peer) = self.links[link].peer {
            self.links_by_peer.insert(peer, link);
        }
        self.send(link, Way::Down, Message::Welcome(you));
    }

    fn scheduler_does(&mut self, action: Action, silent: &[Peer]) {
        let (peer, message) = match action {
            Action::ToClient(id, message) => {
                self.observe_answer(id, &message);
                (Peer::Client(id), Message::ToClient(message))
            }
            Action::ToProcess(id, message) => {
                self.observe_order(id, &message);
                (Peer::Process(id), Message::ToProcess(message))
            }
            Action::ToNanny(id, message) => {
                self.check_nanny_order(id, &message);
                (Peer::Nanny(id), Message::ToNanny(message))
            }
            Action::Close(peer, reason) => {
                self.scheduler_closes(peer, &reason, silent);
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
    pub(super) fn link_of(&self, peer: Peer) -> Option<usize> {
        self.links_by_peer.get(&peer).copied()
    }
}
