//! Leaving in good order: a notice is not an end.
//!
//! From its nanny's notice on a worker gets nothing new. What its processes have not started is
//! asked back and goes elsewhere; what runs may end, as long as the nanny has time. When nothing is
//! left the nanny is told to go. Nobody is blamed, and no run that ends in time is repeated.

use crate::id::{AssignmentId, NannyId, ProcessId, StealId};
use crate::message::{ToNanny, ToProcess};

use super::Scheduler;
use super::graph::Work;
use super::group::State;

impl Scheduler {
    /// A nanny gives notice.
    pub(crate) fn nanny_leaving(&mut self, id: NannyId, reason: &str) {
        let Some(nanny) = self.cluster.nannies.get_mut(&id) else { return };
        nanny.leaving = true;
        tracing::info!(nanny = %id, node = %nanny.node, pool = %nanny.pool, reason, "a nanny is leaving");
        for worker in nanny.workers.clone() {
            let Some(worker) = self.cluster.workers.get_mut(&worker) else { continue };
            worker.leaving = true;
            for process in worker.processes.values().copied().collect::<Vec<ProcessId>>() {
                self.take_back_all(process);
            }
        }
        self.work_off();
    }

    /// Asks back all that a process has not started, and gives what waits for it to others.
    fn take_back_all(&mut self, id: ProcessId) {
        let Some(process) = self.cluster.processes.get_mut(&id) else { return };
        let assignments: Vec<AssignmentId> = process.assignments.iter().copied().collect();
        let waiting = std::mem::take(&mut process.local_ready);
        process.tied_count = 0;
        self.tied.remove(&(process.program, id));
        for assignment in assignments {
            let steal = StealId(self.next_steal);
            self.next_steal += 1;
            self.send_process(id, ToProcess::Steal { steal, assignment, count: u32::MAX });
        }
        for (key, ranges) in waiting {
            for range in ranges.iter() {
                if let Some(group) = self.groups.get_mut(key.group) {
                    group.state.set(range, State::Waiting(1));
                    self.work.push_back(Work::Satisfied(key.group, range));
                }
            }
        }
    }

    /// Lets those go that have given notice and have nothing left to do.
    pub(crate) fn let_go(&mut self) {
        let is_done = |process: &ProcessId| {
            let process = self.cluster.processes.get(process);
            process.is_none_or(|process| process.assignments.is_empty())
        };
        let done: Vec<NannyId> = self
            .cluster
            .nannies
            .iter()
            .filter(|(_, nanny)| nanny.leaving && !nanny.may_go)
            .filter(|(_, nanny)| {
                let workers = nanny.workers.iter().filter_map(|id| self.cluster.workers.get(id));
                workers.flat_map(|worker| worker.processes.values()).all(is_done)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            if let Some(nanny) = self.cluster.nannies.get_mut(&id) {
                nanny.may_go = true;
            }
            let reason = "it gave notice, and nothing is left to do".to_owned();
            self.send_nanny(id, ToNanny::Exit { reason });
        }
    }
}
