//! Why a task isn't running, as the decisions themselves see it: each reason is the condition that
//! placement looks at, asked again.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::{Peer, ProcessId, ProgramHash, TaskId};
use crate::message::{
    Explanation, InputState, Lack, Moving, NAMED_MAX, ProgramState, TaskOptions, Why,
};
use crate::range::Range;

use super::Scheduler;
use super::cluster::{Process, Stage, Worker};
use super::group::{Gid, Group, Holding, State};
use super::placement::Pick;
use super::ready::Requirement;
use super::stealing::Asked;

impl Scheduler {
    /// How it is with a task. Costs time in proportion to arrays, workers and its inputs.
    #[must_use]
    pub fn explain(&self, task: TaskId) -> Explanation {
        let gid = self.groups.find(task.array);
        let found = gid.and_then(|gid| Some((gid, self.groups.get(gid)?)));
        let Some((gid, group)) = found.filter(|(_, group)| task.index < group.len) else {
            return Explanation { task, function: String::new(), run: 1, why: Why::Unknown };
        };
        let shape = group.shape(task.index);
        let function = shape.map_or(String::new(), |info| {
            info.shape.options.name.clone().unwrap_or_else(|| info.shape.name.clone())
        });
        let why = match group.state.get(task.index) {
            State::Done => Why::Done { holders: holders(group, task.index) },
            State::Failed => match group.failures.get(task.index) {
                Some(failure) => Why::Failed((**failure).clone()),
                None => Why::Unknown,
            },
            State::Dropped => Why::Released,
            State::Waiting(_) => self.why_waiting(gid, group, task.index),
            State::Ready(tied) => self.why_ready(gid, group, task.index, tied),
            State::Assigned(assignment) => self.why_assigned(assignment, task.index),
        };
        Explanation { task, function, run: group.run(task.index), why }
    }

    fn why_waiting(&self, gid: Gid, group: &Group, index: u32) -> Why {
        let mut seen: BTreeSet<TaskId> = BTreeSet::new();
        let mut first = Vec::new();
        let mut note = |task: TaskId, state: InputState| {
            if seen.insert(task) && first.len() < NAMED_MAX {
                first.push((task, state));
            }
        };
        self.for_each_input(gid, index, &mut |upstream, input, _| {
            if !upstream.available.contains(input) {
                note(upstream.task(input), input_state(upstream, input));
            }
        });
        if !seen.is_empty() {
            return Why::Inputs { missing: seen.len() as u64, first };
        }
        if let Some(until) = self.awaited.get((gid, index)) {
            return Why::Away { left: until.since(self.now) };
        }
        if self.blame.holds((gid, index)) {
            // Also who runs alone needs a worker to run in.
            if let Some(why) = self.why_nowhere(group, index) {
                return why;
            }
            let deaths = group.deaths.get(&index).map_or(0, |deaths| deaths.len() as u32);
            return Why::Suspected { deaths };
        }
        let delayed = self.delayed.iter().find(|(_, of, at)| (*of, *at) == (gid, index));
        match delayed {
            Some((time, ..)) => Why::Delay { left: time.since(self.now) },
            None if group.has_payload() && index >= group.payload_len => Why::Arguments,
            // Its inputs are there, and it is about to be ready.
            None => Why::Inputs { missing: 0, first },
        }
    }

    /// Whether there is no worker that a task could run in.
    fn why_nowhere(&self, group: &Group, index: u32) -> Option<Why> {
        let requirement = self.classes.get(group.class(index));
        let mut workers = self.cluster.workers.values();
        if self.cluster.workers.is_empty() {
            Some(Why::NoWorkers)
        } else if workers.any(|worker| !worker.leaving && worker.suits(requirement)) {
            None
        } else {
            Some(self.why_unsuited(group, index, requirement))
        }
    }

