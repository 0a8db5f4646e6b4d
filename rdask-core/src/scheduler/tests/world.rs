//! A cluster of fakes around the real scheduler: processes compute by the rules of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::blob::{Blob, BlobBuilder};
use crate::failure::{Failure, FailureKind};
use crate::id::*;
use crate::message::*;
use crate::range::{Range, RangeSet};
use crate::scheduler::{Action, ClientInfo, Config, NannyInfo, Policy, Scheduler};
use crate::time::Time;

/// A small generator of its own, so that a failing seed outlives any library.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn mix(x: u64) -> u64 {
    let z = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The value of a task: it tells the function, the payload and each input in order.
fn value_of(function: u64, payload: &[u8], inputs: &[u64]) -> u64 {
    let start = payload.iter().fold(mix(function), |sum, byte| mix(sum ^ u64::from(*byte)));
    inputs.iter().fold(start, |sum, input| mix(sum.wrapping_mul(31) ^ input))
}

/// What each output of a task is, given the value that tells what it was made from.
fn part_value(value: u64, part: u16) -> u64 {
    if part == 0 { value } else { mix(value ^ u64::from(part)) }
}

/// Whether the model keeps a value inline or with the process.
fn is_inline(value: u64) -> bool {
    !value.is_multiple_of(3)
}

pub(super) const POISON: u64 = 13;

/// Some tasks of this function end their process, each time.
const KILLER: u64 = 14;

fn is_killer(function: u64, index: u32) -> bool {
    function == KILLER && index % 5 == 2
}

#[derive(Default)]
struct FakeProcess {
    assigned: Vec<(Assign, RangeSet)>,
    values: BTreeMap<ValueId, u64>,
    /// Small results, for tasks that follow. It keeps them for ever.
    small: BTreeMap<TaskId, u64>,
    reports: u64,
    slots: u32,
    steals: Vec<(StealId, AssignmentId, u32)>,
    /// Copies that it was told to make, and from whom.
    acquiring: Vec<(TaskId, ProcessId)>,
    /// By which assignment, and in which run, the values were made that are its own.
    made: BTreeMap<TaskId, (AssignmentId, u32)>,
    /// Small results that the scheduler never heard of: of which task and run.
    unheard: Vec<(TaskId, u32, u64)>,
}

/// A node that was given up, and what it has.
struct Away {
    nanny: NannyId,
    workers: Vec<WorkerInfo>,
    processes: Vec<(ProcessId, u32, FakeProcess)>,
}

/// Whether a process is to run `missed` before `task`. What stands before a task of the same
/// assignment was to run before.
fn owes(process: &FakeProcess, missed: TaskId, task: TaskId) -> bool {
    process.assigned.iter().any(|(assign, remaining)| {
        assign.array == missed.array
            && remaining.contains(missed.index)
            && !(missed.array == task.array
                && missed.index < task.index
                && remaining.contains(task.index))
    })
}

/// What the client knows should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Value(u64),
    Failure,
    /// It ends its process.
    Death,
}

/// What a nanny has to say of a process that is gone.
struct Obituary {
    nanny: NannyId,
    process: ProcessId,
    exit: Exit,
    board: Vec<(TaskId, u32)>,
}

