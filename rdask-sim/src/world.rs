//! The world: virtual time, and everything that happens in it, one event after the other.
//!
//! The state machines are the real ones. What is simulated is what lies around them: links, nannies,
//! slot threads, data streams, and user code.

mod client;
mod copies;
mod data;
mod fault;
mod holders;
mod leases;
mod leave;
mod node;
mod notices;
mod phase;
mod process;
mod returns;
mod scheduler;
mod session;
mod stops;
mod story;
mod wire;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rdask_core::id::{ArrayId, Peer, ProcessId, ProgramHash, TaskId};
use rdask_core::process::ChunkId;
use rdask_core::range::{Range, RangeSet};
use rdask_core::time::Time;

use crate::coverage::Coverage;
use crate::dice::{Dice, mix};
use crate::ledger::Ledger;
use crate::link::{Link, NEVER, Way};
use crate::scenario::{Scenario, Work};

use client::{Client, Kept};
use copies::Replicas;
use data::Transfer;
use holders::Holders;
use node::Node;
use notices::Notices;
use process::Process;
use scheduler::SchedulerShell;
use stops::Stops;

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// More events than any scenario should need: then something goes in circles.
const EVENTS_MAX: u64 = 400_000;

/// Events between two full recounts of the machines' states.
const RECOUNT_EVERY: u64 = 256;

/// Who has a link to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Actor {
    /// The nanny of a node, and how often it was started before.
    Nanny(usize, u32),
    /// A process.
    Process(usize),
    /// A client, or a process's client for nested tasks.
    Client(usize),
}

/// What happens at a time.
#[derive(Clone, Debug)]
enum Event {
    Arrival(usize, Way),
    SchedulerTurn,
    SchedulerLosesLink(usize),
    PeerLosesLink(usize),
    LinkIdle(usize, u32, u64),
    SchedulerMissesLink(usize, u32),
    PeerMissesLink(usize, u32),
    Dials(usize, u32, u64),
    DialArrives(usize, u32, u64),
    PeerHasLink(usize, u32),
    ProgramStored(ProgramHash),
    NannyStarts(usize, u32),
    NannyTimeIsUp(usize, u32),
    LifetimeIsOver(usize, u64),
    JobIsOver(usize, u64),
    SlurmAnswers(usize, u32),
    ProgramFetched(usize, u32, ProgramHash, bool),
    ProcessStarts(usize),
    ProcessGone(usize),
    ProcessTimer(usize),
    RunEnds(usize, ChunkId, u32),
    ClientStarts(usize),
    ClientTimer(usize),
    ClientStep(usize),
    TransferArrives(usize),
    TransferEnds(usize),
    Fault(usize),
    Heal,
}

/// See the module.
pub(crate) struct World {
    scenario: Scenario,
    /// What functions do, by key.
    works: Vec<Work>,
    /// The key of the work of each step of each client.
    keys: Vec<Vec<u64>>,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, u64, usize)>>,
    /// Events that are queued, by their place; free places are used again.
    slab: Vec<Option<Event>>,
    free: Vec<usize>,
    sequence: u64,
    ties: Dice,
    dice: Dice,
    scheduler: SchedulerShell,
    links: Vec<Link>,
    nodes: Vec<Node>,
    processes: Vec<Process>,
    by_id: BTreeMap<ProcessId, usize>,
    clients: Vec<Client>,
    transfers: Vec<Transfer>,
    /// Pairs of nodes that don't see each other, and until when.
    apart: Vec<(usize, usize, u64)>,
    ledger: Ledger,
    /// Tasks that somebody cancelled.
    cancelled: BTreeMap<ArrayId, RangeSet>,
    /// Scattered values that were put with processes.
    puts: BTreeSet<TaskId>,
    /// Scattered values that nobody wanted any more: what was made of them can't be made again.
    dropped_puts: BTreeSet<TaskId>,
    /// The links of those whom the scheduler has welcomed.
    links_by_peer: BTreeMap<Peer, usize>,
    /// What was detached under each name.
    kept: BTreeMap<u32, Kept>,
    /// Launches that failed, or ended before they had registered.
    launches_failed: u64,
    /// Who has which scattered values.
    holders: Holders,
    replicas: Replicas,
    /// Tasks whose runs are to be called back: an earlier one has made their values.
    to_recall: BTreeSet<TaskId>,
    notices: Notices,
    stops: Stops,
    /// Tasks that end their processes.
    poison: BTreeSet<TaskId>,
    /// Whose process died, how often: of that by a fault, and not by a task.
    deaths: BTreeMap<TaskId, (u32, u32)>,
    /// Tasks whose value was not had from a holder.
    missed: BTreeSet<TaskId>,
    /// The value that was not had just now, for the first time.
    missed_once: Option<TaskId>,
    is_healed: bool,
    /// When the last fault is over, and everybody knows of it.
    quiet_at: u64,
    events: u64,
    hash: [u64; 2],
    buffer: Vec<u8>,
    pub(crate) coverage: Coverage,
    trace: Option<Vec<String>>,
    failure: Option<String>,
}

