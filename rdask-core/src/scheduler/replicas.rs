//! POLICY: copies of values, made where a value has fewer holders than it should have.
//!
//! A value should have one holder that stays, so those that only leaving processes have are copied
//! off; scattered values may ask for more. What happens to holders is noted by
//! [`watch_copies`](Scheduler::watch_copies), cheaply; once per batch of facts those that are short
//! of holders are given some: the most wanted first, to processes of another pool, node, or with
//! least to take in. A process acquires ranges, and answers each value once. Who could not
//! get one is not told to again until something happens to its holders; another one is.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::id::{ArrayId, Peer, ProcessId, TaskId, WorkerId};
use crate::message::ToProcess;
use crate::range::{Range, RangeMap, RangeSet};

use super::Scheduler;
use super::cluster::{Process, Stage};
use super::group::{Gid, Group, Holding, Inputs};

/// How many bytes of values are copied off a process whose time is short: what a slow network moves
/// before Slurm ends the job.
pub(crate) const COPIED_OFF_BYTES_MAX: u64 = 1 << 30;

/// Copies fill at most this share of a worker's memory limit, in percent.
const FILLED_MAX: u64 = 60;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Values that may have too few holders, to be looked at; and those for which there was no
    /// process to copy them to.
    short: BTreeMap<Gid, RangeSet>,
    /// What processes were told to acquire and have not answered, and from whom.
    on_way: BTreeMap<ProcessId, BTreeMap<ArrayId, RangeMap<ProcessId>>>,
    /// Whether a look may find something to do.
    changed: bool,
}

impl Copies {
    fn is_coming(&self, at: ProcessId, task: TaskId) -> bool {
        let values = self.on_way.get(&at).and_then(|arrays| arrays.get(&task.array));
        values.is_some_and(|values| values.get(task.index).is_some())
    }

    /// A process has answered for a value: from whom it was to get it.
    fn answered(&mut self, at: ProcessId, task: TaskId) -> Option<ProcessId> {
        let arrays = self.on_way.get_mut(&at)?;
        let values = arrays.get_mut(&task.array)?;
        let source = *values.get(task.index)?;
        values.remove(Range::one(task.index));
        if values.is_empty() {
            arrays.remove(&task.array);
        }
        if arrays.is_empty() {
            self.on_way.remove(&at);
        }
        Some(source)
    }

    /// Who was to give what has not been answered yet.
    fn sources(&self) -> impl Iterator<Item = ProcessId> + '_ {
        let values = self.on_way.values().flat_map(BTreeMap::values);
        values.flat_map(|values| values.iter().map(|(_, from)| *from))
    }
}

/// Consecutive values that all are short of holders in the same way.
#[derive(Clone, Copy, Debug)]
struct Shortage {
    gid: Gid,
    range: Range,
    /// By how many.
    copies: u32,
    /// Who can give them.
    source: ProcessId,
    refs: u32,
}

/// What processes are given to take in at one look.
#[derive(Debug, Default)]
struct Round {
    given: BTreeMap<ProcessId, u64>,
    rooms: BTreeMap<WorkerId, u64>,
}

impl Scheduler {
    /// Something happened to the holders of these values.
    pub(crate) fn watch_copies(&mut self, gid: Gid, range: Range) {
        if let Some(group) = self.groups.get_mut(gid)
            && !group.unacquired.is_empty()
        {
            let of = (range.start, ProcessId(0))..(range.end, ProcessId(0));
            let tried: Vec<_> = group.unacquired.range(of).copied().collect();
            for one in tried {
                group.unacquired.remove(&one);
            }
        }
        self.note_short(gid, range);
    }

    fn note_short(&mut self, gid: Gid, range: Range) {
        self.copies.short.entry(gid).or_default().insert(range);
        self.copies.changed = true;
    }

    /// Whether it matters how many holders values of this group have.
    pub(crate) fn are_copies_watched(&self, gid: Gid) -> bool {
        self.groups.get(gid).is_some_and(|group| group.holders_min > 1)
            || self.cluster.processes.values().any(|process| process.leaving.is_some())
    }

    /// A process came: it can take copies.
    pub(crate) fn copies_have_a_place(&mut self) {
        self.copies.changed = true;
    }

