//! Waiting, written once as futures. The blocking client parks on them.

use std::sync::Arc;
use std::time::Duration;

use rdask_core::client::{Interest, Piece, WaiterId};
use rdask_core::id::{ArrayId, TaskId};
use rdask_core::message::{ClusterStatus, Explanation, TaskStatus, Why};
use rdask_core::range::Range;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::session::{Answer, Session, State, Tasks};
use crate::codec::{self, Data};
use crate::error::{ConnectionError, Error, Result};

/// How often somebody who waits for workers to be gone looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Somebody who waits. While it lives, large values that came for it stay.
#[derive(Debug)]
struct Waiting {
    session: Arc<Session>,
    waiter: WaiterId,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let waiter = self.waiter;
        self.session.with(|state, _| {
            state.waiting.remove(&waiter);
            state.watching.remove(&waiter);
            state.machine.stop_waiting(waiter);
        });
    }
}

impl State {
    fn check(&self) -> Result<()> {
        self.lost.clone().map_or(Ok(()), |lost| Err(Error::Connection(lost)))
    }
}

impl Session {
    /// Waits until all tasks have ended, well or not.
    ///
    /// # Errors
    /// If the connection is lost before.
    pub(crate) async fn wait(self: &Arc<Self>, tasks: &[(ArrayId, Range)]) -> Result<()> {
        let (waiting, complete) = self.begin(|state| state.machine.wait(tasks, Interest::End));
        let result = self.complete(&waiting, complete).await;
        drop(waiting);
        result
    }

    /// Waits until all tasks have ended or some time has passed. Returns whether they have.
    pub(crate) async fn wait_timeout(
        self: &Arc<Self>,
        tasks: &[(ArrayId, Range)],
        timeout: Duration,
    ) -> Result<bool> {
        let timer = async move { tokio::time::sleep(timeout).await };
        let mut sleeping = Sleeping(self.net.handle().spawn(timer));
        let wait = std::pin::pin!(self.wait(tasks));
        match futures_util::future::select(wait, &mut sleeping.0).await {
            futures_util::future::Either::Left((ended, _)) => ended.map(|()| true),
            futures_util::future::Either::Right(_) => Ok(false),
        }
    }

    /// The values of all tasks, in order, or a failure among them as soon as there is one.
    pub(crate) async fn gather<T: Data>(
        self: &Arc<Self>,
        tasks: &[(ArrayId, Range)],
    ) -> Result<Vec<T>> {
        let (waiting, complete) =
            self.begin(|state| state.machine.wait_until_failure(tasks, Interest::Value));
        self.complete(&waiting, complete).await?;
        let pieces: Vec<(ArrayId, Piece)> = {
            let state = self.lock();
            let pieces = |&(array, range): &(ArrayId, Range)| {
                let pieces = state.machine.pieces(array, range);
                pieces.into_iter().map(move |piece| (array, piece))
            };
            tasks.iter().flat_map(pieces).collect()
        };
        drop(waiting);
        let failed = pieces.iter().find_map(|(_, piece)| match piece {
            Piece::Failed(_, failure) => Some(Arc::clone(failure)),
            Piece::Values(..) | Piece::Value(..) | Piece::Absent(_) => None,
        });
        if let Some(failure) = failed {
            return Err(Error::Task(failure.into()));
        }
        let len = tasks.iter().map(|(_, range)| range.len() as usize).sum();
        let mut values = Vec::with_capacity(len);
        for (array, piece) in pieces {
            decode(array, piece, &mut values)?;
        }
        Ok(values)
    }

    /// Tasks that have ended, as far as known here, and others, in order. There is one more handle
    /// of each.
    pub(crate) fn split(&self, tasks: &[(ArrayId, Range)]) -> (Tasks, Tasks) {
        let (mut done, mut not_done) = (Tasks::new(), Tasks::new());
        self.with(|state, _| {
            for &(array, range) in tasks {
                state.machine.retain(array, range);
                for (part, ended) in state.machine.ended_within(array, range) {
                    let list = if ended { &mut done } else { &mut not_done };
                    list.push((array, part));
                }
            }
        });
        (done, not_done)
    }

