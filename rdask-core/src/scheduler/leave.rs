//! Leaving in good order: a notice is not an end.
//!
//! From its notice on a worker gets nothing new. What its processes have not started is asked back
//! and goes elsewhere; what runs may end, as long as the nanny has time; values that nobody else has
//! are [copied](super::replicas) to others. When nothing is left the worker goes, and its nanny with
//! the last one. Nobody is blamed, and no run that ends in time is repeated. Who retires workers may
//! say how long that may take; what is left then is given up, as at the end of a job.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::{AssignmentId, NannyId, ProcessId, StealId, WorkerId};
use crate::message::{ToNanny, ToProcess, UnknownWorkers};
use crate::time::Time;

use super::Scheduler;
use super::cluster::Worker;
use super::graph::Work;
use super::group::State;
use super::replicas::COPIED_OFF_BYTES_MAX;

/// How many names an error lists of each kind.
const NAMES_LISTED_MAX: usize = 100;

/// What the log says of those that leave in good order.
const GONE: &str = "it gave notice, and nothing is left to do";

/// And of those that were to be gone by now. What they had is run and made again.
const OVERDUE: &str = "it was to be gone by now, and something is left to do";

impl Scheduler {
    /// A nanny gives notice.
    pub(crate) fn nanny_leaving(&mut self, id: NannyId, reason: &str) {
        let Some(nanny) = self.cluster.nannies.get(&id) else { return };
        tracing::info!(nanny = %id, node = %nanny.node, pool = %nanny.pool, reason, "a nanny is leaving");
        let workers = nanny.workers.clone();
        self.take_leave(&workers, COPIED_OFF_BYTES_MAX);
    }

    /// A client lets workers go: pools, or workers by name. All of them are known, or none goes.
    ///
    /// # Errors
    /// With the names that are unknown, and those that are known.
    pub(crate) fn retire(
        &mut self,
        names: &[String],
        within: Option<Duration>,
    ) -> Result<Vec<WorkerId>, UnknownWorkers> {
        let workers = &self.cluster.workers;
        let pools: BTreeSet<&String> = workers.values().map(|worker| &worker.pool).collect();
        let own: BTreeSet<&String> = workers.values().map(|worker| &worker.info.name).collect();
        let mut unknown = names.iter().filter(|name| !pools.contains(name) && !own.contains(name));
        if let Some(first) = unknown.next() {
            let unknown = std::iter::once(first).chain(unknown);
            let unknown = unknown.take(NAMES_LISTED_MAX).cloned().collect();
            let known = pools.into_iter().chain(own).take(NAMES_LISTED_MAX).cloned().collect();
            return Err(UnknownWorkers { unknown, known });
        }
        let names: BTreeSet<&String> = names.iter().collect();
        let is_named = |one: &Worker| names.contains(&one.pool) || names.contains(&one.info.name);
        let named = workers.iter().filter(|(_, worker)| is_named(worker));
        let named: Vec<WorkerId> = named.map(|(id, _)| *id).collect();
        tracing::info!(workers = named.len(), ?names, "workers are retired");
        let by = within.map(|time| self.now + time);
        for worker in self.cluster.workers.values_mut().filter(|worker| is_named(worker)) {
            worker.leaves_by = worker.leaves_by.into_iter().chain(by).min();
        }
        // Nobody waits for them to be gone but who asked.
        self.take_leave(&named, u64::MAX);
        Ok(named)
    }

    /// These workers are to go. At most so many bytes of values are copied off each process.
    pub(crate) fn take_leave(&mut self, workers: &[WorkerId], bytes_max: u64) {
        // All of them first, so that none of them takes what another one had.
        let mut processes: Vec<ProcessId> = Vec::new();
        for id in workers {
            let Some(worker) = self.cluster.workers.get_mut(id) else { continue };
            worker.leaving = true;
            self.leaving.insert(worker.nanny);
            processes.extend(worker.all_processes());
        }
        for process in processes {
            self.take_back_all(process);
            self.copy_off(process, bytes_max);
        }
        self.work_off();
    }

    /// Asks back all that a process has not started, and gives what waits for it to others.
    pub(crate) fn take_back_all(&mut self, id: ProcessId) {
        let Some(process) = self.cluster.processes.get_mut(&id) else { return };
        let assignments: Vec<AssignmentId> = process.assignments.iter().copied().collect();
        let waiting = std::mem::take(&mut process.local_ready);
        process.tied_count = 0;
        self.tied.remove(&(process.program, id));
        assignments.into_iter().for_each(|assignment| self.take_back(id, assignment));
        for (key, ranges) in waiting {
            for range in ranges.iter() {
                if let Some(group) = self.groups.get_mut(key.group) {
                    group.state.set(range, State::Waiting(1));
                    self.work.push_back(Work::Satisfied(key.group, range));
                }
            }
        }
    }

