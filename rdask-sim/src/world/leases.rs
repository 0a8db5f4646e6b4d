//! Who is to be given up, reckoned beside the core: it must give up those, when it is time, and
//! nobody else for silence.

use std::collections::BTreeMap;
use std::time::Duration;

use rdask_core::id::{ArrayId, Peer, ProcessId};
use rdask_core::scheduler::{CLIENT_GRACE, RETURN_AWAITED, SILENCE_FENCED};
use rdask_core::time::Time;

use super::{Actor, Event, MS, SECOND, World, note};

/// How long nobody is given up after the scheduler stood still.
const AFTER_STALL: u64 = 10 * SECOND;

/// How long a nanny stays that is silent while a process of it is not.
const LOOK_AGAIN: u64 = 500 * MS;

/// What peers are told that were silent for too long.
const SILENT: &str = "it was silent for too long";

/// What is said of peers that are given up already.
const UNKNOWN: &str = "it is not known";

/// Peers whose links broke, and when they are to be given up.
#[derive(Debug, Default)]
pub(super) struct Leases {
    ends: BTreeMap<Peer, u64>,
    no_verdict_before: u64,
}

impl Leases {
    pub(super) fn stalled(&mut self, now: Time) {
        self.no_verdict_before = now.0 + AFTER_STALL;
    }

    pub(super) fn forget(&mut self, peer: Peer) {
        self.ends.remove(&peer);
    }

    /// Whether a peer's link is broken.
    pub(super) fn is_silent(&self, peer: Peer) -> bool {
        self.ends.contains_key(&peer)
    }

    /// Whose time is over.
    pub(super) fn ended(&self, now: Time) -> Vec<Peer> {
        if now.0 < self.no_verdict_before {
            return Vec::new();
        }
        let ended = self.ends.iter().filter(|(_, end)| **end <= now.0);
        ended.map(|(peer, _)| *peer).collect()
    }
}

impl World {
    pub(super) fn link_broke(&mut self, link: usize, silent: u64) {
        let now = self.time();
        let Some(peer) = self.links[link].peer else {
            // Its greeting was lost with the link.
            self.links[link].scheduler_has = false;
            return;
        };
        if !self.links[link].scheduler_has {
            return;
        }
        let patience = match self.links[link].actor {
            Actor::Client(client) if self.clients[client].home.is_none() => CLIENT_GRACE,
            _ => SILENCE_FENCED,
        };
        let left = (patience.as_nanos() as u64).saturating_sub(silent);
        self.scheduler.leases.ends.insert(peer, now.0 + left);
        self.scheduler.core.handle_link_broken(now, peer, Duration::from_nanos(silent));
    }

    pub(super) fn link_resumed(&mut self, link: usize) {
        let now = self.time();
        if let Some(peer) = self.links[link].peer
            && self.links[link].scheduler_has
        {
            self.scheduler.leases.forget(peer);
            self.scheduler.core.handle_link_resumed(now, peer);
        }
    }

    /// The scheduler ends a connection.
    pub(super) fn scheduler_closes(&mut self, peer: Peer, reason: &str, silent: &[Peer]) {
        if let Peer::Process(id) = peer {
            let is_awaited = self.is_gone_with_node(id, reason);
            let awaited = if is_awaited { RETURN_AWAITED.as_nanos() as u64 } else { 0 };
            self.holders.is_gone(id, self.now + awaited);
        }
        let Some(link) = self.link_of(peer) else { return };
        if !self.links[link].scheduler_has {
            return;
        }
        note!(self, "the scheduler gives {peer} up: {reason}");
        let is_fair = match peer {
            _ if reason == SILENT => silent.contains(&peer),
            Peer::Process(_) => reason != UNKNOWN,
            Peer::Nanny(_) | Peer::Client(_) => false,
        };
        if !is_fair {
            self.fail(format!("the scheduler closes the connection to {peer}: {reason}"));
        }
        self.notices.is_gone(peer);
        let state = &mut self.links[link];
        (state.scheduler_has, state.core_has) = (false, false);
        self.scheduler.leases.forget(peer);
        // Who has no link hears of it when it dials.
        state.is_fenced = true;
        if state.carries {
            let at = (self.now + 10 * MS).max(state.down.stalled_until);
            self.push(at, Event::PeerLosesLink(link));
        }
    }

