//! What the program submits, scatters, holds and drops.

use std::time::Duration;

use bytes::Bytes;

use super::array::Array;
use super::batch::OpenBatch;
use super::{Action, Client};
use crate::blob::{Blob, BlobBuilder};
use crate::id::{ArrayId, AssignmentId, ProcessId, TaskId};
use crate::message::{
    Contact, Edge, FromClient, INLINE_ARGUMENT_BYTES_MAX, Param, Parent, Shape, TaskOptions,
};
use crate::range::Range;
use crate::time::Time;

/// How long the first task of a batch waits for company, unless somebody waits for it.
const BATCH_DELAY: Duration = Duration::from_millis(1);

/// How long a release waits for company. Memory elsewhere is held that much longer.
const RELEASE_DELAY: Duration = Duration::from_millis(5);

impl Client {
    /// A task of its own. Its edges are the sources of its parameters that are not inline. There
    /// is one handle of it.
    pub fn submit(
        &mut self,
        now: Time,
        shape: Shape,
        payload: &[u8],
        edges: &[Edge],
        parent: Option<Parent>,
    ) -> TaskId {
        let takes =
            |open: &OpenBatch| open.takes(parent, &shape.options) && open.has_room_for(edges.len());
        if self.open.as_ref().is_some_and(|open| !takes(open)) {
            self.flush_batch();
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let number = self.number_array();
                self.flush_by(now + BATCH_DELAY);
                self.open.insert(OpenBatch::new(number, parent))
            }
        };
        let index = open.push(shape, payload, edges);
        let full = open.is_full();
        let array = ArrayId { client: self.id, number: open.number };
        self.retain(array, Range::one(index));
        if full {
            self.flush_batch();
        }
        TaskId { array, index }
    }

    /// An array of `len` tasks. `payload` holds one string for each if the shape has inline
    /// parameters, and is empty otherwise. There is one handle of each task.
    ///
    /// # Panics
    /// If the payload has strings for more or fewer tasks.
    pub fn submit_array(
        &mut self,
        len: u32,
        shape: Shape,
        payload: Vec<Blob>,
        parent: Option<Parent>,
    ) -> ArrayId {
        let inline = shape.params.contains(&Param::Inline);
        let strings: u64 = payload.iter().map(|blob| u64::from(blob.count())).sum();
        let expected = if inline { u64::from(len) } else { 0 };
        assert_eq!(strings, expected, "one string of arguments per task");
        self.flush_batch();
        let number = self.number_array();
        self.send(FromClient::SubmitArray { number, len, shape, parent });
        for payload in payload {
            self.send(FromClient::Payload { number, payload });
        }
        self.own(number, len)
    }

    /// Values of the program's own, as if tasks had made them. Small ones go to the scheduler,
    /// others stay here until it says with whom to put them. There is one handle of each.
    ///
    /// # Panics
    /// If these are more values than an array can have.
    pub fn scatter(&mut self, values: Vec<Bytes>, options: TaskOptions) -> ArrayId {
        let len = u32::try_from(values.len()).expect("an array has at most u32::MAX tasks");
        self.flush_batch();
        let number = self.number_array();
        let array = ArrayId { client: self.id, number };
        let total: usize = values.iter().map(Bytes::len).sum();
        if total <= INLINE_ARGUMENT_BYTES_MAX {
            let mut builder = BlobBuilder::new();
            values.iter().for_each(|value| builder.push(value));
            let values = builder.build();
            self.send(FromClient::ScatterInline { number, values });
        } else {
            let sizes = values.iter().map(|value| value.len() as u64).collect();
            self.send(FromClient::Scatter { number, sizes, options });
            let tasks = (0..len).map(|index| TaskId { array, index });
            self.scattered.extend(tasks.zip(values));
        }
        self.own(number, len)
    }

    /// One more handle of these tasks.
    pub fn retain(&mut self, array: ArrayId, range: Range) {
        self.arrays.entry(array).or_default().retain(range);
    }

    /// One handle less of these tasks. What has none left is released at the next flush.
    pub fn release(&mut self, now: Time, array: ArrayId, range: Range) {
        let Some(record) = self.arrays.get_mut(&array) else {
            return;
        };
        let gone = record.release(range);
        if gone.is_empty() {
            return;
        }
        for &range in &gone {
            self.settle_all(array, range);
            if let Some(record) = self.arrays.get_mut(&array) {
                record.forget(range);
            }
        }
        if !self.is_here(array) {
            let released = self.released.entry(array).or_default();
            gone.into_iter().for_each(|range| released.insert(range));
            self.flush_by(now + RELEASE_DELAY);
        }
        if self.arrays.get(&array).is_some_and(Array::is_unused) {
            self.arrays.remove(&array);
        }
    }

    /// A process has taken a scattered value.
    pub fn handle_put(&mut self, _now: Time, task: TaskId) {
        self.scattered.remove(&task);
    }

    /// A process has not taken a scattered value. The scheduler will name another one.
    pub fn handle_put_failed(&mut self, _now: Time, assignment: AssignmentId, message: String) {
        self.send(FromClient::PutFailed { assignment, message });
    }

    /// The program was not taken.
    pub fn handle_program_not_sent(&mut self, _now: Time, message: String) {
        self.send(FromClient::ProgramNotSent { message });
    }

    pub(super) fn handle_put_wanted(
        &mut self,
        task: TaskId,
        assignment: AssignmentId,
        process: ProcessId,
        contact: Contact,
    ) {
        let Some(value) = self.scattered.get(&task).cloned() else {
            self.send(FromClient::PutGone { assignment });
            return;
        };
        self.outbox.push_back(Action::Put { task, assignment, process, contact, value });
    }

    pub(super) fn flush_batch(&mut self) {
        if let Some(open) = self.open.take() {
            let (number, parent) = (open.number, open.parent);
            self.send(FromClient::SubmitBatch { number, batch: open.build(), parent });
        }
    }

    fn number_array(&mut self) -> u32 {
        let number = self.next_number;
        assert!(number < self.first_here, "a client creates fewer than u32::MAX arrays");
        self.next_number = number + 1;
        number
    }

    fn own(&mut self, number: u32, len: u32) -> ArrayId {
        let array = ArrayId { client: self.id, number };
        self.retain(array, Range::new(0, len));
        array
    }
}
