//! Lists that are too long for one message, and how many dependents a value remembers.

use std::time::Duration;

use crate::blob::{Blob, BlobBuilder};
use crate::id::*;
use crate::message::*;
use crate::process::{Action as Told, Process};
use crate::range::Range;
use crate::scheduler::Action;
use crate::time::Time;

use super::scenarios::{Stage, assigned, payload, shape};

const INPUTS: u32 = 50_000;

/// What fits a frame.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// A stage on which so many tasks of array 0 are done, each with a value of so many bytes.
fn stage_with_values(count: u32, value_bytes: usize) -> Stage {
    let mut stage = Stage::new(4);
    let mut given = assigned(&stage.array(0, count, vec![Param::Inline]));
    while let Some(assign) = given.pop() {
        let Assign { assignment, array, range, .. } = assign;
        let mut values = BlobBuilder::new();
        range.iter().for_each(|_| values.push(&[b'x'; 256][..value_bytes]));
        let end = End::Inline(values.build());
        let finished = vec![Finished { assignment, array, range, busy_ns: 1000, end }];
        let report = FromProcess::Report { number: 1, finished };
        stage.scheduler.handle_process(stage.now, stage.process, report);
        given.extend(assigned(&unchecked(&mut stage)));
    }
    stage
}

/// Counting all again takes too long for lists of this length.
fn unchecked(stage: &mut Stage) -> Vec<Action> {
    std::iter::from_fn(|| stage.scheduler.poll_action()).collect()
}

fn submit(stage: &mut Stage, inputs: u32) -> Vec<Action> {
    let batch = batch_on(stage.client, inputs);
    let message = FromClient::SubmitBatch { number: 1, batch, parent: None };
    stage.scheduler.handle_client(stage.now, stage.client, message);
    unchecked(stage)
}

/// A batch of one task on the tasks of array 0 below `inputs`.
fn batch_on(client: ClientId, inputs: u32) -> Batch {
    let array = ArrayId { client, number: 0 };
    let edge = |index| Edge { task: TaskId { array, index }, part: 0 };
    Batch {
        shapes: vec![shape(vec![Param::Edges])],
        shape_of: vec![0],
        payload: Blob::empty(1),
        edge_ends: vec![inputs],
        edges: (0..inputs).map(edge).collect(),
    }
}

/// The lists of all tasks that a process starts after these messages.
fn lists_started(stage: &Stage, actions: &[Action]) -> Vec<Vec<Source>> {
    let mut process = Process::new(stage.process, 4);
    for action in actions {
        let Action::ToProcess(_, message) = action else { continue };
        let bytes = postcard::to_allocvec(message).unwrap().len();
        assert!(bytes < FRAME_BYTES_MAX, "a message of {bytes} bytes");
        process.handle_message(Time(0), message.clone());
    }
    let started = std::iter::from_fn(|| process.poll_action()).filter_map(|action| match action {
        Told::StartChunk(start) => Some(start.assign.params.clone()),
        Told::Exit { reason } => panic!("{reason}"),
        _ => None,
    });
    let lists = started.flatten().flat_map(|feed| match feed {
        Feed::List(list) => vec![list],
        Feed::Lists(lists) => lists,
        other => panic!("{other:?}"),
    });
    lists.collect()
}

fn are_all_inputs(list: &[Source]) -> bool {
    list.len() == INPUTS as usize
        && (0..).zip(list).all(|(index, source)| {
            let value = Place::Inline(bytes::Bytes::from_static(b"x"));
            source.task.index == index && source.place == value
        })
}

#[test]
fn a_list_that_is_too_long_for_a_message_comes_in_parts_and_whole() {
    let mut stage = stage_with_values(INPUTS, 1);
    let actions = submit(&mut stage, INPUTS);
    let lists = lists_started(&stage, &actions);
    assert_eq!(lists.len(), 1);
    assert!(are_all_inputs(&lists[0]));
}

#[test]
fn tasks_that_share_such_a_list_all_get_it() {
    let mut stage = stage_with_values(INPUTS, 1);
    let array = ArrayId { client: stage.client, number: 0 };
    let shape = shape(vec![Param::All { array, range: Range::new(0, INPUTS) }]);
    let message = FromClient::SubmitArray { number: 1, len: 3, shape, parent: None };
    stage.scheduler.handle_client(stage.now, stage.client, message);
    let actions = unchecked(&mut stage);
    let tasks: u32 = assigned(&actions).iter().map(|assign| assign.range.len()).sum();
    assert_eq!(tasks, 3);
    let lists = lists_started(&stage, &actions);
    assert!(!lists.is_empty() && lists.iter().all(|list| are_all_inputs(list)));
}

#[test]
fn more_inputs_than_a_task_can_have_fail_it() {
    // Each costs at most 21 bytes, or 220.
    for (value_bytes, is_refused) in [(1, false), (200, true)] {
        let mut stage = stage_with_values(60_000, value_bytes);
        let actions = submit(&mut stage, 60_000);
        assert_eq!(assigned(&actions).is_empty(), is_refused);
        assert_eq!(stage.scheduler.status().failed, u64::from(is_refused));
    }
}

#[test]
fn sources_that_fit_no_list_end_the_process() {
    let stage = stage_with_values(1, 1);
    let mut process = Process::new(stage.process, 1);
    let sources = Vec::new();
    let assignment = AssignmentId(1);
    process.handle_message(Time(0), ToProcess::Sources { assignment, param: 7, sources });
    let mut stage = Stage::new(1);
    let mut assign = assigned(&stage.array(0, 1, vec![Param::Inline])).remove(0);
    assign.assignment = assignment;
    process.handle_message(Time(0), ToProcess::Assign(assign));
    let actions: Vec<Told> = std::iter::from_fn(|| process.poll_action()).collect();
    assert!(actions.iter().any(|action| matches!(action, Told::Exit { .. })), "{actions:?}");
}

#[test]
fn a_kept_value_forgets_the_tasks_that_took_it() {
    let mut stage = stage_with_values(1, 1);
    for number in 1..1000 {
        let batch = batch_on(stage.client, 1);
        let actions = stage.say(FromClient::SubmitBatch { number, batch, parent: None });
        let assign = assigned(&actions).remove(0);
        stage.finish(&assign, assign.range, End::Inline(payload(1)), Duration::from_micros(1));
        stage.say(FromClient::Release { ranges: vec![(assign.array, assign.range)] });
    }
    let remembered: usize =
        stage.scheduler.groups.by_gid.values().map(|group| group.edge_dependents.len()).sum();
    assert!(remembered < 10, "{remembered} edges");
}
