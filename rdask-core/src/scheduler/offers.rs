//! Who was given up and comes back: its processes join under new numbers and offer what they hold.
//!
//! A nanny that joins anew names the processes that it still has. Each gets a number, registers
//! under it, and offers the values that it holds, by task and run. Until it has told all of them it
//! takes part in nothing else. A value counts if the task is to run again, or if another process
//! has the value of that very run; the others are dropped. So the dependents of a task, however
//! often it ran, never take values of two runs that both are there.
//!
//! Scattered values can't be made again. Those that only a given-up node had are waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{ArrayId, NannyId, Peer, ProcessId};
use crate::message::{Offered, Offering, Returning, ToNanny, ToProcess};
use crate::range::{Range, RangeSet};
use crate::time::Time;

use super::Scheduler;
use super::cluster::Stage;
use super::group::{Gid, Group, Holding, Inputs, State, remove_range};

/// So long the scattered values are waited for that only a node had which was given up.
pub const RETURN_AWAITED: Duration = Duration::from_secs(30);

/// A process that its nanny still has must have registered again after so long.
const RETURN_TIME: Duration = Duration::from_secs(10);

/// How many ranges one message names as being of no use.
const DROPPED_AT_ONCE: usize = 8192;

/// Scattered values that are waited for, and until when.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    /// Set while a node is being given up: until when what only it has is waited for.
    pub(crate) until: Option<Time>,
    values: BTreeMap<(Gid, u32), Time>,
}

impl Awaited {
    /// Until when a value is waited for, if it is.
    pub(crate) fn get(&self, value: (Gid, u32)) -> Option<Time> {
        self.values.get(&value).copied()
    }

    /// The values of a group that are over, or back, are not waited for any more.
    pub(crate) fn forget(&mut self, gid: Gid, range: Range) {
        let of = (gid, range.start)..(gid, range.end);
        remove_range(&mut self.values, of);
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.values.values().min().copied()
    }
}

/// What becomes of an offered value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It ends the task.
    Adopted,
    /// It is one more copy of a value that is there.
    Copy,
    /// It is known already.
    Known,
    None,
}

impl Scheduler {
    /// A nanny that has just registered still has these processes. To be called before anything else
    /// is done for it.
    pub fn handle_return(&mut self, now: Time, nanny: NannyId, returning: &[Returning]) {
        self.begin(now);
        for one in returning {
            let message = match self.readmit(nanny, one) {
                Some(process) => ToNanny::Keep { was: one.was, process },
                None => ToNanny::Kill {
                    process: one.was,
                    reason: "it was given up, and nobody needs it any more".to_owned(),
                },
            };
            self.send_nanny(nanny, message);
        }
    }

    fn readmit(&mut self, nanny: NannyId, one: &Returning) -> Option<ProcessId> {
        let workers = &self.cluster.nannies.get(&nanny)?.workers;
        let worker = *workers.get(one.worker as usize)?;
        let record = self.cluster.workers.get(&worker)?;
        let has_been = one.was.0 < self.next_id && !self.knows(one.was);
        if !has_been || record.processes.contains_key(&one.program) {
            return None;
        }
        let id = self.add_process(one.program, worker, None)?;
        if let Some(process) = self.cluster.processes.get_mut(&id) {
            process.stage = Stage::Returning;
        }
        self.leases.insert(Peer::Process(id), self.now + RETURN_TIME);
        tracing::info!(was = %one.was, process = %id, "a process that was given up is back");
        Some(id)
    }

