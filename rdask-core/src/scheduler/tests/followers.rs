//! Chains: what goes along to the process that makes its inputs.

use std::time::Duration;

use super::scenarios::{Stage, assigned, payload, shape};
use crate::blob::Blob;
use crate::failure::{Failure, FailureKind};
use crate::id::*;
use crate::message::*;
use crate::range::Range;
use crate::scheduler::Action;

/// A batch of tasks each of which takes what the one before gives.
fn chain(stage: &mut Stage, number: u32, len: u32) -> Vec<Action> {
    let array = ArrayId { client: stage.client, number };
    let edges = (0..len - 1).map(|index| Edge { task: TaskId { array, index }, part: 0 });
    let batch = Batch {
        shapes: vec![shape(vec![Param::Edges])],
        shape_of: vec![0; len as usize],
        payload: Blob::empty(len),
        edge_ends: (0..len).collect(),
        edges: edges.collect(),
    };
    stage.say(FromClient::SubmitBatch { number, batch, parent: None })
}

/// The scheduler knows that the function takes so long.
fn known(stage: &mut Stage, busy: Duration) {
    for number in 0..8 {
        for assign in assigned(&stage.array(number, 1, vec![Param::Inline])) {
            stage.finish(&assign, assign.range, End::Inline(payload(1)), busy);
        }
    }
}

fn ranges(actions: &[Action]) -> Vec<Range> {
    assigned(actions).iter().map(|assign| assign.range).collect()
}

#[test]
fn a_chain_of_unknown_tasks_goes_hop_by_hop() {
    let mut stage = Stage::new(2);
    assert_eq!(ranges(&chain(&mut stage, 10, 5)), [Range::one(0)]);
}

#[test]
fn as_much_of_a_chain_as_has_proved_short_goes_along() {
    let mut stage = Stage::new(2);
    known(&mut stage, Duration::from_micros(1));
    let given = assigned(&chain(&mut stage, 10, 100));
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].range, Range::new(0, 64), "eight times the eight that were measured");
    let Feed::Lists(lists) = &given[0].params[0] else { panic!("{:?}", given[0].params) };
    assert!(lists[0].is_empty());
    let why = |index| stage.scheduler.explain(TaskId { array: given[0].array, index }).why;
    assert!(matches!(why(0), Why::Assigned { missing: 0, fetched: 0, .. }));
    assert!(matches!(why(1), Why::Assigned { missing: 1, fetched: 0, .. }));
    assert!(lists[1..].iter().all(|list| matches!(list[..], [Source { place: Place::Here, .. }])));
    // The next part, as soon as this one is done.
    let range = given[0].range;
    let next = stage.finish(&given[0], range, End::Inline(payload(64)), Duration::from_micros(64));
    assert_eq!(ranges(&next), [Range::new(64, 100)]);
}

#[test]
fn what_follows_a_failed_task_fails_with_it_and_not_before_its_last_try() {
    let mut stage = Stage::new(1);
    known(&mut stage, Duration::from_micros(1));
    let given = assigned(&chain(&mut stage, 10, 4));
    assert_eq!(given[0].range, Range::new(0, 4));
    let task = |index| TaskId { array: given[0].array, index };
    let failure = Failure::of_scheduler(FailureKind::Panicked, "boom", task(1));
    stage.finish(&given[0], Range::one(0), End::Inline(payload(1)), Duration::ZERO);
    stage.finish(&given[0], Range::one(1), End::Failed(failure), Duration::ZERO);
    assert_eq!(stage.scheduler.status().failed, 1, "the others are still assigned");
    let given_back = vec![(given[0].assignment, Range::new(2, 4))];
    let missed =
        FromProcess::Missed { task: task(1), holder: stage.process, denied: true, given_back };
    stage.scheduler.handle_process(stage.now, stage.process, missed);
    stage.actions();
    assert_eq!(stage.scheduler.status().failed, 3);
}

#[test]
fn a_chain_that_is_lost_begins_again_where_it_was() {
    let mut stage = Stage::new(1);
    known(&mut stage, Duration::from_micros(1));
    let given = assigned(&chain(&mut stage, 10, 6));
    assert_eq!(given[0].range, Range::new(0, 6));
    stage.finish(&given[0], Range::new(0, 3), End::Inline(payload(3)), Duration::ZERO);
    stage.scheduler.handle_link_lost(stage.now, Peer::Process(stage.process));
    let launched = stage.actions().into_iter().find_map(|action| match action {
        Action::ToNanny(_, ToNanny::Launch(launch)) => Some(launch.process),
        _ => None,
    });
    stage.process = launched.expect("another process takes its place");
    let contact = Contact { quic: Vec::new(), tls: Vec::new() };
    stage.scheduler.connect_process(stage.now, stage.process, contact).unwrap();
    let again = assigned(&stage.actions());
    assert_eq!(again[0].range, Range::new(3, 6));
    assert_eq!(again[0].runs, [(Range::new(3, 6), 2)]);
}
