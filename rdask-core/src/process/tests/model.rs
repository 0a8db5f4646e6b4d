//! Random events against a naive model of every single task: each is answered exactly once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::process::kept::first_of;
use crate::range::RangeSet;

/// What became of one task of one assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Queued,
    Running(ChunkId),
    Answered,
}

/// One random step; the numbers choose among what is possible then.
#[derive(Clone, Debug)]
enum Step {
    Assign {
        len: u32,
        inputs: u8,
        kind: u8,
        pick: u32,
    },
    EndChunk {
        pick: u32,
        stop_early: bool,
        kind: u8,
    },
    Fetched {
        pick: u32,
        well: bool,
    },
    Steal {
        pick: u32,
        count: u32,
    },
    Cancel {
        pick: u32,
        from: u32,
        len: u32,
    },
    Drop {
        pick: u32,
        from: u32,
        len: u32,
    },
    SetSlots {
        slots: u32,
    },
    Park {
        pick: u32,
    },
    Unpark {
        pick: u32,
    },
    Seen,
    Pass {
        micros: u64,
    },
    Put,
    Acquire {
        pick: u32,
        len: u32,
    },
    /// The scheduler has given the process up and takes it back.
    Return,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u32..30, 0u8..4, any::<u8>(), any::<u32>())
            .prop_map(|(len, inputs, kind, pick)| Step::Assign { len, inputs, kind, pick }),
        12 => (any::<u32>(), prop::bool::weighted(0.1), any::<u8>())
            .prop_map(|(pick, stop_early, kind)| Step::EndChunk { pick, stop_early, kind }),
        4 => (any::<u32>(), prop::bool::weighted(0.7))
            .prop_map(|(pick, well)| Step::Fetched { pick, well }),
        2 => (any::<u32>(), 0u32..20).prop_map(|(pick, count)| Step::Steal { pick, count }),
        1 => (any::<u32>(), 0u32..20, 1u32..20)
            .prop_map(|(pick, from, len)| Step::Cancel { pick, from, len }),
        1 => (any::<u32>(), 0u32..20, 1u32..20)
            .prop_map(|(pick, from, len)| Step::Drop { pick, from, len }),
        1 => (0u32..5).prop_map(|slots| Step::SetSlots { slots }),
        1 => any::<u32>().prop_map(|pick| Step::Park { pick }),
        2 => any::<u32>().prop_map(|pick| Step::Unpark { pick }),
        1 => Just(Step::Seen),
        3 => (1u64..4000).prop_map(|micros| Step::Pass { micros }),
        1 => Just(Step::Put),
        2 => (any::<u32>(), 1u32..5).prop_map(|(pick, len)| Step::Acquire { pick, len }),
        1 => prop::bool::weighted(0.3)
            .prop_map(|returns| if returns { Step::Return } else { Step::Seen }),
    ]
}

/// The process, what its surroundings know, and what is true of each task.
struct World {
    process: Process,
    now: Time,
    fates: BTreeMap<(AssignmentId, u32), Fate>,
    arrays: BTreeMap<u32, (AssignmentId, Range, bool)>,
    chunks: BTreeMap<ChunkId, StartChunk>,
    fetches: BTreeMap<ValueId, ProcessId>,
    store: BTreeSet<ValueId>,
    parked: BTreeSet<ChunkId>,
    dropped: BTreeSet<TaskId>,
    /// What was to be acquired and is not answered.
    acquiring: BTreeSet<TaskId>,
    /// Chunks of before it was given up.
    void: BTreeSet<ChunkId>,
    offered: BTreeSet<TaskId>,
    reports: u64,
    next: u32,
    /// A source of cheap variety that the steps advance.
    noise: u32,
}

