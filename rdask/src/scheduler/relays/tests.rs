//! Holder, scheduler and who wants values as endpoints over loopback. Who wants them is told a wrong
//! address, which is as good as a firewall.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use rdask_core::bulk::Bulk;
use rdask_core::id::{ArrayId, AssignmentId, ClientId, TaskId};
use rdask_core::message::DataRequest;
use rdask_net::{Authority, EndpointConfig, Incoming, Target};
use tokio::task::JoinSet;

use super::super::turns::core;
use super::*;
use crate::data::{self, Carrier, DataHandler, Put, Routes, bytes_received};
use crate::program::exchange::read_request;

const HOLDER: ProcessId = ProcessId(4);

/// The number of whoever asks.
const ASKING: u64 = 9;

/// Shown, where that is possible, and filled beside the net thread.
const LARGE: usize = 9_000_000;

/// One value for all tasks.
struct Holder {
    value: Mutex<Option<Bytes>>,
    /// What streams came by.
    carriers: Mutex<BTreeSet<Carrier>>,
    /// Gets that are answered now, and at most so far.
    serving: AtomicUsize,
    most: AtomicUsize,
    /// What gets wait for.
    answer: Semaphore,
}

impl DataHandler for Holder {
    async fn value(&self, _: TaskId, _: u16) -> Result<Option<Bytes>, String> {
        let now = self.serving.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let answer = self.answer.acquire().await.map_err(|error| error.to_string());
        self.serving.fetch_sub(1, Ordering::SeqCst);
        drop(answer?);
        Ok(self.value.lock().unwrap().clone())
    }

    async fn put(&self, _: TaskId, _: AssignmentId, bytes: Bulk) -> Result<(), String> {
        *self.value.lock().unwrap() = Some(bytes.bytes().clone());
        Ok(())
    }
}

/// A run of three.
struct Run {
    authority: Authority,
    holder: Arc<Holder>,
    /// Where the holder really is.
    contact: Contact,
    relays: Relays,
    scheduler: Target,
    _tasks: JoinSet<()>,
}

fn task() -> TaskId {
    TaskId { array: ArrayId { client: ClientId(1), number: 2 }, index: 0 }
}

fn put() -> Put {
    let bytes = (0..LARGE).map(|at| (at % 251) as u8).collect();
    Put { task: task(), assignment: AssignmentId(1), bytes }
}

/// Nobody is there, and the node says so.
fn closed() -> Contact {
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Contact { quic: vec![address], tls: Vec::new() }
}

/// Packets are swallowed as long as the socket is there.
fn silent() -> (UdpSocket, Contact) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let contact = Contact { quic: vec![socket.local_addr().unwrap()], tls: Vec::new() };
    (socket, contact)
}

