//! POLICY: how the programs at work in a worker share its slots.
//!
//! A slot that is taken from a process is free only when the process says so, at a task's end.
//! Programs with work share equally, by the number of their clients with work; who has none lends
//! its slots to the others. Where a task wants more slots than its program's part, they take turns.

use std::collections::BTreeMap;

use crate::id::{AssignmentId, ProcessId, ProgramHash, WorkerId};
use crate::message::ToProcess;

use super::Scheduler;
use super::cluster::{Stage, Worker};
use super::placement::Pick;

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
    /// How many slots it needs to start anything at all, if there is something and nothing runs.
    least: u32,
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
                let (process, turns) = (*process, demand.turns);
                running.push(Claim { process, weight, turns, least: 0 });
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
        if running.len() > 1 {
            for claim in &mut running {
                claim.least = self.least_slots(worker, claim.process);
            }
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

    /// Slots for suspects that run alone go before what is shared. Those that wait for nested tasks
    /// come last: what they wait for may be a suspect, too.
    fn targets_alone(&self, worker: &Worker) -> Vec<(ProcessId, u32)> {
        let running = worker.alone.iter().filter(|id| {
            self.cluster.processes.get(id).is_some_and(|one| one.stage == Stage::Running)
        });
        let mut order: Vec<ProcessId> = running.copied().collect();
        order.sort_by_key(|id| self.is_parked(*id));
        let mut left = worker.info.slots;
        let targets = order.into_iter().map(|id| {
            let target = if self.lends_slots(id) { 0 } else { self.slots_alone(id) };
            let target = if target <= left { target } else { 0 };
            left -= target;
            (id, target)
        });
        targets.collect()
    }

    /// How many slots an idle process needs for what is next for it. What wants fewer and comes later
    /// waits for that, or what is wide would never have its turn.
    fn least_slots(&self, worker: &Worker, id: ProcessId) -> u32 {
        let is_idle = self.cluster.processes.get(&id).is_some_and(|one| one.demand == 0);
        let Some(pick) = self.pick(id).filter(|_| is_idle) else { return 0 };
        let gid = match pick {
            Pick::Central { gid } => gid,
            Pick::Local { key } => key.group,
        };
        let Some(group) = self.groups.get(gid) else { return 0 };
        let first = match pick {
            Pick::Central { .. } => group.ready.first(),
            Pick::Local { key } => {
                let local = self.cluster.processes.get(&id).map(|process| &process.local_ready);
                local.and_then(|local| local.get(&key)?.first())
            }
        };
        let Some(first) = first else { return 0 };
        let requirement = self.classes.get(group.class(first.start));
        if worker.suits(requirement) { u32::from(requirement.threads) } else { 0 }
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
        let is_less = only_less && !process.assignments.is_empty();
        self.open.insert(id);
        self.laden.insert(id);
        self.send_process(id, ToProcess::SetSlots { slots });
        if is_less {
            self.take_back_wide(id, slots);
        }
    }

    /// Asks back what can't start any more with so few slots: it may hold what others wait for.
    fn take_back_wide(&mut self, id: ProcessId, slots: u32) {
        let Some(process) = self.cluster.processes.get(&id) else { return };
        let is_wide = |assignment: &&AssignmentId| {
            let threads = self.assignments.get(assignment).map_or(0, |one| one.threads);
            threads > 1 && u32::from(threads) > slots
        };
        let wide: Vec<AssignmentId> = process.assignments.iter().filter(is_wide).copied().collect();
        wide.into_iter().for_each(|assignment| self.take_back(id, assignment));
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
    let is_short = |(claim, (_, part)): (&Claim, &(ProcessId, u32))| {
        claim.weight > 0 && *part < claim.least && claim.least <= slots
    };
    if claims.iter().zip(&targets).any(is_short) { in_turns(slots, claims) } else { targets }
}

/// Gives those who have used least what they need, as far as it goes; the first of them the rest.
fn in_turns(slots: u32, claims: &[Claim]) -> Vec<(ProcessId, u32)> {
    let mut left = slots;
    let mut targets: Vec<(ProcessId, u32)> =
        claims.iter().map(|claim| (claim.process, 0)).collect();
    let mut order: Vec<usize> = (0..claims.len()).filter(|nth| claims[*nth].weight > 0).collect();
    order.sort_by_key(|nth| (claims[*nth].turns, claims[*nth].process));
    for nth in &order {
        if claims[*nth].least <= left {
            targets[*nth].1 = claims[*nth].least;
            left -= claims[*nth].least;
        }
    }
    let first = order.iter().find(|nth| targets[**nth].1 > 0);
    if let Some(first) = first {
        targets[*first].1 += left;
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(slots: u32, claims: &[(u32, u64)], expected: &[u32]) {
        let claims: Vec<(u32, u64, u32)> =
            claims.iter().map(|(weight, turns)| (*weight, *turns, 0)).collect();
        check_least(slots, &claims, expected);
    }

    fn check_least(slots: u32, claims: &[(u32, u64, u32)], expected: &[u32]) {
        let claims: Vec<Claim> = claims
            .iter()
            .zip(0..)
            .map(|((weight, turns, least), id)| Claim {
                process: ProcessId(id),
                weight: *weight,
                turns: *turns,
                least: *least,
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
    #[test]
    fn programs_whose_tasks_want_more_than_their_part_take_turns() {
        check_least(2, &[(1, 0, 2), (1, 0, 2)], &[2, 0]);
        check_least(2, &[(1, 1, 2), (1, 0, 2)], &[0, 2]);
        check_least(2, &[(1, 1, 2), (1, 0, 1)], &[0, 2]);
        check_least(4, &[(1, 0, 3), (1, 0, 1)], &[3, 1]);
        check_least(4, &[(1, 0, 2), (1, 0, 2)], &[2, 2]);
        // What fits no worker's slots holds nobody up, nor does who can start nothing.
        check_least(2, &[(1, 0, 3), (1, 0, 1)], &[1, 1]);
        check_least(2, &[(1, 0, 0), (1, 1, 2)], &[0, 2]);
    }
}
