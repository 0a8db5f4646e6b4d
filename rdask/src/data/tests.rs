//! Both ends over real loopback sockets.

use std::sync::Mutex;

use rdask_core::id::{ArrayId, ClientId};
use rdask_core::message::{DataWord, MemoryArea};
use rdask_net::{Authority, EndpointConfig, Incoming};

use super::*;

const HOLDER: ProcessId = ProcessId(4);

fn task(index: u32) -> TaskId {
    let client = ClientId(1);
    let number = 2;
    TaskId { array: ArrayId { client, number }, index }
}

/// Values by task index; puts are added.
#[derive(Default)]
struct Values(Mutex<Vec<(TaskId, Bytes)>>);

impl DataHandler for Values {
    async fn value(&self, task: TaskId, part: u16) -> Result<Option<Bytes>, String> {
        if part > 0 {
            return Err("ä".repeat(REASON_BYTES_MAX));
        }
        let values = self.0.lock().unwrap();
        let found = values.iter().find(|(other, _)| *other == task);
        Ok(found.map(|(_, bytes)| bytes.clone()))
    }

    async fn put(&self, task: TaskId, _: AssignmentId, bytes: Bulk) -> Result<(), String> {
        self.0.lock().unwrap().push((task, bytes.bytes().clone()));
        Ok(())
    }
}

/// The ways of an endpoint without a scheduler.
fn routes(endpoint: &Endpoint) -> Routes {
    let name = PeerName::scheduler(endpoint.identity().name().run()).unwrap();
    Routes::new(endpoint.clone(), Target { quic: Vec::new(), tls: Vec::new(), name })
}

/// A holder and a client of a run of their own: names of sockets are the host's.
async fn endpoints(local_sockets: bool) -> (Endpoint, Endpoint, Contact) {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = format!("r{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let authority = Authority::new(&run).unwrap();
    let identity = |role, id| authority.issue(&PeerName::new(role, id, &run).unwrap()).unwrap();
    let serving = EndpointConfig::new(identity(PeerRole::Process, u64::from(HOLDER.0)));
    let serving =
        Endpoint::bind(serving.on_loopback().with_local_sockets(local_sockets)).await.unwrap();
    let asking = EndpointConfig::dial_only(identity(PeerRole::Client, 1));
    let asking = Endpoint::bind(asking.on_loopback()).await.unwrap();
    let contact = Contact { quic: serving.addresses(), tls: serving.tls_addresses() };
    (serving, asking, contact)
}

/// A holder that serves for ever, and a client to ask it.
async fn pair(holder: Values) -> (Endpoint, Contact, tokio::task::JoinSet<()>) {
    pair_of(endpoints(true).await, holder)
}

fn pair_of(
    (serving, asking, contact): (Endpoint, Endpoint, Contact),
    holder: Values,
) -> (Endpoint, Contact, tokio::task::JoinSet<()>) {
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Some(Incoming::Data { stream, .. }) = serving.accept().await {
            // What goes wrong is asserted at the other end.
            let _ = serve(stream, &holder).await;
        }
    });
    (asking, contact, tasks)
}

#[tokio::test]
async fn what_was_put_can_be_got() {
    let (endpoint, contact, _serving) = pair(Values::default()).await;
    let routes = routes(&endpoint);
    for (index, length) in [(0, 0), (1, 1), (2, PIECE_BYTES + 1), (3, 9_000_000)] {
        let bytes: Bytes = (0..length).map(|at| at as u8).collect();
        let value = Put { task: task(index), assignment: AssignmentId(1), bytes: bytes.clone() };
        put(&routes, &contact, HOLDER, value).await.unwrap();
        let got = get(&routes, &contact, HOLDER, task(index), 0).await;
        assert!(got.unwrap().bytes() == &bytes, "value {index} of {length} bytes");
    }
    endpoint.close().await;
}

#[tokio::test]
async fn what_came_over_the_network_is_what_was_sent() {
    const LEAST: usize = FILLED_BESIDE_BYTES_MIN as usize;
    let (endpoint, contact, _serving) = pair_of(endpoints(false).await, Values::default());
    let routes = routes(&endpoint);
    for (index, length) in [(0, LEAST - 1), (1, LEAST), (2, 3 * LEAST + 5)] {
        let bytes: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
        let value = Put { task: task(index), assignment: AssignmentId(1), bytes: bytes.clone() };
        put(&routes, &contact, HOLDER, value).await.unwrap();
        let got = get(&routes, &contact, HOLDER, task(index), 0).await;
        assert!(got.unwrap().bytes() == &bytes, "value {index} of {length} bytes");
    }
    endpoint.close().await;
}

