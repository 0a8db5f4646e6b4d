//! Blame: which tasks end their processes, and what becomes of them.
//!
//! The death of a process counts against the tasks whose bodies ran at that moment, or whose
//! results were being encoded. Its nanny reads them off the slot board; of those, tasks that the
//! process had been assigned or whose values it had are suspects. A suspect runs again like any
//! other, until two deaths count against it: its last try is alone, in a process of its own, so
//! that who merely ran beside a killer is cleared. A death there is the third, and the task ends as
//! [`FailureKind::Killed`]. Lost nodes and planned ends blame nobody.
//!
//! A process of a suspect's own stays until the suspect has come to its end, with the inputs that it
//! has fetched. While the suspect waits for others, its slots are lent: they may be needed to make
//! these inputs again.
//!
//! The end of a link and the nanny's word come in either order. So a process is always lost first
//! and judged when its nanny speaks: what it had is remembered until then, or until the nanny is
//! gone. Meanwhile its tasks run again, but for earlier suspects: they wait for the verdict.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use crate::failure::{Failure, FailureKind};
use crate::id::{NannyId, Peer, ProcessId, TaskId, WorkerId};
use crate::message::Exit;
use crate::range::{Range, RangeSet};

use super::Scheduler;
use super::clients::{Client, ClientKind};
use super::cluster::{Process, Stage};
use super::graph::Work;
use super::group::{Gid, Group, State};

/// So many deaths of processes end a task; before the last one it runs alone.
const DEATHS_MAX: usize = 3;

/// What a task's error tells of each death: so many lines of standard error, so long.
const LINES_MAX: usize = 10;
const LINE_CHARS_MAX: usize = 240;

/// A task, as suspects are known by.
pub(crate) type Suspect = (Gid, u32);

/// A process that died with tasks on its board.
#[derive(Debug)]
pub(crate) struct Death {
    worker: String,
    node: String,
    pool: String,
    exit: Exit,
    memory_limit: u64,
    stderr: Vec<String>,
}

/// What counts against one task: in which run, and which death.
pub(crate) type Deaths = Vec<(u32, Arc<Death>)>;

/// A lost process whose nanny has not said how it ended.
#[derive(Debug)]
struct Lost {
    nanny: NannyId,
    worker: WorkerId,
    had: Vec<(Gid, RangeSet)>,
    alone_for: Option<Suspect>,
}

/// Why a suspect doesn't run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// This process of its may have died of it: its nanny will say.
    Verdict(ProcessId),
    /// Its last try is in a process of its own, once there is one with slots.
    Alone,
}

/// Who is under suspicion.
#[derive(Debug, Default)]
pub(crate) struct Blame {
    lost: BTreeMap<ProcessId, Lost>,
    /// Suspects that wait, and for nothing but this as soon as their inputs are there.
    held: BTreeMap<Suspect, Hold>,
    /// Processes of suspects' own, being started or at work. Of several the newest.
    own: BTreeMap<Suspect, ProcessId>,
}

impl Blame {
    /// Whether a task waits because of what it is suspected of.
    pub(crate) fn holds(&self, suspect: Suspect) -> bool {
        self.held.contains_key(&suspect)
    }

    /// Whether nobody is under suspicion any more, or soon may be.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.held.is_empty() && self.own.is_empty()
    }

    /// All that wait.
    pub(crate) fn held(&self) -> impl Iterator<Item = Suspect> + '_ {
        self.held.keys().copied()
    }

    /// The processes of suspects' own.
    pub(crate) fn own(&self) -> impl Iterator<Item = (Suspect, ProcessId)> + '_ {
        self.own.iter().map(|(suspect, process)| (*suspect, *process))
    }
}

