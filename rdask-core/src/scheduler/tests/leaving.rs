//! Workers that leave, and values that stay: given these facts, exactly these decisions.

use std::time::Duration;

use crate::blob::BlobBuilder;
use crate::failure::{Failure, FailureKind};
use crate::id::*;
use crate::message::*;
use crate::range::Range;
use crate::scheduler::{Action, ClientInfo, Config, NannyInfo, RETURN_AWAITED, Scheduler};
use crate::time::Time;

const SECOND: u64 = 1_000_000_000;

/// A scheduler, a client, and nannies with one worker of one slot each, in pools of their own.
struct Stage {
    scheduler: Scheduler,
    now: Time,
    client: ClientId,
    reports: u64,
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

impl Stage {
    fn new() -> Self {
        let mut scheduler =
            Scheduler::new(Config { result_bytes_max: 1 << 30, ..Config::default() });
        let info = ClientInfo {
            program: ProgramInfo { hash: ProgramHash([1; 32]), size: 1, path: "p".into() },
            surroundings: Surroundings::default(),
            name: "scenario".into(),
            nested_in: None,
        };
        let client = scheduler.connect_client(Time(0), info);
        Self { scheduler, now: Time(0), client, reports: 0 }
    }

    /// A nanny with one worker, and the client's process in it.
    fn nanny(&mut self, pool: &str) -> (NannyId, ProcessId) {
        let name = format!("{pool}-0");
        let worker = WorkerInfo { name, slots: 1, memory_limit: 0, resources: Vec::new() };
        let (node, pool) = (pool.to_owned(), pool.to_owned());
        let info = NannyInfo { node, pool, workers: vec![worker], contact: contact() };
        let (nanny, _) = self.scheduler.connect_nanny(self.now, info);
        let launched = self.actions().into_iter().find_map(|action| match action {
            Action::ToNanny(_, ToNanny::Launch(launch)) => Some(launch.process),
            _ => None,
        });
        let process = launched.expect("a process is launched");
        self.scheduler.connect_process(self.now, process, contact()).unwrap();
        (nanny, process)
    }

    fn actions(&mut self) -> Vec<Action> {
        let actions = std::iter::from_fn(|| self.scheduler.poll_action()).collect();
        self.scheduler.check();
        actions
    }

    fn say(&mut self, message: FromClient) -> Vec<Action> {
        self.scheduler.handle_client(self.now, self.client, message);
        self.actions()
    }

    fn nanny_says(&mut self, nanny: NannyId, message: FromNanny) -> Vec<Action> {
        self.scheduler.handle_nanny(self.now, nanny, message);
        self.actions()
    }

    fn process_says(&mut self, process: ProcessId, message: FromProcess) -> Vec<Action> {
        self.scheduler.handle_process(self.now, process, message);
        self.actions()
    }

    fn lose(&mut self, peer: Peer) -> Vec<Action> {
        self.scheduler.handle_link_lost(self.now, peer);
        self.actions()
    }

    fn array(&mut self, number: u32, len: u32) -> Vec<Action> {
        self.array_with(number, len, TaskOptions::default())
    }

    fn array_with(&mut self, number: u32, len: u32, options: TaskOptions) -> Vec<Action> {
        let params = vec![Param::Inline];
        let shape = Shape { function: FunctionKey(1), name: "f".into(), params, options };
        let mut actions = self.say(FromClient::SubmitArray { number, len, shape, parent: None });
        let mut payload = BlobBuilder::new();
        (0..len).for_each(|_| payload.push(b"x"));
        actions.extend(self.say(FromClient::Payload { number, payload: payload.build() }));
        actions
    }

    fn finish(&mut self, at: ProcessId, assign: &Assign, end: End, busy_ns: u64) -> Vec<Action> {
        let (assignment, array, range) = (assign.assignment, assign.array, assign.range);
        self.report(at, Finished { assignment, array, range, busy_ns, end })
    }

