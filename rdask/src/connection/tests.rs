//! Sessions over real links on loopback.

use std::collections::VecDeque;

use rdask_core::id::ProcessId;
use rdask_core::message::{FromNanny, ToNanny};
use rdask_net::{Authority, Incoming, PeerRole, SILENCE_MAX, Transport};
use tokio::sync::mpsc;

use super::session::{Deliver, LinkEnd};
use super::*;

/// A scheduler's endpoint and a nanny's.
struct Ends {
    scheduler: Endpoint,
    nanny: Endpoint,
}

impl Ends {
    async fn new(transport: Transport) -> Self {
        let authority = Authority::new("r1").unwrap();
        let scheduler = authority.issue(&PeerName::scheduler("r1").unwrap());
        let nanny = authority.issue(&PeerName::new(PeerRole::Nanny, 1, "r1").unwrap());
        let scheduler = EndpointConfig::new(scheduler.unwrap()).on_loopback();
        let nanny = EndpointConfig::dial_only(nanny.unwrap()).on_loopback();
        Self {
            scheduler: Endpoint::bind(scheduler).await.unwrap(),
            nanny: Endpoint::bind(nanny.with_transport(transport)).await.unwrap(),
        }
    }

    /// The scheduler's side of a new link, and the nanny's.
    async fn link(&self) -> (Halves, Halves) {
        let dialled = self.nanny.dial_control(&self.scheduler.target()).await.unwrap();
        let is_quic = dialled.is_quic();
        let (mut sender, receiver) = dialled.split();
        // A link is accepted with its first frame.
        sender.send(&frame_of(b"hello")).await.unwrap();
        let nanny = Halves { sender, receiver, is_quic };
        let Some(Incoming::Control(accepted)) = self.scheduler.accept().await else {
            panic!("no link");
        };
        let (sender, mut receiver) = accepted.split();
        assert_eq!(receiver.recv().await.unwrap().as_deref(), Some(&b"hello"[..]));
        (Halves { sender, receiver, is_quic }, nanny)
    }
}

type Scheduler = Session<ToNanny, FromNanny>;
type Nanny = Session<FromNanny, ToNanny>;

/// Keeps all that arrives.
struct Kept<M>(Vec<M>);

impl<M: Send> Deliver<M> for Kept<M> {
    async fn deliver(&mut self, arrived: &mut VecDeque<M>) -> Option<u64> {
        // As a queue that is full now and then.
        tokio::task::yield_now().await;
        let count = arrived.len().div_ceil(2);
        self.0.extend(arrived.drain(..count));
        Some(count as u64)
    }
}

fn to_nanny(number: u32, length: usize) -> ToNanny {
    ToNanny::Kill { process: ProcessId(number), reason: "x".repeat(length) }
}

fn from_nanny(number: u32, length: usize) -> FromNanny {
    FromNanny::LaunchFailed { process: ProcessId(number), message: "x".repeat(length) }
}

