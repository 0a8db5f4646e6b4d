//! What a client knows of one array: who holds handles, who waits, how tasks ended, small values.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bulk::Bulk;

use super::wait::{Interest, Piece, WaiterId};
use crate::blob::Blob;
use crate::failure::{Failure, FailureKind};
use crate::id::ProcessId;
use crate::message::TaskStatus;
use crate::range::{Range, RangeMap, RangeSet};

/// How a task ended, as far as this client has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Well. Where the value is nobody asked, or it isn't there any more.
    Done,
    /// Well, and the value is with this process.
    Held(ProcessId),
    /// Well, and the value is among the blobs.
    Value,
    /// Not well.
    Failed(Arc<Failure>),
}

impl Known {
    /// News replace what ranks lower or, for holders, equal.
    fn rank(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Held(_) => 1,
            Self::Value | Self::Failed(_) => 2,
        }
    }

    pub(super) fn is_newer_than(&self, old: Option<&Self>) -> bool {
        old.is_none_or(|old| self.rank() > old.rank() || (self.rank() == 1 && old.rank() == 1))
    }

    /// Whether nobody has to ask for the value any more.
    pub(super) fn answers(&self, interest: Interest) -> bool {
        match interest {
            Interest::End => true,
            Interest::Small | Interest::Value => *self != Self::Done,
        }
    }
}

/// One array, or the part of it that there are handles of.
#[derive(Debug, Default)]
pub(super) struct Array {
    /// How many handles each task has.
    handles: RangeMap<u32>,
    pub(super) known: RangeMap<Known>,
    /// What the scheduler was asked and has not answered.
    pub(super) wanted: RangeMap<Interest>,
    /// Who waits for tasks to end, who for small values, and who for all values.
    awaiting: [RangeMap<Vec<WaiterId>>; 3],
    /// How many waiters will take fetched values of each task.
    takers: RangeMap<u32>,
    /// Small values by the index of the first; they don't overlap.
    blobs: BTreeMap<u32, Blob>,
    /// Large values, for as long as somebody takes them.
    pub(super) fetched: BTreeMap<u32, Bulk>,
}

impl Array {
    pub(super) fn awaiting(&self, interest: Interest) -> &RangeMap<Vec<WaiterId>> {
        &self.awaiting[interest as usize]
    }

    pub(super) fn awaiting_mut(&mut self, interest: Interest) -> &mut RangeMap<Vec<WaiterId>> {
        &mut self.awaiting[interest as usize]
    }

    pub(super) fn retain(&mut self, range: Range) {
        count_up(&mut self.handles, range);
    }

    /// Takes one handle away and returns what has none left.
    pub(super) fn release(&mut self, range: Range) -> Vec<Range> {
        count_down(&mut self.handles, range)
    }

    pub(super) fn is_unused(&self) -> bool {
        self.handles.is_empty()
    }

    /// The parts of `range` that there are handles of.
    pub(super) fn held_within(&self, range: Range) -> Vec<Range> {
        self.handles.within(range).map(|(part, _)| part).collect()
    }

    pub(super) fn forget(&mut self, range: Range) {
        self.known.remove(range);
        self.wanted.remove(range);
        let touched: Vec<u32> = self
            .blobs_within(range)
            .map(|(whole, _)| whole)
            .filter(|whole| self.handles.within(*whole).next().is_none())
            .map(|whole| whole.start)
            .collect();
        for start in touched {
            self.blobs.remove(&start);
        }
        self.drop_fetched(range);
    }

    /// Keeps small values.
    pub(super) fn keep_values(&mut self, range: Range, values: Blob) {
        // A blob may still say what a task was that had lost all handles and got one again.
        let stale: Vec<Range> = self.blobs_within(range).map(|(whole, _)| whole).collect();
        for whole in stale {
            let Some(blob) = self.blobs.remove(&whole.start) else {
                continue;
            };
            let around = [Range::new(whole.start, range.start), Range::new(range.end, whole.end)];
            for part in around.into_iter().filter(|part| !part.is_empty()) {
                let inside = Range::new(part.start - whole.start, part.end - whole.start);
                self.blobs.insert(part.start, blob.slice(inside));
            }
        }
        self.blobs.insert(range.start, values);
    }

    pub(super) fn add_taker(&mut self, range: Range) {
        count_up(&mut self.takers, range);
    }

    pub(super) fn remove_taker(&mut self, range: Range) {
        for range in count_down(&mut self.takers, range) {
            self.drop_fetched(range);
        }
    }

    /// Keeps a large value if somebody takes it.
    pub(super) fn keep_fetched(&mut self, index: u32, value: Bulk) {
        if self.takers.get(index).is_some() {
            self.fetched.insert(index, value);
        }
    }

    fn drop_fetched(&mut self, range: Range) {
        while let Some((&index, _)) = self.fetched.range(range.iter()).next() {
            self.fetched.remove(&index);
        }
    }

