//! The shell around a process: its link, its machine, and a store of values.

mod inputs;
mod slots;

use std::collections::BTreeMap;

use bytes::Bytes;
use rdask_core::id::{ProcessId, TaskId};
use rdask_core::message::Exit;
use rdask_core::process::{Action, ChunkId, Process as Core, ValueId, run_number};
use rdask_core::range::Range;

use super::session::PORT_CLOSED;
use super::{Actor, Event, MS, World, note};
use crate::link::{Message, Way};
use crate::value::encode;

use slots::Chunk;

pub(super) struct Process {
    pub(super) id: ProcessId,
    /// The number that it still works under, if it is about to join again under another.
    pub(super) was: Option<ProcessId>,
    pub(super) node: usize,
    pub(super) nanny_age: u32,
    pub(super) worker: usize,
    pub(super) program: u8,
    pub(super) core: Core,
    pub(super) is_alive: bool,
    pub(super) link: Option<usize>,
    pub(super) frozen_until: u64,
    pub(super) cut_until: (u64, u64),
    pub(super) store: BTreeMap<ValueId, u64>,
    chunks: BTreeMap<ChunkId, Chunk>,
    timer_at: Option<u64>,
    /// Whether a fault ended it.
    pub(super) is_struck: bool,
    /// How its nanny says that it ended.
    pub(super) exit: Exit,
    /// Its client for nested tasks.
    pub(super) nested: Option<usize>,
}

impl Process {
    /// The number that it works under.
    pub(super) fn works_as(&self) -> ProcessId {
        self.was.unwrap_or(self.id)
    }

    /// What is on its slot board.
    pub(super) fn running_runs(&self) -> Vec<(TaskId, u32)> {
        let chunks = self.chunks.values();
        let run = |chunk: &Chunk| run_number(&chunk.start.assign, chunk.current);
        self.running_tasks().into_iter().zip(chunks.map(run)).collect()
    }

    pub(super) fn running_tasks(&self) -> Vec<TaskId> {
        let task = |chunk: &Chunk| TaskId { array: chunk.start.assign.array, index: chunk.current };
        self.chunks.values().map(task).collect()
    }
}

impl World {
    pub(super) fn add_process(
        &mut self,
        node: usize,
        worker: usize,
        program: u8,
        id: ProcessId,
    ) -> usize {
        let index = self.processes.len();
        self.processes.push(Process {
            id,
            was: None,
            node,
            nanny_age: self.nodes[node].age,
            worker,
            program,
            core: Core::new(id, 0),
            is_alive: true,
            link: None,
            frozen_until: 0,
            cut_until: (0, 0),
            store: BTreeMap::new(),
            chunks: BTreeMap::new(),
            timer_at: None,
            is_struck: false,
            exit: Exit::Signal(9),
            nested: None,
        });
        self.by_id.insert(id, index);
        index
    }

    pub(super) fn process_starts(&mut self, process: usize) {
        if self.processes[process].is_alive {
            let id = self.processes[process].id;
            let link = self.dial(Actor::Process(process), Some(id));
            self.processes[process].link = Some(link);
        }
    }

    /// A process is no more; its nanny sees it at once.
    pub(super) fn kill_process(&mut self, process: usize, scheduler_hears_within: u64) {
        if !self.processes[process].is_alive {
            return;
        }
        note!(self, "process {} is gone", self.processes[process].id);
        self.processes[process].is_alive = false;
        let link = self.processes[process].link;
        if link.is_none_or(|link| !self.links[link].is_welcome) {
            self.launches_failed += 1;
        }
        if let Some(link) = link {
            self.end_link(link, scheduler_hears_within);
        }
        if let Some(client) = self.processes[process].nested {
            self.kill_client(client, scheduler_hears_within);
        }
        let at = self.now + self.dice.below(2 * MS);
        self.push(at, Event::ProcessGone(process));
    }

    pub(super) fn process_loses_link(&mut self, process: usize, link: usize) {
        if self.links[link].is_welcome {
            // Its nanny ends it, or has it return.
            return;
        }
        if self.processes[process].was.is_some() {
            return self.dial_as_told(process);
        }
        let now = self.time();
        self.processes[process].core.handle_link_lost(now);
        self.process_acts(process);
    }

    pub(super) fn process_gets(&mut self, process: usize, message: Message) {
        match message {
            Message::Welcome(_) => self.process_is_welcome(process),
            Message::Refused(reason) => {
                note!(self, "process {} is refused: {reason}", self.processes[process].id);
                self.kill_process(process, PORT_CLOSED);
            }
            Message::ToProcess(message) => {
                let now = self.time();
                self.processes[process].core.handle_message(now, message);
            }
            message => self.fail(format!("a process was told {message:?}")),
        }
    }

    pub(super) fn process_timer(&mut self, process: usize) {
        let now = self.time();
        self.processes[process].timer_at = None;
        if self.processes[process].is_alive {
            self.processes[process].core.handle_timeout(now);
            self.process_acts(process);
        }
    }

    /// Does what the machine wants done.
    pub(super) fn process_acts(&mut self, process: usize) {
        while self.processes[process].is_alive
            && let Some(action) = self.processes[process].core.poll_action()
        {
            self.process_does(process, action);
        }
        if !self.processes[process].is_alive {
            return;
        }
        let state = &mut self.processes[process];
        if let Some(at) = state.core.poll_timeout() {
            let at = at.0.max(self.now);
            if state.timer_at.is_none_or(|timer| timer > at) {
                state.timer_at = Some(at);
                self.push(at, Event::ProcessTimer(process));
            }
        }
    }

    fn process_does(&mut self, process: usize, action: Action) {
        match action {
            Action::StartChunk(start) => self.start_chunk(process, start),
            Action::TakeBack(id) => {
                let range = match self.processes[process].chunks.get_mut(&id) {
                    Some(chunk) => {
                        let rest = Range::new(chunk.current + 1, chunk.end.max(chunk.current + 1));
                        chunk.end = chunk.current + 1;
                        rest
                    }
                    None => Range::new(0, 0),
                };
                let now = self.time();
                self.processes[process].core.handle_taken_back(now, id, range);
            }
            Action::CancelRunning(id, range) => self.cancel_running(process, id, range),
            Action::Resume(id) => self.resume(process, id),
            Action::Fetch { value, holder, .. } => {
                self.start_get(Actor::Process(process), value, holder);
            }
            Action::DropValues(array, range) => {
                let first = |index| ValueId { task: TaskId { array, index }, part: 0 };
                let store = &mut self.processes[process].store;
                let range = first(range.start)..first(range.end);
                while let Some((&value, _)) = store.range(range.clone()).next() {
                    store.remove(&value);
                }
            }
            Action::DropReplica(value) => {
                self.processes[process].store.remove(&value);
            }
            Action::Send(message) => {
                if let Some(link) = self.processes[process].link {
                    self.send(link, Way::Up, Message::FromProcess(message));
                }
            }
            Action::Exit { reason } => {
                self.processes[process].exit = Exit::Code(0);
                note!(self, "process {} ends: {reason}", self.processes[process].id);
                self.kill_process(process, PORT_CLOSED);
            }
        }
    }
}

/// A value in the bytes that clients get.
pub(super) fn bytes_of(value: u64) -> Bytes {
    encode(value)
}