pub(super) struct World {
    dice: Dice,
    now: Time,
    pub(super) scheduler: Scheduler,
    processes: BTreeMap<ProcessId, FakeProcess>,
    launching: Vec<(NannyId, ProcessId)>,
    nanny_of: BTreeMap<ProcessId, NannyId>,
    obituaries: Vec<Obituary>,
    /// Processes that each killer has ended, and those of them that may not count against it:
    /// since its nanny never told, or told when it ran again already.
    deaths: BTreeMap<TaskId, (u32, u32)>,
    is_murderous: bool,
    calm: bool,
    nannies: Vec<NannyId>,
    gone: Vec<NannyId>,
    noticed: BTreeSet<NannyId>,
    nannies_ever: u32,
    pools: BTreeMap<NannyId, String>,
    client: ClientId,
    expected: BTreeMap<TaskId, Expected>,
    arrays: Vec<(ArrayId, u32)>,
    /// How many outputs the tasks of an array have, if not one.
    parts: BTreeMap<ArrayId, u16>,
    next_number: u32,
    wanted: BTreeSet<TaskId>,
    told: BTreeMap<TaskId, u32>,
    to_fetch: Vec<(TaskId, ProcessId)>,
    cancelled: BTreeSet<TaskId>,
    scattered: BTreeMap<TaskId, u64>,
    /// What each task takes.
    inputs: BTreeMap<TaskId, Vec<ValueId>>,
    steps: u64,
    losses: bool,
    /// Workers leave in good order, and nothing else goes wrong: no task may run twice.
    gentle: bool,
    /// How often each task has ended well.
    runs: BTreeMap<TaskId, u32>,
    /// For links alone, so that a seed means the same as before there were any.
    link_dice: Dice,
    silent: BTreeSet<Peer>,
    workers_of: BTreeMap<NannyId, (Vec<WorkerInfo>, Vec<WorkerId>)>,
    worker_of: BTreeMap<ProcessId, WorkerId>,
    away: Vec<Away>,
    /// Processes that were given up and are to be kept: their new numbers.
    kept: Vec<(ProcessId, FakeProcess)>,
    trace: Vec<String>,
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        // In some runs the scheduler soon has no room for results.
        let result_bytes_max = if dice.chance(20) { 40 } else { u64::MAX };
        let policy = match dice.chance(25) {
            true => Policy::Random { seed: dice.roll() },
            false => Policy::Locality,
        };
        let config = Config { result_bytes_max, policy, ..Config::default() };
        let mut scheduler = Scheduler::new(config);
        let info = ClientInfo {
            program: ProgramInfo { hash: ProgramHash([7; 32]), size: 1, path: "p".into() },
            surroundings: Surroundings::default(),
            name: "model".into(),
            nested_in: None,
        };
        let client = scheduler.connect_client(Time(0), info);
        let losses = dice.chance(70);
        let gentle = !losses && dice.chance(70);
        let is_murderous = losses && dice.chance(30);
        let mut world = Self {
            dice,
            now: Time(0),
            scheduler,
            processes: BTreeMap::new(),
            launching: Vec::new(),
            nanny_of: BTreeMap::new(),
            obituaries: Vec::new(),
            deaths: BTreeMap::new(),
            is_murderous,
            calm: false,
            nannies: Vec::new(),
            gone: Vec::new(),
            noticed: BTreeSet::new(),
            nannies_ever: 0,
            pools: BTreeMap::new(),
            client,
            expected: BTreeMap::new(),
            arrays: Vec::new(),
            parts: BTreeMap::new(),
            next_number: 0,
            wanted: BTreeSet::new(),
            told: BTreeMap::new(),
            to_fetch: Vec::new(),
            cancelled: BTreeSet::new(),
            scattered: BTreeMap::new(),
            inputs: BTreeMap::new(),
            steps: 0,
            losses,
            gentle,
            runs: BTreeMap::new(),
            link_dice: Dice(!seed),
            silent: BTreeSet::new(),
            workers_of: BTreeMap::new(),
            worker_of: BTreeMap::new(),
            away: Vec::new(),
            kept: Vec::new(),
            trace: Vec::new(),
        };
        world.add_nanny();
        world
    }

    fn note(&mut self, line: String) {
        self.trace.push(line);
    }

    fn say(&mut self, message: FromClient) {
        self.note(format!("client: {message:?}"));
        self.scheduler.handle_client(self.now, self.client, message);
        self.react();
    }

    fn hear(&mut self, from: ProcessId, message: FromProcess) {
        self.note(format!("{from}: {message:?}"));
        self.scheduler.handle_process(self.now, from, message);
        self.react();
        self.lose_gone();
    }

    fn add_nanny(&mut self) {
        let count = 1 + self.dice.below(2);
        let workers: Vec<WorkerInfo> = (0..count)
            .map(|nth| WorkerInfo {
                name: format!("w{}-{nth}", self.nannies_ever),
                slots: 1 + self.dice.below(3) as u32,
                memory_limit: 0,
                resources: Vec::new(),
            })
            .collect();
        let pool = format!("p{}", self.nannies_ever);
        self.nannies_ever += 1;
        self.join(pool, workers);
        self.react();
    }

    fn join(&mut self, pool: String, workers: Vec<WorkerInfo>) -> NannyId {
        let (node, copy) = ("n".into(), workers.clone());
        let info = NannyInfo { node, pool: pool.clone(), workers, contact: contact() };
        let (nanny, ids) = self.scheduler.connect_nanny(self.now, info);
        self.nannies.push(nanny);
        self.pools.insert(nanny, pool);
        self.workers_of.insert(nanny, (copy, ids));
        self.note(format!("{nanny} joins"));
        nanny
    }

    /// A process is given up with its node: it goes on for itself, and may finish something.
    fn give_up(&mut self, nanny: NannyId, id: ProcessId, worker: u32) {
        let Some(mut fake) = self.processes.remove(&id) else { return };
        let assigned = std::mem::take(&mut fake.assigned);
        self.processes.insert(id, fake);
        let mut ended = Vec::new();
        for (assign, remaining) in assigned.iter().filter(|(assign, _)| assign.threads > 0) {
            for index in remaining.iter().flatten() {
                let function = assign.function.0;
                let fails = is_killer(function, index) || (function == POISON && index % 5 == 1);
                let computed = self.compute(id, assign, index, &mut Vec::new());
                if !fails
                    && self.link_dice.chance(40)
                    && let Ok(value) = computed
                {
                    ended.push((assign.clone(), index, value));
                }
            }
        }
        let Some(mut fake) = self.processes.remove(&id) else { return };
        for (assign, index, value) in ended {
            let task = TaskId { array: assign.array, index };
            let run = crate::process::run_number(&assign, index);
            if assign.parts == 1 && is_inline(value) {
                fake.unheard.push((task, run, value));
            } else {
                let output = |part| (ValueId { task, part }, part_value(value, part));
                fake.values.extend((0..assign.parts).map(output));
                fake.made.insert(task, (assign.assignment, run));
            }
        }
        fake.steals.clear();
        fake.acquiring.clear();
        fake.slots = 0;
        match self.away.iter_mut().find(|away| away.nanny == nanny) {
            Some(away) => away.processes.push((id, worker, fake)),
            None => {
                let workers = self.workers_of[&nanny].0.clone();
                self.away.push(Away { nanny, workers, processes: vec![(id, worker, fake)] });
            }
        }
    }

    /// A node that was given up is back.
    fn node_returns(&mut self) {
        if self.away.is_empty() {
            return;
        }
        let nth = self.link_dice.below(self.away.len() as u64) as usize;
        let Away { nanny, workers, mut processes } = self.away.swap_remove(nth);
        let returning: Vec<Returning> = processes
            .iter()
            .map(|(was, worker, _)| Returning {
                was: *was,
                worker: *worker,
                program: ProgramHash([7; 32]),
            })
            .collect();
        let now = self.join(self.pools[&nanny].clone(), workers);
        self.note(format!("it was {nanny} and still has {returning:?}"));
        self.scheduler.handle_return(self.now, now, &returning);
        while let Some(action) = self.scheduler.poll_action() {
            self.note(format!("    {action:?}"));
            match action {
                Action::ToNanny(_, ToNanny::Keep { was, process }) => {
                    let at = processes.iter().position(|(id, ..)| *id == was).unwrap();
                    self.nanny_of.insert(process, now);
                    let worker = self.scheduler.cluster.processes[&process].worker;
                    self.worker_of.insert(process, worker);
                    self.kept.push((process, processes.swap_remove(at).2));
                }
                Action::ToNanny(_, ToNanny::Kill { process, .. })
                    if processes.iter().any(|(id, ..)| *id == process) =>
                {
                    processes.retain(|(id, ..)| *id != process);
                }
                action => self.act(action),
            }
        }
        self.scheduler.check();
    }

    /// A process that was to be kept registers and tells what it has, in several pieces.
    fn process_returns(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let nth = self.link_dice.below(self.kept.len() as u64) as usize;
        let (id, mut fake) = self.kept.swap_remove(nth);
        let mut offers = Vec::new();
        for (task, run, value) in std::mem::take(&mut fake.unheard) {
            let mut blob = BlobBuilder::new();
            blob.push(&value.to_le_bytes());
            offers.push((task, Offering::Inline { run, blob: blob.build() }));
        }
        let tasks: BTreeSet<TaskId> = fake.values.keys().map(|value| value.task).collect();
        for task in tasks {
            let outputs = ValueId { task, part: 0 }..=ValueId { task, part: u16::MAX };
            let parts = fake.values.range(outputs).count();
            offers.push(match fake.made.get(&task) {
                Some((_, run)) => (task, Offering::Stored { run: *run, sizes: vec![4; parts] }),
                None => (task, Offering::Copies),
            });
        }
        let registered = self.scheduler.connect_process(self.now, id, contact());
        self.note(format!("{id} registers with {} offers: {registered:?}", offers.len()));
        if registered.is_err() {
            return;
        }
        self.processes.insert(id, fake);
        self.react();
        let offered = offers.into_iter().map(|(task, what)| Offered {
            array: task.array,
            range: Range::one(task.index),
            what,
        });
        let mut offered: Vec<Offered> = offered.collect();
        while offered.len() > 3 {
            let values = offered.split_off(offered.len() - 3);
            self.hear(id, FromProcess::Offer { values, is_last: false });
        }
        self.hear(id, FromProcess::Offer { values: offered, is_last: true });
    }

    /// Carries out what the scheduler wants, then checks its state.
    fn react(&mut self) {
        while let Some(action) = self.scheduler.poll_action() {
            self.note(format!("    {action:?}"));
            self.act(action);
        }
        self.scheduler.check();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::ToNanny(nanny, ToNanny::Launch(launch)) => {
                self.nanny_of.insert(launch.process, nanny);
                self.worker_of.insert(launch.process, launch.worker);
                self.launching.push((nanny, launch.process));
            }
            Action::ToNanny(nanny, ToNanny::Kill { process, .. }) => {
                self.launching.retain(|(_, launching)| *launching != process);
                self.kept.retain(|(kept, _)| *kept != process);
                self.end_process(nanny, process);
            }
            Action::ToProcess(id, message) => self.order(id, message),
            Action::ToClient(_, message) => self.tell(message),
            Action::Close(Peer::Client(_), _) => {
                panic!("a link was closed for a breach of protocol")
            }
            Action::Close(Peer::Process(id), _) => {
                let nanny = self.nanny_of[&id];
                let worker = self.worker_of.get(&id).and_then(|worker| {
                    self.workers_of[&nanny].1.iter().position(|other| other == worker)
                });
                let is_given_up = !self.scheduler.cluster.nannies.contains_key(&nanny);
                match worker.filter(|_| is_given_up && self.silent.contains(&Peer::Nanny(nanny))) {
                    Some(worker) => self.give_up(nanny, id, worker as u32),
                    None => self.end_process(nanny, id),
                }
            }
            Action::Close(Peer::Nanny(id), _) => {
                self.launching.retain(|(launching, _)| *launching != id);
                self.kept.retain(|(process, _)| self.nanny_of[process] != id);
                self.nannies.retain(|other| *other != id);
            }
            Action::ToNanny(nanny, ToNanny::Exit { .. }) => {
                self.launching.retain(|(launching, _)| *launching != nanny);
                self.nannies.retain(|other| *other != nanny);
                self.gone.push(nanny);
            }
            Action::ToNanny(..) | Action::ForgetProgram(_) => {}
        }
    }

    /// A process ends as the scheduler wants it to.
    fn end_process(&mut self, nanny: NannyId, process: ProcessId) {
        if let Some(fake) = self.processes.remove(&process) {
            let board = self.some_of(&fake);
            self.obituaries.push(Obituary { nanny, process, exit: Exit::Planned, board });
        }
    }

    /// Every task that isn't running has a reason, and the reason is true.
    fn check_reasons(&self) {
        for (task, inputs) in &self.inputs {
            let found = self.scheduler.explain(*task);
            let is_done =
                |input: &TaskId| matches!(self.scheduler.explain(*input).why, Why::Done { .. });
            let inputs: BTreeSet<TaskId> = inputs.iter().map(|input| input.task).collect();
            let missing = inputs.iter().filter(|input| !is_done(input)).count() as u64;
            let case = format!("{task}: {found:?}");
            match found.why {
                Why::Inputs { missing: said, .. } => {
                    assert!(missing > 0 && said == missing, "{case}, {missing} are missing");
                    continue;
                }
                Why::Unknown | Why::Done { .. } | Why::Failed(_) | Why::Released => continue,
                Why::Assigned { process, .. } => {
                    // It may have died, and the scheduler not know yet.
                    let Some(process) = self.processes.get(&process) else { continue };
                    let assigned = &process.assigned;
                    let has = |(assign, remaining): &(Assign, RangeSet)| {
                        assign.array == task.array && remaining.contains(task.index)
                    };
                    assert!(assigned.iter().any(has), "{case}");
                    continue;
                }
                _ => assert_eq!(missing, 0, "{case}"),
            }
            let staying: Vec<&NannyId> =
                self.nannies.iter().filter(|nanny| !self.noticed.contains(nanny)).collect();
            let mut able = self.processes.iter().filter(|(id, _)| {
                staying.contains(&&self.nanny_of[id]) && self.is_heard(**id) && self.takes_any(**id)
            });
            let room = |process: &FakeProcess| {
                let runs = process.assigned.iter().filter(|(assign, _)| assign.threads > 0);
                let queued: u64 = runs.map(|(_, remaining)| remaining.len()).sum();
                u64::from(process.slots).saturating_sub(queued)
            };
            match found.why {
                Why::NoWorkers => assert!(self.nannies.is_empty(), "{case}"),
                Why::Unsuited { .. } => assert!(!self.noticed.is_empty(), "{case}"),
                Why::Program { .. } => {
                    let able = able.next().map(|(id, _)| *id);
                    assert_eq!(able, None, "{case}");
                }
                Why::Suspected { deaths } => assert!(deaths > 0, "{case}"),
                Why::NoRoom { .. } => {
                    assert!(!self.processes.is_empty(), "{case}");
                    let idle = able.find(|(_, process)| room(process) > 0);
                    assert!(idle.is_none(), "{case}, and {:?} is idle", idle.map(|(id, _)| *id));
                }
                Why::Holder { process, .. } => {
                    let is_busy = room(&self.processes[&process]) == 0;
                    assert!(is_busy || !self.is_heard(process), "{case}");
                    let is_any_idle = self.processes.values().any(|process| room(process) > 0);
                    assert!(is_any_idle, "{case}, and nobody is idle");
                    assert!(self.scheduler.poll_timeout().is_some(), "{case}, and for ever");
                }
                Why::Delay { left } => assert!(left <= Duration::from_millis(500), "{case}"),
                Why::Arguments => {}
                _ => panic!("{case}: no task of this model has that reason"),
            }
        }
    }

    fn order(&mut self, id: ProcessId, message: ToProcess) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        match message {
            ToProcess::Assign(assign) => {
                let remaining = RangeSet::from(assign.range);
                process.assigned.push((assign, remaining));
            }
            ToProcess::Drop { ranges } => {
                for (array, range) in ranges {
                    let stays = |task: &TaskId| task.array != array || !range.contains(task.index);
                    process.values.retain(|id, _| stays(&id.task));
                    process.made.retain(|task, _| stays(task));
                }
            }
            ToProcess::DropResults { assignment, array, range } => {
                let inside = |task: &TaskId| task.array == array && range.contains(task.index);
                let late = |(task, (by, _)): (&TaskId, &(AssignmentId, u32))| {
                    (inside(task) && *by == assignment).then_some(*task)
                };
                let late: BTreeSet<TaskId> = process.made.iter().filter_map(late).collect();
                process.values.retain(|id, _| !late.contains(&id.task));
                process.made.retain(|task, _| !late.contains(task));
            }
            ToProcess::DropCopies { values } => {
                let is_copy = |id: &ValueId| !process.made.contains_key(&id.task);
                let dropped = values.into_iter().filter(is_copy).collect::<Vec<_>>();
                process.values.retain(|id, _| !dropped.contains(id));
            }
            ToProcess::SetSlots { slots } => process.slots = slots,
            ToProcess::Steal { steal, assignment, count } => {
                process.steals.push((steal, assignment, count));
            }
            ToProcess::Acquire { array, range, holder, .. } => {
                let tasks = range.iter().map(|index| TaskId { array, index });
                process.acquiring.extend(tasks.map(|task| (task, holder)));
            }
            // Answered when the model gets to it: the task is run all the same.
            ToProcess::Cancel { .. }
            | ToProcess::Peer { .. }
            | ToProcess::Gone { .. }
            | ToProcess::Seen { .. }
            | ToProcess::Exit { .. }
            // No list of this model is that long.
            | ToProcess::Sources { .. } => {}
        }
    }

    fn tell(&mut self, message: ToClient) {
        match message {
            ToClient::Ended { array, range, outcome } => {
                for (nth, index) in range.iter().enumerate() {
                    let task = TaskId { array, index };
                    assert!(self.wanted.contains(&task), "{task} was not wanted");
                    let expected = self.expected[&task];
                    match &outcome {
                        Outcome::Values(blob) => {
                            let value =
                                u64::from_le_bytes(blob.get(nth as u32).try_into().unwrap());
                            assert_eq!(expected, Expected::Value(value), "{task}");
                        }
                        Outcome::Held { holder, .. } => {
                            self.to_fetch.push((task, *holder));
                            continue;
                        }
                        Outcome::Done => panic!("{task}: values were asked for"),
                        Outcome::Failed(failure) => {
                            let fair = match failure.kind {
                                FailureKind::Cancelled => !self.cancelled.is_empty(),
                                FailureKind::InputLost => self.losses && !self.scattered.is_empty(),
                                FailureKind::Killed => {
                                    self.convict(failure);
                                    expected != Expected::Failure || failure.origin != task
                                }
                                _ => expected == Expected::Failure,
                            };
                            let fair = fair && !matches!(expected, Expected::Value(_));
                            let excused = matches!(
                                failure.kind,
                                FailureKind::Cancelled | FailureKind::InputLost
                            );
                            assert!(fair || excused, "{task}: {failure} but {expected:?}");
                        }
                    }
                    *self.told.entry(task).or_insert(0) += 1;
                    assert_eq!(self.told[&task], 1, "{task} was told twice");
                }
            }
            ToClient::Put { task, assignment, process, .. } => {
                let value = self.scattered[&task];
                if let Some(fake) = self.processes.get_mut(&process) {
                    fake.values.insert(ValueId { task, part: 0 }, value);
                    fake.made.insert(task, (assignment, 1));
                    fake.assigned.push((
                        put_as_assign(task, assignment),
                        RangeSet::from(Range::one(task.index)),
                    ));
                }
            }
            _ => {}
        }
    }

    /// One of the arrays so far, if any has tasks.
    fn some_array(&mut self) -> Option<(ArrayId, u32)> {
        let full: Vec<_> = self.arrays.iter().filter(|(_, len)| *len > 0).copied().collect();
        (!full.is_empty()).then(|| full[self.dice.below(full.len() as u64) as usize])
    }

    fn some_function(&mut self) -> u64 {
        match self.dice.below(16) {
            KILLER if self.gentle => 0,
            _ if self.is_murderous && self.dice.chance(40) => KILLER,
            other => other,
        }
    }

    /// One of the outputs that tasks of an array have.
    fn some_part(&mut self, array: ArrayId) -> u16 {
        let parts = self.parts.get(&array).copied().unwrap_or(1);
        self.dice.below(u64::from(parts)) as u16
    }

    fn new_array(&mut self) -> ArrayId {
        let id = ArrayId { client: self.client, number: self.next_number };
        self.next_number += 1;
        id
    }

    fn expect(&mut self, task: TaskId, function: u64, payload: &[u8], inputs: &[ValueId]) {
        self.inputs.insert(task, inputs.to_vec());
        let mut values = Vec::new();
        let mut is_failure = function == POISON && task.index % 5 == 1;
        for input in inputs {
            match self.expected[&input.task] {
                Expected::Value(value) => values.push(part_value(value, input.part)),
                Expected::Failure | Expected::Death => is_failure = true,
            }
        }
        let expected = if is_failure {
            Expected::Failure
        } else if is_killer(function, task.index) {
            Expected::Death
        } else {
            Expected::Value(value_of(function, payload, &values))
        };
        self.expected.insert(task, expected);
    }

    fn submit_array(&mut self) {
        let mut params = Vec::new();
        let mut len = self.dice.below(12) as u32;
        let mut is_fixed = false;
        let arity = self.dice.below(3);
        for _ in 0..arity {
            let Some((array, reach)) = self.some_array() else {
                continue;
            };
            let start = self.dice.below(u64::from(reach)) as u32;
            match self.dice.below(4) {
                0 if !is_fixed => {
                    len = 1 + self.dice.below(u64::from(reach - start)) as u32;
                    is_fixed = true;
                    params.push(Param::Each { array, start, part: self.some_part(array) });
                }
                1 if !is_fixed => {
                    let width = 1 + self.dice.below(4) as u32;
                    len = (reach - start).div_ceil(width);
                    is_fixed = true;
                    params.push(Param::Block { array, start, end: reach, width });
                }
                2 if !is_fixed && self.parts.contains_key(&array) => {
                    let first = self.some_part(array);
                    len = 1 + self.dice.below(u64::from(self.parts[&array] - first)) as u32;
                    is_fixed = true;
                    let range = Range::new(start, reach);
                    params.push(Param::Shuffle { array, range, first });
                }
                2 => params.push(Param::All { array, range: Range::new(start, reach) }),
                _ => {
                    let (task, part) = (TaskId { array, index: start }, self.some_part(array));
                    params.push(Param::One { task, part });
                }
            }
        }
        if self.dice.chance(60) {
            params.insert(self.dice.below(params.len() as u64 + 1) as usize, Param::Inline);
        }
        let function = self.some_function();
        let id = self.new_array();
        let payloads: Vec<Vec<u8>> =
            (0..len).map(|_| vec![1; self.dice.below(3) as usize]).collect();
        let has_payload = params.contains(&Param::Inline);
        for index in 0..len {
            let inputs: Vec<ValueId> =
                params.iter().flat_map(|param| inputs_of(param, index)).collect();
            let payload = if has_payload { &payloads[index as usize][..] } else { &[] };
            self.expect(TaskId { array: id, index }, function, payload, &inputs);
        }
        let mut shape = self.shape(function, params);
        if self.dice.chance(30) {
            shape.options.parts = 2 + self.dice.below(3) as u16;
            self.parts.insert(id, shape.options.parts);
        }
        self.arrays.push((id, len));
        self.say(FromClient::SubmitArray { number: id.number, len, shape, parent: None });
        let mut sent = 0;
        while has_payload && sent < len {
            let count = (1 + self.dice.below(6) as u32).min(len - sent);
            let mut blob = BlobBuilder::new();
            for payload in &payloads[sent as usize..(sent + count) as usize] {
                blob.push(payload);
            }
            sent += count;
            self.say(FromClient::Payload { number: id.number, payload: blob.build() });
            self.step();
        }
    }

    fn shape(&mut self, function: u64, params: Vec<Param>) -> Shape {
        let options = TaskOptions {
            priority: self.dice.below(3) as i32,
            retries: self.dice.below(2) as u32,
            retry_delay: Duration::from_millis(self.dice.below(3)),
            ..TaskOptions::default()
        };
        Shape { function: FunctionKey(function), name: "f".into(), params, options }
    }

    fn submit_batch(&mut self) {
        let id = self.new_array();
        let function = self.some_function();
        let plain = self.shape(function, vec![Param::Inline]);
        let open = Shape { params: vec![Param::Inline, Param::Edges], ..plain.clone() };
        let (mut shape_of, mut edge_ends, mut edges) = (Vec::new(), Vec::new(), Vec::new());
        let mut payload = BlobBuilder::new();
        let len = 1 + self.dice.below(10) as u32;
        let is_chain = self.dice.chance(30);
        for index in 0..len {
            let bytes = vec![2; self.dice.below(3) as usize];
            let count = if is_chain { 0 } else { self.dice.below(4) };
            let mut inputs = Vec::new();
            if is_chain && index > 0 {
                let task = TaskId { array: id, index: index - 1 };
                inputs.push(ValueId { task, part: 0 });
            }
            for _ in 0..count {
                if index > 0 && self.dice.chance(50) {
                    let index = self.dice.below(u64::from(index)) as u32;
                    inputs.push(ValueId { task: TaskId { array: id, index }, part: 0 });
                } else if let Some((array, reach)) = self.some_array() {
                    let index = self.dice.below(u64::from(reach)) as u32;
                    let part = self.some_part(array);
                    inputs.push(ValueId { task: TaskId { array, index }, part });
                }
            }
            shape_of.push(u16::from(!inputs.is_empty()));
            payload.push(&bytes);
            self.expect(TaskId { array: id, index }, function, &bytes, &inputs);
            edges.extend(inputs.into_iter().map(|ValueId { task, part }| Edge { task, part }));
            edge_ends.push(edges.len() as u32);
        }
        self.arrays.push((id, len));
        let batch = Batch {
            shapes: vec![plain, open],
            shape_of,
            payload: payload.build(),
            edge_ends,
            edges,
        };
        self.say(FromClient::SubmitBatch { number: id.number, batch, parent: None });
    }

    fn scatter(&mut self) {
        let id = self.new_array();
        let len = 1 + self.dice.below(4) as u32;
        let inline = self.dice.chance(50);
        let replicas = 1 + self.dice.below(2) as u8;
        let mut blob = BlobBuilder::new();
        for index in 0..len {
            let (task, value) = (TaskId { array: id, index }, self.dice.roll());
            self.expected.insert(task, Expected::Value(value));
            blob.push(&value.to_le_bytes());
            if !inline {
                self.scattered.insert(task, value);
            }
        }
        self.arrays.push((id, len));
        self.say(if inline {
            FromClient::ScatterInline { number: id.number, values: blob.build() }
        } else {
            let sizes = vec![8; len as usize];
            let options = TaskOptions { replicas, ..TaskOptions::default() };
            FromClient::Scatter { number: id.number, sizes, options }
        });
    }

    fn want(&mut self) {
        let Some((array, reach)) = self.some_array() else {
            return;
        };
        let start = self.dice.below(u64::from(reach)) as u32;
        let end = start + 1 + self.dice.below(u64::from(reach - start)) as u32;
        let mut fresh = RangeSet::new();
        for index in start..end {
            if self.wanted.insert(TaskId { array, index }) {
                fresh.insert(Range::one(index));
            }
        }
        for range in fresh.iter() {
            self.say(FromClient::Want { array, range, values: true });
        }
    }

    /// A random thing happens in the cluster.
    fn step(&mut self) {
        self.now.0 += self.dice.below(3_000_000);
        if self.losses && self.link_dice.chance(15) {
            self.links();
        }
        match self.dice.below(14) {
            13 if self.dice.chance(50) => self.confirm_slots(),
            13 => self.report_deaths(),
            0 => self.launch(),
            1 if self.losses && self.dice.chance(20) => self.kill(),
            2 if self.dice.chance(10) => self.add_nanny(),
            3 => self.fetch_results(),
            5 if (self.losses || self.gentle) && self.dice.chance(15) => self.leave(),
            6 => self.answer_steals(),
            7 => self.acquire(),
            4 => {
                self.scheduler.handle_timeout(self.now);
                self.react();
            }
            _ => self.work(),
        }
        self.steps += 1;
        if self.steps.is_multiple_of(4) {
            self.check_reasons();
        }
    }

    /// A link breaks, or a peer has one again, or those without one are given up.
    fn links(&mut self) {
        let nannies = self.nannies.iter().map(|id| Peer::Nanny(*id));
        let peers = self.processes.keys().map(|id| Peer::Process(*id)).chain(nannies);
        let (silent, heard): (Vec<Peer>, _) = peers.partition(|one| self.silent.contains(one));
        let any = |dice: &mut Dice, from: &[Peer]| {
            let nth = dice.below(from.len() as u64) as usize;
            from.get(nth).copied()
        };
        match self.link_dice.below(12) {
            0..5 => {
                let Some(peer) = any(&mut self.link_dice, &heard) else { return };
                self.note(format!("the link of {peer:?} breaks"));
                self.silent.insert(peer);
                let silent = std::time::Duration::from_secs(self.link_dice.below(5));
                self.scheduler.handle_link_broken(self.now, peer, silent);
            }
            5..9 => {
                let Some(peer) = any(&mut self.link_dice, &silent) else { return };
                self.come_back(peer);
            }
            9 => {
                self.now.0 += 6_000_000_000;
                self.note("time passes".into());
                self.scheduler.handle_timeout(self.now);
            }
            _ => self.node_falls_silent(),
        }
        self.react();
        if self.link_dice.chance(30) {
            self.node_returns();
        }
        if self.link_dice.chance(70) {
            self.process_returns();
        }
    }

    /// A node is cut off, and as often as not for long enough to be given up.
    fn node_falls_silent(&mut self) {
        let nth = self.link_dice.below(self.nannies.len() as u64) as usize;
        let Some(nanny) = self.nannies.get(nth).copied() else { return };
        let of_it = |id: &ProcessId| self.nanny_of.get(id) == Some(&nanny);
        let processes = self.processes.keys().filter(|id| of_it(id)).map(|id| Peer::Process(*id));
        let peers: Vec<Peer> = processes.chain([Peer::Nanny(nanny)]).collect();
        self.note(format!("{nanny} and all it has is cut off"));
        for peer in peers.into_iter().filter(|peer| self.silent.insert(*peer)) {
            let silent = Duration::from_secs(self.link_dice.below(5));
            self.scheduler.handle_link_broken(self.now, peer, silent);
        }
        if self.link_dice.chance(60) {
            self.now.0 += 6_000_000_000;
            self.scheduler.handle_timeout(self.now);
        }
    }

    fn come_back(&mut self, peer: Peer) {
        self.note(format!("{peer:?} has a link again"));
        self.silent.remove(&peer);
        self.scheduler.handle_link_resumed(self.now, peer);
    }

    /// Whether a process takes any work: it isn't there for one suspect only, nor is it or its worker
    /// about to go.
    fn takes_any(&self, id: ProcessId) -> bool {
        let cluster = &self.scheduler.cluster;
        let is_open = cluster
            .processes
            .get(&id)
            .is_some_and(|one| one.alone_for.is_none() && one.leaving.is_none());
        is_open && cluster.worker_of(id).is_some_and(|worker| !worker.leaving)
    }

    fn is_heard(&self, id: ProcessId) -> bool {
        !self.silent.contains(&Peer::Process(id))
    }

    /// A nanny gives notice.
    fn leave(&mut self) {
        let staying = self.nannies.iter().filter(|nanny| !self.noticed.contains(nanny)).count();
        if self.nannies.is_empty() || (self.gentle && staying < 2) {
            return;
        }
        let nanny = self.nannies[self.dice.below(self.nannies.len() as u64) as usize];
        self.note(format!("{nanny} gives notice"));
        self.noticed.insert(nanny);
        let pool = self.pools[&nanny].clone();
        match self.dice.below(4) {
            0 => {
                let within = self.time_to_go();
                self.say(FromClient::Retire { request: 0, names: vec![pool], within });
            }
            // One worker of it.
            1 => {
                let name = format!("w{}-0", &pool[1..]);
                let within = self.time_to_go();
                self.say(FromClient::Retire { request: 0, names: vec![name], within });
            }
            2 => {
                let time = std::time::Duration::from_nanos(self.dice.below(9_000_000));
                let message = FromNanny::EndsIn { time, is_job: false };
                self.scheduler.handle_nanny(self.now, nanny, message);
            }
            _ => {
                let message = FromNanny::Leaving { reason: "notice".into() };
                self.scheduler.handle_nanny(self.now, nanny, message);
            }
        }
        self.react();
        self.lose_gone();
    }

    /// Who is gentle gives workers the time that they need.
    fn time_to_go(&mut self) -> Option<Duration> {
        let is_short = !self.gentle && self.dice.chance(40);
        is_short.then(|| Duration::from_nanos(self.dice.below(9_000_000)))
    }

    /// Some of the tasks that a process has, in their first runs or others.
    fn some_of(&mut self, process: &FakeProcess) -> Vec<(TaskId, u32)> {
        let mut board = Vec::new();
        for (assign, remaining) in process.assigned.iter().filter(|(one, _)| one.threads > 0) {
            for index in remaining.iter().flat_map(Range::iter).take(3) {
                if self.dice.chance(80) {
                    let task = TaskId { array: assign.array, index };
                    board.push((task, crate::process::run_number(assign, index)));
                }
            }
        }
        board
    }

    /// A task ends its process, and others that run beside it. The scheduler hears of it from the
    /// nanny, or first by the end of the link.
    fn die(&mut self, id: ProcessId, killer: TaskId, run: u32) {
        let Some(process) = self.processes.remove(&id) else { return };
        let nanny = self.nanny_of[&id];
        let mut board = self.some_of(&process);
        board.retain(|(task, _)| *task != killer);
        board.push((killer, run));
        self.note(format!("{id} dies of {killer}: {board:?}"));
        let (deaths, uncounted) = self.deaths.entry(killer).or_default();
        *deaths += 1;
        assert!(*deaths - *uncounted <= 3, "{killer} has ended {deaths} processes");
        let exit = if self.dice.chance(20) { Exit::OutOfMemory } else { Exit::Signal(6) };
        self.obituaries.push(Obituary { nanny, process: id, exit, board });
        if self.dice.chance(50) {
            *uncounted += 1;
            self.scheduler.handle_link_lost(self.now, Peer::Process(id));
            self.react();
        } else {
            self.report_deaths();
        }
    }

    /// Nannies say how processes ended, unless they are gone themselves.
    fn report_deaths(&mut self) {
        for Obituary { nanny, process, exit, board } in std::mem::take(&mut self.obituaries) {
            self.note(format!("{nanny}: {process} ended: {exit}, {board:?}"));
            let stderr = vec![format!("the last words of {process}")];
            let message = FromNanny::Exited { process, exit, board, stderr };
            self.scheduler.handle_nanny(self.now, nanny, message);
            self.react();
        }
    }

    /// Only killers are told to be such, with all three deaths.
    fn convict(&self, failure: &Failure) {
        assert_eq!(self.expected[&failure.origin], Expected::Death, "an innocent: {failure}");
        assert_eq!(failure.message.matches("the last words of").count(), 3, "{failure}");
        // It may have run beside other killers before, but not in the end.
        assert!(self.deaths[&failure.origin].0 >= 1, "{failure}");
    }

    /// Nannies that were told to go are gone, and their processes with them.
    fn lose_gone(&mut self) {
        while let Some(nanny) = self.gone.pop() {
            self.note(format!("{nanny} goes"));
            self.scheduler.handle_link_lost(self.now, Peer::Nanny(nanny));
            self.react();
            let known: Vec<ProcessId> = self.processes.keys().copied().collect();
            for id in known {
                if !self.scheduler.knows(id) {
                    self.processes.remove(&id);
                }
            }
        }
    }

    /// Processes that have nothing to do confirm how many slots they use.
    fn confirm_slots(&mut self) {
        let idle = self.processes.iter().filter(|(_, one)| one.assigned.is_empty());
        for (id, slots) in idle.map(|(id, one)| (*id, one.slots)).collect::<Vec<_>>() {
            self.hear(id, FromProcess::SlotsFree { slots });
        }
    }

    /// Processes answer what they were asked back: all or some of what they have left.
    fn answer_steals(&mut self) {
        let ids: Vec<ProcessId> = self.processes.keys().copied().collect();
        for id in ids.into_iter().filter(|id| self.is_heard(*id)).collect::<Vec<_>>() {
            let steals = self.processes.get_mut(&id).map(|one| std::mem::take(&mut one.steals));
            for (steal, assignment, count) in steals.unwrap_or_default() {
                let keep = self.dice.below(2) as u32;
                let Some(process) = self.processes.get_mut(&id) else { return };
                let mut ranges = Vec::new();
                for (assign, remaining) in &mut process.assigned {
                    if assign.assignment == assignment && assign.threads > 0 {
                        let all: Vec<Range> = remaining.iter().collect();
                        for range in all {
                            let start = (range.start + keep).min(range.end);
                            let given =
                                Range::new(start, range.end.min(start.saturating_add(count)));
                            if !given.is_empty() {
                                remaining.remove(given);
                                ranges.push(given);
                            }
                        }
                    }
                }
                process.assigned.retain(|(_, remaining)| !remaining.is_empty());
                self.hear(id, FromProcess::GaveUp { steal, assignment, ranges });
                self.lose_gone();
            }
        }
    }

    /// Some process makes a copy, or fails to.
    fn acquire(&mut self) {
        let busy = self.processes.iter().filter(|(_, one)| !one.acquiring.is_empty());
        let busy: Vec<ProcessId> = busy.map(|(id, _)| *id).collect();
        if busy.is_empty() {
            return;
        }
        let id = busy[self.dice.below(busy.len() as u64) as usize];
        let nth = self.dice.below(self.processes[&id].acquiring.len() as u64) as usize;
        let Some(process) = self.processes.get_mut(&id) else { return };
        let (task, holder) = process.acquiring.swap_remove(nth);
        let fails = !self.gentle && self.dice.chance(20);
        let outputs = ValueId { task, part: 0 }..=ValueId { task, part: u16::MAX };
        let there = self.processes.get(&holder).map(|one| one.values.range(outputs));
        let found: Vec<(ValueId, u64)> =
            there.into_iter().flatten().map(|(output, value)| (*output, *value)).collect();
        let answer = if fails || found.is_empty() {
            FromProcess::NotAcquired { task }
        } else {
            let values = found.iter().map(|(output, _)| *output).collect();
            if let Some(process) = self.processes.get_mut(&id) {
                process.values.extend(found);
            }
            FromProcess::Holds { values }
        };
        self.hear(id, answer);
    }

    fn launch(&mut self) {
        if self.launching.is_empty() {
            return;
        }
        let nth = self.dice.below(self.launching.len() as u64) as usize;
        let (nanny, id) = self.launching.remove(nth);
        if self.losses && !self.calm && self.dice.chance(10) {
            let message = FromNanny::LaunchFailed { process: id, message: "no".into() };
            self.scheduler.handle_nanny(self.now, nanny, message);
        } else {
            self.processes.insert(id, FakeProcess::default());
            self.scheduler.connect_process(self.now, id, contact()).unwrap();
        }
        self.note(format!("{id} launched"));
        self.react();
    }

    fn kill(&mut self) {
        let ids: Vec<ProcessId> = self.processes.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.dice.below(ids.len() as u64) as usize];
        self.note(format!("{id} dies"));
        // Its nanny ends it then, or it has died of something else than its tasks.
        if let Some(process) = self.processes.remove(&id) {
            let board = if self.dice.chance(50) { Vec::new() } else { self.some_of(&process) };
            let exit = if board.is_empty() { Exit::Code(3) } else { Exit::Planned };
            self.obituaries.push(Obituary { nanny: self.nanny_of[&id], process: id, exit, board });
        }
        self.scheduler.handle_link_lost(self.now, Peer::Process(id));
        self.react();
    }

    /// Some process does a piece of some assignment.
    fn work(&mut self) {
        let busy: Vec<ProcessId> = self
            .processes
            .iter()
            .filter(|(id, one)| !one.assigned.is_empty() && self.is_heard(**id))
            .map(|(id, _)| *id)
            .collect();
        if busy.is_empty() {
            return;
        }
        let id = busy[self.dice.below(busy.len() as u64) as usize];
        let process = &self.processes[&id];
        let mut nth = self.dice.below(process.assigned.len() as u64) as usize;
        let first = process.assigned[nth].1.first().expect("something remains");
        let mut piece = Range::new(
            first.start,
            first.start + 1 + self.dice.below(u64::from(first.len())) as u32,
        );
        // Killers like to strike while there are others beside them.
        if let Some((at, index)) = killer_of(process).filter(|_| self.dice.chance(60)) {
            (nth, piece) = (at, Range::one(index));
        }
        let assign = self.processes[&id].assigned[nth].0.clone();
        let mut finished = Vec::new();
        let mut copies = Vec::new();
        for index in piece {
            let task = TaskId { array: assign.array, index };
            if assign.threads == 0 {
                finished.push(self.end(&assign, index, End::Stored(vec![8])));
                continue;
            }
            match self.compute(id, &assign, index, &mut copies) {
                // It comes of a task that this process has not run yet.
                Err((missed, holder))
                    if holder == id && owes(&self.processes[&id], missed, task) =>
                {
                    let ran = Range::new(piece.start, index);
                    if !ran.is_empty() {
                        self.retire(id, nth, ran);
                        self.report(id, finished);
                    }
                    return;
                }
                Err((missed, holder)) => {
                    let left = Range::new(index, piece.end);
                    self.retire(id, nth, piece);
                    if !finished.is_empty() {
                        self.report(id, finished);
                    }
                    let given_back = vec![(assign.assignment, left)];
                    let denied = self.link_dice.chance(50);
                    let missed = FromProcess::Missed { task: missed, holder, denied, given_back };
                    self.hear(id, missed);
                    return;
                }
                Ok(_) if is_killer(assign.function.0, index) => {
                    self.retire(id, nth, Range::new(piece.start, index));
                    if !finished.is_empty() {
                        self.report(id, finished);
                    }
                    let run = crate::process::run_number(&assign, index);
                    return self.die(id, task, run);
                }
                Ok(_) if assign.function.0 == POISON && index % 5 == 1 => {
                    let failure = Failure::of_scheduler(FailureKind::Panicked, "poison", task);
                    finished.push(self.end(&assign, index, End::Failed(failure)));
                }
                Ok(value) if assign.inline_max > 0 && assign.parts == 1 && is_inline(value) => {
                    *self.runs.entry(task).or_insert(0) += 1;
                    if let Some(process) = self.processes.get_mut(&id) {
                        process.small.insert(task, value);
                    }
                    let mut blob = BlobBuilder::new();
                    blob.push(&value.to_le_bytes());
                    finished.push(self.end(&assign, index, End::Inline(blob.build())));
                }
                Ok(value) => {
                    let parts = 0..assign.parts;
                    if let Some(process) = self.processes.get_mut(&id) {
                        let output = |part| (ValueId { task, part }, part_value(value, part));
                        process.values.extend(parts.clone().map(output));
                        let run = crate::process::run_number(&assign, index);
                        process.made.insert(task, (assign.assignment, run));
                    }
                    *self.runs.entry(task).or_insert(0) += 1;
                    // All values of a gentle world together may be copied.
                    let size_max = if self.gentle { 20 } else { 30 };
                    let sizes = parts.map(|_| 1 << self.dice.below(size_max)).collect();
                    finished.push(self.end(&assign, index, End::Stored(sizes)));
                }
            }
        }
        self.retire(id, nth, piece);
        self.report(id, finished);
        if self.dice.chance(50) {
            self.keep_copies(id, copies);
        }
    }

    /// What a process has fetched stays there, and it says so.
    fn keep_copies(&mut self, id: ProcessId, copies: Vec<(ValueId, u64)>) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let values: Vec<ValueId> = copies.iter().map(|(value, _)| *value).collect();
        process.values.extend(copies);
        if !values.is_empty() {
            let (bytes, busy_ns) = (1 << self.dice.below(30), self.dice.below(1 << 30));
            self.hear(id, FromProcess::Holds { values });
            self.hear(id, FromProcess::Fetched { bytes, busy_ns });
        }
    }

    fn end(&mut self, assign: &Assign, index: u32, end: End) -> Finished {
        Finished {
            assignment: assign.assignment,
            array: assign.array,
            range: Range::one(index),
            busy_ns: self.dice.below(2_000_000),
            end,
        }
    }

    fn retire(&mut self, id: ProcessId, nth: usize, piece: Range) {
        let process = self.processes.get_mut(&id).unwrap();
        process.assigned[nth].1.remove(piece);
        if process.assigned[nth].1.is_empty() {
            process.assigned.remove(nth);
        }
    }

    fn report(&mut self, id: ProcessId, finished: Vec<Finished>) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.reports += 1;
        let number = process.reports;
        let slots = process.slots;
        self.hear(id, FromProcess::Report { number, finished });
        if self.processes.contains_key(&id) {
            self.hear(id, FromProcess::SlotsFree { slots });
        }
    }

    fn compute(
        &self,
        id: ProcessId,
        assign: &Assign,
        index: u32,
        copies: &mut Vec<(ValueId, u64)>,
    ) -> Result<u64, (TaskId, ProcessId)> {
        let nth = (index - assign.range.start) as usize;
        let mut inputs = Vec::new();
        for feed in &assign.params {
            let sources: Vec<&Source> = match feed {
                Feed::Inline => vec![],
                Feed::Each(all) => vec![&all[nth]],
                Feed::One(one) => vec![one],
                Feed::Lists(all) => all[nth].iter().collect(),
                Feed::List(all) => all.iter().collect(),
            };
            for source in sources {
                let value = self.find(id, source)?;
                let of = ValueId { task: source.task, part: source.part };
                if !matches!(source.place, Place::Inline(_))
                    && !self.processes[&id].values.contains_key(&of)
                {
                    copies.push((of, value));
                }
                inputs.push(value);
            }
        }
        Ok(value_of(assign.function.0, assign.payload.get(nth as u32), &inputs))
    }

    fn find(&self, id: ProcessId, source: &Source) -> Result<u64, (TaskId, ProcessId)> {
        let of = ValueId { task: source.task, part: source.part };
        match &source.place {
            Place::Inline(bytes) => Ok(u64::from_le_bytes(bytes[..].try_into().unwrap())),
            Place::Held(holders) => holders
                .iter()
                .find_map(|holder| self.processes.get(holder)?.values.get(&of).copied())
                .ok_or((source.task, holders[0])),
            Place::Here => {
                let process = &self.processes[&id];
                let found = process.values.get(&of).or_else(|| process.small.get(&source.task));
                found.copied().ok_or((source.task, id))
            }
        }
    }

    /// The client fetches what it was told is held.
    fn fetch_results(&mut self) {
        for (task, holder) in std::mem::take(&mut self.to_fetch) {
            let value = ValueId { task, part: 0 };
            match self.processes.get(&holder).and_then(|one| one.values.get(&value)) {
                Some(value) => {
                    assert_eq!(self.expected[&task], Expected::Value(*value), "{task}");
                    *self.told.entry(task).or_insert(0) += 1;
                }
                None => {
                    let denied = self.link_dice.chance(50);
                    self.say(FromClient::Missed { task, holder, denied });
                    let range = Range::one(task.index);
                    self.say(FromClient::Want { array: task.array, range, values: true });
                }
            }
        }
    }

    pub(super) fn run(mut self) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.play()));
        if let Err(panic) = result {
            let why = panic.downcast_ref::<String>().map_or("see above", String::as_str);
            panic!("{}\n{why}", self.trace.join("\n"));
        }
    }

    fn play(&mut self) {
        for _ in 0..2 + self.dice.below(10) {
            match self.dice.below(4) {
                0 | 1 => self.submit_array(),
                2 => self.submit_batch(),
                _ => self.scatter(),
            }
            for _ in 0..self.dice.below(8) {
                self.step();
            }
            if self.dice.chance(60) {
                self.want();
            }
            if self.dice.chance(10) {
                self.cancel();
            }
        }
        // Handles of what isn't wanted go, in any order.
        let arrays = self.arrays.clone();
        for (array, len) in arrays {
            let unwanted: Vec<Range> = (0..len)
                .filter(|index| !self.wanted.contains(&TaskId { array, index: *index }))
                .map(Range::one)
                .collect();
            let ranges = unwanted.into_iter().map(|range| (array, range)).collect();
            self.say(FromClient::Release { ranges });
            self.step();
        }
        // From now on nothing is lost: everything that is wanted must end.
        self.losses_end();
        for _ in 0..20_000 {
            if self.wanted.iter().all(|task| self.told.contains_key(task)) {
                break;
            }
            self.now.0 += 100_000_000;
            self.launch();
            self.work();
            self.answer_steals();
            self.acquire();
            self.report_deaths();
            self.confirm_slots();
            self.fetch_results();
            self.scheduler.handle_timeout(self.now);
            self.react();
        }
        for task in &self.wanted {
            assert!(self.told.contains_key(task), "{task} never ended");
        }
        if self.gentle && self.cancelled.is_empty() {
            let again: Vec<_> = self.runs.iter().filter(|(_, runs)| **runs > 1).collect();
            assert!(again.is_empty(), "ran again although all could be copied: {again:?}");
        }
        // At rest nothing is left.
        let all = self.arrays.iter().map(|(array, len)| (*array, Range::new(0, *len))).collect();
        self.say(FromClient::Release { ranges: all });
        for _ in 0..2000 {
            self.work();
            self.acquire();
            self.report_deaths();
        }
        assert!(self.processes.values().all(|one| one.acquiring.is_empty()));
        assert!(self.scheduler.blame.is_empty(), "{:?}", self.scheduler.blame);
        let status = self.scheduler.status();
        let left = status.waiting + status.ready + status.assigned + status.done + status.failed;
        assert_eq!(left, 0, "tasks that nobody wants are remembered: {status:?}");
        assert_eq!(status.result_bytes, 0);
        for (id, process) in &self.processes {
            assert!(process.values.is_empty(), "{id} keeps {:?}", process.values);
        }
    }

    fn losses_end(&mut self) {
        let known: Vec<Peer> = self.silent.iter().copied().collect();
        for peer in known {
            let is_here = match peer {
                Peer::Process(id) => self.processes.contains_key(&id),
                Peer::Nanny(id) => self.nannies.contains(&id),
                Peer::Client(_) => false,
            };
            if is_here {
                self.come_back(peer);
                self.react();
            }
        }
        self.calm = true;
        // Launches may have failed for good: a new nanny always helps.
        self.add_nanny();
        while !self.away.is_empty() && self.link_dice.chance(80) {
            self.node_returns();
        }
        while !self.kept.is_empty() {
            self.process_returns();
        }
        for (_, id) in std::mem::take(&mut self.launching) {
            self.processes.insert(id, FakeProcess::default());
            self.scheduler.connect_process(self.now, id, contact()).unwrap();
            self.react();
        }
    }

    fn cancel(&mut self) {
        let Some((array, reach)) = self.some_array() else {
            return;
        };
        let range = Range::one(self.dice.below(u64::from(reach)) as u32);
        self.cancelled.insert(TaskId { array, index: range.start });
        self.say(FromClient::Cancel { array, range });
    }
}

