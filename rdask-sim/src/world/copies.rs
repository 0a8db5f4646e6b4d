//! How many processes have a value that more than one should have.

use std::collections::BTreeMap;

use rdask_core::id::{ArrayId, Peer, ProcessId, TaskId};
use rdask_core::scheduler::Look;

use super::World;
use super::process::Process;

/// How many holders values of arrays should have, if more than one.
pub(super) type Replicas = BTreeMap<ArrayId, u8>;

impl World {
    /// The values of these tasks should have so many holders.
    pub(super) fn note_replicas(&mut self, replicas: u8, tasks: &[TaskId]) {
        if replicas > 1 {
            self.replicas.extend(tasks.iter().map(|task| (task.array, replicas)));
        }
    }

    /// Nothing has happened for a while: values have the holders that they should, as far as there
    /// are processes for it.
    pub(super) fn check_copies(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let staying: Vec<&Process> =
            self.processes.iter().filter(|one| self.is_staying(one.id)).collect();
        let values = self.processes.iter().flat_map(|one| {
            let values = one.store.keys().filter(|value| value.part == 0);
            values.map(|value| (one.program, *value))
        });
        let mut short = None;
        for (program, value) in values {
            let Some(wanted) = self.replicas.get(&value.task.array) else { continue };
            let is_there = self.scheduler.core.look(value.task) == Look::DoneHeld;
            if !is_there || self.notices.is_not_had(value.task) {
                continue;
            }
            let has = |one: &&&Process| one.store.contains_key(&value);
            let own = || staying.iter().filter(|one| one.program == program);
            let holders = own().filter(has).count();
            let takers = own().filter(|one| has(one) || !self.scheduler.core.is_alone(one.id));
            let expected = takers.count().min(usize::from(*wanted));
            if holders < expected {
                short = Some(format!("{} has {holders} holders, not {expected}", value.task));
            }
        }
        short.into_iter().for_each(|why| self.fail(why));
    }

    /// Whether a process keeps values, and may take some unless it is there for one suspect.
    pub(super) fn is_staying(&self, id: ProcessId) -> bool {
        let peer = Peer::Process(id);
        self.scheduler.core.knows(id)
            && self
                .link_of(peer)
                .is_some_and(|link| self.links[link].core_has && self.links[link].scheduler_has)
            && !self.scheduler.leases.is_silent(peer)
            && !self.notices.is_leaving(id, self.now)
            && !self.notices.is_offering(id)
            && !self.scheduler.core.is_closing(id)
    }
}
