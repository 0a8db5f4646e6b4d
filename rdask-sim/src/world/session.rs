//! Links that break, and connections that go on over the next one or end.
//!
//! A side learns that its link is dead when it is reset, or after four seconds of silence. The peer
//! dials again until the scheduler has given it up. What the scheduler does about it, the real core
//! decides: it is only told that a link broke, or that there is another one.

use super::{Actor, Event, MS, SECOND, World, note};
use crate::link::{NEVER, SILENCE_NS, Way};

/// How long the scheduler may take to know that a peer is dead whose node answers for it.
pub(super) const PORT_CLOSED: u64 = SECOND;

/// Nobody says that a peer is dead: its node has gone with it.
pub(super) const SILENCE: u64 = NEVER;

/// How long nannies and clients look for a scheduler that they have no link to.
const NANNY_PERSISTENCE: u64 = 300 * SECOND;
const CLIENT_PERSISTENCE: u64 = 60 * SECOND;

/// How long who dials waits for an answer that is lost.
const ANSWER: u64 = 3 * SECOND;

impl World {
    /// These don't answer until then. If that is too long their links die of it.
    pub(super) fn fall_silent(&mut self, actors: &[Actor], until: u64) {
        if until.saturating_sub(self.now) < SILENCE_NS {
            return;
        }
        for actor in actors {
            for link in self.links_of(*actor) {
                let age = self.links[link].age;
                // What was heard last was heard a moment before.
                let at = self.now + SILENCE_NS - self.dice.below(500 * MS);
                self.push(at, Event::LinkIdle(link, age, self.now));
            }
        }
    }

    pub(super) fn links_of(&self, actor: Actor) -> Vec<usize> {
        let links = self.links.iter().enumerate();
        links.filter(|(_, link)| link.actor == actor).map(|(nth, _)| nth).collect()
    }

    /// Nothing was heard over a link for so long, in one direction or in both.
    pub(super) fn link_idle(&mut self, link: usize, age: u32, since: u64) {
        let actor = self.links[link].actor;
        if self.links[link].age != age || !self.links[link].carries {
            return;
        }
        let (up, down) = self.stalls_of(actor);
        let is_deaf = !self.is_alive(actor) || self.actor_awake_at(actor) > self.now;
        // Who hears the other hears that it is not heard, a little later.
        let later = self.dice.below(SILENCE_NS);
        let scheduler_at = if up > self.now || is_deaf { 0 } else { later };
        let is_scheduler_deaf = self.scheduler.frozen_until > self.now;
        let peer_at = if down > self.now || is_scheduler_deaf { 0 } else { later };
        self.break_link(link, since, scheduler_at, peer_at);
    }

    /// A link is reset, or forgotten by something on the way: then both sides find it silent.
    pub(super) fn reset(&mut self, actors: &[Actor]) {
        for actor in actors {
            for link in self.links_of(*actor) {
                if self.links[link].carries {
                    let quiet = if self.dice.chance(50) { SILENCE_NS } else { 0 };
                    let scheduler_at = quiet + self.dice.below(100 * MS);
                    let peer_at = quiet + self.dice.below(100 * MS);
                    self.break_link(link, self.now, scheduler_at, peer_at);
                }
            }
        }
    }

    /// A link carries nothing any more; each side learns of it so much later.
    fn break_link(&mut self, link: usize, since: u64, scheduler_in: u64, peer_in: u64) {
        let state = &mut self.links[link];
        state.carries = false;
        state.dead_since = since;
        state.up.lose_suffix();
        state.down.lose_suffix();
        let age = state.age;
        note!(self, "the link of {:?} breaks", self.links[link].actor);
        self.push(self.now + scheduler_in, Event::SchedulerMissesLink(link, age));
        self.push(self.now + peer_in, Event::PeerMissesLink(link, age));
    }

    pub(super) fn peer_misses_link(&mut self, link: usize, age: u32) {
        let state = &mut self.links[link];
        if state.age != age || state.carries || !state.peer_has || !state.up.is_open {
            return;
        }
        state.peer_has = false;
        state.down.lose_flight();
        if !self.is_alive(self.links[link].actor) {
            return;
        }
        if self.links[link].is_welcome {
            self.dial_again(link, self.now, 0);
        } else {
            self.peer_loses_link(link);
        }
    }

