//! The loop around the client's state machine: messages in and out, values fetched and put.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rdask_core::bulk::Bulk;
use rdask_core::client::Action;
use rdask_core::id::{AssignmentId, ProcessId, TaskId};
use rdask_core::message::{FromClient, ToClient};
use rdask_core::time::Time;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::parts::{ClientParts, NotFetched, Put, ValueSource};
use super::session::{Answer, Shared, State};
use crate::connection::{Inbox, Outbox};
use crate::error::ConnectionError;

/// How many messages are taken in at a time before the answers to them are looked at.
const MESSAGES_PER_TURN: usize = 256;

/// How long a client that leaves lets its last words leave before it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where a user may have no more threads, the runtime panics. Whoever waits must hear of it.
const PANICKED: &str = "the transfer panicked";

/// The end of something that was started outside the machine.
#[derive(Debug)]
enum Ended {
    Fetch(TaskId, ProcessId, Result<Bulk, NotFetched>),
    Put(TaskId, AssignmentId, Result<(), String>),
    Program(Result<(), String>),
}

/// What the driver itself keeps.
struct Driver {
    shared: Arc<Shared>,
    values: Arc<dyn ValueSource>,
    send: Outbox<FromClient>,
    running: JoinSet<Ended>,
    /// Why to end the link, if the scheduler breaks the protocol.
    close: Option<String>,
}

/// Serves a client until it is dropped and its last words are sent, or until the link is lost.
pub(super) async fn drive(shared: Arc<Shared>, parts: ClientParts) {
    let ClientParts {
        send,
        mut receive,
        values,
        // The thread lives as long as its driver.
        net: _net,
        ..
    } = parts;
    let mut driver = Driver { shared, values, send, running: JoinSet::new(), close: None };
    let end = loop {
        let (deadline, closing) = driver.turn();
        if let Some(reason) = driver.close.take() {
            break reason;
        }
        if closing {
            break "the client has left".into();
        }
        // Each branch is safe to cancel: nothing is taken before it completes.
        tokio::select! {
            message = receive.recv() => match message {
                Ok(message) => {
                    if let Err(end) = driver.take_in(message, &mut receive) {
                        break end;
                    }
                }
                Err(end) => break end.to_string(),
            },
            () = driver.shared.wake.notified() => {}
            () = sleep(deadline.unwrap_or_default()), if deadline.is_some() => driver.ring(),
            Some(ended) = driver.running.join_next() => driver.handle_ended(ended),
        }
    };
    driver.give_up(&end);
    driver.running.shutdown().await;
    // An error means that the connection has ended already.
    if driver.send.close(&end).is_ok() && timeout(LAST_WORDS, driver.send.ended()).await.is_err() {
        tracing::debug!("the scheduler did not take the client's last words");
    }
    driver.values.close().await;
}

impl Driver {
    /// Does what the machine wants. Returns how long it can wait, and whether the client is gone.
    fn turn(&mut self) -> (Option<Duration>, bool) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if state.closing {
            state.machine.flush();
        }
        while let Some(action) = state.machine.poll_action() {
            self.act(&mut state, action);
        }
        let now = shared.now();
        let wait = |at: Time| at.since(now);
        (state.machine.poll_timeout().map(wait), state.closing)
    }

    fn act(&mut self, state: &mut State, action: Action) {
        match action {
            Action::Send(message) => {
                // How the connection ended comes out of the inbox.
                let _ = self.send.send(message);
            }
            Action::Fetch { task, holder, contact } => {
                let values = Arc::clone(&self.values);
                self.running.spawn(async move {
                    let get = AssertUnwindSafe(values.get(task, holder, contact));
                    let got = get.catch_unwind().await.unwrap_or_else(|_| {
                        Err(NotFetched { reason: PANICKED.to_owned(), denied: false })
                    });
                    Ended::Fetch(task, holder, got)
                });
            }
            Action::Put { task, assignment, process, contact, value } => {
                let values = Arc::clone(&self.values);
                let put = Put { task, assignment, process, contact, value };
                self.running.spawn(async move {
                    let done = AssertUnwindSafe(values.put(put)).catch_unwind().await;
                    let done = done.unwrap_or_else(|_| Err(PANICKED.to_owned()));
                    Ended::Put(task, assignment, done)
                });
            }
            Action::Progress { waiter, array, range } => {
                if let Some(watcher) = state.watching.get(&waiter) {
                    // The receiver is gone when the user has dropped the iterator.
                    let _ = watcher.send((array, range));
                }
            }
            Action::Complete(waiter) => {
                state.watching.remove(&waiter);
                if let Some(waiter) = state.waiting.remove(&waiter) {
                    // The receiver is gone when the user has stopped waiting.
                    let _ = waiter.send(());
                }
            }
            Action::Attached { request, ranges } => {
                answer(state, request, Answer::Attached(ranges));
            }
            Action::States { request, states } => answer(state, request, Answer::States(states)),
            Action::Status { request, status } => answer(state, request, Answer::Status(status)),
            Action::Retiring { request, workers } => {
                answer(state, request, Answer::Retiring(workers));
            }
            Action::Explained { request, explanation } => {
                answer(state, request, Answer::Explained(Box::new(explanation)));
            }
            Action::SendProgram => {
                let values = Arc::clone(&self.values);
                self.running.spawn(async move { Ended::Program(values.send_program().await) });
            }
            Action::Warn(message) => tracing::warn!("{message}"),
            Action::Close(reason) => self.close = Some(reason),
        }
    }

    fn take_in(&self, message: ToClient, receive: &mut Inbox<ToClient>) -> Result<(), String> {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.machine.handle_message(now, message);
        for _ in 1..MESSAGES_PER_TURN {
            match receive.try_recv() {
                Ok(Some(message)) => state.machine.handle_message(now, message),
                Ok(None) => return Ok(()),
                Err(end) => return Err(end.to_string()),
            }
        }
        Ok(())
    }

    fn ring(&mut self) {
        let now = self.shared.now();
        self.shared.lock().machine.handle_timeout(now);
    }

    fn handle_ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        match ended {
            Ok(Ended::Fetch(task, _, Ok(value))) => state.machine.handle_fetched(now, task, value),
            Ok(Ended::Fetch(task, holder, Err(NotFetched { reason, denied }))) => {
                tracing::debug!(%task, %holder, reason, "a value did not come");
                state.machine.handle_fetch_failed(now, task, holder, denied);
            }
            Ok(Ended::Put(task, _, Ok(()))) => state.machine.handle_put(now, task),
            Ok(Ended::Put(task, assignment, Err(reason))) => {
                tracing::debug!(%task, reason, "a value was not taken");
                state.machine.handle_put_failed(now, assignment, reason);
            }
            Ok(Ended::Program(Ok(()))) => {}
            Ok(Ended::Program(Err(reason))) => {
                tracing::warn!(reason, "the scheduler did not take the program");
                state.machine.handle_program_not_sent(now, reason);
            }
            // Only this driver aborts, when it ends.
            Err(error) => tracing::error!(%error, "a task of the client panicked"),
        }
    }

    /// Wakes everybody who waits: there is nothing to wait for.
    fn give_up(&self, reason: &str) {
        let mut state = self.shared.lock();
        let reason = reason.to_owned();
        state.lost = Some(ConnectionError::Lost { reason });
        state.waiting.clear();
        state.watching.clear();
        state.asking.clear();
    }
}

fn answer(state: &mut State, request: u32, answer: Answer) {
    if let Some(asker) = state.asking.remove(&request) {
        // The receiver is gone when the user has stopped waiting.
        let _ = asker.send(answer);
    }
}
