//! POLICY: where the inputs of a task are, and what that is worth.
//!
//! A ready task whose inputs are with processes is tied to the one that has most of them, or, of
//! those that have about as much, the one with least to do. It waits there for as long as moving
//! the inputs would take, by measured bandwidth, and no longer: then any idle process may have it.
//! So no slot is idle for more than a transfer, and a transfer is not made where a short wait will
//! do. If the measured durations say that the wait will be longer than that, nobody waits at all.
//!
//! An array that others depend on is handed out by regions: a process goes on where it stopped, and
//! whoever begins takes the middle of the longest rest. So neighbours end up in one process, where
//! a reduction finds them. Nobody takes of another's rest ahead what that one could have ahead.

use std::time::Duration;

use crate::id::{ProcessId, ProgramHash};
use crate::message::Param;
use crate::range::Range;
use crate::time::Time;

use super::cluster::Stage;
use super::graph::{part_of, taken};
use super::group::{Gid, Group, Inputs};
use super::placement::window_ns;
use super::ready::ReadyKey;
use super::{Policy, Scheduler};

/// A process that has so many eighths of what the best one has is as good, if it has less to do.
const AS_GOOD_EIGHTHS: u64 = 7;

/// How many processes with tied work an idle one looks at.
const OWNERS_MAX: usize = 16;

/// How often in one go somebody looks whether to take what is tied to another process.
pub(super) const LOOKS_MAX: u32 = 512;

/// When to go on after that.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How many rests of an array are looked at for the longest.
const RESTS_MAX: usize = 16;

/// Whether an input is a reason to run a task here or there. What many tasks share comes to every
/// process that runs some of them, once.
pub(crate) fn ties(param: &Param, len: u32) -> bool {
    len <= 1 || !matches!(param, Param::One { .. } | Param::All { .. })
}

/// What waits for another process, and what having it here would cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tied {
    pub(super) key: ReadyKey,
    /// The last of the tasks: its owner begins with the first.
    pub(super) last: Range,
}

impl Scheduler {
    /// The process in which a task should run for the sake of its inputs.
    pub(crate) fn preferred(&self, gid: Gid, index: u32) -> Option<ProcessId> {
        let bytes = self.bytes_by_process(gid, index);
        let group = self.groups.get(gid)?;
        let program = self.shares.get(&group.share)?.program;
        let requirement = self.classes.get(group.class(index));
        let load = |id: ProcessId| {
            let process = self.cluster.processes.get(&id)?;
            let worker = self.cluster.workers.get(&process.worker)?;
            let fits = process.program == program
                && process.stage == Stage::Running
                && !worker.leaving
                && process.leaving.is_none()
                && process.alone_for.is_none()
                && worker.suits(requirement)
                && self.fits_in_time(id, group, index);
            let tasks = u64::from(process.load()) + process.tied_count;
            fits.then(|| tasks * 1000 / u64::from(process.granted.max(1)))
        };
        let able: Vec<(ProcessId, u64, u64)> =
            bytes.into_iter().filter_map(|(id, bytes)| Some((id, bytes, load(id)?))).collect();
        let most = able.iter().map(|(_, bytes, _)| *bytes).max()?;
        let good = able.iter().filter(|(_, bytes, _)| *bytes >= most / 8 * AS_GOOD_EIGHTHS);
        let best = good.min_by_key(|(id, bytes, load)| (*load, std::cmp::Reverse(*bytes), *id));
        best.map(|(id, ..)| *id)
    }

    /// How many bytes of a task's inputs each process has.
    fn bytes_by_process(&self, gid: Gid, index: u32) -> Vec<(ProcessId, u64)> {
        let mut sums: Vec<(ProcessId, u64)> = Vec::new();
        let mut add = |process: ProcessId, size: u64| match sums
            .iter_mut()
            .find(|(known, _)| *known == process)
        {
            Some((_, sum)) => *sum = sum.saturating_add(size),
            None => sums.push((process, size)),
        };
        let mut count = |group: &Group, input: u32, part: u16| {
            if let Some((holder, size)) = group.held(input, part) {
                add(holder, size);
                let copies = group.copies.get(&(input, part));
                copies.into_iter().flatten().for_each(|copy| add(*copy, size));
            }
        };
        let Some(group) = self.groups.get(gid) else { return sums };
        let Inputs::Patterns(info) = &group.inputs else {
            self.for_each_input(gid, index, &mut count);
            return sums;
        };
        for (param, upstream) in info.shape.params.iter().zip(&info.param_groups) {
            let upstream = upstream.and_then(|gid| self.groups.get(gid));
            let Some(upstream) = upstream.filter(|_| ties(param, group.len)) else { continue };
            let part = part_of(param, index);
            let range = taken(param, index).intersection(upstream.all());
            range.iter().for_each(|input| count(upstream, input, part));
        }
        sums
    }

