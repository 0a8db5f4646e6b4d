//! A program's process at work: a thin shell around [`rdask_core::process::Process`].
//!
//! The state machine and what it acts on are one `Shell`. One loop brings it what
//! the scheduler says, what time it is, and what others tell the loop: slot threads that run chunks,
//! fetches, and the tasks that serve peers. A slot whose chunk has ended goes to the shell itself if
//! nobody else is there, and leaves with its next chunk. They bring along what they made or got, and
//! only the shell puts it into the store: what is there is what the state machine knows of, and it
//! alone says what goes.
//!
//! It doesn't know where its messages come from: a link's pumps and the scheduler in the same OS
//! process look alike.

pub(crate) mod control;
mod execute;
mod shell;
mod slots;
pub mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdask_core::bulk::Bulk;
use rdask_core::id::{AssignmentId, ProcessId, TaskId};
use rdask_core::message::{FromProcess, ToProcess};
use rdask_core::process::{ChunkEnd, ChunkId, ValueId};
use rdask_net::{Endpoint, Incoming};
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::board::Board;
use crate::data::{self, DataHandler, Routes};
use execute::Results;
use shell::{Rest, ShellSetup, Turns};
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
    Network(Routes),
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
    /// Nothing, but the loop has to look at the shell again.
    Look,
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
    turns: Arc<Turns>,
    values: Values,
    to_scheduler: Sender<FromProcess>,
    from_scheduler: Receiver<ToProcess>,
    /// Whether the connection to the scheduler has not ended.
    is_linked: bool,
    /// Where the next connection comes from, if there may be one.
    returns: Option<Receiver<Return>>,
    events: UnboundedReceiver<Event>,
    /// What the streams of others are served from.
    endpoint: Option<Endpoint>,
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
        let board = Arc::new(setup.board);
        let values = Values { store: Arc::default(), events: sender, board };
        let routes = match setup.data {
            DataPlane::Network(routes) => Some(routes),
            DataPlane::Local => None,
        };
        let endpoint = routes.as_ref().map(|routes| routes.endpoint().clone());
        let to_scheduler = setup.to_scheduler.clone();
        let shell = ShellSetup {
            process: setup.process,
            slots: setup.slots,
            home: setup.home,
            to_scheduler: setup.to_scheduler,
            routes,
            values: values.clone(),
        };
        Self {
            turns: Turns::new(shell),
            values,
            to_scheduler,
            from_scheduler: setup.from_scheduler,
            is_linked: true,
            returns: None,
            events,
            endpoint,
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
        if let Some(endpoint) = self.endpoint.take() {
            server.spawn(serve(endpoint, self.values()));
        }
        loop {
            let rest = self.turns.lock().act();
            match rest {
                Rest::Until { deadline, has_more } => self.wait(deadline, has_more).await,
                Rest::End(reason) => {
                    self.values.board.close();
                    self.events.close();
                    let threads = self.turns.lock().close();
                    // Fails only when the runtime itself ends.
                    let _ = tokio::task::spawn_blocking(move || threads.close()).await;
                    return reason;
                }
            }
        }
    }

    /// Waits for the next fact and takes in all that there are.
    ///
    /// All arms of the `select!` are cancel safe.
    async fn wait(&mut self, deadline: Option<Instant>, has_more: bool) {
        let sleep = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let fact = tokio::select! {
            biased;
            permit = self.to_scheduler.reserve(), if self.is_linked && has_more => match permit {
                // Dropping the permit makes the room that the shell then finds.
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
        let mut shell = self.turns.lock();
        match fact {
            Fact::Event(event) => shell.handle_event(event),
            Fact::Message(message) => shell.handle_message(message),
            // Its nanny ends it, or has it return.
            Fact::LinkLost if self.returns.is_some() => self.is_linked = false,
            Fact::LinkLost => shell.handle_link_lost(),
            Fact::Returned(Return { process, to_scheduler, from_scheduler }) => {
                // What has ended by now is offered.
                while let Ok(event) = self.events.try_recv() {
                    shell.handle_event(event);
                }
                shell.return_as(process, to_scheduler.clone());
                (self.to_scheduler, self.from_scheduler) = (to_scheduler, from_scheduler);
                self.is_linked = true;
            }
            Fact::Room | Fact::Timeout => {}
        }
        for _ in 0..TAKEN_AT_ONCE {
            let Ok(event) = self.events.try_recv() else {
                break;
            };
            shell.handle_event(event);
        }
        for _ in 0..TAKEN_AT_ONCE {
            let Ok(message) = self.from_scheduler.try_recv() else {
                break;
            };
            shell.handle_message(message);
        }
        shell.handle_timeout();
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