#[tokio::test]
async fn messages_arrive_in_order_then_the_reason() {
    for transport in [Transport::Quic, Transport::Tls] {
        let ends = Ends::new(transport).await;
        let (here, there) = ends.link().await;
        let (outbox, queue) = outbox();
        let all: Vec<_> = (0..100).map(|number| to_nanny(number, 100_000)).collect();
        for message in &all {
            outbox.send(message.clone()).unwrap();
        }
        outbox.close("enough").unwrap();
        let (_nothing, silent) = super::outbox();
        let mut nanny = Nanny::new(silent);
        let mut scheduler = Scheduler::new(queue);
        let (mut to_scheduler, mut kept) = (Kept(Vec::new()), Kept(Vec::new()));
        let (written, end) =
            tokio::join!(scheduler.run(here, &mut to_scheduler), nanny.run(there, &mut kept));
        assert!(matches!(written, LinkEnd::Over(ConnectionEnd::Here)), "{written:?}");
        assert_eq!(end.into_connection_end(), ConnectionEnd::Closed("enough".into()));
        assert!(kept.0 == all, "{} of {} messages", kept.0.len(), all.len());
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_keeps_nothing_once_it_is_aborted() {
    let ends = Ends::new(Transport::Quic).await;
    let (here, mut there) = ends.link().await;
    let (outbox, queue) = outbox();
    // Far more than any window: the writer stands still.
    for number in 0..1000 {
        outbox.send(to_nanny(number, 100_000)).unwrap();
    }
    let writer = tokio::spawn(async move {
        Scheduler::new(queue).run(here, &mut Kept(Vec::new())).await;
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!writer.is_finished() && outbox.queued_bytes() > 0);
    outbox.abort("you do not read");
    tokio::time::timeout(Duration::from_secs(10), writer).await.expect("the writer ends").unwrap();
    assert_eq!(outbox.send(to_nanny(0, 0)), Err(Ended));
    while let Ok(Some(_)) = there.receiver.recv().await {}
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_connection() {
    let ends = Ends::new(Transport::Quic).await;
    let (here, mut there) = ends.link().await;
    let (outbox, queue) = outbox();
    outbox.send(to_nanny(0, 2 << 20)).unwrap();
    tokio::spawn(async move { Scheduler::new(queue).run(here, &mut Kept(Vec::new())).await });
    let end = there.receiver.recv().await.unwrap_err().to_string();
    assert!(end.contains("too long"), "{end}");
}

/// A small generator: the same links break at the same messages each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

#[tokio::test]
async fn whatever_link_breaks_each_message_arrives_once_and_in_order() {
    const MESSAGES: u32 = 400;
    let mut dice = Dice(7);
    let ends = [Ends::new(Transport::Quic).await, Ends::new(Transport::Tls).await];
    let (to_nannies, queue) = outbox();
    let mut scheduler = Scheduler::new(queue);
    let (to_scheduler, queue) = outbox();
    let mut nanny = Nanny::new(queue);
    let (mut at_scheduler, mut at_nanny) = (Kept(Vec::new()), Kept(Vec::new()));
    let (mut here, mut there) = (Vec::new(), Vec::new());
    let mut breaks = 0;
    while at_scheduler.0.len() < MESSAGES as usize || at_nanny.0.len() < MESSAGES as usize {
        while here.len() < MESSAGES as usize && dice.below(20) > 0 {
            let (number, length) = (here.len() as u32, dice.below(4000) as usize);
            here.push(to_nanny(number, length));
            to_nannies.send(to_nanny(number, length)).unwrap();
            there.push(from_nanny(number, length));
            to_scheduler.send(from_nanny(number, length)).unwrap();
        }
        // One side finds the link dead in the middle of something; the other one's goes with it.
        let (one, other) = ends[dice.below(2) as usize].link().await;
        let until = Duration::from_micros(dice.below(20_000));
        tokio::select! {
            end = scheduler.run(one, &mut at_scheduler) => panic!("{end:?}"),
            end = nanny.run(other, &mut at_nanny) => panic!("{end:?}"),
            () = tokio::time::sleep(until) => breaks += 1,
        }
        scheduler.rewind(nanny.received()).unwrap();
        nanny.rewind(scheduler.received()).unwrap();
    }
    assert!(at_nanny.0 == here && at_scheduler.0 == there, "not once, or not in order");
    assert!(breaks > 5, "only {breaks} links broke");
}

#[tokio::test]
async fn who_resumes_with_a_count_that_can_not_be_is_cut_off() {
    let (outbox, queue) = outbox();
    let mut scheduler = Scheduler::new(queue);
    outbox.send(to_nanny(1, 1)).unwrap();
    assert_eq!(scheduler.rewind(1), Err(ConnectionEnd::Garbled));
    assert_eq!(scheduler.rewind(0), Ok(()));
}

#[tokio::test]
async fn what_was_never_sent_can_not_be_acknowledged() {
    let ends = Ends::new(Transport::Quic).await;
    let (here, mut there) = ends.link().await;
    let (_outbox, queue) = outbox::<ToNanny>();
    let scheduler =
        tokio::spawn(async move { Scheduler::new(queue).run(here, &mut Kept(Vec::new())).await });
    there.sender.send(&frame_of(&[0xFF, 1, 0, 0, 0, 0, 0, 0, 0])).await.unwrap();
    let end = there.receiver.recv().await.unwrap_err().to_string();
    assert!(end.contains("never sent"), "{end}");
    drop(scheduler.await);
}

#[tokio::test]
async fn an_idle_link_stays_and_a_silent_one_breaks_over_either_transport() {
    let check = async |transport| {
        let ends = Ends::new(transport).await;
        // One that nobody reads or writes on the other side, and is still open.
        let (here, _silent) = ends.link().await;
        let (_outbox, queue) = outbox();
        let started = tokio::time::Instant::now();
        let end = Scheduler::new(queue).run(here, &mut Kept(Vec::new())).await;
        assert!(matches!(end, LinkEnd::Broken { silent: SILENCE_MAX, .. }), "{end:?}");
        assert!(started.elapsed() >= SILENCE_MAX);
    };
    let idle = async |transport| {
        let ends = Ends::new(transport).await;
        let (here, there) = ends.link().await;
        let ((_one, queue), (_other, other)) = (outbox(), outbox());
        let (mut scheduler, mut nanny) = (Scheduler::new(queue), Nanny::new(other));
        let (mut at_scheduler, mut at_nanny) = (Kept(Vec::new()), Kept(Vec::new()));
        tokio::select! {
            end = scheduler.run(here, &mut at_scheduler) => panic!("{end:?}"),
            end = nanny.run(there, &mut at_nanny) => panic!("{end:?}"),
            () = tokio::time::sleep(SILENCE_MAX + Duration::from_secs(1)) => {}
        }
    };
    // QUIC answers for a peer whose process lives.
    tokio::join!(check(Transport::Tls), idle(Transport::Tls), idle(Transport::Quic));
}

#[tokio::test]
async fn what_has_arrived_does_not_stay_with_its_sender() {
    let ends = Ends::new(Transport::Quic).await;
    let (here, there) = ends.link().await;
    let (outbox, queue) = outbox();
    let (_other, silent) = super::outbox();
    let (mut scheduler, mut nanny) = (Scheduler::new(queue), Nanny::new(silent));
    let (mut to_inbox, mut inbox) = mpsc::channel::<Result<ToNanny, ConnectionEnd>>(1024);
    let mut at_scheduler = Kept(Vec::new());
    let all = async {
        for number in 0..1000 {
            outbox.send(to_nanny(number, 1000)).unwrap();
            inbox.recv().await.unwrap().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    tokio::select! {
        end = scheduler.run(here, &mut at_scheduler) => panic!("{end:?}"),
        end = nanny.run(there, &mut to_inbox) => panic!("{end:?}"),
        () = all => {}
    }
    assert_eq!(scheduler.unacknowledged_bytes(), 0);
}
