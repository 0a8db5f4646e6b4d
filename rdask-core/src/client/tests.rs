//! Scenarios: given these events, exactly these actions and no others.

use bytes::Bytes;

use super::*;
use crate::blob::{Blob, BlobBuilder};
use crate::failure::{Failure, FailureKind};
use crate::id::FunctionKey;
use crate::message::{
    BATCH_TASKS_MAX, CHUNK_BYTES_MAX, Edge, INLINE_ARGUMENT_BYTES_MAX, Outcome, Param, Shape,
    TaskOptions,
};

mod model;

const ID: ClientId = ClientId(7);
const HOLDER: ProcessId = ProcessId(3);

fn shape(params: Vec<Param>) -> Shape {
    Shape { function: FunctionKey(1), name: "f".into(), params, options: TaskOptions::default() }
}

fn array(number: u32) -> ArrayId {
    ArrayId { client: ID, number }
}

fn task(number: u32, index: u32) -> TaskId {
    TaskId { array: array(number), index }
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

fn bytes_of(index: u32) -> Vec<u8> {
    vec![index as u8; index as usize % 3 + 1]
}

fn values(range: Range) -> Blob {
    let mut builder = BlobBuilder::new();
    range.iter().for_each(|index| builder.push(&bytes_of(index)));
    builder.build()
}

fn held() -> Outcome {
    Outcome::Held { holder: HOLDER, contact: contact() }
}

fn failed() -> Outcome {
    let failure = Failure::of_scheduler(FailureKind::Panicked, "no", task(0, 0));
    Outcome::Failed(failure)
}

fn ended(array: ArrayId, range: Range, outcome: Outcome) -> ToClient {
    ToClient::Ended { array, range, outcome }
}

fn actions(client: &mut Client) -> Vec<Action> {
    std::iter::from_fn(|| client.poll_action()).collect()
}

fn sent(client: &mut Client) -> Vec<FromClient> {
    let message = |action| match action {
        Action::Send(message) => message,
        other => panic!("not a message: {other:?}"),
    };
    actions(client).into_iter().map(message).collect()
}

fn with_array(len: u32) -> (Client, ArrayId) {
    let mut client = Client::new(ID);
    let param =
        Param::Each { array: ArrayId { client: ClientId(1), number: 0 }, start: 0, part: 0 };
    let array = client.submit_array(len, shape(vec![param]), Vec::new(), None);
    assert_eq!(sent(&mut client).len(), 1);
    (client, array)
}

#[test]
fn consecutive_submits_leave_as_one_batch_after_a_millisecond() {
    let mut client = Client::new(ID);
    let first = client.submit(Time(5), shape(vec![Param::Inline]), b"a", &[], None);
    let edge = Edge { task: first, part: 0 };
    let second = client.submit(Time(6), shape(vec![Param::Edge]), b"", &[edge], None);
    let third = client.submit(Time(7), shape(vec![Param::Inline]), b"bc", &[], None);
    assert_eq!([first, second, third], [task(0, 0), task(0, 1), task(0, 2)]);
    assert_eq!(client.poll_action(), None);
    let at = client.poll_timeout().unwrap();
    assert_eq!(at, Time(1_000_005));
    client.handle_timeout(at);
    let [FromClient::SubmitBatch { number: 0, batch, .. }] = &sent(&mut client)[..] else {
        panic!("no batch");
    };
    assert_eq!(batch.shapes.len(), 2);
    assert_eq!(batch.shape_of, [0, 1, 0]);
    assert!(batch.payload.iter().eq([&b"a"[..], b"", b"bc"]));
    assert_eq!(batch.edge_ends, [0, 1, 1]);
    assert_eq!(batch.edges, [edge]);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn a_task_that_stands_in_another_queue_begins_another_batch() {
    let urgent = || {
        let options = TaskOptions { priority: 1, ..TaskOptions::default() };
        Shape { options, ..shape(vec![]) }
    };
    let named = || {
        let options = TaskOptions { name: Some("b".into()), ..TaskOptions::default() };
        Shape { options, ..shape(vec![]) }
    };
    let mut client = Client::new(ID);
    let shapes = [shape(vec![]), named(), urgent(), urgent(), shape(vec![])];
    let tasks = shapes.map(|shape| client.submit(Time(0), shape, b"", &[], None));
    assert_eq!(tasks, [task(0, 0), task(0, 1), task(1, 0), task(1, 1), task(2, 0)]);
    let at = client.poll_timeout().unwrap();
    client.handle_timeout(at);
    assert_eq!(sent(&mut client).len(), 3);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn a_full_batch_leaves_at_once() {
    let mut client = Client::new(ID);
    for _ in 0..BATCH_TASKS_MAX + 1 {
        client.submit(Time(0), shape(vec![]), b"", &[], None);
    }
    let [FromClient::SubmitBatch { batch, .. }] = &sent(&mut client)[..] else {
        panic!("no batch");
    };
    assert_eq!(batch.shape_of.len(), BATCH_TASKS_MAX as usize);
    let long = vec![0; CHUNK_BYTES_MAX];
    client.submit(Time(0), shape(vec![Param::Inline]), &long, &[], None);
    assert_eq!(sent(&mut client).len(), 1);
}

#[test]
fn numbers_rise_in_the_order_of_sending() {
    let mut client = Client::new(ID);
    let one = client.submit(Time(0), shape(vec![]), b"", &[], None);
    let param = Param::Each { array: one.array, start: 0, part: 0 };
    let many = client.submit_array(1, shape(vec![param]), Vec::new(), None);
    let small = client.scatter(vec![Bytes::from_static(b"x")], TaskOptions::default());
    assert_eq!([one.array, many, small], [array(0), array(1), array(2)]);
    let sent = sent(&mut client);
    assert!(matches!(sent[0], FromClient::SubmitBatch { number: 0, .. }));
    assert!(matches!(sent[1], FromClient::SubmitArray { number: 1, .. }));
    assert!(matches!(sent[2], FromClient::ScatterInline { number: 2, .. }));
    assert_eq!(sent.len(), 3);
}

#[test]
fn a_million_results_are_gathered_and_released_by_range() {
    let len = 1_000_000;
    let (mut client, array) = with_array(len);
    let all = Range::new(0, len);
    let waiter = client.wait_until_failure(&[(array, all)], Interest::Value);
    let want = FromClient::Want { array, range: all, values: true };
    assert_eq!(sent(&mut client), [want]);
    let mut builder = BlobBuilder::new();
    all.iter().for_each(|index| builder.push(&index.to_le_bytes()));
    let blob = builder.build();
    let step = 50_000;
    for start in (0..len).step_by(step as usize) {
        let range = Range::new(start, start + step);
        let outcome = Outcome::Values(blob.slice(range));
        client.handle_message(Time(1), ended(array, range, outcome));
    }
    let actions = actions(&mut client);
    let taken: u64 = actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(FromClient::Taken { bytes }) => Some(*bytes),
            _ => None,
        })
        .sum();
    assert_eq!(taken, 4 * u64::from(len));
    assert_eq!(actions.last(), Some(&Action::Complete(waiter)));
    let pieces = client.pieces(array, all);
    assert_eq!(pieces.len() as u32, len / step);
    client.stop_waiting(waiter);
    client.release(Time(2), array, all);
    client.flush();
    let ranges = vec![(array, all)];
    assert_eq!(sent(&mut client), [FromClient::Release { ranges }]);
    assert_eq!(client.pieces(array, all), [Piece::Absent(all)]);
}

#[test]
fn handles_count_and_releases_wait_for_company() {
    let (mut client, array) = with_array(10);
    client.retain(array, Range::new(3, 5));
    client.release(Time(0), array, Range::new(0, 10));
    client.release(Time(1), array, Range::one(3));
    assert_eq!(client.poll_action(), None);
    client.handle_timeout(client.poll_timeout().unwrap());
    let ranges = vec![(array, Range::new(0, 4)), (array, Range::new(5, 10))];
    assert_eq!(sent(&mut client), [FromClient::Release { ranges }]);
    client.release(Time(2), array, Range::one(4));
    client.flush();
    let ranges = vec![(array, Range::one(4))];
    assert_eq!(sent(&mut client), [FromClient::Release { ranges }]);
}

#[test]
fn a_held_value_is_fetched_and_goes_with_its_waiter() {
    let (mut client, array) = with_array(2);
    let range = Range::one(1);
    let waiter = client.wait(&[(array, range)], Interest::Value);
    sent(&mut client);
    client.handle_message(Time(0), ended(array, range, held()));
    let fetch = Action::Fetch { task: task(0, 1), holder: HOLDER, contact: contact() };
    assert_eq!(actions(&mut client), std::slice::from_ref(&fetch));
    client.handle_fetched(Time(1), task(0, 1), Bytes::from_static(b"long"));
    assert_eq!(actions(&mut client), [Action::Complete(waiter)]);
    let piece = Piece::Value(1, Bytes::from_static(b"long").into());
    assert_eq!(client.pieces(array, range), [piece]);
    client.stop_waiting(waiter);
    assert_eq!(client.pieces(array, range), [Piece::Absent(range)]);
    // Who asks again is served by the holder, without a word to the scheduler.
    client.wait(&[(array, range)], Interest::Value);
    assert_eq!(actions(&mut client), [fetch]);
}

#[test]
fn a_holder_that_fails_is_missed_and_another_one_awaited() {
    let (mut client, array) = with_array(1);
    let range = Range::one(0);
    let waiter = client.wait(&[(array, range)], Interest::Value);
    client.handle_message(Time(0), ended(array, range, held()));
    actions(&mut client);
    client.handle_fetch_failed(Time(1), task(0, 0), HOLDER, true);
    let missed = FromClient::Missed { task: task(0, 0), holder: HOLDER, denied: true };
    let want = FromClient::Want { array, range, values: true };
    assert_eq!(sent(&mut client), [missed, want]);
    let outcome = Outcome::Held { holder: ProcessId(9), contact: contact() };
    client.handle_message(Time(2), ended(array, range, outcome));
    let [Action::Fetch { holder: ProcessId(9), .. }] = actions(&mut client)[..] else {
        panic!("no fetch");
    };
    client.handle_fetched(Time(3), task(0, 0), Bytes::new());
    assert_eq!(actions(&mut client), [Action::Complete(waiter)]);
}

#[test]
fn nobody_waits_for_a_holder_that_is_gone() {
    let (mut client, array) = with_array(3);
    let all = Range::new(0, 3);
    client.wait(&[(array, all)], Interest::End);
    let waiter = client.wait(&[(array, Range::new(0, 2))], Interest::Value);
    client.handle_message(Time(0), ended(array, all, held()));
    actions(&mut client);
    client.handle_fetched(Time(0), task(0, 0), Bytes::new());
    client.handle_message(Time(1), ToClient::Gone { process: HOLDER });
    // The first has come, the third is of no interest, and has ended all the same.
    let want = FromClient::Want { array, range: Range::one(1), values: true };
    assert_eq!(sent(&mut client), [want]);
    assert_eq!(client.status(task(0, 2)), Some(TaskStatus::Finished));
    let holder = ProcessId(9);
    let outcome = Outcome::Held { holder, contact: contact() };
    client.handle_message(Time(2), ended(array, Range::one(1), outcome));
    let fetch = Action::Fetch { task: task(0, 1), holder, contact: contact() };
    assert_eq!(actions(&mut client), [fetch]);
    // The old one's silence says nothing of the new one.
    client.handle_fetch_failed(Time(3), task(0, 1), HOLDER, false);
    assert_eq!(actions(&mut client), []);
    client.handle_fetched(Time(4), task(0, 1), Bytes::new());
    assert_eq!(actions(&mut client), [Action::Complete(waiter)]);
    // Who comes later doesn't ask the dead one.
    client.wait(&[(array, Range::one(2))], Interest::Value);
    let want = FromClient::Want { array, range: Range::one(2), values: true };
    assert_eq!(sent(&mut client), [want]);
}

#[test]
fn fetches_are_few_at_a_time_and_each_value_comes_once() {
    let len = 3 * FETCHES_MAX as u32;
    let (mut client, array) = with_array(len);
    let all = Range::new(0, len);
    let waiter = client.wait(&[(array, all), (array, all)], Interest::Value);
    sent(&mut client);
    client.handle_message(Time(0), ended(array, all, held()));
    for index in all {
        let begun = actions(&mut client);
        let room = if index == 0 { FETCHES_MAX } else { 1 };
        let rest = (len - index) as usize;
        assert_eq!(begun.len(), if rest < FETCHES_MAX { 0 } else { room });
        client.handle_fetched(Time(1), task(0, index), Bytes::from(bytes_of(index)));
    }
    assert_eq!(actions(&mut client), [Action::Complete(waiter)]);
}

#[test]
fn the_first_failure_ends_a_gather() {
    let (mut client, array) = with_array(3);
    let all = Range::new(0, 3);
    let gather = client.wait_until_failure(&[(array, all)], Interest::Value);
    let wait = client.wait(&[(array, all)], Interest::End);
    sent(&mut client);
    client.handle_message(Time(0), ended(array, Range::one(1), failed()));
    assert_eq!(actions(&mut client), [Action::Complete(gather)]);
    assert!(!client.is_complete(wait));
    client.stop_waiting(gather);
    client.handle_message(Time(1), ended(array, Range::one(0), Outcome::Done));
    let late = Outcome::Values(values(Range::one(2)));
    client.handle_message(Time(1), ended(array, Range::one(2), late));
    assert_eq!(actions(&mut client), [Action::Complete(wait)]);
}

#[test]
fn each_range_is_reported_once_and_the_known_ones_first() {
    let (mut client, array) = with_array(6);
    let wait = client.wait(&[(array, Range::new(0, 2))], Interest::Small);
    let known = Range::new(0, 2);
    client.handle_message(Time(0), ended(array, known, Outcome::Values(values(known))));
    actions(&mut client);
    client.stop_waiting(wait);
    let waiter = client.wait_each(&[(array, Range::new(0, 6))], Interest::Small);
    let progress = |range| Action::Progress { waiter, array, range };
    let want = FromClient::Want { array, range: Range::new(2, 6), values: true };
    assert_eq!(actions(&mut client), [Action::Send(want), progress(known)]);
    client.handle_message(Time(1), ended(array, Range::new(3, 6), held()));
    assert_eq!(actions(&mut client), [progress(Range::new(3, 6))]);
    client.handle_message(Time(1), ended(array, Range::new(1, 6), failed()));
    assert_eq!(actions(&mut client), [progress(Range::one(2)), Action::Complete(waiter)]);
}

#[test]
fn a_scattered_value_is_kept_until_a_process_has_it() {
    let mut client = Client::new(ID);
    let value = Bytes::from(vec![1; INLINE_ARGUMENT_BYTES_MAX + 1]);
    let array = client.scatter(vec![value.clone()], TaskOptions::default());
    assert!(
        matches!(&sent(&mut client)[..], [FromClient::Scatter { sizes, .. }] if sizes[0] == 65537)
    );
    client.release(Time(0), array, Range::one(0));
    let put = |assignment| ToClient::Put {
        task: task(0, 0),
        assignment: AssignmentId(assignment),
        process: HOLDER,
        contact: contact(),
    };
    for assignment in 1..=2 {
        client.handle_message(Time(1), put(assignment));
        let [Action::Put { value: given, .. }] = &actions(&mut client)[..] else {
            panic!("no put");
        };
        assert_eq!(*given, value);
        client.handle_put_failed(Time(2), AssignmentId(assignment), "gone".into());
        let failed =
            FromClient::PutFailed { assignment: AssignmentId(assignment), message: "gone".into() };
        assert_eq!(sent(&mut client), [failed]);
    }
    client.handle_put(Time(3), task(0, 0));
    client.handle_message(Time(4), put(3));
    assert!(matches!(sent(&mut client)[..], [FromClient::PutGone { .. }]));
}

#[test]
fn a_task_that_failed_here_is_never_mentioned() {
    let mut client = Client::new(ID);
    let task = client.fail_here(FailureKind::Unrunnable, "bad argument", "f");
    let range = Range::one(task.index);
    let failure = client.failure_here(task).unwrap();
    assert_eq!(failure.origin, task);
    let next = client.fail_with(failure);
    assert_ne!(next, task);
    let waiter = client.wait(&[(task.array, range)], Interest::Value);
    assert_eq!(actions(&mut client), [Action::Complete(waiter)]);
    client.cancel(&[(task.array, range)]);
    client.stop_waiting(waiter);
    client.release(Time(0), task.array, range);
    client.flush();
    assert_eq!(client.poll_action(), None);
}

#[test]
fn late_and_bad_words_do_no_harm() {
    let (mut client, array) = with_array(4);
    let all = Range::new(0, 4);
    client.handle_message(Time(0), ended(array, all, Outcome::Values(values(Range::one(0)))));
    assert!(matches!(actions(&mut client)[..], [Action::Close(_)]));
    client.release(Time(0), array, all);
    client.handle_message(Time(1), ended(array, all, Outcome::Values(values(all))));
    client.handle_fetched(Time(1), task(0, 0), Bytes::new());
    client.handle_fetch_failed(Time(1), task(0, 0), HOLDER, true);
    client.flush();
    assert_eq!(sent(&mut client).len(), 1);
    assert_eq!(client.status(task(0, 0)), None);
}

#[test]
fn payload_is_cut_into_frames() {
    let len = 1000u64;
    let bytes = Bytes::from(vec![3; CHUNK_BYTES_MAX * 2]);
    let step = bytes.len() as u64 / len;
    let ends: Vec<u64> = (1..=len).map(|nth| nth * step).collect();
    let chunks = cut_payload(&bytes, 0, &ends).unwrap();
    assert_eq!(chunks.iter().map(Blob::count).sum::<u32>(), 1000);
    assert!(chunks.iter().all(|chunk| chunk.byte_len() <= CHUNK_BYTES_MAX));
    let tail = cut_payload(&bytes, ends[9], &ends[10..12]).unwrap();
    assert_eq!((tail.len(), tail[0].count()), (1, 2));
    assert!(cut_payload(&Bytes::new(), 0, &[1]).is_err());
    let empty = cut_payload(&Bytes::new(), 0, &[0; 3]).unwrap();
    assert_eq!(empty, [Blob::empty(3)]);
}

#[test]
fn what_is_dropped_and_attached_again_is_not_released() {
    let (mut client, array) = with_array(10);
    client.release(Time(0), array, Range::new(0, 10));
    let request = client.attach("some".into());
    client.release(Time(1), array, Range::new(0, 10));
    client.flush();
    assert!(matches!(sent(&mut client)[..], [FromClient::Attach { .. }]));
    let ranges = Some(vec![(array, Range::new(2, 4))]);
    client.handle_message(Time(2), ToClient::Attached { request, ranges: ranges.clone() });
    let expected = vec![(array, Range::new(0, 2)), (array, Range::new(4, 10))];
    assert_eq!(
        actions(&mut client),
        [
            Action::Send(FromClient::Release { ranges: expected }),
            Action::Attached { request, ranges },
        ]
    );
}

#[test]
fn what_was_detached_comes_back_with_handles() {
    let (mut client, array) = with_array(2);
    let request = client.attach("table".into());
    sent(&mut client);
    let other = ArrayId { client: ClientId(1), number: 4 };
    let ranges = Some(vec![(other, Range::new(0, 9)), (array, Range::one(1))]);
    let answer = ToClient::Attached { request, ranges: ranges.clone() };
    client.handle_message(Time(0), answer);
    assert_eq!(actions(&mut client), [Action::Attached { request, ranges }]);
    client.release(Time(1), other, Range::new(0, 9));
    client.release(Time(1), array, Range::new(0, 2));
    client.flush();
    let ranges = vec![(other, Range::new(0, 9)), (array, Range::one(0))];
    assert_eq!(sent(&mut client), [FromClient::Release { ranges }]);
}
