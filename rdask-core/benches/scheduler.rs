//! What the scheduler's decisions cost, without any I/O: per range assigned and reported, per
//! steal, per lost process, per task of a graph. Times are per element: `thrpt` is what to read.
//!
//!     cargo bench -p rdask-core

#![allow(missing_docs, reason = "criterion's macros write items without")]

use std::collections::VecDeque;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rdask_core::blob::{Blob, BlobBuilder};
use rdask_core::id::{ArrayId, ClientId, FunctionKey, Peer, ProcessId, ProgramHash, TaskId};
use rdask_core::message::{
    Assign, Batch, Contact, Edge, End, Finished, FromClient, FromProcess, Param, ProgramInfo,
    Shape, Surroundings, TaskOptions, ToNanny, ToProcess, WorkerInfo,
};
use rdask_core::range::Range;
use rdask_core::scheduler::{Action, ClientInfo, Config, NannyInfo, Scheduler};
use rdask_core::time::Time;

/// Arguments come in pieces, as they do over the wire.
const PAYLOAD_TASKS: u32 = 4000;

const LONG: Duration = Duration::from_secs(1);

/// A scheduler with a client, and what its processes have to do.
struct World {
    scheduler: Scheduler,
    client: ClientId,
    assigned: VecDeque<(ProcessId, Assign)>,
    steals: Vec<(ProcessId, ToProcess)>,
    launched: Vec<ProcessId>,
    processes: Vec<ProcessId>,
    arrays: u32,
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

/// As many results or arguments of 8 bytes.
fn values(count: u32) -> Blob {
    let mut blob = BlobBuilder::new();
    (0..count).for_each(|_| blob.push(&[7; 8]));
    blob.build()
}

impl World {
    fn new() -> Self {
        let mut scheduler =
            Scheduler::new(Config { result_bytes_max: 1 << 30, ..Config::default() });
        let info = ClientInfo {
            program: ProgramInfo { hash: ProgramHash([1; 32]), size: 1, path: String::new() },
            surroundings: Surroundings::default(),
            name: "bench".to_owned(),
            nested_in: None,
        };
        let client = scheduler.connect_client(Time(0), info);
        let (launched, processes) = (Vec::new(), Vec::new());
        Self {
            scheduler,
            client,
            assigned: VecDeque::new(),
            steals: Vec::new(),
            launched,
            processes,
            arrays: 0,
        }
    }

    fn with_processes(count: u32, slots: u32) -> Self {
        let mut world = Self::new();
        (0..count).for_each(|_| world.add_process(slots));
        world
    }

