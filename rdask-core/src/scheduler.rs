//! The scheduler: decides which task runs where. See [`Scheduler`].
//!
//! In reading order: `group` is what it knows of tasks, `cluster` what it knows of machines;
//! `submit` brings tasks in, `graph` moves them from waiting to ready, `placement` hands them
//! to processes as `locality` says (or `random`, the control), `finish` takes reports, `wants`
//! tells clients, `release` forgets, and `recovery` starts anew what a lost process had, `blame`
//! finds out who ended it, `overrun` ends what doesn't stop, `stealing` moves work to the idle,
//! `leave` lets workers go in good order, `ends` knows when they will, `replicas` copies values, and
//! `leases` waits for those whose links broke, `offers` takes back who was given up. `explain` says why a task isn't running. `programs`
//! gets programs to nodes and `grants` shares a worker's slots among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{
    ArrayId, AssignmentId, ClientId, NannyId, Peer, ProcessId, ProgramHash, TaskId, WorkerId,
};
use crate::message::{
    Contact, FromClient, FromNanny, FromProcess, ProgramInfo, Surroundings, ToClient, ToNanny,
    ToProcess, WorkerInfo,
};
use crate::range::Range;
use crate::range::RangeSet;
use crate::time::Time;

use self::blame::Blame;
use self::cluster::{Cluster, Nanny, Stage, Worker};
use self::ends::Ends;
use self::graph::Work;
use self::group::{Gid, Group};
use self::offers::Awaited;
use self::overrun::Overruns;
use self::programs::Programs;
use self::random::Dice;
use self::ready::{ClassNo, Classes, Share, ShareNo};
use self::replicas::Copies;
use self::stats::{Stats, Traffic};

pub use self::leases::{CLIENT_GRACE, SILENCE_FENCED};
pub use self::look::Look;
pub use self::offers::RETURN_AWAITED;

mod blame;
mod clients;
mod cluster;
mod ends;
mod explain;
mod feeds;
mod finish;
mod followers;
mod grants;
mod graph;
mod group;
mod invariants;
mod leases;
mod leave;
mod leftovers;
mod locality;
mod look;
mod missed;
mod offers;
mod overrun;
mod placement;
mod programs;
mod random;
mod ready;
mod recovery;
mod release;
mod replicas;
mod stats;
mod status;
mod stealing;
mod submit;
mod table;
mod wants;

/// What a nanny tells at registration.
#[derive(Clone, Debug)]
pub struct NannyInfo {
    /// The node's name.
    pub node: String,
    /// The Slurm job or `--pool` label.
    pub pool: String,
    /// What it brings.
    pub workers: Vec<WorkerInfo>,
    /// Where it serves programs.
    pub contact: Contact,
}

/// What a client tells at registration.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// What it runs, and what its processes run.
    pub program: ProgramInfo,
    /// What its processes inherit.
    pub surroundings: Surroundings,
    /// For the log.
    pub name: String,
    /// The process whose tasks it submits for.
    pub nested_in: Option<ProcessId>,
}

/// What the scheduler wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send to a client.
    ToClient(ClientId, ToClient),
    /// Send to a process.
    ToProcess(ProcessId, ToProcess),
    /// Send to a nanny.
    ToNanny(NannyId, ToNanny),
    /// End a link; the peer is told why.
    Close(Peer, String),
    /// Forget the stored bytes of a program.
    ForgetProgram(ProgramHash),
}

/// Who gets ready tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Those that have their inputs, and those with least to do.
    #[default]
    Locality,
    /// Random ones of those with room: the control, to see what the other is worth.
    Random {
        /// Where the random numbers begin.
        seed: u64,
    },
}

/// The knobs of a scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of this start.
    pub epoch: u64,
    /// The most bytes of inline results to keep; what comes beyond stays with processes.
    pub result_bytes_max: u64,
    /// Who gets ready tasks.
    pub policy: Policy,
}