impl Scheduler {
    /// A nanny reports the end of a process.
    pub(crate) fn process_exited(
        &mut self,
        from: NannyId,
        process: ProcessId,
        exit: &Exit,
        board: &[(TaskId, u32)],
        stderr: &[String],
    ) {
        let known = self.cluster.processes.get(&process);
        if known.is_some_and(|one| one.nanny != from) {
            self.stale_count += 1;
            return;
        }
        let why = match stderr.last() {
            Some(line) => format!("{exit}; its last words: {line}"),
            None => exit.to_string(),
        };
        if known.is_some_and(|one| one.stage == Stage::Launching) {
            return self.launch_failed(process, &why);
        }
        self.lose_process(process, &why);
        if self.blame.lost.get(&process).is_some_and(|lost| lost.nanny == from)
            && let Some(lost) = self.blame.lost.remove(&process)
        {
            if *exit != Exit::Planned {
                self.judge(&lost, exit, board, stderr);
            }
            self.release_held(process);
            self.work_off();
        }
    }

    /// Remembers what a lost process had until its nanny says how it ended. Tasks of it that are
    /// suspects already wait for that.
    pub(crate) fn await_verdict(&mut self, id: ProcessId, process: &Process) {
        let mut had: Vec<(Gid, RangeSet)> = Vec::new();
        for assignment in &process.assignments {
            let ran = self.assignments.get(assignment).filter(|one| one.threads > 0);
            had.extend(ran.map(|one| (one.group, one.remaining.clone())));
        }
        had.extend(process.held.iter().map(|(gid, ranges)| (*gid, ranges.clone())));
        if had.is_empty() {
            return;
        }
        let (nanny, worker) = (process.nanny, process.worker);
        self.blame.lost.insert(id, Lost { nanny, worker, had, alone_for: process.alone_for });
    }

    /// To be called when the tasks of a lost process wait or are ready again: none has been assigned
    /// since.
    pub(crate) fn hold_for_verdict(&mut self, id: ProcessId) {
        let Some(lost) = self.blame.lost.get(&id) else { return };
        let mut suspects: Vec<Suspect> = Vec::new();
        for (gid, ranges) in &lost.had {
            let Some(group) = self.groups.get(*gid) else { continue };
            let known = group.deaths.keys().filter(|index| ranges.contains(**index));
            suspects.extend(known.map(|index| (*gid, *index)));
        }
        for suspect in suspects {
            self.hold(suspect, Hold::Verdict(id));
        }
    }

    /// A nanny is gone: nobody will say any more how processes ended.
    pub(crate) fn forget_lost_of(&mut self, nanny: NannyId) {
        let of_nanny = self.blame.lost.iter().filter(|(_, lost)| lost.nanny == nanny);
        for process in of_nanny.map(|(id, _)| *id).collect::<Vec<ProcessId>>() {
            self.blame.lost.remove(&process);
            self.release_held(process);
        }
        self.work_off();
    }

    /// Counts a death against those on the board that the process had been assigned.
    fn judge(&mut self, lost: &Lost, exit: &Exit, board: &[(TaskId, u32)], stderr: &[String]) {
        let Some(worker) = self.cluster.workers.get(&lost.worker) else { return };
        let last = stderr.len().saturating_sub(LINES_MAX);
        let cut = |line: &String| line.chars().take(LINE_CHARS_MAX).collect();
        let death = Arc::new(Death {
            worker: worker.info.name.clone(),
            node: worker.node.clone(),
            pool: worker.pool.clone(),
            exit: exit.clone(),
            memory_limit: worker.info.memory_limit,
            stderr: stderr[last..].iter().map(cut).collect(),
        });
        let mut named: BTreeMap<Suspect, u32> = BTreeMap::new();
        for (task, run) in board {
            let suspect = self.groups.find(task.array).map(|gid| (gid, task.index));
            if let Some((gid, index)) = suspect
                && lost.had.iter().any(|(of, ranges)| *of == gid && ranges.contains(index))
            {
                named.insert((gid, index), *run);
            }
        }
        for (suspect, run) in named {
            self.count_death(suspect, run, &death, lost.alone_for == Some(suspect));
        }
    }

