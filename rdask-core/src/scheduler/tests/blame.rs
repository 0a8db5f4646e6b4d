//! Who is blamed for the end of a process, who is not, and how the guilty are found.

use std::collections::BTreeSet;

use crate::blob::BlobBuilder;
use crate::failure::{Failure, FailureKind};
use crate::id::*;
use crate::message::*;
use crate::range::Range;
use crate::scheduler::{Action, ClientInfo, Config, NannyInfo, Scheduler};
use crate::time::Time;

/// A scheduler, a client that wants what it submits, and a worker, whose processes do as told.
pub(super) struct Court {
    pub(super) scheduler: Scheduler,
    pub(super) now: Time,
    pub(super) nanny: NannyId,
    pub(super) client: ClientId,
    /// The number of the array of which is spoken.
    pub(super) on_trial: u32,
    launching: Vec<ProcessId>,
    /// Where scattered values go.
    pub(super) puts: Vec<(ProcessId, AssignmentId)>,
    /// What runs, in the order it was assigned in.
    pub(super) running: Vec<(ProcessId, Assign)>,
    pub(super) ended: BTreeSet<ProcessId>,
    pub(super) failures: Vec<Failure>,
    pub(super) done: u32,
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

impl Court {
    pub(super) fn new(slots: u32) -> Self {
        let mut scheduler =
            Scheduler::new(Config { result_bytes_max: 1 << 30, ..Config::default() });
        let nanny = NannyId(0);
        let info = ClientInfo {
            program: ProgramInfo { hash: ProgramHash([1; 32]), size: 1, path: "p".into() },
            surroundings: Surroundings::default(),
            name: "court".into(),
            nested_in: None,
        };
        let client = scheduler.connect_client(Time(0), info);
        let mut court = Self {
            scheduler,
            now: Time(0),
            nanny,
            client,
            on_trial: 0,
            launching: Vec::new(),
            puts: Vec::new(),
            running: Vec::new(),
            ended: BTreeSet::new(),
            failures: Vec::new(),
            done: 0,
        };
        court.nanny = court.add_worker("w", slots);
        court
    }

    pub(super) fn add_worker(&mut self, name: &str, slots: u32) -> NannyId {
        let worker =
            WorkerInfo { name: name.into(), slots, memory_limit: 512 << 20, resources: Vec::new() };
        let info = NannyInfo {
            node: "node7".into(),
            pool: "4711".into(),
            workers: vec![worker],
            contact: contact(),
        };
        let (nanny, _) = self.scheduler.connect_nanny(self.now, info);
        self.act();
        nanny
    }