impl Default for Config {
    /// The first start of a scheduler with room for any result.
    fn default() -> Self {
        Self { epoch: 1, result_bytes_max: u64::MAX, policy: Policy::default() }
    }
}

/// One handing of tasks to a process, until all of them are accounted for.
#[derive(Debug)]
struct Assignment {
    process: ProcessId,
    group: Gid,
    remaining: RangeSet,
    class: ClassNo,
    threads: u16,
    /// What a run of it was thought to take.
    mean_ns: u64,
}

/// The scheduler's state machine.
///
/// Facts go in by `connect_*` and `handle_*`; call [`poll_action`](Self::poll_action) until `None`
/// and look at [`poll_timeout`](Self::poll_timeout) after each batch of them: the decisions of
/// placement are made once per batch. Time never goes backwards. The same calls give the same
/// actions, byte for byte. Stale input is normal: it is counted and ignored.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    now: Time,
    actions: VecDeque<Action>,
    next_id: u32,
    cluster: Cluster,
    clients: BTreeMap<ClientId, clients::Client>,
    programs: Programs,
    groups: Groups,
    shares: BTreeMap<ShareNo, Share>,
    /// Where whoever begins to work starts; see [`Scheduler::level`].
    level_ns: u64,
    classes: Classes,
    stats: Stats,
    traffic: Traffic,
    assignments: BTreeMap<AssignmentId, Assignment>,
    next_assignment: u64,
    next_steal: u64,
    copies: Copies,
    ends: Ends,
    /// Scattered values that wait for a process to be put with: of which program, and what they need
    /// of a worker.
    puts: BTreeMap<(ProgramHash, ClassNo), BTreeSet<(Gid, u32)>>,
    /// Clients that wait for their programs to be at work, and by which request.
    asking_ready: Vec<(ClientId, u32)>,
    /// Clients that asked how it is with a task since the last decisions, and by which request.
    asking_why: Vec<(ClientId, u32, TaskId)>,
    /// Processes that may have room.
    open: BTreeSet<ProcessId>,
    /// Processes that may have more than their slots run.
    laden: BTreeSet<ProcessId>,
    /// Workers whose slots may have to be shared anew.
    contested: BTreeSet<WorkerId>,
    /// Nannies with workers that were given notice.
    leaving: BTreeSet<NannyId>,
    /// Processes with ready work that waits for them, by program.
    tied: BTreeSet<(ProgramHash, ProcessId)>,
    /// When an idle process may take some of it, if nothing happens before.
    look_again: Option<Time>,
    looks_left: u32,
    dice: Dice,
    /// Results under a name.
    detached: BTreeMap<String, Vec<clients::Detached>>,
    /// Who is suspected of ending processes.
    blame: Blame,
    /// Runs that were told to stop.
    overruns: Overruns,
    /// What to do at a time: tasks whose retry delay ends.
    delayed: BTreeSet<(Time, Gid, u32)>,
    /// Peers whose links broke, and until when they may come back.
    leases: BTreeMap<Peer, Time>,
    /// Until then nobody is given up: the scheduler stood still.
    no_verdict_before: Time,
    /// Scattered values whose holders were given up and may come back.
    awaited: Awaited,
    /// The bytes of inline results that are kept.
    result_bytes: u64,
    /// Messages about assignments that are no more.
    stale_count: u64,
    /// Consequences that are not drawn yet. Empty between facts.
    work: VecDeque<Work>,
    /// Ready tasks are not tied to this process, although it has their inputs: it just gave them up.
    untied: Option<ProcessId>,
    /// Something happened since the last placement.
    dirty: bool,
    idle_since: Option<Time>,
}

/// All arrays and batches.
#[derive(Debug, Default)]
struct Groups {
    by_gid: BTreeMap<Gid, Group>,
    by_id: BTreeMap<ArrayId, Gid>,
    /// What runs have submitted, by the task that ran.
    by_parent: BTreeSet<(TaskId, Gid)>,
    next: u32,
}

