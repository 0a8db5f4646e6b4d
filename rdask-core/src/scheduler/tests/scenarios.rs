//! Given these facts, exactly these decisions.

use std::time::Duration;

use crate::blob::{Blob, BlobBuilder};
use crate::failure::FailureKind;
use crate::id::*;
use crate::message::*;
use crate::range::Range;
use crate::scheduler::{Action, ClientInfo, Config, NannyInfo, Scheduler};
use crate::time::Time;

/// A scheduler, a client, and one worker in which the client's program is at work.
pub(super) struct Stage {
    pub(super) scheduler: Scheduler,
    pub(super) now: Time,
    pub(super) client: ClientId,
    pub(super) process: ProcessId,
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

fn program(byte: u8) -> ClientInfo {
    ClientInfo {
        program: ProgramInfo { hash: ProgramHash([byte; 32]), size: 1, path: "p".into() },
        surroundings: Surroundings::default(),
        name: "scenario".into(),
        nested_in: None,
    }
}

pub(super) fn shape(params: Vec<Param>) -> Shape {
    let options = TaskOptions::default();
    Shape { function: FunctionKey(1), name: "f".into(), params, options }
}

pub(super) fn payload(count: u32) -> Blob {
    let mut blob = BlobBuilder::new();
    (0..count).for_each(|_| blob.push(b"x"));
    blob.build()
}

impl Stage {
    pub(super) fn new(slots: u32) -> Self {
        let mut scheduler = Scheduler::new(Config::default());
        let worker = WorkerInfo { name: "w".into(), slots, memory_limit: 0, resources: Vec::new() };
        let workers = vec![worker];
        let info = NannyInfo { node: "n".into(), pool: "p".into(), workers, contact: contact() };
        scheduler.connect_nanny(Time(0), info);
        let client = scheduler.connect_client(Time(0), program(1));
        let mut stage = Self { scheduler, now: Time(0), client, process: ProcessId(0) };
        let launched = stage.actions().into_iter().find_map(|action| match action {
            Action::ToNanny(_, ToNanny::Launch(launch)) => Some(launch.process),
            _ => None,
        });
        stage.process = launched.expect("a process is launched for a client's program");
        stage.scheduler.connect_process(Time(0), stage.process, contact()).unwrap();
        stage.actions();
        stage
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        let actions = std::iter::from_fn(|| self.scheduler.poll_action()).collect();
        self.scheduler.check();
        actions
    }

    pub(super) fn say(&mut self, message: FromClient) -> Vec<Action> {
        self.scheduler.handle_client(self.now, self.client, message);
        self.actions()
    }

    pub(super) fn array(&mut self, number: u32, len: u32, params: Vec<Param>) -> Vec<Action> {
        let has_payload = params.contains(&Param::Inline);
        let shape = shape(params);
        let mut actions = self.say(FromClient::SubmitArray { number, len, shape, parent: None });
        if has_payload {
            actions.extend(self.say(FromClient::Payload { number, payload: payload(len) }));
        }
        actions
    }