    fn why_ready(&self, gid: Gid, group: &Group, index: u32, tied: Option<ProcessId>) -> Why {
        if let Some(why) = self.why_nowhere(group, index) {
            return why;
        }
        let requirement = self.classes.get(group.class(index));
        let suited = |worker: &Worker| !worker.leaving && worker.suits(requirement);
        let Some(share) = self.shares.get(&group.share) else { return Why::Unknown };
        let able: Vec<(ProcessId, &Process)> = self
            .cluster
            .processes
            .iter()
            .filter(|(id, process)| {
                process.program == share.program
                    && process.stage == Stage::Running
                    && process.leaving.is_none()
                    && (process.alone_for.is_none() || group.nested_in == Some(**id))
                    && !self.is_silent(Peer::Process(**id))
                    && self.cluster.workers.get(&process.worker).is_some_and(suited)
                    && self.fits_in_time(**id, group, index)
            })
            .map(|(id, process)| (*id, process))
            .collect();
        if able.is_empty() {
            return self.why_not_at_work(share.program, group, index);
        }
        if let Some(owner) = tied
            && let Some(process) = self.cluster.processes.get(&owner)
            && able.iter().any(|(id, process)| *id != owner && self.has_room(process, requirement))
        {
            let worker = self.cluster.worker_of(owner);
            return Why::Holder {
                process: owner,
                worker: worker.map_or(String::new(), |worker| worker.info.name.clone()),
                left: self.wait_left(process),
            };
        }
        let with_room = able.iter().find(|(_, process)| self.has_room(process, requirement));
        if let Some((id, _)) = with_room
            && let Some(task) = self.first_for(*id).filter(|task| *task != group.task(index))
        {
            return Why::Behind { task };
        }
        self.why_no_room(group, gid, index, &able)
    }

    /// What a process would be given first.
    fn first_for(&self, id: ProcessId) -> Option<TaskId> {
        match self.pick(id)? {
            Pick::Central { gid } => {
                let group = self.groups.get(gid)?;
                Some(group.task(group.ready.first()?.start))
            }
            Pick::Local { key } => {
                let set = self.cluster.processes.get(&id)?.local_ready.get(&key)?;
                Some(self.groups.get(key.group)?.task(set.first()?.start))
            }
        }
    }

    fn has_room(&self, process: &Process, requirement: &Requirement) -> bool {
        let worker = self.cluster.workers.get(&process.worker);
        process.idle_slots() >= u32::from(requirement.threads)
            && worker.is_some_and(|worker| worker.resource_room(requirement) > 0)
    }

    fn wait_left(&self, owner: &Process) -> Duration {
        let at = self.look_again.unwrap_or(self.now).max(owner.moved_on);
        at.since(self.now)
    }

    fn why_unsuited(&self, group: &Group, index: u32, requirement: &Requirement) -> Why {
        let lacks = self
            .cluster
            .workers
            .values()
            .filter_map(|worker| Some((worker.info.name.clone(), lack(worker, requirement)?)));
        let needs = group.shape(index).map(|info| info.shape.options.clone());
        Why::Unsuited {
            needs: needs.unwrap_or_else(|| TaskOptions {
                workers: requirement.workers.clone(),
                pools: requirement.pools.clone(),
                ..TaskOptions::default()
            }),
            count: self.cluster.workers.len() as u64,
            workers: lacks.take(NAMED_MAX).collect(),
        }
    }

    fn why_not_at_work(&self, hash: ProgramHash, group: &Group, index: u32) -> Why {
        let requirement = self.classes.get(group.class(index));
        let suited = self
            .cluster
            .workers
            .iter()
            .filter(|(_, worker)| !worker.leaving && worker.suits(requirement));
        let states: Vec<(String, ProgramState)> = suited
            .map(|(id, worker)| {
                let process = worker.processes.get(&hash);
                let stage =
                    process.and_then(|id| self.cluster.processes.get(id)).map(|it| it.stage);
                let state = match process {
                    Some(process) if self.is_silent(Peer::Process(*process)) => {
                        ProgramState::Silent
                    }
                    Some(process) if self.is_closing(*process) => ProgramState::Ending,
                    Some(_) if matches!(stage, Some(Stage::Returning | Stage::Offering)) => {
                        ProgramState::Returning
                    }
                    Some(process) if !self.fits_in_time(*process, group, index) => {
                        let left = worker.ends_at.map(|at| at.since(self.now));
                        ProgramState::EndsSooner(left.unwrap_or_default())
                    }
                    _ => self.programs.state(hash, *id, worker.nanny),
                };
                (worker.info.name.clone(), state)
            })
            .collect();
        let count = states.len() as u64;
        Why::Program { count, workers: states.into_iter().take(NAMED_MAX).collect() }
    }

