//! The three phases: faults at will; then a core of the cluster is healed, the rest stays broken,
//! and everything must end; then everybody lets go, and nothing must be left.

use rdask_core::id::ProcessId;

use super::session::{PORT_CLOSED, SILENCE};
use super::{Actor, Event, MS, SECOND, World, note};
use crate::link::NEVER;
use crate::scenario::{Ways, What};

/// How long everything may take once the core is healed.
const LIVENESS: u64 = 20_000 * SECOND;

/// How long who leaves may wait for others.
const PATIENCE: u64 = 300 * SECOND;

/// How long until values have the holders that they should.
const SETTLED: u64 = 40 * SECOND;

/// How long it takes until what nobody wants any more is gone everywhere.
const REST: u64 = 45 * SECOND;

/// How long until programs that nobody needs are ended.
const IDLE: u64 = 120 * SECOND;

impl World {
    /// Runs the whole scenario.
    pub(crate) fn play(&mut self) {
        self.run_until(self.scenario.heal_ms * MS);
        // Until everybody has learned of what has gone wrong.
        self.run_until(self.quiet_at);
        let end = self.now + LIVENESS;
        if !self.wait_until_done(end) {
            return;
        }
        note!(self, "-- all programs are through; everything is looked at once more");
        let collector = self.collect();
        for client in 0..self.clients.len() {
            if self.is_at_work(client) {
                self.gather_all(client);
            }
        }
        if !self.wait_until_done(end) {
            return;
        }
        self.run_until(self.now + SETTLED);
        self.check_copies();
        note!(self, "-- rest");
        for client in 0..self.clients.len() {
            if self.is_at_work(client) || Some(client) == collector {
                self.release_all(client);
            }
        }
        // Bodies that don't look at their token go on for a while.
        let end = self.now + LIVENESS;
        while self.failure.is_none() && self.now < end && self.is_anything_running() {
            self.run_until(self.now + SECOND);
            self.check_stopped();
        }
        self.run_until(self.now + REST);
        self.check_rest();
        for client in 0..self.clients.len() {
            if self.clients[client].home.is_none() {
                self.kill_client(client, MS);
            }
        }
        self.run_until(self.now + IDLE);
        self.check_end();
        self.recount_at_end();
    }

    fn is_anything_running(&self) -> bool {
        let counts =
            |one: &super::process::Process| one.is_alive && self.scheduler.core.knows(one.id);
        self.processes.iter().any(|one| counts(one) && !one.core.is_idle())
    }

    fn recount_at_end(&mut self) {
        if self.failure.is_none() {
            self.recount();
        }
    }

    fn is_at_work(&self, client: usize) -> bool {
        let state = &self.clients[client];
        state.is_alive && state.spec.is_some() && state.core.is_some()
    }

    /// Whether a client is one that has to come to its end.
    fn counts(&self, client: usize) -> bool {
        let state = &self.clients[client];
        let is_stuck =
            state.frozen_until == NEVER || state.cut_until.0.max(state.cut_until.1) == NEVER;
        state.is_alive && state.home.is_none() && !is_stuck
    }

    fn wait_until_done(&mut self, end: u64) -> bool {
        loop {
            let waiting: Vec<usize> = (0..self.clients.len())
                .filter(|client| self.counts(*client) && !self.is_done(*client))
                .collect();
            if self.failure.is_some() {
                return false;
            }
            if waiting.is_empty() {
                return true;
            }
            if self.now >= end {
                let waits: Vec<String> = waiting.iter().map(|one| self.waits_for(*one)).collect();
                let status = self.scheduler.core.status();
                self.fail(format!("not over in time: {}; {status:?}", waits.join("; ")));
                return false;
            }
            if self.now > self.quiet_at + PATIENCE {
                self.end_stuck();
            }
            let pause = (self.now + SECOND).min(end);
            self.run_until(pause);
            self.check_stopped();
        }
    }

    /// A client that takes all that was left under a name.
    fn collect(&mut self) -> Option<usize> {
        let names: Vec<u32> =
            self.kept.iter().filter(|(_, kept)| kept.is_there).map(|(name, _)| *name).collect();
        if names.is_empty() {
            return None;
        }
        let collector = self.add_client(None, None);
        self.client_starts(collector);
        self.run_until(self.now + SECOND);
        if self.clients[collector].core.is_none() {
            self.fail("a new client is not welcomed within a second".to_owned());
            return None;
        }
        for name in names {
            self.attach(collector, name);
        }
        self.client_acts(collector);
        self.run_until(self.now + SECOND);
        Some(collector)
    }

