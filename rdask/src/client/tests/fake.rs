//! A scheduler, its workers and their values in one thread: runs what it can, when it can.

#![expect(clippy::result_large_err, reason = "a failure is what a task without a value has")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use rdask_core::blob::Blob;
use rdask_core::bulk::Bulk;
use rdask_core::failure::{Failure, FailureKind};
use rdask_core::id::{ArrayId, AssignmentId, ClientId, ProcessId, TaskId};
use rdask_core::message::{
    Contact, Edge, FromClient, INLINE_RESULT_BYTES_MAX, Outcome, Param, Shape, TaskStatus, ToClient,
};
use rdask_core::range::Range;

use super::super::net_thread::NetThread;
use super::super::parts::{BoxFuture, ClientParts, NotFetched, Put, ValueSource};
use super::Client;
use crate::connection::{Inbox, Outbox, outbox};
use crate::function::tests::{Task, run};
use crate::function::{self, EncodedInput, Input, ParamSource};

const ID: ClientId = ClientId(0);
const HOLDER: ProcessId = ProcessId(1);

type Ended = Result<Bytes, Failure>;
type Values = Arc<Mutex<BTreeMap<TaskId, Ended>>>;

/// The fake, from the test's side.
pub(super) struct Fake {
    thread: JoinHandle<Vec<FromClient>>,
    kill: Outbox<ToClient>,
}

impl Fake {
    /// What the client has said, once it has left.
    pub(super) fn end(self) -> Vec<FromClient> {
        self.thread.join().unwrap()
    }

    /// Ends the connection.
    pub(super) fn die(&self) {
        self.kill.close("the fake died").unwrap();
    }

    /// How many tasks were released.
    pub(super) fn released(said: &[FromClient]) -> u32 {
        let ranges = |message: &FromClient| match message {
            FromClient::Release { ranges } => ranges.iter().map(|(_, range)| range.len()).sum(),
            _ => 0,
        };
        said.iter().map(ranges).sum()
    }
}

/// A client and its fake scheduler.
pub(super) fn fake() -> (Client, Fake) {
    let (send, queue) = outbox();
    let (to_client, from_fake) = outbox();
    let kill = to_client.clone();
    let values = Values::default();
    let (put, puts) = mpsc::channel();
    let world = World {
        values: Arc::clone(&values),
        pending: Vec::new(),
        unfed: BTreeMap::new(),
        wanted: Vec::new(),
        detached: BTreeMap::new(),
        to_client,
        puts,
    };
    let thread = std::thread::spawn(move || world.live(Inbox::of_queue(queue)));
    let client = Client::from_parts(ClientParts {
        id: ID,
        send,
        receive: Inbox::of_queue(from_fake),
        values: Arc::new(FakeValues { values, put: Mutex::new(put) }),
        net: Arc::new(NetThread::start().unwrap()),
        nested: false,
    });
    (client, Fake { thread, kill })
}

struct FakeValues {
    values: Values,
    put: Mutex<mpsc::Sender<()>>,
}