/// How a simulation went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What went wrong, if something did.
    pub failure: Option<String>,
    /// How many events there were.
    pub events: u64,
    /// How much virtual time passed, in nanoseconds.
    pub time_ns: u64,
    /// A hash of all that happened.
    pub hash: u128,
    /// How many runs began.
    pub runs: u64,
    /// How many of them were not the first of their task.
    pub repeats: u64,
    /// Which state met which event.
    pub coverage: Coverage,
    /// The story, if it was asked for.
    pub story: Vec<String>,
}

macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.trace.is_some() {
            let line = format!($($text)*);
            $world.tell(line);
        }
    };
}
pub(crate) use note;

impl World {
    pub(crate) fn new(scenario: Scenario, traced: bool) -> Self {
        let seed = scenario.seed;
        let (works, keys) = works_of(&scenario);
        let nodes = scenario.nodes.iter().map(Node::new).collect();
        let mut world = Self {
            works,
            keys,
            now: 0,
            queue: BinaryHeap::new(),
            slab: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            ties: Dice::new(seed, 1),
            dice: Dice::new(seed, 2),
            scheduler: SchedulerShell::new(scenario.result_bytes_max),
            links: Vec::new(),
            nodes,
            processes: Vec::new(),
            by_id: BTreeMap::new(),
            clients: Vec::new(),
            transfers: Vec::new(),
            apart: Vec::new(),
            ledger: Ledger::default(),
            cancelled: BTreeMap::new(),
            puts: BTreeSet::new(),
            dropped_puts: BTreeSet::new(),
            links_by_peer: BTreeMap::new(),
            kept: BTreeMap::new(),
            launches_failed: 0,
            holders: Holders::default(),
            replicas: Replicas::default(),
            to_recall: BTreeSet::new(),
            notices: Notices::default(),
            stops: Stops::default(),
            poison: BTreeSet::new(),
            deaths: BTreeMap::new(),
            missed: BTreeSet::new(),
            missed_once: None,
            is_healed: false,
            quiet_at: 0,
            events: 0,
            hash: [seed, mix(seed)],
            buffer: Vec::new(),
            coverage: Coverage::default(),
            trace: traced.then(Vec::new),
            failure: None,
            scenario,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in 0..self.scenario.nodes.len() {
            let at = self.scenario.nodes[node].join_ms * MS;
            self.push(at, Event::NannyStarts(node, 0));
        }
        for spec in 0..self.scenario.clients.len() {
            let at = self.scenario.clients[spec].start_ms * MS;
            let client = self.add_client(Some(spec), None);
            self.push(at, Event::ClientStarts(client));
        }
        for fault in 0..self.scenario.faults.len() {
            let at = self.scenario.faults[fault].at_ms.min(self.scenario.heal_ms) * MS;
            self.push(at, Event::Fault(fault));
        }
        self.push(self.scenario.heal_ms * MS, Event::Heal);
    }

    /// What is known of the world when it has ended, however it ended.
    pub(crate) fn report(&mut self, failure: Option<String>) -> Report {
        Report {
            failure: self.failure.take().or(failure),
            events: self.events,
            time_ns: self.now,
            hash: u128::from(self.hash[0]) << 64 | u128::from(self.hash[1]),
            runs: self.ledger.starts,
            repeats: self.ledger.repeats,
            coverage: std::mem::take(&mut self.coverage),
            story: self.trace.take().unwrap_or_default(),
        }
    }

    fn time(&self) -> Time {
        Time(self.now)
    }

    fn push(&mut self, at: u64, event: Event) {
        if at == NEVER {
            return;
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.slab[place] = Some(event);
                place
            }
            None => {
                self.slab.push(Some(event));
                self.slab.len() - 1
            }
        };
        let tie = self.ties.roll() >> 48;
        self.sequence += 1;
        self.queue.push(Reverse((at.max(self.now), tie, self.sequence, place)));
    }

