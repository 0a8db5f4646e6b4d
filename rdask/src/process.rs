//! A program's process at work: a thin shell around [`rdask_core::process::Process`].
//!
//! One loop owns the state machine and is the only one to touch it. Slot threads run chunks,
//! fetches run beside the loop, peers are served by tasks of its own; all of them tell the loop
//! what has happened, and what it does about it is what the state machine says. They bring along
//! what they made or got, and only the loop puts it into the store: what is there is what the state
//! machine knows of, and it alone says what goes.
//!
//! It doesn't know where its messages come from: a link's pumps and the scheduler in the same OS
//! process look alike.

pub(crate) mod control;
mod execute;
mod slots;
pub mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdask_core::bulk::Bulk;
use rdask_core::id::{AssignmentId, ProcessId, TaskId};
use rdask_core::message::{Contact, FromProcess, ToProcess};
use rdask_core::process::{Action, ChunkEnd, ChunkId, Process, StartChunk, ValueId};
use rdask_core::range::Range;
use rdask_core::time::Time;
use rdask_net::{Endpoint, Incoming};
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::board::Board;
use crate::data::{self, DataHandler};
use crate::function::Input;
use control::Control;
use execute::{Job, Results};
use slots::SlotThreads;
use store::Store;

/// Where tasks run, as they and their errors tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The worker's name.
    pub worker: String,
    /// The node's name.
    pub node: String,
    /// For tasks that submit tasks.
    pub client: crate::NestedClient,
}

/// How a process gets values from others and gives them its own.
#[derive(Debug)]
pub enum DataPlane {
    /// By data streams. The endpoint's streams are served until the process ends.
    Network(Endpoint),
    /// Not at all: it is the only process there is.
    Local,
}

/// What a process starts with.
#[derive(Debug)]
pub struct ProcessSetup {
    /// Its number.
    pub process: ProcessId,
    /// The slots it has until the scheduler says otherwise. Usually 0.
    pub slots: u32,
    /// Where it is.
    pub home: Home,
    /// To the scheduler. When it is full the process waits, and so does what it would report.
    pub to_scheduler: Sender<FromProcess>,
    /// From the scheduler. Its end is the end of the link, and of the process.
    pub from_scheduler: Receiver<ToProcess>,
    /// From and to other processes and clients.
    pub data: DataPlane,
    /// Where it notes what runs, for its nanny.
    pub board: Board,
}

/// The scheduler has given the process up and taken it back.
#[derive(Debug)]
pub struct Return {
    /// Its number from now on.
    pub process: ProcessId,
    /// As in [`ProcessSetup`].
    pub to_scheduler: Sender<FromProcess>,
    /// As in [`ProcessSetup`].
    pub from_scheduler: Receiver<ToProcess>,
}

/// What happened outside of the loop. Each chunk, fetch and put has at most one on its way, so
/// what bounds them bounds the channel.
#[derive(Debug)]
pub(crate) enum Event {
    ChunkEnded(ChunkId, ChunkEnd, Results),
    Parked(ChunkId),
    UnparkWanted(ChunkId),
    /// What came, and how long that took.
    Fetched(ValueId, Bulk, Duration),
    /// Whether the holder denied having the value.
    FetchFailed(ValueId, ProcessId, bool),
    Put(TaskId, AssignmentId, Bulk),
}

/// The values of a process, to be got and put by others: over the net, or by a client in the same
/// OS process.
#[derive(Clone, Debug)]
pub struct Values {
    store: Arc<Store>,
    events: UnboundedSender<Event>,
    board: Arc<Board>,
}

impl Values {
    /// The encoded bytes of a value, `None` if it is not here. Runs user code.
    ///
    /// # Errors
    /// If it can't be encoded: the text says why.
    pub fn get(&self, task: TaskId, part: u16) -> Result<Option<Bytes>, String> {
        let entry = self.board.entry(task.array);
        entry.begin(task.index, 0);
        self.store.encoded(ValueId { task, part })
    }

    /// Keeps an encoded value as the result of `task`, as the scheduler asked a client to.
    pub fn put(&self, task: TaskId, assignment: AssignmentId, bytes: Bulk) {
        // Fails only when the process has ended; then nobody will look for the value here.
        let _ = self.events.send(Event::Put(task, assignment, bytes));
    }
}

