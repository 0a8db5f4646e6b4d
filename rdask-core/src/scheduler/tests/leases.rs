//! Who is given up when: broken links, and times when the scheduler stood still.

use std::time::Duration;

use crate::id::*;
use crate::message::*;
use crate::range::Range;
use crate::scheduler::{
    Action, CLIENT_GRACE, ClientInfo, Config, NannyInfo, SILENCE_FENCED, Scheduler,
};
use crate::time::Time;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

/// A client, and two nannies with a process each.
pub(super) struct Stage {
    pub(super) scheduler: Scheduler,
    pub(super) client: ClientId,
    pub(super) nannies: Vec<NannyId>,
    pub(super) processes: Vec<ProcessId>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let mut scheduler =
            Scheduler::new(Config { result_bytes_max: 1 << 30, ..Config::default() });
        let nannies = (0..2).map(|_| join(&mut scheduler, Time(0))).collect();
        let program = ProgramInfo { hash: ProgramHash([1; 32]), size: 1, path: "p".into() };
        let surroundings = Surroundings::default();
        let info = ClientInfo { program, surroundings, name: "c".into(), nested_in: None };
        let client = scheduler.connect_client(Time(0), info);
        let mut stage = Self { scheduler, client, nannies, processes: Vec::new() };
        stage.processes = stage.launch();
        stage.actions();
        stage
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        let actions = std::iter::from_fn(|| self.scheduler.poll_action()).collect();
        self.scheduler.check();
        actions
    }

    fn launch(&mut self) -> Vec<ProcessId> {
        let launched: Vec<ProcessId> = launched(&self.actions());
        for process in &launched {
            let now = self.scheduler.now;
            self.scheduler.connect_process(now, *process, contact()).unwrap();
        }
        launched
    }

    /// An array of tasks that need no arguments.
    pub(super) fn submit(&mut self, len: u32) -> Vec<Action> {
        let options = TaskOptions::default();
        let shape = Shape { function: FunctionKey(1), name: "f".into(), params: vec![], options };
        let array = FromClient::SubmitArray { number: 0, len, shape, parent: None };
        self.scheduler.handle_client(self.scheduler.now, self.client, array);
        self.actions()
    }

    pub(super) fn at(&mut self, seconds: u64) -> Vec<Action> {
        let now = Time(0) + SECOND * u32::try_from(seconds).unwrap();
        self.scheduler.handle_timeout(now);
        self.actions()
    }

    pub(super) fn breaks(&mut self, seconds: u64, peer: Peer) -> Vec<Action> {
        let now = Time(0) + SECOND * u32::try_from(seconds).unwrap();
        self.scheduler.handle_link_broken(now, peer, Duration::ZERO);
        self.actions()
    }

    fn comes_back(&mut self, seconds: u64, peer: Peer) -> Vec<Action> {
        let now = Time(0) + SECOND * u32::try_from(seconds).unwrap();
        self.scheduler.handle_link_resumed(now, peer);
        self.actions()
    }
}

pub(super) fn join(scheduler: &mut Scheduler, now: Time) -> NannyId {
    let worker = WorkerInfo { name: "w".into(), slots: 1, memory_limit: 0, resources: Vec::new() };
    let info =
        NannyInfo { node: "n".into(), pool: "p".into(), workers: vec![worker], contact: contact() };
    scheduler.connect_nanny(now, info).0
}

fn launched(actions: &[Action]) -> Vec<ProcessId> {
    let launches = actions.iter().filter_map(|action| match action {
        Action::ToNanny(_, ToNanny::Launch(launch)) => Some(launch.process),
        _ => None,
    });
    launches.collect()
}

fn fenced(actions: &[Action]) -> Vec<Peer> {
    let closed = actions.iter().filter_map(|action| match action {
        Action::Close(peer, _) => Some(*peer),
        _ => None,
    });
    closed.collect()
}

pub(super) fn assigned(actions: &[Action]) -> Vec<(ProcessId, Range)> {
    let assigned = actions.iter().filter_map(|action| match action {
        Action::ToProcess(process, ToProcess::Assign(assign)) => Some((*process, assign.range)),
        _ => None,
    });
    assigned.collect()
}

#[test]
fn who_comes_back_in_time_keeps_all_it_has() {
    let mut stage = Stage::new();
    let (first, second) = (stage.processes[0], stage.processes[1]);
    assert_eq!(assigned(&stage.submit(2)).len(), 2);
    assert_eq!(stage.breaks(1, Peer::Process(first)), []);
    assert_eq!(stage.scheduler.poll_timeout(), Some(Time(0) + SECOND + SILENCE_FENCED));
    assert_eq!(fenced(&stage.at(5)), []);
    assert_eq!(assigned(&stage.comes_back(5, Peer::Process(first))), []);
    assert_eq!(fenced(&stage.at(100)), []);
    assert!(stage.scheduler.knows(first) && stage.scheduler.knows(second));
    assert_eq!(stage.scheduler.poll_timeout(), None);
}

