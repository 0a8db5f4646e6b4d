//! The state machine of a process, and what it acts on: slots, fetches, values, the scheduler.
//!
//! Nothing here waits. The loop has it most of the time; a slot thread whose chunk has ended takes a
//! turn, too, if nobody else has it: to wake the loop and be woken by it takes longer than many tasks.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rdask_core::id::ProcessId;
use rdask_core::message::{Contact, FromProcess, ToProcess};
use rdask_core::process::{Action, ChunkEnd, ChunkId, Process, StartChunk, ValueId};
use rdask_core::range::Range;
use rdask_core::time::Time;
use tokio::sync::mpsc::{Sender, UnboundedSender};
use tokio::task::JoinSet;

use super::control::Control;
use super::execute::{Job, Results};
use super::slots::SlotThreads;
use super::store::Store;
use super::{Event, Home, Values};
use crate::data::{self, Routes};
use crate::function::Input;

/// What a shell starts with.
pub(super) struct ShellSetup {
    pub(super) process: ProcessId,
    pub(super) slots: u32,
    pub(super) home: Home,
    pub(super) to_scheduler: Sender<FromProcess>,
    /// Where values of others come from, if there are others.
    pub(super) routes: Option<Routes>,
    pub(super) values: Values,
}

/// The shell, for one at a time.
pub(super) struct Turns {
    /// Locked for a turn.
    shell: Mutex<Shell>,
    events: UnboundedSender<Event>,
}

/// How the loop goes on after a turn.
pub(super) enum Rest {
    /// It waits until then at most, and for room if there is more to send.
    Until { deadline: Option<Instant>, has_more: bool },
    /// The process ends, for this reason.
    End(String),
}

/// See above.
pub(super) struct Shell {
    core: Process,
    started: Instant,
    home: Arc<Home>,
    to_scheduler: Sender<FromProcess>,
    routes: Option<Routes>,
    values: Values,
    turns: Weak<Turns>,
    threads: SlotThreads,
    chunks: BTreeMap<ChunkId, Arc<Control>>,
    /// Fetches under way; the state machine bounds them.
    fetches: JoinSet<()>,
    /// What there was no room for in `to_scheduler`: answers to what was assigned, so the
    /// scheduler's own windows bound it.
    outgoing: VecDeque<FromProcess>,
    /// Why the process ends, once it does.
    end: Option<String>,
    /// When the loop looks by itself.
    looks_at: Option<Time>,
    /// The slot that has the turn.
    slot: Slot,
}

/// What a slot that has the turn does next.
enum Slot {
    /// The loop has the turn.
    None,
    Free,
    Has(Job),
}

/// Tells the loop about a panic in a turn of a slot, which ends the process.
struct TellOfPanic<'a>(&'a Turns);

impl Drop for TellOfPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.tell_loop(Event::Look);
        }
    }
}

impl Turns {
    pub(super) fn new(setup: ShellSetup) -> Arc<Self> {
        Arc::new_cyclic(|turns| {
            let events = setup.values.events.clone();
            Self { shell: Mutex::new(Shell::new(setup, Weak::clone(turns))), events }
        })
    }

    /// The shell, for the loop.
    ///
    /// # Panics
    /// If a turn has panicked.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shell> {
        self.shell.lock().expect("no turn has panicked")
    }

    fn tell_loop(&self, event: Event) {
        // Fails only when the loop has ended, and the process with it.
        let _ = self.events.send(event);
    }

    /// Runs a chunk on this thread, and then those that the state machine has for it.
    fn run(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            let chunk = job.start.chunk;
            let (end, stored) = job.run();
            next = self.chunk_ended(chunk, end, stored);
        }
    }

    /// Returns the next chunk for this slot, if it could find out and there is one.
    fn chunk_ended(&self, chunk: ChunkId, end: ChunkEnd, stored: Results) -> Option<Job> {
        let mut shell = match self.shell.try_lock() {
            Ok(shell) => shell,
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => {
                self.tell_loop(Event::ChunkEnded(chunk, end, stored));
                return None;
            }
        };
        let _tell = TellOfPanic(self);
        if shell.end.is_some() {
            return None;
        }
        shell.slot = Slot::Free;
        shell.handle_event(Event::ChunkEnded(chunk, end, stored));
        shell.carry_out_all();
        if shell.needs_loop() {
            self.tell_loop(Event::Look);
        }
        match std::mem::replace(&mut shell.slot, Slot::None) {
            Slot::Has(job) => Some(job),
            Slot::Free | Slot::None => None,
        }
    }
}

