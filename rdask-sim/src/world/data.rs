//! Values on their way between processes and clients. They come, fail, or come late.

use std::time::Duration;

use rdask_core::id::{AssignmentId, ProcessId};
use rdask_core::message::FETCH_TIME;
use rdask_core::process::ValueId;

use super::process::bytes_of;
use super::{Actor, Event, MS, SECOND, US, World, note};
use crate::link::NEVER;

/// What processes tell of each fetch: a megabyte, at a gigabyte per second.
const BYTES: u64 = 1_000_000;
const TIME: Duration = Duration::from_millis(1);

/// How long who asks waits for an answer.
const PATIENCE: u64 = 30 * SECOND;

#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) asker: Actor,
    holder: ProcessId,
    value: ValueId,
    what: Kind,
    begun: u64,
    got: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Get,
    Put(AssignmentId, u64, u64),
}

impl World {
    pub(super) fn start_get(&mut self, asker: Actor, value: ValueId, holder: ProcessId) {
        self.start_transfer(asker, value, holder, Kind::Get);
    }

    pub(super) fn start_put(
        &mut self,
        asker: Actor,
        value: ValueId,
        holder: ProcessId,
        put: (AssignmentId, u64, u64),
    ) {
        self.holders.put(value.task, holder);
        self.puts.insert(value.task);
        self.start_transfer(asker, value, holder, Kind::Put(put.0, put.1, put.2));
    }

    fn start_transfer(&mut self, asker: Actor, value: ValueId, holder: ProcessId, what: Kind) {
        let number = self.transfers.len();
        let begun = self.now;
        self.transfers.push(Transfer { asker, holder, value, what, begun, got: None });
        let percent = self.scenario.network.fetch_fails_percent;
        if self.dice.chance(percent) {
            let at = self.now + *self.dice.pick(&[100 * US, SECOND, PATIENCE]);
            self.push(at, Event::TransferEnds(number));
            return;
        }
        let Some(holder) = self.by_id.get(&holder).copied() else {
            self.push(self.now + MS, Event::TransferEnds(number));
            return;
        };
        let apart = match asker {
            Actor::Process(asker) => {
                self.apart_until(self.processes[asker].node, self.processes[holder].node)
            }
            _ => {
                let (up, down) = self.nodes[self.processes[holder].node].cut_until;
                up.max(down)
            }
        };
        let at = self.now.max(apart).saturating_add(self.delay());
        if apart == NEVER || at > self.now + PATIENCE {
            self.push(self.now + PATIENCE, Event::TransferEnds(number));
        } else {
            self.push(at, Event::TransferArrives(number));
        }
    }

    pub(super) fn transfer_arrives(&mut self, number: usize) {
        let Transfer { holder: id, value, what, begun, .. } = self.transfers[number];
        let holder = self.by_id[&id];
        // Nobody is known by the number that it had before it was given up.
        if !self.processes[holder].is_alive || self.processes[holder].works_as() != id {
            let at = self.now + *self.dice.pick(&[MS, MS, SECOND, PATIENCE]);
            self.push(at.min(begun + PATIENCE), Event::TransferEnds(number));
            return;
        }
        let awake = self.actor_awake_at(Actor::Process(holder));
        if awake > self.now {
            let is_late = awake > begun + PATIENCE;
            let (at, event) = if is_late {
                (begun + PATIENCE, Event::TransferEnds(number))
            } else {
                (awake, Event::TransferArrives(number))
            };
            self.push(at, event);
            return;
        }
        let mut at = self.now + self.delay();
        match what {
            Kind::Get => {
                self.transfers[number].got = self.processes[holder].store.get(&value).copied();
                // Some values are large.
                if self.dice.chance(10) {
                    at += self.dice.below(100 * MS);
                }
            }
            Kind::Put(assignment, bytes, size) => {
                let now = self.time();
                self.processes[holder].store.entry(value).or_insert(bytes);
                self.processes[holder].core.handle_put(now, value.task, assignment, size);
                self.process_acts(holder);
                // The answer may be lost although the value was taken.
                let percent = self.scenario.network.fetch_fails_percent;
                let is_told = !self.dice.chance(percent);
                self.transfers[number].got = is_told.then_some(bytes);
            }
        }
        self.push(at, Event::TransferEnds(number));
    }

    pub(super) fn transfer_ends(&mut self, number: usize) {
        let Transfer { asker, holder, value, what, got, .. } = self.transfers[number];
        if !self.is_alive(asker) {
            return;
        }
        note!(self, "{asker:?} gets {value:?} from {holder}: {got:?} ({what:?})");
        let now = self.time();
        let there = self.by_id.get(&holder).map(|index| &self.processes[*index]);
        let there = there.filter(|it| it.is_alive && it.works_as() == holder);
        let denied = there.is_some_and(|it| !it.store.contains_key(&value));
        if got.is_none() {
            self.missed.insert(value.task);
        }
        match (asker, what) {
            (Actor::Process(process), Kind::Get) => {
                let state = &mut self.processes[process];
                match got {
                    Some(bytes) => {
                        state.store.entry(value).or_insert(bytes);
                        state.core.handle_fetched(now, value, BYTES, FETCH_TIME + TIME);
                    }
                    None => state.core.handle_fetch_failed(now, value, holder, denied),
                }
            }
            (Actor::Client(client), what) => {
                let Some(core) = &mut self.clients[client].core else { return };
                match (what, got) {
                    (Kind::Get, Some(bytes)) => {
                        core.handle_fetched(now, value.task, bytes_of(bytes));
                    }
                    (Kind::Get, None) => core.handle_fetch_failed(now, value.task, holder, denied),
                    (Kind::Put(..), Some(_)) => core.handle_put(now, value.task),
                    (Kind::Put(assignment, ..), None) => {
                        core.handle_put_failed(now, assignment, "it failed".to_owned());
                    }
                }
            }
            _ => {}
        }
        self.peer_acts(asker);
    }
}
