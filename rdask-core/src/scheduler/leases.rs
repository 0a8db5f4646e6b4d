//! A broken link is no lost member: who comes back in time goes on as if nothing had been.
//!
//! From the break on a peer has a lease. Nothing new is given to it meanwhile, and nothing is taken
//! from it. When the lease ends it is fenced: its number means nothing any more. No lease ends in a
//! time when the scheduler itself stood still, since it heard nobody then.

use std::time::Duration;

use crate::id::{NannyId, Peer, ProcessId};
use crate::time::Time;

use super::clients::ClientKind;
use super::cluster::Worker;
use super::offers::RETURN_AWAITED;
use super::{Action, Scheduler};

/// A nanny or process that has not been heard for so long is given up.
pub const SILENCE_FENCED: Duration = Duration::from_secs(5);

/// A client is given up after so long without a link: nobody else can make again what it waits for.
pub const CLIENT_GRACE: Duration = Duration::from_secs(30);

/// After a time in which the scheduler stood still peers have so long to come back.
const AFTER_STALL: Duration = Duration::from_secs(10);

/// A nanny whose processes were not given up is looked at again after so long.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
        for peer in ended.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            match peer {
                Peer::Client(client) => {
                    tracing::warn!(%client, "gave a client up: {SILENT}");
                    self.lose_client(client);
                    self.actions.push_back(Action::Close(peer, SILENT.to_owned()));
                }
                Peer::Process(process) => self.end_process_lease(process),
                Peer::Nanny(nanny) => self.end_nanny_lease(nanny),
            }
        }
    }

    /// A process is given up with its node, if all of that is silent: so it may come back with its
    /// nanny. One whose nanny is in touch, or heard of others, is ended.
    fn end_process_lease(&mut self, process: ProcessId) {
        let nanny = self.cluster.processes.get(&process).map(|process| process.nanny);
        let Some(nanny) = nanny else { return };
        match self.node_lease(nanny) {
            Some(end) if end > self.now => drop(self.leases.insert(Peer::Process(process), end)),
            Some(_) => self.give_node_up(nanny),
            None => self.lose_process(process, SILENT),
        }
    }

    /// A nanny is not given up as long as a process of its is not: its node may live.
    fn end_nanny_lease(&mut self, nanny: NannyId) {
        if !self.cluster.nannies.contains_key(&nanny) {
            return;
        }
        match self.node_lease(nanny) {
            Some(end) if end > self.now => drop(self.leases.insert(Peer::Nanny(nanny), end)),
            Some(_) => self.give_node_up(nanny),
            None => drop(self.leases.insert(Peer::Nanny(nanny), self.now + LOOK_AGAIN)),
        }
    }

    /// When a nanny and all of its processes will have been silent for long enough, if they are.
    fn node_lease(&self, nanny: NannyId) -> Option<Time> {
        let mut end = *self.leases.get(&Peer::Nanny(nanny))?;
        let workers = self.cluster.nannies.get(&nanny)?.workers.iter();
        for id in
            workers.filter_map(|id| self.cluster.workers.get(id)).flat_map(Worker::all_processes)
        {
            let process = self.cluster.processes.get(&id)?;
            if process.stage.is_registered() {
                end = end.max(*self.leases.get(&Peer::Process(id))?);
            }
        }
        Some(end)
    }

    fn give_node_up(&mut self, nanny: NannyId) {
        self.awaited.until = Some(self.now + RETURN_AWAITED);
        self.lose_nanny(nanny, SILENT);
        self.awaited.until = None;
        self.actions.push_back(Action::Close(Peer::Nanny(nanny), SILENT.to_owned()));
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
