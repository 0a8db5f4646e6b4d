//! A node and its nanny: gets programs, starts processes, sees them end, leaves on notice.

use std::collections::{BTreeMap, BTreeSet};

use rdask_core::hello::You;
use rdask_core::id::{NannyId, ProcessId, ProgramHash, TaskId, WorkerId};
use rdask_core::message::{Exit, FromNanny, Launch, ToNanny};

use super::leave::Ends;
use super::scheduler::hash_of;
use super::session::PORT_CLOSED;
use super::{Actor, Event, MS, SECOND, World, note};
use crate::link::{Link, Message, Way};
use crate::scenario;

pub(super) struct Node {
    pub(super) is_alive: bool,
    /// How often its nanny was started before.
    pub(super) age: u32,
    pub(super) link: Option<usize>,
    pub(super) id: Option<NannyId>,
    pub(super) workers: Vec<WorkerId>,
    /// Its processes that live or are about to.
    pub(super) processes: Vec<usize>,
    programs: BTreeSet<ProgramHash>,
    /// Processes that wait for their program.
    pub(super) waiting: BTreeMap<ProgramHash, Vec<usize>>,
    /// Those that it still had when it was given up, by the numbers that they had then.
    pub(super) named: BTreeMap<ProcessId, usize>,
    pub(super) is_leaving: bool,
    pub(super) ends: Ends,
    /// Whether it will not come back.
    pub(super) is_gone: bool,
    pub(super) frozen_until: u64,
    pub(super) nanny_frozen_until: u64,
    /// Until when its cable carries nothing: to the scheduler, from it.
    pub(super) cut_until: (u64, u64),
    pub(super) launches_to_fail: u32,
}

impl Node {
    pub(super) fn new(spec: &scenario::Node) -> Self {
        let programs =
            if spec.has_programs { (0..4).map(hash_of).collect() } else { BTreeSet::new() };
        Self {
            is_alive: false,
            age: 0,
            link: None,
            id: None,
            workers: Vec::new(),
            processes: Vec::new(),
            programs,
            waiting: BTreeMap::new(),
            named: BTreeMap::new(),
            is_leaving: false,
            ends: Ends::default(),
            is_gone: false,
            frozen_until: 0,
            nanny_frozen_until: 0,
            cut_until: (0, 0),
            launches_to_fail: 0,
        }
    }
}

impl World {
    pub(super) fn nanny_starts(&mut self, node: usize, age: u32) {
        let state = &mut self.nodes[node];
        if state.is_alive || state.age != age || state.is_gone {
            return;
        }
        note!(self, "the nanny of node {node} starts");
        let state = &mut self.nodes[node];
        state.is_alive = true;
        state.is_leaving = false;
        state.ends = Ends::default();
        state.id = None;
        state.workers.clear();
        state.waiting.clear();
        state.named.clear();
        let link = self.dial(Actor::Nanny(node, age), None);
        self.nodes[node].link = Some(link);
    }

    pub(super) fn nanny_says(&mut self, node: usize, message: FromNanny) {
        if let Some(link) = self.nodes[node].link {
            self.send(link, Way::Up, Message::FromNanny(message));
        }
    }

    pub(super) fn nanny_gets(&mut self, node: usize, message: Message) {
        match message {
            Message::Welcome(You::Nanny(id, workers)) => {
                self.nodes[node].id = Some(id);
                self.nodes[node].workers = workers;
                self.tell_ends(node);
            }
            Message::ToNanny(ToNanny::Launch(launch)) => self.launch(node, launch),
            Message::ToNanny(ToNanny::FetchProgram { hash, from }) => {
                self.fetch_program(node, hash, from.map(|(nanny, _)| nanny));
            }
            Message::ToNanny(ToNanny::Kill { process, .. }) => {
                let index = self.by_id.get(&process).copied();
                if let Some(index) = index.filter(|index| self.processes[*index].is_alive) {
                    self.nodes[node].named.remove(&process);
                    self.processes[index].nanny_age = self.nodes[node].age;
                    self.processes[index].exit = Exit::Planned;
                    self.kill_process(index, PORT_CLOSED);
                }
            }
            Message::ToNanny(ToNanny::Keep { was, process }) => self.keep(node, was, process),
            Message::ToNanny(ToNanny::AskJobEnd) => self.ask_slurm(node),
            Message::ToNanny(ToNanny::Exit { .. }) => {
                note!(self, "node {node} is told to go");
                self.nanny_goes(node, 10 * MS);
            }
            message => self.fail(format!("the nanny of node {node} was told {message:?}")),
        }
    }

