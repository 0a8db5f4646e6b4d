//! The handles of many tasks, kept by range.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::{Bound, Index, RangeBounds};
use std::sync::{Arc, OnceLock};

use rdask_core::id::{ArrayId, TaskId};
use rdask_core::range::Range;

use super::Remote;
use crate::client::session::{Session, Tasks, release};

/// The results of a `map`, in order, wherever they are.
///
/// A million of them take no more memory than one, until single handles are asked for. Indexing
/// and iterating lend `&Remote<T>`; [`get`](Self::get), [`slice`](Self::slice) and iterating by
/// value give handles that keep only their own part alive.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// let client = rdask::Client::local()?;
/// let roots = client.map(f64::sqrt, [1.0, 4.0, 9.0]);
/// assert_eq!(roots.len(), 3);
/// assert_eq!(roots[1].result()?, 2.0);
/// let last = roots.slice(1..);
/// drop(roots);
/// assert_eq!(client.gather(last)?, [2.0, 3.0]);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping the handles releases the tasks"]
pub struct Remotes<T> {
    session: Arc<Session>,
    segments: VecDeque<Segment>,
    len: usize,
    /// Handles to lend, made when the first one is asked for.
    lent: OnceLock<Box<[Remote<T>]>>,
    value: PhantomData<fn() -> T>,
}

/// Consecutive tasks, each with one count.
#[derive(Clone, Copy, Debug)]
struct Segment {
    array: ArrayId,
    range: Range,
    /// The position of the first one.
    position: usize,
}

impl<T> Remotes<T> {
    /// Handles that take over counts that the client's state has.
    pub(crate) fn counted(session: Arc<Session>, tasks: Tasks) -> Self {
        let mut segments: VecDeque<Segment> = VecDeque::with_capacity(tasks.len());
        let mut len = 0;
        for (array, range) in tasks {
            let position = len;
            len += range.len() as usize;
            match segments.back_mut() {
                Some(last) if last.array == array && last.range.end == range.start => {
                    last.range.end = range.end;
                }
                _ if range.is_empty() => {}
                _ => segments.push_back(Segment { array, range, position }),
            }
        }
        Self { session, segments, len, lent: OnceLock::new(), value: PhantomData }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn tasks(&self) -> Tasks {
        self.segments.iter().map(|segment| (segment.array, segment.range)).collect()
    }

    /// How many there are.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// assert_eq!(client.map(f64::sqrt, [1.0, 4.0, 9.0]).len(), 3);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// assert!(client.map(f64::sqrt, [0.0; 0]).is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A handle of its own of the task at a position, if there is one.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let roots = client.map(f64::sqrt, [1.0, 4.0, 9.0]);
    /// let second = roots.get(1).unwrap();
    /// drop(roots); // the others need not run
    /// assert_eq!(second.result().unwrap(), 2.0);
    /// assert!(client.map(f64::sqrt, [1.0]).get(1).is_none());
    /// ```
    #[must_use]
    pub fn get(&self, position: usize) -> Option<Remote<T>> {
        let task = self.task(position)?;
        self.session.retain(task.array, Range::one(task.index));
        Some(Remote::counted(Arc::clone(&self.session), task))
    }

    /// Handles of their own of the tasks at some positions.
    ///
    /// # Panics
    /// If there are no such positions, as slices do.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let roots = client.map(f64::sqrt, [1.0, 4.0, 9.0]);
    /// let last = roots.slice(1..);
    /// drop(roots); // the first one need not run
    /// assert_eq!(client.gather(last).unwrap(), [2.0, 3.0]);
    /// ```
    pub fn slice(&self, positions: impl RangeBounds<usize>) -> Self {
        let start = match positions.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match positions.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.len,
        };
        assert!(
            start <= end && end <= self.len,
            "positions {start}..{end} of {} remotes",
            self.len
        );
        let mut tasks = Tasks::new();
        for segment in &self.segments {
            let from = start.clamp(segment.position, segment.end()) - segment.position;
            let to = end.clamp(segment.position, segment.end()) - segment.position;
            let part = Range::new(segment.index(from), segment.index(to));
            if !part.is_empty() {
                self.session.retain(segment.array, part);
                tasks.push((segment.array, part));
            }
        }
        Self::counted(Arc::clone(&self.session), tasks)
    }

    /// All of them, lent.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let roots = client.map(f64::sqrt, [1.0, 4.0, 9.0]);
    /// for root in roots.iter() {
    ///     println!("{}", root.id());
    /// }
    /// ```
    pub fn iter(&self) -> std::slice::Iter<'_, Remote<T>> {
        self.lent().iter()
    }

    /// These tasks need not run any more. Those that have not ended fail as cancelled.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let roots = client.map(f64::sqrt, (0..1_000_000).map(f64::from));
    /// roots.cancel();
    /// ```
    pub fn cancel(&self) {
        let tasks = self.tasks();
        self.session.cancel(&tasks);
    }

    fn lent(&self) -> &[Remote<T>] {
        self.lent.get_or_init(|| {
            let task = |segment: &Segment| {
                let array = segment.array;
                segment.range.iter().map(move |index| TaskId { array, index })
            };
            self.segments
                .iter()
                .flat_map(task)
                .map(|task| Remote::lent(Arc::clone(&self.session), task))
                .collect()
        })
    }

    fn task(&self, position: usize) -> Option<TaskId> {
        let after = self.segments.partition_point(|segment| segment.position <= position);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (position < segment.end()).then(|| TaskId {
            array: segment.array,
            index: segment.index(position - segment.position),
        })
    }
}

impl Segment {
    fn end(&self) -> usize {
        self.position + self.range.len() as usize
    }

    /// The index of the task `offset` places behind the first one.
    fn index(&self, offset: usize) -> u32 {
        u32::try_from(offset).map_or(self.range.end, |offset| self.range.start + offset)
    }
}

impl<T> Drop for Remotes<T> {
    fn drop(&mut self) {
        for segment in mem::take(&mut self.segments) {
            release(&self.session, segment.array, segment.range);
        }
    }
}

impl<T> fmt::Debug for Remotes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remotes").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T> Index<usize> for Remotes<T> {
    type Output = Remote<T>;

    fn index(&self, position: usize) -> &Remote<T> {
        &self.lent()[position]
    }
}

impl<'a, T> IntoIterator for &'a Remotes<T> {
    type Item = &'a Remote<T>;
    type IntoIter = std::slice::Iter<'a, Remote<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> IntoIterator for Remotes<T> {
    type Item = Remote<T>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { rest: self }
    }
}

/// Handles of their own, one by one: those that were handed out keep nothing else alive.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// # let client = rdask::Client::local()?;
/// for root in client.map(f64::sqrt, [1.0, 4.0, 9.0]) {
///     println!("{}", root.result()?); // and its memory is free again
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct IntoIter<T> {
    rest: Remotes<T>,
}

impl<T> Iterator for IntoIter<T> {
    type Item = Remote<T>;

    fn next(&mut self) -> Option<Remote<T>> {
        let segment = self.rest.segments.front_mut()?;
        let task = TaskId { array: segment.array, index: segment.range.start };
        segment.range.start += 1;
        if segment.range.is_empty() {
            self.rest.segments.pop_front();
        }
        self.rest.len -= 1;
        Some(Remote::counted(Arc::clone(&self.rest.session), task))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.rest.len, Some(self.rest.len))
    }
}

impl<T> ExactSizeIterator for IntoIter<T> {}