    /// Lets things happen until a time. False if nothing is left to happen, or something is wrong.
    fn run_until(&mut self, end: u64) -> bool {
        while self.failure.is_none() {
            match self.queue.peek() {
                Some(Reverse((at, ..))) if *at <= end => {}
                left => {
                    let is_left = left.is_some();
                    self.now = self.now.max(end);
                    return is_left;
                }
            }
            let Some(Reverse((at, _, _, place))) = self.queue.pop() else { return false };
            self.now = at;
            let Some(event) = self.slab[place].take() else { continue };
            self.free.push(place);
            self.events += 1;
            self.happen(event);
            if self.events.is_multiple_of(RECOUNT_EVERY) {
                self.recount();
            }
            if self.events > EVENTS_MAX {
                self.fail("too many events: something goes in circles".to_owned());
            }
        }
        false
    }

    fn happen(&mut self, event: Event) {
        let awake = self.awake_at(&event);
        if awake > self.now {
            self.push(awake, event);
            return;
        }
        self.mix_in(self.now);
        match event {
            Event::Arrival(link, way) => self.arrive(link, way),
            Event::SchedulerTurn => self.scheduler_turn(),
            Event::SchedulerLosesLink(link) => self.scheduler_loses_link(link),
            Event::PeerLosesLink(link) => self.peer_loses_link(link),
            Event::LinkIdle(link, age, since) => self.link_idle(link, age, since),
            Event::SchedulerMissesLink(link, age) => self.scheduler_misses_link(link, age),
            Event::PeerMissesLink(link, age) => self.peer_misses_link(link, age),
            Event::Dials(link, age, since) => self.dials(link, age, since),
            Event::DialArrives(link, age, since) => self.dial_arrives(link, age, since),
            Event::PeerHasLink(link, age) => self.peer_has_link(link, age),
            Event::ProgramStored(hash) => self.program_stored(hash),
            Event::NannyStarts(node, age) => self.nanny_starts(node, age),
            Event::NannyTimeIsUp(node, age) => self.nanny_time_is_up(node, age),
            Event::LifetimeIsOver(node, at) => self.lifetime_is_over(node, at),
            Event::JobIsOver(node, at) => self.job_is_over(node, at),
            Event::SlurmAnswers(node, age) => self.slurm_answers(node, age),
            Event::ProgramFetched(node, age, hash, well) => {
                self.program_fetched(node, age, hash, well);
            }
            Event::ProcessStarts(process) => self.process_starts(process),
            Event::ProcessGone(process) => self.process_gone(process),
            Event::ProcessTimer(process) => self.process_timer(process),
            Event::RunEnds(process, chunk, index) => self.run_ends(process, chunk, index),
            Event::ClientStarts(client) => self.client_starts(client),
            Event::ClientTimer(client) => self.client_timer(client),
            Event::ClientStep(client) => self.client_step(client),
            Event::TransferArrives(transfer) => self.transfer_arrives(transfer),
            Event::TransferEnds(transfer) => self.transfer_ends(transfer),
            Event::Fault(fault) => self.strike(fault),
            Event::Heal => self.heal(),
        }
    }