    /// A process that is back tells what it holds.
    pub(crate) fn take_offer(&mut self, from: ProcessId, values: Vec<Offered>, is_last: bool) {
        let is_due = |stage| stage == Stage::Offering;
        if !self.cluster.processes.get(&from).is_some_and(|process| is_due(process.stage)) {
            self.stale_count += 1;
            return;
        }
        let mut useless: Vec<(ArrayId, Range)> = Vec::new();
        let mut seen: BTreeMap<ArrayId, RangeSet> = BTreeMap::new();
        let mut again: BTreeMap<ArrayId, RangeSet> = BTreeMap::new();
        for offered in values {
            let array = offered.array;
            // Nobody has a value twice: looking at the same tasks again and again would take long.
            let seen = seen.entry(array).or_default();
            if seen.intersects(offered.range) {
                again.entry(array).or_default().insert(offered.range);
                continue;
            }
            seen.insert(offered.range);
            let dropped = self.take_offered(from, &offered);
            useless.extend(dropped.into_iter().map(|range| (array, range)));
        }
        self.work_off();
        // What was taken of them the first time stays.
        for (array, ranges) in again {
            for range in ranges.iter() {
                let rest = self.not_counted(from, array, range);
                useless.extend(rest.iter().map(|range| (array, range)));
            }
        }
        for ranges in useless.chunks(DROPPED_AT_ONCE) {
            self.send_process(from, ToProcess::Drop { ranges: ranges.to_vec() });
        }
        if is_last && let Some(process) = self.cluster.processes.get_mut(&from) {
            process.stage = Stage::Running;
            self.open.insert(from);
            self.copies_have_a_place();
        }
    }

    /// Uses what counts of an offer; returns the rest.
    fn take_offered(&mut self, from: ProcessId, offered: &Offered) -> Vec<Range> {
        let range = offered.range;
        let Some(gid) = self.offered_group(from, offered) else { return vec![range] };
        let Some(group) = self.groups.get(gid) else { return vec![range] };
        let mut uses: Vec<(Range, Use)> = Vec::new();
        for index in range {
            let what = self.use_of(from, (gid, group), index, &offered.what);
            match uses.last_mut() {
                Some((part, last)) if *last == what => part.end = index + 1,
                _ => uses.push((Range::one(index), what)),
            }
        }
        let mut useless = Vec::new();
        for (part, what) in uses {
            match what {
                Use::Adopted => self.adopt(from, gid, part, offered),
                Use::Copy => part.iter().for_each(|index| self.add_whole_copy(from, gid, index)),
                Use::Known => {}
                Use::None => useless.push(part),
            }
        }
        useless
    }

    /// The group that an offer is of, if it makes sense: of the process's own program, and one
    /// value for each task.
    fn offered_group(&self, from: ProcessId, offered: &Offered) -> Option<Gid> {
        let Offered { array, range, what } = offered;
        let gid = self.groups.find(*array)?;
        let group = self.groups.get(gid)?;
        let program = self.shares.get(&group.share)?.program;
        let is_own = self.cluster.processes.get(&from)?.program == program;
        if !is_own || range.is_empty() || !group.all().covers(*range) {
            return None;
        }
        let has_parts =
            |count: usize| range.iter().all(|index| usize::from(group.parts(index)) == count);
        let fits = match what {
            Offering::Inline { blob, .. } => {
                let is_scattered = matches!(group.inputs, Inputs::Scattered(_));
                let fits = blob.check().is_ok() && blob.count() == range.len();
                fits && !is_scattered && has_parts(1)
            }
            Offering::Stored { sizes, .. } => has_parts(sizes.len()),
            Offering::Copies => true,
        };
        fits.then_some(gid)
    }