    /// The nannies of those that are silent which stay for a process of theirs that is not. It may end
    /// in the turn in which they are looked at.
    pub(super) fn staying(&self, silent: &[Peer]) -> Vec<Peer> {
        let stays =
            |peer: &&Peer| matches!(peer, Peer::Nanny(_)) && self.node_lease(**peer).is_none();
        silent.iter().filter(stays).copied().collect()
    }

    /// Those were silent for too long: none of them may be counted on any more. But a node is given
    /// up as one, if all of it is silent, once the last of it was for long enough; and a nanny stays
    /// as long as a process of its does, and is looked at again.
    pub(super) fn check_given_up(&mut self, silent: &[Peer], staying: &[Peer]) {
        let now = self.now;
        for peer in silent {
            let (is_known, nanny) = match *peer {
                Peer::Process(id) => (self.scheduler.core.knows(id), self.nanny_of(id)),
                _ => (self.scheduler.leases.ends.contains_key(peer), Some(*peer)),
            };
            if !is_known {
                continue;
            }
            let again = match (peer, nanny.and_then(|nanny| self.node_lease(nanny))) {
                _ if staying.contains(peer) => Some(now + LOOK_AGAIN),
                (Peer::Process(_) | Peer::Nanny(_), Some(end)) => {
                    Some(end).filter(|end| *end > now)
                }
                (Peer::Nanny(_), None) => Some(now + LOOK_AGAIN),
                _ => None,
            };
            match again {
                Some(again) => drop(self.scheduler.leases.ends.insert(*peer, again)),
                None => self.fail(format!("{peer} was silent for too long and is not given up")),
            }
        }
    }

    /// Whether a process is given up because all of its node was silent for too long.
    fn is_gone_with_node(&self, process: ProcessId, reason: &str) -> bool {
        let nanny = self.nanny_of(process);
        let end = nanny.and_then(|nanny| self.node_lease(nanny));
        reason == SILENT && end.is_some_and(|end| end <= self.now)
    }

    pub(super) fn nanny_of(&self, process: ProcessId) -> Option<Peer> {
        let one = &self.processes[*self.by_id.get(&process)?];
        let actor = Actor::Nanny(one.node, one.nanny_age);
        self.links.iter().filter(|link| link.actor == actor).find_map(|link| link.peer)
    }

    /// When a nanny and all of its processes will have been silent for long enough, if they are.
    fn node_lease(&self, nanny: Peer) -> Option<u64> {
        let leases = &self.scheduler.leases.ends;
        let Actor::Nanny(node, age) = self.links[self.link_of(nanny)?].actor else { return None };
        let own = self.processes.iter().filter(|one| (one.node, one.nanny_age) == (node, age));
        let counted = own.map(|one| one.id).filter(|id| {
            self.scheduler.core.knows(*id) && self.link_of(Peer::Process(*id)).is_some()
        });
        let ends = counted.map(|id| leases.get(&Peer::Process(id)).copied());
        ends.chain([leases.get(&nanny).copied()]).try_fold(0, |last, end| Some(last.max(end?)))
    }

    /// Nothing new is given to a process that is silent.
    pub(super) fn check_heard(&mut self, to: ProcessId, what: &str, array: ArrayId) {
        self.check_stays(to, what);
        if self.scheduler.leases.ends.contains_key(&Peer::Process(to)) {
            self.fail(format!("{to} is silent, and is given tasks of {array} to {what}"));
        }
    }
}