    /// Asks back what a process has not started of an assignment.
    pub(crate) fn take_back(&mut self, id: ProcessId, assignment: AssignmentId) {
        let steal = StealId(self.next_steal);
        self.next_steal += 1;
        self.send_process(id, ToProcess::Steal { steal, assignment, count: u32::MAX });
    }

    /// Lets those go that have given notice and have nothing left to do: those of one nanny
    /// together, so that what can't be copied is lost as late as can be.
    pub(crate) fn let_go(&mut self) {
        let is_leaving =
            |id: &WorkerId| self.cluster.workers.get(id).is_some_and(|one| one.leaving);
        let mut done: Vec<(NannyId, Vec<WorkerId>)> = Vec::new();
        let mut late: Vec<WorkerId> = Vec::new();
        for id in &self.leaving {
            let nanny = self.cluster.nannies.get(id).filter(|nanny| !nanny.may_go);
            let workers = nanny.map_or(&[][..], |nanny| &nanny.workers);
            let leaving: Vec<WorkerId> =
                workers.iter().copied().filter(|id| is_leaving(id)).collect();
            let is_free = |id: &WorkerId| self.is_through(*id) || self.is_overdue(*id);
            if leaving.iter().all(is_free) {
                done.push((*id, leaving));
            } else {
                late.extend(leaving.into_iter().filter(|id| self.is_overdue(*id)));
            }
        }
        late.into_iter().for_each(|worker| self.dismiss(worker));
        for (id, workers) in done {
            self.leaving.remove(&id);
            let Some(nanny) = self.cluster.nannies.get_mut(&id) else { continue };
            if workers.is_empty() {
                // It may go already.
                continue;
            }
            if nanny.workers.len() == workers.len() {
                nanny.may_go = true;
                let is_late = workers.iter().any(|worker| !self.is_through(*worker));
                let reason = if is_late { OVERDUE } else { GONE };
                self.send_nanny(id, ToNanny::Exit { reason: reason.to_owned() });
                if is_late {
                    // The nanny may be frozen: what was to run there doesn't wait for it.
                    workers.iter().for_each(|worker| self.end_processes(*worker, OVERDUE));
                }
            } else {
                workers.into_iter().for_each(|worker| self.dismiss(worker));
            }
        }
    }

    fn end_processes(&mut self, id: WorkerId, reason: &str) {
        let worker = self.cluster.workers.get(&id);
        let processes: Vec<ProcessId> =
            worker.into_iter().flat_map(Worker::all_processes).collect();
        processes.into_iter().for_each(|process| self.end_process(process, reason));
        // What could not be copied is to be made again, and its place has not been looked for.
        self.dirty = true;
    }

    /// Whether a worker's time is over, although it may have something to do.
    fn is_overdue(&self, id: WorkerId) -> bool {
        let leaves_by = self.cluster.workers.get(&id).and_then(|worker| worker.leaves_by);
        leaves_by.is_some_and(|at| at <= self.now)
    }

    /// When the next worker goes although something is left to do.
    pub(crate) fn next_departure(&self) -> Option<Time> {
        let nannies = self.leaving.iter().filter_map(|id| self.cluster.nannies.get(id));
        let workers = nannies.flat_map(|nanny| &nanny.workers);
        let times = workers.filter_map(|id| self.cluster.workers.get(id)?.leaves_by);
        times.filter(|at| *at > self.now).min()
    }

    /// Whether nothing of a leaving worker is left to do.
    fn is_through(&self, id: WorkerId) -> bool {
        let worker = self.cluster.workers.get(&id);
        worker.into_iter().flat_map(Worker::all_processes).all(|id| {
            let process = self.cluster.processes.get(&id);
            process.is_none_or(|process| process.assignments.is_empty()) && self.is_copied_off(id)
        })
    }

    /// A worker goes, and its nanny stays for others.
    fn dismiss(&mut self, id: WorkerId) {
        let Some(worker) = self.cluster.workers.get(&id) else { return };
        let reason = if self.is_through(id) { GONE } else { OVERDUE };
        let nanny = worker.nanny;
        self.end_processes(id, reason);
        self.cluster.workers.remove(&id);
        if let Some(nanny) = self.cluster.nannies.get_mut(&nanny) {
            nanny.workers.retain(|worker| *worker != id);
        }
    }
}
