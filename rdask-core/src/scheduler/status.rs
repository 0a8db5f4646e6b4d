//! What `rdask status` shows.

use crate::message::{ClusterStatus, WorkerStatus};

use super::Scheduler;
use super::clients::ClientKind;
use super::group::State;

impl Scheduler {
    /// The cluster at this moment. Counts tasks by interval, not one by one.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let mut status = ClusterStatus {
            epoch: self.config.epoch,
            result_bytes: self.result_bytes,
            ..ClusterStatus::default()
        };
        status.clients = self
            .clients
            .values()
            .filter(|client| matches!(client.kind, ClientKind::Program { nested_in: None, .. }))
            .count() as u32;
        for (id, worker) in &self.cluster.workers {
            let processes = worker.all_processes().filter_map(|id| self.cluster.processes.get(&id));
            let busy: u32 = processes.map(|one| one.load().min(one.granted)).sum();
            status.workers.push(WorkerStatus {
                id: *id,
                name: worker.info.name.clone(),
                node: worker.node.clone(),
                pool: worker.pool.clone(),
                slots: worker.info.slots,
                busy,
                memory_limit: worker.info.memory_limit,
                processes: worker.all_processes().count() as u32,
                leaving: worker.leaving,
                ends_in: worker.ends_at.map(|at| at.since(self.now)),
            });
        }
        status.workers.sort_by(|a, b| (&a.pool, &a.name, a.id).cmp(&(&b.pool, &b.name, b.id)));
        for group in self.groups.by_gid.values() {
            for (part, state) in group.state.runs(group.all()) {
                let count = match state {
                    State::Waiting(_) => &mut status.waiting,
                    State::Ready(_) => &mut status.ready,
                    State::Assigned(_) => &mut status.assigned,
                    State::Done => &mut status.done,
                    State::Failed | State::Dropped => &mut status.failed,
                };
                *count += u64::from(part.len());
            }
        }
        status
    }
}
