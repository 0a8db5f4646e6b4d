//! Words on their way between peers and the scheduler.

use rdask_core::id::ProcessId;

use super::{Actor, Event, SECOND, US, World, note};
use crate::link::{Link, Message, Way};

impl World {
    /// A new link for an actor; its first word is on its way.
    pub(super) fn dial(&mut self, actor: Actor, process: Option<ProcessId>) -> usize {
        let number = self.links.len();
        let mut link = Link::new(actor, self.scenario.seed, number as u64);
        let (up, down) = self.stalls_of(actor);
        (link.up.stalled_until, link.down.stalled_until) = (up, down);
        self.links.push(link);
        self.send(number, Way::Up, Message::Hello(process));
        number
    }

    /// Until when an actor's words don't reach the scheduler, and the other way round.
    pub(super) fn stalls_of(&self, actor: Actor) -> (u64, u64) {
        match actor {
            Actor::Nanny(node, _) => self.nodes[node].cut_until,
            Actor::Process(process) => self.nodes[self.processes[process].node].cut_until,
            Actor::Client(client) => match (self.clients[client].home, self.clients[client].spec) {
                (Some(process), _) => self.nodes[self.processes[process].node].cut_until,
                (None, Some(_)) => self.clients[client].cut_until,
                (None, None) => (0, 0),
            },
        }
    }

    pub(super) fn send(&mut self, link: usize, way: Way, message: Message) {
        let Network { low, high, slow_percent } = self.network();
        let now = self.now;
        let stream = self.links[link].way(way);
        let mut delay = stream.dice.between(low, high);
        if stream.dice.chance(slow_percent) {
            delay *= 10;
        }
        if let Some(at) = stream.send(now, delay, message) {
            self.push(at, Event::Arrival(link, way));
        }
    }

    pub(super) fn network(&self) -> Network {
        let (low, high) = self.scenario.network.delay_us;
        Network { low: low * US, high: high * US, slow_percent: self.scenario.network.slow_percent }
    }

    pub(super) fn delay(&mut self) -> u64 {
        let Network { low, high, .. } = self.network();
        self.dice.between(low, high)
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

    pub(super) fn peer_gets(&mut self, link: usize, message: Message) {
        let actor = self.links[link].actor;
        if !self.is_alive(actor) {
            return;
        }
        match actor {
            Actor::Nanny(node, _) => self.nanny_gets(node, message),
            Actor::Process(process) => self.process_gets(process, message),
            Actor::Client(client) => self.client_gets(client, message),
        }
    }

    pub(super) fn peer_acts(&mut self, actor: Actor) {
        match actor {
            Actor::Nanny(..) => {}
            Actor::Process(process) => self.process_acts(process),
            Actor::Client(client) => self.client_acts(client),
        }
    }

    /// A peer's side of a link has ended: nothing new leaves it, and the scheduler will hear of it.
    pub(super) fn end_link(&mut self, link: usize, scheduler_hears_within: u64) {
        self.links[link].up.cut();
        self.links[link].down.is_open = false;
        if self.links[link].scheduler_has {
            let at = self.now + self.dice.below(scheduler_hears_within);
            self.push(at, Event::SchedulerLosesLink(link));
        }
    }

    pub(super) fn peer_loses_link(&mut self, link: usize) {
        let actor = self.links[link].actor;
        if !self.is_alive(actor) || !self.links[link].up.is_open {
            return;
        }
        note!(self, "{actor:?} learns that its link has ended");
        self.end_link(link, SECOND);
        match actor {
            Actor::Nanny(node, _) => self.nanny_loses_link(node),
            Actor::Process(process) => self.process_loses_link(process),
            Actor::Client(client) => self.client_loses_link(client),
        }
    }
}

pub(super) struct Network {
    low: u64,
    high: u64,
    slow_percent: u64,
}