impl Shell {
    fn new(setup: ShellSetup, turns: Weak<Turns>) -> Self {
        Self {
            core: Process::new(setup.process, setup.slots),
            started: Instant::now(),
            home: Arc::new(setup.home),
            to_scheduler: setup.to_scheduler,
            routes: setup.routes,
            values: setup.values,
            turns,
            threads: SlotThreads::default(),
            chunks: BTreeMap::new(),
            fetches: JoinSet::new(),
            outgoing: VecDeque::new(),
            end: None,
            looks_at: None,
            slot: Slot::None,
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn handle_message(&mut self, message: ToProcess) {
        self.core.handle_message(self.now(), message);
    }

    pub(super) fn handle_link_lost(&mut self) {
        self.core.handle_link_lost(self.now());
    }

    pub(super) fn handle_timeout(&mut self) {
        self.core.handle_timeout(self.now());
        while self.fetches.try_join_next().is_some() {}
    }

    /// The scheduler has taken the process back, under this number.
    pub(super) fn return_as(&mut self, process: ProcessId, to_scheduler: Sender<FromProcess>) {
        self.carry_out_all();
        self.chunks.values().for_each(|control| control.make_void());
        self.outgoing.clear();
        self.to_scheduler = to_scheduler;
        self.core.handle_returned(self.now(), process);
    }

    pub(super) fn handle_event(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::ChunkEnded(chunk, end, mut stored) => {
                let control = self.chunks.remove(&chunk);
                // A run that was called back, or of a chunk that is void, may have gone on while
                // another one made the value that counts.
                let is_void = |id: &ValueId| {
                    let control = control.as_ref();
                    control.is_none_or(|one| one.is_void() || one.is_cancelled(id.task.index))
                };
                let void = stored.extract_if(.., |(id, _)| is_void(id));
                let mut dropped: Vec<Input> = void.map(|(_, value)| Input::Typed(value)).collect();
                if !stored.is_empty() {
                    dropped.extend(self.store().insert_results(stored));
                }
                self.drop_later(dropped);
                self.core.handle_chunk_ended(now, chunk, end);
            }
            Event::Parked(chunk) => self.core.handle_parked(now, chunk),
            Event::UnparkWanted(chunk) => self.core.handle_unpark_wanted(now, chunk),
            Event::Fetched(value, bytes, took) => {
                let size = bytes.bytes().len() as u64;
                self.store().insert_encoded(value, bytes);
                self.core.handle_fetched(now, value, size, took);
            }
            Event::FetchFailed(value, holder, denied) => {
                self.core.handle_fetch_failed(now, value, holder, denied);
            }
            Event::Look => {}
            Event::Put(task, assignment, bytes) => {
                let size = bytes.bytes().len() as u64;
                self.store().insert_encoded(ValueId { task, part: 0 }, bytes);
                self.core.handle_put(now, task, assignment, size);
            }
        }
    }

    /// The values that are here, to put others to them. What was to be dropped is gone by then.
    fn store(&mut self) -> &Store {
        while let Some(action) = self.core.next_action() {
            self.carry_out(action);
        }
        &self.values.store
    }

    /// Does what the state machine wants done, and says how the loop goes on.
    pub(super) fn act(&mut self) -> Rest {
        self.carry_out_all();
        if let Some(reason) = &self.end {
            return Rest::End(reason.clone());
        }
        self.looks_at = self.core.poll_timeout();
        let deadline = self.looks_at.map(|time| self.started + Duration::from_nanos(time.0));
        Rest::Until { deadline, has_more: !self.outgoing.is_empty() }
    }

    /// Whether the loop has to look before it would by itself.
    fn needs_loop(&self) -> bool {
        let is_sooner = |time| self.looks_at.is_none_or(|look| time < look);
        let is_late = self.core.poll_timeout().is_some_and(is_sooner);
        is_late || !self.outgoing.is_empty() || self.end.is_some()
    }

    /// Does what the state machine wants done, and sends what there is room for.
    fn carry_out_all(&mut self) {
        while let Some(action) = self.core.poll_action() {
            self.carry_out(action);
        }
        while !self.outgoing.is_empty()
            && let Ok(permit) = self.to_scheduler.try_reserve()
        {
            permit.send(self.outgoing.pop_front().expect("there is one to send"));
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::StartChunk(start) => self.start(start),
            Action::TakeBack(chunk) => {
                let control = self.chunks.get(&chunk);
                let range = control.map(|control| control.take_back());
                let range = range.unwrap_or(Range::new(0, 0));
                self.core.handle_taken_back(self.now(), chunk, range);
            }
            Action::CancelRunning(chunk, range) => {
                if let Some(control) = self.chunks.get(&chunk) {
                    control.cancel(range);
                }
            }
            Action::Resume(chunk) => {
                if let Some(control) = self.chunks.get(&chunk) {
                    control.let_go();
                }
            }
            Action::Fetch { value, holder, contact } => self.fetch(value, holder, contact),
            Action::DropValues(array, range) => {
                self.drop_later(self.values.store.remove(array, range));
            }
            Action::DropReplica(value) => {
                let dropped = self.values.store.remove_one(value);
                self.drop_later(dropped.into_iter().collect());
            }
            Action::Send(message) => self.outgoing.push_back(message),
            Action::Exit { reason } => self.end = Some(reason),
        }
    }

    fn start(&mut self, start: StartChunk) {
        let chunk = start.chunk;
        let events = self.values.events.clone();
        let control = Arc::new(Control::new(chunk, start.range, events));
        self.chunks.insert(chunk, Arc::clone(&control));
        let job = Job {
            start,
            control,
            store: Arc::clone(&self.values.store),
            board: Arc::clone(&self.values.board),
            home: Arc::clone(&self.home),
        };
        if matches!(self.slot, Slot::Free) {
            self.slot = Slot::Has(job);
            return;
        }
        let Some(turns) = self.turns.upgrade() else { return };
        let started = self.threads.run(move || turns.run(job));
        if let Err(error) = started {
            self.end = Some(format!("no thread for another slot: {error}"));
        }
    }

    fn fetch(&mut self, value: ValueId, holder: ProcessId, contact: Contact) {
        let values = self.values.clone();
        let Some(routes) = self.routes.clone() else {
            let _ = values.events.send(Event::FetchFailed(value, holder, true));
            return;
        };
        let began = Instant::now();
        self.fetches.spawn(async move {
            let get = data::get(&routes, &contact, holder, value.task, value.part);
            // Where a user may have no more threads, the runtime panics. Tasks wait for this.
            let Ok(got) = AssertUnwindSafe(get).catch_unwind().await else {
                let _ = values.events.send(Event::FetchFailed(value, holder, false));
                return;
            };
            let event = match got {
                Ok(bytes) => Event::Fetched(value, bytes, began.elapsed()),
                Err(error) => {
                    tracing::warn!(task = %value.task, %holder, %error, "an input was missed");
                    Event::FetchFailed(value, holder, error.is_answer())
                }
            };
            let _ = values.events.send(event);
        });
    }

    /// Drops values where user code may run.
    fn drop_later(&mut self, values: Vec<Input>) {
        if !values.is_empty()
            && let Err(error) = self.threads.run(move || drop(values))
        {
            self.end = Some(format!("no thread to drop values: {error}"));
        }
    }

    /// Lets nothing run on: parked runs go on to see their end, running ones see their token. What
    /// is returned is to be closed where that may take a while.
    pub(super) fn close(&mut self) -> SlotThreads {
        self.fetches.abort_all();
        for control in self.chunks.values() {
            control.cancel(control.all());
            control.take_back();
            control.let_go();
        }
        std::mem::take(&mut self.threads)
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}
