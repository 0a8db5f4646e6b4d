//! What reductions and shuffles of large values move, in virtual time: the real scheduler and real
//! processes, with links, slots and bodies that take so long.
//!
//! The least that a reduction moves between P processes is P - 1 values: of all but one their sum.
//! The least that a shuffle moves is what is not where it is needed: 1 - 1/P of the data.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::world::Dice;
use crate::blob::BlobBuilder;
use crate::id::*;
use crate::message::*;
use crate::process::{Action as Do, ChunkEnd, ChunkId, Process, StartChunk, ValueId};
use crate::range::Range;
use crate::scheduler::{Action, ClientInfo, Config, NannyInfo, Scheduler};
use crate::time::Time;

/// What a message takes from here to there.
const DELAY: u64 = 100_000;

/// The bytes of every task's result, all outputs together.
const BYTES: u64 = 1 << 20;

/// What moving a value takes, beyond its bytes at a gigabyte per second.
const FETCH_NS: u64 = FETCH_TIME.as_nanos() as u64 / 4;

const PROGRAM: ProgramHash = ProgramHash([1; 32]);

/// Functions by how long a run takes: so many microseconds, and as many more per input.
fn function(base_us: u32, input_us: u32) -> FunctionKey {
    FunctionKey(u64::from(base_us) << 32 | u64::from(input_us))
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    ToScheduler(ProcessId, u64),
    ToProcess(ProcessId, u64),
    /// A chunk ends, if it still has so many tasks.
    ChunkEnds(ProcessId, ChunkId, u32),
    Fetched(ProcessId, ValueId, u64),
}

struct Chunk {
    start: StartChunk,
    /// When each of its tasks ends.
    ends: Vec<u64>,
    begun: u64,
}

struct Node {
    core: Process,
    chunks: BTreeMap<ChunkId, Chunk>,
    /// When its link has carried all that it is to fetch.
    link_free: u64,
}

struct Cluster {
    scheduler: Scheduler,
    client: ClientId,
    nodes: BTreeMap<ProcessId, Node>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    to_scheduler: BTreeMap<u64, FromProcess>,
    to_process: BTreeMap<u64, ToProcess>,
    count: u64,
    now: u64,
    dice: Dice,
    /// How many outputs the tasks of each array have.
    parts: Vec<u16>,
    moved: u64,
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

impl Cluster {
    fn new(seed: u64, processes: usize, slots: u32) -> Self {
        let mut scheduler = Scheduler::new(Config::default());
        let info = ClientInfo {
            program: ProgramInfo { hash: PROGRAM, size: 1, path: "p".into() },
            surroundings: Surroundings::default(),
            name: "moves".into(),
            nested_in: None,
        };
        let client = scheduler.connect_client(Time(0), info);
        let mut cluster = Self {
            scheduler,
            client,
            nodes: BTreeMap::new(),
            events: BinaryHeap::new(),
            to_scheduler: BTreeMap::new(),
            to_process: BTreeMap::new(),
            count: 0,
            now: 0,
            dice: Dice::new(seed),
            parts: Vec::new(),
            moved: 0,
        };
        for nth in 0..processes {
            cluster.join(nth, slots);
        }
        cluster.run();
        cluster
    }

