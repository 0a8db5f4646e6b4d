//! Peers that say anything that decodes: the scheduler may cut them off, but never panics.
//!
//! Messages are made from a few numbers, so that many of them mean something, with the largest
//! numbers there are among them; and some are spoilt on the way, byte by byte.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use proptest::prelude::*;

use super::world::Dice;
use crate::blob::{Blob, BlobBuilder};
use crate::failure::{Failure, FailureKind};
use crate::id::*;
use crate::message::*;
use crate::range::Range;
use crate::scheduler::{Action, ClientInfo, Config, NannyInfo, Scheduler};
use crate::time::Time;

proptest! {
    #[test]
    fn whatever_peers_say_the_scheduler_goes_on(seed: u64) {
        Mob::new(seed).run();
    }
}

#[test]
fn what_was_too_much_once_is_not_any_more() {
    let seeds = [
        12_262_806_229_086_264_059, // references of names
        5_554_217_756_486_944_483,  // inputs beyond an array's end
        3_385_395_276_371_969_110,  // no input of an array at all
        6_886_665_984_684_199_727,  // inputs that all had let go of
    ];
    for seed in seeds {
        Mob::new(seed).run();
    }
}

/// Peers without manners.
struct Mob {
    dice: Dice,
    now: Time,
    scheduler: Scheduler,
    clients: Vec<ClientId>,
    nannies: Vec<NannyId>,
    processes: Vec<ProcessId>,
    assigned: Vec<(ProcessId, Assign)>,
    puts: Vec<(TaskId, AssignmentId, ProcessId)>,
    next_number: u32,
}

/// Arrays of more tasks take the time that their tasks take, but say nothing new.
const LEN_MAX: u32 = 2000;

/// No array of this or more tasks is looked at one by one.
const LEN_CHECKED_MAX: u32 = 1000;

