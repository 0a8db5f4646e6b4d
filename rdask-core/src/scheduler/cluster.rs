//! Who is there: nannies, their workers, the processes in them.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{AssignmentId, NannyId, ProcessId, ProgramHash, WorkerId};
use crate::message::{Contact, WorkerInfo};
use crate::range::RangeSet;
use crate::time::Time;

use super::blame::Suspect;
use super::group::Gid;
use super::ready::{ReadyKey, Requirement};
use super::stealing::Asked;

/// One `rdask worker` command.
#[derive(Debug)]
pub(crate) struct Nanny {
    pub(crate) node: String,
    pub(crate) pool: String,
    pub(crate) contact: Contact,
    pub(crate) workers: Vec<WorkerId>,
    /// When its workers are given notice, if that is known.
    pub(crate) ends_at: Option<Time>,
    /// Whether that is shortly before its job ends.
    pub(crate) ends_with_job: bool,
    /// It was told that nothing is left to do.
    pub(crate) may_go: bool,
}

/// Slots and a memory limit on a node.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) nanny: NannyId,
    pub(crate) info: WorkerInfo,
    pub(crate) node: String,
    pub(crate) pool: String,
    /// At most one per program.
    pub(crate) processes: BTreeMap<ProgramHash, ProcessId>,
    /// Processes that were started for one suspect each.
    pub(crate) alone: BTreeSet<ProcessId>,
    /// What is left of its resources.
    pub(crate) free: BTreeMap<String, u64>,
    /// It has been given notice: nothing new for it.
    pub(crate) leaving: bool,
    /// When it goes although something is left to do, if that was said.
    pub(crate) leaves_by: Option<Time>,
    /// When it will be, if that is known.
    pub(crate) ends_at: Option<Time>,
}

impl Worker {
    /// Its processes, those of suspects included.
    pub(crate) fn all_processes(&self) -> impl Iterator<Item = ProcessId> + '_ {
        self.processes.values().chain(&self.alone).copied()
    }

    /// Whether it could ever run tasks that need this.
    pub(crate) fn suits(&self, requirement: &Requirement) -> bool {
        let named =
            |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
        u32::from(requirement.threads) <= self.info.slots
            && named(&requirement.workers, &self.info.name)
            && named(&requirement.pools, &self.pool)
            && requirement.resources.iter().all(|(name, amount)| {
                self.info.resources.iter().any(|(has, total)| has == name && total >= amount)
            })
    }

    /// How many more runs that need this its free resources allow.
    pub(crate) fn resource_room(&self, requirement: &Requirement) -> u32 {
        let rooms = requirement.resources.iter().map(|(name, amount)| {
            let free = self.free.get(name).copied().unwrap_or(0);
            free.checked_div(*amount).unwrap_or(u64::from(u32::MAX))
        });
        rooms.min().map_or(u32::MAX, |room| u32::try_from(room).unwrap_or(u32::MAX))
    }

    pub(crate) fn take_resources(&mut self, requirement: &Requirement, runs: u32) {
        for (name, amount) in &requirement.resources {
            if let Some(free) = self.free.get_mut(name) {
                *free = free.saturating_sub(amount * u64::from(runs));
            }
        }
    }

    pub(crate) fn give_resources(&mut self, requirement: &Requirement, runs: u32) {
        for (name, amount) in &requirement.resources {
            if let Some(free) = self.free.get_mut(name) {
                *free = free.saturating_add(amount * u64::from(runs));
            }
        }
    }
}

/// How far a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its nanny was told to start it.
    Launching,
    /// Its nanny still has it of a time when it was given up, and was told to keep it.
    Returning,
    /// It is registered again and tells what it holds.
    Offering,
    /// It is registered and takes work.
    Running,
    /// It was told to end.
    Ending,
}

impl Stage {
    /// Whether it has a connection.
    pub(crate) fn is_registered(self) -> bool {
        matches!(self, Self::Offering | Self::Running)
    }
}

/// One program at work inside a worker.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) worker: WorkerId,
    pub(crate) nanny: NannyId,
    pub(crate) program: ProgramHash,
    pub(crate) stage: Stage,
    pub(crate) contact: Contact,
    /// The slots it may use.
    pub(crate) granted: u32,
    /// The slots it may still be using: more than granted until it has confirmed a revocation.
    pub(crate) occupied: u32,
    /// Slots that its assigned, unfinished runs take or will take.
    pub(crate) demand: u32,
    /// The time that these runs will likely take, in slot-nanoseconds.
    pub(crate) queued_ns: u64,
    /// Runs that wait for nested tasks, and the slots they gave back.
    pub(crate) parked_runs: u32,
    pub(crate) parked_slots: u32,
    pub(crate) assignments: BTreeSet<AssignmentId>,
    /// Values it has as their first holder, and copies.
    pub(crate) held: BTreeMap<Gid, RangeSet>,
    pub(crate) copies: BTreeMap<Gid, RangeSet>,
    /// Set when it is to go: how many bytes of its values may still be copied to others.
    pub(crate) leaving: Option<u64>,
    /// Ready tasks whose inputs it has.
    pub(crate) local_ready: BTreeMap<ReadyKey, RangeSet>,
    /// How many they are, and when it last was given something or ended something, or they came.
    pub(crate) tied_count: u64,
    pub(crate) moved_on: Time,
    /// Processes whose contact it has been told.
    pub(crate) knows: BTreeSet<ProcessId>,
    /// Whether it was asked to give up work.
    pub(crate) asked: Asked,
    /// The suspect that it was started for: it runs nothing else but what that task submits.
    pub(crate) alone_for: Option<Suspect>,
}

impl Process {
    pub(crate) fn new(worker: WorkerId, nanny: NannyId, program: ProgramHash) -> Self {
        Self {
            worker,
            nanny,
            program,
            stage: Stage::Launching,
            contact: Contact { quic: Vec::new(), tls: Vec::new() },
            granted: 0,
            occupied: 0,
            demand: 0,
            queued_ns: 0,
            parked_runs: 0,
            parked_slots: 0,
            assignments: BTreeSet::new(),
            held: BTreeMap::new(),
            copies: BTreeMap::new(),
            leaving: None,
            local_ready: BTreeMap::new(),
            tied_count: 0,
            moved_on: Time::default(),
            knows: BTreeSet::new(),
            asked: Asked::default(),
            alone_for: None,
        }
    }

    /// Slots that its runs take now or will take, without those that wait for nested tasks.
    pub(crate) fn load(&self) -> u32 {
        self.demand.saturating_sub(self.parked_slots)
    }

    /// Whether it has more than its slots run.
    pub(crate) fn is_laden(&self) -> bool {
        self.load() > self.granted
    }

    /// Granted slots for which it has no run yet.
    pub(crate) fn idle_slots(&self) -> u32 {
        self.granted.saturating_sub(self.load())
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) nannies: BTreeMap<NannyId, Nanny>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) processes: BTreeMap<ProcessId, Process>,
}

impl Cluster {
    /// The worker in which a process runs.
    pub(crate) fn worker_of(&self, process: ProcessId) -> Option<&Worker> {
        self.workers.get(&self.processes.get(&process)?.worker)
    }
}