    fn join(&mut self, nth: usize, slots: u32) {
        let name = format!("w{nth}");
        let worker = WorkerInfo { name, slots, memory_limit: 0, resources: Vec::new() };
        let (node, pool) = (format!("n{nth}"), "pool".to_owned());
        let info = NannyInfo { node, pool, workers: vec![worker], contact: contact() };
        self.scheduler.connect_nanny(Time(self.now), info);
        let launched = std::iter::from_fn(|| self.scheduler.poll_action()).find_map(|action| {
            let Action::ToNanny(_, ToNanny::Launch(launch)) = action else { return None };
            Some(launch.process)
        });
        let id = launched.expect("a process is launched");
        self.scheduler.connect_process(Time(self.now), id, contact()).unwrap();
        let node = Node { core: Process::new(id, 0), chunks: BTreeMap::new(), link_free: 0 };
        self.nodes.insert(id, node);
        self.scheduler_acts();
    }

    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, event)));
    }

    fn say(&mut self, message: FromClient) {
        self.scheduler.handle_client(Time(self.now), self.client, message);
    }

    fn array(&mut self, len: u32, function: FunctionKey, param: Param, parts: u16) -> ArrayId {
        let number = self.parts.len() as u32;
        self.parts.push(parts);
        let options = TaskOptions { parts, ..TaskOptions::default() };
        let is_inline = param == Param::Inline;
        let shape = Shape { function, name: "f".into(), params: vec![param], options };
        self.say(FromClient::SubmitArray { number, len, shape, parent: None });
        if is_inline {
            let mut payload = BlobBuilder::new();
            (0..len).for_each(|_| payload.push(b"x"));
            self.say(FromClient::Payload { number, payload: payload.build() });
        }
        ArrayId { client: self.client, number }
    }

    fn scheduler_acts(&mut self) {
        while let Some(action) = self.scheduler.poll_action() {
            if let Action::ToProcess(id, message) = action {
                self.count += 1;
                self.to_process.insert(self.count, message);
                self.at(self.now + DELAY, Event::ToProcess(id, self.count));
            }
        }
    }

    fn process_acts(&mut self, id: ProcessId) {
        let (now, mut new) = (self.now, Vec::new());
        let node = self.nodes.get_mut(&id).unwrap();
        while let Some(action) = node.core.poll_action() {
            match action {
                Do::StartChunk(start) => {
                    let chunk = begin(start, now, &mut self.dice);
                    let end = *chunk.ends.last().unwrap();
                    let (number, len) = (chunk.start.chunk, chunk.ends.len() as u32);
                    new.push((end, Event::ChunkEnds(id, number, len)));
                    node.chunks.insert(number, chunk);
                }
                Do::TakeBack(number) => {
                    let chunk = node.chunks.get_mut(&number).unwrap();
                    let begun = chunk.ends.iter().filter(|end| **end <= now).count() + 1;
                    let begun = begun.min(chunk.ends.len());
                    let first = chunk.start.range.start;
                    let all = first + chunk.ends.len() as u32;
                    chunk.ends.truncate(begun);
                    let left = Range::new(first + begun as u32, all);
                    let end = *chunk.ends.last().unwrap();
                    new.push((end, Event::ChunkEnds(id, number, begun as u32)));
                    node.core.handle_taken_back(Time(now), number, left);
                }
                Do::Fetch { value, .. } => {
                    let parts = self.parts[value.task.array.number as usize];
                    node.link_free = node.link_free.max(now) + BYTES / u64::from(parts);
                    let at = node.link_free + FETCH_NS;
                    new.push((at, Event::Fetched(id, value, at - now)));
                }
                Do::Send(message) => {
                    self.count += 1;
                    self.to_scheduler.insert(self.count, message);
                    new.push((now + DELAY, Event::ToScheduler(id, self.count)));
                }
                _ => {}
            }
        }
        new.into_iter().for_each(|(at, event)| self.at(at, event));
    }

    fn happen(&mut self, event: Event) {
        let now = Time(self.now);
        let id = match event {
            Event::ToScheduler(id, message) => {
                let message = self.to_scheduler.remove(&message).unwrap();
                self.scheduler.handle_process(now, id, message);
                return self.scheduler_acts();
            }
            Event::ToProcess(id, message) => {
                let message = self.to_process.remove(&message).unwrap();
                self.nodes.get_mut(&id).unwrap().core.handle_message(now, message);
                id
            }
            Event::ChunkEnds(id, number, len) => {
                let node = self.nodes.get_mut(&id).unwrap();
                if node.chunks.get(&number).is_none_or(|chunk| chunk.ends.len() as u32 != len) {
                    return;
                }
                let Chunk { start, begun, .. } = node.chunks.remove(&number).unwrap();
                let range = Range::new(start.range.start, start.range.start + len);
                let parts = u64::from(start.assign.parts);
                let sizes = vec![BYTES / parts; (u64::from(len) * parts) as usize];
                let busy = Duration::from_nanos(now.0 - begun);
                let end = ChunkEnd { ended: vec![(range, End::Stored(sizes))], busy };
                node.core.handle_chunk_ended(now, number, end);
                id
            }
            Event::Fetched(id, value, took) => {
                let parts = self.parts[value.task.array.number as usize];
                let bytes = BYTES / u64::from(parts);
                self.moved += bytes;
                let took = Duration::from_nanos(took);
                self.nodes.get_mut(&id).unwrap().core.handle_fetched(now, value, bytes, took);
                id
            }
        };
        self.process_acts(id);
    }

    /// Until nothing happens any more.
    fn run(&mut self) {
        self.scheduler_acts();
        loop {
            let timers = self.nodes.iter();
            let timers =
                timers.filter_map(|(id, node)| Some((node.core.poll_timeout()?, Some(*id))));
            let own = self.scheduler.poll_timeout().map(|time| (time, None));
            let timer = timers.chain(own).min();
            let next = self.events.peek().map(|Reverse((time, ..))| *time);
            let is_over =
                |status: ClusterStatus| status.waiting + status.ready + status.assigned == 0;
            if next.is_none() && is_over(self.scheduler.status()) {
                return;
            }
            match timer {
                Some((time, whose)) if next.is_none_or(|next| time.0 < next) => {
                    self.now = self.now.max(time.0);
                    match whose {
                        Some(id) => {
                            let node = self.nodes.get_mut(&id).unwrap();
                            node.core.handle_timeout(Time(self.now));
                            self.process_acts(id);
                        }
                        None => {
                            self.scheduler.handle_timeout(Time(self.now));
                            self.scheduler_acts();
                        }
                    }
                }
                _ => {
                    let Reverse((time, _, event)) = self.events.pop().expect("something happens");
                    self.now = time;
                    self.happen(event);
                }
            }
        }
    }
}

