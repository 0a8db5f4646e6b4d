//! What a program waits for, compared with what should come of it.

use rdask_core::client::{Client as Core, Interest, Piece, WaiterId};
use rdask_core::failure::{Failure, FailureKind};
use rdask_core::id::{ClientId, TaskId};
use rdask_core::message::TaskStatus;
use rdask_core::process::ChunkId;
use rdask_core::range::Range;

use super::tasks::{Expect, Local};
use crate::scenario::Until;
use crate::value::decode;
use crate::world::{Event, World};

#[derive(Clone, Debug)]
pub(super) struct Gather {
    pub(super) local: Local,
    until: Until,
    sum: Option<u64>,
    /// The run that waits, if this is a client for nested tasks.
    pub(super) chunk: Option<ChunkId>,
    pub(super) begun: u64,
}

impl World {
    pub(super) fn gather(
        &mut self,
        client: usize,
        local: Local,
        until: Until,
        sum: Option<u64>,
        chunk: Option<ChunkId>,
    ) {
        let begun = self.now;
        // Several outputs go to tasks; there is no one value.
        let until = if local.parts > 1 { Until::Ends } else { until };
        let ranges = local.ranges();
        let core = self.core(client);
        ranges.iter().for_each(|(array, range)| core.retain(*array, *range));
        let waiter = match until {
            Until::Ends => core.wait(&ranges, Interest::End),
            Until::Small => core.wait(&ranges, Interest::Small),
            Until::Values => core.wait(&ranges, Interest::Value),
            Until::Each => core.wait_each(&ranges, Interest::Value),
        };
        let gather = Gather { local, until, sum, chunk, begun };
        self.clients[client].gathers.insert(waiter, gather);
    }

    pub(super) fn completed(&mut self, client: usize, waiter: WaiterId) {
        let now = self.time();
        let Some(gather) = self.clients[client].gathers.remove(&waiter) else { return };
        let found = self.compare(client, &gather);
        let core = self.core(client);
        core.stop_waiting(waiter);
        for (array, range) in gather.local.ranges() {
            core.release(now, array, range);
        }
        if let (Some(chunk), Some(process)) = (gather.chunk, self.clients[client].home) {
            for (array, range) in gather.local.ranges() {
                self.core(client).release(now, array, range);
            }
            self.children_came(process, chunk, found);
        } else {
            if let Err(why) = found {
                self.fail(format!("client {client}: {why}"));
            }
            let at = self.now;
            self.push(at, Event::ClientStep(client));
        }
    }

    /// What came, compared with what should. Nested tasks that fail have their parent fail.
    pub(super) fn compare(&self, client: usize, gather: &Gather) -> Result<Vec<u64>, String> {
        let core = self.clients[client].core.as_ref().expect("it has just acted");
        let mut values = Vec::new();
        for (task, expect) in gather.local.tasks.iter().zip(&gather.local.expect) {
            // Who waits for ends only may find that a value was missed since, and is made again.
            let is_open = matches!(gather.until, Until::Ends | Until::Small);
            if core.status(*task).is_none() && is_open && self.missed.contains(task) {
                continue;
            }
            if core.status(*task).is_none() {
                return Err(format!("{task} has not ended, it is said to have"));
            }
            let failed =
                matches!(core.status(*task), Some(TaskStatus::Error | TaskStatus::Cancelled));
            let pieces = core.pieces(task.array, Range::one(task.index));
            match pieces.first() {
                Some(Piece::Failed(_, failure)) if gather.chunk.is_some() => {
                    return Err(format!("a nested task failed: {failure}"));
                }
                Some(Piece::Failed(_, failure)) => self.explain(*task, *expect, failure)?,
                Some(Piece::Values(_, blob)) => {
                    values.push(equal(*task, *expect, decode(blob.get(0)))?);
                }
                Some(Piece::Value(_, bytes)) => {
                    values.push(equal(*task, *expect, decode(bytes.bytes()))?);
                }
                Some(Piece::Absent(_)) | None => match gather.until {
                    Until::Ends | Until::Small if expect.fails == failed => {}
                    Until::Ends | Until::Small => {
                        return Err(format!("{task} ended as failed: {failed}, not as expected"));
                    }
                    Until::Values | Until::Each => {
                        return Err(format!("the value of {task} is not here"));
                    }
                },
            }
        }
        if let Some(sum) = gather.sum
            && values.len() == gather.local.tasks.len()
            && sum == gather.local.expect.iter().fold(0u64, |sum, one| sum.wrapping_add(one.value))
        {
            let found = values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value));
            if found != sum {
                return Err(format!("the sum is {found} and should be {sum}"));
            }
        }
        Ok(values)
    }

    /// A task failed: it should have, or something that went wrong explains it.
    pub(super) fn explain(
        &self,
        task: TaskId,
        expect: Expect,
        failure: &Failure,
    ) -> Result<(), String> {
        let origin = failure.origin;
        let is_fair = match failure.kind {
            FailureKind::Cancelled => {
                let cancelled = self.cancelled.get(&origin.array);
                cancelled.is_some_and(|set| set.contains(origin.index))
            }
            // Its client went before it had put the value, or who had the value is lost.
            FailureKind::InputLost if self.is_gone(origin.array.client) => true,
            FailureKind::InputLost => {
                self.holders.is_lost(origin, self.now) || self.dropped_puts.contains(&origin)
            }
            FailureKind::Killed => self.is_convicted_fairly(origin),
            FailureKind::Unrunnable => self.launches_failed >= 3,
            _ => expect.fails && !self.poison.contains(&origin),
        };
        if is_fair { Ok(()) } else { Err(format!("{task} failed unfairly: {failure}")) }
    }

    /// Three deaths end a task that ends its processes, and whoever is struck often enough to look
    /// like one; the last time it ran alone. Who ran beside killers is cleared.
    fn is_convicted_fairly(&self, origin: TaskId) -> bool {
        let (deaths, struck) = self.deaths.get(&origin).copied().unwrap_or_default();
        let is_exact = !self.scenario.faults.is_empty() || deaths == 3;
        deaths >= 3 && (struck > 0 || self.poison.contains(&origin) && is_exact)
    }

    pub(super) fn is_gone(&self, id: ClientId) -> bool {
        let is_it = |core: &Core| core.id() == id;
        !self.clients.iter().any(|one| one.is_alive && one.core.as_ref().is_some_and(is_it))
    }

    /// Waits for everything that a program still has handles of.
    pub(in crate::world) fn gather_all(&mut self, client: usize) {
        let locals: Vec<Local> = self.clients[client].locals.values().cloned().collect();
        for local in locals {
            self.gather(client, local, Until::Values, None, None);
        }
        self.client_acts(client);
    }
}

fn equal(task: TaskId, expect: Expect, found: Option<u64>) -> Result<u64, String> {
    match found {
        Some(found) if found == expect.value && !expect.fails => Ok(found),
        _ => Err(format!("{task} has the value {found:?}, and {expect:?} is right")),
    }
}
