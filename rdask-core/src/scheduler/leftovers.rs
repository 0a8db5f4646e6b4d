//! What workers that leave have left to do, for whoever waits for them to be gone.

use crate::id::WorkerId;
use crate::message::{LEAVING_MAX, LeavingWorker, NAMED_MAX};

use super::Scheduler;
use super::cluster::Worker;
use super::replicas::bytes_of;

impl Scheduler {
    /// What is left to do for those of these workers that are still there.
    #[must_use]
    pub fn leftovers(&self, workers: &[WorkerId]) -> Vec<LeavingWorker> {
        let there = workers.iter().filter_map(|id| Some((*id, self.cluster.workers.get(id)?)));
        there.take(LEAVING_MAX).map(|(id, worker)| self.leftover(id, worker)).collect()
    }

    fn leftover(&self, id: WorkerId, worker: &Worker) -> LeavingWorker {
        let mut left = LeavingWorker {
            id,
            name: worker.info.name.clone(),
            runs: 0,
            first_runs: Vec::new(),
            values: 0,
            bytes: 0,
            first_values: Vec::new(),
            left: worker.leaves_by.map(|at| at.since(self.now)),
        };
        for id in worker.all_processes() {
            let Some(process) = self.cluster.processes.get(&id) else { continue };
            let assignments = process.assignments.iter().filter_map(|id| self.assignments.get(id));
            for assignment in assignments {
                left.runs += assignment.remaining.len();
                let Some(group) = self.groups.get(assignment.group) else { continue };
                let tasks = assignment.remaining.iter().flatten().map(|index| group.task(index));
                left.first_runs.extend(tasks.take(NAMED_MAX));
            }
            for (gid, range) in self.to_copy_off(id) {
                let Some(group) = self.groups.get(gid) else { continue };
                left.values += u64::from(range.len());
                left.bytes = left.bytes.saturating_add(bytes_of(group, range));
                let tasks = range.iter().map(|index| group.task(index));
                left.first_values.extend(tasks.take(NAMED_MAX));
            }
        }
        left.first_runs.truncate(NAMED_MAX);
        left.first_values.truncate(NAMED_MAX);
        left
    }
}
