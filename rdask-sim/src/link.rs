//! A link: two ordered streams that may stall, and that end for good.
//!
//! What a session makes of a connection: a break that is healed within the lease looks like a
//! stall, nothing is lost. Past the lease, or when a side dies, the link ends. What is under way
//! then is lost from some message on, and each side learns of the end at its own time.

use std::collections::VecDeque;

use rdask_core::hello::You;
use rdask_core::id::{Peer, ProcessId};
use rdask_core::message::{FromClient, FromNanny, FromProcess, ToClient, ToNanny, ToProcess};

use crate::dice::Dice;
use crate::world::Actor;

/// A time that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// After so long a silence a peer is given up.
pub(crate) const LEASE_NS: u64 = 5_000_000_000;

/// One message, in whichever direction.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Hello(Option<ProcessId>),
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
    pub(crate) queue: VecDeque<(u64, Message)>,
    /// When the last message arrives: none overtakes it.
    last: u64,
    /// Until when nothing gets through.
    pub(crate) stalled_until: u64,
    /// What each message takes longer, until when.
    pub(crate) slow: (u64, u64),
    pub(crate) is_open: bool,
    pub(crate) dice: Dice,
}

impl Stream {
    fn new(dice: Dice) -> Self {
        Self {
            queue: VecDeque::new(),
            last: 0,
            stalled_until: 0,
            slow: (0, 0),
            is_open: true,
            dice,
        }
    }

    /// Takes a message in; says when to look for it.
    pub(crate) fn send(&mut self, now: u64, delay: u64, message: Message) -> Option<u64> {
        if !self.is_open || self.stalled_until == NEVER {
            return None;
        }
        let slow = if now < self.slow.1 { self.slow.0 } else { 0 };
        let at = self.last.max(now.max(self.stalled_until) + delay + slow);
        let is_new = at > self.last || self.queue.is_empty();
        self.last = at;
        self.queue.push_back((at, message));
        is_new.then_some(at)
    }

    pub(crate) fn take_due(&mut self, now: u64) -> Option<Message> {
        let is_due = self.queue.front().is_some_and(|(at, _)| *at <= now);
        if is_due { self.queue.pop_front().map(|(_, message)| message) } else { None }
    }

    /// Nothing new comes in, and some of what is under way is lost.
    pub(crate) fn cut(&mut self) {
        self.is_open = false;
        let keep = self.dice.below(self.queue.len() as u64 + 1) as usize;
        self.queue.truncate(keep);
    }
}

/// A link between the scheduler and one incarnation of a peer.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) actor: Actor,
    /// Whom the scheduler takes it for, once it has welcomed it.
    pub(crate) peer: Option<Peer>,
    pub(crate) up: Stream,
    pub(crate) down: Stream,
    /// Whether the scheduler still thinks it is there.
    pub(crate) scheduler_has: bool,
    /// Whether its core does: it hears of the end with the next batch of facts.
    pub(crate) core_has: bool,
}

impl Link {
    pub(crate) fn new(actor: Actor, seed: u64, number: u64) -> Self {
        Self {
            actor,
            peer: None,
            up: Stream::new(Dice::new(seed, 1000 + 2 * number)),
            down: Stream::new(Dice::new(seed, 1001 + 2 * number)),
            scheduler_has: true,
            core_has: true,
        }
    }

    pub(crate) fn way(&mut self, way: Way) -> &mut Stream {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}
