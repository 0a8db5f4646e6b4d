//! Workers that leave in good order: because somebody says so, because their lifetime is over, or
//! before their job ends. What their nannies know of it, they say.

use std::time::Duration;

use rdask_core::message::FromNanny;

use super::session::{PORT_CLOSED, SILENCE};
use super::{Event, MS, SECOND, World, note};
use crate::scenario::Who;

/// So long before the end of a job its workers are given notice; sooner in a short one.
const JOB_NOTICE: u64 = 30 * SECOND;

/// What a nanny knows of its end, and what comes after it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    /// When its lifetime is over.
    lifetime: Option<u64>,
    job: Option<Job>,
    /// After how long the next nanny is started, once this one is gone.
    again_ms: Option<u64>,
}

/// A job of Slurm's: all nannies of a pool.
#[derive(Clone, Copy, Debug)]
struct Job {
    pool: u32,
    ends_at: u64,
    is_known: bool,
}

impl Ends {
    /// Whether a lifetime is over.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.lifetime.is_some_and(|at| at <= now)
    }
}

impl Who {
    fn name(self) -> String {
        match self {
            Self::Pool(pool) => format!("p{pool}"),
            Self::Worker { node, worker } => format!("n{node}-{worker}"),
        }
    }
}

impl World {
    /// Somebody lets workers go, by a connection of its own.
    pub(super) fn retire(&mut self, who: Who, returns_ms: Option<u64>) {
        for node in 0..self.nodes.len() {
            let is_named = match who {
                Who::Pool(pool) => self.scenario.nodes[node].pool == pool,
                Who::Worker { node: named, .. } => named == node,
            };
            if is_named {
                self.nodes[node].ends.again_ms = returns_ms;
            }
        }
        let client = self.add_client(None, None);
        self.clients[client].retires = Some(who.name());
        self.client_starts(client);
    }

    /// It is near now when the lifetime of a nanny's workers is over.
    pub(super) fn lifetime_ends(&mut self, node: usize, ms: u64, returns_ms: Option<u64>) {
        let at = self.now + ms * MS;
        let state = &mut self.nodes[node];
        if !state.is_alive || state.is_leaving || state.ends.lifetime.is_some() {
            return;
        }
        state.ends.lifetime = Some(at);
        state.ends.again_ms = returns_ms;
        self.push(at, Event::LifetimeIsOver(node, at));
        self.tell_lifetime(node);
    }

    /// A nanny whose lifetime is over before it has joined has nothing to leave.
    pub(super) fn lifetime_is_over(&mut self, node: usize, at: u64) {
        let state = &self.nodes[node];
        if state.is_alive && state.ends.lifetime == Some(at) && state.id.is_none() {
            self.nanny_goes(node, PORT_CLOSED);
        }
    }

    /// The nannies of a pool learn, or could learn, that their job ends.
    pub(super) fn job_ends(&mut self, pool: u32, ms: u64, is_known: bool, again_ms: Option<u64>) {
        let ends_at = self.now + ms * MS;
        for node in 0..self.nodes.len() {
            let is_of_job = self.scenario.nodes[node].pool == pool;
            let state = &mut self.nodes[node];
            if is_of_job && state.is_alive && state.ends.job.is_none() {
                state.ends.job = Some(Job { pool, ends_at, is_known });
                state.ends.again_ms = again_ms;
                self.push(ends_at, Event::JobIsOver(node, ends_at));
                self.tell_job(node);
            }
        }
    }

    /// Slurm ends what is left of a job.
    pub(super) fn job_is_over(&mut self, node: usize, at: u64) {
        let state = &self.nodes[node];
        if state.is_alive && state.ends.job.is_some_and(|job| job.ends_at == at) {
            note!(self, "the job of node {node} is over");
            let within = *self.dice.pick(&[PORT_CLOSED, SILENCE]);
            self.nanny_goes(node, within);
        }
    }

    /// A nanny has joined: it says when it ends, as far as it knows.
    pub(super) fn tell_ends(&mut self, node: usize) {
        self.tell_lifetime(node);
        self.tell_job(node);
    }

    fn tell_lifetime(&mut self, node: usize) {
        let state = &self.nodes[node];
        if let (Some(at), Some(_)) = (state.ends.lifetime, state.id) {
            let time = Duration::from_nanos(at.saturating_sub(self.now));
            self.nanny_says(node, FromNanny::EndsIn { time, is_job: false });
        }
    }

    fn tell_job(&mut self, node: usize) {
        let state = &self.nodes[node];
        if let (Some(job), Some(_)) = (state.ends.job, state.id) {
            let message = match job.is_known {
                true => FromNanny::EndsIn { time: self.notice_in(job), is_job: true },
                false => FromNanny::InJob { job: format!("{}-{}", job.pool, job.ends_at) },
            };
            self.nanny_says(node, message);
        }
    }

    /// After how long a job's workers are to be given notice.
    fn notice_in(&self, job: Job) -> Duration {
        let left = job.ends_at.saturating_sub(self.now);
        Duration::from_nanos(left - JOB_NOTICE.min(left / 4))
    }

    /// A nanny is to ask Slurm, which takes a while.
    pub(super) fn ask_slurm(&mut self, node: usize) {
        let at = self.now + self.dice.below(2 * SECOND);
        let age = self.nodes[node].age;
        self.push(at, Event::SlurmAnswers(node, age));
    }

    /// Slurm says when a nanny's job ends, unless it is too busy.
    pub(super) fn slurm_answers(&mut self, node: usize, age: u32) {
        if !self.nodes[node].is_alive || self.nodes[node].age != age {
            return;
        }
        let is_heard = !self.dice.chance(10);
        let job = self.nodes[node].ends.job.filter(|_| is_heard);
        let time = job.map(|job| self.notice_in(job));
        self.nanny_says(node, FromNanny::JobEndsIn { time });
    }

    /// A nanny has nothing left to do, or its job is over. Perhaps another one comes after it; in
    /// the core that was healed it does.
    pub(super) fn nanny_goes(&mut self, node: usize, within: u64) {
        self.nanny_ends(node, within);
        let ends = std::mem::take(&mut self.nodes[node].ends);
        let age = self.nodes[node].age;
        if self.is_healed && self.scenario.nodes[node].core {
            self.push(self.now + 100 * MS, Event::NannyStarts(node, age));
        } else if let Some(ms) = ends.again_ms {
            self.push(self.now + ms * MS, Event::NannyStarts(node, age));
        }
    }

    /// Who leaves and has runs that wait for nested tasks waits for other workers to run those. If
    /// there are none somebody loses patience.
    pub(super) fn end_stuck(&mut self) {
        for node in 0..self.nodes.len() {
            let is_leaving = self.nodes[node].processes.iter().any(|process| {
                let one = &self.processes[*process];
                let is_leaving = self.notices.is_leaving(one.id, self.now);
                is_leaving && one.is_alive && self.has_parents(*process)
            });
            if is_leaving && self.scenario.nodes[node].core {
                note!(self, "nobody waits for node {node} to go");
                self.nanny_goes(node, PORT_CLOSED);
            }
        }
    }
}
