//! What has ended and was not reported yet: gathered for up to a millisecond, merged, cut to size.
//!
//! The bound: each entry answers an assigned range, so the scheduler's own window bounds the lot;
//! beyond [`CHUNK_BYTES_MAX`] or [`CHUNK_TASKS_MAX`] it is sent at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::blob::{Blob, BlobBuilder};
use crate::failure::Failure;
use crate::id::{ArrayId, AssignmentId, TaskId, ValueId};
use crate::message::{CHUNK_BYTES_MAX, CHUNK_TASKS_MAX, End, FETCH_TIME, Finished, FromProcess};
use crate::range::Range;
use crate::time::Time;

/// Reports of a process with busy slots are at least so far apart.
const REPORT_INTERVAL: Duration = Duration::from_millis(1);

/// Results are copied together up to this many tasks or bytes; beyond, an entry of its own costs
/// less than the copy.
const MERGED_TASKS_MAX: u32 = 4096;
const MERGED_BYTES_MAX: usize = 32 * 1024;

/// One range that ended.
#[derive(Debug)]
struct Entry {
    finished: Finished,
    /// Whether it may be reported before what ended earlier: not if it used results of its own
    /// process, since the scheduler must hear of those first.
    movable: bool,
}

/// Results on their way to the scheduler.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: Vec<Entry>,
    /// Values that are here now, and whether that answers an acquisition.
    holds: Vec<(ValueId, bool)>,
    /// What fetching them has cost: bytes, and nanoseconds.
    fetched: (u64, u64),
    bytes: usize,
    tasks: u32,
    last_report: u64,
    last_flush: Option<Time>,
}

impl Outbox {
    /// Takes a range that ended.
    pub(super) fn push(&mut self, finished: Finished, movable: bool) {
        self.bytes += cost(&finished.end);
        self.tasks = self.tasks.saturating_add(finished.range.len());
        self.entries.push(Entry { finished, movable });
    }

    /// Takes a value that was fetched, or that was to be acquired.
    pub(super) fn push_hold(&mut self, value: ValueId, is_answer: bool) {
        self.bytes += size_of::<ValueId>();
        self.holds.push((value, is_answer));
    }

    /// These values are about to go: nobody shall hear any more that they are here. Returns the
    /// tasks of those that somebody waits to hear of.
    pub(super) fn retract_holds(&mut self, array: ArrayId, range: Range) -> BTreeSet<TaskId> {
        let goes = |task: TaskId| task.array == array && range.contains(task.index);
        let gone = self.holds.extract_if(.., |(value, _)| goes(value.task));
        gone.filter(|(_, is_answer)| *is_answer).map(|(value, _)| value.task).collect()
    }

    /// Takes what a fetch has cost.
    pub(super) fn push_fetched(&mut self, bytes: u64, took: Duration) {
        let took = took.saturating_sub(FETCH_TIME).as_nanos();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        self.fetched.0 = self.fetched.0.saturating_add(bytes);
        self.fetched.1 = self.fetched.1.saturating_add(took);
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.holds.is_empty() && self.fetched.0 == 0
    }

    /// Whether there is so much that it must go now.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= CHUNK_BYTES_MAX || self.tasks >= CHUNK_TASKS_MAX
    }

    /// When to send at the latest, if there is anything to send.
    pub(super) fn due(&self) -> Option<Time> {
        let due = self.last_flush.map_or(Time(0), |last| last + REPORT_INTERVAL);
        (!self.is_empty()).then_some(due)
    }

    /// The number of the last report that was sent.
    pub(super) fn last_report(&self) -> u64 {
        self.last_report
    }

    /// What waits.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (AssignmentId, Range)> {
        let of = |entry: &Entry| (entry.finished.assignment, entry.finished.range);
        self.entries.iter().map(of)
    }

    /// Everything there is, as messages.
    pub(super) fn flush(&mut self, now: Time, mut send: impl FnMut(FromProcess)) {
        self.last_flush = Some(now);
        (self.bytes, self.tasks) = (0, 0);
        if !self.holds.is_empty() {
            let values = std::mem::take(&mut self.holds);
            for values in values.chunks(CHUNK_BYTES_MAX / size_of::<ValueId>()) {
                let values = values.iter().map(|(value, _)| *value).collect();
                send(FromProcess::Holds { values });
            }
        }
        if let (bytes @ 1.., busy_ns) = std::mem::take(&mut self.fetched) {
            send(FromProcess::Fetched { bytes, busy_ns });
        }
        let mut report = Vec::new();
        let (mut bytes, mut tasks) = (0, 0);
        let mut number = self.last_report;
        let entries = merge(std::mem::take(&mut self.entries));
        for part in entries.into_iter().flat_map(split) {
            let part_bytes = cost(&part.end);
            let part_tasks = part.range.len();
            let fits = bytes + part_bytes <= CHUNK_BYTES_MAX
                && tasks + u64::from(part_tasks) <= u64::from(CHUNK_TASKS_MAX);
            if !fits && !report.is_empty() {
                number += 1;
                let finished = std::mem::take(&mut report);
                send(FromProcess::Report { number, finished });
                (bytes, tasks) = (0, 0);
            }
            bytes += part_bytes;
            tasks += u64::from(part_tasks);
            report.push(part);
        }
        if !report.is_empty() {
            number += 1;
            send(FromProcess::Report { number, finished: report });
        }
        self.last_report = number;
    }
}

