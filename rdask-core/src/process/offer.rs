//! Given up, and back under another number: what was assigned is void, what is here is offered.
//!
//! Runs that are under way can't be taken back; they see their token, and nothing comes of them. They
//! have no slots any more: the scheduler doesn't know of them, and one that is deaf to its token may
//! last for hours.

use std::sync::Arc;

use super::report::Outbox;
use super::{Action, Process, ValueId, run_number};
use crate::blob::Blob;
use crate::id::{ArrayId, ProcessId};
use crate::message::{Assign, CHUNK_BYTES_MAX, FromProcess, Offered, Offering};
use crate::range::Range;
use crate::time::Time;

impl Process {
    /// The scheduler had given this process up, and takes it back under another number.
    pub fn handle_returned(&mut self, now: Time, id: ProcessId) {
        self.now = now;
        self.id = id;
        self.void_all();
        self.actions.retain(|action| !matches!(action, Action::Send(_)));
        for message in self.offers() {
            self.actions.push_back(Action::Send(message));
        }
        self.settle();
    }

    /// Nothing that was asked of the process counts any more.
    fn void_all(&mut self) {
        for id in self.works.keys().copied().collect::<Vec<_>>() {
            let range = self.works.get(&id).map(|work| work.assign.range);
            range.map(|range| self.forget_unstarted(id, range));
        }
        let running = self.chunks.iter().filter(|(_, chunk)| !chunk.is_void);
        for id in running.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.void(id);
        }
        // Those that were void before have timed out, and kept their slots.
        let deaf = self.chunks.iter_mut().filter(|(_, chunk)| chunk.threads > 0);
        for (id, chunk) in deaf {
            self.slots.deprive(*id, std::mem::take(&mut chunk.threads));
        }
        for value in std::mem::take(&mut self.inputs.acquiring) {
            self.release_input(value);
        }
        self.orphans.clear();
        self.outbox = Outbox::default();
        self.contacts.clear();
        self.slots.grant(0);
        self.slots.revoked = false;
    }

    fn void(&mut self, id: super::ChunkId) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.is_void = true;
        let threads = std::mem::take(&mut chunk.threads);
        if let Some(time) = chunk.alarm.take() {
            self.alarms.remove(&(time, id));
        }
        let (assignment, range) = (chunk.assignment, chunk.range);
        self.slots.deprive(id, threads);
        let Some(work) = self.works.get_mut(&assignment) else { return };
        work.cancelled.insert(range);
        let assign = Arc::clone(&work.assign);
        self.actions.push_back(Action::CancelRunning(id, range));
        if range.len() > 1 {
            self.actions.push_back(Action::TakeBack(id));
        }
        self.tasks_left(&assign, range);
    }

    /// All that is here, in as many messages as it takes.
    fn offers(&mut self) -> Vec<FromProcess> {
        let mut all = Vec::new();
        for (assign, range, blob) in self.kept.take_small() {
            offer_small(&assign, range, blob, &mut all);
        }
        for (array, range, stored) in self.kept.all_stored() {
            let sizes = stored.sizes.as_slice().to_vec();
            let what = Offering::Stored { run: stored.run, sizes };
            match all.last_mut() {
                // Neighbours that were made by different assignments.
                Some(last)
                    if last.array == array
                        && last.range.end == range.start
                        && last.what == what =>
                {
                    last.range.end = range.end;
                }
                _ => all.push(Offered { array, range, what }),
            }
        }
        let copies = self.kept.all_replicas().filter(|value| !self.kept.is_stored(value.task));
        copies.for_each(|value| offer_copy(value, &mut all));
        let mut messages = Vec::new();
        let mut values = Vec::new();
        let mut bytes = 0;
        for offered in all {
            let cost = cost(&offered.what);
            if bytes + cost > CHUNK_BYTES_MAX && !values.is_empty() {
                let values = std::mem::take(&mut values);
                messages.push(FromProcess::Offer { values, is_last: false });
                bytes = 0;
            }
            bytes += cost;
            values.push(offered);
        }
        messages.push(FromProcess::Offer { values, is_last: true });
        messages
    }
}

/// Small results, as many as fit a message and are of one run at a time.
fn offer_small(assign: &Assign, range: Range, blob: Blob, all: &mut Vec<Offered>) {
    let mut rest = vec![(range, blob)];
    while let Some((range, blob)) = rest.pop() {
        let run = run_number(assign, range.start);
        let is_other = |index: &u32| run_number(assign, *index) != run;
        let is_long = range.len() > 1 && blob.cost() > CHUNK_BYTES_MAX;
        let middle = is_long.then_some(range.start + range.len() / 2);
        let Some(cut) = range.iter().find(is_other).or(middle) else {
            let what = Offering::Inline { run, blob };
            all.push(Offered { array: assign.array, range, what });
            continue;
        };
        let (first, second) = (Range::new(range.start, cut), Range::new(cut, range.end));
        rest.push((second, blob.slice(Range::new(first.len(), range.len()))));
        rest.push((first, blob.slice(Range::new(0, first.len()))));
    }
}

/// A copy; those of neighbours go together, and those of a task's other outputs with it.
fn offer_copy(value: ValueId, all: &mut Vec<Offered>) {
    let (array, index): (ArrayId, u32) = (value.task.array, value.task.index);
    match all.last_mut() {
        Some(Offered { array: last, range, what: Offering::Copies })
            if *last == array && (range.end == index || range.end == index + 1) =>
        {
            range.end = index + 1;
        }
        _ => all.push(Offered { array, range: Range::one(index), what: Offering::Copies }),
    }
}

/// About how many bytes an offer takes in a frame.
fn cost(what: &Offering) -> usize {
    const HEADER: usize = 40;
    HEADER
        + match what {
            Offering::Inline { blob, .. } => blob.cost(),
            Offering::Stored { sizes, .. } => sizes.len(),
            Offering::Copies => 0,
        }
}
