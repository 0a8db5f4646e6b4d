//! Who has been given notice, reckoned beside the core: such a worker gets nothing new, its runs end
//! before it goes, and what only it has is copied to others if there are any.

use std::collections::{BTreeMap, BTreeSet};

use rdask_core::id::{ClientId, NannyId, Peer, ProcessId, TaskId, WorkerId};
use rdask_core::message::{FromNanny, FromProcess, ToNanny, UnknownWorkers};
use rdask_core::scheduler::Look;

use super::World;
use crate::value::BYTES_MAX;

/// Half of what is copied off a process whose time is short: some of it may be copied twice.
const COPIED_OFF_MAX: u64 = 1 << 29;

/// Why workers go that have given notice.
pub(super) const GONE: &str = "it gave notice, and nothing is left to do";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// The workers of nannies that are members.
    workers: BTreeMap<NannyId, Vec<WorkerId>>,
    /// Where processes run.
    homes: BTreeMap<ProcessId, WorkerId>,
    /// Workers that were given notice, and whether their time is short.
    leaving: BTreeMap<WorkerId, bool>,
    /// When workers of nannies will be, and whether their time is short then.
    due: BTreeMap<WorkerId, (u64, bool)>,
    jobs: BTreeMap<String, Job>,
    /// What somebody has to be told who has let workers go.
    expected: BTreeMap<ClientId, BTreeSet<WorkerId>>,
    /// Processes that are back, and have not told all that they hold.
    offering: BTreeSet<ProcessId>,
    /// Values that somebody could not be given a copy of.
    not_had: BTreeSet<TaskId>,
}

/// A job that nobody has known the end of.
#[derive(Debug, Default)]
struct Job {
    nannies: BTreeSet<NannyId>,
    asked: Option<NannyId>,
    /// The answer, if there was one.
    notice_at: Option<Option<u64>>,
}

impl Notices {
    /// A nanny is a member.
    pub(super) fn joined(&mut self, nanny: NannyId, workers: &[WorkerId]) {
        self.workers.insert(nanny, workers.to_vec());
    }

    /// A member is gone.
    pub(super) fn is_gone(&mut self, peer: Peer) {
        if let Peer::Nanny(nanny) = peer {
            self.workers.remove(&nanny);
            self.jobs.values_mut().for_each(|job| {
                job.nannies.remove(&nanny);
                job.asked = job.asked.filter(|asked| *asked != nanny);
            });
            self.jobs.retain(|_, job| !job.nannies.is_empty());
        }
    }

    /// The scheduler hears a nanny.
    fn hear(&mut self, now: u64, from: NannyId, message: &FromNanny) {
        match message {
            FromNanny::Leaving { .. } => self.give_notice(from, now, true),
            FromNanny::EndsIn { time, is_job } => {
                self.give_notice(from, now + time.as_nanos() as u64, *is_job);
            }
            FromNanny::InJob { job } => {
                let job = self.jobs.entry(job.clone()).or_default();
                job.nannies.insert(from);
                if let Some(Some(at)) = job.notice_at {
                    self.give_notice(from, at, true);
                }
            }
            FromNanny::JobEndsIn { time } => {
                let at = time.map(|time| now + time.as_nanos() as u64);
                let Some(job) = self.jobs.values_mut().find(|job| job.asked == Some(from)) else {
                    return;
                };
                (job.asked, job.notice_at) = (None, Some(at));
                let nannies = job.nannies.clone();
                for nanny in nannies {
                    at.into_iter().for_each(|at| self.give_notice(nanny, at, true));
                }
            }
            _ => {}
        }
    }

    /// Of several such times the first counts; time is short if it is for any of them.
    fn give_notice(&mut self, nanny: NannyId, at: u64, is_short: bool) {
        for worker in self.workers.get(&nanny).into_iter().flatten() {
            let due = self.due.entry(*worker).or_insert((at, is_short));
            *due = (due.0.min(at), due.1 || is_short);
        }
    }

    /// Whether a process's worker has been given notice.
    pub(super) fn is_leaving(&self, process: ProcessId, now: u64) -> bool {
        let Some(home) = self.homes.get(&process) else { return false };
        self.leaving.contains_key(home) || self.due.get(home).is_some_and(|(at, _)| *at <= now)
    }

