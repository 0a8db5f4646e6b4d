//! What is taken is given back, and what is empty leaves nothing behind.

use crate::blob::Blob;
use crate::id::*;
use crate::message::*;
use crate::scheduler::{Action, ClientInfo, Config, NannyInfo, Scheduler};
use crate::time::Time;

const NOW: Time = Time(0);

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

/// A scheduler with a client and one worker, which has two GPUs, and its process.
fn cluster() -> (Scheduler, ClientId, ProcessId) {
    let mut scheduler = Scheduler::new(Config::default());
    let program = ProgramInfo { hash: ProgramHash([1; 32]), size: 1, path: "p".into() };
    let (surroundings, name) = (Surroundings::default(), "c".into());
    let info = ClientInfo { program, surroundings, name, nested_in: None };
    let client = scheduler.connect_client(NOW, info);
    let worker = WorkerInfo {
        name: "w".into(),
        slots: 4,
        memory_limit: 0,
        resources: vec![("GPU".into(), 2)],
    };
    let (node, pool) = ("n".into(), "p".into());
    scheduler
        .connect_nanny(NOW, NannyInfo { node, pool, workers: vec![worker], contact: contact() });
    let mut process = None;
    while let Some(action) = scheduler.poll_action() {
        if let Action::ToNanny(_, ToNanny::Launch(launch)) = action {
            process = Some(launch.process);
        }
    }
    let process = process.expect("a client's program is launched at once");
    scheduler.connect_process(NOW, process, contact()).expect("it is awaited");
    (scheduler, client, process)
}

fn actions(scheduler: &mut Scheduler) -> Vec<Action> {
    std::iter::from_fn(|| scheduler.poll_action()).collect()
}

#[test]
fn a_put_value_gives_back_no_resources_that_it_never_took() {
    let (mut scheduler, client, process) = cluster();
    let options = TaskOptions { resources: vec![("GPU".into(), 1)], ..TaskOptions::default() };
    let scatter = FromClient::Scatter { number: 0, sizes: vec![9], options };
    scheduler.handle_client(NOW, client, scatter);
    let put = actions(&mut scheduler).into_iter().find_map(|action| match action {
        Action::ToClient(_, ToClient::Put { task, assignment, .. }) => Some((task, assignment)),
        _ => None,
    });
    let (task, assignment) = put.expect("a process is chosen");
    let finished = Finished {
        assignment,
        array: task.array,
        range: crate::range::Range::one(0),
        busy_ns: 0,
        end: End::Stored(vec![9]),
    };
    let report = FromProcess::Report { number: 0, finished: vec![finished] };
    scheduler.handle_process(NOW, process, report);
    actions(&mut scheduler);
    let worker = scheduler.cluster.worker_of(process).expect("it is there");
    assert_eq!(worker.free["GPU"], 2);
}

#[test]
fn arrays_without_tasks_are_forgotten_at_once() {
    let (mut scheduler, client, _) = cluster();
    let options = TaskOptions::default();
    let messages = [
        FromClient::ScatterInline { number: 0, values: Blob::empty(0) },
        FromClient::Scatter { number: 1, sizes: Vec::new(), options },
    ];
    for message in messages {
        scheduler.handle_client(NOW, client, message);
        actions(&mut scheduler);
    }
    assert!(scheduler.groups.by_gid.is_empty());
}
