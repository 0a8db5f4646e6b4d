//! Forgetting: references are counted per task, and what nobody refers to goes.

use std::sync::Arc;

use crate::failure::{Failure, FailureKind};
use crate::id::{ArrayId, ProcessId};
use crate::message::ToProcess;
use crate::range::Range;

use super::Scheduler;
use super::graph::Work;
use super::group::{Gid, Group, Holding, State};

impl Scheduler {
    /// One more reference to each of these tasks. Values that are gone are made again.
    pub(crate) fn add_refs(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let range = range.intersection(group.all());
        for (part, refs) in group.refs.runs_vec(range) {
            group.refs.set(part, refs + 1);
            if refs == 0 {
                group.referenced += part.len();
                group.deferred.remove(part);
                self.work.push_back(Work::Needed(gid, part));
            }
        }
    }

    /// One reference less to each of these tasks.
    pub(crate) fn drop_refs(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let range = range.intersection(group.all());
        for (part, refs) in group.refs.runs_vec(range) {
            debug_assert!(refs > 0, "{gid:?} {part:?}: more references dropped than there were");
            group.refs.set(part, refs.saturating_sub(1));
            if refs == 1 {
                group.referenced -= part.len();
                self.work.push_back(Work::Unwanted(gid, part));
            }
        }
    }

    /// Nobody needed these tasks when this was noted; those for which it still holds go.
    pub(crate) fn drop_unwanted(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let unwanted: Vec<Range> =
            group.refs.runs(range).filter(|(_, refs)| *refs == 0).map(|(part, _)| part).collect();
        for part in unwanted {
            let Some(group) = self.groups.get(gid) else {
                return;
            };
            for (part, state) in group.state.runs_vec(part) {
                match state {
                    State::Waiting(_) | State::Ready(_) => {
                        self.end_tasks(gid, part, State::Dropped)
                    }
                    State::Assigned(_) => {
                        self.call_back(gid, part, true);
                        self.end_tasks(gid, part, State::Dropped);
                    }
                    State::Done => self.drop_value_if_unwanted(gid, part),
                    State::Failed | State::Dropped => {}
                }
            }
        }
        self.work.push_back(Work::Forget(gid));
    }