    /// Whether a process is back, and has not told all that it holds.
    pub(super) fn is_offering(&self, process: ProcessId) -> bool {
        self.offering.contains(&process)
    }

    /// Whether somebody could not be given a copy of a value.
    pub(super) fn is_not_had(&self, task: TaskId) -> bool {
        self.not_had.contains(&task)
    }

    fn is_short_of_time(&self, process: ProcessId) -> bool {
        let home = self.homes.get(&process);
        home.is_some_and(|home| self.due.get(home).is_some_and(|(_, is_short)| *is_short))
    }
}

impl World {
    /// What a nanny says of its end.
    pub(super) fn observe_nanny(&mut self, from: NannyId, message: &FromNanny) {
        let Some(workers) = self.notices.workers.get(&from) else { return };
        if let FromNanny::Leaving { .. } = message {
            let workers = workers.iter().copied().collect();
            self.mark_leaves(&workers);
        }
        self.notices.hear(self.now, from, message);
    }

    /// What processes of these workers have and run, as the scheduler sees it.
    fn mark_leaves(&mut self, workers: &BTreeSet<WorkerId>) {
        let homes = self.notices.homes.iter().filter(|(_, home)| workers.contains(home));
        for process in homes.filter_map(|(id, _)| self.by_id.get(id)) {
            let one = &self.processes[*process];
            for value in one.store.keys().filter(|_| one.is_alive) {
                let look = self.scheduler.core.look(value.task);
                self.coverage.mark(look, "its holder gives notice");
            }
            for task in one.running_tasks() {
                let look = self.scheduler.core.look(task);
                self.coverage.mark(look, "its process gives notice");
            }
        }
    }

    /// Somebody lets workers go: those of the name, as the scheduler knows them.
    pub(super) fn observe_retirement(&mut self, from: ClientId, names: &[String]) {
        let status = self.scheduler.core.status();
        let named = status
            .workers
            .iter()
            .filter(|one| names.iter().any(|name| *name == one.pool || *name == one.name));
        let named: BTreeSet<WorkerId> = named.map(|one| one.id).collect();
        self.mark_leaves(&named);
        self.notices.leaving.extend(named.iter().map(|worker| (*worker, false)));
        self.notices.expected.insert(from, named);
    }

    /// Who lets workers go is told which.
    pub(super) fn check_retired(
        &mut self,
        to: ClientId,
        workers: &Result<Vec<WorkerId>, UnknownWorkers>,
    ) {
        let told: BTreeSet<WorkerId> = workers.iter().flatten().copied().collect();
        let expected = self.notices.expected.remove(&to);
        if expected.as_ref() != Some(&told) {
            self.fail(format!("{workers:?} are said to leave, not {expected:?}"));
        }
    }

    pub(super) fn observe_offer(&mut self, from: ProcessId, message: &FromProcess) {
        match message {
            FromProcess::Offer { is_last: true, .. } => {
                self.notices.offering.remove(&from);
            }
            FromProcess::NotAcquired { task } | FromProcess::Missed { task, .. } => {
                self.notices.not_had.insert(*task);
            }
            _ => {}
        }
    }