    /// Has the values that only this process holds copied to others, up to so many bytes. From now
    /// on it counts as no holder.
    pub(crate) fn copy_off(&mut self, id: ProcessId, bytes_max: u64) {
        let Some(process) = self.cluster.processes.get_mut(&id) else { return };
        process.leaving = Some(process.leaving.unwrap_or(u64::MAX).min(bytes_max));
        let values: Vec<(Gid, RangeSet)> = process
            .held
            .iter()
            .chain(&process.copies)
            .map(|(gid, ranges)| (*gid, ranges.clone()))
            .collect();
        for (gid, ranges) in values {
            ranges.iter().for_each(|range| self.watch_copies(gid, range));
        }
        self.stop_acquiring(id);
    }

    /// What is on its way to this process does not count any more.
    pub(crate) fn stop_acquiring(&mut self, id: ProcessId) {
        for (array, values) in self.copies.on_way.remove(&id).unwrap_or_default() {
            let Some(gid) = self.groups.find(array) else { continue };
            for (range, source) in values.iter() {
                self.spend_less(*source, gid, range);
                self.watch_copies(gid, range);
            }
        }
    }

    /// Whether nothing of a process is left to copy that can be copied now or soon.
    pub(crate) fn is_copied_off(&self, id: ProcessId) -> bool {
        let Some(process) = self.cluster.processes.get(&id) else { return true };
        let is_short = |(gid, held): (&Gid, &RangeSet)| {
            let short = self.copies.short.get(gid);
            short.is_some_and(|short| held.iter().any(|part| short.intersects(part)))
        };
        let waits = process.held.iter().any(is_short) && self.is_place_coming(id);
        // Who was to be fetched from and is gone may have left its values to this process.
        let is_asked = |from: ProcessId| from == id || !self.cluster.processes.contains_key(&from);
        !waits && !self.copies.sources().any(is_asked)
    }