    /// Tells the processes that have these tasks not to start them. What runs of them have
    /// submitted is cancelled. Runs that have to stop and don't cost their process.
    pub(crate) fn call_back(&mut self, gid: Gid, range: Range, must_stop: bool) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let array = group.id;
        for (part, state) in group.state.runs_vec(range) {
            if let State::Assigned(id) = state
                && let Some(assignment) = self.assignments.get(&id)
            {
                let process = assignment.process;
                if assignment.threads == 0 {
                    // A client was to put it there, and may never say whether it has.
                    self.account(process, id, part);
                    continue;
                }
                if must_stop {
                    self.expect_stop(id, part);
                }
                self.send_process(process, ToProcess::Cancel { array, range: part });
                // Noted, not done at once: nesting may be deep.
                let nested = self.groups.nested_in(array, part);
                self.work.extend(nested.into_iter().map(Work::Orphaned));
            }
        }
    }

    /// Frees the values of done tasks without a reference.
    pub(crate) fn drop_value_if_unwanted(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let unwanted: Vec<Range> =
            group.refs.runs(range).filter(|(_, refs)| *refs == 0).map(|(part, _)| part).collect();
        for part in unwanted {
            let Some(group) = self.groups.get_mut(gid) else {
                return;
            };
            let may_be_needed_again = group.may_be_needed_again();
            for (part, holding) in group.holding.runs_vec(part) {
                match holding {
                    Holding::Nowhere => {}
                    // Recomputing a dependent may need it, and it is small.
                    Holding::Inline if may_be_needed_again => {
                        if let Some(group) = self.groups.get_mut(gid) {
                            group.deferred.insert(part);
                        }
                    }
                    Holding::Inline => self.drop_inline(gid, part),
                    Holding::Held(..) => self.drop_held(gid, part),
                }
            }
        }
    }

    fn drop_inline(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        group.holding.set(range, Holding::Nowhere);
        group.available.remove(range);
        self.result_bytes -= group.results.release(range) as u64;
    }

    /// Drops what was kept for dependents that might run again, if none might any more.
    pub(crate) fn drop_deferred(&mut self, gid: Gid) {
        let Some(group) = self.groups.get_mut(gid) else { return };
        if group.may_be_needed_again() {
            return;
        }
        let deferred = std::mem::take(&mut group.deferred);
        for range in deferred.iter() {
            self.drop_inline(gid, range);
        }
    }

    /// Tells all holders of these values to drop them.
    fn drop_held(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let array = group.id;
        let mut told = Vec::new();
        for (part, holding) in group.holding.runs_vec(range) {
            if let Holding::Held(process, _) = holding {
                told.push((process, part));
            }
        }
        told.extend(take_copies(group, range));
        while let Some((&index, _)) = group.part_sizes.range(range.start..range.end).next() {
            group.part_sizes.remove(&index);
        }
        group.holding.set(range, Holding::Nowhere);
        group.available.remove(range);
        self.tell_to_drop(gid, array, told);
    }

    /// The outputs of a task are lost. Copies of some are of no use, since the task runs again: its
    /// dependents shall all take what one run made.
    pub(crate) fn drop_part_copies(&mut self, gid: Gid, index: u32) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let (array, told) = (group.id, take_copies(group, Range::one(index)));
        group.part_sizes.remove(&index);
        self.tell_to_drop(gid, array, told);
    }

    /// These processes don't have to keep these values.
    fn tell_to_drop(&mut self, gid: Gid, array: ArrayId, told: Vec<(ProcessId, Range)>) {
        for (process, part) in told {
            if let Some(record) = self.cluster.processes.get_mut(&process) {
                for sets in [&mut record.held, &mut record.copies] {
                    if let Some(set) = sets.get_mut(&gid) {
                        set.remove(part);
                        if set.is_empty() {
                            sets.remove(&gid);
                        }
                    }
                }
                self.send_process(process, ToProcess::Drop { ranges: vec![(array, part)] });
            }
        }
    }

    /// A client says that these tasks need not run.
    pub(crate) fn cancel(&mut self, array: ArrayId, range: Range) {
        if let Some(gid) = self.groups.find(array) {
            self.cancel_tasks(gid, range);
        }
    }

    pub(crate) fn cancel_group(&mut self, gid: Gid) {
        if let Some(all) = self.groups.get(gid).map(super::Group::all) {
            self.cancel_tasks(gid, all);
        }
    }

    fn cancel_tasks(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        for (part, state) in group.state.runs_vec(range.intersection(group.all())) {
            if state.is_over() {
                continue;
            }
            self.call_back(gid, part, true);
            let Some(group) = self.groups.get(gid) else {
                return;
            };
            let origin = group.task(part.start);
            let failure = Failure::of_scheduler(FailureKind::Cancelled, "", origin);
            self.fail(gid, part, &Arc::new(failure));
        }
    }

    /// Forgets the group if nobody can ask for anything of it again.
    pub(crate) fn forget(&mut self, gid: Gid) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        if !group.is_forgettable() {
            return;
        }
        // What was noted as unwanted may still wait its turn on the work list.
        let all = group.all();
        self.drop_value_if_unwanted(gid, all);
        self.unpin_inputs(gid);
        let Some(group) = self.groups.remove(gid) else {
            return;
        };
        self.result_bytes -= group.results.cost() as u64;
        for want in &group.wants {
            if let Some(client) = self.clients.get_mut(&want.client) {
                client.wants_in.remove(&gid);
                client.backlog.remove(&gid);
            }
        }
        if let Some(client) = self.clients.get_mut(&group.id.client) {
            client.groups.remove(&gid);
        }
        if self.shares.get(&group.share).is_some_and(|share| share.groups == 1) {
            self.level();
        }
        if let Some(share) = self.shares.get_mut(&group.share) {
            share.groups -= 1;
            if share.groups == 0 && !share.connected {
                self.shares.remove(&group.share);
            }
        }
        for upstream in self.patterns_of(&group) {
            if let Some(upstream) = self.groups.get_mut(upstream) {
                let own = upstream.pattern_dependents.range((gid, 0)..=(gid, u8::MAX));
                for dependent in own.copied().collect::<Vec<_>>() {
                    upstream.pattern_dependents.remove(&dependent);
                }
            }
        }
        if let super::group::Inputs::Edges(batch) = &group.inputs {
            for edges in batch.edges.chunk_by(|one, next| one.group == next.group) {
                self.lose_edges(edges[0].group, edges.len());
            }
        }
    }

    /// So many dependents of this group are forgotten. A value that is kept for long, and that
    /// many tasks take one after the other, must not remember all of them.
    fn lose_edges(&mut self, upstream: Gid, count: usize) {
        let Some(group) = self.groups.get_mut(upstream) else {
            return;
        };
        if group.edge_dependents.lose(count) {
            let mut edges = std::mem::take(&mut group.edge_dependents);
            edges.retain(|gid| self.groups.get(gid).is_some());
            if let Some(group) = self.groups.get_mut(upstream) {
                group.edge_dependents = edges;
            }
        }
    }

    fn patterns_of(&self, group: &super::Group) -> Vec<Gid> {
        match &group.inputs {
            super::group::Inputs::Patterns(info) => {
                info.param_groups.iter().flatten().copied().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Takes out who has copies of these values: each process once for each task.
fn take_copies(group: &mut Group, range: Range) -> Vec<(ProcessId, Range)> {
    let inside = group.copies.range((range.start, 0)..(range.end, 0));
    let values: Vec<(u32, u16)> = inside.map(|(value, _)| *value).collect();
    let mut copies = Vec::new();
    for value in values {
        let processes = group.copies.remove(&value).unwrap_or_default();
        copies.extend(processes.into_iter().map(|process| (process, Range::one(value.0))));
    }
    copies.sort_unstable();
    copies.dedup();
    copies
}