    /// Starts what is to be started, and confirms slots; notes the rest.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.scheduler.poll_action() {
            match action {
                Action::ToNanny(_, ToNanny::Launch(launch)) => self.launching.push(launch.process),
                Action::ToNanny(_, ToNanny::Kill { process, .. }) => {
                    self.ended.insert(process);
                    self.running.retain(|(of, _)| *of != process);
                }
                Action::ToProcess(process, ToProcess::Assign(assign)) => {
                    self.running.push((process, assign));
                }
                Action::ToProcess(process, ToProcess::SetSlots { slots }) => {
                    let message = FromProcess::SlotsFree { slots };
                    self.scheduler.handle_process(self.now, process, message);
                }
                Action::ToClient(_, ToClient::Ended { range, outcome, .. }) => match outcome {
                    Outcome::Failed(failure) => self.failures.push(failure),
                    _ => self.done += range.len(),
                },
                Action::ToClient(_, ToClient::Put { process, assignment, .. }) => {
                    self.puts.push((process, assignment));
                }
                _ => {}
            }
            if let Some(process) = self.launching.pop() {
                // It may have been ended before it began.
                let _ = self.scheduler.connect_process(self.now, process, contact());
            }
        }
        self.scheduler.check();
    }

    pub(super) fn submit(&mut self, number: u32, len: u32, parent: Option<Parent>) {
        self.submit_with(number, len, Vec::new(), parent);
    }

    pub(super) fn submit_with(
        &mut self,
        number: u32,
        len: u32,
        params: Vec<Param>,
        parent: Option<Parent>,
    ) {
        let shape = Shape {
            function: FunctionKey(1),
            name: "f".into(),
            params,
            options: TaskOptions::default(),
        };
        let array = ArrayId { client: self.client, number };
        for message in [
            FromClient::SubmitArray { number, len, shape, parent },
            FromClient::Want { array, range: Range::new(0, len), values: false },
        ] {
            self.scheduler.handle_client(self.now, self.client, message);
        }
        self.act();
    }

    pub(super) fn task(&self, index: u32) -> TaskId {
        TaskId { array: ArrayId { client: self.client, number: self.on_trial }, index }
    }

    /// The process that runs a task, and in which run.
    pub(super) fn home_of(&self, index: u32) -> Option<(ProcessId, u32)> {
        let (task, running) = (self.task(index), self.running.iter());
        running
            .filter(|(_, assign)| assign.array == task.array && assign.range.contains(index))
            .map(|(process, assign)| (*process, crate::process::run_number(assign, index)))
            .next_back()
    }

    /// What runs beside it.
    pub(super) fn beside(&self, process: ProcessId) -> u32 {
        let all = self.running.iter().filter(|(of, _)| *of == process);
        all.map(|(_, assign)| assign.range.len()).sum::<u32>() - 1
    }

    pub(super) fn lose_link(&mut self, process: ProcessId) {
        self.running.retain(|(of, _)| *of != process);
        self.scheduler.handle_link_lost(self.now, Peer::Process(process));
        self.act();
    }

    /// The nanny says how a process ended.
    pub(super) fn exited(&mut self, process: ProcessId, exit: Exit, board: &[u32]) {
        self.running.retain(|(of, _)| *of != process);
        let board = board.iter().map(|index| (self.task(*index), 1)).collect();
        let stderr = vec![format!("{process} says goodbye")];
        let message = FromNanny::Exited { process, exit, board, stderr };
        self.scheduler.handle_nanny(self.now, self.nanny, message);
        self.act();
    }

    /// A task ends the process it runs in; says which, and in which run.
    pub(super) fn kill(&mut self, index: u32) -> (ProcessId, u32) {
        let (process, run) = self.home_of(index).expect("it runs");
        let board = [index];
        self.exited(process, Exit::Signal(6), &board);
        (process, run)
    }

    pub(super) fn finish_all(&mut self) {
        while let Some((process, assign)) = self.running.pop() {
            self.ends_well(process, &assign);
        }
    }

    /// A task ends well, and what was assigned with it.
    pub(super) fn finish(&mut self, index: u32) {
        let (process, assign) = self.take(index);
        self.ends_well(process, &assign);
    }

    /// A task ends with a value that stays with its process.
    pub(super) fn store(&mut self, index: u32) {
        let (process, assign) = self.take(index);
        self.ends(process, &assign, End::Stored(vec![5000; assign.range.len() as usize]));
    }

    fn take(&mut self, index: u32) -> (ProcessId, Assign) {
        let (home, _) = self.home_of(index).expect("it runs");
        let array = self.task(index).array;
        let is_it = |(process, assign): &(ProcessId, Assign)| {
            *process == home && assign.array == array && assign.range.contains(index)
        };
        let nth = self.running.iter().position(is_it).expect("it runs");
        self.running.remove(nth)
    }

    fn ends_well(&mut self, process: ProcessId, assign: &Assign) {
        let mut blob = BlobBuilder::new();
        assign.range.iter().for_each(|_| blob.push(b""));
        self.ends(process, assign, End::Inline(blob.build()));
    }

    fn ends(&mut self, process: ProcessId, assign: &Assign, end: End) {
        let (assignment, array, range) = (assign.assignment, assign.array, assign.range);
        let finished = Finished { assignment, array, range, busy_ns: 200_000_000, end };
        let report = FromProcess::Report { number: 1, finished: vec![finished] };
        self.scheduler.handle_process(self.now, process, report);
        self.act();
    }

    /// A task waits for nested ones: the client that submits them, and as whose.
    pub(super) fn nest(&mut self, index: u32) -> Parent {
        let (home, run) = self.home_of(index).expect("it runs");
        let parent = Parent { task: self.task(index), run };
        let info = ClientInfo {
            program: ProgramInfo { hash: ProgramHash([1; 32]), size: 1, path: "p".into() },
            surroundings: Surroundings::default(),
            name: "nested".into(),
            nested_in: Some(home),
        };
        self.client = self.scheduler.connect_client(self.now, info);
        let parked = FromProcess::Parked { runs: 1, slots: 1 };
        self.scheduler.handle_process(self.now, home, parked);
        parent
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.scheduler.blame.is_empty() && self.running.is_empty()
    }
}

#[test]
fn a_killer_ends_with_its_third_death_and_tells_all_of_them() {
    let mut court = Court::new(2);
    court.submit(0, 1, None);
    let homes: Vec<_> = (0..3).map(|_| court.kill(0)).collect();
    assert_eq!(homes.iter().map(|(_, run)| *run).collect::<Vec<_>>(), [1, 2, 3]);
    let failure = court.failures.pop().expect("it has ended");
    assert_eq!((failure.kind, failure.run), (FailureKind::Killed, 1));
    assert_eq!((failure.function.as_str(), failure.node.as_deref()), ("f", Some("node7")));
    let mut expected = "3 processes died while it ran, the last one with it alone".to_owned();
    for (process, _) in homes {
        expected += "\n  run 1 (worker w on node7, pool 4711): signal 6 (SIGABRT) ended it";
        expected += &format!("\n    {process} says goodbye");
    }
    assert_eq!(failure.message, expected);
    assert!(court.is_at_rest());
}

