//! Words on their way between peers and the scheduler.

use rdask_core::id::ProcessId;
use rdask_core::message::Returning;

use super::{Actor, Event, US, World};
use crate::link::{Link, Message, Way};

impl World {
    /// A new connection for an actor; its first word is on its way.
    pub(super) fn dial(&mut self, actor: Actor, process: Option<ProcessId>) -> usize {
        self.dial_with(actor, process, Vec::new())
    }

    /// The same for a nanny that was given up and still has these processes.
    pub(super) fn dial_with(
        &mut self,
        actor: Actor,
        process: Option<ProcessId>,
        returning: Vec<Returning>,
    ) -> usize {
        let number = self.links.len();
        let mut link = Link::new(actor, self.scenario.seed, number as u64);
        let (up, down) = self.stalls_of(actor);
        // Nobody is greeted by half a path.
        (link.up.stalled_until, link.down.stalled_until) = (up.max(down), up.max(down));
        self.links.push(link);
        self.send(number, Way::Up, Message::Hello(process, returning));
        number
    }

    /// Until when an actor's words don't reach the scheduler, and the other way round.
    pub(super) fn stalls_of(&self, actor: Actor) -> (u64, u64) {
        match actor {
            Actor::Nanny(node, _) => self.nodes[node].cut_until,
            Actor::Process(process) => {
                let process = &self.processes[process];
                later(self.nodes[process.node].cut_until, process.cut_until)
            }
            Actor::Client(client) => match (self.clients[client].home, self.clients[client].spec) {
                (Some(process), _) => self.stalls_of(Actor::Process(process)),
                (None, Some(_)) => self.clients[client].cut_until,
                (None, None) => (0, 0),
            },
        }
    }

    pub(super) fn send(&mut self, link: usize, way: Way, message: Message) {
        self.links[link].way(way).keep(message);
        if self.links[link].sends(way) {
            self.carry(link, way);
        }
    }

    /// Sends all that waits for a link.
    pub(super) fn carry(&mut self, link: usize, way: Way) {
        let (low, high) = self.scenario.network.delay_us;
        let slow_percent = self.scenario.network.slow_percent;
        let now = self.now;
        for _ in 0..self.links[link].way(way).waiting() {
            let stream = self.links[link].way(way);
            let mut delay = stream.dice.between(low * US, high * US);
            if stream.dice.chance(slow_percent) {
                delay *= 10;
            }
            if let Some(at) = stream.send(now, delay) {
                self.push(at, Event::Arrival(link, way));
            }
        }
    }

    /// How long something takes that is sent now.
    pub(super) fn delay(&mut self) -> u64 {
        let (low, high) = self.scenario.network.delay_us;
        self.dice.between(low * US, high * US)
    }

    pub(super) fn arrive(&mut self, link: usize, way: Way) {
        while let Some(message) = self.links[link].way(way).take_due(self.now) {
            self.mix_message(link, &message);
            match way {
                Way::Up => self.scheduler_gets(link, message),
                Way::Down => self.peer_gets(link, message),
            }
        }
        if way == Way::Down && self.is_alive(self.links[link].actor) {
            self.peer_acts(self.links[link].actor);
        }
    }

    fn peer_gets(&mut self, link: usize, message: Message) {
        let actor = self.links[link].actor;
        if !self.is_alive(actor) || self.is_of_before(link) {
            return;
        }
        self.links[link].is_welcome |= matches!(message, Message::Welcome(_));
        match actor {
            Actor::Nanny(node, _) => self.nanny_gets(node, message),
            Actor::Process(process) => self.process_gets(process, message),
            Actor::Client(client) => self.client_gets(client, message),
        }
    }

    /// Whether a link is one that a process had before it was given another number.
    fn is_of_before(&self, link: usize) -> bool {
        match self.links[link].actor {
            Actor::Process(process) => self.processes[process].link != Some(link),
            Actor::Nanny(..) | Actor::Client(_) => false,
        }
    }

    pub(super) fn peer_acts(&mut self, actor: Actor) {
        match actor {
            Actor::Nanny(..) => {}
            Actor::Process(process) => self.process_acts(process),
            Actor::Client(client) => self.client_acts(client),
        }
    }
}

/// The later ends, in each direction.
pub(super) fn later(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    (one.0.max(other.0), one.1.max(other.1))
}
