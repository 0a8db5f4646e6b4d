//! POLICY: workers that end at a known time, and what may start there.
//!
//! A worker's end is the time when it is given notice: after its lifetime, or so long before the end
//! of its Slurm job that values can be copied off. Nannies that know it say so; for a job whose
//! nannies don't, one of them is told to ask Slurm, and its answer holds for all.
//!
//! A task starts where nine of ten runs of its function would end in time. What fits nowhere starts
//! anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{NannyId, ProcessId};
use crate::message::ToNanny;
use crate::time::Time;

use super::Scheduler;
use super::cluster::{Stage, Worker};
use super::group::Group;
use super::replicas::COPIED_OFF_BYTES_MAX;

/// Slurm's numbers of jobs are a few digits; nobody needs more.
const JOB_BYTES_MAX: usize = 64;

/// When nannies' workers end.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Those that are still to come.
    due: BTreeSet<(Time, NannyId)>,
    jobs: BTreeMap<String, Job>,
}

/// A Slurm job whose nannies don't know when it ends.
#[derive(Debug, Default)]
struct Job {
    nannies: BTreeSet<NannyId>,
    /// Who was told to ask.
    asked: Option<NannyId>,
    /// What was answered, if anything.
    ends_at: Option<Option<Time>>,
}

impl Ends {
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.due.first().map(|(time, _)| *time)
    }
}

impl Scheduler {
    /// A nanny's workers are to be given notice after so long. Of two such times the first counts.
    pub(crate) fn ends_in(&mut self, id: NannyId, time: Duration, is_job: bool) {
        self.ends_at(id, self.now + time, is_job);
    }

    fn ends_at(&mut self, id: NannyId, at: Time, is_job: bool) {
        let Some(nanny) = self.cluster.nannies.get_mut(&id) else { return };
        if nanny.ends_at.is_some_and(|earlier| earlier <= at) {
            return;
        }
        nanny.ends_with_job = is_job;
        if let Some(later) = nanny.ends_at.replace(at) {
            self.ends.due.remove(&(later, id));
        }
        self.ends.due.insert((at, id));
        for worker in &nanny.workers {
            if let Some(worker) = self.cluster.workers.get_mut(worker) {
                worker.ends_at = Some(at);
            }
        }
    }

    /// A nanny can ask Slurm when its job ends.
    pub(crate) fn in_job(&mut self, id: NannyId, name: String) {
        let is_told = self.ends.jobs.values().any(|job| job.nannies.contains(&id));
        if name.len() > JOB_BYTES_MAX || is_told {
            self.stale_count += 1;
            return;
        }
        let job = self.ends.jobs.entry(name.clone()).or_default();
        job.nannies.insert(id);
        match job.ends_at {
            Some(Some(at)) => self.ends_at(id, at, true),
            Some(None) => {}
            None => self.ask_job_end(&name),
        }
    }

    fn ask_job_end(&mut self, name: &str) {
        let Some(job) = self.ends.jobs.get_mut(name) else { return };
        if job.asked.is_none()
            && job.ends_at.is_none()
            && let Some(nanny) = job.nannies.first().copied()
        {
            job.asked = Some(nanny);
            self.send_nanny(nanny, ToNanny::AskJobEnd);
        }
    }

    /// A nanny has asked Slurm.
    pub(crate) fn job_ends_in(&mut self, id: NannyId, time: Option<Duration>) {
        let now = self.now;
        let mut jobs = self.ends.jobs.values_mut();
        let Some(job) = jobs.find(|job| job.asked == Some(id) && job.ends_at.is_none()) else {
            self.stale_count += 1;
            return;
        };
        let at = time.map(|time| now + time);
        job.ends_at = Some(at);
        let nannies: Vec<NannyId> = job.nannies.iter().copied().collect();
        for nanny in nannies {
            if let Some(at) = at {
                self.ends_at(nanny, at, true);
            }
        }
    }

    /// A nanny is gone. If it was to ask Slurm, another one is.
    pub(crate) fn forget_end(&mut self, id: NannyId, ends_at: Option<Time>) {
        if let Some(at) = ends_at {
            self.ends.due.remove(&(at, id));
        }
        self.ends.jobs.values_mut().for_each(|job| {
            job.nannies.remove(&id);
        });
        self.ends.jobs.retain(|_, job| !job.nannies.is_empty());
        let mut unasked = Vec::new();
        for (name, job) in &mut self.ends.jobs {
            if job.asked == Some(id) && job.ends_at.is_none() {
                job.asked = None;
                unasked.push(name.clone());
            }
        }
        unasked.iter().for_each(|name| self.ask_job_end(name));
    }

    /// Gives notice to workers whose time has come.
    pub(crate) fn end_workers(&mut self) {
        while let Some((time, id)) = self.ends.due.first().copied()
            && time <= self.now
        {
            self.ends.due.pop_first();
            let Some(nanny) = self.cluster.nannies.get(&id) else { continue };
            let (why, bytes_max) = match nanny.ends_with_job {
                true => ("its job is about to end", COPIED_OFF_BYTES_MAX),
                false => ("its lifetime is over", u64::MAX),
            };
            tracing::info!(nanny = %id, node = %nanny.node, pool = %nanny.pool, "{why}: it leaves");
            let workers = nanny.workers.clone();
            self.take_leave(&workers, bytes_max);
        }
    }

    /// Whether a run of this task would likely end before the process's worker does, or would do so
    /// nowhere else either.
    pub(crate) fn fits_in_time(&self, id: ProcessId, group: &Group, index: u32) -> bool {
        let Some(worker) = self.cluster.worker_of(id) else { return false };
        if worker.ends_at.is_none() {
            return true;
        }
        let Some(run) = group.shape(index).and_then(|shape| self.stats.p90(shape.stat)) else {
            return true;
        };
        let ends_well = |worker: &Worker| worker.ends_at.is_none_or(|at| self.now + run <= at);
        if ends_well(worker) {
            return true;
        }
        let requirement = self.classes.get(group.class(index));
        let program = self.shares.get(&group.share).map(|share| share.program);
        let program = program.and_then(|hash| self.programs.get(hash));
        let mut others = program.into_iter().flat_map(|program| &program.processes);
        !others.any(|other| {
            let process = self.cluster.processes.get(other);
            process.is_some_and(|process| process.stage != Stage::Ending)
                && self.cluster.worker_of(*other).is_some_and(|worker| {
                    !worker.leaving && worker.suits(requirement) && ends_well(worker)
                })
        })
    }
}
