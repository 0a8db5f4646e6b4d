//! Taking reports: what ended, how, and what that means for the task.

use std::sync::Arc;
use std::time::Duration;

use crate::blob::Blob;
use crate::failure::{Failure, FailureKind};
use crate::id::{ArrayId, AssignmentId, ProcessId, ValueId};
use crate::message::{End, Finished, ToProcess};
use crate::range::{Range, RangeSet};

use super::Scheduler;
use super::graph::Work;
use super::group::{Gid, Holding, Inputs, State};
use super::stealing::Asked;

/// The least number of bits that `bytes` fits in.
pub(crate) fn log2(bytes: u64) -> u8 {
    (u64::BITS - bytes.leading_zeros()) as u8
}

/// What is kept of a failure's texts, however many tasks share it.
const FAILURE_CHARS_MIN: usize = 200;

impl Scheduler {
    pub(crate) fn take_report(&mut self, from: ProcessId, number: u64, finished: Vec<Finished>) {
        for entry in finished {
            self.take_finished(from, entry);
        }
        self.work_off();
        self.open.insert(from);
        self.send_process(from, ToProcess::Seen { report: number });
    }

    fn take_finished(&mut self, from: ProcessId, finished: Finished) {
        let Finished { assignment, array, range, busy_ns, end } = finished;
        let is_consistent = match &end {
            End::Inline(blob) => blob.check().is_ok() && blob.count() == range.len(),
            End::Stored(_) | End::Failed(_) | End::Cancelled | End::Lost => true,
        };
        let gid = self.assignments.get(&assignment).map(|assignment| assignment.group);
        let is_known = is_consistent
            && gid.is_some_and(|gid| self.groups.get(gid).is_none_or(|group| group.id == array));
        // A run that has timed out keeps its slot until it has stopped.
        let goes_on = matches!(&end, End::Failed(failure) if failure.kind == FailureKind::TimedOut);
        let parts = match is_known {
            true if goes_on => self.still_assigned(from, assignment, range),
            true => self.account(from, assignment, range),
            false => Vec::new(),
        };
        let (Some(gid), false) = (gid, parts.is_empty()) else {
            self.stale_count += 1;
            if let End::Stored(_) = end {
                self.take_late_results(from, assignment, array, range);
            }
            return;
        };
        self.charge(gid, range, busy_ns, &end);
        for part in parts {
            let states = match self.groups.get(gid) {
                Some(group) => group.state.runs_vec(part),
                // All of it was released while it ran.
                None => vec![(part, State::Dropped)],
            };
            for (part, state) in states {
                if state == State::Assigned(assignment) {
                    self.apply_end(from, gid, part, range.start, &end);
                } else if let End::Stored(_) = end {
                    // Cancelled or dropped while it ran.
                    self.take_late_results(from, assignment, array, part);
                }
            }
        }
    }

    /// Results came that nobody waits for. Of a scattered value there is only one, so it is as good as
    /// those that others have: the process may just have been asked to hold it. Others are dropped.
    /// The process may have been given the same tasks again since, and have ended them: so it is said
    /// which results are meant. What it counts as a holder of stays, whoever made that.
    fn take_late_results(
        &mut self,
        from: ProcessId,
        assignment: AssignmentId,
        array: ArrayId,
        range: Range,
    ) {
        let mut late = self.not_counted(from, array, range);
        let program = self.cluster.processes.get(&from).map(|process| process.program);
        let gid = self.groups.find(array);
        if let Some((gid, group)) = gid.and_then(|gid| Some((gid, self.groups.get(gid)?)))
            && matches!(group.inputs, Inputs::Scattered(_))
            && self.shares.get(&group.share).map(|share| share.program) == program
        {
            let is_held = |index: u32| matches!(group.holding.get(index), Holding::Held(..));
            let of_group = late.within(group.all()).flatten().map(|index| (index, is_held(index)));
            for (index, is_held) in of_group.collect::<Vec<(u32, bool)>>() {
                if is_held {
                    self.add_copy(from, gid, index, 0);
                } else if self.awaited.get((gid, index)).is_some() {
                    self.adopt_copy(from, gid, index);
                } else {
                    continue;
                }
                late.remove(Range::one(index));
            }
        }
        for range in late.iter() {
            self.send_process(from, ToProcess::DropResults { assignment, array, range });
        }
    }

    /// Those of these tasks of whose values a process counts as no holder.
    pub(crate) fn not_counted(&self, from: ProcessId, array: ArrayId, range: Range) -> RangeSet {
        let mut rest = RangeSet::from(range);
        if let Some(gid) = self.groups.find(array)
            && let Some(process) = self.cluster.processes.get(&from)
        {
            for counted in
                [&process.held, &process.copies].into_iter().filter_map(|all| all.get(&gid))
            {
                counted.within(range).for_each(|part| rest.remove(part));
            }
        }
        rest
    }

