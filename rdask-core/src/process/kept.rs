//! Which values are here: results, replicas, and small results on their way to the scheduler.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::{ValueId, remove_range};
use crate::blob::Blob;
use crate::id::{ArrayId, TaskId};
use crate::range::{Range, RangeSet};

/// The small results of one range.
#[derive(Debug)]
struct Small {
    range: Range,
    blob: Blob,
    /// To know it again, should its place have been taken by another run's results.
    number: u64,
}

/// Where small results are, and their number.
type SmallId = (ArrayId, u32, u64);

/// What the process has. Values themselves are with the runtime, but for small results.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Tasks whose results, all parts of them, are with the runtime.
    stored: BTreeMap<ArrayId, RangeSet>,
    /// Copies of single values that are with the runtime.
    replicas: BTreeSet<ValueId>,
    /// Small results until the scheduler has seen them, by first task.
    small: BTreeMap<(ArrayId, u32), Small>,
    /// Those of which no report has been sent.
    small_unsent: Vec<SmallId>,
    /// Those that are in reports up to this one.
    small_sent: VecDeque<(u64, Vec<SmallId>)>,
    small_count: u64,
    /// Tasks whose results are to be dropped as soon as they are there.
    drop_marks: BTreeMap<ArrayId, RangeSet>,
}

impl Kept {
    /// The results of `range` are with the runtime.
    pub(super) fn stored(&mut self, array: ArrayId, range: Range) {
        self.stored.entry(array).or_default().insert(range);
    }

    /// A copy of `value` is with the runtime.
    pub(super) fn replicated(&mut self, value: ValueId) {
        self.replicas.insert(value);
    }

    /// Keeps the small results of `range` until the report they will be in is seen.
    pub(super) fn small(&mut self, array: ArrayId, range: Range, blob: Blob) {
        let number = self.small_count;
        self.small_count += 1;
        let small = Small { range, blob, number };
        self.small.insert((array, range.start), small);
        self.small_unsent.push((array, range.start, number));
    }

    /// Everything that has ended is in reports up to this one.
    pub(super) fn reported(&mut self, report: u64) {
        if !self.small_unsent.is_empty() {
            let sent = std::mem::take(&mut self.small_unsent);
            self.small_sent.push_back((report, sent));
        }
    }

    /// The scheduler has the reports up to this one.
    pub(super) fn seen(&mut self, report: u64) {
        while let Some((number, _)) = self.small_sent.front()
            && *number <= report
        {
            let (_, sent) = self.small_sent.pop_front().expect("there is a first one");
            for (array, start, number) in sent {
                let key = (array, start);
                if self.small.get(&key).is_some_and(|it| it.number == number) {
                    self.small.remove(&key);
                }
            }
        }
    }

    /// The small result of `task`, if it is still here.
    pub(super) fn small_of(&self, task: TaskId) -> Option<Bytes> {
        let key = (task.array, task.index);
        let ((array, _), small) = self.small.range(..=key).next_back()?;
        (*array == task.array && small.range.contains(task.index))
            .then(|| small.blob.get_bytes(task.index - small.range.start))
    }

    /// Whether the runtime has `value`.
    pub(super) fn has(&self, value: ValueId) -> bool {
        self.is_stored(value.task) || self.replicas.contains(&value)
    }

    /// Whether the runtime has the whole result of `task`.
    pub(super) fn is_stored(&self, task: TaskId) -> bool {
        let stored = self.stored.get(&task.array);
        stored.is_some_and(|stored| stored.contains(task.index))
    }

    /// The outputs of `task` of which there are copies.
    pub(super) fn replicas_of(&self, task: TaskId) -> Vec<ValueId> {
        let (from, to) = outputs_of(task);
        self.replicas.range(from..to).copied().collect()
    }

    /// Whether the runtime has any output of these tasks.
    pub(super) fn has_any(&self, array: ArrayId, range: Range) -> bool {
        let stored = self.stored.get(&array);
        let (from, to) = (first_of(array, range.start), first_of(array, range.end));
        stored.is_some_and(|stored| stored.within(range).next().is_some())
            || self.replicas.range(from..to).next().is_some()
    }

    /// Forgets what is here of `range`. False if there was nothing.
    pub(super) fn forget(&mut self, array: ArrayId, range: Range) -> bool {
        let any = self.has_any(array, range);
        remove_range(&mut self.stored, array, range);
        let replicas: Vec<ValueId> = self
            .replicas
            .range(first_of(array, range.start)..first_of(array, range.end))
            .copied()
            .collect();
        for replica in &replicas {
            self.replicas.remove(replica);
        }
        any
    }

    /// The results of `range` are not wanted when they come.
    pub(super) fn mark_dropped(&mut self, array: ArrayId, range: Range) {
        self.drop_marks.entry(array).or_default().insert(range);
    }

    /// The parts of `range` that are marked so.
    pub(super) fn marked_dropped(&self, array: ArrayId, range: Range) -> Vec<Range> {
        let marks = self.drop_marks.get(&array);
        marks.map_or_else(Vec::new, |marks| marks.within(range).collect())
    }

    /// The mark has done its work.
    pub(super) fn drop_mark_taken(&mut self, array: ArrayId, range: Range) {
        remove_range(&mut self.drop_marks, array, range);
    }
}

/// The values of one task: from the first up to, but without, the second.
pub(super) fn outputs_of(task: TaskId) -> (ValueId, ValueId) {
    (first_of(task.array, task.index), first_of(task.array, task.index.saturating_add(1)))
}

/// The first value of the task `index` of `array`.
pub(super) fn first_of(array: ArrayId, index: u32) -> ValueId {
    ValueId { task: TaskId { array, index }, part: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClientId;

    const ARRAY: ArrayId = ArrayId { client: ClientId(1), number: 2 };

    fn task(index: u32) -> TaskId {
        TaskId { array: ARRAY, index }
    }

    #[test]
    fn small_results_stay_until_their_report_is_seen() {
        let mut kept = Kept::default();
        kept.small(ARRAY, Range::new(0, 4), Blob::empty(4));
        kept.reported(1);
        kept.small(ARRAY, Range::new(4, 8), Blob::empty(4));
        kept.reported(3);
        kept.seen(1);
        assert_eq!(kept.small_of(task(3)), None);
        assert_eq!(kept.small_of(task(5)), Some(Bytes::new()));
        kept.seen(2);
        assert_eq!(kept.small_of(task(5)), Some(Bytes::new()));
        kept.seen(3);
        assert_eq!(kept.small_of(task(5)), None);
    }

    #[test]
    fn a_dropped_range_is_forgotten_with_its_replicas() {
        let mut kept = Kept::default();
        kept.stored(ARRAY, Range::new(0, 4));
        let replica = ValueId { task: task(9), part: 3 };
        kept.replicated(replica);
        assert!(kept.has(replica) && kept.has(first_of(ARRAY, 2)));
        assert!(kept.forget(ARRAY, Range::new(2, 10)));
        assert!(!kept.has(replica) && !kept.has(first_of(ARRAY, 2)));
        assert!(kept.is_stored(task(1)));
        assert!(!kept.forget(ARRAY, Range::new(2, 10)));
    }
}
