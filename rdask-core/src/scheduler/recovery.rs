//! What was lost is made again: unfinished runs elsewhere, values up the graph, as far as wanted.

use std::sync::Arc;

use crate::failure::{Failure, FailureKind};
use crate::id::{ClientId, NannyId, Peer, ProcessId};
use crate::message::{ToClient, ToNanny, ToProcess};
use crate::range::{Range, RangeSet};

use super::cluster::Stage;
use super::graph::{Work, taken};
use super::group::{Gid, Holding, Inputs, State, remove_range};
use super::{Action, Scheduler};

impl Scheduler {
    /// A process is gone, for whatever reason. From now on its number means nothing.
    pub(crate) fn lose_process(&mut self, id: ProcessId, why: &str) {
        let Some(process) = self.cluster.processes.remove(&id) else {
            return;
        };
        self.open.remove(&id);
        self.leases.remove(&Peer::Process(id));
        if process.stage.is_registered() {
            self.actions.push_back(Action::Close(Peer::Process(id), why.to_owned()));
        }
        let program = process.program;
        self.tied.remove(&(program, id));
        self.programs.remove_process(program, id, process.granted);
        self.contested.insert(process.worker);
        if process.stage == Stage::Running {
            if process.leaving.is_some() {
                tracing::info!(process = %id, program = %program, why, "a process left with its worker");
            } else {
                tracing::warn!(process = %id, program = %program, why, "lost a process");
            }
        }
        if self.cluster.nannies.contains_key(&process.nanny) {
            // Fenced: whatever is left of it has no right to go on.
            self.send_nanny(process.nanny, ToNanny::Kill { process: id, reason: why.to_owned() });
            // Whom the scheduler itself has ended did not die of a task, whatever ran there.
            if process.stage != Stage::Ending {
                self.await_verdict(id, &process);
            }
        }
        if let Some(worker) = self.cluster.workers.get_mut(&process.worker) {
            match process.alone_for {
                Some(_) => drop(worker.alone.remove(&id)),
                None => drop(worker.processes.remove(&program)),
            }
        }
        self.forget_own_process(&process, id);
        self.tell_of_loss(id);
        for assignment in &process.assignments {
            let Some(assignment_record) = self.assignments.remove(assignment) else {
                continue;
            };
            let gid = assignment_record.group;
            let count = assignment_record.remaining.len() as u32;
            if let Some(worker) = self.cluster.workers.get_mut(&process.worker) {
                worker.give_resources(self.classes.get(assignment_record.class), count);
            }
            let estimate = assignment_record.mean_ns.saturating_mul(u64::from(count));
            if let Some(share) =
                self.groups.get(gid).and_then(|group| self.shares.get_mut(&group.share))
            {
                share.used_ns = share.used_ns.saturating_sub(estimate);
            }
            for part in assignment_record.remaining.iter() {
                let Some(group) = self.groups.get(gid) else {
                    break;
                };
                for (part, state) in group.state.runs_vec(part) {
                    if state == State::Assigned(*assignment) {
                        self.recompute_assigned(gid, part, true);
                    }
                }
            }
        }
        for (key, ranges) in &process.local_ready {
            for range in ranges.iter() {
                if let Some(group) = self.groups.get_mut(key.group) {
                    group.state.set(range, State::Waiting(1));
                    self.work.push_back(Work::Satisfied(key.group, range));
                }
            }
        }
        self.stop_acquiring(id);
        for (gid, ranges) in &process.copies {
            self.forget_copies(*gid, ranges, id);
        }
        for (gid, ranges) in process.held {
            for range in ranges.iter() {
                self.lose_values(gid, range, id);
            }
        }
        self.work_off();
        self.hold_for_verdict(id);
    }

    /// Who may fetch from a process that is gone need not wait for it.
    fn tell_of_loss(&mut self, id: ProcessId) {
        let all = self.cluster.processes.iter_mut();
        let knowing: Vec<ProcessId> =
            all.filter_map(|(other, record)| record.knows.remove(&id).then_some(*other)).collect();
        for other in knowing {
            self.send_process(other, ToProcess::Gone { process: id });
        }
        let all = self.clients.iter_mut();
        let knowing: Vec<ClientId> =
            all.filter_map(|(one, record)| record.knows.remove(&id).then_some(*one)).collect();
        for one in knowing {
            self.send_client(one, ToClient::Gone { process: id });
        }
    }