    /// Which of these tasks are on an assignment, and stay there.
    fn still_assigned(&mut self, from: ProcessId, id: AssignmentId, range: Range) -> Vec<Range> {
        let assignment = self.assignments.get(&id).filter(|one| one.process == from);
        let Some(assignment) = assignment else { return Vec::new() };
        let parts: Vec<Range> = assignment.remaining.within(range).collect();
        parts.iter().for_each(|part| self.expect_stop(id, *part));
        parts
    }

    /// Takes tasks off an assignment; says which of them were on it.
    pub(crate) fn account(
        &mut self,
        from: ProcessId,
        id: AssignmentId,
        range: Range,
    ) -> Vec<Range> {
        let Some(assignment) = self.assignments.get_mut(&id).filter(|one| one.process == from)
        else {
            return Vec::new();
        };
        let parts: Vec<Range> = assignment.remaining.within(range).collect();
        let count: u32 = parts.iter().map(|part| part.len()).sum();
        assignment.remaining.remove(range);
        let estimate = assignment.mean_ns.saturating_mul(u64::from(count));
        let slots = u32::from(assignment.threads) * count;
        let (class, gid) = (assignment.class, assignment.group);
        let is_empty = assignment.remaining.is_empty();
        if is_empty {
            self.assignments.remove(&id);
        }
        if let Some(process) = self.cluster.processes.get_mut(&from) {
            if process.asked == Asked::InVain {
                process.asked = Asked::Not;
            }
            process.demand = process.demand.saturating_sub(slots);
            process.queued_ns = process.queued_ns.saturating_sub(estimate);
            process.moved_on = self.now;
            if is_empty {
                process.assignments.remove(&id);
            }
            if let Some(worker) = self.cluster.workers.get_mut(&process.worker) {
                worker.give_resources(self.classes.get(class), count);
            }
        }
        if let Some(share) =
            self.groups.get(gid).and_then(|group| self.shares.get_mut(&group.share))
        {
            share.used_ns = share.used_ns.saturating_sub(estimate);
        }
        parts
    }

