//! How long things live: processes of idle programs, and what cancelled runs have submitted.

use std::time::Duration;

use crate::id::{ArrayId, ClientId, FunctionKey, Peer, ProcessId, ProgramHash, TaskId};
use crate::message::{
    Contact, FromClient, Parent, ProgramInfo, Shape, Surroundings, TaskOptions, ToNanny, ToProcess,
    WorkerInfo,
};
use crate::range::Range;
use crate::scheduler::{Action, ClientInfo, Config, NannyInfo, PROGRAM_IDLE, Scheduler};
use crate::time::Time;

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

/// A scheduler with one worker of two slots.
fn scheduler() -> Scheduler {
    let mut scheduler = Scheduler::new(Config::default());
    let worker = WorkerInfo { name: "w".into(), slots: 2, memory_limit: 0, resources: Vec::new() };
    let info =
        NannyInfo { node: "n".into(), pool: "p".into(), workers: vec![worker], contact: contact() };
    scheduler.connect_nanny(Time(0), info);
    scheduler
}

fn connect(scheduler: &mut Scheduler, program: u8, nested_in: Option<ProcessId>) -> ClientId {
    let program = ProgramInfo { hash: ProgramHash([program; 32]), size: 1, path: "p".into() };
    let surroundings = Surroundings::default();
    let info = ClientInfo { program, surroundings, name: "client".into(), nested_in };
    scheduler.connect_client(Time(0), info)
}

fn actions(scheduler: &mut Scheduler) -> Vec<Action> {
    let actions = std::iter::from_fn(|| scheduler.poll_action()).collect();
    scheduler.check();
    actions
}

/// Carries out launches; the processes.
fn launch(scheduler: &mut Scheduler) -> Vec<ProcessId> {
    let mut launched = Vec::new();
    for action in actions(scheduler) {
        if let Action::ToNanny(_, ToNanny::Launch(launch)) = action {
            scheduler.connect_process(Time(0), launch.process, contact()).unwrap();
            launched.push(launch.process);
        }
    }
    launched
}

fn ended(actions: &[Action]) -> Vec<ProcessId> {
    let ended = actions.iter().filter_map(|action| match action {
        Action::ToProcess(process, ToProcess::Exit { .. }) => Some(*process),
        _ => None,
    });
    ended.collect()
}

#[test]
fn ten_programs_without_clients_are_ended_when_they_have_been_idle() {
    let mut scheduler = scheduler();
    let clients: Vec<ClientId> = (1..=10).map(|nth| connect(&mut scheduler, nth, None)).collect();
    let processes = launch(&mut scheduler);
    assert_eq!(processes.len(), 10);
    actions(&mut scheduler);
    let left = Time(0) + Duration::from_secs(1);
    for client in &clients[..9] {
        scheduler.handle_link_lost(left, Peer::Client(*client));
    }
    assert_eq!(ended(&actions(&mut scheduler)), []);
    let due = left + PROGRAM_IDLE;
    assert_eq!(scheduler.poll_timeout(), Some(due));
    scheduler.handle_timeout(Time(due.0 - 1));
    assert_eq!(ended(&actions(&mut scheduler)), []);
    scheduler.handle_timeout(due);
    assert_eq!(ended(&actions(&mut scheduler)), processes[..9]);
    // The tenth has a client.
    assert_eq!(scheduler.poll_timeout(), None);
}

#[test]
fn a_program_whose_client_comes_back_in_time_is_not_ended() {
    let mut scheduler = scheduler();
    let client = connect(&mut scheduler, 1, None);
    launch(&mut scheduler);
    actions(&mut scheduler);
    scheduler.handle_link_lost(Time(0), Peer::Client(client));
    actions(&mut scheduler);
    connect(&mut scheduler, 1, None);
    assert_eq!(launch(&mut scheduler), []);
    assert_eq!(scheduler.poll_timeout(), None);
    scheduler.handle_timeout(Time(0) + PROGRAM_IDLE);
    assert_eq!(ended(&actions(&mut scheduler)), []);
}

fn submit(scheduler: &mut Scheduler, from: ClientId, len: u32, parent: Option<Parent>) -> ArrayId {
    let options = TaskOptions::default();
    let shape = Shape { function: FunctionKey(1), name: "f".into(), params: Vec::new(), options };
    let array = FromClient::SubmitArray { number: 0, len, shape, parent };
    scheduler.handle_client(Time(0), from, array);
    ArrayId { client: from, number: 0 }
}

fn cancelled(actions: &[Action]) -> Vec<(ArrayId, Range)> {
    let cancelled = actions.iter().filter_map(|action| match action {
        Action::ToProcess(_, ToProcess::Cancel { array, range }) => Some((*array, *range)),
        _ => None,
    });
    cancelled.collect()
}

/// A task runs, and a client nested in its process; the array of the task.
fn with_parent(scheduler: &mut Scheduler) -> (ClientId, ClientId, ArrayId) {
    let client = connect(scheduler, 1, None);
    let [process] = launch(scheduler)[..] else { panic!("one process") };
    let array = submit(scheduler, client, 1, None);
    let nested = connect(scheduler, 1, Some(process));
    actions(scheduler);
    (client, nested, array)
}

#[test]
fn what_a_cancelled_run_submitted_is_cancelled_and_so_is_what_it_submits_later() {
    let mut scheduler = scheduler();
    let (client, nested, array) = with_parent(&mut scheduler);
    let parent = Parent { task: TaskId { array, index: 0 }, run: 1 };
    let children = submit(&mut scheduler, nested, 1, Some(parent));
    actions(&mut scheduler);
    let range = Range::one(0);
    scheduler.handle_client(Time(0), client, FromClient::Cancel { array, range });
    assert_eq!(cancelled(&actions(&mut scheduler)), [(array, range), (children, range)]);
    assert_eq!(scheduler.status().failed, 2);

    let options = TaskOptions::default();
    let shape = Shape { function: FunctionKey(1), name: "f".into(), params: Vec::new(), options };
    let late = FromClient::SubmitArray { number: 1, len: 5, shape, parent: Some(parent) };
    scheduler.handle_client(Time(0), nested, late);
    let assigned = actions(&mut scheduler);
    assert!(
        !assigned.iter().any(|one| matches!(one, Action::ToProcess(_, ToProcess::Assign(_)))),
        "{assigned:?}"
    );
    assert_eq!(scheduler.status().failed, 7);
}

#[test]
fn what_runs_of_other_tasks_submitted_goes_on() {
    let mut scheduler = scheduler();
    let (client, nested, array) = with_parent(&mut scheduler);
    let other = submit(&mut scheduler, nested, 1, None);
    actions(&mut scheduler);
    scheduler.handle_client(Time(0), client, FromClient::Cancel { array, range: Range::one(0) });
    let cancelled = cancelled(&actions(&mut scheduler));
    assert!(cancelled.iter().all(|(array, _)| *array != other), "{cancelled:?}");
}