impl Groups {
    fn get(&self, gid: Gid) -> Option<&Group> {
        self.by_gid.get(&gid)
    }

    fn get_mut(&mut self, gid: Gid) -> Option<&mut Group> {
        self.by_gid.get_mut(&gid)
    }

    fn find(&self, id: ArrayId) -> Option<Gid> {
        self.by_id.get(&id).copied()
    }

    fn insert(&mut self, group: Group) -> Gid {
        let gid = Gid(self.next);
        self.next += 1;
        self.by_id.insert(group.id, gid);
        if let Some(parent) = group.parent {
            self.by_parent.insert((parent.task, gid));
        }
        self.by_gid.insert(gid, group);
        gid
    }

    fn remove(&mut self, gid: Gid) -> Option<Group> {
        let group = self.by_gid.remove(&gid)?;
        self.by_id.remove(&group.id);
        if let Some(parent) = group.parent {
            self.by_parent.remove(&(parent.task, gid));
        }
        Some(group)
    }

    /// What runs of these tasks have submitted.
    fn nested_in(&self, array: ArrayId, range: Range) -> Vec<Gid> {
        let at = |index| (TaskId { array, index }, Gid(0));
        let nested = self.by_parent.range(at(range.start)..at(range.end));
        nested.map(|(_, gid)| *gid).collect()
    }
}

/// How long a program without client, run and wanted value keeps its processes.
pub const PROGRAM_IDLE: Duration = Duration::from_secs(50);

