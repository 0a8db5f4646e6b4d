//! What is noted of what the scheduler hears and says: for the ledger, and for coverage.

use rdask_core::id::{ArrayId, ClientId, Peer, ProcessId, TaskId, ValueId};
use rdask_core::message::{End, FromClient, FromProcess, ToClient, ToProcess};
use rdask_core::range::Range;
use rdask_core::scheduler::Look;

use crate::world::World;
use crate::world::notices::GONE;
use crate::world::stops::OVERRUN;

/// How often the holder of a scattered value is not to be reached before the value is lost.
const TRIES_FOR_SCATTERED: u32 = 20;

impl World {
    /// What the ledger has to know of what a process says.
    pub(super) fn observe_process(&mut self, from: ProcessId, message: &FromProcess) {
        let is_known = self.scheduler.core.knows(from);
        let mark = |world: &mut Self, array, index, event| {
            let look = world.scheduler.core.look(TaskId { array, index });
            world.coverage.mark(look, event);
        };
        match message {
            FromProcess::Report { finished, .. } => {
                for one in finished {
                    let event = match (&one.end, is_known) {
                        (_, false) => "late report",
                        (End::Inline(_), _) => "ended inline",
                        (End::Stored(_), _) => "ended stored",
                        (End::Failed(_), _) => "failed",
                        (End::Cancelled | End::Lost, _) => "not run",
                    };
                    mark(self, one.array, one.range.start, event);
                    if is_known {
                        let is_stored = matches!(one.end, End::Stored(_));
                        let is_called_back = matches!(one.end, End::Cancelled);
                        for index in one.range {
                            let task = TaskId { array: one.array, index };
                            self.ledger.taken(task, from);
                            if is_called_back {
                                // It may have begun when the word was under way.
                                self.ledger.called_back(task, from);
                            }
                            if is_stored {
                                self.holders.has(task, from);
                            }
                            if is_whole(&one.end, one.range) {
                                self.ledger.held(task, from);
                            }
                        }
                    }
                }
            }
            FromProcess::Holds { values } => {
                for ValueId { task, .. } in values {
                    mark(self, task.array, task.index, "copied");
                    if is_known {
                        self.holders.has(*task, from);
                        if self.ledger.has_holders(*task) {
                            self.ledger.held(*task, from);
                        }
                    }
                }
            }
            FromProcess::Missed { task, holder, denied, .. } => {
                mark(self, task.array, task.index, "missed by a process");
                self.observe_miss(*task, *holder, *denied, is_known);
            }
            FromProcess::NotAcquired { task } => {
                mark(self, task.array, task.index, "not copied");
            }
            FromProcess::Fetched { .. }
            | FromProcess::Stopped { .. }
            | FromProcess::SlotsFree { .. }
            | FromProcess::Parked { .. }
            | FromProcess::GaveUp { .. }
            | FromProcess::Offer { .. } => {}
        }
    }

    pub(super) fn observe_client(&mut self, from: ClientId, message: &FromClient, is_known: bool) {
        if !is_known {
            return;
        }
        let mut mark = |array: ArrayId, range: Range, event| {
            if !range.is_empty() {
                let look = self.scheduler.core.look(TaskId { array, index: range.start });
                self.coverage.mark(look, event);
            }
        };
        match message {
            FromClient::Want { array, range, .. } => mark(*array, *range, "wanted"),
            FromClient::Release { ranges } => {
                for (array, range) in ranges {
                    mark(*array, *range, "released");
                }
            }
            FromClient::Cancel { array, range } => mark(*array, *range, "cancelled"),
            FromClient::Detach { name, ranges } => {
                for (array, range) in ranges {
                    mark(*array, *range, "detached");
                }
                self.name_kept(name, ranges);
            }
            FromClient::Attach { name, .. } => self.name_taken(name),
            FromClient::Missed { task, holder, denied } => {
                mark(task.array, Range::one(task.index), "missed by a client");
                self.observe_miss(*task, *holder, *denied, true);
            }
            FromClient::SubmitBatch { number, batch, .. } => {
                let own = ArrayId { client: from, number: *number };
                for edge in batch.edges.iter().filter(|edge| edge.task.array != own) {
                    mark(edge.task.array, Range::one(edge.task.index), "depended on");
                }
            }
            FromClient::Retire { names, .. } => self.observe_retirement(from, names),
            _ => {}
        }
    }

