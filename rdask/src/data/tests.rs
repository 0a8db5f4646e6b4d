//! Both ends over real loopback sockets.

use std::sync::Mutex;

use rdask_core::id::{ArrayId, ClientId};
use rdask_net::{Authority, EndpointConfig, Incoming};

use super::*;

const RUN: &str = "r1";
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

/// A holder that serves for ever, and a client to ask it.
async fn pair(holder: Values) -> (Endpoint, Contact, tokio::task::JoinSet<()>) {
    let authority = Authority::new(RUN).unwrap();
    let name = PeerName::new(PeerRole::Process, u64::from(HOLDER.0), RUN).unwrap();
    let identity = authority.issue(&name).unwrap();
    let serving = Endpoint::bind(EndpointConfig::new(identity).on_loopback());
    let serving = serving.await.unwrap();
    let name = PeerName::new(PeerRole::Client, 1, RUN).unwrap();
    let identity = authority.issue(&name).unwrap();
    let asking = Endpoint::bind(EndpointConfig::dial_only(identity).on_loopback());
    let asking = asking.await.unwrap();
    let contact = Contact { quic: serving.addresses(), tls: serving.tls_addresses() };
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
    for (index, length) in [(0, 0), (1, 1), (2, PIECE_BYTES + 1), (3, 9_000_000)] {
        let bytes: Bytes = (0..length).map(|at| at as u8).collect();
        let value = Put { task: task(index), assignment: AssignmentId(1), bytes: bytes.clone() };
        put(&endpoint, &contact, HOLDER, value).await.unwrap();
        let got = get(&endpoint, &contact, HOLDER, task(index), 0).await;
        assert!(got.unwrap().bytes() == &bytes, "value {index} of {length} bytes");
    }
    endpoint.close().await;
}

#[tokio::test]
async fn what_is_not_there_or_refused_is_said_so() {
    let (endpoint, contact, _serving) = pair(Values::default()).await;
    let missing = get(&endpoint, &contact, HOLDER, task(0), 0).await;
    assert!(matches!(missing, Err(DataError::NotHere)), "{missing:?}");
    let refused = get(&endpoint, &contact, HOLDER, task(0), 1).await;
    let Err(DataError::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert_eq!(reason.len(), REASON_BYTES_MAX);
    let unlike = get(&endpoint, &contact, ProcessId(99), task(0), 0).await;
    assert!(matches!(unlike, Err(DataError::Dial(_))), "{unlike:?}");
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
