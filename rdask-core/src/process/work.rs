//! What is left of an assignment, and how it comes in.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Process, ValueId, is_inline};
use crate::id::AssignmentId;
use crate::message::{Assign, Feed, Source};
use crate::range::{Range, RangeSet};

/// Deeper first, then higher priorities, then earlier arrivals.
pub(super) type QueueKey = (Reverse<u16>, Reverse<i32>, u64, AssignmentId);

/// An assignment with tasks that have not ended.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) assign: Arc<Assign>,
    pub(super) key: QueueKey,
    /// The tasks that have not started.
    pub(super) unstarted: RangeSet,
    /// Those of them whose own inputs are here.
    pub(super) ready: RangeSet,
    /// How many of its own inputs each of the others misses.
    pub(super) missing: BTreeMap<u32, u32>,
    /// How many of the inputs that all tasks share are missing.
    pub(super) common_missing: u32,
    /// How many tasks are in chunks.
    pub(super) running: u32,
    /// Those tasks in chunks that were cancelled.
    pub(super) cancelled: RangeSet,
    /// Whether results of this process may be among the inputs.
    pub(super) uses_local: bool,
}

impl Work {
    /// How many tasks could start now.
    pub(super) fn startable(&self) -> u64 {
        if self.common_missing == 0 { self.ready.len() } else { 0 }
    }
}

/// Who waits for a value: one task of an assignment, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) assignment: AssignmentId,
    pub(super) index: Option<u32>,
}

/// The values from elsewhere that all tasks of an assignment take.
pub(super) fn common_sources(assign: &Assign) -> impl Iterator<Item = &Source> {
    assign
        .params
        .iter()
        .flat_map(|feed| match feed {
            Feed::One(source) => std::slice::from_ref(source),
            Feed::List(sources) => sources.as_slice(),
            Feed::Inline | Feed::Each(_) | Feed::Lists(_) => &[],
        })
        .filter(|source| !is_inline(source))
}

/// The values from elsewhere that the task at `position` of an assignment takes for itself.
pub(super) fn own_sources(assign: &Assign, position: usize) -> impl Iterator<Item = &Source> {
    assign
        .params
        .iter()
        .flat_map(move |feed| match feed {
            Feed::Each(sources) => std::slice::from_ref(&sources[position]),
            Feed::Lists(lists) => lists[position].as_slice(),
            Feed::Inline | Feed::One(_) | Feed::List(_) => &[],
        })
        .filter(|source| !is_inline(source))
}

/// Whether tasks of an assignment take values that others of it don't.
pub(super) fn has_own_sources(assign: &Assign) -> bool {
    let own = |feed: &Feed| matches!(feed, Feed::Each(_) | Feed::Lists(_));
    assign.params.iter().any(own)
}

/// Why an assignment makes no sense, if so.
fn misfit(assign: &Assign) -> Option<&'static str> {
    let len = assign.range.len() as usize;
    let feed_misfits = |feed: &Feed| match feed {
        Feed::Each(sources) => sources.len() != len,
        Feed::Lists(lists) => lists.len() != len,
        Feed::Inline | Feed::One(_) | Feed::List(_) => false,
    };
    let in_order = |pair: &[(Range, u32)]| pair[0].0.end <= pair[1].0.start;
    if assign.range.is_empty() {
        Some("its range is empty")
    } else if assign.payload.check().is_err() || assign.payload.count() as usize != len {
        Some("its payload doesn't fit its range")
    } else if assign.params.iter().any(feed_misfits) {
        Some("its inputs don't fit its range")
    } else if !assign.runs.windows(2).all(in_order) {
        Some("its run numbers are in no order")
    } else if assign.threads == 0 || assign.parts == 0 {
        Some("its runs take no slot or have no output")
    } else {
        None
    }
}

