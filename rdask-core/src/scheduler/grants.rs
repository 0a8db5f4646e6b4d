//! POLICY: how the programs at work in a worker share its slots.
//!
//! A slot that is taken from a process is free only when the process says so, at a task's end.
//! Programs with work share equally, by the number of their clients with work; who has none lends
//! its slots to the others.

use std::collections::BTreeMap;

use crate::id::{ProcessId, ProgramHash, WorkerId};
use crate::message::ToProcess;

use super::Scheduler;
use super::cluster::{Stage, Worker};

/// What a program asks of every worker.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    clients: u32,
    has_ready: bool,
    /// What the one of its clients that has used least has used, in turns.
    turns: u64,
}

/// What a process of a worker may claim of its slots.
#[derive(Clone, Copy, Debug)]
struct Claim {
    process: ProcessId,
    weight: u32,
    turns: u64,
}

/// Slots that can't be divided go to whoever has had least of them, counted in turns of this
/// length, so that they don't change hands all the time.
const TURN_NS: u64 = 100_000_000;

impl Scheduler {
    /// Grants workers' slots anew where the demand has changed. A worker with one process that has
    /// them all is left alone until something happens there.
    pub(crate) fn share_slots(&mut self) {
        if self.contested.is_empty() {
            return;
        }
        let demand = self.demand();
        for worker in std::mem::take(&mut self.contested) {
            self.share_slots_of(worker, &demand);
            if self.is_contested(worker) {
                self.contested.insert(worker);
            }
        }
    }

    /// Whether it depends on more than the worker itself who has its slots.
    pub(crate) fn is_contested(&self, id: WorkerId) -> bool {
        let Some(worker) = self.cluster.workers.get(&id) else {
            return false;
        };
        let has_all = |process: &ProcessId| {
            self.cluster.processes.get(process).is_some_and(|one| {
                let slots = worker.info.slots;
                one.stage == Stage::Launching || (one.granted, one.occupied) == (slots, slots)
            })
        };
        worker.processes.len() > 1
            || !worker.alone.is_empty()
            || !worker.processes.values().all(has_all)
    }

    /// For each program with clients at work: how many, and whether some of it could start now.
    fn demand(&self) -> BTreeMap<ProgramHash, Demand> {
        let mut demand: BTreeMap<ProgramHash, Demand> = BTreeMap::new();
        for share in self.shares.values().filter(|share| share.groups > 0) {
            let entry = demand.entry(share.program).or_default();
            let turns = share.used_ns / TURN_NS;
            entry.turns = if entry.clients == 0 { turns } else { entry.turns.min(turns) };
            entry.clients += 1;
            entry.has_ready |= share.has_ready();
        }
        for (hash, entry) in demand.iter_mut().filter(|(_, entry)| !entry.has_ready) {
            let of_program = (*hash, ProcessId(0))..=(*hash, ProcessId(u32::MAX));
            entry.has_ready = self.tied.range(of_program).next().is_some();
        }
        demand
    }

    fn share_slots_of(&mut self, id: WorkerId, demand: &BTreeMap<ProgramHash, Demand>) {
        let Some(worker) = self.cluster.workers.get(&id) else {
            return;
        };
        let slots = worker.info.slots;
        let mut idle: Vec<Claim> = Vec::new();
        let mut running: Vec<Claim> = Vec::with_capacity(worker.processes.len());
        for (program, process) in &worker.processes {
            let Some(record) = self.cluster.processes.get(process) else {
                continue;
            };
            if record.stage == Stage::Running {
                let demand = demand.get(program).copied().unwrap_or_default();
                let has_work = record.demand > 0 || demand.has_ready;
                let weight = if has_work { demand.clients.max(1) } else { 0 };
                running.push(Claim { process: *process, weight, turns: demand.turns });
                idle.push(Claim { weight: demand.clients, ..running[running.len() - 1] });
            }
        }
        // Where nobody has work, those at work elsewhere get the slots: they may steal it.
        if running.iter().all(|claim| claim.weight == 0) {
            running = idle;
        }
        // Nor may those keep them all of whom a suspect needs one.
        if !worker.alone.is_empty() && running.iter().all(|claim| claim.weight == 0) {
            running.iter_mut().for_each(|claim| claim.weight = 1);
        }
        let alone: Vec<(ProcessId, u32)> = self.targets_alone(worker);
        let wanted: u32 = alone.iter().map(|(_, target)| target).sum();
        let mut targets = divide(slots.saturating_sub(wanted), &running);
        targets.splice(0..0, alone);
        for (process, target) in &targets {
            self.set_slots(*process, *target, true);
        }
        let Some(worker) = self.cluster.workers.get(&id) else { return };
        let all = worker.all_processes().filter_map(|id| self.cluster.processes.get(&id));
        let occupied: u32 = all.map(|process| process.occupied).sum();
        let mut free = slots.saturating_sub(occupied);
        for (process, target) in targets {
            let Some(record) = self.cluster.processes.get(&process) else {
                continue;
            };
            let more = target.saturating_sub(record.occupied).min(free);
            if more > 0 && record.granted == record.occupied {
                free -= more;
                self.set_slots(process, record.granted + more, false);
            }
        }
    }