#[test]
fn what_a_silent_process_had_runs_elsewhere_after_the_silence_that_is_allowed() {
    let mut stage = Stage::new();
    let (first, second) = (stage.processes[0], stage.processes[1]);
    let lost = assigned(&stage.submit(2)).into_iter().find(|(process, _)| *process == first);
    // Its link had been silent for four seconds when it was found dead.
    let silent = Duration::from_secs(4);
    stage.scheduler.handle_link_broken(Time(0) + SECOND * 4, Peer::Process(first), silent);
    assert_eq!(stage.actions(), []);
    let actions = stage.at(5);
    assert_eq!(fenced(&actions)[0], Peer::Process(first));
    let killed = |action: &Action| matches!(action, Action::ToNanny(_, ToNanny::Kill { process, .. }) if *process == first);
    assert!(actions.iter().any(killed), "what is left of it must not go on: {actions:?}");
    assert!(!stage.scheduler.knows(first) && stage.scheduler.knows(second));
    // Another process takes its place, and its task.
    let [heir] = launched(&actions)[..] else { panic!("one launch: {actions:?}") };
    stage.scheduler.connect_process(Time(0) + SECOND * 5, heir, contact()).unwrap();
    let again = assigned(&stage.actions());
    assert_eq!(again, [(heir, lost.unwrap().1)]);
}

#[test]
fn a_silent_process_gets_nothing_new_until_it_is_back() {
    let mut stage = Stage::new();
    let (first, second) = (stage.processes[0], stage.processes[1]);
    stage.breaks(1, Peer::Process(first));
    let assigned_while = assigned(&stage.submit(8));
    assert!(assigned_while.iter().all(|(process, _)| *process == second), "{assigned_while:?}");
    let after = assigned(&stage.comes_back(2, Peer::Process(first)));
    assert!(after.iter().any(|(process, _)| *process == first), "{after:?}");
}

#[test]
fn a_silent_node_is_given_up_as_one() {
    let mut stage = Stage::new();
    let (nanny, process) = (stage.nannies[0], stage.processes[0]);
    stage.breaks(1, Peer::Nanny(nanny));
    stage.breaks(1, Peer::Process(process));
    let mut gone = fenced(&stage.at(6));
    gone.sort();
    assert_eq!(gone, [Peer::Nanny(nanny), Peer::Process(process)]);
    assert_eq!(stage.at(6), []);
    // Its words count no more, and whoever comes back is turned away.
    let gone = fenced(&stage.comes_back(7, Peer::Nanny(nanny)));
    assert_eq!(gone, [Peer::Nanny(nanny)]);
    // It joins anew, and is of use again.
    let now = stage.scheduler.now;
    join(&mut stage.scheduler, now);
    assert_eq!(stage.launch().len(), 1);
}

#[test]
fn a_silent_nanny_whose_process_speaks_is_not_dead_and_launches_nothing() {
    let mut stage = Stage::new();
    let (nanny, process) = (stage.nannies[0], stage.processes[0]);
    stage.breaks(1, Peer::Nanny(nanny));
    assert_eq!(fenced(&stage.at(60)), []);
    let program = ProgramInfo { hash: ProgramHash([2; 32]), size: 1, path: "q".into() };
    let surroundings = Surroundings::default();
    let info = ClientInfo { program, surroundings, name: "d".into(), nested_in: None };
    stage.scheduler.connect_client(stage.scheduler.now, info);
    assert_eq!(launched(&stage.actions()).len(), 1, "in the other nanny's worker");
    // Once the process is silent as well, both go.
    stage.breaks(61, Peer::Process(process));
    assert_eq!(fenced(&stage.at(65)), []);
    let mut gone = fenced(&stage.at(66));
    gone.extend(fenced(&stage.at(67)));
    assert!(gone.contains(&Peer::Nanny(nanny)) && gone.contains(&Peer::Process(process)));
}

#[test]
fn nobody_is_given_up_for_a_time_when_the_scheduler_stood_still() {
    let mut stage = Stage::new();
    let peers = [Peer::Nanny(stage.nannies[0]), Peer::Process(stage.processes[0])];
    stage.breaks(1, peers[0]);
    // Forty seconds pass, and then it finds all links dead at once.
    let now = Time(0) + SECOND * 42;
    stage.scheduler.handle_stall(now);
    stage.scheduler.handle_link_broken(now, peers[1], Duration::from_secs(4));
    stage.scheduler.handle_link_broken(now, Peer::Client(stage.client), Duration::from_secs(4));
    assert_eq!(fenced(&stage.at(42)), []);
    assert_eq!(fenced(&stage.at(51)), [], "peers have time to come back");
    assert_eq!(stage.scheduler.poll_timeout(), Some(Time(0) + SECOND * 52));
    stage.comes_back(51, peers[0]);
    let gone = fenced(&stage.at(52));
    assert_eq!(gone, [peers[1]]);
}

#[test]
fn a_client_has_its_grace_and_a_nested_one_goes_with_its_process() {
    let mut stage = Stage::new();
    let info = ClientInfo {
        program: ProgramInfo { hash: ProgramHash([1; 32]), size: 1, path: "p".into() },
        surroundings: Surroundings::default(),
        name: "nested".into(),
        nested_in: Some(stage.processes[0]),
    };
    let nested = stage.scheduler.connect_client(Time(0), info);
    stage.submit(4);
    stage.breaks(1, Peer::Client(stage.client));
    stage.breaks(1, Peer::Client(nested));
    assert_eq!(fenced(&stage.at(6)), [Peer::Client(nested)]);
    assert_eq!(fenced(&stage.at(30)), []);
    assert!(stage.scheduler.status().assigned > 0);
    stage.scheduler.handle_timeout(Time(0) + SECOND + CLIENT_GRACE);
    let actions = stage.actions();
    assert_eq!(fenced(&actions), [Peer::Client(stage.client)]);
    assert_eq!(stage.scheduler.status().ready + stage.scheduler.status().waiting, 0);
}
