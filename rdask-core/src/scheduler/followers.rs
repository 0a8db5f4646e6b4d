//! POLICY: tasks that are handed out before their inputs are there.
//!
//! A task of a batch that waits only for results of tasks which one process has been assigned can go
//! along to that process: it starts there as soon as they are done, without a word to the scheduler.
//! A chain on one process then costs no round trip per hop. Only the tasks right behind an
//! assignment follow it, and only as many as fit the window; what is left over goes the usual way.
//!
//! The state of a follower is that of any assigned task. If it comes back, it waits again for
//! whatever is missing then.

use crate::id::ProcessId;
use crate::range::Range;

use super::Scheduler;
use super::group::{EdgeTo, Gid, Inputs, State};

impl Scheduler {
    /// Where an assignment of `tasks` to a process ends when those that follow go along.
    pub(super) fn end_with_followers(&self, id: ProcessId, gid: Gid, tasks: Range) -> u32 {
        let (Some(process), Some(group)) = (self.cluster.processes.get(&id), self.groups.get(gid))
        else {
            return tasks.end;
        };
        let Inputs::Edges(batch) = &group.inputs else { return tasks.end };
        let shape = |index: u32| batch.shape_of[index as usize];
        let room = self.room_ahead(process, group, tasks.start);
        let last = u64::from(tasks.start).saturating_add(room).min(u64::from(group.len)) as u32;
        let mut all = tasks;
        while all.end < last
            && shape(all.end) == shape(tasks.start)
            && let State::Waiting(missing) = group.state.get(all.end)
            && self.comes_here(id, (gid, all), batch.edges_of(all.end)) == Some(missing)
        {
            all.end += 1;
        }
        all.end
    }

    /// How many of these inputs a process is to make, by assignments that it has or by that of the
    /// tasks `next`; `None` if others are missing, too.
    fn comes_here(&self, id: ProcessId, next: (Gid, Range), edges: &[EdgeTo]) -> Option<u32> {
        let mut count = 0;
        for edge in edges {
            let group = self.groups.get(edge.group)?;
            if group.available.contains(edge.index) {
                continue;
            }
            let is_next = edge.group == next.0 && next.1.contains(edge.index);
            let is_assigned = || match group.state.get(edge.index) {
                // Nothing runs for what a client puts there.
                State::Assigned(of) => self
                    .assignments
                    .get(&of)
                    .is_some_and(|assignment| assignment.process == id && assignment.threads > 0),
                _ => false,
            };
            if !is_next && !is_assigned() {
                return None;
            }
            count += 1;
        }
        Some(count)
    }
}