    /// Slots for suspects that run alone go before what is shared.
    fn targets_alone(&self, worker: &Worker) -> Vec<(ProcessId, u32)> {
        let running = worker.alone.iter().filter(|id| {
            self.cluster.processes.get(id).is_some_and(|one| one.stage == Stage::Running)
        });
        running.map(|id| (*id, self.slots_alone(*id))).collect()
    }

    fn set_slots(&mut self, id: ProcessId, slots: u32, only_less: bool) {
        let Some(process) = self.cluster.processes.get_mut(&id) else {
            return;
        };
        let is_change = if only_less { slots < process.granted } else { slots != process.granted };
        if !is_change {
            return;
        }
        if process.alone_for.is_none() {
            self.programs.granted(process.program, process.granted, slots);
        }
        process.granted = slots;
        process.occupied = process.occupied.max(slots);
        self.open.insert(id);
        self.laden.insert(id);
        self.send_process(id, ToProcess::SetSlots { slots });
    }

    /// A process confirms that it uses no more than it was granted.
    pub(crate) fn slots_freed(&mut self, id: ProcessId, slots: u32) {
        if let Some(process) = self.cluster.processes.get_mut(&id)
            && process.granted == slots
        {
            process.occupied = slots;
            self.contested.insert(process.worker);
        }
    }
}

/// Divides `slots` by weight. Without any weight everything stays as it is.
fn divide(slots: u32, claims: &[Claim]) -> Vec<(ProcessId, u32)> {
    let total: u64 = claims.iter().map(|claim| u64::from(claim.weight)).sum();
    if total == 0 {
        return Vec::new();
    }
    let mut left = slots;
    let mut targets: Vec<(ProcessId, u32)> = claims
        .iter()
        .map(|claim| {
            let part = (u64::from(slots) * u64::from(claim.weight) / total) as u32;
            left -= part;
            (claim.process, part)
        })
        .collect();
    let mut order: Vec<usize> = (0..claims.len()).filter(|nth| claims[*nth].weight > 0).collect();
    order.sort_by_key(|nth| (targets[*nth].1, claims[*nth].turns, targets[*nth].0));
    for nth in order.into_iter().cycle().take(left as usize) {
        targets[nth].1 += 1;
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(slots: u32, claims: &[(u32, u64)], expected: &[u32]) {
        let claims: Vec<Claim> = claims
            .iter()
            .zip(0..)
            .map(|((weight, turns), id)| Claim {
                process: ProcessId(id),
                weight: *weight,
                turns: *turns,
            })
            .collect();
        let targets: Vec<u32> = divide(slots, &claims).into_iter().map(|(_, part)| part).collect();
        assert_eq!(targets, expected);
    }

    #[test]
    fn slots_follow_weights() {
        check(4, &[(1, 0)], &[4]);
        check(4, &[(1, 0), (1, 0)], &[2, 2]);
        check(4, &[(0, 0), (1, 0)], &[0, 4]);
        check(5, &[(1, 0), (1, 0)], &[3, 2]);
        check(8, &[(3, 0), (1, 0)], &[6, 2]);
        check(4, &[(0, 0), (0, 0)], &[]);
    }

    #[test]
    fn more_programs_than_slots_take_turns() {
        check(2, &[(1, 0), (1, 0), (1, 0)], &[1, 1, 0]);
        check(2, &[(1, 1), (1, 0), (1, 0)], &[0, 1, 1]);
        check(2, &[(1, 1), (1, 1), (1, 0)], &[1, 0, 1]);
    }
}