    fn count_death(&mut self, (gid, index): Suspect, run: u32, death: &Arc<Death>, alone: bool) {
        let Some(group) = self.groups.get_mut(gid) else { return };
        if group.state.get(index).is_over() {
            return;
        }
        let deaths = group.deaths.entry(index).or_default();
        // The last one counts only if there was nobody else whom it could be for.
        if deaths.len() + 1 < DEATHS_MAX || alone {
            deaths.push((run, Arc::clone(death)));
        }
        match deaths.len() {
            DEATHS_MAX.. => self.convict(gid, index),
            count if count + 1 == DEATHS_MAX => self.hold((gid, index), Hold::Alone),
            _ => {}
        }
    }

    /// The task has ended too many processes.
    fn convict(&mut self, gid: Gid, index: u32) {
        let Some(group) = self.groups.get(gid) else { return };
        let Some(deaths) = group.deaths.get(&index) else { return };
        let Some((run, last)) = deaths.last() else { return };
        let message = story_of(deaths);
        let failure = Failure {
            function: group.shape(index).map_or(String::new(), |shape| shape.shape.name.clone()),
            worker: Some(last.worker.clone()),
            node: Some(last.node.clone()),
            run: *run,
            ..Failure::of_scheduler(FailureKind::Killed, message, group.task(index))
        };
        self.fail(gid, Range::one(index), &Arc::new(failure));
    }

    /// Holds a task back that waits or is ready. One that runs elsewhere already is left alone.
    fn hold(&mut self, suspect: Suspect, hold: Hold) {
        let (gid, index) = suspect;
        if let Some(known) = self.blame.held.get_mut(&suspect) {
            *known = hold;
            return;
        }
        let Some(group) = self.groups.get(gid) else { return };
        let state = group.state.get(index);
        let missing = match state {
            State::Waiting(missing) => missing + 1,
            State::Ready(_) => 1,
            State::Assigned(_) | State::Done | State::Failed | State::Dropped => return,
        };
        self.unready(gid, Range::one(index), state);
        if let Some(group) = self.groups.get_mut(gid) {
            group.state.set(Range::one(index), State::Waiting(missing));
        }
        self.blame.held.insert(suspect, hold);
    }