    pub(crate) fn forget_copies(&mut self, gid: Gid, ranges: &RangeSet, process: ProcessId) {
        if self.are_copies_watched(gid) {
            ranges.iter().for_each(|range| self.watch_copies(gid, range));
        }
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        ranges.iter().for_each(|range| group.remove_copies(range, process));
    }

    /// `holder` doesn't have these values any more. A copy takes the place, or they are made again.
    pub(crate) fn lose_values(&mut self, gid: Gid, range: Range, holder: ProcessId) {
        if self.are_copies_watched(gid) {
            self.watch_copies(gid, range);
        }
        for index in range {
            let Some(group) = self.groups.get_mut(gid) else {
                return;
            };
            let Holding::Held(first, log2) = group.holding.get(index) else {
                continue;
            };
            if first != holder {
                continue;
            }
            group.remove_copies(Range::one(index), holder);
            let Some(heir) = group.whole_copies(index).next() else {
                // Copies of single outputs don't make a result: one run makes all of it again.
                self.drop_part_copies(gid, index);
                self.withdraw_availability(gid, Range::one(index));
                let Some(group) = self.groups.get_mut(gid) else {
                    return;
                };
                group.holding.set(Range::one(index), Holding::Nowhere);
                self.work.push_back(Work::Needed(gid, Range::one(index)));
                continue;
            };
            group.holding.set(Range::one(index), Holding::Held(heir, log2));
            group.remove_copies(Range::one(index), heir);
            if let Some(process) = self.cluster.processes.get_mut(&heir) {
                process.held.entry(gid).or_default().insert(Range::one(index));
                if let Some(set) = process.copies.get_mut(&gid) {
                    set.remove(Range::one(index));
                    if set.is_empty() {
                        process.copies.remove(&gid);
                    }
                }
            }
        }
    }

    /// These values were gone when this was noted; those that are and that somebody needs are made
    /// again.
    pub(crate) fn recompute(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let needed: Vec<Range> =
            group.refs.runs(range).filter(|(_, refs)| *refs > 0).map(|(part, _)| part).collect();
        for part in needed {
            let Some(group) = self.groups.get(gid) else {
                return;
            };
            for (part, state) in group.state.runs_vec(part) {
                let gone: Vec<Range> = match (state, self.groups.get(gid)) {
                    (State::Done, Some(group)) => group
                        .holding
                        .runs(part)
                        .filter(|(_, holding)| *holding == Holding::Nowhere)
                        .map(|(part, _)| part)
                        .collect(),
                    (State::Dropped, _) => vec![part],
                    _ => continue,
                };
                for part in gone {
                    let Some(group) = self.groups.get(gid) else { return };
                    let settled: Vec<Range> = group.settled.within(part).collect();
                    let mut again = RangeSet::from(part);
                    settled.iter().for_each(|part| again.remove(*part));
                    again.iter().for_each(|part| self.undo(gid, part, true));
                    settled.into_iter().for_each(|part| self.undo(gid, part, false));
                }
            }
        }
    }

