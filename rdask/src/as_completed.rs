//! Results in the order they come in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rdask_core::id::{ArrayId, TaskId};
use rdask_core::range::{Range, RangeSet};

use crate::client::parking::block_on;
use crate::client::session::{Session, release};
use crate::client::waiting::Watching;
use crate::codec::Data;
use crate::error::Result;
use crate::remote::Listed;

/// An iterator over results as they come: the position of each in what it was made from, and the
/// result. Made by [`Client::as_completed`](crate::Client::as_completed).
///
/// It keeps the tasks alive until it has given their results. It blocks while there is nothing new:
/// inside an async runtime that panics, so take [`aio::Client`](crate::aio::Client) there.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// # let client = rdask::Client::local()?;
/// let inputs = [1.0, 4.0, 9.0];
/// for (position, root) in client.as_completed(client.map(f64::sqrt, inputs)) {
///     println!("the root of {} is {}", inputs[position], root?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct AsCompleted<T>(Completed<T>);

impl<T: Data> AsCompleted<T> {
    pub(crate) fn new(session: &Arc<Session>, listed: &Listed) -> Self {
        Self(Completed::new(session, listed))
    }
}

impl<T: Data> Iterator for AsCompleted<T> {
    type Item = (usize, Result<T>);

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.take_ready() {
            Some(ready) => Some(ready),
            None => block_on(self.0.next()),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.left, Some(self.0.left))
    }
}

impl<T: Data> ExactSizeIterator for AsCompleted<T> {}

/// Results as they come, for async programs. Made by
/// [`aio::Client::as_completed`](crate::aio::Client::as_completed).
///
/// ```
/// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
/// let mut roots = client.as_completed(client.map(f64::sqrt, [1.0, 4.0]));
/// while let Some((position, root)) = roots.next().await {
///     println!("{position}: {}", root?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Completed<T> {
    session: Arc<Session>,
    watching: Watching,
    /// Where each task stands in what the user has, sorted.
    places: Vec<Place>,
    /// Whether a task may stand at several positions.
    repeated: bool,
    /// Tasks whose results have not been taken, with one handle each.
    held: BTreeMap<ArrayId, RangeSet>,
    /// Results that are here.
    ready: VecDeque<(TaskId, Option<Result<T>>)>,
    /// The other positions of a result that stands at several: it is asked for once more.
    again: VecDeque<(usize, TaskId)>,
    /// How many results have not been given.
    left: usize,
}

/// Consecutive tasks at consecutive positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    array: ArrayId,
    range: Range,
    position: usize,
}

impl<T: Data> Completed<T> {
    pub(crate) fn new(session: &Arc<Session>, listed: &Listed) -> Self {
        let session = listed.session.as_ref().unwrap_or(session);
        let mut held: BTreeMap<ArrayId, RangeSet> = BTreeMap::new();
        let mut places = Vec::with_capacity(listed.tasks.len());
        let mut left = 0;
        for &(array, range) in &listed.tasks {
            held.entry(array).or_default().insert(range);
            places.push(Place { array, range, position: left });
            left += range.len() as usize;
        }
        places.sort_unstable();
        let count: u64 = held.values().map(RangeSet::len).sum();
        let repeated = count < left as u64;
        for (&array, set) in &held {
            set.iter().for_each(|range| session.retain(array, range));
        }
        Self {
            session: Arc::clone(session),
            watching: session.watch(&listed.tasks),
            places,
            repeated,
            held,
            ready: VecDeque::new(),
            again: VecDeque::new(),
            left,
        }
    }

    /// The next result, with its position; `None` after the last one.
    ///
    /// # Cancel safety
    /// A result is given or kept: dropping the future loses nothing.
    ///
    /// ```
    /// # async fn job(client: rdask::aio::Client) {
    /// let mut roots = client.as_completed(client.map(f64::sqrt, [4.0]));
    /// let (position, root) = roots.next().await.unwrap();
    /// assert_eq!((position, root.unwrap()), (0, 2.0));
    /// assert!(roots.next().await.is_none());
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<(usize, Result<T>)> {
        loop {
            if self.left == 0 {
                return None;
            }
            if let Some(ready) = self.take_ready() {
                return Some(ready);
            }
            if let Some(&(position, task)) = self.again.front() {
                let result = self.session.result(task).await;
                self.again.pop_front();
                self.left -= 1;
                if !self.again.iter().any(|(_, other)| *other == task) {
                    self.release(task.array, Range::one(task.index));
                }
                return Some((position, result));
            }
            match self.watching.next().await {
                Ok(Some((array, range))) => self.take_in(array, range),
                Ok(None) => self.left = 0,
                Err(error) => {
                    // The rest is lost: one error stands for it.
                    self.left = 0;
                    return Some((self.first_left(), Err(error)));
                }
            }
        }
    }

    /// A result that is here already.
    fn take_ready(&mut self) -> Option<(usize, Result<T>)> {
        while let Some((task, result)) = self.ready.pop_front() {
            let mut positions = positions(&self.places, task, self.repeated);
            let first = positions.next();
            let result = match (result, first) {
                (Some(result), Some(first)) => {
                    self.again.extend(positions.map(|position| (position, task)));
                    Some((first, result))
                }
                (_, first) => {
                    // A large value is elsewhere: it is fetched when it is its turn.
                    let all = first.into_iter().chain(positions);
                    self.again.extend(all.map(|position| (position, task)));
                    None
                }
            };
            if !self.again.iter().any(|(_, other)| *other == task) {
                self.release(task.array, Range::one(task.index));
            }
            if let Some(result) = result {
                self.left -= 1;
                return Some(result);
            }
        }
        None
    }

    fn take_in(&mut self, array: ArrayId, range: Range) {
        let results = self.watching.results(array, range);
        let tasks = range.iter().map(|index| TaskId { array, index });
        self.ready.extend(tasks.zip(results));
    }

    fn first_left(&self) -> usize {
        let held = |place: &&Place| {
            let set = self.held.get(&place.array);
            set.is_some_and(|set| set.count_within(place.range) > 0)
        };
        let first = self.places.iter().filter(held).map(|place| place.position);
        first.min().unwrap_or(0)
    }
}

impl<T> Completed<T> {
    fn release(&mut self, array: ArrayId, range: Range) {
        if let Some(set) = self.held.get_mut(&array) {
            set.remove(range);
            release(&self.session, array, range);
        }
    }
}

impl<T> Drop for Completed<T> {
    fn drop(&mut self) {
        for (array, set) in std::mem::take(&mut self.held) {
            for range in set.iter() {
                release(&self.session, array, range);
            }
        }
    }
}

/// Where a task stands. A search finds the only place, or the last of several.
fn positions(places: &[Place], task: TaskId, repeated: bool) -> impl Iterator<Item = usize> {
    let last = places
        .partition_point(|place| (place.array, place.range.start) <= (task.array, task.index));
    places[..last]
        .iter()
        .rev()
        .take(if repeated { usize::MAX } else { 1 })
        .take_while(move |place| place.array == task.array)
        .filter(move |place| place.range.contains(task.index))
        .map(move |place| place.position + (task.index - place.range.start) as usize)
}
