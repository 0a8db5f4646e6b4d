//! How tasks ended, and the values that come with that or have to be fetched.

use std::sync::Arc;

use crate::bulk::Bulk;

use super::array::{Known, gaps};
use super::wait::Interest;
use super::{Action, Client, FETCHES_MAX, TAKEN_BYTES};
use crate::blob::Blob;
use crate::id::{ArrayId, ProcessId, TaskId};
use crate::message::{FromClient, Outcome};
use crate::range::Range;
use crate::time::Time;

impl Client {
    pub(super) fn handle_ended(&mut self, array: ArrayId, range: Range, outcome: Outcome) {
        let (known, values) = match outcome {
            Outcome::Done => (Known::Done, None),
            Outcome::Values(values) => {
                if let Err(reason) = check_values(range, &values) {
                    self.outbox.push_back(Action::Close(reason));
                    return;
                }
                self.take_credit(values.byte_len() as u64);
                (Known::Value, Some(values))
            }
            Outcome::Held { holder, contact } => {
                self.fetches.contacts.insert(holder, contact);
                (Known::Held(holder), None)
            }
            Outcome::Failed(failure) => (Known::Failed(Arc::new(failure)), None),
        };
        let Some(record) = self.arrays.get(&array) else {
            return;
        };
        let mut news = Vec::new();
        for part in record.held_within(range) {
            news.extend(gaps(&record.known, part));
            let older = record.known.within(part);
            news.extend(older.filter_map(|(part, old)| {
                let old = Some(old);
                known.is_newer_than(old).then_some(part)
            }));
        }
        news.sort_unstable();
        for part in news {
            let values = values.as_ref().map(|values| {
                values.slice(Range::new(part.start - range.start, part.end - range.start))
            });
            self.learn(array, part, &known, values);
        }
        self.pump_fetches();
    }

    /// Notes how all of `range` ended and tells who waits.
    fn learn(&mut self, array: ArrayId, range: Range, known: &Known, values: Option<Blob>) {
        let Some(record) = self.arrays.get_mut(&array) else {
            return;
        };
        record.known.insert(range, known.clone());
        record.wanted.update(range, |_, interest| (!known.answers(*interest)).then_some(*interest));
        if let Some(values) = values {
            record.keep_values(range, values);
        }
        let failed = matches!(known, Known::Failed(_));
        match known {
            Known::Done => {}
            Known::Held(_) => {
                let awaited = record.awaiting(Interest::Value).within(range);
                let awaited = awaited.map(|(part, _)| (array, part));
                self.fetches.queue.extend(awaited);
                self.settle(array, range, Interest::Small, failed);
            }
            Known::Value | Known::Failed(_) => {
                self.settle(array, range, Interest::Small, failed);
                self.settle(array, range, Interest::Value, failed);
            }
        }
        self.settle(array, range, Interest::End, failed);
    }

    /// A value has come from its holder.
    pub fn handle_fetched(&mut self, _now: Time, task: TaskId, value: impl Into<Bulk>) {
        if self.fetches.running.remove(&task).is_none() {
            return;
        }
        if let Some(record) = self.arrays.get_mut(&task.array)
            && matches!(record.known.get(task.index), Some(Known::Held(_)))
        {
            record.keep_fetched(task.index, value.into());
            self.settle(task.array, Range::one(task.index), Interest::Value, false);
        }
        self.pump_fetches();
    }

    /// A value has not come from its holder: the scheduler must find another one, or have the task
    /// run again. `denied` says whether the holder said itself that it has not got it.
    pub fn handle_fetch_failed(
        &mut self,
        _now: Time,
        task: TaskId,
        holder: ProcessId,
        denied: bool,
    ) {
        if self.fetches.running.get(&task) != Some(&holder) {
            return;
        }
        self.fetches.running.remove(&task);
        if let Some(record) = self.arrays.get_mut(&task.array)
            && record.known.get(task.index) == Some(&Known::Held(holder))
        {
            let range = Range::one(task.index);
            record.known.remove(range);
            record.wanted.insert(range, Interest::Value);
            self.send(FromClient::Missed { task, holder, denied });
            self.send(FromClient::Want { array: task.array, range, values: true });
        } else {
            // Another holder was named meanwhile, and is asked if somebody still waits.
            self.fetches.queue.push_back((task.array, Range::one(task.index)));
        }
        self.pump_fetches();
    }

    /// A holder is gone. Nobody waits for what is on its way from there; what somebody waits for is
    /// asked for anew, and what nobody does has ended, wherever it may be now.
    pub(super) fn handle_gone(&mut self, process: ProcessId) {
        self.fetches.contacts.remove(&process);
        self.fetches.running.retain(|_, holder| *holder != process);
        let mut wants = Vec::new();
        for (&array, record) in &mut self.arrays {
            let awaited = record.forget_holder(process);
            wants.extend(awaited.iter().map(|range| (array, range)));
        }
        for (array, range) in wants {
            self.send(FromClient::Want { array, range, values: true });
        }
        self.pump_fetches();
    }

    /// Starts fetches while there is room, of values that somebody still waits for.
    pub(super) fn pump_fetches(&mut self) {
        while self.fetches.running.len() < FETCHES_MAX {
            let Some((array, range)) = self.fetches.queue.front_mut() else {
                return;
            };
            let array = *array;
            let index = range.start;
            range.start += 1;
            if range.is_empty() {
                self.fetches.queue.pop_front();
            }
            let task = TaskId { array, index };
            if let Some(holder) = self.fetchable(task)
                && let Some(contact) = self.fetches.contacts.get(&holder).cloned()
            {
                self.fetches.running.insert(task, holder);
                self.outbox.push_back(Action::Fetch { task, holder, contact });
            }
        }
    }

    /// Who holds a value that somebody waits for and nobody fetches.
    fn fetchable(&self, task: TaskId) -> Option<ProcessId> {
        let record = self.arrays.get(&task.array)?;
        let Known::Held(holder) = record.known.get(task.index)? else {
            return None;
        };
        let awaited = record.awaiting(Interest::Value).get(task.index).is_some();
        (awaited && !self.fetches.running.contains_key(&task)).then_some(*holder)
    }

    fn take_credit(&mut self, bytes: u64) {
        self.taken_bytes += bytes;
        if self.taken_bytes >= TAKEN_BYTES {
            let bytes = std::mem::take(&mut self.taken_bytes);
            self.send(FromClient::Taken { bytes });
        }
    }
}

fn check_values(range: Range, values: &Blob) -> Result<(), String> {
    values.check().map_err(|error| error.to_string())?;
    if values.count() == range.len() {
        Ok(())
    } else {
        let count = values.count();
        Err(format!("{count} values came for the tasks {range:?}"))
    }
}
