//! Pumps over a real link on loopback.

use rdask_core::message::ToNanny;
use rdask_net::{Authority, Incoming, PeerRole};

use super::*;

/// The scheduler's sending half and a nanny's receiving half, with what keeps them open.
async fn halves() -> (FrameSender, FrameReceiver, Vec<Box<dyn std::any::Any>>) {
    let authority = Authority::new("r1").unwrap();
    let scheduler = authority.issue(&PeerName::scheduler("r1").unwrap());
    let nanny = authority.issue(&PeerName::new(PeerRole::Nanny, 1, "r1").unwrap());
    let here = EndpointConfig::new(scheduler.unwrap()).on_loopback();
    let here = Endpoint::bind(here).await.unwrap();
    let there = EndpointConfig::dial_only(nanny.unwrap()).on_loopback();
    let there = Endpoint::bind(there).await.unwrap();
    let dialled = there.dial_control(&here.target()).await.unwrap();
    let (mut to_scheduler, from_scheduler) = dialled.split();
    // A link is accepted with its first frame.
    to_scheduler.send(&frame_of(b"hello")).await.unwrap();
    let Some(Incoming::Control(accepted)) = here.accept().await else {
        panic!("no link");
    };
    let (to_nanny, from_nanny) = accepted.split();
    let open: Vec<Box<dyn std::any::Any>> =
        vec![Box::new((here, there)), Box::new((to_scheduler, from_nanny))];
    (to_nanny, from_scheduler, open)
}

fn long(nonce: u64) -> ToNanny {
    ToNanny::Kill {
        process: rdask_core::id::ProcessId(u32::try_from(nonce).unwrap()),
        reason: "x".repeat(100_000),
    }
}

#[tokio::test]
async fn messages_arrive_in_order_then_the_reason() {
    let (sender, receiver, _open) = halves().await;
    let (outbox, queue) = outbox();
    let all: Vec<_> = (0..100).map(long).collect();
    for message in &all {
        outbox.send(message.clone()).unwrap();
    }
    outbox.close("enough").unwrap();
    let writer = tokio::spawn(write_messages(sender, queue));
    let mut reader = MessageReader::<ToNanny>::new(receiver);
    let mut read = Vec::new();
    let end = loop {
        match reader.next().await {
            Ok(messages) => read.extend(messages),
            Err(end) => break end,
        }
    };
    assert_eq!(end, ConnectionEnd::Closed("enough".into()));
    assert!(read == all, "{} of {} messages", read.len(), all.len());
    writer.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_read_keeps_nothing_once_it_is_aborted() {
    let (sender, mut receiver, _open) = halves().await;
    let (outbox, queue) = outbox();
    // Far more than any window: the writer stands still.
    for nonce in 0..1000 {
        outbox.send(long(nonce)).unwrap();
    }
    let writer = tokio::spawn(write_messages(sender, queue));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!writer.is_finished() && outbox.queued_bytes() > 0);
    outbox.abort("you do not read");
    tokio::time::timeout(Duration::from_secs(10), writer).await.expect("the writer ends").unwrap();
    assert_eq!(outbox.send(long(0)), Err(Ended));
    while let Ok(Some(_)) = receiver.recv().await {}
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_connection() {
    let (sender, mut receiver, _open) = halves().await;
    let (outbox, queue) = outbox();
    let reason = "x".repeat(2 << 20);
    outbox.send(ToNanny::Exit { reason }).unwrap();
    tokio::spawn(write_messages(sender, queue));
    let end = receiver.recv().await.unwrap_err().to_string();
    assert!(end.contains("too long"), "{end}");
}