    fn launch(&mut self, node: usize, launch: Launch) {
        let id = launch.process;
        let fails = self.nodes[node].is_leaving || self.nodes[node].launches_to_fail > 0;
        if fails {
            self.nodes[node].launches_to_fail = self.nodes[node].launches_to_fail.saturating_sub(1);
            let message = "the simulation has it fail".to_owned();
            self.nanny_says(node, FromNanny::LaunchFailed { process: id, message });
            return;
        }
        let worker = self.nodes[node].workers.iter().position(|worker| *worker == launch.worker);
        let Some(worker) = worker else {
            self.fail(format!("node {node} has no worker {}", launch.worker));
            return;
        };
        let hash = launch.program.hash;
        let process = self.add_process(node, worker, hash.0[0], id);
        self.nodes[node].processes.push(process);
        if self.nodes[node].programs.contains(&hash) {
            self.launch_begins(process);
            return;
        }
        // Who has given up asks no more, and the next one asks again.
        let waiting = self.nodes[node].waiting.get(&hash).into_iter().flatten();
        let is_first = !waiting.into_iter().any(|process| self.processes[*process].is_alive);
        self.nodes[node].waiting.entry(hash).or_default().push(process);
        if is_first {
            self.nanny_says(node, FromNanny::WantProgram { hash });
        }
    }

    fn launch_begins(&mut self, process: usize) {
        let at = self.now + self.dice.below(self.scenario.network.launch_ms * MS + 1);
        self.push(at, Event::ProcessStarts(process));
    }

    fn fetch_program(&mut self, node: usize, hash: ProgramHash, from: Option<NannyId>) {
        if !self.nodes[node].waiting.contains_key(&hash) {
            return;
        }
        let source = self.nodes.iter().position(|other| other.is_alive && other.id == from);
        let percent = self.scenario.network.fetch_fails_percent;
        let is_there = from.is_none() || source.is_some_and(|other| !self.are_apart(node, other));
        let well = is_there && !self.dice.chance(percent);
        let at = self.now + self.dice.between(MS, 300 * MS);
        let age = self.nodes[node].age;
        self.push(at, Event::ProgramFetched(node, age, hash, well));
    }

    pub(super) fn program_fetched(&mut self, node: usize, age: u32, hash: ProgramHash, well: bool) {
        if !self.is_alive(Actor::Nanny(node, age)) {
            return;
        }
        if !well {
            let message = "the simulation has it fail".to_owned();
            self.nanny_says(node, FromNanny::FetchFailed { hash, message });
            return;
        }
        self.nodes[node].programs.insert(hash);
        self.nanny_says(node, FromNanny::HasProgram { hash });
        for process in self.nodes[node].waiting.remove(&hash).unwrap_or_default() {
            if self.processes[process].is_alive {
                self.launch_begins(process);
            }
        }
    }

    /// The nanny sees that a process of its is gone.
    pub(super) fn process_gone(&mut self, process: usize) {
        let Process { node, nanny_age, id } = self.identity(process);
        self.nodes[node].processes.retain(|other| *other != process);
        if !self.is_alive(Actor::Nanny(node, nanny_age)) {
            return;
        }
        let state = &self.processes[process];
        let exit = state.exit.clone();
        let board = state.running_runs();
        if exit != Exit::Planned && !self.stops.ended.contains(&id) {
            let by_fault = u32::from(state.is_struck);
            for (task, _) in &board {
                let (count, struck) = self.deaths.entry(*task).or_default();
                *count += 1;
                *struck += by_fault;
            }
            self.check_last_tries(&board);
        }
        let exited = FromNanny::Exited { process: id, exit, board, stderr: Vec::new() };
        self.nanny_says(node, exited);
        self.ask_again(node, process);
    }