impl DataHandler for Values {
    async fn value(&self, task: TaskId, part: u16) -> Result<Option<Bytes>, String> {
        let values = self.clone();
        let got = tokio::task::spawn_blocking(move || values.get(task, part)).await;
        got.unwrap_or_else(|error| Err(error.to_string()))
    }

    async fn put(&self, task: TaskId, assignment: AssignmentId, bytes: Bulk) -> Result<(), String> {
        Self::put(self, task, assignment, bytes);
        Ok(())
    }
}

/// A process that is ready to [`run`](Self::run).
#[derive(Debug)]
pub struct ProcessRuntime {
    core: Process,
    started: Instant,
    home: Arc<Home>,
    to_scheduler: Sender<FromProcess>,
    from_scheduler: Receiver<ToProcess>,
    /// Whether the connection to the scheduler has not ended.
    is_linked: bool,
    /// Where the next connection comes from, if there may be one.
    returns: Option<Receiver<Return>>,
    data: DataPlane,
    values: Values,
    events: UnboundedReceiver<Event>,
    threads: SlotThreads,
    chunks: BTreeMap<ChunkId, Arc<Control>>,
    /// Fetches under way; the state machine bounds them.
    fetches: JoinSet<()>,
    /// What there was no room for in `to_scheduler`: answers to what was assigned, so the
    /// scheduler's own windows bound it.
    outgoing: VecDeque<FromProcess>,
    /// Why the process ends, once it does.
    end: Option<String>,
}

/// Runs a process until the scheduler ends it, or the connection to it has ended and there will be
/// no other one. Returns why.
pub async fn run(setup: ProcessSetup, returns: Receiver<Return>) -> String {
    let runtime = ProcessRuntime { returns: Some(returns), ..ProcessRuntime::new(setup) };
    runtime.run().await
}

/// What ends a wait.
enum Fact {
    Room,
    Event(Event),
    Message(ToProcess),
    LinkLost,
    Returned(Return),
    Timeout,
}

/// How many messages or events are taken in before the state machine is asked what to do.
const TAKEN_AT_ONCE: usize = 256;