    fn add_process(&mut self, slots: u32) {
        let worker =
            WorkerInfo { name: "w".to_owned(), slots, memory_limit: 0, resources: Vec::new() };
        let (node, pool) = ("n".to_owned(), "p".to_owned());
        let info = NannyInfo { node, pool, workers: vec![worker], contact: contact() };
        self.scheduler.connect_nanny(Time(0), info);
        self.settle();
        while let Some(process) = self.launched.pop() {
            let joined = self.scheduler.connect_process(Time(0), process, contact());
            joined.expect("it was launched");
            self.processes.push(process);
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(action) = self.scheduler.poll_action() {
            match action {
                Action::ToProcess(to, ToProcess::Assign(assign)) => {
                    self.assigned.push_back((to, assign));
                }
                Action::ToProcess(to, steal @ ToProcess::Steal { .. }) => {
                    self.steals.push((to, steal));
                }
                Action::ToNanny(_, ToNanny::Launch(launch)) => self.launched.push(launch.process),
                _ => {}
            }
        }
    }

    fn say(&mut self, message: FromClient) {
        self.scheduler.handle_client(Time(0), self.client, message);
        self.settle();
    }

    fn submit_array(&mut self, len: u32) {
        self.say(FromClient::SubmitArray { number: 0, len, shape: shape(0), parent: None });
        for first in (0..len).step_by(PAYLOAD_TASKS as usize) {
            let payload = values(PAYLOAD_TASKS.min(len - first));
            self.say(FromClient::Payload { number: 0, payload });
        }
    }

    /// One task is submitted, runs and is forgotten.
    fn one_task(&mut self) {
        let (number, array) = (self.arrays, ArrayId { client: self.client, number: self.arrays });
        self.arrays += 1;
        self.say(FromClient::SubmitArray { number, len: 1, shape: shape(0), parent: None });
        self.say(FromClient::Payload { number, payload: values(1) });
        assert!(self.report(Duration::from_micros(10), inline));
        self.say(FromClient::Release { ranges: vec![(array, Range::one(0))] });
    }

    /// The first assignment ends as a whole, each of its tasks having taken `each`.
    fn report(&mut self, each: Duration, end: impl FnOnce(u32) -> End) -> bool {
        let Some((process, assign)) = self.assigned.pop_front() else { return false };
        let count = assign.range.len();
        let finished = Finished {
            assignment: assign.assignment,
            array: assign.array,
            range: assign.range,
            busy_ns: (each * count).as_nanos() as u64,
            end: end(count),
        };
        let report = FromProcess::Report { number: 1, finished: vec![finished] };
        self.scheduler.handle_process(Time(0), process, report);
        self.settle();
        true
    }
}

fn inline(count: u32) -> End {
    End::Inline(values(count))
}

/// A function of one argument, or of so many results.
fn shape(edges: usize) -> Shape {
    let params = if edges == 0 { vec![Param::Inline] } else { vec![Param::Edge; edges] };
    let options = TaskOptions::default();
    Shape { function: FunctionKey(edges as u64), name: "f".to_owned(), params, options }
}

/// One report of a range, and the next assignment for its slots.
fn ranges(criterion: &mut Criterion) {
    const RANGES: u32 = 1000;
    let mut group = criterion.benchmark_group("report and assign a range");
    group.throughput(Throughput::Elements(RANGES.into()));
    for tasks in [1, 100] {
        group.bench_function(BenchmarkId::new("tasks per range", tasks), |bencher| {
            let setup = || {
                // Tasks so long that slots get one each, in one range per process.
                let mut world = World::with_processes(4, tasks);
                world.submit_array(RANGES * tasks);
                world
            };
            let run = |mut world: World| {
                let mut count = 0;
                while world.report(LONG, inline) {
                    count += 1;
                }
                assert_eq!(count, RANGES);
                world
            };
            bencher.iter_batched(setup, run, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// What one task costs where nobody else has anything to do: four batches of facts.
fn sizes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one task");
    group.throughput(Throughput::Elements(1));
    for processes in [1, 63, 1000] {
        let mut world = World::with_processes(processes, 24);
        group.bench_function(BenchmarkId::new("idle processes", processes), |bencher| {
            bencher.iter(|| world.one_task());
        });
    }
    group.finish();
}

/// As many tasks as there are slots, all of which end one by one: each time the next one starts.
fn busy_sizes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("report and assign one of many");
    group.throughput(Throughput::Elements(1));
    for processes in [1, 63, 1000] {
        let mut world = World::with_processes(processes, 24);
        world.submit_array(4_000_000);
        group.bench_function(BenchmarkId::new("busy processes", processes), |bencher| {
            bencher.iter(|| world.report(LONG, inline));
        });
    }
    group.finish();
}

/// The handles of a graph go one by one, when all of it is done.
fn releases(criterion: &mut Criterion) {
    const TASKS: u32 = 1 << 13;
    let setup = || {
        let mut world = World::with_processes(1, 2);
        let payload = values(TASKS);
        let batch = Batch {
            shapes: vec![shape(0)],
            shape_of: vec![0; TASKS as usize],
            payload,
            edge_ends: vec![0; TASKS as usize],
            edges: Vec::new(),
        };
        world.say(FromClient::SubmitBatch { number: 0, batch, parent: None });
        while world.report(Duration::from_micros(1), inline) {}
        world
    };
    let run = |mut world: World| {
        let array = ArrayId { client: world.client, number: 0 };
        for index in 0..TASKS {
            world.say(FromClient::Release { ranges: vec![(array, Range::one(index))] });
        }
        assert_eq!(world.scheduler.status().done, 0);
        world
    };
    let mut group = criterion.benchmark_group("release");
    group.throughput(Throughput::Elements(TASKS.into()));
    group.bench_function("tasks of a graph one by one", |bencher| {
        bencher.iter_batched(setup, run, BatchSize::LargeInput);
    });
    group.finish();
}

/// A process joins when another one has all there is: asked, answered, assigned anew.
fn steals(criterion: &mut Criterion) {
    const TASKS: u32 = 150;
    const TASK: Duration = Duration::from_micros(50);
    let setup = || {
        let mut world = World::with_processes(1, 1);
        world.submit_array(TASKS);
        let mut reported = 0;
        while world.assigned.iter().map(|(_, one)| one.range.len()).sum::<u32>() + reported < TASKS
        {
            reported += world.assigned[0].1.range.len();
            world.report(TASK, inline);
        }
        world
    };
    let run = |mut world: World| {
        world.add_process(1);
        let Some((victim, ToProcess::Steal { steal, assignment, count })) = world.steals.pop()
        else {
            panic!("an idle process steals");
        };
        let of = |one: &&(ProcessId, Assign)| one.1.assignment == assignment;
        let end = world.assigned.iter().find(of).expect("it was assigned").1.range.end;
        let ranges = vec![Range::new(end - count, end)];
        let gave_up = FromProcess::GaveUp { steal, assignment, ranges };
        world.scheduler.handle_process(Time(0), victim, gave_up);
        world.settle();
        let (thief, _) = world.assigned.back().expect("something is assigned");
        assert_ne!(*thief, victim);
        world
    };
    criterion.bench_function("join and steal", |bencher| {
        bencher.iter_batched(setup, run, BatchSize::SmallInput);
    });
}

/// A process is lost with what it ran, or with results that only it had.
fn losses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a process is lost");
    for tasks in [1, 100, 10_000] {
        group.throughput(Throughput::Elements(tasks.into()));
        for (what, is_done) in [("with its runs", false), ("with results", true)] {
            group.bench_function(BenchmarkId::new(what, tasks), |bencher| {
                let setup = || {
                    let mut world = World::with_processes(1, tasks);
                    world.submit_array(tasks);
                    if is_done {
                        world.report(LONG, |count| End::Stored(vec![1 << 20; count as usize]));
                    }
                    world
                };
                let run = |mut world: World| {
                    world.scheduler.handle_link_lost(Time(0), Peer::Process(world.processes[0]));
                    world.settle();
                    assert_eq!(world.scheduler.status().ready, u64::from(tasks));
                    world
                };
                bencher.iter_batched(setup, run, BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}

/// A tree of sums, by one record per task: submitted, run and reported.
fn graphs(criterion: &mut Criterion) {
    const LEAVES: u32 = 1 << 12;
    const TASKS: u32 = 2 * LEAVES - 1;
    let batch = |client: ClientId| {
        let array = ArrayId { client, number: 0 };
        let (mut edges, mut edge_ends, mut shape_of) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..TASKS {
            // Task `LEAVES + k` takes tasks `2 k` and `2 k + 1`.
            if let Some(pair) = index.checked_sub(LEAVES) {
                let edge = |index| Edge { task: TaskId { array, index }, part: 0 };
                edges.extend([edge(2 * pair), edge(2 * pair + 1)]);
            }
            shape_of.push(u16::from(index >= LEAVES));
            edge_ends.push(edges.len() as u32);
        }
        let mut payload = BlobBuilder::new();
        (0..TASKS).for_each(|index| payload.push(if index < LEAVES { &[7; 8] } else { &[] }));
        let shapes = vec![shape(0), shape(2)];
        Batch { shapes, shape_of, payload: payload.build(), edge_ends, edges }
    };
    let setup = || {
        let world = World::with_processes(1, 2);
        let batch = batch(world.client);
        (world, batch)
    };
    let run = |(mut world, batch): (World, Batch)| {
        world.say(FromClient::SubmitBatch { number: 0, batch, parent: None });
        while world.report(Duration::from_micros(1), inline) {}
        assert_eq!(world.scheduler.status().done, u64::from(TASKS));
        world
    };
    let mut group = criterion.benchmark_group("graph");
    group.throughput(Throughput::Elements(TASKS.into()));
    group.bench_function("tasks with two inputs", |bencher| {
        bencher.iter_batched(setup, run, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = ranges, sizes, busy_sizes, releases, steals, losses, graphs
}
criterion_main!(benches);