    /// Who has ended two processes runs alone the third time. Faults hide reports and blame others.
    fn check_last_tries(&mut self, board: &[(TaskId, u32)]) {
        let deaths = |task| self.deaths.get(task).map_or(0, |(count, _)| *count);
        let last = board.iter().map(|(task, _)| task).find(|task| deaths(task) >= 3);
        if let Some(task) = last.copied()
            && board.len() > 1
            && self.scenario.faults.is_empty()
        {
            self.fail(format!("the last try of {task} was beside others: {board:?}"));
        }
    }

    /// A launch that waited for its program is over: the next one that waits asks for itself.
    fn ask_again(&mut self, node: usize, process: usize) {
        let hash = hash_of(self.processes[process].program);
        let Some(waiting) = self.nodes[node].waiting.get_mut(&hash) else { return };
        let was_first = waiting.first() == Some(&process);
        waiting.retain(|other| *other != process);
        if waiting.is_empty() {
            self.nodes[node].waiting.remove(&hash);
        } else if was_first {
            self.nanny_says(node, FromNanny::WantProgram { hash });
        }
    }

    fn identity(&self, process: usize) -> Process {
        let process = &self.processes[process];
        Process { node: process.node, nanny_age: process.nanny_age, id: process.id }
    }

    /// A nanny that was given up joins anew. If its scheduler is gone so are its processes, and it
    /// looks for the next one.
    pub(super) fn nanny_loses_link(&mut self, node: usize, link: usize) {
        let Link { is_fenced, is_welcome, .. } = self.links[link];
        if (is_fenced || !is_welcome) && !self.nodes[node].is_leaving {
            return self.nanny_joins_again(node);
        }
        self.nanny_ends(node, PORT_CLOSED);
        let at = self.now + self.dice.between(100 * MS, SECOND);
        let age = self.nodes[node].age;
        self.push(at, Event::NannyStarts(node, age));
    }

    /// A nanny ends, whatever the reason, and its processes with it. The scheduler hears of the
    /// ends of the links within a time.
    pub(super) fn nanny_ends(&mut self, node: usize, within: u64) {
        if !self.nodes[node].is_alive {
            return;
        }
        note!(self, "the nanny of node {node} ends");
        self.nodes[node].is_alive = false;
        self.nodes[node].age += 1;
        if let Some(link) = self.nodes[node].link.take() {
            self.end_link(link, within);
        }
        for process in std::mem::take(&mut self.nodes[node].processes) {
            self.kill_process(process, within);
        }
    }

    /// The nanny of a node is started again after a while.
    pub(super) fn nanny_returns(&mut self, node: usize, after_ms: Option<u64>) {
        let age = self.nodes[node].age;
        match after_ms {
            Some(ms) => self.push(self.now + ms * MS, Event::NannyStarts(node, age)),
            None => self.nodes[node].is_gone = true,
        }
    }

    pub(super) fn give_notice(&mut self, node: usize, grace_ms: u64) {
        if !self.nodes[node].is_alive || self.nodes[node].is_leaving {
            return;
        }
        self.nodes[node].is_leaving = true;
        self.nanny_says(node, FromNanny::Leaving { reason: "a notice".into() });
        let age = self.nodes[node].age;
        self.push(self.now + grace_ms * MS, Event::NannyTimeIsUp(node, age));
    }

    pub(super) fn nanny_time_is_up(&mut self, node: usize, age: u32) {
        if self.is_alive(Actor::Nanny(node, age)) {
            self.nanny_ends(node, PORT_CLOSED);
        }
    }

    /// Whether data between two nodes gets through.
    pub(super) fn are_apart(&self, one: usize, other: usize) -> bool {
        self.apart_until(one, other) > self.now
    }

    pub(super) fn apart_until(&self, one: usize, other: usize) -> u64 {
        let cut = |node: usize| {
            let (up, down) = self.nodes[node].cut_until;
            up.max(down)
        };
        let pairs = self
            .apart
            .iter()
            .filter(|(a, b, _)| (*a, *b) == (one, other) || (*b, *a) == (one, other));
        let pair = pairs.map(|(.., until)| *until).max().unwrap_or(0);
        if one == other { 0 } else { cut(one).max(cut(other)).max(pair) }
    }
}

/// Who a process is.
struct Process {
    node: usize,
    nanny_age: u32,
    id: ProcessId,
}