impl Mob {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let result_bytes_max = if dice.chance(20) { 0 } else { u64::MAX };
        Self {
            dice,
            now: Time(0),
            scheduler: Scheduler::new(Config { result_bytes_max, ..Config::default() }),
            clients: Vec::new(),
            nannies: Vec::new(),
            processes: Vec::new(),
            assigned: Vec::new(),
            puts: Vec::new(),
            next_number: 0,
        }
    }

    fn run(mut self) {
        self.join_client();
        self.join_nanny();
        for _ in 0..120 {
            self.now = Time(self.now.0 + self.dice.below(2_000_000_000));
            match self.dice.below(40) {
                0 => self.join_client(),
                1 => self.join_nanny(),
                2 => self.lose_somebody(),
                3 => self.scheduler.handle_timeout(self.now),
                4..=22 => self.client_talks(),
                23..=34 => self.process_talks(),
                _ => self.nanny_talks(),
            }
            self.react();
        }
        for client in std::mem::take(&mut self.clients) {
            self.scheduler.handle_link_lost(self.now, Peer::Client(client));
            self.react();
        }
    }

    fn react(&mut self) {
        while let Some(action) = self.scheduler.poll_action() {
            match action {
                Action::ToNanny(_, ToNanny::Launch(launch)) => {
                    let outcome = self.dice.below(10);
                    if outcome < 8 {
                        let contact = contact();
                        let id = launch.process;
                        let _ = self.scheduler.connect_process(self.now, id, contact);
                        self.processes.push(id);
                    }
                }
                Action::ToNanny(_, ToNanny::Keep { process, .. }) => {
                    let _ = self.scheduler.connect_process(self.now, process, contact());
                    self.processes.push(process);
                }
                Action::ToProcess(process, ToProcess::Assign(assign)) => {
                    self.assigned.push((process, assign));
                }
                Action::ToClient(_, ToClient::Put { task, assignment, process, .. }) => {
                    self.puts.push((task, assignment, process));
                }
                Action::Close(Peer::Client(client), _) => {
                    self.clients.retain(|known| *known != client);
                }
                _ => {}
            }
        }
        let _ = self.scheduler.poll_timeout();
        let _ = self.scheduler.status();
        if self.scheduler.groups.by_gid.values().all(|group| group.len < LEN_CHECKED_MAX) {
            self.scheduler.check();
        }
    }

    fn join_client(&mut self) {
        let hash = ProgramHash([self.dice.below(2) as u8; 32]);
        let nested_in = self.dice.chance(20).then(|| self.process());
        let info = ClientInfo {
            program: ProgramInfo { hash, size: self.number(), path: "p".into() },
            surroundings: Surroundings::default(),
            name: "mob".into(),
            nested_in,
        };
        let client = if self.dice.chance(10) {
            self.scheduler.connect_observer(self.now)
        } else {
            self.scheduler.connect_client(self.now, info)
        };
        self.clients.push(client);
    }

    fn join_nanny(&mut self) {
        let workers = (0..self.dice.below(3))
            .map(|_| WorkerInfo {
                name: self.name(),
                slots: self.small() * self.small(),
                memory_limit: self.number(),
                resources: self.resources(),
            })
            .collect();
        let info = NannyInfo { node: self.name(), pool: self.name(), workers, contact: contact() };
        let (nanny, _) = self.scheduler.connect_nanny(self.now, info);
        self.nannies.push(nanny);
        let returning: Vec<Returning> = (0..self.dice.below(3))
            .map(|_| Returning {
                was: self.process(),
                worker: self.dice.below(3) as u32,
                program: ProgramHash([self.dice.below(3) as u8; 32]),
            })
            .collect();
        self.scheduler.handle_return(self.now, nanny, &returning);
    }

    fn lose_somebody(&mut self) {
        let peer = match self.dice.below(4) {
            0 => Peer::Client(self.client()),
            1 => Peer::Nanny(self.nanny()),
            _ => Peer::Process(self.process()),
        };
        match self.dice.below(4) {
            0 => self.scheduler.handle_link_broken(self.now, peer, Duration::from_secs(4)),
            1 => self.scheduler.handle_link_resumed(self.now, peer),
            2 => self.scheduler.handle_stall(self.now),
            _ => self.scheduler.handle_link_lost(self.now, peer),
        }
    }

    fn client_talks(&mut self) {
        let from = self.client();
        let message = self.words_of_client(from);
        if let Some(message) = self.spoil(message) {
            self.scheduler.handle_client(self.now, from, message);
        }
    }

    fn process_talks(&mut self) {
        let from = self.process();
        let (from, message) = self.words_of_process(from);
        if let Some(message) = self.spoil(message) {
            self.scheduler.handle_process(self.now, from, message);
        }
    }

    fn nanny_talks(&mut self) {
        let from = self.nanny();
        let message = self.words_of_nanny();
        if let Some(message) = self.spoil(message) {
            self.scheduler.handle_nanny(self.now, from, message);
        }
    }

    /// The message, or one in three times what some wrong bytes make of it, if it is one at all.
    fn spoil<M: Serialize + DeserializeOwned>(&mut self, message: M) -> Option<M> {
        if self.dice.chance(67) {
            return Some(message);
        }
        let mut bytes = postcard::to_stdvec(&message).unwrap();
        for _ in 0..=self.dice.below(3) {
            let at = self.dice.below(bytes.len() as u64) as usize;
            bytes[at] = self.dice.roll() as u8;
        }
        postcard::from_bytes(&bytes).ok()
    }

    fn client(&mut self) -> ClientId {
        pick(&mut self.dice, &self.clients).unwrap_or(ClientId(99))
    }

    fn nanny(&mut self) -> NannyId {
        pick(&mut self.dice, &self.nannies).unwrap_or(NannyId(99))
    }

    fn process(&mut self) -> ProcessId {
        if self.dice.chance(5) {
            return ProcessId(self.number32());
        }
        pick(&mut self.dice, &self.processes).unwrap_or(ProcessId(99))
    }

    fn small(&mut self) -> u32 {
        self.dice.below(8) as u32
    }

    /// Mostly small, at times as large as can be.
    fn number32(&mut self) -> u32 {
        match self.dice.below(12) {
            0 => u32::MAX,
            1 => u32::MAX - 1,
            2 => 1 << 31,
            3 => self.dice.roll() as u32,
            _ => self.small(),
        }
    }

    fn number(&mut self) -> u64 {
        match self.dice.below(8) {
            0 => u64::MAX,
            1 => self.dice.roll(),
            _ => u64::from(self.small()),
        }
    }

    fn range(&mut self) -> Range {
        let (start, end) = (self.number32(), self.number32());
        // Backwards, too: nobody checks that on the wire.
        Range { start, end }
    }

    fn name(&mut self) -> String {
        ["", "a", "b"][self.dice.below(3) as usize].to_owned()
    }

    fn array(&mut self) -> ArrayId {
        let number = self.dice.below(u64::from(self.next_number) + 1) as u32;
        ArrayId { client: self.client(), number }
    }

    fn task(&mut self) -> TaskId {
        TaskId { array: self.array(), index: self.number32() }
    }

    fn assignment(&mut self) -> AssignmentId {
        AssignmentId(self.dice.below(30))
    }

    fn ranges(&mut self) -> Vec<(ArrayId, Range)> {
        (0..self.dice.below(3)).map(|_| (self.array(), self.range())).collect()
    }

    fn resources(&mut self) -> Vec<(String, u64)> {
        (0..self.dice.below(3)).map(|_| (self.name(), self.number())).collect()
    }

    fn blob(&mut self, count: u32) -> Blob {
        if self.dice.chance(5) {
            return Blob::empty(self.number32());
        }
        let mut builder = BlobBuilder::new();
        let even = self.dice.chance(50);
        for _ in 0..count.min(100) {
            let len = if even { 3 } else { self.dice.below(5) as usize };
            builder.push(&vec![7; len]);
        }
        builder.build()
    }

    fn time(&mut self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.number())
    }

    fn options(&mut self) -> TaskOptions {
        if self.dice.chance(70) {
            return TaskOptions::default();
        }
        TaskOptions {
            name: self.dice.chance(50).then(|| self.name()),
            priority: self.number32() as i32,
            retries: self.number32(),
            retry_delay: std::time::Duration::from_secs(self.number()),
            timeout: self.dice.chance(50).then(|| std::time::Duration::from_secs(self.number())),
            threads: self.number32() as u16,
            resources: self.resources(),
            workers: (0..self.dice.below(2)).map(|_| self.name()).collect(),
            pools: (0..self.dice.below(2)).map(|_| self.name()).collect(),
            parts: self.number32() as u16,
            replicas: self.number32() as u8,
            kill_grace: self.dice.chance(50).then(|| std::time::Duration::from_secs(self.number())),
        }
    }

    fn param(&mut self, edges: bool) -> Param {
        let part = self.dice.below(2) as u16;
        match self.dice.below(if edges { 3 } else { 7 }) {
            0 => Param::Inline,
            1 if edges => Param::Edge,
            2 if edges => Param::Edges,
            1 | 2 => Param::Inline,
            3 => Param::Each { array: self.array(), start: self.number32(), part },
            4 => Param::Block {
                array: self.array(),
                start: self.number32(),
                end: self.number32(),
                width: self.number32(),
            },
            5 => Param::One { task: self.task(), part },
            _ => Param::All { array: self.array(), range: self.range() },
        }
    }

    fn shape(&mut self, edges: bool) -> Shape {
        Shape {
            function: FunctionKey(self.dice.below(3)),
            name: self.name(),
            params: (0..self.dice.below(3)).map(|_| self.param(edges)).collect(),
            options: self.options(),
        }
    }

    fn batch(&mut self, from: ClientId, number: u32) -> Batch {
        let len = self.small();
        let shapes: Vec<Shape> = (0..=self.dice.below(2)).map(|_| self.shape(true)).collect();
        let (mut edges, mut edge_ends, mut shape_of) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..len {
            let nth = self.dice.below(shapes.len() as u64) as u16;
            let params = &shapes[nth as usize].params;
            let singles = params.iter().filter(|param| **param == Param::Edge).count() as u64;
            let more = if params.last() == Some(&Param::Edges) { self.dice.below(3) } else { 0 };
            for _ in 0..singles + more {
                let own = TaskId { array: ArrayId { client: from, number }, index: index / 2 };
                let task = if index > 0 && self.dice.chance(30) { own } else { self.task() };
                edges.push(Edge { task, part: 0 });
            }
            edge_ends.push(edges.len() as u32);
            shape_of.push(nth);
        }
        Batch { shapes, shape_of, payload: self.blob(len), edge_ends, edges }
    }

    fn words_of_client(&mut self, from: ClientId) -> FromClient {
        let number = self.next_number;
        let parent =
            self.dice.chance(20).then(|| Parent { task: self.task(), run: self.number32() });
        match self.dice.below(25) {
            0..=4 => {
                self.next_number += 1;
                let shape = self.shape(false);
                let len = shape.params.iter().find_map(|param| match param {
                    Param::Block { start, end, width, .. } if *width > 0 => {
                        Some(end.saturating_sub(*start).div_ceil(*width))
                    }
                    _ => None,
                });
                let len = len.unwrap_or_else(|| self.number32()).min(LEN_MAX);
                FromClient::SubmitArray { number, len, shape, parent }
            }
            5..=7 => {
                let number = self.dice.below(u64::from(number) + 1) as u32;
                let count = self.small();
                FromClient::Payload { number, payload: self.blob(count) }
            }
            8..=10 => {
                self.next_number += 1;
                FromClient::SubmitBatch { number, batch: self.batch(from, number), parent }
            }
            11 => {
                self.next_number += 1;
                let count = self.small();
                FromClient::ScatterInline { number, values: self.blob(count) }
            }
            12 => {
                self.next_number += 1;
                let sizes = (0..self.dice.below(4)).map(|_| self.number()).collect();
                FromClient::Scatter { number, sizes, options: self.options() }
            }
            13 => FromClient::PutFailed { assignment: self.assignment(), message: String::new() },
            14..=16 => FromClient::Want {
                array: self.array(),
                range: self.range(),
                values: self.dice.chance(80),
            },
            17 => FromClient::Missed {
                task: self.task(),
                holder: self.process(),
                denied: self.dice.chance(50),
            },
            18 => FromClient::Release { ranges: self.ranges() },
            19 => FromClient::Cancel { array: self.array(), range: self.range() },
            20 => FromClient::Detach { name: self.name(), ranges: self.ranges() },
            21 => FromClient::Attach { request: self.number32(), name: self.name() },
            22 => match self.dice.below(2) {
                0 => FromClient::AskStates {
                    request: self.number32(),
                    array: self.array(),
                    range: self.range(),
                },
                _ => FromClient::AskStatus {
                    request: self.number32(),
                    when_ready: self.dice.chance(50),
                },
            },
            23 => match self.dice.below(2) {
                0 => FromClient::Retire {
                    request: self.number32(),
                    names: vec![self.name()],
                    within: self.dice.chance(50).then(|| Duration::from_nanos(self.number())),
                },
                _ => FromClient::AskLeaving {
                    request: self.number32(),
                    workers: vec![WorkerId(self.number32())],
                },
            },
            _ => FromClient::Taken { bytes: self.number() },
        }
    }

    fn end(&mut self, count: u32) -> End {
        match self.dice.below(5) {
            0 | 1 => End::Inline(self.blob(count)),
            2 => End::Stored((0..self.dice.below(8)).map(|_| self.number()).collect()),
            3 => End::Failed(Failure {
                kind: [FailureKind::Panicked, FailureKind::Unrunnable][self.small() as usize % 2],
                message: String::new(),
                origin: self.task(),
                function: self.name(),
                location: None,
                backtrace: None,
                worker: None,
                node: None,
                run: self.number32(),
            }),
            _ if self.dice.chance(50) => End::Lost,
            _ => End::Cancelled,
        }
    }

    /// Mostly of what was assigned, by whom it was assigned to.
    fn words_of_process(&mut self, mut from: ProcessId) -> (ProcessId, FromProcess) {
        let mut finished = Vec::new();
        for _ in 0..=self.dice.below(2) {
            let (mut assignment, mut array) = (self.assignment(), self.array());
            let mut range = self.range();
            if self.dice.chance(85)
                && let Some((process, assign)) = pick(&mut self.dice, &self.assigned)
            {
                (from, assignment, array, range) =
                    (process, assign.assignment, assign.array, assign.range);
                if self.dice.chance(40) {
                    range = Range { start: range.start, end: range.start.saturating_add(1) };
                }
            } else if let Some((task, put, process)) = pick(&mut self.dice, &self.puts) {
                (from, assignment, array) = (process, put, task.array);
                range = Range::one(task.index);
            }
            let end = self.end(range.len());
            finished.push(Finished { assignment, array, range, busy_ns: self.number(), end });
        }
        let given_back = |finished: &[Finished]| -> Vec<(AssignmentId, Range)> {
            finished.iter().map(|one| (one.assignment, one.range)).collect()
        };
        let message = match self.dice.below(15) {
            13 | 14 => {
                let values = (0..self.dice.below(4)).map(|_| self.offered(&finished[0])).collect();
                FromProcess::Offer { values, is_last: self.dice.chance(20) }
            }
            0..=5 => FromProcess::Report { number: self.number(), finished },
            6 => FromProcess::SlotsFree { slots: self.number32() },
            7 => FromProcess::Parked { runs: self.number32(), slots: self.number32() },
            8 => FromProcess::GaveUp {
                steal: StealId(self.number()),
                assignment: finished[0].assignment,
                ranges: finished.iter().map(|one| one.range).collect(),
            },
            9 | 10 => FromProcess::Holds {
                values: (0..self.dice.below(4))
                    .map(|_| ValueId { task: self.task(), part: self.dice.below(3) as u16 })
                    .collect(),
            },
            11 => FromProcess::NotAcquired { task: self.task() },
            _ => FromProcess::Missed {
                task: self.task(),
                holder: self.process(),
                denied: self.dice.chance(50),
                given_back: given_back(&finished),
            },
        };
        (from, message)
    }

    fn offered(&mut self, like: &Finished) -> Offered {
        let is_like = self.dice.chance(60);
        let (array, range) =
            if is_like { (like.array, like.range) } else { (self.array(), self.range()) };
        let run = self.small();
        let what = match self.end(range.len()) {
            End::Inline(blob) => Offering::Inline { run, blob },
            End::Stored(sizes) => {
                Offering::Stored { run, sizes: sizes.iter().map(|size| *size as u8).collect() }
            }
            _ => Offering::Copies,
        };
        Offered { array, range, what }
    }

    fn words_of_nanny(&mut self) -> FromNanny {
        let hash = ProgramHash([self.dice.below(3) as u8; 32]);
        match self.dice.below(10) {
            0 => FromNanny::WantProgram { hash },
            1 => FromNanny::HasProgram { hash },
            2 => FromNanny::FetchFailed { hash, message: String::new() },
            3 => FromNanny::LaunchFailed { process: self.process(), message: String::new() },
            4 => FromNanny::Exited {
                process: self.process(),
                exit: [Exit::Code(-1), Exit::Signal(9), Exit::OutOfMemory]
                    [self.small() as usize % 3]
                    .clone(),
                board: vec![(self.task(), self.number32())],
                stderr: vec![self.name()],
            },
            5 if self.dice.chance(20) => FromNanny::Leaving { reason: String::new() },
            6 => FromNanny::InJob { job: self.name() },
            7 => FromNanny::JobEndsIn { time: self.dice.chance(50).then(|| self.time()) },
            8 => FromNanny::EndsIn { time: self.time(), is_job: self.dice.chance(50) },
            _ => FromNanny::HasProgram { hash },
        }
    }
}

fn pick<T: Clone>(dice: &mut Dice, list: &[T]) -> Option<T> {
    if list.is_empty() {
        return None;
    }
    list.get(dice.below(list.len() as u64) as usize).cloned()
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}