    /// Counts the time that runs took, for their share and for estimates to come.
    fn charge(&mut self, gid: Gid, range: Range, busy_ns: u64, end: &End) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let threads = group.shape(range.start).map_or(1, |shape| shape.shape.options.threads);
        if let Some(share) = self.shares.get_mut(&group.share) {
            share.used_ns =
                share.used_ns.saturating_add(busy_ns.saturating_mul(u64::from(threads)));
        }
        if let (Some(shape), End::Inline(_) | End::Stored(_)) = (group.shape(range.start), end) {
            let busy = Duration::from_nanos(busy_ns);
            self.stats.measured(shape.stat, u64::from(range.len()), busy);
        }
    }

    /// The tasks of `range` ended; `start` is the first task that `end` speaks of.
    fn apply_end(&mut self, from: ProcessId, gid: Gid, range: Range, start: u32, end: &End) {
        let parts = self.groups.get(gid).map_or(1, |group| group.parts(range.start));
        match end {
            End::Inline(_) if parts > 1 => self.finish_unfit(from, gid, range),
            End::Inline(blob) => self.finish_inline(gid, range, start, blob),
            End::Stored(sizes) => self.finish_stored(from, gid, range, start, sizes),
            End::Failed(failure) => self.finish_failed(from, gid, range, failure),
            // Nobody asked for it any more when it was told, and somebody does again.
            End::Cancelled => self.recompute_assigned(gid, range, false),
            End::Lost => self.recompute_assigned(gid, range, true),
        }
    }

    pub(crate) fn finish_inline(&mut self, gid: Gid, range: Range, start: u32, blob: &Blob) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let whole = range.start == start && range.len() == blob.count();
        let piece = if whole {
            blob.clone()
        } else {
            blob.slice(Range::new(range.start - start, range.end - start)).compact()
        };
        self.result_bytes += group.results.insert(range.start, piece) as u64;
        group.holding.set(range, Holding::Inline);
        self.end_tasks(gid, range, State::Done);
    }

    /// The results have one output where several are to be.
    fn finish_unfit(&mut self, from: ProcessId, gid: Gid, range: Range) {
        let Some(origin) = self.groups.get(gid).map(|group| group.task(range.start)) else {
            return;
        };
        let text = "it has one output where several are to be";
        let failure = Failure::of_scheduler(FailureKind::Unrunnable, text, origin);
        self.finish_failed(from, gid, range, &failure);
    }

    fn finish_stored(
        &mut self,
        from: ProcessId,
        gid: Gid,
        range: Range,
        start: u32,
        sizes: &[u64],
    ) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let parts = group.shape(range.start).map_or(1, |shape| shape.shape.options.parts);
        for index in range {
            let first = (index - start) as usize * parts as usize;
            let own = sizes.get(first..first + parts as usize).unwrap_or_default();
            let size = own.iter().fold(0u64, |sum, size| sum.saturating_add(*size));
            if parts > 1 {
                let sizes = own.iter().map(|size| log2(*size)).collect();
                group.part_sizes.insert(index, sizes);
            }
            group.holding.set(Range::one(index), Holding::Held(from, log2(size)));
        }
        self.held_by(from, gid, range);
    }

    /// These tasks are done with values that a process has: each output of each of them of so many
    /// bits in length.
    pub(crate) fn finish_held(&mut self, from: ProcessId, gid: Gid, range: Range, sizes: &[u8]) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let bytes = |log2: &u8| 1u64.checked_shl(u32::from(*log2)).map_or(u64::MAX, |it| it - 1);
        let size = sizes.iter().map(bytes).fold(0, u64::saturating_add);
        group.holding.set(range, Holding::Held(from, log2(size)));
        if sizes.len() > 1 {
            group.part_sizes.extend(range.iter().map(|index| (index, sizes.into())));
        }
        self.held_by(from, gid, range);
    }

    fn held_by(&mut self, from: ProcessId, gid: Gid, range: Range) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let mut is_short = group.holders_min > 1;
        if let Some(process) = self.cluster.processes.get_mut(&from) {
            process.held.entry(gid).or_default().insert(range);
            is_short |= process.leaving.is_some();
        }
        if is_short {
            self.watch_copies(gid, range);
        }
        self.end_tasks(gid, range, State::Done);
    }

    fn finish_failed(&mut self, from: ProcessId, gid: Gid, range: Range, failure: &Failure) {
        // Each task keeps its failure: all together keep no more than a message may bring.
        let chars_max = (Failure::TEXT_MAX / range.len().max(1) as usize).max(FAILURE_CHARS_MIN);
        let failure = &failure.shortened(chars_max);
        for index in range {
            let Some(group) = self.groups.get_mut(gid) else {
                return;
            };
            let run = group.run(index);
            let options = group.shape(index).map(|shape| &shape.shape.options);
            let (retries, delay) = options
                .map_or((0, Duration::ZERO), |options| (options.retries, options.retry_delay));
            let tries = group.tries.entry(index).or_insert(0);
            *tries += 1;
            let may_retry = *tries <= retries && failure.kind != FailureKind::Unrunnable;
            if may_retry {
                self.recompute_assigned(gid, Range::one(index), true);
                self.delay(gid, index, delay);
                continue;
            }
            group.tries.remove(&index);
            let mut failure = failure.clone();
            failure.origin = group.task(index);
            failure.run = run;
            if failure.function.is_empty() {
                failure.function =
                    group.shape(index).map_or(String::new(), |shape| shape.shape.name.clone());
            }
            if let Some(worker) = self.cluster.worker_of(from) {
                failure.worker = Some(worker.info.name.clone());
                failure.node = Some(worker.node.clone());
            }
            self.fail(gid, Range::one(index), &Arc::new(failure));
        }
    }

    /// Holds a ready task back for a while.
    pub(crate) fn delay(&mut self, gid: Gid, index: u32, delay: Duration) {
        if delay.is_zero() {
            return;
        }
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let state = group.state.get(index);
        let missing = match state {
            State::Waiting(missing) => missing + 1,
            State::Ready(_) => 1,
            _ => return,
        };
        self.unready(gid, Range::one(index), state);
        if let Some(group) = self.groups.get_mut(gid) {
            group.state.set(Range::one(index), State::Waiting(missing));
        }
        self.delayed.insert((self.now + delay, gid, index));
    }

    pub(crate) fn end_delays(&mut self) {
        while let Some((time, gid, index)) = self.delayed.first().copied()
            && time <= self.now
        {
            self.delayed.pop_first();
            self.work.push_back(Work::Satisfied(gid, Range::one(index)));
        }
        self.work_off();
    }

    /// A process says that it will not run these tasks; others may. Returns which these were.
    pub(crate) fn give_back(
        &mut self,
        from: ProcessId,
        id: AssignmentId,
        range: Range,
    ) -> Vec<(Gid, Range)> {
        let gid = self.assignments.get(&id).map(|assignment| assignment.group);
        let parts = self.account(from, id, range);
        self.open.insert(from);
        let mut given_back = Vec::new();
        let Some(gid) = gid else {
            self.stale_count += 1;
            return given_back;
        };
        for part in parts {
            let Some(group) = self.groups.get(gid) else {
                return given_back;
            };
            for (part, state) in group.state.runs_vec(part) {
                if state == State::Assigned(id) {
                    self.recompute_assigned(gid, part, false);
                    given_back.push((gid, part));
                }
            }
        }
        self.work_off();
        given_back
    }

    /// Copies of values have arrived at a process.
    pub(crate) fn copied(&mut self, at: ProcessId, values: &[ValueId]) {
        let mut useless = Vec::new();
        for ValueId { task, part } in values {
            self.acquired(at, *task);
            self.not_missed(*task);
            if let Some(gid) = self.groups.find(task.array)
                && self.awaited.get((gid, task.index)).is_some()
            {
                self.adopt_copy(at, gid, task.index);
                continue;
            }
            let wanted = self.groups.find(task.array).filter(|gid| {
                self.groups.get(*gid).is_some_and(|group| {
                    task.index < group.len
                        && *part < group.parts(task.index)
                        && matches!(group.holding.get(task.index), Holding::Held(..))
                })
            });
            let Some(gid) = wanted else {
                // It may have been told to make the value again by now, or have made it.
                useless.push(ValueId { task: *task, part: *part });
                continue;
            };
            let Some(group) = self.groups.get(gid) else {
                continue;
            };
            if matches!(group.holding.get(task.index), Holding::Held(first, _) if first == at) {
                continue;
            }
            self.add_copy(at, gid, task.index, *part);
        }
        self.work_off();
        if !useless.is_empty() {
            self.send_process(at, ToProcess::DropCopies { values: useless });
        }
    }

    /// A process has a copy of an output of which another one is the first holder.
    pub(crate) fn add_copy(&mut self, at: ProcessId, gid: Gid, index: u32, part: u16) {
        let Some(group) = self.groups.get_mut(gid) else { return };
        let copies = group.copies.entry((index, part)).or_default();
        if !copies.contains(&at) {
            copies.push(at);
        }
        if let Some(process) = self.cluster.processes.get_mut(&at) {
            process.copies.entry(gid).or_default().insert(Range::one(index));
        }
    }

    /// Processes have fetched values from others.
    pub(crate) fn bytes_moved(&mut self, bytes: u64, busy_ns: u64) {
        self.traffic.measured(bytes, busy_ns);
    }

    pub(crate) fn parked(&mut self, process: ProcessId, runs: u32, slots: u32) {
        if let Some(record) = self.cluster.processes.get_mut(&process) {
            record.parked_runs = runs;
            record.parked_slots = slots;
            self.open.insert(process);
            self.laden.insert(process);
        }
    }

    /// A client has put a scattered value before, and who took it is gone: nobody has it.
    pub(crate) fn put_gone(&mut self, id: AssignmentId) {
        let Some(assignment) = self.assignments.get(&id) else {
            return;
        };
        let (process, gid) = (assignment.process, assignment.group);
        if self.groups.get(gid).is_none_or(|group| !matches!(group.inputs, Inputs::Scattered(_))) {
            self.stale_count += 1;
            return;
        }
        let remaining: Vec<Range> = assignment.remaining.iter().collect();
        for range in remaining {
            self.account(process, id, range);
            let states = self.groups.get(gid).map(|group| group.state.runs_vec(range));
            for (part, state) in states.unwrap_or_default() {
                if state == State::Assigned(id) {
                    self.fail_lost_input(gid, part);
                }
            }
        }
        self.open.insert(process);
        self.work_off();
    }

    /// The client that had these scattered values is gone: those that no process has are lost.
    pub(crate) fn lose_puts(&mut self, gid: Gid) {
        let Some(group) = self.groups.get(gid) else { return };
        if !matches!(group.inputs, Inputs::Scattered(_)) {
            return;
        }
        for (part, state) in group.state.runs_vec(group.all()) {
            match state {
                State::Ready(_) => {
                    for puts in self.puts.values_mut() {
                        puts.retain(|(of, index)| *of != gid || !part.contains(*index));
                    }
                    self.fail_lost_input(gid, part);
                }
                State::Assigned(id) => self.put_gone(id),
                _ => {}
            }
        }
        self.work_off();
    }

    pub(crate) fn fail_lost_input(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let failure = Failure::of_scheduler(
            FailureKind::InputLost,
            "its client or the only process that had the value was lost",
            group.task(range.start),
        );
        self.fail(gid, range, &Arc::new(failure));
    }

    /// A client could not put a scattered value with the process that was chosen.
    pub(crate) fn put_failed(&mut self, id: AssignmentId, message: &str) {
        let Some(assignment) = self.assignments.get(&id) else {
            return;
        };
        let (process, gid) = (assignment.process, assignment.group);
        let scattered =
            self.groups.get(gid).is_some_and(|group| matches!(group.inputs, Inputs::Scattered(_)));
        if scattered {
            tracing::warn!(%process, message, "a scattered value could not be put; trying elsewhere");
            let all: RangeSet =
                self.assignments.get(&id).map(|one| one.remaining.clone()).unwrap_or_default();
            for range in all.iter() {
                self.give_back(process, id, range);
            }
        }
    }
}