    /// Tasks that were over have to run again. Those that were settled can't: somebody takes a value
    /// that all had let go of.
    fn undo(&mut self, gid: Gid, range: Range, has_recipe: bool) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let has_recipe = has_recipe
            && match &group.inputs {
                Inputs::Scattered(_) => false,
                _ => {
                    let mut each = range.iter().map(Range::one);
                    !group.has_payload() || each.all(|one| group.payload.slice(one).is_some())
                }
            };
        group.settled.remove(range);
        group.unfinished += range.len();
        group.made_by.remove(range);
        // It has ended well before: its tries count from the start again.
        remove_range(&mut group.tries, range.start..range.end);
        remove_range(&mut group.misses, range.start..range.end);
        // Of a delay that it did not wait for to the end.
        self.delayed.retain(|(_, of, index)| *of != gid || !range.contains(*index));
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        group.state.set(range, State::Waiting(u32::MAX));
        self.add_interest(gid, range);
        if has_recipe {
            self.raise_run(gid, range);
            self.await_inputs(gid, range);
            return;
        }
        let mut lost = RangeSet::from(range);
        self.await_return(gid, range).iter().for_each(|part| lost.remove(part));
        for part in lost.iter() {
            let Some(group) = self.groups.get(gid) else { return };
            let failure = Failure::of_scheduler(
                FailureKind::InputLost,
                "the last copy of a value that cannot be computed again was lost",
                group.task(part.start),
            );
            self.fail(gid, part, &Arc::new(failure));
        }
    }

    fn raise_run(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        for index in range {
            let run = group.run(index);
            group.runs.insert(Range::one(index), run.saturating_add(1));
        }
    }

    /// Assigned tasks are not with their process any more. `may_have_run` raises the run number.
    pub(crate) fn recompute_assigned(&mut self, gid: Gid, range: Range, may_have_run: bool) {
        if may_have_run {
            self.raise_run(gid, range);
        }
        self.await_inputs(gid, range);
    }

    /// Puts tasks that hold references to their inputs back to waiting or ready.
    fn await_inputs(&mut self, gid: Gid, range: Range) {
        let mut counts: Vec<(Range, u32)> = Vec::new();
        for index in range {
            let missing = self.missing_inputs(gid, index);
            match counts.last_mut() {
                Some((part, same)) if *same == missing => part.end = index + 1,
                _ => counts.push((Range::one(index), missing)),
            }
        }
        for (part, missing) in counts {
            if let Some(group) = self.groups.get_mut(gid) {
                group.state.set(part, State::Waiting(missing.max(1)));
            }
            if missing == 0 {
                self.work.push_back(Work::Satisfied(gid, part));
            }
            for index in part.iter().filter(|_| missing > 0) {
                // An input may have failed for good while the task was with its process.
                if let Some(failure) = self.failed_input(gid, index) {
                    self.work.push_back(Work::Failed(gid, Range::one(index), failure));
                }
            }
        }
        self.hold_last_tries(gid, range);
    }

    fn failed_input(&self, gid: Gid, index: u32) -> Option<Arc<Failure>> {
        let mut found = None;
        self.for_each_input(gid, index, &mut |upstream, input, _| {
            if found.is_none() {
                found = upstream.failures.get(input).cloned();
            }
        });
        found
    }

    /// How many of a task's parameters or edges are not available.
    pub(crate) fn missing_inputs(&self, gid: Gid, index: u32) -> u32 {
        let Some(group) = self.groups.get(gid) else {
            return 0;
        };
        let is_there = |upstream: Gid, range: Range| {
            range.is_empty()
                || self.groups.get(upstream).is_some_and(|group| group.available.covers(range))
        };
        let missing = match &group.inputs {
            Inputs::Patterns(_) => self
                .patterns(gid)
                .iter()
                .filter(|(param, upstream)| !is_there(*upstream, taken(param, index)))
                .count(),
            Inputs::Edges(batch) => batch
                .edges_of(index)
                .iter()
                .filter(|edge| !is_there(edge.group, Range::one(edge.index)))
                .count(),
            Inputs::Scattered(_) => 0,
        };
        missing as u32
    }

    /// A nanny is gone, and with it its workers and their processes.
    pub(crate) fn lose_nanny(&mut self, id: NannyId, why: &str) {
        let Some(nanny) = self.cluster.nannies.remove(&id) else {
            return;
        };
        self.leases.remove(&Peer::Nanny(id));
        self.programs.remove_nanny(id);
        self.serve_programs();
        self.forget_end(id, nanny.ends_at);
        self.serve_programs();
        for worker in nanny.workers {
            let Some(record) = self.cluster.workers.remove(&worker) else {
                continue;
            };
            tracing::info!(
                worker = %record.info.name, node = %record.node, pool = %record.pool, why,
                "a worker left"
            );
            for process in record.all_processes() {
                self.lose_process(process, why);
            }
        }
        self.forget_lost_of(id);
    }
}
