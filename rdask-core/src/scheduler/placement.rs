//! POLICY: which process gets which ready tasks, and how many at a time.
//!
//! Ready work stays here until a process has room (late binding). First every idle slot gets a
//! run, the emptiest process first; then windows are filled in turns, so that a process has work for
//! the time of a round trip. A window is sized in time by the measured mean of the function: tasks that
//! take longer than the window are handed out one per slot, so that they need not be stolen back.

use std::time::Duration;

use crate::blob::Blob;
use crate::failure::{Failure, FailureKind};
use crate::id::{AssignmentId, Peer, ProcessId, ProgramHash};
use crate::message::{
    Assign, CHUNK_BYTES_MAX, Feed, INLINE_RESULT_BYTES_MAX, Param, Place, Source, ToClient,
    ToProcess,
};
use crate::range::{Range, RangeSet};

use super::cluster::{Process, Stage, Worker};
use super::feeds::{FEED_BYTES_MAX, TASK_FEED_BYTES_MAX, send_ahead, source_bytes};
use super::graph::{part_of, taken};
use super::group::{Gid, Group, Holding, Inputs, State};
use super::locality::{LOOKS_MAX, Tied};
use super::ready::{ClassNo, ReadyKey, ShareNo};
use super::stealing::Asked;
use super::{Assignment, Policy, Scheduler};

/// How much work a process should have, per slot. Two round trips take well below 1 ms; the rest is
/// for the time that a busy machine takes to schedule a thread.
const WINDOW: Duration = Duration::from_millis(8);

/// How many tasks are handed out ahead for one of theirs that was short. With fewer, a long row of
/// short ones waits for more round trips until its window is open.
const GROWTH: u64 = 8;

/// A round trip is less than a hundredth of a task that takes longer.
const LONG_TASK_NS: u64 = 100_000_000;

/// How many groups are looked at for one whose tasks end before their worker does.
const LOOKED_AT_MAX: usize = 64;

/// The most tasks of one assignment.
const ASSIGN_TASKS_MAX: u32 = 64 * 1024;

/// Where the next work for a process comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick {
    /// Ready tasks tied to no process.
    Central { gid: Gid },
    /// Ready tasks whose inputs this process has.
    Local { key: ReadyKey },
}

impl Scheduler {
    /// Hands out ready work as far as there is room.
    pub(crate) fn place(&mut self) {
        self.look_again = None;
        if !self.has_ready() {
            return;
        }
        let open: Vec<ProcessId> = self.open.iter().copied().collect();
        let mut order: Vec<(u64, ProcessId)> = Vec::with_capacity(open.len());
        for id in open {
            match self.cluster.processes.get(&id) {
                Some(process)
                    if process.stage == Stage::Running
                        && process.leaving.is_none()
                        && !self.is_silent(Peer::Process(id)) =>
                {
                    let load = u64::from(process.load()) * 1000 / u64::from(process.granted.max(1));
                    order.push((load, id));
                }
                _ => {
                    self.open.remove(&id);
                }
            }
        }
        order.sort_unstable();
        self.looks_left = LOOKS_MAX;
        if let Policy::Random { .. } = self.config.policy {
            let ids: Vec<ProcessId> = order.iter().map(|(_, id)| *id).collect();
            self.place_at_random(&ids);
        } else {
            self.place_by_load(&order);
        }
        // Those that could take more stay open; nothing that they could take is left.
        for (_, id) in order {
            let is_full = self.cluster.processes.get(&id).is_none_or(|process| {
                process.idle_slots() == 0
                    && process.queued_ns >= window_ns(process.granted)
                    && (runs_one_ahead(process) == 0 || runs_are_long(process))
            });
            if is_full {
                self.open.remove(&id);
            }
        }
    }

    /// Whether anything waits for a process, or for a certain one.
    fn has_ready(&self) -> bool {
        !self.tied.is_empty() || self.shares.values().any(super::Share::has_ready)
    }

