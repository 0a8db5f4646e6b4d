//! Nodes that were given up and come back: the nanny joins anew and names the processes that it
//! still has, the scheduler takes some of them back, and those offer what they hold.
//!
//! What was adopted is noted: it must not be made again without a new cause.

use rdask_core::id::{ProcessId, TaskId};
use rdask_core::message::{FromNanny, FromProcess, Offering, Returning};
use rdask_core::scheduler::Look;

use super::process::Process;
use super::scheduler::hash_of;
use super::session::PORT_CLOSED;
use super::{Actor, MS, SECOND, World, note};
use crate::ledger::Fate;

/// A value that is offered for a task that has none.
pub(super) type OpenOffer = (TaskId, Look, Fate);

impl World {
    /// A nanny that was given up is one again, and names the processes that it still has.
    pub(super) fn nanny_joins_again(&mut self, node: usize) {
        if self.nodes[node].ends.is_over(self.now) {
            // There is nothing to join for.
            return self.nanny_goes(node, PORT_CLOSED);
        }
        note!(self, "the nanny of node {node} joins anew");
        let state = &mut self.nodes[node];
        state.age += 1;
        state.id = None;
        state.workers.clear();
        state.waiting.clear();
        let (age, own) = (state.age, state.processes.clone());
        // Those that wait for their program, or have just been started, are ended.
        let (named, young): (Vec<usize>, Vec<usize>) =
            own.into_iter().partition(|process| self.has_joined(*process));
        young.into_iter().for_each(|process| self.kill_process(process, PORT_CLOSED));
        let returning = named.iter().map(|process| {
            let one = &self.processes[*process];
            let program = hash_of(one.program);
            Returning { was: one.id, worker: one.worker as u32, program }
        });
        let returning: Vec<Returning> = returning.collect();
        let named = named.into_iter().map(|process| (self.processes[process].id, process));
        self.nodes[node].named = named.collect();
        let link = self.dial_with(Actor::Nanny(node, age), None, returning);
        self.nodes[node].link = Some(link);
    }

    /// Whether a process was welcome once.
    fn has_joined(&self, process: usize) -> bool {
        let Process { link, was, is_alive, .. } = &self.processes[process];
        let is_welcome = link.is_some_and(|link| self.links[link].is_welcome);
        *is_alive && (is_welcome || was.is_some())
    }

    /// The scheduler takes a process back under another number.
    pub(super) fn keep(&mut self, node: usize, was: ProcessId, id: ProcessId) {
        let Some(process) = self.nodes[node].named.remove(&was) else {
            return self.fail(format!("node {node} is to keep {was}, and has not named it"));
        };
        let age = self.nodes[node].age;
        let state = &mut self.processes[process];
        if !state.is_alive {
            let (exit, board) = (state.exit.clone(), state.running_runs());
            let report = FromNanny::Exited { process: id, exit, board, stderr: Vec::new() };
            return self.nanny_says(node, report);
        }
        state.was = Some(state.works_as());
        state.id = id;
        state.nanny_age = age;
        self.by_id.insert(id, process);
        self.dial_as_told(process);
    }

    /// A process joins under the number that its nanny has told it.
    pub(super) fn dial_as_told(&mut self, process: usize) {
        if let Some(link) = self.processes[process].link {
            self.end_link(link, SECOND);
        }
        let id = self.processes[process].id;
        let link = self.dial(Actor::Process(process), Some(id));
        self.processes[process].link = Some(link);
    }

    /// A process is welcome: perhaps under another number than before.
    pub(super) fn process_is_welcome(&mut self, process: usize) {
        let now = self.time();
        let state = &mut self.processes[process];
        if state.was.take().is_none() {
            return;
        }
        note!(self, "{} is back", self.processes[process].id);
        let state = &mut self.processes[process];
        state.core.handle_returned(now, state.id);
        let client = state.nested.take();
        self.process_acts(process);
        if let Some(client) = client {
            // What it submitted is nobody's; who waits for that hears so.
            self.kill_client(client, MS);
            for chunk in self.chunks_that_wait(client) {
                self.children_came(process, chunk, Err("its client was given up".to_owned()));
            }
        }
    }

    /// Of what is offered: the values of tasks that have none.
    pub(super) fn open_offers(&mut self, from: ProcessId, message: &FromProcess) -> Vec<OpenOffer> {
        let FromProcess::Offer { values, .. } = message else { return Vec::new() };
        let mut open = Vec::new();
        for offered in values {
            let fate = match offered.what {
                Offering::Inline { .. } => Fate::Inline,
                Offering::Stored { .. } | Offering::Copies => Fate::Stored,
            };
            for index in offered.range {
                let task = TaskId { array: offered.array, index };
                let look = self.scheduler.core.look(task);
                self.coverage.mark(look, "offered");
                if self.ledger.has_holders(task) {
                    self.ledger.held(task, from);
                }
                if !is_done(look) {
                    open.push((task, look, fate));
                }
            }
        }
        open
    }

    /// Those of them that have a value now have it from the process that is back.
    pub(super) fn observe_adoptions(&mut self, from: ProcessId, offers: Vec<OpenOffer>) {
        for (task, look, fate) in offers {
            if is_done(self.scheduler.core.look(task)) {
                note!(self, "the value of {task} is taken from {from}");
                let is_recalled = look == Look::Assigned;
                self.ledger.adopted(task, from, fate, is_recalled);
                if is_recalled {
                    self.to_recall.insert(task);
                }
                self.holders.is_back(task, from);
            }
        }
    }

    /// Who has begun anew with what an earlier run has made was told to stop.
    pub(super) fn check_recalled(&mut self) {
        if let Some(task) = self.to_recall.pop_first() {
            self.fail(format!("{task} has its value again, and its run is not called back"));
        }
    }
}

fn is_done(look: Look) -> bool {
    matches!(look, Look::DoneInline | Look::DoneHeld | Look::DoneNowhere)
}
