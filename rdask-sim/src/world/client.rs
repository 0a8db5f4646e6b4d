//! The shell around a client: its link, its machine, and what that wants done. What the program
//! does is in `program`, what it waits for in `gather`.

mod gather;
mod nested;
mod program;
mod tasks;

use std::collections::BTreeMap;

use rdask_core::client::{Action, Client as Core, Piece, WaiterId};
use rdask_core::hello::You;
use rdask_core::message::Parent;
use rdask_core::process::{ChunkId, ValueId};
use rdask_core::range::Range;

use super::scheduler::hash_of;
use super::session::PORT_CLOSED;
use super::{Actor, Event, MS, SECOND, World, note};
use crate::link::{Message, Way};
use crate::value::decode;

use gather::Gather;
pub(super) use tasks::Kept;
use tasks::Local;

pub(super) struct Client {
    /// Which of the scenario's it is.
    pub(super) spec: Option<usize>,
    /// The process whose nested tasks it submits.
    pub(super) home: Option<usize>,
    pub(super) program: u8,
    /// The workers that it lets go, if that is all that it is there for.
    pub(super) retires: Option<String>,
    pub(super) core: Option<Core>,
    pub(super) link: Option<usize>,
    pub(super) is_alive: bool,
    pub(super) frozen_until: u64,
    pub(super) cut_until: (u64, u64),
    timer_at: Option<u64>,
    next_step: usize,
    next_at: Option<u64>,
    locals: BTreeMap<u32, Local>,
    gathers: BTreeMap<WaiterId, Gather>,
    /// Names asked for, by request.
    attaching: BTreeMap<u32, u32>,
    /// Questions without an answer.
    asking: usize,
    /// Runs that wait for it to be connected.
    waiting: Vec<(ChunkId, Parent)>,
}

impl World {
    pub(super) fn add_client(&mut self, spec: Option<usize>, home: Option<usize>) -> usize {
        let program = match (spec, home) {
            (Some(spec), _) => self.scenario.clients[spec].program,
            (None, Some(process)) => self.processes[process].program,
            (None, None) => 0,
        };
        self.clients.push(Client {
            spec,
            home,
            program,
            retires: None,
            core: None,
            link: None,
            is_alive: true,
            frozen_until: 0,
            cut_until: (0, 0),
            timer_at: None,
            next_step: 0,
            next_at: None,
            locals: BTreeMap::new(),
            gathers: BTreeMap::new(),
            attaching: BTreeMap::new(),
            asking: 0,
            waiting: Vec::new(),
        });
        self.clients.len() - 1
    }

    pub(super) fn client_starts(&mut self, client: usize) {
        if !self.clients[client].is_alive {
            return;
        }
        let home = self.clients[client].home.map(|process| self.processes[process].id);
        let link = self.dial(Actor::Client(client), home);
        self.clients[client].link = Some(link);
    }

    /// A client is no more.
    pub(super) fn kill_client(&mut self, client: usize, scheduler_hears_within: u64) {
        if std::mem::take(&mut self.clients[client].is_alive) {
            note!(self, "client {client} is gone");
            if let Some(link) = self.clients[client].link {
                self.end_link(link, scheduler_hears_within);
            }
        }
    }

    pub(super) fn client_loses_link(&mut self, client: usize) {
        self.kill_client(client, PORT_CLOSED);
        if let Some(process) = self.clients[client].home
            && self.scheduler.core.knows(self.processes[process].works_as())
        {
            // Its runs can't go on. Those of a process that was given up are void.
            self.kill_process(process, PORT_CLOSED);
        }
        self.client_returns(client);
    }

    /// The same program begins anew.
    pub(super) fn client_returns(&mut self, client: usize) {
        let Some(spec) = self.clients[client].spec else { return };
        if self.scenario.clients[spec].returns {
            let again = self.add_client(Some(spec), None);
            self.clients[again].cut_until = self.clients[client].cut_until;
            let at = self.now + self.dice.between(10 * MS, 2 * SECOND);
            self.push(at, Event::ClientStarts(again));
        }
    }