impl Run {
    /// Gets are answered so many at a time. Names of local sockets are the host's.
    async fn start(answers: usize) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = format!("relay{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let authority = Authority::new(&run).unwrap();
        let bind = async |name: PeerName| {
            let identity = authority.issue(&name).unwrap();
            Endpoint::bind(EndpointConfig::new(identity).on_loopback()).await.unwrap()
        };
        let holding =
            bind(PeerName::new(PeerRole::Process, u64::from(HOLDER.0), &run).unwrap()).await;
        let contact = Contact { quic: holding.addresses(), tls: holding.tls_addresses() };
        let scheduling = bind(PeerName::scheduler(&run).unwrap()).await;
        let (scheduler, relays) = (scheduling.target(), Relays::new(scheduling.clone()));
        let holder = Arc::new(Holder {
            value: Mutex::default(),
            carriers: Mutex::default(),
            serving: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            answer: Semaphore::new(answers),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(hold(holding, holder.clone()));
        tasks.spawn(schedule(scheduling, relays.clone()));
        Self { authority, holder, contact, relays, scheduler, _tasks: tasks }
    }

    fn list(&self, process: ProcessId, contact: &Contact) -> Listed {
        let run = self.authority.run();
        let name = PeerName::new(PeerRole::Process, u64::from(process.0), run).unwrap();
        self.relays.list(name, Some(contact.clone()))
    }

    /// The ways of somebody with a name of this run.
    async fn routes(&self, role: PeerRole) -> Routes {
        let name = PeerName::new(role, ASKING, self.authority.run()).unwrap();
        let config = EndpointConfig::dial_only(self.authority.issue(&name).unwrap()).on_loopback();
        Routes::new(Endpoint::bind(config).await.unwrap(), self.scheduler.clone())
    }
}

async fn hold(endpoint: Endpoint, holder: Arc<Holder>) {
    let mut streams = JoinSet::new();
    while let Some(Incoming::Data { stream, .. }) = endpoint.accept().await {
        holder.carriers.lock().unwrap().insert(stream.carrier());
        let holder = holder.clone();
        // What goes wrong is asserted at the other end.
        streams.spawn(async move { data::serve(stream, &*holder).await.ok() });
    }
}

async fn schedule(endpoint: Endpoint, relays: Relays) {
    // It lives as long as this.
    let (core, _thread) = core();
    let mut streams = JoinSet::new();
    while let Some(Incoming::Data { mut stream, .. }) = endpoint.accept().await {
        let (relays, core) = (relays.clone(), core.clone());
        streams.spawn(async move {
            if let Ok(DataRequest::Relay { process }) = read_request(&mut stream).await {
                relays.serve(stream, process, core).await;
            }
        });
    }
}

#[tokio::test]
async fn who_is_not_reached_is_reached_by_the_scheduler() {
    let run = Run::start(1).await;
    let _listed = run.list(HOLDER, &run.contact);
    let routes = run.routes(PeerRole::Client).await;
    let before = bytes_received(Carrier::Relay);
    data::put(&routes, &closed(), HOLDER, put()).await.unwrap();
    let got = data::get(&routes, &closed(), HOLDER, task(), 0).await.unwrap();
    assert!(got.bytes() == &put().bytes);
    assert!(bytes_received(Carrier::Relay) - before >= 2 * LARGE as u64, "it came another way");
    let carriers = run.holder.carriers.lock().unwrap().clone();
    assert_eq!(carriers, BTreeSet::from([Carrier::Quic]), "the scheduler is no neighbour");
}

#[tokio::test]
async fn only_the_first_value_waits_for_who_says_nothing() {
    const MORE: u32 = 8;
    let run = Run::start(1).await;
    let _listed = run.list(HOLDER, &run.contact);
    *run.holder.value.lock().unwrap() = Some(Bytes::from_static(b"value"));
    let routes = run.routes(PeerRole::Process).await;
    let (_socket, contact) = silent();
    let get = async || {
        let began = Instant::now();
        let got = data::get(&routes, &contact, HOLDER, task(), 0).await.unwrap();
        assert_eq!(&got.bytes()[..], b"value");
        began.elapsed()
    };
    let first = get().await;
    let mut others = Duration::ZERO;
    for _ in 0..MORE {
        others += get().await;
    }
    assert!(others < first * MORE / 2, "{first:?}, and then {others:?} for {MORE}");
}

#[tokio::test]
async fn who_can_be_reached_is_not_relayed_to() {
    let run = Run::start(1).await;
    let _listed = run.list(HOLDER, &run.contact);
    let routes = run.routes(PeerRole::Client).await;
    data::put(&routes, &run.contact, HOLDER, put()).await.unwrap();
    data::get(&routes, &run.contact, HOLDER, task(), 0).await.unwrap();
    assert!(run.relays.0.told.lock().unwrap().is_empty());
}

/// What the scheduler said instead of relaying.
fn refusal(got: Result<Bulk, DataError>) -> String {
    let error = got.map(|bulk| bulk.bytes().len()).unwrap_err();
    assert!(!error.is_answer(), "no word of the holder: {error}");
    match error {
        DataError::Unreachable { relay, .. } => match *relay {
            DataError::NotRelayed(reason) => reason,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn there_are_no_relays_but_between_members() {
    let run = Run::start(1).await;
    let client = run.routes(PeerRole::Client).await;
    let reason = refusal(data::get(&client, &closed(), HOLDER, task(), 0).await);
    assert_eq!(reason, "p4 has gone");
    let listed = run.list(HOLDER, &run.contact);
    let nanny = run.routes(PeerRole::Nanny).await;
    let reason = refusal(data::get(&nanny, &closed(), HOLDER, task(), 0).await);
    assert_eq!(reason, "only for clients and processes");
    drop(listed);
    let reason = refusal(data::get(&client, &closed(), HOLDER, task(), 0).await);
    assert_eq!(reason, "p4 has gone");
    // Nor to where the scheduler doesn't get.
    let _listed = run.list(HOLDER, &closed());
    let reason = refusal(data::get(&client, &closed(), HOLDER, task(), 0).await);
    assert!(reason.contains("nobody listens there"), "{reason}");
}

/// Waits until the holder answers so many.
async fn until_serving(holder: &Holder, count: usize) {
    while holder.serving.load(Ordering::SeqCst) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_process_that_is_given_up_ends_its_relays() {
    let run = Run::start(0).await;
    let listed = run.list(HOLDER, &run.contact);
    let routes = run.routes(PeerRole::Client).await;
    let contact = closed();
    let get = data::get(&routes, &contact, HOLDER, task(), 0);
    let give_up = async {
        until_serving(&run.holder, 1).await;
        drop(listed);
    };
    let (got, ()) = tokio::join!(get, give_up);
    // The holder is alive and would have waited for ever, and this for half a minute.
    assert!(matches!(got, Err(DataError::Stream(_))), "{:?}", got.err());
}

#[tokio::test]
async fn so_does_one_who_asks_and_is_given_up() {
    let run = Run::start(0).await;
    let _listed = run.list(HOLDER, &run.contact);
    let listed = run.list(ProcessId(ASKING as u32), &closed());
    let routes = run.routes(PeerRole::Process).await;
    let contact = closed();
    let get = data::get(&routes, &contact, HOLDER, task(), 0);
    let give_up = async {
        until_serving(&run.holder, 1).await;
        drop(listed);
    };
    let (got, ()) = tokio::join!(get, give_up);
    assert!(matches!(got, Err(DataError::Stream(_))), "{:?}", got.err());
}

#[tokio::test]
async fn who_takes_nothing_loses_its_place() {
    let run = Run::start(1).await;
    let _listed = run.list(HOLDER, &run.contact);
    *run.holder.value.lock().unwrap() = Some(put().bytes);
    let (routes, other) = (run.routes(PeerRole::Client).await, run.routes(PeerRole::Process).await);
    // Some ask for a value and read none of it, one says nothing.
    let mut stuck = Vec::new();
    for index in 0..BULK_MAX + 1 {
        let mut stream = routes.endpoint().open_data(routes.scheduler()).await.unwrap();
        write_head(&mut stream, &DataRequest::Relay { process: HOLDER }).await.unwrap();
        // That it is connected: a length, and one byte.
        stream.read_exact(&mut [0; 5]).await.unwrap();
        if index < BULK_MAX {
            write_head(&mut stream, &DataRequest::Get { task: task(), part: 0 }).await.unwrap();
        }
        stuck.push(stream);
    }
    // It has to wait for them, and less than its patience.
    let got = data::get(&other, &closed(), HOLDER, task(), 0).await.unwrap();
    assert!(got.bytes() == &put().bytes);
}

#[tokio::test]
async fn who_gives_up_makes_room() {
    let run = Run::start(0).await;
    let _listed = run.list(HOLDER, &run.contact);
    *run.holder.value.lock().unwrap() = Some(Bytes::from_static(b"value"));
    let clients = [run.routes(PeerRole::Client).await, run.routes(PeerRole::Process).await];
    let mut gets = JoinSet::new();
    let get = |routes: &Routes| {
        let routes = routes.clone();
        async move { data::get(&routes, &closed(), HOLDER, task(), 0).await }
    };
    // Some have a place, some wait for one.
    for _ in 0..CARRIED_MAX {
        clients.iter().for_each(|routes| drop(gets.spawn(get(routes))));
    }
    until_serving(&run.holder, CARRIED_MAX).await;
    gets.shutdown().await;
    let all_free = async {
        while run.relays.0.places.available_permits() < CARRIED_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_free).await.unwrap();
    run.holder.answer.add_permits(1);
    assert_eq!(&get(&clients[0]).await.unwrap().bytes()[..], b"value");
}

#[tokio::test]
async fn some_are_carried_at_a_time_and_all_of_them_in_the_end() {
    let run = Run::start(0).await;
    let _listed = run.list(HOLDER, &run.contact);
    *run.holder.value.lock().unwrap() = Some(put().bytes.slice(..100_000));
    let mut gets = JoinSet::new();
    for _ in 0..3 {
        let routes = run.routes(PeerRole::Client).await;
        for _ in 0..10 {
            let routes = routes.clone();
            gets.spawn(async move { data::get(&routes, &closed(), HOLDER, task(), 0).await });
        }
    }
    until_serving(&run.holder, CARRIED_MAX).await;
    run.holder.answer.add_permits(Semaphore::MAX_PERMITS);
    while let Some(got) = gets.join_next().await {
        assert!(got.unwrap().unwrap().bytes()[..] == put().bytes[..100_000]);
    }
    assert_eq!(run.holder.most.load(Ordering::SeqCst), CARRIED_MAX);
}
