//! What goes wrong.

use rdask_core::scheduler::CLIENT_GRACE;

use super::session::{PORT_CLOSED, SILENCE};
use super::{Actor, Event, MS, SECOND, World, note};
use crate::link::NEVER;
use crate::scenario::{Ways, What};

impl World {
    pub(super) fn strike(&mut self, fault: usize) {
        let what = self.scenario.faults[fault].what;
        if self.is_healed {
            return;
        }
        note!(self, "!! {what:?}");
        let until = |ms: Option<u64>| ms.map_or(NEVER, |ms| self.now + ms * MS);
        let lasts_ms = what.lasts_ms();
        let known = CLIENT_GRACE.as_nanos() as u64 + 20 * SECOND;
        self.quiet_at = self.quiet_at.max(self.now + lasts_ms * MS + known);
        match what {
            What::KillProcess { node, worker, program } => {
                if let Some(process) = self.process_at(node, worker, program) {
                    self.processes[process].is_struck = true;
                    self.kill_process(process, PORT_CLOSED);
                }
            }
            What::FreezeProcess { node, worker, program, ms } => {
                if let Some(process) = self.process_at(node, worker, program) {
                    let until = until(ms);
                    let until = until.max(self.processes[process].frozen_until);
                    self.processes[process].frozen_until = until;
                    self.fall_silent(&[Actor::Process(process)], until);
                }
            }
            What::KillNanny { node, returns_ms } => {
                if node < self.nodes.len() {
                    self.nanny_ends(node, PORT_CLOSED);
                    self.nanny_returns(node, returns_ms);
                }
            }
            What::CrashNode { node, returns_ms } => {
                if node < self.nodes.len() {
                    self.nanny_ends(node, SILENCE);
                    self.nanny_returns(node, returns_ms);
                }
            }
            What::FreezeNode { node, ms } => {
                if node < self.nodes.len() {
                    let until = until(ms);
                    let until = until.max(self.nodes[node].frozen_until);
                    self.nodes[node].frozen_until = until;
                    let all = self.actors_on(node);
                    self.fall_silent(&all, until);
                }
            }
            What::FreezeNanny { node, ms } => {
                if node < self.nodes.len() {
                    let until = until(ms);
                    let until = until.max(self.nodes[node].nanny_frozen_until);
                    self.nodes[node].nanny_frozen_until = until;
                    let nanny = Actor::Nanny(node, self.nodes[node].age);
                    self.fall_silent(&[nanny], until);
                }
            }
            What::Notice { node, grace_ms, returns_ms } => {
                if node < self.nodes.len() {
                    self.give_notice(node, grace_ms);
                    let grace = returns_ms.map(|ms| ms + grace_ms + 1);
                    // The next one is started once this one is gone.
                    if let Some(ms) = grace {
                        let age = self.nodes[node].age + 1;
                        self.push(self.now + ms * MS, Event::NannyStarts(node, age));
                    }
                }
            }
            What::CutNode { node, ways, ms } => {
                if node < self.nodes.len() {
                    let until = until(ms);
                    self.nodes[node].cut_until = cut(self.nodes[node].cut_until, ways, until);
                    let all = self.actors_on(node);
                    self.cut(&all, ways, until);
                }
            }
            What::CutProcess { node, worker, program, ways, ms } => {
                if let Some(process) = self.process_at(node, worker, program) {
                    self.cut_process(process, ways, until(ms));
                }
            }
            What::CutPair { one, other, ms } => {
                let until = until(ms);
                self.apart.push((one, other, until));
            }
            What::SlowNode { node, delay_ms, ms } => {
                if node < self.nodes.len() {
                    let slow = (delay_ms * MS, self.now + ms * MS);
                    for actor in self.actors_on(node) {
                        for link in self.links_of(actor) {
                            self.links[link].up.slow = slow;
                            self.links[link].down.slow = slow;
                        }
                    }
                }
            }
            What::LaunchesFail { node, count } => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.launches_to_fail += count;
                }
            }
            What::KillClient { client } => {
                if let Some(client) = self.living(client) {
                    self.kill_client(client, PORT_CLOSED);
                    self.client_returns(client);
                }
            }
            What::FreezeClient { client, ms } => {
                let until = until(ms);
                if let Some(client) = self.living(client) {
                    let until = until.max(self.clients[client].frozen_until);
                    self.clients[client].frozen_until = until;
                    self.fall_silent(&[Actor::Client(client)], until);
                }
            }
            What::CutClient { client, ways, ms } => {
                let until = until(ms);
                if let Some(client) = self.living(client) {
                    self.clients[client].cut_until =
                        cut(self.clients[client].cut_until, ways, until);
                    self.cut(&[Actor::Client(client)], ways, until);
                }
            }
            What::FreezeScheduler { ms } => {
                let until = self.now + ms * MS;
                self.scheduler_stands_still(until);
            }
            What::Retire { who, returns_ms } => self.retire(who, returns_ms),
            What::Lifetime { node, ms, returns_ms } => {
                if node < self.nodes.len() {
                    self.lifetime_ends(node, ms, returns_ms);
                }
            }
            What::JobEnds { pool, ms, is_known, returns_ms } => {
                self.job_ends(pool, ms, is_known, returns_ms);
            }
            What::ResetNode { node, ms } => {
                if node < self.nodes.len() {
                    let all = self.actors_on(node);
                    self.reset(&all);
                    let until = self.now + ms * MS;
                    self.nodes[node].cut_until = cut(self.nodes[node].cut_until, Ways::Both, until);
                    self.cut(&all, Ways::Both, until);
                }
            }
            What::ResetProcess { node, worker, program, ms } => {
                if let Some(process) = self.process_at(node, worker, program) {
                    self.reset(&[Actor::Process(process)]);
                    self.cut_process(process, Ways::Both, self.now + ms * MS);
                }
            }
            What::ResetClient { client, ms } => {
                if let Some(client) = self.living(client) {
                    self.reset(&[Actor::Client(client)]);
                    let until = self.now + ms * MS;
                    let known = self.clients[client].cut_until;
                    self.clients[client].cut_until = cut(known, Ways::Both, until);
                    self.cut(&[Actor::Client(client)], Ways::Both, until);
                }
            }
        }
    }

    fn process_at(&self, node: usize, worker: usize, program: u8) -> Option<usize> {
        let node = self.nodes.get(node)?;
        node.processes.iter().copied().find(|process| {
            let process = &self.processes[*process];
            process.is_alive && (process.worker, process.program) == (worker, program)
        })
    }

    /// The client of the scenario's `spec` that lives now.
    fn living(&self, spec: usize) -> Option<usize> {
        self.clients.iter().rposition(|one| one.is_alive && one.spec == Some(spec))
    }

    pub(super) fn actors_on(&self, node: usize) -> Vec<Actor> {
        let mut actors = vec![Actor::Nanny(node, self.nodes[node].age)];
        for process in &self.nodes[node].processes {
            actors.push(Actor::Process(*process));
            actors.extend(self.processes[*process].nested.map(Actor::Client));
        }
        actors
    }

    /// Nothing gets through in these directions.
    fn cut(&mut self, actors: &[Actor], ways: Ways, until: u64) {
        for actor in actors {
            for link in self.links_of(*actor) {
                let link = &mut self.links[link];
                let stalls = (link.up.stalled_until, link.down.stalled_until);
                (link.up.stalled_until, link.down.stalled_until) = cut(stalls, ways, until);
            }
        }
        self.fall_silent(actors, until);
    }

    fn cut_process(&mut self, process: usize, ways: Ways, until: u64) {
        let mut all = vec![Actor::Process(process)];
        all.extend(self.processes[process].nested.map(Actor::Client));
        self.processes[process].cut_until = cut(self.processes[process].cut_until, ways, until);
        self.cut(&all, ways, until);
    }
}

fn cut((up, down): (u64, u64), ways: Ways, until: u64) -> (u64, u64) {
    match ways {
        Ways::Both => (up.max(until), down.max(until)),
        Ways::Up => (up.max(until), down),
        Ways::Down => (up, down.max(until)),
    }
}