    /// The value of one task.
    pub(crate) async fn result<T: Data>(self: &Arc<Self>, task: TaskId) -> Result<T> {
        let values = self.gather(&[(task.array, Range::one(task.index))]).await?;
        values.into_iter().next().ok_or(Error::Released { task })
    }

    /// Reports ranges of tasks as they end. The receiver closes after the last one.
    pub(crate) fn watch(self: &Arc<Self>, tasks: &[(ArrayId, Range)]) -> Watching {
        let (send, receive) = mpsc::unbounded_channel();
        let waiter = self.with(|state, _| {
            let waiter = state.machine.wait_each(tasks, Interest::Small);
            if state.lost.is_none() {
                state.watching.insert(waiter, send);
            }
            waiter
        });
        let session = Arc::clone(self);
        Watching { waiting: Waiting { session, waiter }, receive }
    }

    /// The state of a task.
    pub(crate) async fn status(self: &Arc<Self>, task: TaskId) -> Result<TaskStatus> {
        if let Some(status) = self.lock().machine.status(task) {
            return Ok(status);
        }
        let range = Range::one(task.index);
        let answer = self.ask(|state| state.machine.ask_states(task.array, range));
        match answer.await? {
            Answer::States(states) => Ok(states
                .into_iter()
                .find(|(range, _)| range.contains(task.index))
                .map_or(TaskStatus::Pending, |(_, status)| status)),
            _ => Err(unexpected()),
        }
    }

    /// How it is with a task.
    pub(crate) async fn explain(self: &Arc<Self>, task: TaskId) -> Result<Explanation> {
        if let Some(failure) = self.lock().machine.failure_here(task) {
            let (function, why) = (failure.function.clone(), Why::Failed((*failure).clone()));
            return Ok(Explanation { task, function, run: 1, why });
        }
        match self.ask(|state| state.machine.ask_why(task)).await? {
            Answer::Explained(explanation) => Ok(*explanation),
            _ => Err(unexpected()),
        }
    }

    /// What the cluster looks like. Whatever was sent before has been taken in by then.
    pub(crate) async fn cluster(self: &Arc<Self>) -> Result<ClusterStatus> {
        self.status_when(false).await
    }

    /// Waits until the program is at work in each worker that can run it.
    pub(crate) async fn ready(self: &Arc<Self>) -> Result<()> {
        self.status_when(true).await.map(|_| ())
    }

    async fn status_when(self: &Arc<Self>, ready: bool) -> Result<ClusterStatus> {
        match self.ask(|state| state.machine.ask_status(ready)).await? {
            Answer::Status(status) => Ok(status),
            _ => Err(unexpected()),
        }
    }

    /// Lets workers go, and waits until they are gone. Returns how many.
    pub(crate) async fn retire(self: &Arc<Self>, names: Vec<String>) -> Result<usize> {
        let retired = match self.ask(|state| state.machine.retire(names)).await? {
            Answer::Retiring(workers) => workers.map_err(Error::UnknownWorkers)?,
            _ => return Err(unexpected()),
        };
        while self.cluster().await?.workers.iter().any(|worker| retired.contains(&worker.id)) {
            let sleep = async { tokio::time::sleep(LOOK_EVERY).await };
            // It fails only when the runtime ends.
            let _ = self.net.handle().spawn(sleep).await;
        }
        Ok(retired.len())
    }

    /// Detaches tasks, and waits until the scheduler has heard of it: a program may end then.
    pub(crate) async fn detach(self: &Arc<Self>, name: String, tasks: Tasks) -> Result<()> {
        self.with(|state, _| state.machine.detach(name, tasks));
        self.cluster().await.map(|_| ())
    }

    /// The tasks that were detached under a name. There is a handle of each.
    pub(crate) async fn attach(self: &Arc<Self>, name: &str) -> Result<Tasks> {
        let answer = self.ask(|state| state.machine.attach(name.to_owned()));
        match answer.await? {
            Answer::Attached(tasks) => {
                tasks.ok_or_else(|| Error::NotDetached { name: name.to_owned() })
            }
            _ => Err(unexpected()),
        }
    }

    /// Starts to wait.
    fn begin(
        self: &Arc<Self>,
        start: impl FnOnce(&mut State) -> WaiterId,
    ) -> (Waiting, oneshot::Receiver<()>) {
        let (send, receive) = oneshot::channel();
        let waiter = self.with(|state, _| {
            let waiter = start(state);
            if !state.machine.is_complete(waiter) && state.lost.is_none() {
                state.waiting.insert(waiter, send);
            }
            waiter
        });
        let session = Arc::clone(self);
        (Waiting { session, waiter }, receive)
    }