    /// When whoever an event is for can take notice of it.
    fn awake_at(&self, event: &Event) -> u64 {
        match *event {
            Event::Arrival(link, Way::Down) => self.actor_awake_at(self.links[link].actor),
            Event::PeerLosesLink(link)
            | Event::PeerMissesLink(link, _)
            | Event::Dials(link, ..)
            | Event::PeerHasLink(link, _) => self.actor_awake_at(self.links[link].actor),
            Event::SchedulerTurn
            | Event::SchedulerLosesLink(_)
            | Event::SchedulerMissesLink(..)
            | Event::DialArrives(..) => self.scheduler.frozen_until,
            Event::NannyTimeIsUp(node, age)
            | Event::SlurmAnswers(node, age)
            | Event::ProgramFetched(node, age, ..) => self.actor_awake_at(Actor::Nanny(node, age)),
            Event::ProcessStarts(process)
            | Event::ProcessTimer(process)
            | Event::RunEnds(process, ..) => self.actor_awake_at(Actor::Process(process)),
            Event::ProcessGone(process) => {
                let process = &self.processes[process];
                self.actor_awake_at(Actor::Nanny(process.node, process.nanny_age))
            }
            Event::ClientTimer(client) | Event::ClientStep(client) => {
                self.actor_awake_at(Actor::Client(client))
            }
            Event::TransferEnds(transfer) => self.actor_awake_at(self.transfers[transfer].asker),
            _ => 0,
        }
    }

    fn actor_awake_at(&self, actor: Actor) -> u64 {
        match actor {
            Actor::Nanny(node, _) => {
                self.nodes[node].frozen_until.max(self.nodes[node].nanny_frozen_until)
            }
            Actor::Process(process) => {
                let process = &self.processes[process];
                process.frozen_until.max(self.nodes[process.node].frozen_until)
            }
            Actor::Client(client) => match self.clients[client].home {
                Some(process) => self.actor_awake_at(Actor::Process(process)),
                None => self.clients[client].frozen_until,
            },
        }
    }

    fn is_alive(&self, actor: Actor) -> bool {
        match actor {
            Actor::Nanny(node, age) => self.nodes[node].is_alive && self.nodes[node].age == age,
            Actor::Process(process) => self.processes[process].is_alive,
            Actor::Client(client) => self.clients[client].is_alive,
        }
    }

    fn fail(&mut self, why: String) {
        note!(self, "FAILED: {why}");
        if self.failure.is_none() {
            self.failure = Some(why);
        }
    }

    /// Counts the states of all machines anew.
    fn recount(&mut self) {
        self.scheduler.core.check();
        for process in self.processes.iter().filter(|process| process.is_alive) {
            process.core.check();
        }
    }

    fn work(&self, key: u64) -> &Work {
        &self.works[key as usize]
    }

    fn note_cancelled(&mut self, array: ArrayId, range: Range) {
        self.cancelled.entry(array).or_default().insert(range);
    }
}

/// Each step gets two functions: its own, and that of the tasks which its runs submit.
fn works_of(scenario: &Scenario) -> (Vec<Work>, Vec<Vec<u64>>) {
    use crate::scenario::Act;
    let mut works = Vec::new();
    let mut keys = Vec::new();
    for client in &scenario.clients {
        let mut own = Vec::new();
        for step in &client.steps {
            own.push(works.len() as u64);
            if let Act::Map { work, .. } | Act::Submit { work, .. } = &step.act {
                let inner = Work {
                    busy_us: work.busy_us / 2,
                    stored_percent: work.stored_percent,
                    ..Work::default()
                };
                works.push(work.clone());
                works.push(inner);
            }
        }
        keys.push(own);
    }
    (works, keys)
}