/// A holder who announces a large value and sends another number of bytes.
#[tokio::test]
async fn less_or_more_than_announced_is_no_value() {
    for (sent, more) in [(FILLED_BESIDE_BYTES_MIN - 1, 0), (0, 0), (FILLED_BESIDE_BYTES_MIN, 1)] {
        let (serving, asking, contact) = endpoints(false).await;
        let holding = tokio::spawn(async move {
            let Some(Incoming::Data { mut stream, .. }) = serving.accept().await else {
                panic!("no stream");
            };
            read_head::<DataRequest>(&mut stream).await.unwrap();
            let size = FILLED_BESIDE_BYTES_MIN;
            write_head(&mut stream, &DataReply::Follows { size }).await.unwrap();
            // Fails once the other side has had enough.
            let _ = stream.write_bytes(vec![7; (sent + more) as usize].into()).await;
            let _ = stream.finish().await;
            let _ = stream.read_u8().await;
        });
        let got = get(&routes(&asking), &contact, HOLDER, task(0), 0).await;
        match got {
            Err(DataError::Stream(error)) if more == 0 => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
            // What comes too late to be seen is left where it is.
            Err(DataError::Nonsense) | Ok(_) if more > 0 => {}
            other => panic!("{other:?}"),
        }
        holding.await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_there_or_refused_is_said_so() {
    let (endpoint, contact, _serving) = pair(Values::default()).await;
    let routes = routes(&endpoint);
    let missing = get(&routes, &contact, HOLDER, task(0), 0).await;
    assert!(matches!(missing, Err(DataError::NotHere)), "{missing:?}");
    let refused = get(&routes, &contact, HOLDER, task(0), 1).await;
    let Err(DataError::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert_eq!(reason.len(), REASON_BYTES_MAX);
    let unlike = get(&routes, &contact, ProcessId(99), task(0), 0).await;
    assert!(matches!(unlike, Err(DataError::Unreachable { .. })), "{unlike:?}");
    endpoint.close().await;
}

#[tokio::test]
async fn nonsense_and_huge_announcements_end_the_stream() {
    let (endpoint, contact, _serving) = pair(Values::default()).await;
    let to = target(&endpoint, &contact, HOLDER).unwrap();
    let huge = DataRequest::Put { task: task(0), assignment: AssignmentId(1), size: u64::MAX };
    let mut stream = endpoint.open_data(&to).await.unwrap();
    write_head(&mut stream, &huge).await.unwrap();
    let reply = read_head::<DataReply>(&mut stream).await;
    assert!(matches!(reply, Err(DataError::Stream(_))), "{reply:?}");

    let mut stream = endpoint.open_data(&to).await.unwrap();
    stream.write_bytes(vec![255; 64].into()).await.unwrap();
    let reply = read_head::<DataReply>(&mut stream).await;
    assert!(matches!(reply, Err(DataError::Stream(_))), "{reply:?}");

    let program = DataRequest::GetProgram { hash: rdask_core::id::ProgramHash([0; 32]) };
    let mut stream = endpoint.open_data(&to).await.unwrap();
    write_head(&mut stream, &program).await.unwrap();
    let reply = read_head::<DataReply>(&mut stream).await;
    assert!(matches!(reply, Ok(DataReply::Refused { .. })), "{reply:?}");
    endpoint.close().await;
}

/// Asks for a value of so many bytes that lies at `at`, of one who then does what `holder` says.
async fn take_from<F: Future<Output = ()> + Send + 'static>(
    at: MemoryArea,
    holder: impl FnOnce(DataStream) -> F + Send + 'static,
) -> (Result<Bulk, DataError>, tokio::task::JoinHandle<()>) {
    let (serving, asking, contact) = endpoints(true).await;
    let holding = tokio::spawn(async move {
        let Some(Incoming::Data { mut stream, .. }) = serving.accept().await else {
            panic!("no stream");
        };
        read_head::<DataRequest>(&mut stream).await.unwrap();
        write_head(&mut stream, &DataReply::Shown { at }).await.unwrap();
        holder(stream).await;
    });
    (get(&routes(&asking), &contact, HOLDER, task(0), 0).await, holding)
}

fn area(bytes: &[u8]) -> MemoryArea {
    MemoryArea { address: bytes.as_ptr() as u64, size: bytes.len() as u64 }
}

static SHOWN: [u8; 1000] = [7; 1000];

#[tokio::test]
async fn what_was_read_is_a_value_by_the_word_of_both() {
    let (got, holding) = take_from(area(&SHOWN), |mut stream| async move {
        assert_eq!(read_head::<DataWord>(&mut stream).await.unwrap(), DataWord::Read);
        write_head(&mut stream, &DataWord::Kept).await.unwrap();
    })
    .await;
    let (got, ()) = (got.unwrap(), holding.await.unwrap());
    assert_eq!(&got.bytes()[..], &SHOWN);
}

#[tokio::test]
async fn what_was_read_of_one_who_gave_up_is_none() {
    let (got, holding) = take_from(area(&SHOWN), |mut stream| async move {
        assert_eq!(read_head::<DataWord>(&mut stream).await.unwrap(), DataWord::Read);
        drop(stream);
    })
    .await;
    assert!(matches!(got, Err(DataError::Stream(_))), "{got:?}");
    holding.await.unwrap();
    for word in [DataWord::Read, DataWord::Unreadable] {
        let (got, holding) = take_from(area(&SHOWN), move |mut stream| async move {
            read_head::<DataWord>(&mut stream).await.unwrap();
            write_head(&mut stream, &word).await.unwrap();
        })
        .await;
        assert!(matches!(got, Err(DataError::Nonsense)), "{got:?}");
        holding.await.unwrap();
    }
}

#[tokio::test]
async fn what_lies_where_nothing_can_be_read_comes_on_the_stream() {
    for address in [0, 8, u64::MAX - 10, 1 << 60] {
        let at = MemoryArea { address, size: SHOWN.len() as u64 };
        let (got, holding) = take_from(at, |mut stream| async move {
            assert_eq!(read_head::<DataWord>(&mut stream).await.unwrap(), DataWord::Unreadable);
            write_value(&mut stream, Bytes::from_static(&SHOWN)).await.unwrap();
        })
        .await;
        assert_eq!(&got.unwrap().bytes()[..], &SHOWN, "at {address:x}");
        holding.await.unwrap();
    }
}

#[tokio::test]
async fn more_than_anybody_has_is_refused() {
    for size in [VALUE_BYTES_MAX + 1, u64::MAX] {
        let at = MemoryArea { address: 8, size };
        let (got, holding) = take_from(at, |_| async {}).await;
        assert!(matches!(got, Err(DataError::TooLong(_))), "{got:?}");
        holding.await.unwrap();
    }
}

#[tokio::test]
async fn who_can_not_read_what_was_shown_is_sent_it() {
    let bytes: Bytes = (0..700_000).map(|at| at as u8).collect();
    let values = Values::default();
    values.0.lock().unwrap().push((task(0), bytes.clone()));
    let (endpoint, contact, _serving) = pair(values).await;
    let routes = routes(&endpoint);
    let to = target(&endpoint, &contact, HOLDER).unwrap();
    let mut stream = endpoint.open_data(&to).await.unwrap();
    write_head(&mut stream, &DataRequest::Get { task: task(0), part: 0 }).await.unwrap();
    let reply = read_head(&mut stream).await.unwrap();
    assert!(matches!(reply, DataReply::Shown { at } if at.size == 700_000), "{reply:?}");
    write_head(&mut stream, &DataWord::Unreadable).await.unwrap();
    assert!(read_value(&mut stream, 700_000).await.unwrap().bytes() == &bytes);

    // What is put so is kept.
    let mut stream = endpoint.open_data(&to).await.unwrap();
    let at = MemoryArea { address: 0, size: 700_000 };
    let put = DataRequest::PutShown { task: task(1), assignment: AssignmentId(1), at };
    write_head(&mut stream, &put).await.unwrap();
    in_place::keep(&mut stream, bytes.clone()).await.unwrap();
    assert_eq!(read_head::<DataReply>(&mut stream).await.unwrap(), DataReply::Taken);
    let got = get(&routes, &contact, HOLDER, task(1), 0).await.unwrap();
    assert!(got.bytes() == &bytes);
    endpoint.close().await;
}
