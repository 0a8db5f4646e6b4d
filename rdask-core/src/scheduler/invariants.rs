//! What must hold between facts. Whole-state checks, for tests and simulations.

use std::collections::BTreeMap;

use crate::id::ProcessId;
use crate::range::{Range, RangeSet};

use super::Scheduler;
use super::graph::{is_shared, taken};
use super::group::{Gid, Group, Holding, Inputs, State};

impl Scheduler {
    /// Checks the whole state; costs time in proportion to it.
    ///
    /// # Panics
    /// If an invariant is broken: a bug of the scheduler's.
    pub fn check(&self) {
        assert!(self.work.is_empty(), "consequences left undrawn: {:?}", self.work);
        for (gid, group) in &self.groups.by_gid {
            self.check_group(*gid, group);
        }
        self.check_refs();
        self.check_processes();
        self.check_suspects();
        self.check_indexes();
        let kept: usize = self.groups.by_gid.values().map(|group| group.results.cost()).sum();
        assert_eq!(self.result_bytes, kept as u64, "bytes of results");
    }

    fn check_group(&self, gid: Gid, group: &Group) {
        let mut unfinished = 0;
        let (mut ready, mut available) = (RangeSet::new(), RangeSet::new());
        for (part, state) in group.state.runs(group.all()) {
            match state {
                State::Waiting(missing) => part.iter().for_each(|index| {
                    let payload = u32::from(
                        matches!(group.inputs, Inputs::Patterns(_))
                            && index >= group.payload_len
                            && group.has_payload(),
                    );
                    let delay = u32::from(
                        self.delayed.iter().any(|(_, delayed, at)| (*delayed, *at) == (gid, index)),
                    );
                    let hold = u32::from(self.blame.holds((gid, index)));
                    let away = u32::from(self.awaited.get((gid, index)).is_some());
                    let expected = self.missing_inputs(gid, index) + payload + delay + hold + away;
                    assert_eq!(
                        missing, expected,
                        "{} {index} waits for the wrong number",
                        group.id
                    );
                    assert!(missing > 0, "{} {index} waits for nothing", group.id);
                }),
                State::Ready(None) if !matches!(group.inputs, Inputs::Scattered(_)) => {
                    ready.insert(part);
                }
                State::Ready(None) => {}
                State::Ready(Some(process)) => {
                    let record = self.cluster.processes.get(&process);
                    let key = group.ready_key(gid, part.start);
                    let set = record.and_then(|record| record.local_ready.get(&key));
                    assert!(
                        set.is_some_and(|set| set.covers(part)),
                        "{gid:?} {part:?} is lost to {process}"
                    );
                }
                State::Assigned(id) => {
                    let assignment =
                        self.assignments.get(&id).expect("an assigned task has its assignment");
                    assert_eq!(assignment.group, gid);
                    assert!(assignment.remaining.covers(part), "{gid:?} {part:?} isn't on {id:?}");
                }
                State::Done => {
                    for (part, holding) in group.holding.runs(part) {
                        if holding != Holding::Nowhere {
                            available.insert(part);
                        }
                        if matches!(holding, Holding::Held(..)) {
                            assert!(!group.settled.intersects(part), "{gid:?} {part:?} is settled");
                        }
                    }
                }
                State::Failed => {
                    assert!(part.iter().all(|index| group.failures.get(index).is_some()));
                }
                State::Dropped => {}
            }
            unfinished += if state.is_over() { 0 } else { part.len() };
            if !state.is_over() {
                assert!(!group.settled.intersects(part), "{gid:?} {part:?} is settled too soon");
            }
        }
        let wanted = group.refs.runs(group.all()).filter(|(_, refs)| *refs > 0);
        let referenced: u32 = wanted.map(|(part, _)| part.len()).sum();
        assert_eq!(group.referenced, referenced, "{gid:?}: tasks with references");
        assert_eq!(group.unfinished, unfinished, "{gid:?}");
        assert_eq!(group.ready, ready, "{gid:?}: ready");
        assert_eq!(group.available, available, "{gid:?}: available");
    }

    /// Whoever has to be looked at is noted.
    fn check_indexes(&self) {
        for (id, process) in &self.cluster.processes {
            assert!(!process.is_laden() || self.laden.contains(id), "{id} has more than it runs");
        }
        for (id, client) in &self.clients {
            let is_there = |process| self.cluster.processes.contains_key(process);
            assert!(client.knows.iter().all(is_there), "{id} has not been told of a loss");
        }
        for (id, worker) in &self.cluster.workers {
            let is_noted = self.contested.contains(id);
            assert!(is_noted || !self.is_contested(*id), "nobody shares the slots of {id}");
            let is_gone = self.cluster.nannies.get(&worker.nanny).is_none_or(|one| one.may_go);
            let is_noted = is_gone || self.leaving.contains(&worker.nanny);
            assert!(!worker.leaving || is_noted, "{id} is never let go");
        }
        for (hash, program) in self.programs.iter() {
            let own = program.processes.iter().filter_map(|id| self.cluster.processes.get(id));
            let granted: u64 = own.map(|process| u64::from(process.granted)).sum();
            assert_eq!(program.granted, granted, "slots of {hash}");
        }
    }