    /// What the scheduler says to nannies of processes, and of their end.
    pub(super) fn check_nanny_order(&mut self, to: NannyId, message: &ToNanny) {
        match message {
            ToNanny::Launch(launch) => {
                self.notices.homes.insert(launch.process, launch.worker);
                if self.notices.is_leaving(launch.process, self.now) {
                    self.fail(format!("a process is started in {}, which leaves", launch.worker));
                }
            }
            ToNanny::Keep { was, process } => {
                let worker = self.by_id.get(was).map(|index| self.processes[*index].worker);
                let workers = self.notices.workers.get(&to);
                let home = worker.and_then(|worker| workers?.get(worker).copied());
                self.notices.homes.extend(home.map(|home| (*process, home)));
                self.notices.offering.insert(*process);
            }
            // It may have gone since it was chosen.
            ToNanny::AskJobEnd if !self.notices.workers.contains_key(&to) => {}
            ToNanny::AskJobEnd => {
                // Who was asked may have been given up a moment ago.
                let status = self.scheduler.core.status();
                let is_there = |nanny: NannyId| {
                    let own = self.notices.workers.get(&nanny);
                    own.is_some_and(|own| status.workers.iter().any(|one| own.contains(&one.id)))
                };
                let asked = |job: &Job| job.asked.is_some_and(is_there);
                let mut jobs = self.notices.jobs.values();
                let job = jobs.find(|job| job.nannies.contains(&to));
                let is_first = job.is_some_and(|job| job.notice_at.is_none() && !asked(job));
                let mut jobs = self.notices.jobs.values_mut();
                if let Some(job) = jobs.find(|job| job.nannies.contains(&to)) {
                    job.asked = Some(to);
                }
                if !is_first {
                    self.fail(format!("{to} is to ask when its job ends, which is known or asked"));
                }
            }
            ToNanny::Exit { .. } => {
                let workers = self.notices.workers.get(&to).cloned().unwrap_or_default();
                let core = &self.scheduler.core;
                let homes = self.notices.homes.iter();
                let going = homes.filter(|(id, home)| workers.contains(home) && core.knows(**id));
                let going: Vec<ProcessId> = going.map(|(process, _)| *process).collect();
                self.check_let_go(&going);
            }
            ToNanny::FetchProgram { .. } | ToNanny::Kill { .. } => {}
        }
    }

    /// Nothing new is given to who leaves.
    pub(super) fn check_stays(&mut self, to: ProcessId, what: &str) {
        if self.notices.is_leaving(to, self.now) {
            self.fail(format!("{to} leaves, and is given {what}"));
        }
    }

    /// These processes leave in good order: nothing runs there any more, and nobody else could have
    /// taken what only they have.
    pub(super) fn check_let_go(&mut self, going: &[ProcessId]) {
        for id in going {
            let Some(process) = self.by_id.get(id).copied() else { continue };
            if !self.notices.is_leaving(*id, self.now) {
                return self.fail(format!("{id} is let go, and nobody has said so"));
            }
            if let Some(task) = self.counting_run(process, &|_| true) {
                return self.fail(format!("{id} is let go while it runs {task}"));
            }
            let store = &self.processes[process].store;
            let is_short = self.notices.is_short_of_time(*id);
            if is_short && store.len() as u64 * BYTES_MAX > COPIED_OFF_MAX {
                continue;
            }
            let lost = store.keys().map(|value| value.task).find(|task| {
                let look = self.scheduler.core.look(*task);
                let is_wanted = !matches!(look, Look::Unknown | Look::DoneInline | Look::Failed)
                    && !matches!(look, Look::Dropped | Look::DoneNowhere);
                is_wanted
                    && !self.notices.is_not_had(*task)
                    && self.ledger.is_only_with(*task, going, |id| self.scheduler.core.knows(id))
            });
            if let Some(task) = lost
                && let Some(taker) = self.taker_beside(process, going)
            {
                let look = self.scheduler.core.look(task);
                return self.fail(format!(
                    "{id} is let go with {task} ({look:?}), which {taker} could have taken"
                ));
            }
        }
    }

    /// A process of the same program that could take values.
    fn taker_beside(&self, process: usize, going: &[ProcessId]) -> Option<ProcessId> {
        let program = self.processes[process].program;
        let others = self.processes.iter().filter(|one| one.program == program);
        others.map(|one| one.id).find(|id| {
            !going.contains(id) && self.is_staying(*id) && !self.scheduler.core.is_alone(*id)
        })
    }

    /// At rest nobody has anything left to do: who was given notice is gone.
    pub(super) fn check_gone(&mut self) {
        let status = self.scheduler.core.status();
        let stays = status.workers.iter().find(|one| {
            let is_heard = self.notices.workers.iter().any(|(nanny, workers)| {
                let peer = Peer::Nanny(*nanny);
                workers.contains(&one.id) && !self.scheduler.leases.is_silent(peer)
            });
            let due = self.notices.due.get(&one.id).is_some_and(|(at, _)| *at < self.now);
            is_heard && (due || self.notices.leaving.contains_key(&one.id))
        });
        if let Some(stays) = stays {
            self.fail(format!("nothing is left to do, and {stays:?} is not let go"));
        }
    }
}
