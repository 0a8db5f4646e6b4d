//! A connection: two ordered streams of messages, carried by one link after the other.
//!
//! A link that breaks loses what is under way from some message on, in each direction. Both sides
//! keep what has not arrived, and the next link carries it again: what a session does. When a side
//! is dead or was given up no link comes any more, and what has not arrived never does.

use std::collections::VecDeque;

use rdask_core::hello::You;
use rdask_core::id::{Peer, ProcessId};
use rdask_core::message::{
    FromClient, FromNanny, FromProcess, Returning, ToClient, ToNanny, ToProcess,
};

use crate::dice::Dice;
use crate::world::Actor;

/// A time that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// After so long a silence a link breaks.
pub(crate) const SILENCE_NS: u64 = 4_000_000_000;

/// One message, in whichever direction.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// Which process it is, or is of; or which ones a nanny still has that was given up.
    Hello(Option<ProcessId>, Vec<Returning>),
    Welcome(You),
    Refused(String),
    FromNanny(FromNanny),
    ToNanny(ToNanny),
    FromProcess(FromProcess),
    ToProcess(ToProcess),
    FromClient(FromClient),
    ToClient(ToClient),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Up,
    Down,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What was said and has not arrived.
    kept: VecDeque<Message>,
    /// When the first of it arrive. What is behind them waits for the next link.
    flight: VecDeque<u64>,
    /// When the last message arrives: none overtakes it.
    last: u64,
    /// Until when nothing gets through.
    pub(crate) stalled_until: u64,
    /// What each message takes longer, until when.
    pub(crate) slow: (u64, u64),
    /// Whether whoever speaks here is there and was not closed.
    pub(crate) is_open: bool,
    pub(crate) dice: Dice,
}

impl Stream {
    fn new(dice: Dice) -> Self {
        Self {
            kept: VecDeque::new(),
            flight: VecDeque::new(),
            last: 0,
            stalled_until: 0,
            slow: (0, 0),
            is_open: true,
            dice,
        }
    }

    /// Takes a message in, to be carried when there is a link.
    pub(crate) fn keep(&mut self, message: Message) {
        if self.is_open {
            self.kept.push_back(message);
        }
    }

    /// How many messages are kept that are not on their way.
    pub(crate) fn waiting(&self) -> usize {
        self.kept.len() - self.flight.len()
    }

    /// Sends the next of those; says when to look for it.
    pub(crate) fn send(&mut self, now: u64, delay: u64) -> Option<u64> {
        if self.stalled_until == NEVER {
            return None;
        }
        let slow = if now < self.slow.1 { self.slow.0 } else { 0 };
        let at = self.last.max(now.max(self.stalled_until) + delay + slow);
        let is_new = at > self.last || self.flight.is_empty();
        self.last = at;
        self.flight.push_back(at);
        is_new.then_some(at)
    }

    pub(crate) fn take_due(&mut self, now: u64) -> Option<Message> {
        let is_due = self.flight.front().is_some_and(|at| *at <= now);
        if !is_due {
            return None;
        }
        self.flight.pop_front();
        self.kept.pop_front()
    }

    /// Some of what is under way is lost, up to the last.
    pub(crate) fn lose_suffix(&mut self) {
        let keep = self.dice.below(self.flight.len() as u64 + 1) as usize;
        self.flight.truncate(keep);
    }

    /// Nobody hears what is under way: the link that carries it is given up.
    pub(crate) fn lose_flight(&mut self) {
        self.flight.clear();
    }

    /// Nothing comes before this time.
    pub(crate) fn begin(&mut self, at: u64) {
        self.flight.clear();
        self.last = at;
    }

    /// Nothing new is said, and what is lost is lost for good.
    pub(crate) fn close(&mut self) {
        self.is_open = false;
        self.lose_suffix();
        self.kept.truncate(self.flight.len());
    }
}

/// A connection between the scheduler and one incarnation of a peer.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) actor: Actor,
    /// Whom the scheduler takes it for, once it has welcomed it.
    pub(crate) peer: Option<Peer>,
    pub(crate) up: Stream,
    pub(crate) down: Stream,
    /// Which link carries it: the first one, the second one.
    pub(crate) age: u32,
    /// Whether that link works.
    pub(crate) carries: bool,
    /// Since when it doesn't.
    pub(crate) dead_since: u64,
    /// Whether the peer thinks that it works.
    pub(crate) peer_has: bool,
    /// Whether the peer was welcomed: others have nothing to go on with.
    pub(crate) is_welcome: bool,
    /// Whether the scheduler has not given the peer up.
    pub(crate) scheduler_has: bool,
    /// Whether the peer was told that it has been given up.
    pub(crate) is_fenced: bool,
    /// Whether its core has not: it hears of the end with the next batch of facts.
    pub(crate) core_has: bool,
}

impl Link {
    pub(crate) fn new(actor: Actor, seed: u64, number: u64) -> Self {
        Self {
            actor,
            peer: None,
            up: Stream::new(Dice::new(seed, 1000 + 2 * number)),
            down: Stream::new(Dice::new(seed, 1001 + 2 * number)),
            age: 0,
            carries: true,
            dead_since: 0,
            peer_has: true,
            is_welcome: false,
            scheduler_has: true,
            is_fenced: false,
            core_has: true,
        }
    }

    pub(crate) fn way(&mut self, way: Way) -> &mut Stream {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// Whether what is said in this direction goes out at once.
    pub(crate) fn sends(&self, way: Way) -> bool {
        self.carries && (way == Way::Down || self.peer_has)
    }
}
