//! A broken link is no lost member: who comes back in time goes on as if nothing had been.
//!
//! From the break on a peer has a lease. Nothing new is given to it meanwhile, and nothing is taken
//! from it. When the lease ends it is fenced: its number means nothing any more. No lease ends in a
//! time when the scheduler itself stood still, since it heard nobody then.

use std::time::Duration;

use crate::id::{NannyId, Peer, ProcessId};
use crate::time::Time;

use super::clients::ClientKind;
use super::cluster::{Stage, Worker};
use super::{Action, Scheduler};

/// A nanny or process that has not been heard for so long is given up.
pub const SILENCE_FENCED: Duration = Duration::from_secs(5);

/// A client is given up after so long without a link: nobody else can make again what it waits for.
pub const CLIENT_GRACE: Duration = Duration::from_secs(30);

/// After a time in which the scheduler stood still peers have so long to come back.
const AFTER_STALL: Duration = Duration::from_secs(10);

/// A nanny whose processes were not given up is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What the log and the peer are told.
const SILENT: &str = "it was silent for too long";

impl Scheduler {
    /// A peer's link broke, and nothing had been heard of it for `silent`. It may come back.
    pub fn handle_link_broken(&mut self, now: Time, peer: Peer, silent: Duration) {
        self.begin(now);
        if !self.is_member(peer) {
            return self.actions.push_back(Action::Close(peer, "it is not known".to_owned()));
        }
        let patience = self.patience(peer);
        self.leases.insert(peer, now + patience.saturating_sub(silent));
        if let Peer::Process(process) = peer {
            self.open.remove(&process);
        }
    }

    /// A peer has a link again, and all that was said before the break.
    pub fn handle_link_resumed(&mut self, now: Time, peer: Peer) {
        self.begin(now);
        if !self.is_member(peer) {
            return self.actions.push_back(Action::Close(peer, "it is not known".to_owned()));
        }
        self.leases.remove(&peer);
        if let Peer::Process(process) = peer {
            self.open.insert(process);
            self.copies_have_a_place();
        }
    }

    /// The scheduler stood still until now: what it has not heard says nothing.
    pub fn handle_stall(&mut self, now: Time) {
        self.begin(now);
        self.no_verdict_before = now + AFTER_STALL;
    }

    /// When the first lease ends.
    pub(super) fn next_lease_end(&self) -> Option<Time> {
        let first = self.leases.values().min().copied();
        first.map(|end| end.max(self.no_verdict_before))
    }

    /// Whether a peer's link is broken.
    pub(super) fn is_silent(&self, peer: Peer) -> bool {
        self.leases.contains_key(&peer)
    }

    /// Gives up those who have not come back in time.
    pub(super) fn end_leases(&mut self) {
        if self.now < self.no_verdict_before {
            return;
        }
        let ended = self.leases.iter().filter(|(_, end)| **end <= self.now);
        // Processes before their nannies, which are looked at without them.
        for peer in ended.map(|(peer, _)| *peer).rev().collect::<Vec<_>>() {
            match peer {
                Peer::Client(client) => {
                    tracing::warn!(%client, "gave a client up: {SILENT}");
                    self.lose_client(client);
                    self.actions.push_back(Action::Close(peer, SILENT.to_owned()));
                }
                Peer::Process(process) => self.lose_process(process, SILENT),
                Peer::Nanny(nanny) if self.has_process(nanny) => {
                    self.leases.insert(peer, self.now + LOOK_AGAIN);
                }
                Peer::Nanny(nanny) => {
                    self.lose_nanny(nanny, SILENT);
                    self.actions.push_back(Action::Close(peer, SILENT.to_owned()));
                }
            }
        }
    }

    /// Whether a nanny has a process that was not given up: its node may live.
    fn has_process(&self, nanny: NannyId) -> bool {
        let Some(nanny) = self.cluster.nannies.get(&nanny) else { return false };
        let workers = nanny.workers.iter().filter_map(|id| self.cluster.workers.get(id));
        let is_running = |id: &ProcessId| {
            self.cluster.processes.get(id).is_some_and(|one| one.stage == Stage::Running)
        };
        workers.flat_map(Worker::all_processes).any(|id| is_running(&id))
    }

    fn is_member(&self, peer: Peer) -> bool {
        match peer {
            Peer::Nanny(nanny) => self.cluster.nannies.contains_key(&nanny),
            Peer::Process(process) => self.cluster.processes.contains_key(&process),
            Peer::Client(client) => self.clients.contains_key(&client),
        }
    }

    fn patience(&self, peer: Peer) -> Duration {
        let Peer::Client(client) = peer else { return SILENCE_FENCED };
        match self.clients.get(&client).map(|client| client.kind) {
            // As its process: it goes with that.
            Some(ClientKind::Program { nested_in: Some(_), .. }) => SILENCE_FENCED,
            _ => CLIENT_GRACE,
        }
    }
}