    /// Work tied to another process that an idle one should rather have now. Where it should wait a
    /// little, that is noted, to be looked at again.
    pub(super) fn pick_tied(&mut self, id: ProcessId) -> Option<Tied> {
        let process = self.cluster.processes.get(&id).filter(|one| one.alone_for.is_none())?;
        let program = process.program;
        let owners: Vec<ProcessId> = self.tied_owners(program).take(OWNERS_MAX).collect();
        let mut soonest: Option<Time> = None;
        for owner in owners.into_iter().filter(|owner| *owner != id) {
            if self.looks_left == 0 {
                soonest = Some(self.now + LOOK_AGAIN);
                break;
            }
            self.looks_left -= 1;
            let Some((tied, at)) = self.may_take(id, owner) else { continue };
            if at <= self.now {
                return Some(tied);
            }
            soonest = Some(soonest.map_or(at, |time| time.min(at)));
        }
        if let Some(at) = soonest {
            self.look_again = Some(self.look_again.map_or(at, |time| time.min(at)));
        }
        None
    }

    /// The processes of a program with work tied to them.
    fn tied_owners(&self, program: ProgramHash) -> impl Iterator<Item = ProcessId> {
        let all = (program, ProcessId(0))..=(program, ProcessId(u32::MAX));
        self.tied.range(all).map(|(_, id)| *id)
    }

    /// What `id` could take from `owner`, and from when on it should.
    fn may_take(&self, id: ProcessId, owner: ProcessId) -> Option<(Tied, Time)> {
        let worker = self.cluster.worker_of(id)?;
        let record = self.cluster.processes.get(&owner)?;
        let (key, set) = record.local_ready.iter().next()?;
        let last = set.iter().next_back()?;
        let group = self.groups.get(key.group)?;
        let requirement = self.classes.get(group.class(last.start));
        let suits = worker.suits(requirement)
            && worker.resource_room(requirement) > 0
            && self.fits_in_time(id, group, last.start);
        if !suits {
            return None;
        }
        let there = self.bytes_by_process(key.group, last.end - 1);
        let at = |process| there.iter().find(|(one, _)| *one == process).map_or(0, |(_, sum)| *sum);
        let move_ns = self.traffic.move_ns(at(owner).saturating_sub(at(id)));
        let tied = Tied { key: *key, last };
        let stat = group.shape(last.start).and_then(|shape| self.stats.mean_ns(shape.stat));
        let queued = stat.unwrap_or(0).saturating_mul(record.tied_count);
        let wait_ns = record.queued_ns.saturating_add(queued) / u64::from(record.granted.max(1));
        let is_busy = record.idle_slots() < u32::from(requirement.threads);
        let from = if is_busy && wait_ns > move_ns {
            self.now
        } else {
            record.moved_on + Duration::from_nanos(move_ns)
        };
        Some((tied, from))
    }

    /// The tasks of an array that a process takes next, from the first one on. What it is to have
    /// `ahead` it can do without.
    pub(super) fn region(&self, gid: Gid, id: ProcessId, ahead: bool) -> Option<Range> {
        let group = self.groups.get(gid)?;
        let first = group.ready.first()?;
        if !self.goes_by_regions(group) {
            return Some(first);
        }
        if let Some(next) = group.regions.get(&id)
            && let Some(rest) = group.ready.interval(*next)
        {
            return Some(Range::new(*next, rest.end));
        }
        let longest = group
            .ready
            .iter()
            .take(RESTS_MAX)
            .max_by_key(|rest| (rest.len(), u32::MAX - rest.start))?;
        let owner = group.regions.iter().find(|(_, next)| **next == longest.start);
        let Some((owner, _)) = owner else { return Some(longest) };
        if ahead && self.has_window_for(*owner, group, longest) {
            return None;
        }
        let program = self.cluster.processes.get(&id)?.program;
        let processes = self.programs.get(program).map_or(1, |one| one.processes.len());
        Some(Range::new(self.middle(group, longest, processes), longest.end))
    }

    /// Whether a process could have all of these tasks ahead.
    fn has_window_for(&self, id: ProcessId, group: &Group, tasks: Range) -> bool {
        let Some(process) = self.cluster.processes.get(&id) else { return false };
        let stat = group.shape(tasks.start).map(|shape| shape.stat);
        let mean = stat.and_then(|stat| self.stats.mean_ns(stat)).unwrap_or(0);
        mean.saturating_mul(u64::from(tasks.len())) <= window_ns(process.granted)
    }

    /// Whether neighbours in an array should be in one process.
    pub(super) fn goes_by_regions(&self, group: &Group) -> bool {
        matches!(group.inputs, Inputs::Patterns(_))
            && self.config.policy == Policy::Locality
            && !(group.pattern_dependents.is_empty() && group.edge_dependents.is_empty())
    }

    /// Where to cut: between two blocks, if it is blocks that will be needed together.
    fn middle(&self, group: &Group, rest: Range, processes: usize) -> u32 {
        // How many processes' parts of the whole the rest is: they are told apart by halves.
        let (len, all) = (u64::from(rest.len()), u64::from(group.len.max(1)));
        let parts = ((2 * len * processes as u64 + all) / (2 * all)).max(2);
        let middle = rest.end - (len * (parts / 2)).div_ceil(parts) as u32;
        let blocks = group.pattern_dependents.iter().find_map(|(gid, nth)| {
            match self.pattern(*gid, usize::from(*nth))? {
                (Param::Block { start, width, .. }, ..) => Some((start, width)),
                _ => None,
            }
        });
        let Some((start, width)) = blocks.filter(|(start, _)| *start <= middle) else {
            return middle;
        };
        (middle - (middle - start) % width).max(rest.start)
    }
}