    pub(super) fn client_gets(&mut self, client: usize, message: Message) {
        let now = self.time();
        match message {
            Message::Welcome(You::Client(id)) => {
                self.clients[client].core = Some(Core::new(id));
                if let Some(name) = self.clients[client].retires.clone() {
                    self.core(client).retire(vec![name]);
                }
                if self.clients[client].spec.is_some() {
                    self.client_step(client);
                }
                for (chunk, parent) in std::mem::take(&mut self.clients[client].waiting) {
                    self.submit_nested(client, chunk, parent);
                }
            }
            Message::ToClient(message) => {
                if let Some(core) = &mut self.clients[client].core {
                    core.handle_message(now, message);
                }
            }
            message => self.fail(format!("client {client} was told {message:?}")),
        }
    }

    pub(super) fn client_timer(&mut self, client: usize) {
        self.clients[client].timer_at = None;
        let now = self.time();
        if self.clients[client].is_alive
            && let Some(core) = &mut self.clients[client].core
        {
            core.handle_timeout(now);
            self.client_acts(client);
        }
    }

    /// Does what the machine wants done.
    pub(super) fn client_acts(&mut self, client: usize) {
        while self.clients[client].is_alive
            && let Some(core) = &mut self.clients[client].core
            && let Some(action) = core.poll_action()
        {
            self.client_does(client, action);
        }
        let state = &mut self.clients[client];
        if let Some(at) = state.core.as_ref().and_then(Core::poll_timeout) {
            let at = at.0.max(self.now);
            if state.timer_at.is_none_or(|timer| timer > at) {
                state.timer_at = Some(at);
                self.push(at, Event::ClientTimer(client));
            }
        }
    }

    fn client_does(&mut self, client: usize, action: Action) {
        match action {
            Action::Send(message) => {
                if let Some(link) = self.clients[client].link {
                    self.send(link, Way::Up, Message::FromClient(message));
                }
            }
            Action::Fetch { task, holder, .. } => {
                self.start_get(Actor::Client(client), ValueId { task, part: 0 }, holder);
            }
            Action::Put { task, assignment, process, value, .. } => {
                let number = decode(&value).unwrap_or(0);
                let put = (assignment, number, value.len() as u64);
                self.start_put(Actor::Client(client), ValueId { task, part: 0 }, process, put);
            }
            Action::Progress { .. } | Action::Warn(_) | Action::Explained { .. } => {}
            Action::Retiring { .. } => self.kill_client(client, MS),
            Action::Complete(waiter) => self.completed(client, waiter),
            Action::Attached { request, ranges } => self.attached(client, request, ranges),
            Action::States { .. } | Action::Status { .. } => {
                self.clients[client].asking = self.clients[client].asking.saturating_sub(1);
            }
            Action::SendProgram => {
                let at = self.now + self.dice.between(MS, 200 * MS);
                let program = self.clients[client].program;
                self.push(at, Event::ProgramStored(hash_of(program)));
            }
            Action::Close(reason) => self.fail(format!("client {client} closes: {reason}")),
        }
    }

    /// Whether a client has done all it had to do.
    pub(super) fn is_done(&self, client: usize) -> bool {
        let state = &self.clients[client];
        let Some(spec) = state.spec else { return state.gathers.is_empty() };
        !state.is_alive
            || (state.next_step >= self.scenario.clients[spec].steps.len()
                && state.gathers.is_empty()
                && state.attaching.is_empty()
                && state.asking == 0)
    }

    /// What a client waits for, for people.
    pub(super) fn waits_for(&self, client: usize) -> String {
        let state = &self.clients[client];
        let mut text = format!(
            "client {client}: connected {}, at step {}, attaching {:?}, asking {}",
            state.core.is_some(),
            state.next_step,
            state.attaching,
            state.asking
        );
        for gather in state.gathers.values() {
            let Some(core) = &state.core else { continue };
            for task in &gather.local.tasks {
                if core
                    .pieces(task.array, Range::one(task.index))
                    .iter()
                    .any(|piece| matches!(piece, Piece::Absent(_)))
                {
                    let look = self.scheduler.core.look(*task);
                    text.push_str(&format!(
                        "; {task} is {look:?}, last run {}, waited {} s",
                        self.ledger.tell(*task),
                        (self.now - gather.begun) / SECOND
                    ));
                    break;
                }
            }
        }
        text
    }

    fn core(&mut self, client: usize) -> &mut Core {
        self.clients[client].core.as_mut().expect("only connected clients act")
    }
}
