//! Tasks that failed before they could be submitted: the scheduler never hears of them.
//!
//! Submitting returns a handle, never an error, so that a program's loops stay plain. What went
//! wrong in it, such as an argument that doesn't encode, is the result of a task that is only
//! here. What depends on such a task fails here, too.

use std::sync::Arc;

use super::Client;
use super::array::{Array, Known};
use crate::failure::{Failure, FailureKind};
use crate::id::{ArrayId, TaskId};
use crate::range::Range;

impl Client {
    /// A task that has failed already. There is one handle of it.
    ///
    /// # Panics
    /// If the client's numbers are used up.
    pub fn fail_here(
        &mut self,
        kind: FailureKind,
        message: impl Into<String>,
        function: impl Into<String>,
    ) -> TaskId {
        let task = self.number_here();
        let failure =
            Failure { function: function.into(), ..Failure::of_scheduler(kind, message, task) };
        self.know_here(task, Arc::new(failure))
    }

    /// A task that has failed already as its input did. There is one handle of it.
    ///
    /// # Panics
    /// If the client's numbers are used up.
    pub fn fail_with(&mut self, failure: Arc<Failure>) -> TaskId {
        let task = self.number_here();
        self.know_here(task, failure)
    }

    /// Why a task failed here, if it did: what depends on it cannot be submitted.
    #[must_use]
    pub fn failure_here(&self, task: TaskId) -> Option<Arc<Failure>> {
        if !self.is_here(task.array) {
            return None;
        }
        match self.arrays.get(&task.array)?.known.get(task.index)? {
            Known::Failed(failure) => Some(Arc::clone(failure)),
            Known::Done | Known::Held(_) | Known::Value => None,
        }
    }

    /// Whether the scheduler never hears of this array.
    #[must_use]
    pub fn is_here(&self, array: ArrayId) -> bool {
        array.client == self.id && array.number >= self.first_here
    }

    fn number_here(&mut self) -> TaskId {
        assert!(self.first_here > self.next_number, "a client creates fewer than u32::MAX arrays");
        self.first_here -= 1;
        let array = ArrayId { client: self.id, number: self.first_here };
        TaskId { array, index: 0 }
    }

    fn know_here(&mut self, task: TaskId, failure: Arc<Failure>) -> TaskId {
        let mut record = Array::default();
        record.retain(Range::one(0));
        record.known.insert(Range::one(0), Known::Failed(failure));
        self.arrays.insert(task.array, record);
        task
    }
}