impl Scheduler {
    /// A scheduler without peers.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            dice: Dice::new(config.policy),
            config,
            now: Time::default(),
            actions: VecDeque::new(),
            next_id: 1,
            cluster: Cluster::default(),
            clients: BTreeMap::new(),
            programs: Programs::default(),
            groups: Groups::default(),
            shares: BTreeMap::new(),
            level_ns: 0,
            classes: Classes::default(),
            stats: Stats::default(),
            traffic: Traffic::default(),
            assignments: BTreeMap::new(),
            next_assignment: 1,
            next_steal: 1,
            copies: Copies::default(),
            ends: Ends::default(),
            puts: BTreeMap::new(),
            asking_ready: Vec::new(),
            asking_why: Vec::new(),
            open: BTreeSet::new(),
            laden: BTreeSet::new(),
            contested: BTreeSet::new(),
            leaving: BTreeSet::new(),
            tied: BTreeSet::new(),
            look_again: None,
            looks_left: 0,
            detached: BTreeMap::new(),
            blame: Blame::default(),
            overruns: Overruns::default(),
            delayed: BTreeSet::new(),
            leases: BTreeMap::new(),
            no_verdict_before: Time::default(),
            awaited: Awaited::default(),
            result_bytes: 0,
            stale_count: 0,
            work: VecDeque::new(),
            untied: None,
            dirty: false,
            idle_since: Some(Time::default()),
        }
    }

    fn begin(&mut self, now: Time) {
        debug_assert!(now >= self.now, "time went backwards");
        self.now = self.now.max(now);
        self.dirty = true;
    }

    fn fresh_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn send_client(&mut self, to: ClientId, message: ToClient) {
        self.actions.push_back(Action::ToClient(to, message));
    }

    fn send_process(&mut self, to: ProcessId, message: ToProcess) {
        self.actions.push_back(Action::ToProcess(to, message));
    }

    fn send_nanny(&mut self, to: NannyId, message: ToNanny) {
        self.actions.push_back(Action::ToNanny(to, message));
    }

    /// A nanny registers: its number and its workers'.
    pub fn connect_nanny(&mut self, now: Time, info: NannyInfo) -> (NannyId, Vec<WorkerId>) {
        self.begin(now);
        let nanny = NannyId(self.fresh_id());
        let mut ids = Vec::with_capacity(info.workers.len());
        for worker in info.workers {
            let id = WorkerId(self.fresh_id());
            ids.push(id);
            let free = worker.resources.iter().cloned().collect();
            self.cluster.workers.insert(
                id,
                Worker {
                    nanny,
                    info: worker,
                    node: info.node.clone(),
                    pool: info.pool.clone(),
                    processes: BTreeMap::new(),
                    alone: BTreeSet::new(),
                    free,
                    leaving: false,
                    leaves_by: None,
                    ends_at: None,
                },
            );
        }
        let record = Nanny {
            node: info.node,
            pool: info.pool,
            contact: info.contact,
            workers: ids.clone(),
            ends_at: None,
            ends_with_job: false,
            may_go: false,
        };
        self.cluster.nannies.insert(nanny, record);
        (nanny, ids)
    }

    /// A client registers.
    pub fn connect_client(&mut self, now: Time, info: ClientInfo) -> ClientId {
        self.begin(now);
        self.add_client(info)
    }

    /// Somebody registers who only asks.
    pub fn connect_observer(&mut self, now: Time) -> ClientId {
        self.begin(now);
        self.add_observer()
    }

    /// A launched process registers.
    ///
    /// # Errors
    /// If no such process is awaited: the text says why.
    pub fn connect_process(
        &mut self,
        now: Time,
        process: ProcessId,
        contact: Contact,
    ) -> Result<(), String> {
        self.begin(now);
        let Some(record) = self.cluster.processes.get_mut(&process) else {
            return Err(format!("process {process} is not awaited any more"));
        };
        record.stage = match record.stage {
            Stage::Launching => Stage::Running,
            Stage::Returning => Stage::Offering,
            _ => return Err(format!("process {process} is registered already")),
        };
        record.contact = contact;
        let (program, worker) = (record.program, record.worker);
        self.leases.remove(&Peer::Process(process));
        self.programs.launched(program, worker);
        self.open.insert(process);
        self.contested.insert(worker);
        self.copies_have_a_place();
        Ok(())
    }

    /// A client said something.
    pub fn handle_client(&mut self, now: Time, from: ClientId, message: FromClient) {
        self.begin(now);
        if self.clients.contains_key(&from)
            && let Err(reason) = self.client_message(from, message)
        {
            self.actions.push_back(Action::Close(Peer::Client(from), reason.to_string()));
            self.lose_client(from);
        }
    }

    /// A process said something.
    pub fn handle_process(&mut self, now: Time, from: ProcessId, message: FromProcess) {
        self.begin(now);
        if !self.cluster.processes.contains_key(&from) {
            self.stale_count += 1;
            return;
        }
        match message {
            FromProcess::Report { number, finished } => self.take_report(from, number, finished),
            FromProcess::Stopped { assignment, range } => self.stopped(from, assignment, range),
            FromProcess::SlotsFree { slots } => self.slots_freed(from, slots),
            FromProcess::Parked { runs, slots } => self.parked(from, runs, slots),
            FromProcess::GaveUp { steal, assignment, ranges } => {
                self.steal_answered(from, steal, !ranges.is_empty());
                self.untied = Some(from);
                for range in ranges {
                    self.give_back(from, assignment, range);
                }
                self.untied = None;
            }
            FromProcess::Holds { values } => self.copied(from, &values),
            FromProcess::NotAcquired { task } => self.not_acquired(from, task),
            FromProcess::Fetched { bytes, busy_ns } => self.bytes_moved(bytes, busy_ns),
            FromProcess::Missed { task, holder, denied, given_back } => {
                let is_there = self.value_missed(task, holder, denied);
                for (assignment, range) in given_back {
                    let parts = self.give_back(from, assignment, range);
                    if is_there {
                        self.try_again_later(parts);
                    }
                }
            }
            FromProcess::Offer { values, is_last } => self.take_offer(from, values, is_last),
        }
    }

    /// A nanny said something.
    pub fn handle_nanny(&mut self, now: Time, from: NannyId, message: FromNanny) {
        self.begin(now);
        if !self.cluster.nannies.contains_key(&from) {
            self.stale_count += 1;
            return;
        }
        match message {
            FromNanny::WantProgram { hash } => self.program_wanted(from, hash),
            FromNanny::HasProgram { hash } => self.program_arrived(from, hash),
            FromNanny::FetchFailed { hash, message } => {
                self.program_fetch_failed(from, hash, &message)
            }
            FromNanny::LaunchFailed { process, message } => self.launch_failed(process, &message),
            FromNanny::Exited { process, exit, board, stderr } => {
                self.process_exited(from, process, &exit, &board, &stderr);
            }
            FromNanny::Leaving { reason } => self.nanny_leaving(from, &reason),
            FromNanny::EndsIn { time, is_job } => self.ends_in(from, time, is_job),
            FromNanny::InJob { job } => self.in_job(from, job),
            FromNanny::JobEndsIn { time } => self.job_ends_in(from, time),
        }
    }

    /// A peer is gone: it said so, or its node did.
    pub fn handle_link_lost(&mut self, now: Time, peer: Peer) {
        self.begin(now);
        match peer {
            Peer::Client(client) => self.lose_client(client),
            Peer::Process(process) => self.lose_process(process, "its link ended"),
            Peer::Nanny(nanny) => self.lose_nanny(nanny, "its link ended"),
        }
    }

    /// The program that a client was asked to send is stored with the scheduler's process now.
    pub fn handle_program_stored(&mut self, now: Time, hash: ProgramHash) {
        self.begin(now);
        self.program_stored(hash);
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Time) {
        self.begin(now);
        self.end_leases();
        self.end_delays();
        self.end_graces();
        self.end_idle_programs();
        self.end_workers();
        self.end_awaited();
        // Launches that are due again are tried by `settle`.
    }

    /// What to do next. Call until `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() && self.dirty {
            self.dirty = false;
            self.settle();
        }
        self.actions.pop_front()
    }

    /// Decides, once per batch of facts.
    fn settle(&mut self) {
        // What ends may be the last to have a value.
        self.make_copies();
        self.end_closing();
        self.launch_processes();
        self.launch_suspects();
        self.share_slots();
        self.start_suspects();
        self.place_puts();
        self.place();
        self.steal();
        self.make_copies();
        self.let_go();
        self.answer_ready();
        self.answer_why();
        self.note_idleness();
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let delayed = self.delayed.first().map(|(time, ..)| *time);
        let after_stall = |time: Time| time.max(self.no_verdict_before);
        let due = [
            delayed,
            self.programs.next_timeout(self.now),
            self.next_lease_end(),
            self.ends.next_timeout(),
            self.look_again,
            self.overruns.next_timeout(self.now).map(after_stall),
            self.awaited.next_timeout().map(after_stall),
            self.next_departure(),
        ];
        due.into_iter().flatten().min()
    }

    /// Since when nothing has been submitted, run or wanted; `None` while something is.
    #[must_use]
    pub fn idle_since(&self) -> Option<Time> {
        self.idle_since
    }

    fn note_idleness(&mut self) {
        let busy = !self.clients.is_empty() || !self.groups.by_gid.is_empty();
        match (busy, self.idle_since) {
            (true, _) => self.idle_since = None,
            (false, None) => self.idle_since = Some(self.now),
            (false, Some(_)) => {}
        }
    }

    /// Whether a process is known: launched or at work.
    #[must_use]
    pub fn knows(&self, process: ProcessId) -> bool {
        self.cluster.processes.contains_key(&process)
    }

    /// How many messages came too late to matter.
    #[must_use]
    pub fn stale_count(&self) -> u64 {
        self.stale_count
    }
}

#[cfg(test)]
mod tests;