    /// The next try to go on, when there may be a way.
    fn dial_again(&mut self, link: usize, since: u64, pause: u64) {
        let actor = self.links[link].actor;
        let patience = match actor {
            Actor::Nanny(..) => NANNY_PERSISTENCE,
            Actor::Process(_) => NEVER,
            Actor::Client(_) => CLIENT_PERSISTENCE,
        };
        let (up, down) = self.stalls_of(actor);
        let open_at = up.max(down).max(self.scheduler.frozen_until);
        let at = match open_at > self.now {
            true => open_at.saturating_add(self.dice.below(SECOND)),
            false => self.now + pause + self.dice.below(50 * MS),
        };
        let end = since.saturating_add(patience);
        if at >= end {
            self.push(end, Event::PeerLosesLink(link));
        } else {
            let age = self.links[link].age;
            self.push(at, Event::Dials(link, age, since));
        }
    }

    pub(super) fn dials(&mut self, link: usize, age: u32, since: u64) {
        let state = &self.links[link];
        if state.age != age || state.peer_has || !self.is_alive(state.actor) {
            return;
        }
        let (up, down) = self.stalls_of(state.actor);
        if up.max(down).max(self.scheduler.frozen_until) > self.now {
            self.dial_again(link, since, 0);
            return;
        }
        // A handshake, then the first word.
        let at = self.now + self.delay() + self.delay();
        self.push(at, Event::DialArrives(link, age, since));
    }

    /// Somebody wants to go on over a new link.
    pub(super) fn dial_arrives(&mut self, link: usize, age: u32, since: u64) {
        let actor = self.links[link].actor;
        if self.links[link].age != age || !self.is_alive(actor) {
            return;
        }
        let (up, down) = self.stalls_of(actor);
        if up.max(down) > self.now {
            self.dial_again(link, since, 0);
            return;
        }
        let back = self.now + self.delay();
        if !self.links[link].scheduler_has {
            self.links[link].is_fenced = true;
            self.push(back, Event::PeerLosesLink(link));
            return;
        }
        let percent = self.scenario.network.fetch_fails_percent;
        let is_lost = self.dice.chance(percent) || self.actor_awake_at(actor) > self.now;
        let state = &mut self.links[link];
        state.age += 1;
        state.carries = !is_lost;
        state.up.lose_flight();
        state.down.begin(back);
        let age = state.age;
        note!(self, "{:?} has a link again", self.links[link].actor);
        self.scheduler_has_link(link);
        if is_lost {
            // It breaks before anything has come over it.
            self.links[link].dead_since = self.now;
            let at = self.now + self.dice.below(SILENCE_NS);
            self.push(at, Event::SchedulerMissesLink(link, age));
            self.dial_again(link, since, ANSWER);
        } else {
            self.carry(link, Way::Down);
            self.push(back, Event::PeerHasLink(link, age));
        }
    }

    pub(super) fn peer_has_link(&mut self, link: usize, age: u32) {
        let state = &mut self.links[link];
        if state.age != age || !state.up.is_open {
            return;
        }
        state.peer_has = true;
        if state.carries {
            self.carry(link, Way::Up);
        } else {
            let at = self.now + self.dice.below(SILENCE_NS);
            self.push(at, Event::PeerMissesLink(link, age));
        }
    }

    /// A peer's side of a connection has ended: nothing new leaves it, and the scheduler will hear
    /// of it, or only nothing any more.
    pub(super) fn end_link(&mut self, link: usize, scheduler_hears_within: u64) {
        let actor = self.links[link].actor;
        let (up, down) = self.stalls_of(actor);
        let state = &mut self.links[link];
        state.up.close();
        state.down.is_open = false;
        if !state.scheduler_has {
            return;
        }
        if scheduler_hears_within == SILENCE || up.max(down) > self.now {
            let age = state.age;
            let at = self.now + SILENCE_NS - self.dice.below(500 * MS);
            self.push(at, Event::LinkIdle(link, age, self.now));
        } else {
            let at = self.now + self.dice.below(scheduler_hears_within);
            self.push(at, Event::SchedulerLosesLink(link));
        }
    }

    pub(super) fn peer_loses_link(&mut self, link: usize) {
        let actor = self.links[link].actor;
        if !self.is_alive(actor) || !self.links[link].up.is_open {
            return;
        }
        note!(self, "{actor:?} learns that its connection has ended");
        self.end_link(link, SECOND);
        match actor {
            Actor::Nanny(node, _) => self.nanny_loses_link(node, link),
            Actor::Process(process) => self.process_loses_link(process, link),
            Actor::Client(client) => self.client_loses_link(client),
        }
    }
}
