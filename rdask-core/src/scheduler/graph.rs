//! How one task's end moves others: from waiting to ready, to failed, or out of need.
//!
//! Consequences are drawn from a work list, one step at a time, so that a chain of a million tasks
//! needs no stack. Each step works on a whole range of one group. The two directions of a
//! dependency agree at all times: a task that waits counts each input that is not available, and a
//! task that isn't over holds a reference to each of its inputs.

use std::sync::Arc;

use crate::failure::Failure;
use crate::id::ProcessId;
use crate::message::Param;
use crate::range::{Range, RangeSet};

use super::group::{Gid, Group, Holding, Inputs, State};
use super::locality::ties;
use super::{Policy, Scheduler};

/// A consequence to draw.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// The values of these tasks are there.
    Available(Gid, Range),
    /// These tasks wait for one thing less.
    Satisfied(Gid, Range),
    /// These tasks, if they wait, end like an input of theirs.
    Failed(Gid, Range, Arc<Failure>),
    /// Nobody needs these tasks any more.
    Unwanted(Gid, Range),
    /// These are done, their values are gone, and somebody needs them.
    Needed(Gid, Range),
    /// The run that submitted these is called back.
    Orphaned(Gid),
    /// The group may be over and done with.
    Forget(Gid),
}

/// The tasks of an array with `len` tasks that take something of `range` by `param`.
pub(crate) fn takers(param: &Param, len: u32, range: Range) -> Range {
    let all = Range::new(0, len);
    match *param {
        Param::Each { start, .. } => {
            Range::new(range.start.saturating_sub(start), range.end.saturating_sub(start))
                .intersection(all)
        }
        Param::Block { start, end, width, .. } => {
            let part = range.intersection(Range::new(start, end));
            if part.is_empty() {
                return Range::new(0, 0);
            }
            Range::new((part.start - start) / width, (part.end - 1 - start) / width + 1)
                .intersection(all)
        }
        Param::One { task, .. } if range.contains(task.index) => all,
        Param::All { range: taken, .. } | Param::Shuffle { range: taken, .. }
            if !taken.intersection(range).is_empty() =>
        {
            all
        }
        _ => Range::new(0, 0),
    }
}

/// What task `index` takes by `param`.
pub(crate) fn taken(param: &Param, index: u32) -> Range {
    match *param {
        Param::Each { start, .. } => Range::one(start.saturating_add(index)),
        Param::Block { start, end, width, .. } => {
            let first = start.saturating_add(index.saturating_mul(width));
            Range::new(first, first.saturating_add(width).min(end))
        }
        Param::One { task, .. } => Range::one(task.index),
        Param::All { range, .. } | Param::Shuffle { range, .. } => range,
        Param::Inline | Param::Edge | Param::Edges => Range::new(0, 0),
    }
}

/// The tasks that take something of `range` by `param` and for whom all they take is available.
fn satisfied(param: &Param, len: u32, available: &RangeSet, range: Range) -> Range {
    let touched = takers(param, len, range);
    if touched.is_empty() {
        return touched;
    }
    // What lies inside is covered by `range` itself; only the ends can stick out.
    let is_covered = |index: u32| available.covers(taken(param, index));
    let (mut start, mut end) = (touched.start, touched.end);
    match param {
        Param::Each { .. } => {}
        Param::Block { .. } => {
            if !is_covered(start) {
                start += 1;
            }
            if start < end && !is_covered(end - 1) {
                end -= 1;
            }
        }
        _ if is_covered(0) => {}
        _ => end = start,
    }
    Range::new(start, end)
}

/// Which output of them it takes by `param`.
pub(crate) fn part_of(param: &Param, index: u32) -> u16 {
    match param {
        Param::Each { part, .. } | Param::One { part, .. } => *part,
        Param::Shuffle { first, .. } => first.saturating_add(index as u16),
        _ => 0,
    }
}

/// Whether all tasks take of the same by `param`, so that the array counts as one dependent.
pub(crate) fn is_shared(param: &Param) -> bool {
    matches!(param, Param::One { .. } | Param::All { .. } | Param::Shuffle { .. })
}