    fn observe_miss(&mut self, task: TaskId, holder: ProcessId, denied: bool, is_known: bool) {
        let count = self.ledger.missed(task, denied);
        let is_there = self.scheduler.core.look(task) == Look::DoneHeld;
        self.missed_once = (is_there && count == 1 && !denied).then_some(task);
        if is_known && (denied || count >= TRIES_FOR_SCATTERED) {
            self.holders.has_not(task, holder);
            self.ledger.not_held(task, holder);
        }
        self.missed.insert(task);
    }

    /// One try that has failed takes no value from its holder.
    pub(super) fn check_missed(&mut self) {
        if let Some(task) = self.missed_once.take()
            && self.scheduler.core.look(task) != Look::DoneHeld
        {
            self.fail(format!("{task} was missed once, and is made again"));
        }
    }

    /// What a lost process had, as the scheduler sees it.
    pub(super) fn mark_losses(&mut self, peer: Peer) {
        let Peer::Process(id) = peer else { return };
        let Some(process) = self.by_id.get(&id) else { return };
        let held: Vec<TaskId> =
            self.processes[*process].store.keys().map(|value| value.task).collect();
        for task in held {
            let look = self.scheduler.core.look(task);
            self.coverage.mark(look, "a holder is lost");
        }
        for task in self.processes[*process].running_tasks() {
            let look = self.scheduler.core.look(task);
            self.coverage.mark(look, "its process is lost");
        }
    }

    /// What clients are told: where to put values, and whom they have let go.
    pub(super) fn observe_answer(&mut self, to: ClientId, message: &ToClient) {
        match message {
            ToClient::Put { process, .. } => self.check_stays(*process, "a value of a client"),
            ToClient::Retiring { workers, .. } => self.check_retired(to, workers),
            _ => {}
        }
    }

    pub(super) fn observe_order(&mut self, to: ProcessId, message: &ToProcess) {
        let mut dropped = |array: ArrayId, range: Range| {
            for index in range {
                let task = TaskId { array, index };
                self.ledger.dropped(task);
                if self.puts.contains(&task) {
                    self.dropped_puts.insert(task);
                }
            }
        };
        match message {
            ToProcess::Assign(assign) => {
                let grace_ms = self.work(assign.function.0).kill_grace_ms;
                self.stops.assigned(to, assign, grace_ms);
                self.check_heard(to, "run", assign.array);
            }
            ToProcess::Acquire { array, .. } => self.check_heard(to, "hold", *array),
            ToProcess::Cancel { array, range } => {
                for index in *range {
                    let task = TaskId { array: *array, index };
                    if !self.ledger.is_taken(task, to) {
                        self.stops.told(to, task, self.now);
                    }
                    self.ledger.called_back(task, to);
                    self.to_recall.remove(&task);
                }
            }
            ToProcess::Drop { ranges } => {
                ranges.iter().for_each(|(array, range)| dropped(*array, *range));
                for (array, range) in ranges {
                    let tasks = range.iter().map(|index| TaskId { array: *array, index });
                    tasks.for_each(|task| self.ledger.not_held(task, to));
                }
            }
            ToProcess::DropCopies { values } => {
                values.iter().for_each(|value| self.ledger.not_held(value.task, to));
            }
            ToProcess::Exit { reason } => {
                self.stops.ended.insert(to);
                match reason.as_str() {
                    OVERRUN => self.check_overrun(to),
                    GONE => self.check_let_go(&[to]),
                    _ => {}
                }
            }
            ToProcess::DropResults { array, range, .. } => {
                for task in range.iter().map(|index| TaskId { array: *array, index }) {
                    self.ledger.dropped(task);
                    self.holders.is_too_late(task, to);
                }
            }
            ToProcess::Steal { assignment, .. } => {
                if let Some(task) = self.stops.last_of(*assignment) {
                    let look = self.scheduler.core.look(task);
                    self.coverage.mark(look, "asked back");
                }
            }
            _ => {}
        }
    }
}

/// Whether a run has ended with one output, that stays with the process.
fn is_whole(end: &End, range: Range) -> bool {
    matches!(end, End::Stored(sizes) if sizes.len() == range.len() as usize)
}
