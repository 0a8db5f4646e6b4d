//! Which values are here: results, replicas, and small results on their way to the scheduler.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::ValueId;
use crate::blob::Blob;
use crate::id::{ArrayId, AssignmentId, TaskId};
use crate::message::Assign;
use crate::range::{Range, RangeMap};

/// The small results of one range.
#[derive(Debug)]
struct Small {
    range: Range,
    blob: Blob,
    assign: Arc<Assign>,
    /// To know it again, should its place have been taken by another run's results.
    number: u64,
}

/// Where small results are, and their number.
type SmallId = (ArrayId, u32, u64);

/// A result that is with the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// The assignment by which it was made.
    assignment: AssignmentId,
    /// The run that made it.
    pub(super) run: u32,
    /// How many bits the length of each of its outputs takes.
    pub(super) sizes: Sizes,
}

/// Most results have one output, and need no memory of their own for its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sizes {
    One(u8),
    Several(Box<[u8]>),
}

impl Stored {
    pub(super) fn new(assignment: AssignmentId, run: u32, sizes: &[u64]) -> Self {
        let bits = |size: &u64| (u64::BITS - size.leading_zeros()) as u8;
        let sizes = match sizes {
            [size] => Sizes::One(bits(size)),
            sizes => Sizes::Several(sizes.iter().map(bits).collect()),
        };
        Self { assignment, run, sizes }
    }
}

impl Sizes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::One(size) => std::slice::from_ref(size),
            Self::Several(sizes) => sizes,
        }
    }
}

/// What the process has. Values themselves are with the runtime, but for small results.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Tasks whose results, all parts of them, are with the runtime.
    stored: BTreeMap<ArrayId, RangeMap<Stored>>,
    /// Copies of single values that are with the runtime.
    replicas: BTreeSet<ValueId>,
    /// Small results until the scheduler has seen them, by first task.
    small: BTreeMap<(ArrayId, u32), Small>,
    /// Those of which no report has been sent.
    small_unsent: Vec<SmallId>,
    /// Those that are in reports up to this one.
    small_sent: VecDeque<(u64, Vec<SmallId>)>,
    small_count: u64,
}

impl Kept {
    /// The result of `task` is with the runtime. A slow run of an earlier assignment may end after
    /// one of a later; the scheduler counts on the later.
    pub(super) fn stored(&mut self, task: TaskId, stored: Stored) {
        let results = self.stored.entry(task.array).or_default();
        if results.get(task.index).is_none_or(|there| there.assignment <= stored.assignment) {
            results.insert(Range::one(task.index), stored);
        }
    }

    /// Those of these tasks whose results were made by this assignment.
    pub(super) fn stored_by(
        &self,
        assignment: AssignmentId,
        array: ArrayId,
        range: Range,
    ) -> Vec<Range> {
        let results = self.stored.get(&array).into_iter().flat_map(|all| all.within(range));
        let made_by_it = results.filter(|(_, stored)| stored.assignment == assignment);
        made_by_it.map(|(part, _)| part).collect()
    }

    /// All whole results that are with the runtime.
    pub(super) fn all_stored(&self) -> impl Iterator<Item = (ArrayId, Range, &Stored)> {
        self.stored.iter().flat_map(|(array, ranges)| {
            ranges.iter().map(move |(range, stored)| (*array, range, stored))
        })
    }

    /// All copies that are with the runtime.
    pub(super) fn all_replicas(&self) -> impl Iterator<Item = ValueId> {
        self.replicas.iter().copied()
    }

    /// Forgets the small results and gives them away, each range with what it was run by.
    pub(super) fn take_small(&mut self) -> Vec<(Arc<Assign>, Range, Blob)> {
        self.small_unsent.clear();
        self.small_sent.clear();
        let small = std::mem::take(&mut self.small).into_values();
        small.map(|small| (small.assign, small.range, small.blob)).collect()
    }

    /// A copy of `value` is with the runtime.
    pub(super) fn replicated(&mut self, value: ValueId) {
        self.replicas.insert(value);
    }

    /// Keeps the small results of `range` until the report they will be in is seen.
    pub(super) fn small(&mut self, assign: &Arc<Assign>, range: Range, blob: Blob) {
        let array = assign.array;
        let number = self.small_count;
        self.small_count += 1;
        let small = Small { range, blob, assign: Arc::clone(assign), number };
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
        stored.is_some_and(|stored| stored.get(task.index).is_some())
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
        if let Some(stored) = self.stored.get_mut(&array) {
            stored.remove(range);
            if stored.is_empty() {
                self.stored.remove(&array);
            }
        }
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

    /// Forgets a copy. False if there was none.
    pub(super) fn forget_copy(&mut self, value: ValueId) -> bool {
        self.replicas.remove(&value)
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
    use crate::id::{ClientId, FunctionKey};

    const ARRAY: ArrayId = ArrayId { client: ClientId(1), number: 2 };

    fn task(index: u32) -> TaskId {
        TaskId { array: ARRAY, index }
    }

    fn assign() -> Arc<Assign> {
        Arc::new(Assign {
            assignment: AssignmentId(1),
            array: ARRAY,
            range: Range::new(0, 8),
            function: FunctionKey(1),
            name: None,
            depth: 0,
            priority: 0,
            threads: 1,
            parts: 1,
            nested_here: false,
            timeout: None,
            inline_max: 1024,
            payload: Blob::empty(8),
            params: Vec::new(),
            runs: Vec::new(),
        })
    }

    #[test]
    fn small_results_stay_until_their_report_is_seen() {
        let mut kept = Kept::default();
        kept.small(&assign(), Range::new(0, 4), Blob::empty(4));
        kept.reported(1);
        kept.small(&assign(), Range::new(4, 8), Blob::empty(4));
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
        (0..4).for_each(|index| {
            kept.stored(task(index), Stored::new(AssignmentId(1), 1, &[2000]));
        });
        let replica = ValueId { task: task(9), part: 3 };
        kept.replicated(replica);
        assert!(kept.has(replica) && kept.has(first_of(ARRAY, 2)));
        assert!(kept.forget(ARRAY, Range::new(2, 10)));
        assert!(!kept.has(replica) && !kept.has(first_of(ARRAY, 2)));
        assert!(kept.is_stored(task(1)));
        assert!(!kept.forget(ARRAY, Range::new(2, 10)));
    }
}