    /// A holder is gone: what is not here of its values is somewhere else, if anywhere. Returns
    /// those that somebody waits for, which are wanted from now on.
    pub(super) fn forget_holder(&mut self, process: ProcessId) -> RangeSet {
        let theirs = self.known.iter().filter(|(_, known)| **known == Known::Held(process));
        let theirs: Vec<Range> = theirs.map(|(range, _)| range).collect();
        let mut awaited = RangeSet::new();
        for range in theirs {
            self.known.insert(range, Known::Done);
            let waits = self.awaiting(Interest::Value).within(range);
            waits.for_each(|(part, _)| awaited.insert(part));
        }
        awaited.iter().for_each(|range| self.wanted.insert(range, Interest::Value));
        awaited
    }

    /// The parts of `range` of which no large value is here.
    fn unfetched(&self, range: Range) -> Vec<Range> {
        let mut parts = Vec::new();
        let mut next = range.start;
        for (&index, _) in self.fetched.range(range.start..range.end) {
            parts.push(Range::new(next, index));
            next = index + 1;
        }
        parts.push(Range::new(next, range.end));
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Blobs that share indexes with `range`, and what they cover.
    fn blobs_within(&self, range: Range) -> impl Iterator<Item = (Range, &Blob)> {
        let first = match self.blobs.range(..=range.start).next_back() {
            Some((&start, blob)) if start + blob.count() > range.start => start,
            _ => range.start,
        };
        self.blobs
            .range(first..range.end.max(first))
            .map(|(&start, blob)| (Range::new(start, start + blob.count()), blob))
    }

    /// The parts of `range` that an interest still has to wait for: those to ask the scheduler
    /// for, then those to fetch.
    pub(super) fn missing(&self, range: Range, interest: Interest) -> (Vec<Range>, Vec<Range>) {
        let mut unknown = gaps(&self.known, range);
        let mut unfetched = Vec::new();
        if interest > Interest::End {
            for (part, known) in self.known.within(range) {
                match known {
                    Known::Done => unknown.extend(self.unfetched(part)),
                    Known::Held(_) if interest == Interest::Small => {}
                    Known::Held(_) => unfetched.extend(self.unfetched(part)),
                    Known::Value | Known::Failed(_) => {}
                }
            }
        }
        (unknown, unfetched)
    }

    /// What is here of `range`, in order.
    pub(super) fn pieces(&self, range: Range) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut next = range.start;
        for (part, known) in self.known.within(range) {
            pieces.extend(absent(next, part.start));
            next = part.end;
            match known {
                Known::Done | Known::Held(_) => {
                    let mut next = part.start;
                    for (&index, value) in self.fetched.range(part.start..part.end) {
                        pieces.extend(absent(next, index));
                        pieces.push(Piece::Value(index, value.clone()));
                        next = index + 1;
                    }
                    pieces.extend(absent(next, part.end));
                }
                Known::Value => pieces.extend(self.blobs_within(part).map(|(whole, blob)| {
                    let part = part.intersection(whole);
                    let inside = Range::new(part.start - whole.start, part.end - whole.start);
                    Piece::Values(part, blob.slice(inside))
                })),
                Known::Failed(failure) => pieces.push(Piece::Failed(part, Arc::clone(failure))),
            }
        }
        pieces.extend(absent(next, range.end));
        pieces
    }

    pub(super) fn has_failed_within(&self, range: Range) -> bool {
        let mut parts = self.known.within(range);
        parts.any(|(_, known)| matches!(known, Known::Failed(_)))
    }

    /// The state of a task that has ended, as far as known.
    pub(super) fn status(&self, index: u32) -> Option<TaskStatus> {
        Some(match self.known.get(index)? {
            Known::Done | Known::Held(_) | Known::Value => TaskStatus::Finished,
            Known::Failed(failure) if failure.kind == FailureKind::Cancelled => {
                TaskStatus::Cancelled
            }
            Known::Failed(_) => TaskStatus::Error,
        })
    }
}

fn absent(start: u32, end: u32) -> Option<Piece> {
    let range = Range::new(start, end);
    (!range.is_empty()).then_some(Piece::Absent(range))
}

/// The parts of `range` that have no value.
pub(super) fn gaps<V: Clone + PartialEq>(map: &RangeMap<V>, range: Range) -> Vec<Range> {
    let mut gaps = Vec::new();
    let mut next = range.start;
    for (part, _) in map.within(range) {
        gaps.push(Range::new(next, part.start));
        next = part.end;
    }
    gaps.push(Range::new(next, range.end));
    gaps.retain(|gap| !gap.is_empty());
    gaps
}

fn count_up(counts: &mut RangeMap<u32>, range: Range) {
    let new = gaps(counts, range);
    counts.update(range, |_, count| Some(count.saturating_add(1)));
    new.into_iter().for_each(|range| counts.insert(range, 1));
}

/// Counts down and returns what has reached zero.
fn count_down(counts: &mut RangeMap<u32>, range: Range) -> Vec<Range> {
    let mut zero = Vec::new();
    counts.update(range, |part, count| match count - 1 {
        0 => {
            zero.push(part);
            None
        }
        rest => Some(rest),
    });
    zero
}