/// About how many bytes an end takes in a frame.
fn cost(end: &End) -> usize {
    const HEADER: usize = 48;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    HEADER
        + match end {
            End::Inline(blob) => blob.cost(),
            End::Stored(sizes) => sizes.len() * 10,
            End::Failed(failure) => {
                failure.message.len() + failure.function.len() + text(&failure.backtrace)
            }
            End::Cancelled | End::Lost => 0,
        }
}

/// Joins neighbours of one assignment that ended alike. The order stays otherwise.
fn merge(entries: Vec<Entry>) -> Vec<Finished> {
    if entries.len() < 2 {
        return entries.into_iter().map(|entry| entry.finished).collect();
    }
    let mut in_order: BTreeMap<usize, Finished> = BTreeMap::new();
    let mut movable: BTreeMap<(AssignmentId, u32), (usize, Finished)> = BTreeMap::new();
    for (position, entry) in entries.into_iter().enumerate() {
        let finished = entry.finished;
        if entry.movable && is_small(&finished) {
            let key = (finished.assignment, finished.range.start);
            movable.insert(key, (position, finished));
        } else {
            in_order.insert(position, finished);
        }
    }
    let mut run: Vec<(usize, Finished)> = Vec::new();
    let mut run_tasks = 0;
    for next in movable.into_values() {
        let joins = run.last().is_some_and(|(_, last)| {
            last.assignment == next.1.assignment
                && last.range.end == next.1.range.start
                && alike(&last.end, &next.1.end)
                && run_tasks + next.1.range.len() <= MERGED_TASKS_MAX
        });
        if !joins {
            end_run(&mut run, &mut in_order);
            run_tasks = 0;
        }
        run_tasks += next.1.range.len();
        run.push(next);
    }
    end_run(&mut run, &mut in_order);
    in_order.into_values().collect()
}

fn is_small(finished: &Finished) -> bool {
    finished.range.len() < MERGED_TASKS_MAX && cost(&finished.end) < MERGED_BYTES_MAX
}

fn alike(one: &End, other: &End) -> bool {
    matches!(
        (one, other),
        (End::Inline(_), End::Inline(_))
            | (End::Stored(_), End::Stored(_))
            | (End::Cancelled, End::Cancelled)
            | (End::Lost, End::Lost)
    )
}

/// Makes one entry of consecutive ones, where the first of them ended.
fn end_run(run: &mut Vec<(usize, Finished)>, in_order: &mut BTreeMap<usize, Finished>) {
    let mut parts = std::mem::take(run).into_iter();
    let Some((mut position, mut joined)) = parts.next() else {
        return;
    };
    let mut blobs = match &joined.end {
        End::Inline(blob) => vec![blob.clone()],
        End::Stored(_) | End::Failed(_) | End::Cancelled | End::Lost => Vec::new(),
    };
    for (next_position, next) in parts {
        position = position.min(next_position);
        joined.range.end = next.range.end;
        joined.busy_ns = joined.busy_ns.saturating_add(next.busy_ns);
        match (&mut joined.end, next.end) {
            (End::Stored(sizes), End::Stored(more)) => sizes.extend(more),
            (End::Inline(_), End::Inline(more)) => blobs.push(more),
            _ => {}
        }
    }
    if blobs.len() > 1 {
        let mut builder = BlobBuilder::new();
        let strings = blobs.iter().flat_map(Blob::iter);
        strings.for_each(|string| builder.push(string));
        joined.end = End::Inline(builder.build());
    }
    in_order.insert(position, joined);
}

/// Cuts what would not fit one report.
fn split(finished: Finished) -> Vec<Finished> {
    let len = finished.range.len();
    let by_bytes = cost(&finished.end).div_ceil(CHUNK_BYTES_MAX);
    let by_tasks = len.div_ceil(CHUNK_TASKS_MAX) as usize;
    let pieces = by_bytes.max(by_tasks).min(len as usize) as u32;
    if pieces <= 1 {
        return vec![finished];
    }
    // Uneven strings may make one piece longer than the limit; half of it is still well below
    // what a frame takes, so each is cut again if need be.
    let cut = finished.range.start + len.div_ceil(2);
    let (first, second) = split_at(finished, cut);
    let mut all = split(first);
    all.extend(split(second));
    all
}