    /// The core is healed. What is broken elsewhere stays so, and what isn't breaks.
    pub(super) fn heal(&mut self) {
        note!(self, "-- the core is healed, the rest is broken for good");
        self.is_healed = true;
        self.apart.clear();
        for node in 0..self.nodes.len() {
            if self.scenario.nodes[node].core {
                self.heal_node(node);
            } else {
                self.break_node(node);
            }
        }
        for client in 0..self.clients.len() {
            let (up, down) = self.clients[client].cut_until;
            let is_new = self.clients[client].core.is_none() && self.clients[client].link.is_none();
            if up.max(down) == NEVER && is_new {
                self.clients[client].cut_until = (0, 0);
            }
        }
    }

    fn heal_node(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        let (up, down) = state.cut_until;
        let is_stuck = state.frozen_until == NEVER
            || state.nanny_frozen_until == NEVER
            || up.max(down) == NEVER
            || !state.is_alive
            || state.is_leaving;
        state.launches_to_fail = 0;
        state.is_gone = false;
        if is_stuck {
            self.nanny_ends(node, SILENCE);
            let state = &mut self.nodes[node];
            (state.frozen_until, state.nanny_frozen_until, state.cut_until) = (0, 0, (0, 0));
            let age = state.age;
            self.push(self.now + 100 * MS, Event::NannyStarts(node, age));
        }
        // A process that stands still or is cut off for good doesn't get better by itself.
        let stuck: Vec<usize> = self.nodes[node]
            .processes
            .iter()
            .copied()
            .filter(|process| {
                let process = &self.processes[*process];
                let (up, down) = process.cut_until;
                process.frozen_until.max(up).max(down) == NEVER
            })
            .collect();
        for process in stuck {
            self.kill_process(process, PORT_CLOSED);
        }
    }

    fn break_node(&mut self, node: usize) {
        let what = match crate::dice::mix(self.scenario.seed ^ node as u64) % 6 {
            0 => What::CrashNode { node, returns_ms: None },
            1 => What::FreezeNode { node, ms: None },
            2 => What::CutNode { node, ways: Ways::Both, ms: None },
            3 => What::CutNode { node, ways: Ways::Up, ms: None },
            4 => What::CutNode { node, ways: Ways::Down, ms: None },
            _ => What::KillNanny { node, returns_ms: None },
        };
        note!(self, "!! {what:?}");
        let fault = crate::scenario::Fault { at_ms: 0, what };
        self.scenario.faults.push(fault);
        self.is_healed = false;
        self.strike(self.scenario.faults.len() - 1);
        self.is_healed = true;
        self.nodes[node].is_gone = true;
    }

    /// Nobody has a handle: no task is known, and no value is anywhere.
    fn check_rest(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let status = self.scheduler.core.status();
        let tasks = status.waiting + status.ready + status.assigned + status.done + status.failed;
        if tasks > 0 || status.result_bytes > 0 {
            self.fail(format!("tasks are left that nobody wants: {status:?}"));
            return;
        }
        let full: Vec<ProcessId> = self
            .processes
            .iter()
            .filter(|one| one.is_alive && !one.store.is_empty())
            .filter(|one| self.scheduler.core.knows(one.id))
            .map(|one| one.id)
            .collect();
        if let Some(id) = full.first() {
            let store = &self.processes[self.by_id[id]].store;
            self.fail(format!("{id} keeps values that nobody wants: {store:?}"));
        }
        self.check_gone();
    }

    /// Nobody is there any more: no process, no timer.
    fn check_end(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let alive: Vec<ProcessId> = self
            .processes
            .iter()
            .enumerate()
            .filter(|(nth, one)| {
                let (up, down) = self.stalls_of(Actor::Process(*nth));
                let can_hear =
                    self.actor_awake_at(Actor::Process(*nth)) < NEVER && up.max(down) < NEVER;
                one.is_alive && can_hear
            })
            .map(|(_, one)| one.id)
            .collect();
        if !alive.is_empty() {
            self.fail(format!("processes of programs that nobody needs live: {alive:?}"));
        } else if let Some(at) = self.scheduler.core.poll_timeout() {
            self.fail(format!("the scheduler still waits for {at:?}"));
        } else if self.scheduler.core.idle_since().is_none() {
            self.fail("the scheduler does not know that it is idle".to_owned());
        }
    }
}