/// A killer that a process was assigned: in which assignment, and its index.
fn killer_of(process: &FakeProcess) -> Option<(usize, u32)> {
    let all = process.assigned.iter().enumerate().filter(|(_, (assign, _))| assign.threads > 0);
    all.flat_map(|(nth, (assign, remaining))| {
        let indexes = remaining.iter().flat_map(Range::iter);
        let killers = indexes.filter(|index| is_killer(assign.function.0, *index));
        killers.map(move |index| (nth, index))
    })
    .next()
}

/// A put, dressed as an assignment of no function, so that its end is reported like others.
fn put_as_assign(task: TaskId, assignment: AssignmentId) -> Assign {
    Assign {
        assignment,
        array: task.array,
        range: Range::one(task.index),
        function: FunctionKey(0),
        name: None,
        depth: 0,
        priority: 0,
        threads: 0,
        parts: 1,
        nested_here: false,
        inline_max: 1024,
        timeout: None,
        payload: Blob::empty(1),
        params: Vec::new(),
        runs: Vec::new(),
    }
}

fn inputs_of(param: &Param, index: u32) -> Vec<ValueId> {
    let value = |array, index, part| ValueId { task: TaskId { array, index }, part };
    match *param {
        Param::Each { array, start, part } => vec![value(array, start + index, part)],
        Param::Block { array, start, end, width } => {
            let first = start + index * width;
            (first..(first + width).min(end)).map(|index| value(array, index, 0)).collect()
        }
        Param::One { task, part } => vec![ValueId { task, part }],
        Param::All { array, range } => range.iter().map(|index| value(array, index, 0)).collect(),
        Param::Shuffle { array, range, first } => {
            range.iter().map(|task| value(array, task, first + index as u16)).collect()
        }
        _ => Vec::new(),
    }
}