impl Scheduler {
    /// Draws all consequences.
    pub(crate) fn work_off(&mut self) {
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Available(gid, range) => self.spread_availability(gid, range),
                Work::Satisfied(gid, range) => self.satisfy(gid, range),
                Work::Failed(gid, range, failure) => self.fail_waiting(gid, range, &failure),
                Work::Unwanted(gid, range) => self.drop_unwanted(gid, range),
                Work::Needed(gid, range) => self.recompute(gid, range),
                Work::Orphaned(gid) => self.cancel_group(gid),
                Work::Forget(gid) => self.forget(gid),
            }
        }
    }

    /// The array `gid` depends on another one by its `nth` parameter from now on.
    pub(crate) fn tie_param(&mut self, gid: Gid, nth: usize) {
        let Some((param, upstream, len)) = self.pattern(gid, nth) else {
            return;
        };
        let all = Range::new(0, len);
        let upstream = upstream.filter(|upstream| self.groups.get(*upstream).is_some());
        let Some(upstream) = upstream else {
            // Nothing of nothing is there already.
            if taken(&param, 0).is_empty() {
                self.work.push_back(Work::Satisfied(gid, all));
            } else {
                self.fail_unknown_input(gid, all);
            }
            return;
        };
        if is_shared(&param) && taken(&param, 0).is_empty() {
            // Nothing of something is there, too.
            self.work.push_back(Work::Satisfied(gid, all));
            return;
        }
        let reach = self.groups.get(upstream).map_or(0, |group| group.len);
        if len > 0 && taken(&param, len - 1).end > reach {
            self.untie_param(gid, nth);
            self.fail_unknown_input(gid, all);
            return;
        }
        if len > 0
            && self
                .groups
                .get(upstream)
                .is_some_and(|group| group.parts_min() <= part_of(&param, len - 1))
        {
            self.untie_param(gid, nth);
            self.fail_unknown_part(gid, all);
            return;
        }
        self.pin(gid, upstream);
        if let Some(group) = self.groups.get_mut(upstream) {
            group.pattern_dependents.insert((gid, nth as u8));
        }
        if is_shared(&param) {
            if let Some(group) = self.groups.get_mut(gid) {
                group.shared_interest = true;
            }
            self.add_refs(upstream, taken(&param, 0));
        } else {
            self.add_interest_by(&param, upstream, all);
        }
        let Some(group) = self.groups.get(upstream) else {
            return;
        };
        let there: Vec<Range> = match &param {
            // Once, however many intervals it takes.
            Param::One { .. } | Param::All { .. } | Param::Shuffle { .. } => {
                vec![satisfied(&param, len, &group.available, taken(&param, 0))]
            }
            _ => group
                .available
                .iter()
                .map(|part| satisfied(&param, len, &group.available, part))
                .collect(),
        };
        let failed: Vec<(Range, Arc<Failure>)> = group
            .failures
            .iter()
            .map(|(part, failure)| (takers(&param, len, part), Arc::clone(failure)))
            .collect();
        for part in there.into_iter().filter(|part| !part.is_empty()) {
            self.work.push_back(Work::Satisfied(gid, part));
        }
        for (part, failure) in failed.into_iter().filter(|(part, _)| !part.is_empty()) {
            self.work.push_back(Work::Failed(gid, part, failure));
        }
    }

    /// The array gets no reference to what there is, so that it will not drop one either.
    fn untie_param(&mut self, gid: Gid, nth: usize) {
        if let Some(Inputs::Patterns(info)) =
            self.groups.get_mut(gid).map(|group| &mut group.inputs)
        {
            info.param_groups[nth] = None;
        }
    }

    /// The batch `gid` depends on others by its edges from now on.
    pub(crate) fn tie_edges(&mut self, gid: Gid) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let Inputs::Edges(batch) = &group.inputs else {
            return;
        };
        let all = group.all();
        let edges: Vec<(u32, super::group::EdgeTo)> = all
            .iter()
            .flat_map(|index| batch.edges_of(index).iter().map(move |edge| (index, *edge)))
            .collect();
        // One more than its edges, so that no task is ready before all are tied.
        for index in all {
            let count = match self.groups.get(gid).map(|group| &group.inputs) {
                Some(Inputs::Edges(batch)) => batch.edges_of(index).len() as u32,
                _ => 0,
            };
            if let Some(group) = self.groups.get_mut(gid) {
                group.state.set(Range::one(index), State::Waiting(count + 1));
            }
        }
        for (index, edge) in edges {
            self.tie_edge(gid, index, edge);
        }
        self.work.push_back(Work::Satisfied(gid, all));
    }

    fn tie_edge(&mut self, gid: Gid, index: u32, edge: super::group::EdgeTo) {
        let Some(upstream) = self.groups.get_mut(edge.group).filter(|group| edge.index < group.len)
        else {
            self.fail_unknown_input(gid, Range::one(index));
            return;
        };
        let has_part = edge.part < upstream.parts(edge.index);
        upstream.edge_dependents.add(edge.index, (gid, index));
        let available = upstream.available.contains(edge.index);
        let failure = upstream.failures.get(edge.index).cloned();
        if edge.group != gid {
            self.pin(gid, edge.group);
        }
        self.add_refs(edge.group, Range::one(edge.index));
        if available {
            self.work.push_back(Work::Satisfied(gid, Range::one(index)));
        }
        if !has_part {
            self.fail_unknown_part(gid, Range::one(index));
        }
        if let Some(failure) = failure {
            self.work.push_back(Work::Failed(gid, Range::one(index), failure));
        }
    }

    /// `gid` may need `upstream` to run again.
    fn pin(&mut self, gid: Gid, upstream: Gid) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        if !group.pinned.insert(upstream) {
            return;
        }
        if let Some(group) = self.groups.get_mut(upstream) {
            group.pins += 1;
        }
    }

    /// The `nth` parameter of an array, the group it names, and the array's length.
    pub(crate) fn pattern(&self, gid: Gid, nth: usize) -> Option<(Param, Option<Gid>, u32)> {
        let group = self.groups.get(gid)?;
        let Inputs::Patterns(info) = &group.inputs else {
            return None;
        };
        Some((info.shape.params.get(nth)?.clone(), info.param_groups[nth], group.len))
    }

    /// All parameters of an array that name tasks.
    pub(crate) fn patterns(&self, gid: Gid) -> Vec<(Param, Gid)> {
        let Some(Inputs::Patterns(info)) = self.groups.get(gid).map(|group| &group.inputs) else {
            return Vec::new();
        };
        let pairs = info.shape.params.iter().cloned().zip(info.param_groups.iter().copied());
        pairs.filter_map(|(param, upstream)| Some((param, upstream?))).collect()
    }

    /// Tells the dependents of these tasks, one run of tasks after the other: a block that two runs
    /// complete together is complete with the second.
    fn spread_availability(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let there: Vec<Range> = group
            .holding
            .runs(range)
            .filter(|(_, holding)| *holding != Holding::Nowhere)
            .map(|(part, _)| part)
            .collect();
        for part in there {
            let Some(group) = self.groups.get_mut(gid) else {
                return;
            };
            group.available.insert(part);
            let by_pattern = group.pattern_dependents.clone();
            let by_edge: Vec<(Gid, u32)> = group.edge_dependents.within(part).collect();
            for (dependent, nth) in by_pattern {
                let Some((param, _, len)) = self.pattern(dependent, nth as usize) else {
                    continue;
                };
                let Some(group) = self.groups.get(gid) else {
                    return;
                };
                let touched = satisfied(&param, len, &group.available, part);
                if !touched.is_empty() {
                    self.satisfy(dependent, touched);
                }
            }
            for (dependent, index) in by_edge {
                self.satisfy(dependent, Range::one(index));
            }
        }
    }

    /// The opposite, before the value is taken out of `available`.
    pub(crate) fn withdraw_availability(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let by_pattern = group.pattern_dependents.clone();
        let by_edge: Vec<(Gid, u32)> = group.edge_dependents.within(range).collect();
        for (dependent, nth) in by_pattern {
            let Some((param, _, len)) = self.pattern(dependent, nth as usize) else {
                continue;
            };
            let Some(group) = self.groups.get(gid) else {
                return;
            };
            let part = satisfied(&param, len, &group.available, range);
            self.unsatisfy(dependent, part);
        }
        for (dependent, index) in by_edge {
            self.unsatisfy(dependent, Range::one(index));
        }
        if let Some(group) = self.groups.get_mut(gid) {
            group.available.remove(range);
        }
    }

    fn satisfy(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        for (part, state) in group.state.runs_vec(range.intersection(group.all())) {
            match state {
                State::Waiting(1) => self.make_ready(gid, part),
                State::Waiting(missing) => {
                    let Some(group) = self.groups.get_mut(gid) else {
                        return;
                    };
                    group.state.set(part, State::Waiting(missing.saturating_sub(1)));
                }
                _ => {}
            }
        }
    }

    fn unsatisfy(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        for (part, state) in group.state.runs_vec(range.intersection(group.all())) {
            let missing = match state {
                State::Waiting(missing) => missing + 1,
                State::Ready(_) => {
                    self.unready(gid, part, state);
                    1
                }
                _ => continue,
            };
            let Some(group) = self.groups.get_mut(gid) else {
                return;
            };
            group.state.set(part, State::Waiting(missing));
        }
    }

    /// All that these tasks need is there.
    pub(crate) fn make_ready(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        if let Inputs::Scattered(_) = group.inputs {
            let Some(program) = self.shares.get(&group.share).map(|share| share.program) else {
                return;
            };
            let puts = self.puts.entry((program, group.class(range.start))).or_default();
            puts.extend(range.iter().map(|index| (gid, index)));
            if let Some(group) = self.groups.get_mut(gid) {
                group.state.set(range, State::Ready(None));
            }
            return;
        }
        for (part, process) in self.preferences(gid, range) {
            let process = process.filter(|process| self.untied != Some(*process));
            let Some(group) = self.groups.get_mut(gid) else {
                return;
            };
            group.state.set(part, State::Ready(process));
            let key = group.ready_key(gid, part.start);
            let class = group.class(part.start);
            match process.and_then(|process| self.cluster.processes.get_mut(&process)) {
                Some(record) => {
                    if record.local_ready.is_empty() {
                        record.moved_on = self.now;
                    }
                    record.tied_count += u64::from(part.len());
                    record.local_ready.entry(key).or_default().insert(part);
                    self.tied.extend(process.map(|process| (record.program, process)));
                }
                None => {
                    group.ready.insert(part);
                    if let Some(share) = self.shares.get_mut(&group.share) {
                        share.enqueue(class, key);
                    }
                }
            }
        }
    }

    /// These tasks are not ready any more, whoever was to run them.
    pub(crate) fn unready(&mut self, gid: Gid, range: Range, state: State) {
        let State::Ready(process) = state else { return };
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        if let Inputs::Scattered(_) = group.inputs {
            for puts in self.puts.values_mut() {
                range.iter().for_each(|index| {
                    puts.remove(&(gid, index));
                });
            }
            return;
        }
        let (key, class) = (group.ready_key(gid, range.start), group.class(range.start));
        match process {
            Some(id) => {
                if let Some(process) = self.cluster.processes.get_mut(&id)
                    && let Some(set) = process.local_ready.get_mut(&key)
                {
                    set.remove(range);
                    process.tied_count -= u64::from(range.len());
                    if set.is_empty() {
                        process.local_ready.remove(&key);
                    }
                    if process.local_ready.is_empty() {
                        self.tied.remove(&(process.program, id));
                    }
                }
            }
            None => {
                group.ready.remove(range);
                if group.ready.is_empty()
                    && let Some(share) = self.shares.get_mut(&group.share)
                {
                    share.dequeue(class, key);
                }
            }
        }
    }

    /// Which process has most of the inputs of these tasks, if any has.
    fn preferences(&self, gid: Gid, range: Range) -> Vec<(Range, Option<ProcessId>)> {
        let Some(group) = self.groups.get(gid) else {
            return Vec::new();
        };
        if self.config.policy != Policy::Locality {
            return vec![(range, None)];
        }
        let sources: Vec<(Param, Gid)> = match &group.inputs {
            Inputs::Patterns(_) => self.patterns(gid),
            Inputs::Edges(_) => {
                return range
                    .iter()
                    .map(|index| (Range::one(index), self.preferred(gid, index)))
                    .collect();
            }
            Inputs::Scattered(_) => Vec::new(),
        };
        // Inputs that all are with the scheduler leave the choice free.
        let len = group.len;
        let held = |(param, upstream): &(Param, Gid)| {
            if !ties(param, len) {
                return false;
            }
            let first = taken(param, range.start);
            let last = taken(param, range.end - 1);
            self.groups.get(*upstream).is_some_and(|upstream| {
                let span = Range::new(first.start, last.end).intersection(upstream.all());
                upstream.holding.runs(span).any(|(_, holding)| matches!(holding, Holding::Held(..)))
            })
        };
        if !sources.iter().any(held) {
            return vec![(range, None)];
        }
        let mut found: Vec<(Range, Option<ProcessId>)> = Vec::new();
        for index in range {
            let process = self.preferred(gid, index);
            match found.last_mut() {
                Some((part, last)) if *last == process => part.end = index + 1,
                _ => found.push((Range::one(index), process)),
            }
        }
        found
    }

    /// Calls `visit` with each input of one task: whose result, and which output of it.
    pub(crate) fn for_each_input(
        &self,
        gid: Gid,
        index: u32,
        visit: &mut dyn FnMut(&Group, u32, u16),
    ) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        match &group.inputs {
            Inputs::Patterns(info) => {
                let pairs = info.shape.params.iter().zip(&info.param_groups);
                for (param, upstream) in pairs {
                    if let Some(upstream) = upstream.and_then(|gid| self.groups.get(gid)) {
                        let range = taken(param, index).intersection(upstream.all());
                        let part = part_of(param, index);
                        range.iter().for_each(|input| visit(upstream, input, part));
                    }
                }
            }
            Inputs::Edges(batch) => {
                for edge in batch.edges_of(index) {
                    if let Some(upstream) = self.groups.get(edge.group) {
                        visit(upstream, edge.index, edge.part);
                    }
                }
            }
            Inputs::Scattered(_) => {}
        }
    }

    /// These tasks come to their end. Whatever follows for others is put on the work list.
    pub(crate) fn end_tasks(&mut self, gid: Gid, range: Range, end: State) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        for (part, state) in group.state.runs_vec(range) {
            if state.is_over() {
                continue;
            }
            self.unready(gid, part, state);
            self.drop_holds(gid, part);
            self.awaited.forget(gid, part);
            let Some(group) = self.groups.get_mut(gid) else {
                return;
            };
            group.state.set(part, end);
            group.unfinished -= part.len();
            if end == State::Done {
                self.work.push_back(Work::Available(gid, part));
            }
            self.settle_ended(gid, part, end);
            self.drop_interest(gid, part);
            self.tell_wanting(gid, part);
            self.drop_value_if_unwanted(gid, part);
        }
        if self.groups.get(gid).is_some_and(|group| group.unfinished == 0) {
            self.work.push_back(Work::Forget(gid));
        }
    }

    /// Tasks that will never run again don't need their arguments. A value with a process may be
    /// lost, and a task that was dropped while it ran for the second time may be needed for the
    /// third: those are not settled.
    fn settle_ended(&mut self, gid: Gid, range: Range, end: State) {
        let Some(group) = self.groups.get_mut(gid) else { return };
        if end == State::Dropped && group.may_be_needed_again() {
            return;
        }
        for (part, holding) in group.holding.runs_vec(range) {
            if !matches!(holding, Holding::Held(..)) {
                group.payload.release(part);
                group.settled.insert(part);
            }
        }
        if group.is_settled() {
            self.drop_deferred(gid);
            self.unpin_inputs(gid);
        }
    }

    pub(crate) fn unpin_inputs(&mut self, gid: Gid) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        for upstream in std::mem::take(&mut group.pinned) {
            if let Some(group) = self.groups.get_mut(upstream) {
                group.pins -= 1;
                if group.pins == 0 {
                    self.drop_deferred(upstream);
                    self.work.push_back(Work::Forget(upstream));
                }
            }
        }
    }

    fn fail_waiting(&mut self, gid: Gid, range: Range, failure: &Arc<Failure>) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let waiting: Vec<Range> = group
            .state
            .runs(range.intersection(group.all()))
            .filter(|(_, state)| matches!(state, State::Waiting(_)))
            .map(|(part, _)| part)
            .collect();
        for part in waiting {
            self.fail(gid, part, failure);
        }
    }

    /// These tasks fail, and all that depends on them.
    pub(crate) fn fail(&mut self, gid: Gid, range: Range, failure: &Arc<Failure>) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        group.failures.insert(range, Arc::clone(failure));
        let by_pattern = group.pattern_dependents.clone();
        let by_edge: Vec<(Gid, u32)> = group.edge_dependents.within(range).collect();
        self.end_tasks(gid, range, State::Failed);
        for (dependent, nth) in by_pattern {
            if let Some((param, _, len)) = self.pattern(dependent, nth as usize) {
                let touched = takers(&param, len, range);
                if !touched.is_empty() {
                    self.work.push_back(Work::Failed(dependent, touched, Arc::clone(failure)));
                }
            }
        }
        for (dependent, index) in by_edge {
            self.work.push_back(Work::Failed(dependent, Range::one(index), Arc::clone(failure)));
        }
    }

    /// These tasks need their inputs.
    pub(crate) fn add_interest(&mut self, gid: Gid, range: Range) {
        for (param, upstream) in self.patterns(gid) {
            if !is_shared(&param) {
                self.add_interest_by(&param, upstream, range);
            }
        }
        for (upstream, index) in self.edge_targets(gid, range) {
            self.add_refs(upstream, Range::one(index));
        }
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        if group.unfinished > 0 && !group.shared_interest {
            group.shared_interest = true;
            for (param, upstream) in self.patterns(gid) {
                if is_shared(&param) {
                    self.add_refs(upstream, taken(&param, 0));
                }
            }
        }
    }

    fn add_interest_by(&mut self, param: &Param, upstream: Gid, range: Range) {
        if !range.is_empty() {
            let span = Range::new(taken(param, range.start).start, taken(param, range.end - 1).end);
            self.add_refs(upstream, span);
        }
    }

    /// These tasks don't need their inputs any more.
    fn drop_interest(&mut self, gid: Gid, range: Range) {
        for (param, upstream) in self.patterns(gid) {
            if !is_shared(&param) && !range.is_empty() {
                let span =
                    Range::new(taken(&param, range.start).start, taken(&param, range.end - 1).end);
                self.drop_refs(upstream, span);
            }
        }
        for (upstream, index) in self.edge_targets(gid, range) {
            self.drop_refs(upstream, Range::one(index));
        }
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        if group.unfinished == 0 && group.shared_interest {
            group.shared_interest = false;
            for (param, upstream) in self.patterns(gid) {
                if is_shared(&param) {
                    self.drop_refs(upstream, taken(&param, 0));
                }
            }
        }
    }

    fn edge_targets(&self, gid: Gid, range: Range) -> Vec<(Gid, u32)> {
        let Some(Inputs::Edges(batch)) = self.groups.get(gid).map(|group| &group.inputs) else {
            return Vec::new();
        };
        let edges = range.iter().flat_map(|index| batch.edges_of(index));
        edges.map(|edge| (edge.group, edge.index)).collect()
    }
}
