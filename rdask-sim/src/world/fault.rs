//! What goes wrong.

use super::{Actor, Event, MS, SECOND, World, note};
use crate::link::{LEASE_NS, NEVER};
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
        self.quiet_at = self.quiet_at.max(self.now + lasts_ms * MS + LEASE_NS + 20 * SECOND);
        match what {
            What::KillProcess { node, worker, program } => {
                if let Some(process) = self.process_at(node, worker, program) {
                    self.deaths += 1;
                    self.kill_process(process, SECOND);
                }
            }
            What::FreezeProcess { node, worker, program, ms } => {
                if let Some(process) = self.process_at(node, worker, program) {
                    let until = until(ms);
                    let until = until.max(self.processes[process].frozen_until);
                    self.processes[process].frozen_until = until;
                    self.fall_silent(&[Actor::Process(process)], until, true);
                }
            }
            What::KillNanny { node, returns_ms } => {
                if node < self.nodes.len() {
                    self.nanny_ends(node, SECOND);
                    self.nanny_returns(node, returns_ms);
                }
            }
            What::CrashNode { node, returns_ms } => {
                if node < self.nodes.len() {
                    self.nanny_ends(node, LEASE_NS + SECOND);
                    self.nanny_returns(node, returns_ms);
                }
            }
            What::FreezeNode { node, ms } => {
                if node < self.nodes.len() {
                    let until = until(ms);
                    let until = until.max(self.nodes[node].frozen_until);
                    self.nodes[node].frozen_until = until;
                    let all = self.actors_on(node);
                    self.fall_silent(&all, until, true);
                }
            }
            What::FreezeNanny { node, ms } => {
                if node < self.nodes.len() {
                    let until = until(ms);
                    let until = until.max(self.nodes[node].nanny_frozen_until);
                    self.nodes[node].nanny_frozen_until = until;
                    let nanny = Actor::Nanny(node, self.nodes[node].age);
                    self.fall_silent(&[nanny], until, true);
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
                    let until = until(ms);
                    let mut all = vec![Actor::Process(process)];
                    all.extend(self.processes[process].nested.map(Actor::Client));
                    self.cut(&all, ways, until);
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
                    self.kill_client(client, SECOND);
                    self.client_returns(client);
                }
            }
            What::FreezeClient { client, ms } => {
                let until = until(ms);
                if let Some(client) = self.living(client) {
                    let until = until.max(self.clients[client].frozen_until);
                    self.clients[client].frozen_until = until;
                    self.fall_silent(&[Actor::Client(client)], until, true);
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
                self.scheduler.frozen_until = self.scheduler.frozen_until.max(until);
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

    fn links_of(&self, actor: Actor) -> Vec<usize> {
        let links = self.links.iter().enumerate();
        links.filter(|(_, link)| link.actor == actor).map(|(nth, _)| nth).collect()
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
        self.fall_silent(actors, until, false);
    }

    /// These don't answer until then. Past the lease their links end: at the scheduler's side, and
    /// at theirs when they can learn of it, be it by their own clocks.
    pub(super) fn fall_silent(&mut self, actors: &[Actor], until: u64, are_frozen: bool) {
        if until.saturating_sub(self.now) < LEASE_NS {
            return;
        }
        for actor in actors {
            for link in self.links_of(*actor) {
                if !self.links[link].scheduler_has {
                    continue;
                }
                let lost_at = self.now + LEASE_NS + self.dice.below(SECOND);
                self.push(lost_at, Event::SchedulerLosesLink(link));
                let by_itself = lost_at + self.dice.below(15 * SECOND);
                let told = until.saturating_add(1 + self.dice.below(20 * MS));
                let at =
                    if are_frozen { told.max(lost_at) } else { told.min(by_itself).max(lost_at) };
                if at < NEVER - SECOND {
                    self.push(at, Event::PeerLosesLink(link));
                }
            }
        }
    }
}

fn cut((up, down): (u64, u64), ways: Ways, until: u64) -> (u64, u64) {
    match ways {
        Ways::Both => (up.max(until), down.max(until)),
        Ways::Up => (up.max(until), down),
        Ways::Down => (up, down.max(until)),
    }
}