    fn place_by_load(&mut self, order: &[(u64, ProcessId)]) {
        // Again as long as it helps: what wants several slots holds up the few idle ones of a process
        // until another process has taken it.
        let mut has_given = true;
        while has_given {
            has_given = false;
            for (_, id) in order {
                while self.has_ready()
                    && let Some(idle) = self.idle_slots(*id)
                    && self.fill(*id, idle, false)
                {
                    has_given = true;
                }
            }
            // Who is idle still may take what waits for others.
            for (_, id) in order {
                while !self.tied.is_empty()
                    && let Some(idle) = self.idle_slots(*id)
                    && self.fill_with_tied(*id, idle)
                {
                    has_given = true;
                }
            }
        }
        // In turns: the first in the order must not take ahead what the last one could begin with.
        let mut takers: Vec<ProcessId> = order.iter().map(|(_, id)| *id).collect();
        while self.has_ready() && !takers.is_empty() {
            takers.retain(|id| self.has_ready() && self.fill(*id, 0, true));
        }
    }

    pub(super) fn idle_slots(&self, id: ProcessId) -> Option<u32> {
        let process = self.cluster.processes.get(&id)?;
        let worker = self.cluster.workers.get(&process.worker)?;
        let idle = process.idle_slots();
        (idle > 0 && !worker.leaving).then_some(idle)
    }

    /// Gives one assignment to a process; says whether there was one to give.
    pub(super) fn fill(&mut self, id: ProcessId, idle: u32, ahead: bool) -> bool {
        let Some(pick) = self.pick(id) else {
            return false;
        };
        let (gid, tasks) = match pick {
            Pick::Central { gid } => {
                let Some(tasks) = self.region(gid, id, ahead) else {
                    return false;
                };
                (gid, tasks)
            }
            Pick::Local { key } => {
                let set = self.cluster.processes.get(&id).and_then(|one| one.local_ready.get(&key));
                let Some(first) = set.and_then(RangeSet::first) else {
                    return false;
                };
                (key.group, first)
            }
        };
        let count = self.count_for(id, gid, tasks, idle, ahead);
        if count == 0 {
            return false;
        }
        let mut tasks = Range::new(tasks.start, tasks.start + count.min(tasks.len()));
        tasks.end = self.end_with_followers(id, gid, tasks);
        let Some(end) = self.assign(id, gid, tasks) else {
            return false;
        };
        if let Pick::Central { .. } = pick {
            self.note_region(gid, id, end);
        }
        if let Some(process) = self.cluster.processes.get_mut(&id) {
            process.moved_on = self.now;
        }
        true
    }

    /// Gives an idle process what waits for another one, if it should.
    fn fill_with_tied(&mut self, id: ProcessId, idle: u32) -> bool {
        let Some(Tied { key, last }) = self.pick_tied(id) else {
            return false;
        };
        let count = self.count_for(id, key.group, last, idle, false).min(last.len());
        count > 0 && self.assign(id, key.group, Range::new(last.end - count, last.end)).is_some()
    }

    /// A process has got tasks of an array up to here.
    fn note_region(&mut self, gid: Gid, id: ProcessId, end: u32) {
        if self.groups.get(gid).is_some_and(|group| self.goes_by_regions(group))
            && let Some(group) = self.groups.get_mut(gid)
        {
            group.regions.insert(id, end);
        }
    }

    /// What goes first for this process. Its own local work wins a tie.
    pub(super) fn pick(&self, id: ProcessId) -> Option<Pick> {
        let process = self.cluster.processes.get(&id)?;
        let worker = self.cluster.workers.get(&process.worker)?;
        // What waits for resources must not hold up what needs none.
        let has_room = |key: &ReadyKey, ranges: &RangeSet| {
            let (group, first) = (self.groups.get(key.group)?, ranges.first()?);
            Some(worker.resource_room(self.classes.get(group.class(first.start))) > 0)
        };
        let mut local = process.local_ready.iter();
        let local = local.find(|(key, ranges)| has_room(key, ranges) == Some(true));
        let local = local.map(|(key, _)| *key);
        let central = self.pick_central(id, process.program);
        match (local, central) {
            (Some(local), Some(central)) if central < local => {
                Some(Pick::Central { gid: central.group })
            }
            (Some(key), _) => Some(Pick::Local { key }),
            (None, Some(key)) => Some(Pick::Central { gid: key.group }),
            (None, None) => None,
        }
    }