    /// Of tasks that are to run again, those with one try left get it alone.
    pub(crate) fn hold_last_tries(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid).filter(|group| !group.deaths.is_empty()) else {
            return;
        };
        let suspects = group.deaths.range(range.start..range.end);
        let last = suspects.filter(|(_, deaths)| deaths.len() + 1 >= DEATHS_MAX);
        for index in last.map(|(index, _)| *index).collect::<Vec<u32>>() {
            self.hold((gid, index), Hold::Alone);
        }
    }

    /// These tasks have come to their end, so that nothing holds them.
    pub(crate) fn drop_holds(&mut self, gid: Gid, range: Range) {
        if self.blame.held.is_empty() {
            return;
        }
        let over = self.blame.held.range((gid, range.start)..(gid, range.end));
        for suspect in over.map(|(suspect, _)| *suspect).collect::<Vec<Suspect>>() {
            self.blame.held.remove(&suspect);
        }
    }

    /// A process of a suspect's own is gone: it gets another one, if it still waits for it.
    pub(crate) fn forget_own_process(&mut self, process: &Process, id: ProcessId) {
        if let Some(suspect) = process.alone_for
            && self.blame.own.get(&suspect) == Some(&id)
        {
            self.blame.own.remove(&suspect);
        }
    }

    /// How this process ended is known, or never will be.
    fn release_held(&mut self, process: ProcessId) {
        let hold = Hold::Verdict(process);
        let waiting = self.blame.held.iter().filter(|(_, known)| **known == hold);
        for suspect in waiting.map(|(suspect, _)| *suspect).collect::<Vec<Suspect>>() {
            let (gid, index) = suspect;
            let deaths = self.groups.get(gid).and_then(|group| group.deaths.get(&index));
            if deaths.is_some_and(|deaths| deaths.len() + 1 >= DEATHS_MAX) {
                self.blame.held.insert(suspect, Hold::Alone);
            } else {
                self.blame.held.remove(&suspect);
                self.work.push_back(Work::Satisfied(gid, Range::one(index)));
            }
        }
    }

    /// Starts processes for last tries, and ends those that have served.
    pub(crate) fn launch_suspects(&mut self) {
        for suspect in self.due_suspects() {
            let (gid, index) = suspect;
            if self.own_process(suspect).is_some() {
                continue;
            }
            let Some(group) = self.groups.get(gid) else { continue };
            let Some(share) = self.shares.get(&group.share) else { continue };
            let hash = share.program;
            if let Some(worker) = self.place_for(suspect)
                && let Some(process) = self.launch(hash, worker, Some((gid, index)))
            {
                self.blame.own.insert(suspect, process);
            }
        }
        let alone = self.programs.alone();
        let spent = alone.filter(|id| self.is_spent(*id)).collect::<Vec<ProcessId>>();
        for process in spent {
            self.end_process(process, "the task that it was for has ended");
        }
    }

    /// The process that a suspect's last try is for, unless it leaves.
    fn own_process(&self, suspect: Suspect) -> Option<ProcessId> {
        let id = *self.blame.own.get(&suspect)?;
        let process = self.cluster.processes.get(&id)?;
        let worker = self.cluster.workers.get(&process.worker)?;
        (process.leaving.is_none() && !worker.leaving).then_some(id)
    }

    /// Gives last tries to their processes, as soon as these have slots.
    pub(crate) fn start_suspects(&mut self) {
        for suspect in self.due_suspects() {
            let (gid, index) = suspect;
            let Some(id) = self.own_process(suspect) else { continue };
            let (Some(group), Some(process)) =
                (self.groups.get(gid), self.cluster.processes.get(&id))
            else {
                continue;
            };
            let requirement = self.classes.get(group.class(index));
            let worker = self.cluster.workers.get(&process.worker);
            let has_room = process.stage == Stage::Running
                && !self.is_silent(Peer::Process(id))
                && process.idle_slots() >= u32::from(requirement.threads)
                && worker.is_some_and(|worker| worker.resource_room(requirement) > 0);
            if has_room {
                self.blame.held.remove(&suspect);
                if self.assign(id, gid, Range::one(index)).is_none() {
                    self.blame.held.insert(suspect, Hold::Alone);
                }
            }
        }
    }

    /// Suspects that wait for a process of their own and for nothing else.
    fn due_suspects(&self) -> Vec<Suspect> {
        let held = self.blame.held.keys().copied();
        held.filter(|suspect| self.is_due(*suspect)).collect()
    }

    fn is_due(&self, suspect: Suspect) -> bool {
        let (gid, index) = suspect;
        let group = self.groups.get(gid);
        self.blame.held.get(&suspect) == Some(&Hold::Alone)
            && group.is_some_and(|group| group.state.get(index) == State::Waiting(1))
    }

    /// The worker with most room for a process of the suspect's own.
    fn place_for(&self, (gid, index): Suspect) -> Option<WorkerId> {
        let group = self.groups.get(gid)?;
        let hash = self.shares.get(&group.share)?.program;
        let requirement = self.classes.get(group.class(index));
        let suited = self.cluster.workers.iter().filter_map(|(id, worker)| {
            let at_work = worker.alone.iter().filter(|one| !self.is_parked(**one));
            let wanted: u32 = at_work.map(|one| self.slots_alone(*one)).sum();
            let fits = !worker.leaving
                && worker.suits(requirement)
                && wanted + u32::from(requirement.threads) <= worker.info.slots
                && self.programs.may_launch(hash, *id, self.now);
            let load = |id: &ProcessId| self.cluster.processes.get(id).map_or(0, Process::load);
            let busy: u32 = worker.all_processes().map(|id| load(&id)).sum();
            let free = worker.info.slots.saturating_sub(busy);
            fits.then_some((wanted, Reverse(free), *id))
        });
        suited.min().map(|(.., id)| id)
    }

    /// The slots that a process needs for the suspect it was started for; 0 once that is over, or as
    /// long as the suspect waits for inputs, which may need the slots to be made again.
    pub(crate) fn slots_alone(&self, id: ProcessId) -> u32 {
        let Some(process) = self.cluster.processes.get(&id) else { return 0 };
        let Some(suspect) = process.alone_for else { return 0 };
        let is_due = self.own_process(suspect) == Some(id) && self.is_due(suspect);
        if !is_due && process.assignments.is_empty() {
            return 0;
        }
        let (gid, index) = suspect;
        let class = self.groups.get(gid).map(|group| group.class(index));
        class.map_or(1, |class| u32::from(self.classes.get(class).threads))
    }

    /// Whether all that a process runs waits for nested tasks. Those may be suspects themselves, and
    /// need its slots.
    pub(crate) fn is_parked(&self, id: ProcessId) -> bool {
        let process = self.cluster.processes.get(&id);
        process.is_some_and(|process| process.demand > 0 && process.load() == 0)
    }

    /// Whether a suspect's process gives its slots to whoever makes what it waits for: nothing nested
    /// in it could start there now, and something waits.
    pub(crate) fn lends_slots(&self, id: ProcessId) -> bool {
        let nested_in = |client: &&Client| match client.kind {
            ClientKind::Program { nested_in, .. } => nested_in == Some(id),
            ClientKind::Observer => false,
        };
        let nested = self.clients.values().filter(nested_in).flat_map(|client| &client.groups);
        let worker = self.cluster.worker_of(id);
        let may_start = |group: &Group, index| {
            worker.is_some_and(|worker| worker.suits(self.classes.get(group.class(index))))
        };
        let mut waits = false;
        for group in nested.filter_map(|gid| self.groups.get(*gid)) {
            for (part, state) in group.state.runs(group.all()) {
                match state {
                    State::Ready(None) if may_start(group, part.start) => return false,
                    // Some are for who has their inputs.
                    State::Ready(_) => waits = true,
                    State::Assigned(by) => match self.assignments.get(&by) {
                        Some(assignment) if assignment.process == id => return false,
                        _ => waits = true,
                    },
                    State::Waiting(_) => waits = true,
                    State::Done | State::Failed | State::Dropped => {}
                }
            }
        }
        waits && self.is_parked(id)
    }

    /// Whether a process has done what it was started for, and has nothing that anybody wants.
    fn is_spent(&self, id: ProcessId) -> bool {
        self.cluster.processes.get(&id).is_some_and(|process| {
            let is_awaited = process.alone_for.is_some_and(|suspect| {
                self.blame.holds(suspect) && self.own_process(suspect) == Some(id)
            });
            !is_awaited
                && process.assignments.is_empty()
                && process.held.is_empty()
                && process.local_ready.is_empty()
        })
    }
}

/// Each death on a line of its own, and its last words below it.
fn story_of(deaths: &Deaths) -> String {
    let mut story =
        format!("{} processes died while it ran, the last one with it alone", deaths.len());
    for (run, death) in deaths {
        let Death { worker, node, pool, exit, memory_limit, stderr } = &**death;
        let what = match run {
            0 => "its result was being encoded".to_owned(),
            _ => format!("run {run}"),
        };
        let _ = write!(story, "\n  {what} (worker {worker} on {node}, pool {pool}): {exit}");
        if *exit == Exit::OutOfMemory && *memory_limit > 0 {
            let _ = write!(story, ", of which its worker has {} MiB", memory_limit >> 20);
        }
        for line in stderr {
            let _ = write!(story, "\n    {line}");
        }
    }
    story
}