    /// Waits on. The receiver only says that it is time to look.
    async fn complete(&self, waiting: &Waiting, ready: oneshot::Receiver<()>) -> Result<()> {
        let complete = self.lock().machine.is_complete(waiting.waiter);
        if complete || ready.await.is_ok() {
            return Ok(());
        }
        let state = self.lock();
        if state.machine.is_complete(waiting.waiter) {
            return Ok(());
        }
        state.check()
    }

    async fn ask(self: &Arc<Self>, question: impl FnOnce(&mut State) -> u32) -> Result<Answer> {
        let (send, receive) = oneshot::channel();
        self.with(|state, _| {
            state.check()?;
            let request = question(state);
            state.asking.insert(request, send);
            Ok::<(), Error>(())
        })?;
        match receive.await {
            Ok(answer) => Ok(answer),
            Err(_) => self.lock().check().and(Err(unexpected())),
        }
    }
}

/// The scheduler answered a question that was not asked. It would have been caught before.
fn unexpected() -> Error {
    Error::Connection(ConnectionError::Lost {
        reason: "the scheduler's answer doesn't fit the question".into(),
    })
}

/// A timer on the net thread, which has one. Dropping it stops it.
#[derive(Debug)]
struct Sleeping(JoinHandle<()>);

impl Drop for Sleeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tasks as they end.
#[derive(Debug)]
pub(crate) struct Watching {
    waiting: Waiting,
    receive: mpsc::UnboundedReceiver<(ArrayId, Range)>,
}

impl Watching {
    /// The next tasks that have ended and whose values are here.
    ///
    /// # Errors
    /// If the connection is lost before.
    pub(crate) async fn next(&mut self) -> Result<Option<(ArrayId, Range)>> {
        if let Some(next) = self.receive.recv().await {
            return Ok(Some(next));
        }
        let state = self.waiting.session.lock();
        if state.machine.is_complete(self.waiting.waiter) {
            return Ok(None);
        }
        state.check().map(|()| None)
    }

    /// The results of tasks that have ended, but for large values: they are elsewhere.
    pub(crate) fn results<T: Data>(&self, array: ArrayId, range: Range) -> Vec<Option<Result<T>>> {
        let pieces = self.waiting.session.lock().machine.pieces(array, range);
        let mut results = Vec::with_capacity(range.len() as usize);
        for piece in pieces {
            match piece {
                Piece::Values(range, blob) => {
                    let values = range.iter().zip(blob.iter());
                    results.extend(values.map(|(index, bytes)| {
                        let task = TaskId { array, index };
                        Some(codec::decode(bytes).map_err(|cause| Error::Decode { task, cause }))
                    }));
                }
                Piece::Value(index, bytes) => {
                    let task = TaskId { array, index };
                    let value = codec::decode_bulk(bytes);
                    results.push(Some(value.map_err(|cause| Error::Decode { task, cause })));
                }
                Piece::Failed(range, failure) => {
                    let error = || Error::Task(Arc::clone(&failure).into());
                    results.extend(range.iter().map(|_| Some(Err(error()))));
                }
                Piece::Absent(range) => results.extend(range.iter().map(|_| None)),
            }
        }
        results
    }
}

/// Decodes on the caller's thread, since it runs user code.
fn decode<T: Data>(array: ArrayId, piece: Piece, values: &mut Vec<T>) -> Result<()> {
    let mut push = |index: u32, value: std::result::Result<T, codec::DecodeError>| {
        let task = TaskId { array, index };
        values.push(value.map_err(|cause| Error::Decode { task, cause })?);
        Ok(())
    };
    match piece {
        Piece::Values(range, blob) => range
            .iter()
            .zip(blob.iter())
            .try_for_each(|(index, bytes)| push(index, codec::decode(bytes))),
        Piece::Value(index, bytes) => push(index, codec::decode_bulk(bytes)),
        Piece::Failed(_, failure) => Err(Error::Task(failure.into())),
        Piece::Absent(range) => Err(Error::Released { task: TaskId { array, index: range.start } }),
    }
}