/// Cuts one entry in two, before the task `cut` of its range.
fn split_at(finished: Finished, cut: u32) -> (Finished, Finished) {
    let range = finished.range;
    let (first, second) = (Range::new(range.start, cut), Range::new(cut, range.end));
    let share = |part: Range| {
        let busy = u128::from(finished.busy_ns) * u128::from(part.len()) / u128::from(range.len());
        u64::try_from(busy).unwrap_or(u64::MAX)
    };
    let (first_end, second_end) = match finished.end {
        End::Inline(blob) => (
            End::Inline(blob.slice(Range::new(0, first.len()))),
            End::Inline(blob.slice(Range::new(first.len(), range.len()))),
        ),
        End::Stored(mut sizes) => {
            let parts = sizes.len() / range.len() as usize;
            let rest = sizes.split_off(first.len() as usize * parts);
            (End::Stored(sizes), End::Stored(rest))
        }
        End::Failed(failure) => (End::Failed(Failure::clone(&failure)), End::Failed(failure)),
        End::Cancelled => (End::Cancelled, End::Cancelled),
        End::Lost => (End::Lost, End::Lost),
    };
    let part = |range, end| Finished {
        assignment: finished.assignment,
        array: finished.array,
        range,
        busy_ns: share(range),
        end,
    };
    (part(first, first_end), part(second, second_end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ArrayId, ClientId};

    fn finished(assignment: u64, range: Range, end: End) -> Finished {
        Finished {
            assignment: AssignmentId(assignment),
            array: ArrayId { client: ClientId(1), number: 0 },
            range,
            busy_ns: 10,
            end,
        }
    }

    fn inline(range: Range, len: usize) -> End {
        let mut builder = BlobBuilder::new();
        range.iter().for_each(|index| builder.push(&vec![index as u8; len]));
        End::Inline(builder.build())
    }

    fn flush(outbox: &mut Outbox) -> Vec<FromProcess> {
        let mut sent = Vec::new();
        outbox.flush(Time(5), |message| sent.push(message));
        assert!(outbox.is_empty());
        sent
    }

    #[test]
    fn neighbours_that_ended_in_any_order_become_one_entry() {
        let mut outbox = Outbox::default();
        for start in [4, 0, 2] {
            let range = Range::new(start, start + 2);
            outbox.push(finished(1, range, inline(range, 3)), true);
        }
        let other = Range::new(6, 7);
        outbox.push(finished(1, other, End::Cancelled), true);
        let sent = flush(&mut outbox);
        let mut whole = finished(1, Range::new(0, 6), inline(Range::new(0, 6), 3));
        whole.busy_ns = 30;
        let report = FromProcess::Report {
            number: 1,
            finished: vec![whole, finished(1, other, End::Cancelled)],
        };
        assert_eq!(sent, [report]);
    }

    #[test]
    fn what_used_local_results_stays_behind_them() {
        let mut outbox = Outbox::default();
        let entries = [(1, 0, true), (2, 0, true), (1, 1, false)];
        for (assignment, index, movable) in entries {
            let range = Range::one(index);
            outbox.push(finished(assignment, range, inline(range, 1)), movable);
        }
        let sent = flush(&mut outbox);
        let FromProcess::Report { finished, .. } = &sent[0] else { panic!("{sent:?}") };
        let order: Vec<u64> = finished.iter().map(|entry| entry.assignment.0).collect();
        assert_eq!(order, [1, 2, 1]);
    }

    #[test]
    fn big_results_are_cut_and_nothing_is_lost() {
        let mut outbox = Outbox::default();
        let range = Range::new(7, 3007);
        outbox.push(finished(1, range, inline(range, 1000)), true);
        assert!(outbox.is_full());
        let sent = flush(&mut outbox);
        let (mut next, mut expected_number) = (range.start, 1);
        for message in &sent {
            let FromProcess::Report { number, finished } = message else { panic!("{message:?}") };
            assert_eq!(*number, expected_number);
            expected_number += 1;
            let mut bytes = 0;
            for entry in finished {
                assert_eq!(entry.range.start, next);
                next = entry.range.end;
                bytes += cost(&entry.end);
                let End::Inline(blob) = &entry.end else { panic!("{entry:?}") };
                assert_eq!(blob.get(0), vec![entry.range.start as u8; 1000]);
            }
            assert!(bytes <= CHUNK_BYTES_MAX);
        }
        assert_eq!(next, range.end);
        assert!(sent.len() >= 12);
    }

    #[test]
    fn stored_results_keep_all_parts_when_cut() {
        let sizes: Vec<u64> = (0..20).collect();
        let whole = finished(1, Range::new(0, 5), End::Stored(sizes));
        let (first, second) = split_at(whole, 2);
        assert_eq!(first.end, End::Stored((0..8).collect()));
        assert_eq!(second.end, End::Stored((8..20).collect()));
    }
}