    fn why_no_room(
        &self,
        group: &Group,
        gid: Gid,
        index: u32,
        able: &[(ProcessId, &Process)],
    ) -> Why {
        let requirement = self.classes.get(group.class(index));
        let slots =
            able.iter().any(|(_, process)| process.idle_slots() >= u32::from(requirement.threads));
        let resource = requirement.resources.iter().find(|(name, amount)| {
            able.iter().all(|(_, process)| {
                let worker = self.cluster.workers.get(&process.worker);
                worker.and_then(|one| one.free.get(name)).is_none_or(|free| free < amount)
            })
        });
        let key = group.ready_key(gid, index);
        let mut ahead = group.ready.count_within(Range::new(0, index));
        for (other, one) in &self.groups.by_gid {
            if *other != gid && one.share == group.share && !one.ready.is_empty() {
                let first = one.ready.first().map_or(0, |range| range.start);
                if one.ready_key(*other, first) < key {
                    ahead += one.ready.len();
                }
            }
        }
        let sharers = self
            .shares
            .iter()
            .filter(|(number, share)| **number != group.share && share.has_ready());
        Why::NoRoom {
            processes: able.len() as u64,
            ahead,
            sharers: sharers.count() as u64,
            resource: resource.filter(|_| slots).map(|(name, _)| name.clone()),
            threads: requirement.threads,
        }
    }

    fn why_assigned(&self, id: crate::id::AssignmentId, index: u32) -> Why {
        let Some(assignment) = self.assignments.get(&id) else { return Why::Unknown };
        let Some(process) = self.cluster.processes.get(&assignment.process) else {
            return Why::Unknown;
        };
        let (name, node, is_leaving) = match self.cluster.workers.get(&process.worker) {
            Some(worker) => (worker.info.name.clone(), worker.node.clone(), worker.leaving),
            None => (String::new(), String::new(), true),
        };
        if assignment.threads == 0 {
            return Why::Put { process: assignment.process, worker: name };
        }
        let before = process.assignments.range(..id).filter_map(|id| self.assignments.get(id));
        let ahead = before.map(|one| one.remaining.len()).sum::<u64>()
            + assignment.remaining.count_within(Range::new(0, index));
        // Those that wait for nested tasks are in nobody's way.
        let ahead = ahead.saturating_sub(u64::from(process.parked_runs));
        let (missing, fetched) = self.inputs_at(assignment.process, assignment.group, index);
        let moving = match process.asked {
            _ if is_leaving => Some(Moving::Leaving),
            Asked::Now(_) => Some(Moving::AskedBack),
            Asked::Not | Asked::InVain => None,
        };
        let slots = process.granted;
        Why::Assigned {
            process: assignment.process,
            worker: name,
            node,
            ahead,
            slots,
            missing,
            fetched,
            moving,
        }
    }
}

impl Scheduler {
    /// How many of a task's inputs are not made yet, and how many are, but not in this process, as
    /// far as it has said.
    fn inputs_at(&self, process: ProcessId, gid: Gid, index: u32) -> (u64, u64) {
        let (mut missing, mut elsewhere) = (0, 0);
        self.for_each_input(gid, index, &mut |upstream, input, part| {
            if !upstream.available.contains(input) {
                missing += 1;
            } else if let Holding::Held(first, _) = upstream.holding.get(input)
                && first != process
                && !upstream.copies.get(&(input, part)).is_some_and(|all| all.contains(&process))
            {
                elsewhere += 1;
            }
        });
        (missing, elsewhere)
    }
}

fn holders(group: &Group, index: u32) -> Vec<ProcessId> {
    let Holding::Held(first, _) = group.holding.get(index) else { return Vec::new() };
    let copies = group.copies.get(&(index, 0)).into_iter().flatten().copied();
    std::iter::once(first).chain(copies).take(NAMED_MAX).collect()
}

fn input_state(group: &Group, index: u32) -> InputState {
    match group.state.get(index) {
        State::Waiting(_) => InputState::Waiting,
        State::Ready(_) => InputState::Ready,
        State::Assigned(_) => InputState::Assigned,
        State::Done => InputState::Lost,
        State::Failed | State::Dropped => InputState::Unknown,
    }
}

/// Why a worker doesn't suit, if so.
fn lack(worker: &Worker, requirement: &Requirement) -> Option<Lack> {
    let has = |name: &str| {
        let found = worker.info.resources.iter().find(|(has, _)| has == name);
        found.map_or(0, |(_, total)| *total)
    };
    if !requirement.workers.is_empty() && !requirement.workers.contains(&worker.info.name) {
        return Some(Lack::Name);
    }
    if !requirement.pools.is_empty() && !requirement.pools.contains(&worker.pool) {
        return Some(Lack::Pool(worker.pool.clone()));
    }
    if u32::from(requirement.threads) > worker.info.slots {
        return Some(Lack::Slots(worker.info.slots));
    }
    let short = requirement.resources.iter().find(|(name, amount)| has(name) < *amount);
    if let Some((name, _)) = short {
        return Some(Lack::Resource(name.clone(), has(name)));
    }
    worker.leaving.then_some(Lack::Leaving)
}
