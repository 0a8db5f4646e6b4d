//! What a client, its handles and its driver share.
//!
//! The state machine sits behind a lock, since submitting must number tasks at once and must not
//! wait for the network. The lock is held for the machine's own steps only: never while user code
//! runs, never across an await, never while bytes are encoded, decoded, sent or received.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdask_core::client::{Client as Machine, WaiterId};
use rdask_core::id::{ArrayId, WorkerId};
use rdask_core::message::{ClusterStatus, TaskStatus, UnknownWorkers};
use rdask_core::range::Range;
use rdask_core::time::Time;
use tokio::sync::{Notify, mpsc, oneshot};

use super::driver;
use super::net_thread::NetThread;
use super::parts::ClientParts;
use crate::error::ConnectionError;

/// Tasks in the order a user has them.
pub(crate) type Tasks = Vec<(ArrayId, Range)>;

/// A connected client. It ends when the last client face and the last handle are dropped.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) net: Arc<NetThread>,
    pub(super) nested: bool,
    /// Resolves when the driver has handed over its last words.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// What the driver needs, too.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the driver.
    pub(super) wake: Notify,
    began: Instant,
}

/// The machine, and who in this process is waiting for its answers.
#[derive(Debug)]
pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) waiting: BTreeMap<WaiterId, oneshot::Sender<()>>,
    /// Each range is one entry at most, so the queues are bounded by what is waited for.
    pub(super) watching: BTreeMap<WaiterId, mpsc::UnboundedSender<(ArrayId, Range)>>,
    pub(super) asking: BTreeMap<u32, oneshot::Sender<Answer>>,
    /// Why nothing is sent or received any more.
    pub(super) lost: Option<ConnectionError>,
    /// The last client face and handle are gone.
    pub(super) closing: bool,
}

/// An answer of the scheduler.
#[derive(Debug)]
pub(super) enum Answer {
    Attached(Option<Tasks>),
    States(Vec<(Range, TaskStatus)>),
    Status(ClusterStatus),
    Retiring(Result<Vec<WorkerId>, UnknownWorkers>),
}

impl Session {
    /// Starts the driver of a connected client.
    pub(crate) fn start(parts: ClientParts) -> Arc<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                machine: Machine::new(parts.id),
                waiting: BTreeMap::new(),
                watching: BTreeMap::new(),
                asking: BTreeMap::new(),
                lost: None,
                closing: false,
            }),
            wake: Notify::new(),
            began: Instant::now(),
        });
        let net = Arc::clone(&parts.net);
        let nested = parts.nested;
        let (end, ended) = oneshot::channel();
        let drive = driver::drive(Arc::clone(&shared), parts);
        net.handle().spawn(async move {
            drive.await;
            // Nobody listens if the client is not ending.
            let _ = end.send(());
        });
        Arc::new(Self { shared, net, nested, ended: Mutex::new(Some(ended)) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    pub(super) fn now(&self) -> Time {
        self.shared.now()
    }

    /// Changes the state, and wakes the driver if that gave it something to do.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut State, Time) -> R) -> R {
        let now = self.now();
        let mut state = self.lock();
        let before = state.machine.poll_timeout();
        let result = change(&mut state, now);
        let after = state.machine.poll_timeout();
        let sooner = after.is_some_and(|after| before.is_none_or(|before| after < before));
        if sooner || state.machine.has_actions() {
            self.shared.wake.notify_one();
        }
        result
    }

    /// These tasks need not run any more.
    pub(crate) fn cancel(&self, tasks: &[(ArrayId, Range)]) {
        self.with(|state, _| state.machine.cancel(tasks));
    }

    /// One more handle of these tasks.
    pub(crate) fn retain(&self, array: ArrayId, range: Range) {
        self.lock().machine.retain(array, range);
    }
}

/// One handle less of these tasks; after the submission that this thread is making, if any.
pub(crate) fn release(session: &Arc<Session>, array: ArrayId, range: Range) {
    let later = LATER.with_borrow_mut(|later| {
        let Some(later) = later else {
            return false;
        };
        match later.last_mut() {
            // A map takes the handles of its items in order.
            Some((same, last_array, last))
                if Arc::ptr_eq(same, session)
                    && *last_array == array
                    && last.end == range.start =>
            {
                last.end = range.end;
            }
            _ => later.push((Arc::clone(session), array, range)),
        }
        true
    });
    if !later {
        session.with(|state, now| state.machine.release(now, array, range));
    }
}

type Releases = Vec<(Arc<Session>, ArrayId, Range)>;

thread_local! {
    /// What this thread released while it was making a submission.
    static LATER: RefCell<Option<Releases>> = const { RefCell::new(None) };
}

/// While a submission takes its arguments in, handles among them are dropped, and yet their tasks
/// must live until the submission names them. So releases of this thread wait for its end.
#[derive(Debug)]
pub(super) struct Making {
    outermost: bool,
}

impl Making {
    pub(super) fn begin() -> Self {
        let outermost = LATER.with_borrow_mut(|later| {
            let outermost = later.is_none();
            later.get_or_insert_default();
            outermost
        });
        Self { outermost }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.outermost {
            return;
        }
        let releases = LATER.with_borrow_mut(Option::take).unwrap_or_default();
        for (session, array, range) in releases {
            session.with(|state, now| state.machine.release(now, array, range));
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The machine asserts its own invariants: a panic in it is a bug of ours, and every
        // further call would only hide its message.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Time {
        let nanos = self.began.elapsed().as_nanos();
        Time(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.lock().closing = true;
        self.shared.wake.notify_one();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let on_net_thread = tokio::runtime::Handle::try_current().is_ok();
        if let Some(ended) = ended
            && !on_net_thread
        {
            // The driver ends by itself; an error means that it has.
            let _ = super::parking::park_on(ended);
        }
    }
}