    /// The head of the queue of the client whose turn it is.
    fn pick_central(&self, id: ProcessId, program: ProgramHash) -> Option<ReadyKey> {
        let process = self.cluster.processes.get(&id)?;
        let worker = self.cluster.workers.get(&process.worker)?;
        let own_only = process.parked_runs >= PARKED_RUNS_MAX || process.alone_for.is_some();
        let head = |share: &super::Share| {
            let suited = share.queues.iter().filter(|(class, _)| {
                let requirement = self.classes.get(**class);
                **class == ClassNo::ANY
                    || (worker.suits(requirement) && worker.resource_room(requirement) > 0)
            });
            let may_start = |key: &&ReadyKey| {
                self.groups.get(key.group).is_some_and(|group| {
                    let first = group.ready.first().map_or(0, |tasks| tasks.start);
                    (!own_only || group.nested_in == Some(id))
                        && self.fits_in_time(id, group, first)
                })
            };
            let heads = suited.filter_map(|(_, queue)| {
                if own_only {
                    queue.iter().find(may_start)
                } else if worker.ends_at.is_some() {
                    queue.iter().take(LOOKED_AT_MAX).find(may_start)
                } else {
                    queue.first()
                }
            });
            heads.min().copied()
        };
        let mut best: Option<(u64, ShareNo, ReadyKey)> = None;
        for (number, share) in &self.shares {
            if share.program == program
                && share.has_ready()
                && best.is_none_or(|(used, ..)| share.used_ns < used)
                && let Some(key) = head(share)
            {
                best = Some((share.used_ns, *number, key));
            }
        }
        best.map(|(.., key)| key)
    }

    /// How many of `tasks` to give to a process in one assignment.
    fn count_for(&self, id: ProcessId, gid: Gid, tasks: Range, idle: u32, ahead: bool) -> u32 {
        let (Some(process), Some(group)) = (self.cluster.processes.get(&id), self.groups.get(gid))
        else {
            return 0;
        };
        let Some(worker) = self.cluster.workers.get(&process.worker) else {
            return 0;
        };
        let requirement = self.classes.get(group.class(tasks.start));
        let threads = u32::from(requirement.threads);
        let by_resources = worker.resource_room(requirement).min(ASSIGN_TASKS_MAX);
        if !ahead {
            // A task that wants more slots than are idle waits until they are: it would only hold
            // up others in the process.
            return (idle / threads).min(by_resources);
        }
        // What is left is shared out, so that no process sits idle beside a full one.
        let (left, slots) = self.left_to_share(process.program, group, tasks);
        let fair = (left * u64::from(process.granted)).div_ceil(slots.max(1));
        let room = self.room_ahead(process, group, tasks.start);
        room.min(fair.max(u64::from(process.granted))).min(u64::from(by_resources)) as u32
    }

    /// How many tasks like this one a process may have beyond what its slots run.
    pub(super) fn room_ahead(&self, process: &Process, group: &Group, index: u32) -> u64 {
        let requirement = self.classes.get(group.class(index));
        let is_leaving = |worker: &Worker| worker.leaving;
        let is_plain = requirement.threads <= 1 && requirement.resources.is_empty();
        if !is_plain || self.cluster.workers.get(&process.worker).is_none_or(is_leaving) {
            return 0;
        }
        let stat = group.shape(index).map(|shape| shape.stat);
        let Some((mean, runs)) =
            stat.and_then(|stat| Some((self.stats.mean_ns(stat)?, self.stats.runs(stat))))
        else {
            return 0;
        };
        let by_time = window_ns(process.granted).saturating_sub(process.queued_ns) / mean.max(1);
        // By number, not by time: where durations vary, what is queued was estimated by another
        // mean than today's, and a slot that has nothing ahead waits for a round trip.
        let one_ahead = if mean <= LONG_TASK_NS { runs_one_ahead(process) } else { 0 };
        // As in slow start: no more ahead than so many times those that have proved short.
        let proven = runs.saturating_mul(GROWTH);
        by_time.max(one_ahead).min(proven).min(u64::from(ASSIGN_TASKS_MAX))
    }