    fn report(&mut self, at: ProcessId, finished: Finished) -> Vec<Action> {
        self.reports += 1;
        let report = FromProcess::Report { number: self.reports, finished: vec![finished] };
        self.process_says(at, report)
    }
}

fn assigned(actions: &[Action]) -> Vec<(ProcessId, Assign)> {
    let assigns = actions.iter().filter_map(|action| match action {
        Action::ToProcess(to, ToProcess::Assign(assign)) => Some((*to, assign.clone())),
        _ => None,
    });
    assigns.collect()
}

/// Who is told to acquire what from whom.
fn acquires(actions: &[Action]) -> Vec<(ProcessId, Range, ProcessId)> {
    let acquires = actions.iter().filter_map(|action| match action {
        Action::ToProcess(to, ToProcess::Acquire { range, holder, .. }) => {
            Some((*to, *range, *holder))
        }
        _ => None,
    });
    acquires.collect()
}

/// The nannies that are told to go.
fn exits(actions: &[Action]) -> Vec<NannyId> {
    let exits = actions.iter().filter_map(|action| match action {
        Action::ToNanny(nanny, ToNanny::Exit { .. }) => Some(*nanny),
        _ => None,
    });
    exits.collect()
}

fn inline() -> End {
    inline_of(Range::one(0))
}

fn inline_of(range: Range) -> End {
    let mut blob = BlobBuilder::new();
    range.iter().for_each(|_| blob.push(b"y"));
    End::Inline(blob.build())
}

fn stored(range: Range) -> End {
    End::Stored(vec![1 << 20; range.len() as usize])
}

#[test]
fn values_are_copied_in_as_few_commands_as_there_are_takers() {
    let mut stage = Stage::new();
    let (leaving, source) = stage.nanny("a");
    let mut tasks = assigned(&stage.array(0, 10));
    let mut done = 0;
    while done < 10 {
        let (at, assign) = tasks.remove(0);
        done += assign.range.len();
        tasks.extend(assigned(&stage.finish(at, &assign, stored(assign.range), SECOND)));
    }
    let ((_, one), (_, two)) = (stage.nanny("b"), stage.nanny("c"));
    stage.actions();
    let actions = stage.nanny_says(leaving, FromNanny::Leaving { reason: "notice".into() });
    let halves = [(one, Range::new(0, 5), source), (two, Range::new(5, 10), source)];
    assert_eq!(acquires(&actions), halves);
    assert_eq!(exits(&actions), []);
    // One of them can't get a value: the other one is asked.
    let array = ArrayId { client: stage.client, number: 0 };
    let tasks = |range: Range| {
        range.iter().map(|index| ValueId { task: TaskId { array, index }, part: 0 }).collect()
    };
    let holds = FromProcess::Holds { values: tasks(Range::new(0, 5)) };
    assert_eq!(exits(&stage.process_says(one, holds)), []);
    let holds = FromProcess::Holds { values: tasks(Range::new(5, 9)) };
    assert_eq!(exits(&stage.process_says(two, holds)), []);
    let failed = || FromProcess::NotAcquired { task: TaskId { array, index: 9 } };
    let actions = stage.process_says(two, failed());
    assert_eq!(exits(&actions), []);
    assert_eq!(acquires(&actions), [(one, Range::one(9), source)]);
    // If nobody gets it, it is left where it is, and nothing waits for it.
    let actions = stage.process_says(one, failed());
    assert_eq!((exits(&actions), acquires(&actions)), (vec![leaving], vec![]));
    // Only that one is made again.
    let again = assigned(&stage.lose(Peer::Nanny(leaving)));
    let ranges: Vec<Range> = again.iter().map(|(_, assign)| assign.range).collect();
    assert_eq!(ranges, [Range::one(9)]);
}

#[test]
fn without_another_worker_a_leaving_one_does_not_wait() {
    let mut stage = Stage::new();
    let (leaving, source) = stage.nanny("a");
    let (_, assign) = assigned(&stage.array(0, 1)).remove(0);
    stage.finish(source, &assign, stored(assign.range), SECOND);
    let actions = stage.nanny_says(leaving, FromNanny::Leaving { reason: "notice".into() });
    assert_eq!(exits(&actions), [leaving]);
}

#[test]
fn a_leaving_one_waits_for_who_is_only_silent_for_a_moment() {
    let mut stage = Stage::new();
    let (leaving, source) = stage.nanny("a");
    let (_, assign) = assigned(&stage.array(0, 1)).remove(0);
    stage.finish(source, &assign, stored(assign.range), SECOND);
    let (_, other) = stage.nanny("b");
    stage.actions();
    stage.scheduler.handle_link_broken(stage.now, Peer::Process(other), Duration::ZERO);
    let actions = stage.nanny_says(leaving, FromNanny::Leaving { reason: "notice".into() });
    assert_eq!((exits(&actions), acquires(&actions)), (vec![], vec![]));
    stage.scheduler.handle_link_resumed(stage.now, Peer::Process(other));
    assert_eq!(acquires(&stage.actions()), [(other, assign.range, source)]);
}

#[test]
fn a_lifetime_that_ends_before_the_job_does_leaves_time_for_everything() {
    let mut stage = Stage::new();
    let (nanny, _) = stage.nanny("a");
    let ends_in = |seconds, is_job| {
        let time = Duration::from_secs(seconds);
        FromNanny::EndsIn { time, is_job }
    };
    stage.nanny_says(nanny, ends_in(10, false));
    stage.nanny_says(nanny, ends_in(100, true));
    assert!(!stage.scheduler.cluster.nannies[&nanny].ends_with_job);
    stage.nanny_says(nanny, ends_in(5, true));
    assert!(stage.scheduler.cluster.nannies[&nanny].ends_with_job);
}

#[test]
fn a_task_that_is_made_again_may_fail_as_often_as_before() {
    let mut stage = Stage::new();
    let (_, first) = stage.nanny("a");
    let options = TaskOptions { retries: 1, ..TaskOptions::default() };
    let mut tasks = assigned(&stage.array_with(0, 1, options));
    let failed = || {
        let task = TaskId { array: ArrayId { client: ClientId(0), number: 0 }, index: 0 };
        End::Failed(Failure::of_scheduler(FailureKind::Panicked, "ouch", task))
    };
    tasks.extend(assigned(&stage.finish(first, &tasks[0].1.clone(), failed(), SECOND)));
    stage.finish(first, &tasks[1].1.clone(), stored(Range::one(0)), SECOND);
    let (_, second) = stage.nanny("b");
    stage.actions();
    let again = assigned(&stage.lose(Peer::Process(first)));
    assert_eq!(again[0].0, second);
    let last = assigned(&stage.finish(second, &again[0].1, failed(), SECOND));
    assert_eq!(last.len(), 1, "it is tried again");
}

#[test]
fn a_thief_that_may_take_nothing_of_one_victim_turns_to_the_next() {
    let mut stage = Stage::new();
    let (_, one) = stage.nanny("a");
    let (_, two) = stage.nanny("b");
    stage.actions();
    let only = |names: &[&str]| {
        let workers = names.iter().map(|name| (*name).to_owned()).collect();
        TaskOptions { workers, ..TaskOptions::default() }
    };
    // The one has more ahead than the other, all of which only it may run.
    for (number, at, names) in [(0, one, &["a-0"][..]), (1, two, &["b-0", "c-0"])] {
        let mut ahead = assigned(&stage.array_with(number, 4000, only(names)));
        let len = |ahead: &[(ProcessId, Assign)]| -> u32 {
            ahead.iter().map(|(_, assign)| assign.range.len()).sum()
        };
        while len(&ahead) < 60 {
            let (_, assign) = ahead.remove(0);
            let busy = 100_000 * u64::from(assign.range.len());
            ahead.extend(assigned(&stage.finish(at, &assign, inline_of(assign.range), busy)));
        }
        assert!(ahead.iter().all(|(to, _)| *to == at));
        let array = ArrayId { client: stage.client, number };
        let last = ahead.iter().map(|(_, assign)| assign.range.end).max();
        let range = Range::new(last.unwrap(), 4000);
        stage.say(FromClient::Cancel { array, range });
        let ends = if at == two { ahead.len() / 2 } else { 0 };
        for (_, assign) in ahead.drain(..ends) {
            let busy = 100_000 * u64::from(assign.range.len());
            stage.finish(at, &assign, inline_of(assign.range), busy);
        }
    }
    stage.nanny("c");
    let asked = stage.actions();
    let victims = asked.iter().filter_map(|action| match action {
        Action::ToProcess(victim, ToProcess::Steal { .. }) => Some(*victim),
        _ => None,
    });
    assert_eq!(victims.collect::<Vec<_>>(), [two]);
}

#[test]
fn unknown_workers_are_not_retired_and_known_ones_are_named() {
    let mut stage = Stage::new();
    let (nanny, _) = stage.nanny("a");
    stage.actions();
    let retire = |stage: &mut Stage, name: &str| {
        let names = vec!["a".to_owned(), name.to_owned()];
        stage.say(FromClient::Retire { request: 7, names, within: None })
    };
    let actions = retire(&mut stage, "b");
    let Some(Action::ToClient(_, ToClient::Retiring { request: 7, workers: Err(error) })) =
        actions.first()
    else {
        panic!("{actions:?}")
    };
    assert_eq!(error.to_string(), "no pool and no worker is called b; there are a, a-0");
    assert_eq!(exits(&actions), []);
    assert_eq!(exits(&retire(&mut stage, "a-0")), [nanny]);
}

#[test]
fn what_a_retired_worker_has_left_when_its_time_is_over_runs_again() {
    let mut stage = Stage::new();
    let (leaving, from) = stage.nanny("a");
    let (_, stays) = stage.nanny("b");
    stage.actions();
    let given = assigned(&stage.array(0, 2));
    assert_eq!(given.len(), 2);
    let (_, assign) = given.iter().find(|(at, _)| *at == from).unwrap();
    let index = assign.range.start;
    let within = Some(Duration::from_secs(60));
    stage.say(FromClient::Retire { request: 1, names: vec!["a".into()], within });
    // Who says less later means it, and who says nothing takes nothing back.
    let within = Some(Duration::from_secs(20));
    stage.say(FromClient::Retire { request: 2, names: vec!["a".into()], within });
    stage.say(FromClient::Retire { request: 3, names: vec!["a".into()], within: None });
    let workers: Vec<WorkerId> = stage.scheduler.cluster.workers.keys().copied().collect();
    let left = stage.scheduler.leftovers(&workers[..1]);
    let task = TaskId { array: assign.array, index };
    assert_eq!((left[0].runs, &left[0].first_runs[..]), (1, &[task][..]));
    assert_eq!(left[0].left, Some(Duration::from_secs(20)));
    assert_eq!(stage.scheduler.poll_timeout(), Some(Time(20 * SECOND)));
    stage.now = Time(20 * SECOND);
    stage.scheduler.handle_timeout(stage.now);
    assert_eq!(exits(&stage.actions()), [leaving]);
    assert_ne!(stage.scheduler.poll_timeout(), Some(Time(20 * SECOND)), "it would spin");
    stage.lose(Peer::Nanny(leaving));
    assert_eq!(stage.scheduler.leftovers(&workers[..1]), []);
    let (_, first) = given.iter().find(|(at, _)| *at == stays).unwrap();
    let again = assigned(&stage.finish(stays, first, inline(), 1));
    assert_eq!(again[0].1.range, Range::one(index));
    assert_eq!(again[0].1.runs, [(Range::one(index), 2)]);
}

#[test]
fn one_nanny_of_a_job_asks_when_it_ends_and_all_of_them_obey() {
    let asked = |actions: &[Action]| -> Vec<NannyId> {
        let asked = actions.iter().filter_map(|action| match action {
            Action::ToNanny(nanny, ToNanny::AskJobEnd) => Some(*nanny),
            _ => None,
        });
        asked.collect()
    };
    let mut stage = Stage::new();
    let nannies: Vec<NannyId> = (0..4).map(|_| stage.nanny("17").0).collect();
    stage.actions();
    let in_job = || FromNanny::InJob { job: "17".into() };
    assert_eq!(asked(&stage.nanny_says(nannies[0], in_job())), [nannies[0]]);
    assert_eq!(asked(&stage.nanny_says(nannies[1], in_job())), []);
    assert_eq!(asked(&stage.nanny_says(nannies[2], in_job())), []);
    // Who was asked is gone: the next one is.
    assert_eq!(asked(&stage.lose(Peer::Nanny(nannies[0]))), [nannies[1]]);
    let answer = FromNanny::JobEndsIn { time: Some(Duration::from_secs(100)) };
    stage.nanny_says(nannies[1], answer);
    assert_eq!(asked(&stage.nanny_says(nannies[3], in_job())), []);
    assert_eq!(stage.scheduler.poll_timeout(), Some(Time(100 * SECOND)));
    stage.now = Time(100 * SECOND);
    stage.scheduler.handle_timeout(stage.now);
    assert_eq!(exits(&stage.actions()), nannies[1..]);
}

#[test]
fn a_task_starts_where_it_can_end_in_time_or_else_anywhere() {
    let mut stage = Stage::new();
    let (short, here) = stage.nanny("short");
    let (_, assign) = assigned(&stage.array(0, 1)).remove(0);
    // It takes ten seconds.
    stage.finish(here, &assign, inline(), 10 * SECOND);
    stage.nanny_says(short, FromNanny::EndsIn { time: Duration::from_secs(5), is_job: true });
    let alone = assigned(&stage.array(1, 1));
    assert_eq!(alone.len(), 1, "it fits nowhere, so it starts anyway");
    stage.finish(here, &alone[0].1, inline(), 10 * SECOND);
    let (long, there) = stage.nanny("long");
    stage.actions();
    let given = assigned(&stage.array(2, 2));
    assert_eq!(given.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [there], "one slot, one task");
    let rest = assigned(&stage.lose(Peer::Nanny(long)));
    assert_eq!(rest.len(), 1, "it fits nowhere again");
    assert_eq!(rest[0].0, here);
}

#[test]
fn a_scattered_value_is_not_lost_while_a_copy_may_have_arrived() {
    let mut stage = Stage::new();
    let (_, first) = stage.nanny("a");
    stage.actions();
    let options = TaskOptions { replicas: 2, ..TaskOptions::default() };
    let actions = stage.say(FromClient::Scatter { number: 0, sizes: vec![1 << 20; 2], options });
    let puts = actions.iter().filter_map(|action| match action {
        Action::ToClient(_, ToClient::Put { task, assignment, .. }) => Some((*task, *assignment)),
        _ => None,
    });
    for (task, assignment) in puts.collect::<Vec<_>>() {
        let (array, range, end) = (task.array, Range::one(task.index), End::Stored(vec![1 << 20]));
        stage.report(first, Finished { assignment, array, range, busy_ns: 0, end });
    }
    let (_, second) = stage.nanny("b");
    assert_eq!(acquires(&stage.actions()).len(), 2);
    stage.lose(Peer::Process(first));
    let array = ArrayId { client: stage.client, number: 0 };
    let why = |stage: &Stage, index| stage.scheduler.explain(TaskId { array, index }).why;
    assert!(matches!(why(&stage, 0), Why::Away { .. }));
    // One has arrived before that, and one has not.
    let value = ValueId { task: TaskId { array, index: 0 }, part: 0 };
    stage.process_says(second, FromProcess::Holds { values: vec![value] });
    assert_eq!(why(&stage, 0), Why::Done { holders: vec![second] });
    let failed = FromProcess::NotAcquired { task: TaskId { array, index: 1 } };
    stage.process_says(second, failed);
    stage.now = stage.now + RETURN_AWAITED;
    stage.scheduler.handle_timeout(stage.now);
    stage.actions();
    assert!(matches!(why(&stage, 1), Why::Failed(_)));
}

#[test]
fn who_waits_for_a_worker_that_lives_longer_is_told_so() {
    let mut stage = Stage::new();
    let (short, here) = stage.nanny("short");
    let (_, assign) = assigned(&stage.array(0, 1)).remove(0);
    stage.finish(here, &assign, inline(), 10 * SECOND);
    stage.nanny_says(short, FromNanny::EndsIn { time: Duration::from_secs(5), is_job: true });
    let worker =
        WorkerInfo { name: "long-0".into(), slots: 1, memory_limit: 0, resources: Vec::new() };
    let (node, pool) = ("long".to_owned(), "long".to_owned());
    let info = NannyInfo { node, pool, workers: vec![worker], contact: contact() };
    stage.scheduler.connect_nanny(stage.now, info);
    stage.actions();
    assert_eq!(assigned(&stage.array(1, 1)), []);
    let task = TaskId { array: ArrayId { client: stage.client, number: 1 }, index: 0 };
    let Why::Program { count: 2, workers } = stage.scheduler.explain(task).why else { panic!() };
    let sooner = ProgramState::EndsSooner(Duration::from_secs(5));
    let starting = ProgramState::Starting;
    assert_eq!(workers, [("short-0".into(), sooner), ("long-0".into(), starting)]);
}

#[test]
fn a_nanny_that_wants_a_program_again_gets_it_and_takes_nobodys_place() {
    let mut stage = Stage::new();
    let hash = ProgramHash([1; 32]);
    stage.scheduler.handle_program_stored(stage.now, hash);
    let fetches = |actions: &[Action]| -> Vec<NannyId> {
        let told = actions.iter().filter_map(|action| match action {
            Action::ToNanny(nanny, ToNanny::FetchProgram { from: None, .. }) => Some(*nanny),
            _ => None,
        });
        told.collect()
    };
    let nannies: Vec<NannyId> = (0..4).map(|_| stage.nanny("p").0).collect();
    stage.actions();
    // Each fetch is given up without a word, and the program wanted for the next launch.
    for _ in 0..5 {
        for nanny in &nannies {
            let actions = stage.nanny_says(*nanny, FromNanny::WantProgram { hash });
            assert_eq!(fetches(&actions), [*nanny]);
        }
    }
    let (last, _) = stage.nanny("p");
    assert_eq!(fetches(&stage.nanny_says(last, FromNanny::WantProgram { hash })), []);
    let actions = stage.nanny_says(nannies[0], FromNanny::HasProgram { hash });
    assert!(actions.iter().any(|action| {
        matches!(action, Action::ToNanny(to, ToNanny::FetchProgram { .. }) if *to == last)
    }));
}

#[test]
fn a_task_whose_inputs_are_fetched_says_so() {
    let mut stage = Stage::new();
    let (_, first) = stage.nanny("a");
    let (at, assign) = assigned(&stage.array(0, 1)).remove(0);
    assert_eq!(at, first);
    stage.finish(first, &assign, stored(assign.range), 1);
    // The only place for a task that takes the value is another worker.
    let (_, second) = stage.nanny("b");
    let options = TaskOptions { pools: vec!["b".into()], ..TaskOptions::default() };
    let input = TaskId { array: assign.array, index: 0 };
    let params = vec![Param::One { task: input, part: 0 }];
    let shape = Shape { function: FunctionKey(2), name: "g".into(), params, options };
    let given =
        assigned(&stage.say(FromClient::SubmitArray { number: 1, len: 1, shape, parent: None }));
    assert_eq!(given[0].0, second);
    let task = TaskId { array: given[0].1.array, index: 0 };
    let is_fetching = |stage: &Stage| match stage.scheduler.explain(task).why {
        Why::Assigned { missing: 0, fetched, .. } => fetched > 0,
        why => panic!("{why:?}"),
    };
    assert!(is_fetching(&stage));
    let values = vec![ValueId { task: input, part: 0 }];
    stage.process_says(second, FromProcess::Holds { values });
    assert!(!is_fetching(&stage));
}

#[test]
fn a_scattered_value_with_two_copies_survives_one_holder_and_gets_another() {
    let mut stage = Stage::new();
    let (_, first) = stage.nanny("a");
    let (_, second) = stage.nanny("b");
    stage.actions();
    let options = TaskOptions { replicas: 2, ..TaskOptions::default() };
    let actions = stage.say(FromClient::Scatter { number: 0, sizes: vec![1 << 20], options });
    let put = actions.iter().find_map(|action| match action {
        Action::ToClient(_, ToClient::Put { assignment, process, .. }) => {
            Some((*assignment, *process))
        }
        _ => None,
    });
    let (assignment, holder) = put.unwrap();
    assert_eq!(holder, first);
    let (array, range) = (ArrayId { client: stage.client, number: 0 }, Range::one(0));
    let end = End::Stored(vec![1 << 20]);
    let actions = stage.report(holder, Finished { assignment, array, range, busy_ns: 0, end });
    assert_eq!(acquires(&actions), [(second, range, first)]);
    let holds =
        FromProcess::Holds { values: vec![ValueId { task: TaskId { array, index: 0 }, part: 0 }] };
    assert_eq!(acquires(&stage.process_says(second, holds.clone())), []);
    // Its holder dies: the copy takes the place, and the next worker gets one.
    assert_eq!(acquires(&stage.lose(Peer::Process(first))), []);
    let (_, third) = stage.nanny("c");
    let given = acquires(&stage.actions());
    assert_eq!(given, [(third, range, second)]);
    stage.process_says(third, holds);
    stage.lose(Peer::Process(second));
    let failed = stage.say(FromClient::Want { array, range, values: true });
    let is_there = |action: &Action| matches!(action, Action::ToClient(_, ToClient::Ended { outcome: Outcome::Held { holder, .. }, .. }) if *holder == third);
    assert!(failed.iter().any(is_there), "{failed:?}");
}

#[test]
fn a_value_that_a_dead_client_was_to_put_keeps_no_worker_from_leaving() {
    let mut stage = Stage::new();
    let (leaving, _) = stage.nanny("a");
    stage.actions();
    let options = TaskOptions::default();
    let actions = stage.say(FromClient::Scatter { number: 0, sizes: vec![1 << 20], options });
    let is_put = |action: &Action| matches!(action, Action::ToClient(_, ToClient::Put { .. }));
    assert!(actions.iter().any(is_put), "{actions:?}");
    stage.lose(Peer::Client(stage.client));
    let actions = stage.nanny_says(leaving, FromNanny::Leaving { reason: "notice".into() });
    assert_eq!(exits(&actions), [leaving]);
}

#[test]
fn what_cannot_be_copied_off_a_retired_worker_is_made_again_at_once() {
    let mut stage = Stage::new();
    let worker = |name: &str| WorkerInfo {
        name: name.into(),
        slots: 1,
        memory_limit: 0,
        resources: Vec::new(),
    };
    let (node, pool) = ("a".to_owned(), "a".to_owned());
    let workers = vec![worker("a-0"), worker("a-1")];
    let info = NannyInfo { node, pool, workers, contact: contact() };
    let (_, ids) = stage.scheduler.connect_nanny(stage.now, info);
    let launches: Vec<Launch> = stage
        .actions()
        .into_iter()
        .filter_map(|action| match action {
            Action::ToNanny(_, ToNanny::Launch(launch)) => Some(launch),
            _ => None,
        })
        .collect();
    for launch in &launches {
        stage.scheduler.connect_process(stage.now, launch.process, contact()).unwrap();
    }
    let (source, assign) = assigned(&stage.array(0, 1)).remove(0);
    stage.finish(source, &assign, stored(assign.range), SECOND);
    let home = launches.iter().find(|launch| launch.process == source).unwrap().worker;
    let other = launches.iter().find(|launch| launch.process != source).unwrap().process;
    let names = vec![if home == ids[0] { "a-0".to_owned() } else { "a-1".to_owned() }];
    let actions = stage.say(FromClient::Retire { request: 0, names, within: None });
    assert_eq!(acquires(&actions), [(other, assign.range, source)]);
    let task = TaskId { array: assign.array, index: 0 };
    let actions = stage.process_says(other, FromProcess::NotAcquired { task });
    let again: Vec<ProcessId> = assigned(&actions).iter().map(|(to, _)| *to).collect();
    assert_eq!(again, [other]);
}

#[test]
fn a_scattered_value_that_was_put_twice_has_two_holders() {
    let mut stage = Stage::new();
    let (_, first) = stage.nanny("a");
    // It has something to do, so that another one is rather given values.
    stage.array(0, 1);
    let put = |actions: &[Action]| {
        let put = actions.iter().find_map(|action| match action {
            Action::ToClient(_, ToClient::Put { assignment, process, .. }) => {
                Some((*assignment, *process))
            }
            _ => None,
        });
        put.expect("it is put somewhere")
    };
    let options = TaskOptions::default();
    let (lost, holder) =
        put(&stage.say(FromClient::Scatter { number: 1, sizes: vec![8], options }));
    assert_eq!(holder, first);
    // The client never hears that it was taken, and puts it elsewhere.
    let (_, second) = stage.nanny("b");
    stage.actions();
    let message = "no answer".to_owned();
    let (assignment, holder) = put(&stage.say(FromClient::PutFailed { assignment: lost, message }));
    assert_eq!(holder, second);
    let (array, range) = (ArrayId { client: stage.client, number: 1 }, Range::one(0));
    let end = || End::Stored(vec![8]);
    stage.report(second, Finished { assignment, array, range, busy_ns: 0, end: end() });
    let late = Finished { assignment: lost, array, range, busy_ns: 0, end: end() };
    let actions = stage.report(first, late);
    let is_drop = |action: &Action| matches!(action, Action::ToProcess(_, ToProcess::Drop { .. }));
    assert!(!actions.iter().any(is_drop), "{actions:?}");
    stage.lose(Peer::Process(second));
    let told = stage.say(FromClient::Want { array, range, values: true });
    let is_there = |action: &Action| matches!(action, Action::ToClient(_, ToClient::Ended { outcome: Outcome::Held { holder, .. }, .. }) if *holder == first);
    assert!(told.iter().any(is_there), "{told:?}");
}

/// A process that has a value of so many bytes and runs another task, and one without anything. The
/// first one leaves, and the second one is told to acquire the value. Returns them and the task.
fn leaves_with(stage: &mut Stage, size: u64) -> ([ProcessId; 2], Assign) {
    let (nanny, first) = stage.nanny("a");
    let given = assigned(&stage.array(0, 2)).remove(0).1;
    let actions = stage.finish(first, &given, End::Stored(vec![size]), 10 * SECOND);
    let given = assigned(&actions).remove(0).1;
    let (_, second) = stage.nanny("b");
    stage.actions();
    let actions = stage.nanny_says(nanny, FromNanny::Leaving { reason: "notice".into() });
    assert_eq!(acquires(&actions), [(second, Range::one(0), first)]);
    ([first, second], given)
}

#[test]
fn who_could_not_get_one_value_is_told_to_get_the_next() {
    let mut stage = Stage::new();
    let ([first, second], given) = leaves_with(&mut stage, 1 << 20);
    let task = TaskId { array: given.array, index: 0 };
    assert_eq!(acquires(&stage.process_says(second, FromProcess::NotAcquired { task })), []);
    let actions = stage.finish(first, &given, stored(given.range), SECOND);
    assert_eq!(acquires(&actions), [(second, Range::one(1), first)]);
}

#[test]
fn a_copy_that_was_not_made_leaves_room_for_others() {
    let mut stage = Stage::new();
    // Of these two only one can be copied before a process ends whose time is short.
    let ([first, second], given) = leaves_with(&mut stage, 900 << 20);
    let task = TaskId { array: given.array, index: 0 };
    stage.process_says(second, FromProcess::NotAcquired { task });
    let actions = stage.finish(first, &given, End::Stored(vec![900 << 20]), SECOND);
    assert_eq!(acquires(&actions), [(second, Range::one(1), first)]);
}