    fn use_of(
        &self,
        from: ProcessId,
        (gid, group): (Gid, &Group),
        index: u32,
        what: &Offering,
    ) -> Use {
        let is_scattered = matches!(group.inputs, Inputs::Scattered(_));
        let run = match what {
            Offering::Inline { run, .. } | Offering::Stored { run, .. } => *run,
            // Of a scattered value there is only one.
            Offering::Copies if is_scattered => group.value_run(index),
            Offering::Copies => return Use::None,
        };
        match group.state.get(index) {
            State::Done => match (group.holding.get(index), what) {
                (_, Offering::Inline { .. }) => Use::None,
                (Holding::Held(first, _), _) if first == from => Use::Known,
                (Holding::Held(..), _) if run == group.value_run(index) => Use::Copy,
                _ => Use::None,
            },
            State::Waiting(_) if is_scattered => {
                let is_awaited = self.awaited.get((gid, index)).is_some();
                if is_awaited { Use::Adopted } else { Use::None }
            }
            // Its runs so far are over; one of them ended well, and nobody heard of it or the value
            // was lost.
            State::Waiting(_) | State::Ready(_) | State::Assigned(_)
                if !is_scattered && run > 0 && run < group.run(index) =>
            {
                Use::Adopted
            }
            _ => Use::None,
        }
    }

    /// Tasks that were to run again need not: they end with what an earlier run made.
    fn adopt(&mut self, from: ProcessId, gid: Gid, range: Range, offered: &Offered) {
        // Nobody asked for their end: they may take their time, beside whatever else runs there.
        self.call_back(gid, range, false);
        self.delayed.retain(|(_, of, index)| *of != gid || !range.contains(*index));
        let Some(group) = self.groups.get_mut(gid) else { return };
        match &offered.what {
            Offering::Inline { run, blob } => {
                group.made_by.insert(range, *run);
                self.finish_inline(gid, range, offered.range.start, blob);
            }
            Offering::Stored { run, sizes } => {
                if !matches!(group.inputs, Inputs::Scattered(_)) {
                    group.made_by.insert(range, *run);
                }
                self.finish_held(from, gid, range, sizes);
            }
            Offering::Copies => {
                range.iter().for_each(|index| self.adopt_copy(from, gid, index));
            }
        }
    }

    /// A process has all outputs of a task whose value others have.
    fn add_whole_copy(&mut self, at: ProcessId, gid: Gid, index: u32) {
        let parts = self.groups.get(gid).map_or(0, |group| group.parts(index));
        (0..parts).for_each(|part| self.add_copy(at, gid, index, part));
    }

    /// What can't be made again is waited for, if it was with a node that may come back, or somebody
    /// was told to get a copy and may have it by now. Returns what is waited for.
    pub(crate) fn await_return(&mut self, gid: Gid, range: Range) -> RangeSet {
        let mut away = RangeSet::default();
        let Some(group) = self.groups.get(gid) else { return away };
        if !matches!(group.inputs, Inputs::Scattered(_)) {
            return away;
        }
        let is_away =
            |index: &u32| self.awaited.until.is_some() || self.is_copy_coming(group.task(*index));
        range.iter().filter(is_away).for_each(|index| away.insert(Range::one(index)));
        let until = self.awaited.until.unwrap_or(self.now + RETURN_AWAITED);
        let values = away.iter().flatten().map(|index| ((gid, index), until));
        self.awaited.values.extend(values);
        if let Some(group) = self.groups.get_mut(gid) {
            away.iter().for_each(|part| group.state.set(part, State::Waiting(1)));
        }
        away
    }

    /// A value has arrived at a process that was told to get a copy, and is the last one.
    pub(crate) fn adopt_copy(&mut self, at: ProcessId, gid: Gid, index: u32) {
        let group = self.groups.get(gid);
        let size = group.and_then(|group| group.sizes.get(index as usize)).copied();
        let log2 = super::finish::log2(size.unwrap_or(0));
        self.finish_held(at, gid, Range::one(index), &[log2]);
    }

    /// What has been waited for in vain is lost.
    pub(crate) fn end_awaited(&mut self) {
        if self.now < self.no_verdict_before {
            return;
        }
        let due = self.awaited.values.iter().filter(|(_, until)| **until <= self.now);
        for (gid, index) in due.map(|(value, _)| *value).collect::<Vec<_>>() {
            self.awaited.values.remove(&(gid, index));
            self.fail_lost_input(gid, Range::one(index));
        }
        self.work_off();
    }
}