    /// Ready tasks of the group, and the slots of the program's processes.
    fn left_to_share(&self, program: ProgramHash, group: &Group, tasks: Range) -> (u64, u64) {
        let slots = self.programs.get(program).map_or(1, |program| program.granted);
        (group.ready.len().max(u64::from(tasks.len())), slots)
    }

    /// Hands the first tasks of `tasks` to a process, as many as one assignment can say. Says where
    /// they end.
    pub(crate) fn assign(&mut self, id: ProcessId, gid: Gid, tasks: Range) -> Option<u32> {
        let (tasks, payload) = self.cut(gid, tasks)?;
        let group = self.groups.get(gid)?;
        let shape = group.shape(tasks.start)?;
        let options = shape.shape.options.clone();
        let (class, stat, function) = (shape.class, shape.stat, shape.shape.function);
        let (tasks, mut params, feed_bytes) = match self.feeds(gid, tasks) {
            Ok(fed) => fed,
            Err(refused) => {
                self.refuse_oversized(gid, refused);
                return Some(refused.end);
            }
        };
        let payload = payload.slice(Range::new(0, tasks.len()));
        let assignment = AssignmentId(self.next_assignment);
        self.next_assignment += 1;
        let mean_ns = self.stats.mean_ns(stat).unwrap_or(0);
        let group = self.groups.get_mut(gid)?;
        let runs: Vec<(Range, u32)> =
            group.runs.within(tasks).map(|(part, run)| (part, *run)).collect();
        let (array, depth, share, nested_in) =
            (group.id, group.depth, group.share, group.nested_in);
        let holders = self.holders_named(&params, id);
        let name = options.name.clone();
        self.mark_assigned(id, gid, tasks, assignment);
        let record = Assignment {
            process: id,
            group: gid,
            remaining: RangeSet::from(tasks),
            class,
            threads: options.threads,
            mean_ns,
        };
        self.assignments.insert(assignment, record);
        let estimate = mean_ns.saturating_mul(u64::from(tasks.len()));
        if let Some(share) = self.shares.get_mut(&share) {
            share.used_ns = share.used_ns.saturating_add(estimate);
        }
        if let Some(process) = self.cluster.processes.get_mut(&id) {
            process.assignments.insert(assignment);
            if process.asked == Asked::InVain {
                process.asked = Asked::Not;
            }
            process.demand += u32::from(options.threads) * tasks.len();
            self.laden.insert(id);
            process.queued_ns = process.queued_ns.saturating_add(estimate);
            if let Some(worker) = self.cluster.workers.get_mut(&process.worker) {
                worker.take_resources(self.classes.get(class), tasks.len());
            }
        }
        self.introduce(id, holders);
        if feed_bytes > FEED_BYTES_MAX {
            for message in send_ahead(assignment, &mut params) {
                self.send_process(id, message);
            }
        }
        let message = Assign {
            assignment,
            array,
            range: tasks,
            function,
            name,
            depth,
            priority: options.priority,
            threads: options.threads,
            parts: options.parts,
            nested_here: nested_in == Some(id),
            timeout: options.timeout,
            inline_max: self.inline_max(),
            payload,
            params,
            runs,
        };
        self.send_process(id, ToProcess::Assign(message));
        Some(tasks.end)
    }

    /// Results of more bytes stay with processes: all of them when there is no room here.
    fn inline_max(&self) -> u32 {
        let has_room = self.result_bytes < self.config.result_bytes_max;
        if has_room { INLINE_RESULT_BYTES_MAX as u32 } else { 0 }
    }