impl ProcessRuntime {
    /// A process that has not begun.
    #[must_use]
    pub fn new(setup: ProcessSetup) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            core: Process::new(setup.process, setup.slots),
            started: Instant::now(),
            home: Arc::new(setup.home),
            to_scheduler: setup.to_scheduler,
            from_scheduler: setup.from_scheduler,
            is_linked: true,
            returns: None,
            data: setup.data,
            values: Values { store: Arc::default(), events: sender, board: Arc::new(setup.board) },
            events,
            threads: SlotThreads::default(),
            chunks: BTreeMap::new(),
            fetches: JoinSet::new(),
            outgoing: VecDeque::new(),
            end: None,
        }
    }

    /// The values that it holds.
    #[must_use]
    pub fn values(&self) -> Values {
        self.values.clone()
    }

    /// Runs until the scheduler ends the process or the link to it is lost. Returns why.
    pub async fn run(mut self) -> String {
        let mut server = JoinSet::new();
        if let DataPlane::Network(endpoint) = &self.data {
            server.spawn(serve(endpoint.clone(), self.values()));
        }
        loop {
            self.act();
            if let Some(reason) = self.end.take() {
                self.values.board.close();
                self.close().await;
                return reason;
            }
            self.wait().await;
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Waits for the next fact and takes in all that there are.
    ///
    /// All arms of the `select!` are cancel safe.
    async fn wait(&mut self) {
        let timeout = self.core.poll_timeout();
        let deadline = timeout.map(|time| self.started + Duration::from_nanos(time.0));
        let sleep = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let fact = tokio::select! {
            biased;
            permit = self.to_scheduler.reserve(),
                if self.is_linked && !self.outgoing.is_empty() => match permit {
                // Dropping the permit makes the room that `act` then finds.
                Ok(_) => Fact::Room,
                Err(_) => Fact::LinkLost,
            },
            event = self.events.recv() => {
                Fact::Event(event.expect("the loop has a sender itself"))
            }
            message = self.from_scheduler.recv(), if self.is_linked => {
                message.map_or(Fact::LinkLost, Fact::Message)
            }
            returned = next_return(&mut self.returns) => match returned {
                Some(returned) => Fact::Returned(returned),
                None => {
                    self.returns = None;
                    if self.is_linked { Fact::Timeout } else { Fact::LinkLost }
                }
            },
            () = sleep => Fact::Timeout,
        };
        match fact {
            Fact::Event(event) => self.handle_event(event),
            Fact::Message(message) => self.core.handle_message(self.now(), message),
            // Its nanny ends it, or has it return.
            Fact::LinkLost if self.returns.is_some() => self.is_linked = false,
            Fact::LinkLost => self.core.handle_link_lost(self.now()),
            Fact::Returned(returned) => self.return_as(returned),
            Fact::Room | Fact::Timeout => {}
        }
        for _ in 0..TAKEN_AT_ONCE {
            let Ok(event) = self.events.try_recv() else {
                break;
            };
            self.handle_event(event);
        }
        for _ in 0..TAKEN_AT_ONCE {
            let Ok(message) = self.from_scheduler.try_recv() else {
                break;
            };
            self.core.handle_message(self.now(), message);
        }
        self.core.handle_timeout(self.now());
        while self.fetches.try_join_next().is_some() {}
    }

    fn return_as(&mut self, returned: Return) {
        // What has ended by now is offered.
        while let Ok(event) = self.events.try_recv() {
            self.handle_event(event);
        }
        self.act();
        self.chunks.values().for_each(|control| control.make_void());
        self.outgoing.clear();
        (self.to_scheduler, self.from_scheduler) = (returned.to_scheduler, returned.from_scheduler);
        self.is_linked = true;
        self.core.handle_returned(self.now(), returned.process);
    }

    fn handle_event(&mut self, event: Event) {
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

    /// Does what the state machine wants done.
    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            self.carry_out(action);
        }
        self.send_more();
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

    /// Sends what there is room for.
    fn send_more(&mut self) {
        while !self.outgoing.is_empty()
            && let Ok(permit) = self.to_scheduler.try_reserve()
        {
            permit.send(self.outgoing.pop_front().expect("there is one to send"));
        }
    }

    fn start(&mut self, start: StartChunk) {
        let chunk = start.chunk;
        let events = self.values.events.clone();
        let control = Arc::new(Control::new(chunk, start.range, events.clone()));
        self.chunks.insert(chunk, Arc::clone(&control));
        let job = Job {
            start,
            control,
            store: Arc::clone(&self.values.store),
            board: Arc::clone(&self.values.board),
            home: Arc::clone(&self.home),
        };
        let started = self.threads.run(move || {
            let (end, stored) = job.run();
            // Fails only when the loop has ended, and the process with it.
            let _ = events.send(Event::ChunkEnded(chunk, end, stored));
        });
        if let Err(error) = started {
            self.end = Some(format!("no thread for another slot: {error}"));
        }
    }

    fn fetch(&mut self, value: ValueId, holder: ProcessId, contact: Contact) {
        let values = self.values.clone();
        match &self.data {
            DataPlane::Local => {
                let _ = values.events.send(Event::FetchFailed(value, holder, true));
            }
            DataPlane::Network(endpoint) => {
                let endpoint = endpoint.clone();
                let began = Instant::now();
                self.fetches.spawn(async move {
                    let got = data::get(&endpoint, &contact, holder, value.task, value.part).await;
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
        }
    }

    /// Drops values where user code may run.
    fn drop_later(&mut self, values: Vec<Input>) {
        if !values.is_empty()
            && let Err(error) = self.threads.run(move || drop(values))
        {
            self.end = Some(format!("no thread to drop values: {error}"));
        }
    }

    /// Lets nothing run on: parked runs go on to see their end, running ones see their token.
    async fn close(mut self) {
        self.fetches.abort_all();
        self.events.close();
        for control in self.chunks.values() {
            control.cancel(control.all());
            control.take_back();
            control.let_go();
        }
        let threads = self.threads;
        // Fails only when the runtime itself ends.
        let _ = tokio::task::spawn_blocking(move || threads.close()).await;
    }
}

async fn next_return(returns: &mut Option<Receiver<Return>>) -> Option<Return> {
    match returns {
        Some(returns) => returns.recv().await,
        None => std::future::pending().await,
    }
}

/// Serves the streams of other processes and of clients.
async fn serve(endpoint: Endpoint, values: Values) {
    let mut streams = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while streams.try_join_next().is_some() {}
        match incoming {
            Incoming::Data { stream, peer } => {
                let values = values.clone();
                streams.spawn(async move {
                    if let Err(error) = data::serve(stream, &values).await {
                        tracing::debug!(%peer, %error, "a data stream ended early");
                    }
                });
            }
            Incoming::Control(link) => {
                tracing::warn!(peer = %link.peer(), "a control link to a process is refused");
            }
        }
    }
}