impl Process {
    /// Queues new tasks.
    pub(super) fn assign(&mut self, assign: Assign) {
        if let Some(misfit) = misfit(&assign) {
            self.exit(format!(
                "the scheduler sent assignment {} of {}, and {misfit}",
                assign.assignment.0, assign.array
            ));
            return;
        }
        if self.works.contains_key(&assign.assignment) {
            self.stale_count += 1;
            return;
        }
        self.supersede(&assign);
        let (id, array, range) = (assign.assignment, assign.array, assign.range);
        self.owed.entry(array).or_default().insert(range, id);
        let key = (Reverse(assign.depth), Reverse(assign.priority), self.arrivals, id);
        self.arrivals += 1;
        let assign = Arc::new(assign);
        let mut work = Work {
            assign: Arc::clone(&assign),
            key,
            unstarted: range.into(),
            ready: RangeSet::new(),
            missing: BTreeMap::new(),
            common_missing: 0,
            running: 0,
            cancelled: RangeSet::new(),
            uses_local: false,
        };
        for source in common_sources(&assign) {
            let waiter = Waiter { assignment: id, index: None };
            work.common_missing += u32::from(self.use_input(source, Some(waiter), key));
            work.uses_local |= self.is_local(source);
        }
        if has_own_sources(&assign) {
            self.use_own_inputs(&mut work);
        } else {
            work.ready = range.into();
        }
        self.works.insert(id, work);
        self.requeue(id, 0);
    }

    fn use_own_inputs(&mut self, work: &mut Work) {
        let assign = Arc::clone(&work.assign);
        let range = assign.range;
        let mut ready_from = range.start;
        for (position, index) in range.iter().enumerate() {
            let waiter = Waiter { assignment: assign.assignment, index: Some(index) };
            let mut missing = 0;
            for source in own_sources(&assign, position) {
                missing += u32::from(self.use_input(source, Some(waiter), work.key));
                work.uses_local |= self.is_local(source);
            }
            if missing > 0 {
                work.missing.insert(index, missing);
                work.ready.insert(Range::new(ready_from, index));
                ready_from = index + 1;
            }
        }
        work.ready.insert(Range::new(ready_from, range.end));
    }

    /// Whether the scheduler may still have to hear of the task that a value comes from.
    fn is_local(&self, source: &Source) -> bool {
        let value = ValueId::of(source);
        self.inputs.is_expected(value) || self.inputs.is_small(value) || self.kept.has(value)
    }

    /// A task is assigned anew although an older assignment of it is here: the older one is void.
    fn supersede(&mut self, assign: &Assign) {
        let Some(owed) = self.owed.get(&assign.array) else {
            return;
        };
        let older: Vec<(Range, AssignmentId)> =
            owed.within(assign.range).map(|(range, of)| (range, *of)).collect();
        for (range, of) in older {
            self.stale_count += 1;
            self.forget_unstarted(of, range);
        }
    }

    /// Takes tasks out that have not started, as if they had never been assigned. Returns which.
    pub(super) fn forget_unstarted(&mut self, id: AssignmentId, range: Range) -> Vec<Range> {
        let Some(work) = self.works.get_mut(&id) else {
            return Vec::new();
        };
        let before = work.startable();
        let gone: Vec<Range> = work.unstarted.within(range).collect();
        let assign = Arc::clone(&work.assign);
        for part in &gone {
            work.unstarted.remove(*part);
            work.ready.remove(*part);
            let missing: Vec<u32> =
                work.missing.range(part.start..part.end).map(|(index, _)| *index).collect();
            for index in missing {
                work.missing.remove(&index);
            }
        }
        self.requeue(id, before);
        for part in &gone {
            self.tasks_left(&assign, *part);
        }
        self.remove_if_over(id);
        gone
    }

    /// Tasks of an assignment are answered or forgotten: their inputs are needed less, and what
    /// they didn't produce will not come.
    pub(super) fn tasks_left(&mut self, assign: &Assign, range: Range) {
        if has_own_sources(assign) {
            for index in range {
                let position = (index - assign.range.start) as usize;
                for source in own_sources(assign, position) {
                    self.release_input(ValueId::of(source));
                }
            }
        }
        self.answered(assign.array, range, assign.assignment);
        self.orphan(assign.array, range);
    }

    /// Forgets an assignment that has no tasks left.
    pub(super) fn remove_if_over(&mut self, id: AssignmentId) {
        let over = |work: &Work| work.running == 0 && work.unstarted.is_empty();
        if self.works.get(&id).is_some_and(over) {
            let work = self.works.remove(&id).expect("it was there");
            for source in common_sources(&work.assign) {
                self.release_input(ValueId::of(source));
            }
        }
    }

    /// Puts an assignment where it belongs after a change; `before` tasks could start before it.
    pub(super) fn requeue(&mut self, id: AssignmentId, before: u64) {
        let Some(work) = self.works.get(&id) else {
            return;
        };
        let after = work.startable();
        self.ready_count = self.ready_count - before + after;
        if after == 0 {
            self.queue.remove(&work.key);
        } else if before == 0 {
            self.queue.insert(work.key);
        }
    }
}