    fn mark_assigned(&mut self, id: ProcessId, gid: Gid, tasks: Range, assignment: AssignmentId) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        for (part, state) in group.state.runs_vec(tasks) {
            self.unready(gid, part, state);
        }
        if let Some(group) = self.groups.get_mut(gid) {
            group.state.set(tasks, State::Assigned(assignment));
        }
        debug_assert!(self.cluster.processes.contains_key(&id));
    }

    /// The first tasks of `tasks` that have one shape and whose payload lies in one piece.
    fn cut(&self, gid: Gid, tasks: Range) -> Option<(Range, Blob)> {
        let group = self.groups.get(gid)?;
        let mut tasks = tasks;
        if let Inputs::Edges(batch) = &group.inputs {
            let shape = batch.shape_of[tasks.start as usize];
            let same = tasks.iter().take_while(|index| batch.shape_of[*index as usize] == shape);
            tasks.end = tasks.start + same.count() as u32;
        }
        if !group.has_payload() {
            return Some((tasks, Blob::empty(tasks.len())));
        }
        let payload = group.payload.slice(tasks)?;
        // The piece may be one large slice for all, or less than was asked for.
        let mut count = payload.count();
        if payload.byte_len() > CHUNK_BYTES_MAX {
            let mut bytes = 0;
            let fits = payload.iter().take_while(|string| {
                bytes += string.len();
                bytes <= CHUNK_BYTES_MAX
            });
            count = (fits.count() as u32).max(1);
        }
        let tasks = Range::new(tasks.start, tasks.start + count);
        Some((tasks, payload.slice(Range::new(0, count))))
    }

    /// Where each parameter comes from, for as many of `tasks` as one frame can say, but for at
    /// least one; and how many bytes that takes.
    ///
    /// # Errors
    /// With those of `tasks` whose inputs are too many: all of them if it is what they share, else
    /// the first.
    fn feeds(&self, gid: Gid, tasks: Range) -> Result<(Range, Vec<Feed>, usize), Range> {
        let mut bytes = 0;
        let mut feeds = self
            .shared_feeds(gid, tasks.start, &mut bytes)
            .filter(|_| bytes <= TASK_FEED_BYTES_MAX)
            .ok_or(tasks)?;
        let is_per_task = |feed: &Feed| matches!(feed, Feed::Each(_) | Feed::Lists(_));
        if !feeds.iter().any(is_per_task) {
            return Ok((tasks, feeds, bytes));
        }
        let first = Range::one(tasks.start);
        let (mut done, mut taken_bytes) = (tasks.start, bytes);
        for index in tasks {
            let own = self.own_sources(gid, index, &mut bytes).ok_or(first)?;
            let is_first = index == tasks.start;
            if bytes > if is_first { TASK_FEED_BYTES_MAX } else { FEED_BYTES_MAX } {
                break;
            }
            taken_bytes = bytes;
            for (feed, sources) in feeds.iter_mut().filter(|feed| is_per_task(feed)).zip(own) {
                match feed {
                    Feed::Each(all) => all.extend(sources),
                    Feed::Lists(all) => all.push(sources),
                    Feed::Inline | Feed::One(_) | Feed::List(_) => {}
                }
            }
            done = index + 1;
        }
        if done == tasks.start {
            return Err(first);
        }
        Ok((Range::new(tasks.start, done), feeds, taken_bytes))
    }

    /// The feeds of a task's parameters: filled where all tasks of its shape share them, else
    /// empty.
    fn shared_feeds(&self, gid: Gid, index: u32, bytes: &mut usize) -> Option<Vec<Feed>> {
        let shape = self.groups.get(gid)?.shape(index)?;
        let mut feeds: Vec<Feed> = Vec::with_capacity(shape.shape.params.len());
        for (param, upstream) in shape.shape.params.iter().zip(&shape.param_groups) {
            let shared = |range: Range, bytes: &mut usize| -> Option<Vec<Source>> {
                let group = upstream.and_then(|gid| self.groups.get(gid));
                range
                    .iter()
                    .map(|input| self.source(group?, input, part_of(param, index), bytes))
                    .collect()
            };
            feeds.push(match param {
                Param::Inline => Feed::Inline,
                Param::One { task, .. } => Feed::One(shared(Range::one(task.index), bytes)?.pop()?),
                Param::All { range, .. } => Feed::List(shared(*range, bytes)?),
                Param::Each { .. } | Param::Edge => Feed::Each(Vec::new()),
                Param::Block { .. } | Param::Shuffle { .. } | Param::Edges => {
                    Feed::Lists(Vec::new())
                }
            });
        }
        Some(feeds)
    }

    /// The sources of one task for each parameter that is its own.
    fn own_sources(&self, gid: Gid, index: u32, bytes: &mut usize) -> Option<Vec<Vec<Source>>> {
        let group = self.groups.get(gid)?;
        let shape = group.shape(index)?;
        let mut own = Vec::new();
        let mut edges = match &group.inputs {
            Inputs::Edges(batch) => batch.edges_of(index),
            _ => &[],
        };
        for (param, upstream) in shape.shape.params.iter().zip(&shape.param_groups) {
            match param {
                Param::Inline | Param::One { .. } | Param::All { .. } => {}
                Param::Each { .. } | Param::Block { .. } | Param::Shuffle { .. } => {
                    let upstream = self.groups.get((*upstream)?)?;
                    let range = taken(param, index);
                    let part = part_of(param, index);
                    let sources =
                        range.iter().map(|input| self.source(upstream, input, part, bytes));
                    own.push(sources.collect::<Option<Vec<Source>>>()?);
                }
                Param::Edge | Param::Edges => {
                    let count = if *param == Param::Edge { 1 } else { edges.len() };
                    let (now, rest) = edges.split_at_checked(count)?;
                    edges = rest;
                    let sources = now.iter().map(|edge| {
                        self.source(self.groups.get(edge.group)?, edge.index, edge.part, bytes)
                    });
                    own.push(sources.collect::<Option<Vec<Source>>>()?);
                }
            }
        }
        Some(own)
    }

    /// Where the value of `input` is, and what it adds to the frame.
    fn source(&self, group: &Group, input: u32, part: u16, bytes: &mut usize) -> Option<Source> {
        let place = match group.holding.get(input) {
            Holding::Inline => Place::Inline(group.results.slice(Range::one(input))?.get_bytes(0)),
            Holding::Held(first, _) => {
                let mut holders = vec![first];
                holders.extend(group.copies.get(&(input, part)).into_iter().flatten());
                Place::Held(holders)
            }
            // Of a task that this process is to run before.
            Holding::Nowhere => Place::Here,
        };
        let source = Source { task: group.task(input), part, place };
        *bytes += source_bytes(&source);
        Some(source)
    }

    /// The inputs of these ready tasks are more than a task can have. If it is more than one of
    /// them, it is for what they share: those that are ready beside them fare no better.
    fn refuse_oversized(&mut self, gid: Gid, tasks: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let rest = Range::new(tasks.start, group.len);
        let tasks = match (&group.inputs, group.state.runs(rest).next()) {
            (Inputs::Patterns(_), Some((beside, State::Ready(_)))) if tasks.len() > 1 => beside,
            _ => tasks,
        };
        let failure = Failure::of_scheduler(
            FailureKind::Unrunnable,
            "its inputs are too many for one task; combine them with `tree`",
            group.task(tasks.start),
        );
        self.fail(gid, tasks, &failure.into());
        self.work_off();
    }

    fn holders_named(&self, params: &[Feed], id: ProcessId) -> Vec<ProcessId> {
        let mut holders = Vec::new();
        let mut note = |source: &Source| {
            if let Place::Held(named) = &source.place {
                holders.extend(named.iter().copied().filter(|holder| *holder != id));
            }
        };
        for feed in params {
            match feed {
                Feed::Inline => {}
                Feed::One(source) => note(source),
                Feed::Each(sources) | Feed::List(sources) => sources.iter().for_each(&mut note),
                Feed::Lists(lists) => lists.iter().flatten().for_each(&mut note),
            }
        }
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// Tells a process where others listen, once each.
    pub(crate) fn introduce(&mut self, id: ProcessId, holders: Vec<ProcessId>) {
        for holder in holders {
            let Some(contact) = self.cluster.processes.get(&holder).map(|one| one.contact.clone())
            else {
                continue;
            };
            let is_new =
                self.cluster.processes.get_mut(&id).is_some_and(|one| one.knows.insert(holder));
            if is_new {
                self.send_process(id, ToProcess::Peer { process: holder, contact });
            }
        }
    }

    /// Has clients put scattered values with the processes that hold least.
    pub(crate) fn place_puts(&mut self) {
        let kinds: Vec<(ProgramHash, ClassNo)> = self.puts.keys().copied().collect();
        for (hash, class) in kinds {
            // Those of one kind have the same places to go to.
            while let Some(puts) = self.puts.get(&(hash, class)) {
                let Some((gid, index)) = puts.first().copied() else {
                    self.puts.remove(&(hash, class));
                    break;
                };
                let Some(process) = self.put_target(hash, class) else {
                    break;
                };
                if let Some(puts) = self.puts.get_mut(&(hash, class)) {
                    puts.remove(&(gid, index));
                }
                self.put(gid, index, process);
            }
        }
    }

    fn put_target(&self, hash: ProgramHash, class: ClassNo) -> Option<ProcessId> {
        let requirement = self.classes.get(class);
        let program = self.programs.get(hash)?;
        let suited = program.processes.iter().filter_map(|id| {
            let process = self.cluster.processes.get(id)?;
            let worker = self.cluster.workers.get(&process.worker)?;
            let is_open = !worker.leaving && process.leaving.is_none();
            let takes_any = process.stage == Stage::Running && is_open;
            let fits =
                takes_any && !self.is_silent(Peer::Process(*id)) && worker.suits(requirement);
            fits.then(|| {
                let values: u64 = process.held.values().map(RangeSet::len).sum();
                (values + process.assignments.len() as u64, *id)
            })
        });
        suited.min().map(|(_, id)| id)
    }

    fn put(&mut self, gid: Gid, index: u32, process: ProcessId) {
        let assignment = AssignmentId(self.next_assignment);
        self.next_assignment += 1;
        let Some(record) = self.cluster.processes.get_mut(&process) else {
            return;
        };
        record.assignments.insert(assignment);
        let contact = record.contact.clone();
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        group.state.set(Range::one(index), State::Assigned(assignment));
        let (task, client) = (group.task(index), group.id.client);
        let record = Assignment {
            process,
            group: gid,
            remaining: RangeSet::from(Range::one(index)),
            // Nothing is taken of the worker for a value, so nothing is to be given back.
            class: ClassNo::ANY,
            threads: 0,
            mean_ns: 0,
        };
        self.assignments.insert(assignment, record);
        self.send_client(client, ToClient::Put { task, assignment, process, contact });
    }
}

/// Past so many runs that wait for nested tasks, a process starts only tasks nested in it.
pub(crate) const PARKED_RUNS_MAX: u32 = 256;

/// How much work a process should have, running or ahead.
pub(super) fn window_ns(slots: u32) -> u64 {
    u64::from(slots).saturating_mul(WINDOW.as_nanos() as u64)
}

/// How many runs a process lacks until each of its slots has one and another one ahead. For tasks
/// that take longer than the window, but for which a round trip counts; long tasks are not given
/// ahead at all.
fn runs_one_ahead(process: &Process) -> u64 {
    (2 * u64::from(process.granted)).saturating_sub(u64::from(process.load()))
}

/// Whether the runs of a process take so long that it needs none ahead.
fn runs_are_long(process: &Process) -> bool {
    process.queued_ns > LONG_TASK_NS.saturating_mul(u64::from(process.load()))
}