    pub(super) fn finish(
        &mut self,
        assign: &Assign,
        range: Range,
        end: End,
        busy: Duration,
    ) -> Vec<Action> {
        self.now.0 += 1_000_000;
        let busy_ns = busy.as_nanos() as u64;
        let (assignment, array) = (assign.assignment, assign.array);
        let finished = vec![Finished { assignment, array, range, busy_ns, end }];
        let report = FromProcess::Report { number: 1, finished };
        self.scheduler.handle_process(self.now, self.process, report);
        self.actions()
    }
}

pub(super) fn assigned(actions: &[Action]) -> Vec<Assign> {
    let assigns = actions.iter().filter_map(|action| match action {
        Action::ToProcess(_, ToProcess::Assign(assign)) => Some(assign.clone()),
        _ => None,
    });
    assigns.collect()
}

fn ids(client: ClientId, number: u32) -> ArrayId {
    ArrayId { client, number }
}

#[test]
fn tasks_of_unknown_duration_are_given_one_per_slot() {
    let mut stage = Stage::new(4);
    let given = assigned(&stage.array(0, 100, vec![Param::Inline]));
    let ranges: Vec<Range> = given.iter().map(|assign| assign.range).collect();
    assert_eq!(ranges, [Range::new(0, 4)]);
}

#[test]
fn short_tasks_are_given_ahead_and_long_ones_are_not() {
    for (busy, most) in [(Duration::from_micros(10), 1000), (Duration::from_secs(1), 0)] {
        let mut stage = Stage::new(2);
        let given = assigned(&stage.array(0, 1000, vec![Param::Inline]));
        let end = End::Inline(payload(2));
        let next = assigned(&stage.finish(&given[0], given[0].range, end, busy * 2));
        let count: u32 = next.iter().map(|assign| assign.range.len()).sum();
        assert!(count >= 2, "idle slots get work: {count}");
        assert!(count <= 2 + most, "{busy:?}: {count} ahead");
        assert!(most == 0 || count > 2, "{busy:?}: none ahead");
    }
}

#[test]
fn a_slot_has_a_run_ahead_whatever_the_last_ones_took() {
    let mut stage = Stage::new(1);
    let mut given = assigned(&stage.array(0, 1000, vec![Param::Inline]));
    // Heavy-tailed: a task of 200 ms among many of 5 ms. What is queued was estimated by means that
    // the next report changes.
    for round in 0..200 {
        let first = given.remove(0);
        let busy = Duration::from_millis(if round % 20 == 10 { 200 } else { 5 });
        let range = Range::one(first.range.start);
        given.extend(assigned(&stage.finish(&first, range, End::Inline(payload(1)), busy)));
        if first.range.len() > 1 {
            given.insert(0, Assign { range: Range::new(range.end, first.range.end), ..first });
        }
        let queued: u32 = given.iter().map(|assign| assign.range.len()).sum();
        assert!(queued >= 2, "only {queued} queued after {round} reports");
    }
}

#[test]
fn a_late_report_of_a_lost_process_changes_nothing() {
    let mut stage = Stage::new(2);
    let given = assigned(&stage.array(0, 2, vec![Param::Inline]));
    stage.scheduler.handle_link_lost(stage.now, Peer::Process(stage.process));
    stage.actions();
    let before = stage.scheduler.stale_count();
    let range = given[0].range;
    stage.finish(&given[0], range, End::Inline(payload(2)), Duration::ZERO);
    assert_eq!(stage.scheduler.stale_count(), before + 1);
    assert_eq!(stage.scheduler.status().done, 0);
}

#[test]
fn a_failed_task_fails_its_dependents_once_and_names_the_origin() {
    let mut stage = Stage::new(1);
    let given = assigned(&stage.array(0, 1, vec![Param::Inline]));
    let array = ids(stage.client, 0);
    stage.array(1, 1, vec![Param::Each { array, start: 0, part: 0 }]);
    let dependent = ids(stage.client, 1);
    stage.say(FromClient::Want { array: dependent, range: Range::one(0), values: true });
    let origin = TaskId { array, index: 0 };
    let failure = crate::failure::Failure::of_scheduler(FailureKind::Panicked, "boom", origin);
    let told = stage.finish(&given[0], Range::one(0), End::Failed(failure), Duration::ZERO);
    let failures: Vec<_> = told
        .iter()
        .filter_map(|action| match action {
            Action::ToClient(_, ToClient::Ended { array, outcome: Outcome::Failed(f), .. }) => {
                Some((*array, f.origin, f.message.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(failures, [(dependent, origin, "boom".to_owned())]);
}

#[test]
fn without_room_for_results_they_stay_with_the_process() {
    let mut stage = Stage::new(1);
    stage.scheduler = Scheduler::new(Config { result_bytes_max: 0, ..Config::default() });
    let worker = WorkerInfo { name: "w".into(), slots: 1, memory_limit: 0, resources: Vec::new() };
    let info =
        NannyInfo { node: "n".into(), pool: "p".into(), workers: vec![worker], contact: contact() };
    stage.scheduler.connect_nanny(Time(0), info);
    stage.client = stage.scheduler.connect_client(Time(0), program(1));
    let launched = stage.actions().into_iter().find_map(|action| match action {
        Action::ToNanny(_, ToNanny::Launch(launch)) => Some(launch.process),
        _ => None,
    });
    stage.scheduler.connect_process(Time(0), launched.unwrap(), contact()).unwrap();
    let given = assigned(&stage.array(0, 1, vec![Param::Inline]));
    assert_eq!(given[0].inline_max, 0);
}

#[test]
fn a_late_worker_steals_the_far_end_of_what_another_has_ahead() {
    let mut stage = Stage::new(1);
    let mut ahead = assigned(&stage.array(0, 2000, vec![Param::Inline]));
    // 100 us each: the process gets a window of them.
    while ahead.iter().map(|assign| assign.range.len()).sum::<u32>() < 40 {
        let first = ahead.remove(0);
        let count = first.range.len();
        let busy = Duration::from_micros(100) * count;
        let end = End::Inline(payload(count));
        ahead.extend(assigned(&stage.finish(&first, first.range, end, busy)));
    }
    let latest = ahead.pop().expect("the window has opened");
    // All that is left is with the first process; then another one comes.
    let array = latest.array;
    stage.say(FromClient::Cancel { array, range: Range::new(latest.range.end, 2000) });
    let worker = WorkerInfo { name: "late".into(), slots: 1, memory_limit: 0, resources: vec![] };
    let info =
        NannyInfo { node: "n".into(), pool: "p".into(), workers: vec![worker], contact: contact() };
    stage.scheduler.connect_nanny(stage.now, info);
    let late = stage.actions().into_iter().find_map(|action| match action {
        Action::ToNanny(_, ToNanny::Launch(launch)) => Some(launch.process),
        _ => None,
    });
    stage.scheduler.connect_process(stage.now, late.unwrap(), contact()).unwrap();
    let steals = |actions: Vec<Action>| -> Vec<(ProcessId, StealId, AssignmentId)> {
        let steals = actions.iter().filter_map(|action| match action {
            Action::ToProcess(victim, ToProcess::Steal { steal, assignment, .. }) => {
                Some((*victim, *steal, *assignment))
            }
            _ => None,
        });
        steals.collect()
    };
    let asked = steals(stage.actions());
    let [(victim, steal, assignment)] = asked[..] else { panic!("one steal: {asked:?}") };
    assert_eq!((victim, assignment), (stage.process, latest.assignment));
    // It has nothing to give: it isn't asked again until something changes.
    let gave_up = FromProcess::GaveUp { steal, assignment, ranges: Vec::new() };
    stage.scheduler.handle_process(stage.now, victim, gave_up);
    assert_eq!(steals(stage.actions()), []);
    let first = ahead.remove(0);
    let end = End::Inline(payload(first.range.len()));
    let next = steals(stage.finish(&first, first.range, end, Duration::from_micros(100)));
    assert_eq!(next.len(), 1, "it has reported: {next:?}");
}

/// Why the first tasks of an array aren't running.
fn why(stage: &Stage, number: u32, index: u32) -> Why {
    let array = ArrayId { client: stage.client, number };
    stage.scheduler.explain(TaskId { array, index }).why
}

#[test]
fn what_no_worker_has_is_told_of_each_worker() {
    let mut stage = Stage::new(2);
    let resources = vec![("GPU".to_owned(), 10_000)];
    let options = TaskOptions { resources, ..TaskOptions::default() };
    let shape = Shape { options: options.clone(), ..shape(vec![]) };
    stage.say(FromClient::SubmitArray { number: 0, len: 1, shape, parent: None });
    let lacks = vec![("w".to_owned(), Lack::Resource("GPU".into(), 0))];
    assert_eq!(why(&stage, 0, 0), Why::Unsuited { needs: options, count: 1, workers: lacks });
    stage.array(1, 1, vec![Param::Each { array: ids(stage.client, 0), start: 0, part: 0 }]);
    let input = TaskId { array: ids(stage.client, 0), index: 0 };
    let first = vec![(input, InputState::Ready)];
    assert_eq!(why(&stage, 1, 0), Why::Inputs { missing: 1, first });
}

#[test]
fn a_wide_task_holds_a_place_and_those_behind_it_say_so() {
    let mut stage = Stage::new(2);
    let given = assigned(&stage.array(0, 1, vec![Param::Inline]));
    let options = TaskOptions { threads: 2, priority: 1, ..TaskOptions::default() };
    let shape = Shape { options, ..shape(vec![]) };
    stage.say(FromClient::SubmitArray { number: 1, len: 1, shape, parent: None });
    let (processes, sharers, resource) = (1, 0, None);
    let no_room = Why::NoRoom { processes, ahead: 0, sharers, resource, threads: 2 };
    assert_eq!(why(&stage, 1, 0), no_room);
    stage.array(2, 3, vec![Param::Inline]);
    let wide = TaskId { array: ids(stage.client, 1), index: 0 };
    assert_eq!(why(&stage, 2, 1), Why::Behind { task: wide });
    let Why::Assigned { ahead: 0, slots: 2, moving: None, .. } = why(&stage, 0, 0) else {
        panic!("{:?}", why(&stage, 0, 0))
    };
    let end = End::Inline(payload(1));
    stage.finish(&given[0], given[0].range, end, Duration::from_millis(1));
    assert_eq!(why(&stage, 0, 0), Why::Done { holders: Vec::new() });
    assert!(matches!(why(&stage, 1, 0), Why::Assigned { .. }));
    assert_eq!(why(&stage, 3, 0), Why::Unknown);
}