impl ValueSource for FakeValues {
    fn get(
        &self,
        task: TaskId,
        _: ProcessId,
        _: Contact,
    ) -> BoxFuture<'_, Result<Bulk, NotFetched>> {
        let got = self.values.lock().unwrap().get(&task).cloned();
        Box::pin(
            async move { got.unwrap().map(Bulk::from).map_err(|failure| failure.message.into()) },
        )
    }

    fn put(&self, put: Put) -> BoxFuture<'_, Result<(), String>> {
        // The first assignment fails, so that each value is put twice.
        let result = if put.assignment == AssignmentId(0) {
            Err("no room".into())
        } else {
            let mut values = self.values.lock().unwrap();
            values.insert(put.task, Ok(put.value));
            self.put.lock().unwrap().send(()).unwrap();
            Ok(())
        };
        Box::pin(async move { result })
    }

    fn send_program(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A task that waits for its inputs.
struct Waiting {
    id: TaskId,
    shape: Shape,
    inline: Vec<u8>,
    /// The sources of each parameter that is not inline.
    sources: Vec<Vec<TaskId>>,
}

struct World {
    values: Values,
    pending: Vec<Waiting>,
    /// Arrays whose payload has not come in whole: length, shape, strings so far.
    unfed: BTreeMap<u32, (u32, Shape, Vec<Vec<u8>>)>,
    wanted: Vec<(TaskId, bool)>,
    detached: BTreeMap<String, Vec<(ArrayId, Range)>>,
    to_client: Outbox<ToClient>,
    puts: mpsc::Receiver<()>,
}

impl World {
    fn live(mut self, mut inbox: Inbox<FromClient>) -> Vec<FromClient> {
        let mut said = Vec::new();
        while let Ok(message) = inbox.blocking_recv() {
            said.push(message.clone());
            self.hear(message);
            self.run_all();
            self.answer();
        }
        said
    }

    fn hear(&mut self, message: FromClient) {
        match message {
            FromClient::SubmitArray { number, len, shape, .. } => {
                let empty = (len, shape, Vec::new());
                self.unfed.insert(number, empty);
                self.feed(number);
            }
            FromClient::Payload { number, payload } => {
                let (_, _, strings) = self.unfed.get_mut(&number).unwrap();
                strings.extend(payload.iter().map(<[u8]>::to_vec));
                self.feed(number);
            }
            FromClient::SubmitBatch { number, batch, .. } => {
                let mut start = 0;
                for (index, end) in (0..).zip(&batch.edge_ends) {
                    let edges = &batch.edges[start as usize..*end as usize];
                    start = *end;
                    let shape = &batch.shapes[batch.shape_of[index as usize] as usize];
                    self.pending.push(Waiting {
                        id: task(array(number), index),
                        shape: shape.clone(),
                        inline: batch.payload.get(index).to_vec(),
                        sources: sources_of_edges(&shape.params, edges),
                    });
                }
            }
            FromClient::ScatterInline { number, values } => {
                let mut all = self.values.lock().unwrap();
                for index in 0..values.count() {
                    all.insert(task(array(number), index), Ok(values.get_bytes(index)));
                }
            }
            FromClient::Scatter { number, sizes, .. } => {
                for index in 0..sizes.len() as u32 {
                    self.say_put(task(array(number), index), 0);
                    self.say_put(task(array(number), index), 1);
                    self.puts.recv().unwrap();
                }
            }
            FromClient::Want { array, range, values } => {
                let wants = range.iter().map(|index| (task(array, index), values));
                self.wanted.extend(wants);
            }
            FromClient::Cancel { array, range } => {
                let hit = |id: TaskId| id.array == array && range.contains(id.index);
                for waiting in self.pending.extract_if(.., |waiting| hit(waiting.id)) {
                    let failure = Failure::of_scheduler(FailureKind::Cancelled, "", waiting.id);
                    self.values.lock().unwrap().insert(waiting.id, Err(failure));
                }
            }
            FromClient::Detach { name, ranges } => {
                self.detached.insert(name, ranges);
            }
            FromClient::Attach { request, name } => {
                let ranges = self.detached.remove(&name);
                self.say(ToClient::Attached { request, ranges });
            }
            FromClient::AskStates { request, array, range } => {
                let values = self.values.lock().unwrap();
                let state = |index| match values.get(&task(array, index)) {
                    None => TaskStatus::Pending,
                    Some(Ok(_)) => TaskStatus::Finished,
                    Some(Err(_)) => TaskStatus::Error,
                };
                let states = range.iter().map(|index| (Range::one(index), state(index))).collect();
                drop(values);
                self.say(ToClient::States { request, states });
            }
            FromClient::Explain { .. } => panic!("nobody asks why in these tests"),
            FromClient::AskStatus { request, .. } => {
                let status = Default::default();
                self.say(ToClient::Status { request, status });
            }
            FromClient::PutFailed { .. }
            | FromClient::PutGone { .. }
            | FromClient::Missed { .. }
            | FromClient::Release { .. }
            | FromClient::Retire { .. }
            | FromClient::AskLeaving { .. }
            | FromClient::Taken { .. }
            | FromClient::ProgramNotSent { .. } => {}
        }
    }

    /// Makes tasks of an array whose payload is there.
    fn feed(&mut self, number: u32) {
        let (len, shape, strings) = &self.unfed[&number];
        if shape.params.contains(&Param::Inline) && strings.len() < *len as usize {
            return;
        }
        let (len, shape, strings) = self.unfed.remove(&number).unwrap();
        let mut strings = strings.into_iter();
        for index in 0..len {
            self.pending.push(Waiting {
                id: task(array(number), index),
                inline: strings.next().unwrap_or_default(),
                sources: sources_of_patterns(&shape.params, index),
                shape: shape.clone(),
            });
        }
    }

    fn run_all(&mut self) {
        let mut left = Vec::new();
        for waiting in std::mem::take(&mut self.pending) {
            if waiting.shape.options.name.as_deref() == Some("never") {
                left.push(waiting);
                continue;
            }
            let ended = self.run(&waiting);
            self.values.lock().unwrap().insert(waiting.id, ended);
        }
        self.pending = left;
    }

    /// Runs a task. Tasks come in an order in which inputs are there, unless they never are.
    fn run(&self, waiting: &Waiting) -> Ended {
        let mut params = Vec::new();
        let mut inputs = Vec::new();
        let mut sources = waiting.sources.iter();
        for param in &waiting.shape.params {
            if *param == Param::Inline {
                params.push(ParamSource::Inline);
                continue;
            }
            for source in sources.next().unwrap() {
                let value = self.values.lock().unwrap()[source].clone()?;
                params.push(ParamSource::Input);
                inputs.push(Input::Encoded(Arc::new(EncodedInput::new(value))));
            }
        }
        let entry = function::entry(waiting.shape.function.0).unwrap();
        let inline = waiting.inline.clone();
        let outcomes = run(entry, vec![Task { inline, params, inputs }]);
        match outcomes.iter().next().unwrap() {
            function::Outcome::Inline(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            function::Outcome::Stored(value) => Ok(value.encode().unwrap()),
            function::Outcome::Parts(_) => panic!("none of these functions splits"),
            function::Outcome::Failed(failure) => {
                let kind = match failure.kind {
                    function::FailureKind::Returned => FailureKind::Returned,
                    function::FailureKind::Panicked => FailureKind::Panicked,
                    _ => FailureKind::Unrunnable,
                };
                let message = failure.message.clone();
                Err(Failure::of_scheduler(kind, message, waiting.id))
            }
        }
    }

    fn answer(&mut self) {
        for (id, wants_value) in std::mem::take(&mut self.wanted) {
            let ended = self.values.lock().unwrap().get(&id).cloned();
            let outcome = match ended {
                None => {
                    self.wanted.push((id, wants_value));
                    continue;
                }
                Some(Err(failure)) => Outcome::Failed(failure),
                Some(Ok(_)) if !wants_value => Outcome::Done,
                Some(Ok(value)) if value.len() <= INLINE_RESULT_BYTES_MAX => {
                    let ends = vec![value.len() as u32];
                    Outcome::Values(Blob::new(ends, value).unwrap())
                }
                Some(Ok(_)) => Outcome::Held { holder: HOLDER, contact: contact() },
            };
            self.say(ToClient::Ended { array: id.array, range: Range::one(id.index), outcome });
        }
    }

    fn say_put(&self, task: TaskId, assignment: u64) {
        self.say(ToClient::Put {
            task,
            assignment: AssignmentId(assignment),
            process: HOLDER,
            contact: contact(),
        });
    }

    fn say(&self, message: ToClient) {
        // The client may have left.
        let _ = self.to_client.send(message);
    }
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

fn array(number: u32) -> ArrayId {
    ArrayId { client: ID, number }
}

fn task(array: ArrayId, index: u32) -> TaskId {
    TaskId { array, index }
}

fn sources_of_patterns(params: &[Param], index: u32) -> Vec<Vec<TaskId>> {
    let sources = |param: &Param| match *param {
        Param::Inline => None,
        Param::Each { array, start, .. } => Some(vec![task(array, start + index)]),
        Param::Block { array, start, end, width } => {
            let from = start + index * width;
            let block = Range::new(from, end.min(from + width));
            Some(block.iter().map(|index| task(array, index)).collect())
        }
        Param::One { task, .. } => Some(vec![task]),
        Param::All { array, range } => Some(range.iter().map(|index| task(array, index)).collect()),
        Param::Edge | Param::Edges => panic!("only in batches"),
        Param::Shuffle { .. } => panic!("nothing is shuffled in these tests"),
    };
    params.iter().filter_map(sources).collect()
}

fn sources_of_edges(params: &[Param], edges: &[Edge]) -> Vec<Vec<TaskId>> {
    let mut edges = edges.iter().map(|edge| edge.task);
    let mut sources = Vec::new();
    for param in params {
        match param {
            Param::Inline => {}
            Param::Edges => sources.push(edges.by_ref().collect()),
            _ => sources.push(edges.next().into_iter().collect()),
        }
    }
    assert_eq!(edges.next(), None, "more edges than parameters");
    sources
}