/// A body takes what its function says, more or less.
fn begin(start: StartChunk, now: u64, dice: &mut Dice) -> Chunk {
    let key = start.assign.function.0;
    let inputs = |index: u32| match &start.assign.params[0] {
        Feed::Lists(lists) => lists[(index - start.assign.range.start) as usize].len() as u64,
        _ => 0,
    };
    let mut end = now;
    let mut ends = Vec::new();
    for index in start.range {
        let usual = ((key >> 32) + (key & 0xFFFF_FFFF) * inputs(index)) * 1000;
        end += usual * 3 / 4 + dice.below(usual / 2 + 1);
        ends.push(end);
    }
    Chunk { start, ends, begun: now }
}

/// Adds so many values up, as clients do: by eights, and by twos at the top. How many values move?
fn reduction(seed: u64, processes: usize, slots: u32, n: u32) -> u64 {
    let mut cluster = Cluster::new(seed, processes, slots);
    let mut array = cluster.array(n, function(500, 0), Param::Inline, 1);
    let mut end = n;
    while end > 1 {
        let width = if end > 64 { 8 } else { 2 };
        let param = Param::Block { array, start: 0, end, width };
        end = end.div_ceil(width);
        array = cluster.array(end, function(50, 120), param, 1);
    }
    cluster.run();
    cluster.moved / BYTES
}

/// Regroups so many values to as many others. How many bytes move?
fn shuffle(seed: u64, processes: usize, slots: u32, n: u16) -> u64 {
    let mut cluster = Cluster::new(seed, processes, slots);
    let len = u32::from(n);
    let array = cluster.array(len, function(800, 0), Param::Inline, n);
    let param = Param::Shuffle { array, range: Range::new(0, len), first: 0 };
    cluster.array(len, function(50, 30), param, 1);
    cluster.run();
    cluster.moved
}

#[test]
fn a_reduction_moves_little_more_than_it_has_to() {
    for (processes, slots) in [(2, 1), (2, 2), (4, 1), (4, 2), (8, 1)] {
        let least = processes as u64 - 1;
        for seed in 0..6 {
            let moved = reduction(seed, processes, slots, 64);
            assert!(moved >= least, "{moved} values: nothing was computed");
            // One more for each process, since no two of them are equally quick.
            assert!(
                moved <= 2 * least + 1,
                "{moved} of 64 values move between {processes} processes of {slots} slots, where \
                 {least} would do (seed {seed})"
            );
        }
    }
}

#[test]
fn a_shuffle_moves_each_piece_once_at_most() {
    for (processes, slots, n) in [(2, 1, 16), (2, 2, 16), (4, 1, 16)] {
        let all = u64::from(n) * BYTES;
        let least = all / processes as u64 * (processes as u64 - 1);
        for seed in 0..3 {
            let moved = shuffle(seed, processes, slots, n);
            // Who has more of the pieces than others moves fewer.
            assert!(moved > least / 2, "{moved} bytes: nothing was computed");
            assert!(
                moved <= least + all / 8,
                "{} MiB of {n} move between {processes} processes of {slots} slots, where {} would do \
                 (seed {seed})",
                moved >> 20,
                least >> 20
            );
        }
    }
}