    /// What of a process is still to be copied, or is being copied.
    pub(crate) fn to_copy_off(&self, id: ProcessId) -> Vec<(Gid, Range)> {
        let mut all: BTreeMap<Gid, RangeSet> = BTreeMap::new();
        if let Some(process) = self.cluster.processes.get(&id)
            && self.is_place_coming(id)
        {
            for (gid, held) in &process.held {
                let Some(short) = self.copies.short.get(gid) else { continue };
                let waiting = held.iter().flat_map(|part| short.within(part));
                waiting.for_each(|part| all.entry(*gid).or_default().insert(part));
            }
        }
        for (array, values) in self.copies.on_way.values().flatten() {
            let Some(gid) = self.groups.find(*array) else { continue };
            let coming = values.iter().filter(|(_, source)| **source == id);
            coming.for_each(|(part, _)| all.entry(gid).or_default().insert(part));
        }
        let parts = |(gid, ranges): (Gid, RangeSet)| {
            ranges.iter().map(|part| (gid, part)).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(parts).collect()
    }

    /// Whether another process of the same program is being started or comes back in a worker that
    /// stays, or is silent: then it is heard again soon, or given up.
    fn is_place_coming(&self, id: ProcessId) -> bool {
        let program = self.cluster.processes.get(&id).map(|process| process.program);
        let program = program.and_then(|hash| self.programs.get(hash));
        let mut processes = program.into_iter().flat_map(|program| &program.processes);
        processes.any(|other| {
            let process = self.cluster.processes.get(other);
            let is_coming = |process: &Process| match process.stage {
                Stage::Launching | Stage::Returning | Stage::Offering => true,
                Stage::Running => {
                    process.leaving.is_none() && self.is_silent(Peer::Process(*other))
                }
                Stage::Ending => false,
            };
            *other != id
                && process.is_some_and(is_coming)
                && self.cluster.worker_of(*other).is_some_and(|worker| !worker.leaving)
        })
    }

    fn is_staying(&self, id: ProcessId) -> bool {
        let process = self.cluster.processes.get(&id);
        process.is_some_and(|process| process.stage == Stage::Running && process.leaving.is_none())
            && !self.is_silent(Peer::Process(id))
            && self.cluster.worker_of(id).is_some_and(|worker| !worker.leaving)
    }

    /// Gives holders to the values that are short of them, as far as there are processes for it.
    pub(crate) fn make_copies(&mut self) {
        if !std::mem::take(&mut self.copies.changed) || self.copies.short.is_empty() {
            return;
        }
        let mut round = Round::default();
        for shortage in self.shortages() {
            for _ in 0..shortage.copies {
                self.copy(&mut round, shortage);
            }
        }
    }

    /// Takes out what is noted and short of holders, the most wanted first.
    fn shortages(&mut self) -> Vec<Shortage> {
        let mut found: Vec<Shortage> = Vec::new();
        for (gid, ranges) in std::mem::take(&mut self.copies.short) {
            let Some(group) = self.groups.get(gid) else { continue };
            for index in ranges.iter().flatten() {
                let Some((source, copies)) = self.shortage(group, index) else { continue };
                let refs = group.refs.get(index);
                // Who could not get it is another one for each value.
                let was_tried = |index| {
                    let mut tried = group.unacquired.range((index, ProcessId(0))..);
                    tried.next().is_some_and(|(of, _)| *of == index)
                };
                match found.last_mut() {
                    // Several holders may be different ones for each value.
                    Some(last)
                        if (last.gid, last.refs, last.source) == (gid, refs, source)
                            && group.holders_min <= 1
                            && !was_tried(last.range.start)
                            && !was_tried(index)
                            && last.range.end == index =>
                    {
                        last.range.end = index + 1;
                    }
                    _ => {
                        let range = Range::one(index);
                        found.push(Shortage { gid, range, copies, source, refs });
                    }
                }
            }
        }
        found.sort_by_key(|one| (Reverse(one.refs), one.gid, one.range));
        found
    }

    /// How many holders a value lacks, and who can give it to others.
    fn shortage(&self, group: &Group, index: u32) -> Option<(ProcessId, u32)> {
        let Holding::Held(first, _) = group.holding.get(index) else { return None };
        let wanted = usize::from(group.holders_min);
        if group.refs.get(index) == 0 || (wanted <= 1 && self.is_staying(first)) {
            return None;
        }
        let holders = std::iter::once(first).chain(group.whole_copies(index));
        let staying: Vec<ProcessId> = holders.filter(|id| self.is_staying(*id)).collect();
        let task = group.task(index);
        let coming =
            self.copies.on_way.keys().filter(|at| self.copies.is_coming(**at, task)).count();
        let missing = wanted.saturating_sub(staying.len() + coming);
        let source = staying.first().copied().unwrap_or(first);
        (missing > 0).then_some((source, missing as u32))
    }

    /// Has values copied, in equal pieces to the processes that are best for it.
    fn copy(&mut self, round: &mut Round, shortage: Shortage) {
        let Shortage { gid, range, source, .. } = shortage;
        let targets = self.targets(gid, range.start, source);
        let Some((best, _)) = targets.first() else {
            self.copies.short.entry(gid).or_default().insert(range);
            return;
        };
        let equals = targets.iter().filter(|(rank, _)| rank == best).count() as u32;
        let mut rest = self.affordable(gid, range, source);
        let width = rest.len().div_ceil(equals.max(1));
        while !rest.is_empty() {
            let piece = Range::new(rest.start, rest.end.min(rest.start + width));
            rest.start = piece.end;
            let bytes = self.groups.get(gid).map_or(0, |group| bytes_of(group, piece));
            let with_room = targets.iter().filter(|(_, id)| self.room(round, *id) >= bytes);
            let with_room: Vec<((bool, bool), ProcessId)> = with_room.copied().collect();
            let given = |id: &ProcessId| round.given.get(id).copied().unwrap_or(0);
            let chosen = with_room.into_iter().min_by_key(|(rank, id)| (*rank, given(id), *id));
            let Some((_, target)) = chosen else {
                tracing::warn!(%source, bytes, "no worker has the memory for copies of its values");
                continue;
            };
            *round.given.entry(target).or_default() += bytes;
            self.acquire(target, gid, piece, source);
        }
    }

    /// The processes that can take a copy, and how far each is from the holder: the farther the
    /// safer. The best come first.
    fn targets(&self, gid: Gid, index: u32, source: ProcessId) -> Vec<((bool, bool), ProcessId)> {
        let (Some(group), Some(process)) =
            (self.groups.get(gid), self.cluster.processes.get(&source))
        else {
            return Vec::new();
        };
        let (Some(program), Some(home)) =
            (self.programs.get(process.program), self.cluster.worker_of(source))
        else {
            return Vec::new();
        };
        let task = group.task(index);
        let requirement = self.classes.get(group.class(index));
        let is_placed = matches!(group.inputs, Inputs::Scattered(_));
        let may_take = |id: &ProcessId| {
            self.is_staying(*id)
                && *id != source
                && !group.unacquired.contains(&(index, *id))
                && !self.copies.is_coming(*id, task)
                && !matches!(group.holding.get(index), Holding::Held(first, _) if first == *id)
                && !group.whole_copies(index).any(|copy| copy == *id)
        };
        let mut targets: Vec<((bool, bool), ProcessId)> = program
            .processes
            .iter()
            .filter(|id| may_take(id))
            .filter_map(|id| {
                let worker = self.cluster.worker_of(*id)?;
                let rank = (worker.pool == home.pool, worker.node == home.node);
                (!is_placed || worker.suits(requirement)).then_some((rank, *id))
            })
            .collect();
        targets.sort_unstable();
        targets
    }

    /// Those of the values that may still be copied off their holder; the first ones, if not all.
    fn affordable(&mut self, gid: Gid, range: Range, source: ProcessId) -> Range {
        let (Some(group), Some(process)) =
            (self.groups.get(gid), self.cluster.processes.get_mut(&source))
        else {
            return Range::new(0, 0);
        };
        let Some(left) = &mut process.leaving else { return range };
        let mut end = range.start;
        for index in range {
            let bytes = bytes_of(group, Range::one(index));
            if bytes > *left {
                tracing::warn!(%source, "it has more values than can be copied before it leaves");
                break;
            }
            *left -= bytes;
            end = index + 1;
        }
        Range::new(range.start, end)
    }

    /// A copy that was not made is none of those that a holder may still make.
    fn spend_less(&mut self, source: ProcessId, gid: Gid, range: Range) {
        if let Some(group) = self.groups.get(gid)
            && let Some(process) = self.cluster.processes.get_mut(&source)
            && let Some(left) = &mut process.leaving
        {
            *left = left.saturating_add(bytes_of(group, range));
        }
    }

    /// What a process's worker can take in, less what it was given at this look.
    fn room(&self, round: &mut Round, id: ProcessId) -> u64 {
        let Some(process) = self.cluster.processes.get(&id) else { return 0 };
        let Some(worker) = self.cluster.workers.get(&process.worker) else { return 0 };
        if worker.info.memory_limit == 0 {
            return u64::MAX;
        }
        let processes = || worker.processes.values();
        let room = *round.rooms.entry(process.worker).or_insert_with(|| {
            let here = processes().filter_map(|id| self.cluster.processes.get(id));
            let values = here.flat_map(|process| process.held.iter().chain(&process.copies));
            let bytes = values.map(|(gid, ranges)| {
                let of = |group| ranges.iter().map(|range| bytes_of(group, range)).sum::<u64>();
                self.groups.get(*gid).map_or(0, of)
            });
            (worker.info.memory_limit / 100 * FILLED_MAX).saturating_sub(bytes.sum())
        });
        let given = processes().filter_map(|id| round.given.get(id)).sum();
        room.saturating_sub(given)
    }

    fn acquire(&mut self, id: ProcessId, gid: Gid, range: Range, holder: ProcessId) {
        let Some(group) = self.groups.get(gid) else { return };
        let parts = group.shape(range.start).map_or(1, |shape| shape.shape.options.parts);
        let array = group.id;
        let on_way = self.copies.on_way.entry(id).or_default();
        on_way.entry(array).or_default().insert(range, holder);
        self.introduce(id, vec![holder]);
        self.send_process(id, ToProcess::Acquire { array, range, parts, holder });
    }

    /// Whether a process was told to acquire a value and has not answered.
    pub(crate) fn is_copy_coming(&self, task: TaskId) -> bool {
        self.copies.on_way.keys().any(|at| self.copies.is_coming(*at, task))
    }

    /// A process has a value now that it may have been told to acquire.
    pub(crate) fn acquired(&mut self, at: ProcessId, task: TaskId) {
        self.copies.answered(at, task);
    }

    /// A process could not get a value that it was told to acquire.
    pub(crate) fn not_acquired(&mut self, at: ProcessId, task: TaskId) {
        let Some(source) = self.copies.answered(at, task) else { return };
        let Some(gid) = self.groups.find(task.array) else { return };
        self.spend_less(source, gid, Range::one(task.index));
        let is_there = self.cluster.processes.contains_key(&source);
        match self.groups.get_mut(gid) {
            Some(group) if is_there && task.index < group.len => {
                group.unacquired.insert((task.index, at));
                self.note_short(gid, Range::one(task.index));
            }
            // Another holder may have taken the place of the source.
            _ => self.watch_copies(gid, Range::one(task.index)),
        }
    }
}

/// About how many bytes these values have: a length is known up to a factor of two.
pub(crate) fn bytes_of(group: &Group, range: Range) -> u64 {
    let each = group.holding.runs(range.intersection(group.all())).map(|(part, holding)| {
        let Holding::Held(_, log2) = holding else { return 0 };
        ((3u64 << log2.min(60)) / 4).saturating_mul(u64::from(part.len()))
    });
    each.fold(0, u64::saturating_add)
}