    /// Counts all references anew.
    fn check_refs(&self) {
        let mut expected: BTreeMap<(Gid, u32), u32> = BTreeMap::new();
        let mut count = |gid: Gid, range: Range| {
            let all = self.groups.get(gid).map_or(Range::new(0, 0), Group::all);
            for index in range.intersection(all) {
                *expected.entry((gid, index)).or_insert(0) += 1;
            }
        };
        for (gid, group) in &self.groups.by_gid {
            for (part, has_handle) in group.handles.runs(group.all()) {
                if has_handle {
                    count(*gid, part);
                }
            }
            for (part, state) in group.state.runs(group.all()) {
                if !state.is_over() {
                    for index in part {
                        self.for_each_own_input(*gid, index, &mut |upstream, index| {
                            count(upstream, Range::one(index));
                        });
                    }
                }
            }
            if group.shared_interest {
                self.for_each_shared_input(*gid, &mut |upstream, index| {
                    count(upstream, Range::one(index));
                });
            }
        }
        for ranges in self.detached.values() {
            for one in ranges {
                if let Some(gid) = one.group {
                    count(gid, one.range);
                }
            }
        }
        for client in self.clients.values() {
            for (gid, ranges) in &client.attached {
                ranges.iter().for_each(|range| count(*gid, range));
            }
        }
        for (gid, group) in &self.groups.by_gid {
            for index in group.all() {
                let expected = expected.get(&(*gid, index)).copied().unwrap_or(0);
                assert_eq!(group.refs.get(index), expected, "references to {gid:?} {index}");
            }
        }
    }

    fn check_processes(&self) {
        let mut demand: BTreeMap<ProcessId, u32> = BTreeMap::new();
        for (id, assignment) in &self.assignments {
            let process = self.cluster.processes.get(&assignment.process);
            assert!(
                process.is_some_and(|process| process.assignments.contains(id)),
                "{id:?} is nobody's"
            );
            let slots = assignment.remaining.len() as u32 * u32::from(assignment.threads);
            *demand.entry(assignment.process).or_insert(0) += slots;
        }
        for (id, process) in &self.cluster.processes {
            assert_eq!(process.demand, demand.get(id).copied().unwrap_or(0), "demand of {id}");
            assert!(process.granted <= process.occupied);
            let tied: u64 = process.local_ready.values().map(RangeSet::len).sum();
            assert_eq!(process.tied_count, tied, "work tied to {id}");
            assert_eq!(self.tied.contains(&(process.program, *id)), tied > 0, "{id}");
            for (gid, ranges) in &process.held {
                let group = self.groups.get(*gid);
                for index in ranges.iter().flat_map(Range::iter) {
                    let holding = group.map(|group| group.holding.get(index));
                    assert!(matches!(holding, Some(Holding::Held(first, _)) if first == *id));
                }
            }
        }
        for (id, worker) in &self.cluster.workers {
            let occupied: u32 = worker
                .all_processes()
                .filter_map(|process| self.cluster.processes.get(&process))
                .map(|process| process.occupied)
                .sum();
            assert!(occupied <= worker.info.slots, "{id} is oversold");
        }
    }

    /// Who is held back waits, and a process of a suspect's own has nothing else to run.
    fn check_suspects(&self) {
        for (gid, index) in self.blame.held() {
            let state = self.groups.get(gid).map(|group| group.state.get(index));
            assert!(matches!(state, Some(State::Waiting(_))), "{gid:?} {index} is held: {state:?}");
        }
        for (suspect, process) in self.blame.own() {
            let process = self.cluster.processes.get(&process);
            assert_eq!(process.and_then(|one| one.alone_for), Some(suspect));
        }
        for assignment in self.assignments.values() {
            let process = self.cluster.processes.get(&assignment.process);
            let Some((gid, index)) = process.and_then(|process| process.alone_for) else {
                continue;
            };
            let group = self.groups.get(assignment.group);
            let is_nested = group.is_none_or(|group| group.nested_in == Some(assignment.process));
            let is_its = assignment.group == gid && assignment.remaining.contains(index);
            assert!(is_nested || is_its, "{assignment:?} is not what its process is for");
        }
    }

    /// The inputs that one task counts for by itself.
    fn for_each_own_input(&self, gid: Gid, index: u32, visit: &mut dyn FnMut(Gid, u32)) {
        match self.groups.get(gid).map(|group| &group.inputs) {
            Some(Inputs::Patterns(_)) => {
                for (param, upstream) in self.patterns(gid) {
                    if !is_shared(&param) {
                        taken(&param, index).iter().for_each(|input| visit(upstream, input));
                    }
                }
            }
            Some(Inputs::Edges(batch)) => {
                batch.edges_of(index).iter().for_each(|edge| visit(edge.group, edge.index));
            }
            _ => {}
        }
    }

    /// The inputs that all tasks of an array count for together.
    fn for_each_shared_input(&self, gid: Gid, visit: &mut dyn FnMut(Gid, u32)) {
        for (param, upstream) in self.patterns(gid) {
            if is_shared(&param) {
                taken(&param, 0).iter().for_each(|input| visit(upstream, input));
            }
        }
    }
}