#[test]
fn the_last_try_is_alone_and_clears_bystanders() {
    let mut court = Court::new(4);
    court.submit(0, 4, None);
    for _ in 0..2 {
        let (process, _) = court.home_of(0).unwrap();
        assert_eq!(court.home_of(1).unwrap().0, process);
        court.exited(process, Exit::Signal(11), &[0, 1]);
    }
    let (guilty, innocent) = (court.home_of(0).unwrap().0, court.home_of(1).unwrap().0);
    let main = court.home_of(2).unwrap().0;
    assert!(guilty != innocent && guilty != main && innocent != main);
    assert_eq!((court.beside(guilty), court.beside(innocent)), (0, 0));
    court.kill(0);
    court.finish_all();
    assert_eq!((court.failures.len(), court.done), (1, 3));
    assert_eq!(court.failures[0].origin, court.task(0));
    assert!(court.ended.contains(&innocent), "a process for one task ends with it");
    assert!(!court.ended.contains(&main));
    assert!(court.is_at_rest());
}

#[test]
fn the_end_of_the_link_may_come_before_the_nannys_word() {
    let mut court = Court::new(2);
    court.submit(0, 1, None);
    for death in 1..=3 {
        let (process, run) = court.home_of(0).expect("it runs");
        assert_eq!(run, death);
        court.lose_link(process);
        // The first time it runs again at once; a suspect waits for the verdict.
        assert_eq!(court.home_of(0).is_some(), death == 1);
        court.exited(process, Exit::OutOfMemory, &[0]);
    }
    let message = &court.failures[0].message;
    assert_eq!(message.matches("it ran out of memory, of which its worker has 512 MiB").count(), 3);
    assert!(court.is_at_rest());
}

#[test]
fn planned_ends_lost_nannies_and_empty_boards_blame_nobody() {
    let mut court = Court::new(1);
    court.submit(0, 1, None);
    for round in 0..12 {
        let (process, _) = court.home_of(0).expect("it runs");
        match round % 4 {
            0 => court.exited(process, Exit::Planned, &[0]),
            1 => court.exited(process, Exit::Signal(9), &[]),
            2 => {
                court.lose_link(process);
                court.exited(process, Exit::Planned, &[0]);
            }
            _ => {
                let nanny = court.nanny;
                court.nanny = court.add_worker("other", 1);
                court.lose_link(process);
                court.scheduler.handle_link_lost(Time(0), Peer::Nanny(nanny));
                court.act();
            }
        }
    }
    court.finish_all();
    assert_eq!((court.failures.len(), court.done), (0, 1));
    assert!(court.is_at_rest());
}

#[test]
fn a_nanny_is_believed_only_of_its_own_processes_and_of_what_they_had() {
    let mut court = Court::new(1);
    let other = court.add_worker("other", 1);
    court.submit(0, 3, None);
    let waiting = (0..3).find(|index| court.home_of(*index).is_none()).unwrap();
    for _ in 0..4 {
        let is_own = |process| court.scheduler.cluster.processes[&process].nanny == court.nanny;
        let mut homes = (0..3).filter_map(|index| Some((index, court.home_of(index)?.0)));
        let (running, process) = homes.find(|(_, process)| is_own(*process)).unwrap();
        let board = vec![(court.task(running), 1)];
        let message =
            FromNanny::Exited { process, exit: Exit::Signal(6), board, stderr: Vec::new() };
        court.scheduler.handle_nanny(Time(0), other, message);
        court.act();
        assert!(court.scheduler.knows(process), "its nanny said nothing");
        court.exited(process, Exit::Signal(6), &[waiting, 99]);
        assert!(!court.scheduler.knows(process));
    }
    court.finish_all();
    assert_eq!((court.failures.len(), court.done), (0, 3));
    assert!(court.is_at_rest());
}

#[test]
fn a_cancelled_suspect_leaves_no_process_behind() {
    let mut court = Court::new(1);
    court.submit(0, 1, None);
    court.kill(0);
    court.kill(0);
    let (alone, _) = court.home_of(0).expect("its last try");
    let cancel = FromClient::Cancel { array: court.task(0).array, range: Range::one(0) };
    court.scheduler.handle_client(Time(0), court.client, cancel);
    court.act();
    assert!(!court.ended.contains(&alone), "it runs on until it has seen its token");
    court.finish_all();
    assert!(court.ended.contains(&alone));
    assert_eq!(court.failures[0].kind, FailureKind::Cancelled);
    assert!(court.is_at_rest());
}

#[test]
fn what_a_suspect_submits_may_run_beside_it() {
    let mut court = Court::new(1);
    court.submit(0, 2, None);
    court.kill(0);
    court.kill(0);
    let (alone, _) = court.home_of(0).expect("its last try");
    // Its slot is free while it waits, and no other process has one.
    let parent = court.nest(0);
    court.submit(0, 1, Some(parent));
    assert_eq!(court.home_of(0).expect("nested tasks run").0, alone);
    let beside = court.running.iter().filter(|(of, _)| *of == alone).count();
    assert_eq!(beside, 2, "the suspect and its child, and nobody else: {:?}", court.running);
}