fn choose<T: Copy>(mut all: impl ExactSizeIterator<Item = T>, pick: u32) -> Option<T> {
    let len = all.len();
    if len == 0 { None } else { all.nth(pick as usize % len) }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            process: Process::new(ME, 2),
            now: Time(0),
            fates: BTreeMap::new(),
            arrays: BTreeMap::new(),
            chunks: BTreeMap::new(),
            fetches: BTreeMap::new(),
            store: BTreeSet::new(),
            parked: BTreeSet::new(),
            dropped: BTreeSet::new(),
            acquiring: BTreeSet::new(),
            void: BTreeSet::new(),
            offered: BTreeSet::new(),
            reports: 0,
            next: 0,
            noise: 1,
        };
        world.introduce();
        world
    }

    fn introduce(&mut self) {
        for process in [OTHER, THIRD] {
            let contact = contact();
            self.tell(ToProcess::Peer { process, contact });
        }
    }

    fn come_back(&mut self) {
        self.fates.values_mut().for_each(|fate| *fate = Fate::Answered);
        self.void.extend(self.chunks.keys());
        self.acquiring.clear();
        self.reports = 0;
        self.process.handle_returned(self.now, ME);
        self.drain();
        self.introduce();
        self.tell(ToProcess::SetSlots { slots: 2 });
    }

    /// Exactly what is here is offered, and only once.
    fn offered(&mut self, values: Vec<Offered>, is_last: bool) {
        for Offered { array, range, what } in values {
            if !matches!(what, Offering::Inline { .. }) {
                let tasks = range.iter().map(|index| TaskId { array, index });
                tasks.for_each(|task| assert!(self.offered.insert(task), "{task} again"));
            }
        }
        if is_last {
            let there: BTreeSet<TaskId> = self.store.iter().map(|value| value.task).collect();
            assert_eq!(std::mem::take(&mut self.offered), there);
        }
    }

    fn tell(&mut self, message: ToProcess) {
        self.process.handle_message(self.now, message);
    }

    fn noise(&mut self) -> u32 {
        self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.noise >> 8
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Assign { len, inputs, kind, pick } => self.assign(len, inputs, kind, pick),
            Step::EndChunk { pick, stop_early, kind } => {
                if let Some(chunk) = choose(self.chunks.keys().copied(), pick)
                    && !self.parked.contains(&chunk)
                {
                    self.end_chunk(chunk, stop_early, kind);
                }
            }
            Step::Fetched { pick, well } => {
                let fetch = choose(self.fetches.iter().map(|(a, b)| (*a, *b)), pick);
                if let Some((value, holder)) = fetch {
                    self.fetches.remove(&value);
                    if well {
                        self.store.insert(value);
                        let took = Duration::from_micros(1);
                        self.process.handle_fetched(self.now, value, 100, took);
                    } else {
                        self.process.handle_fetch_failed(self.now, value, holder, pick % 2 == 0);
                    }
                }
            }
            Step::Steal { pick, count } => {
                if let Some((assignment, ..)) = choose(self.arrays.values().copied(), pick) {
                    let steal = StealId(1);
                    self.tell(ToProcess::Steal { steal, assignment, count });
                }
            }
            Step::Cancel { pick, from, len } => {
                if let Some(number) = choose(self.arrays.keys().copied(), pick) {
                    let range = Range::new(from, from + len);
                    self.tell(ToProcess::Cancel { array: array(number), range });
                }
            }
            Step::Drop { pick, from, len } => {
                if let Some(number) = choose(self.arrays.keys().copied(), pick) {
                    let range = Range::new(from, from + len);
                    self.dropped.extend(range.iter().map(|index| task(number, index)));
                    self.tell(ToProcess::Drop { ranges: vec![(array(number), range)] });
                }
            }
            Step::SetSlots { slots } => self.tell(ToProcess::SetSlots { slots }),
            Step::Park { pick } => {
                if let Some(chunk) = choose(self.chunks.keys().copied(), pick)
                    && self.parked.insert(chunk)
                {
                    self.process.handle_parked(self.now, chunk);
                }
            }
            Step::Unpark { pick } => {
                if let Some(chunk) = choose(self.parked.iter().copied(), pick) {
                    self.process.handle_unpark_wanted(self.now, chunk);
                }
            }
            Step::Seen => self.tell(ToProcess::Seen { report: self.reports }),
            Step::Pass { micros } => {
                self.now = self.now + Duration::from_micros(micros);
                self.process.handle_timeout(self.now);
            }
            Step::Acquire { pick, len } => self.acquire(pick, len),
            Step::Return => self.come_back(),
            Step::Put => {
                let number = self.next;
                self.next += 1;
                let id = AssignmentId(u64::from(number));
                self.fates.insert((id, 0), Fate::Queued);
                self.arrays.insert(number, (id, Range::one(0), false));
                self.store.insert(value(number, 0));
                self.process.handle_put(self.now, task(number, 0), id, 4);
            }
        }
        self.drain();
    }

    fn acquire(&mut self, pick: u32, len: u32) {
        let known = choose(self.arrays.iter().map(|(n, (_, range, _))| (*n, *range)), pick);
        let (number, range) = match known.filter(|_| pick.is_multiple_of(3)) {
            Some(here) => here,
            None => (1_000_000, Range::new(pick % 50, pick % 50 + len)),
        };
        let fresh = range.iter().filter(|index| self.acquiring.insert(task(number, *index)));
        let fresh: RangeSet = fresh.map(Range::one).collect();
        for range in fresh.iter() {
            let array = array(number);
            self.tell(ToProcess::Acquire { array, range, parts: 1, holder: OTHER });
        }
    }

    /// One source: of an earlier array here, or of an array elsewhere.
    fn source(&mut self, pick: u32) -> Source {
        let earlier = choose(self.arrays.iter().map(|(n, (_, range, _))| (*n, *range)), pick);
        let index = self.noise();
        match (earlier, index % 4) {
            (Some((number, range)), 0) => {
                source(number, range.start + index / 4 % range.len(), Place::Here)
            }
            (Some((number, range)), 1) => {
                let index = range.start + index / 4 % range.len();
                source(number, index, Place::Held(vec![OTHER, ME]))
            }
            (_, 2) => source(1_000_000, index / 4 % 9, Place::Inline(Bytes::new())),
            _ => source(1_000_000, index / 4 % 50, Place::Held(vec![OTHER, THIRD])),
        }
    }

    fn assign(&mut self, len: u32, inputs: u8, kind: u8, pick: u32) {
        let number = self.next;
        self.next += 1;
        let range = Range::new(pick % 5, pick % 5 + len);
        let feed = match inputs {
            1 => Feed::One(self.source(pick)),
            2 => Feed::Each(range.iter().map(|_| self.source(pick)).collect()),
            3 => Feed::Lists(
                range
                    .iter()
                    .map(|index| (0..index % 3).map(|_| self.source(pick)).collect())
                    .collect(),
            ),
            _ => Feed::Inline,
        };
        let id = u64::from(number);
        let mut assign = assign(id, number, range, vec![Feed::Inline, feed]);
        assign.function = FunctionKey(u64::from(kind % 3));
        assign.depth = u16::from(kind / 3 % 2);
        assign.nested_here = assign.depth > 0;
        assign.threads = 1 + u16::from(kind.is_multiple_of(7));
        assign.timeout = (kind.is_multiple_of(11)).then_some(Duration::from_millis(2));
        self.arrays.insert(number, (AssignmentId(id), range, assign.timeout.is_some()));
        for index in range {
            self.fates.insert((AssignmentId(id), index), Fate::Queued);
        }
        self.tell(ToProcess::Assign(assign));
    }

    fn end_chunk(&mut self, id: ChunkId, stop_early: bool, kind: u8) {
        let start = self.chunks.remove(&id).expect("it was chosen");
        let (number, range) = (start.assign.array.number, start.range);
        let ran =
            if stop_early { Range::new(range.start, range.start + range.len() / 2) } else { range };
        for index in range {
            let key = (start.assign.assignment, index);
            if self.fates[&key] == Fate::Running(id) {
                self.fates.insert(key, Fate::Queued);
            }
        }
        let mut end = ChunkEnd {
            ended: Vec::new(),
            busy: Duration::from_micros(u64::from(kind)) * ran.len(),
        };
        for index in ran {
            let one = Range::one(index);
            let how = match (u32::from(kind) + index) % 7 {
                0 => {
                    self.store.insert(value(number, index));
                    End::Stored(vec![2000])
                }
                1 => {
                    let kind = FailureKind::Panicked;
                    End::Failed(Failure::of_scheduler(kind, "", task(number, index)))
                }
                _ => inline_end(one),
            };
            end.ended.push((one, how));
        }
        self.process.handle_chunk_ended(self.now, id, end);
    }

    fn drain(&mut self) {
        while let Some(action) = self.process.poll_action() {
            match action {
                Action::StartChunk(start) => self.started(start),
                Action::TakeBack(chunk) => {
                    let Some(start) = self.chunks.get_mut(&chunk) else {
                        panic!("{chunk:?} taken back after its end")
                    };
                    let cut = start.range.start + 1;
                    let rest = Range::new(cut, start.range.end);
                    start.range.end = start.range.end.min(cut);
                    for index in rest.iter().filter(|_| !self.void.contains(&chunk)) {
                        let key = (start.assign.assignment, index);
                        self.fates.insert(key, Fate::Queued);
                    }
                    self.process.handle_taken_back(self.now, chunk, rest);
                }
                Action::CancelRunning(chunk, _) => assert!(self.chunks.contains_key(&chunk)),
                Action::Resume(chunk) => assert!(self.parked.remove(&chunk)),
                Action::Fetch { value, holder, .. } => {
                    assert!(!self.store.contains(&value), "fetched what is here");
                    assert!(self.fetches.insert(value, holder).is_none());
                    assert!(self.fetches.len() <= FETCHES_MAX);
                }
                Action::DropValues(array, range) => {
                    let (from, to) = (first_of(array, range.start), first_of(array, range.end));
                    self.store.retain(|value| *value < from || *value >= to);
                }
                Action::DropReplica(value) => assert!(self.store.remove(&value)),
                Action::Send(message) => self.sent(message),
                Action::Exit { reason } => panic!("{reason}"),
            }
        }
    }

    fn started(&mut self, start: StartChunk) {
        let assign = &start.assign;
        assert!(!start.range.is_empty());
        for index in start.range {
            let key = (assign.assignment, index);
            let before = self.fates.insert(key, Fate::Running(start.chunk));
            assert_eq!(before, Some(Fate::Queued), "{key:?}");
            let position = (index - assign.range.start) as usize;
            for feed in &assign.params {
                let sources = match feed {
                    Feed::Inline => &[],
                    Feed::One(source) => std::slice::from_ref(source),
                    Feed::Each(sources) => std::slice::from_ref(&sources[position]),
                    Feed::List(sources) => sources.as_slice(),
                    Feed::Lists(lists) => lists[position].as_slice(),
                };
                for source in sources.iter().filter(|source| !is_inline(source)) {
                    let value = ValueId::of(source);
                    assert!(
                        self.store.contains(&value) || start.small.contains_key(&value),
                        "{value:?} is missing for {key:?}"
                    );
                }
            }
        }
        self.chunks.insert(start.chunk, start);
    }

    fn answer(&mut self, assignment: AssignmentId, range: Range, may_run: bool) {
        for index in range {
            let key = (assignment, index);
            let before = self.fates.insert(key, Fate::Answered);
            let runs = matches!(before, Some(Fate::Running(_)));
            assert!(before == Some(Fate::Queued) || (may_run && runs), "{key:?} was {before:?}");
        }
    }

    fn sent(&mut self, message: FromProcess) {
        match message {
            FromProcess::Report { number, finished } => {
                assert_eq!(number, self.reports + 1);
                self.reports = number;
                for entry in finished {
                    let may_run = matches!(&entry.end, End::Failed(_));
                    self.answer(entry.assignment, entry.range, may_run);
                }
            }
            FromProcess::GaveUp { assignment, ranges, .. } => {
                for range in ranges {
                    self.answer(assignment, range, false);
                }
            }
            FromProcess::Missed { given_back, .. } => {
                for (assignment, range) in given_back {
                    self.answer(assignment, range, false);
                }
            }
            FromProcess::SlotsFree { .. }
            | FromProcess::Parked { .. }
            | FromProcess::Fetched { .. }
            | FromProcess::Stopped { .. } => {}
            FromProcess::Holds { values } => {
                for ValueId { task, .. } in values {
                    self.acquiring.remove(&task);
                }
            }
            FromProcess::Offer { values, is_last } => self.offered(values, is_last),
            FromProcess::NotAcquired { task } => {
                assert!(self.acquiring.remove(&task), "{task} was answered twice");
            }
        }
    }

    /// Faults have stopped: everything must end.
    fn finish(&mut self) {
        self.tell(ToProcess::SetSlots { slots: 2 });
        self.drain();
        for round in 0..10_000u32 {
            if self.chunks.is_empty() && self.fetches.is_empty() && self.process.is_idle() {
                break;
            }
            let parked: Vec<ChunkId> = self.parked.iter().copied().collect();
            for chunk in parked {
                self.process.handle_unpark_wanted(self.now, chunk);
            }
            self.drain();
            self.step(Step::Fetched { pick: round, well: round % 3 == 0 });
            self.step(Step::EndChunk { pick: round, stop_early: false, kind: 5 });
            self.step(Step::Pass { micros: 100 });
        }
        self.step(Step::Pass { micros: 10_000 });
        assert!(self.process.is_idle(), "{:?}", self.process);
        assert_eq!(self.process.poll_timeout(), None);
        assert!(self.process.inputs.all.is_empty(), "{:?}", self.process.inputs);
        assert!(self.process.owed.is_empty());
        assert!(self.acquiring.is_empty(), "not answered: {:?}", self.acquiring);
        for (key, fate) in &self.fates {
            assert_eq!(*fate, Fate::Answered, "{key:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_assigned_task_is_answered_exactly_once(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
    }
}
