//! Runs that don't stop when they should: cancelled, or longer than their timeout, and deaf to
//! their token.
//!
//! A thread can't be ended from outside, a process can. A run that goes on for its grace time costs
//! its process: nothing new goes there, what has not started is taken back, values that only it has
//! are copied to others, and its neighbours have as long again to end. Then it is ended, which
//! blames nobody, and the neighbours' runs are repeated elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{AssignmentId, Peer, ProcessId};
use crate::range::Range;
use crate::time::Time;

use super::Scheduler;
use super::cluster::Stage;
use super::group::State;
use super::leases::LOOK_AGAIN;
use super::replicas::COPIED_OFF_BYTES_MAX;

/// How long a run may go on after it was told to stop, unless its options say otherwise. A loop
/// that looks at its token at all looks more often; whoever waits for the slot can wait so long.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// How much longer a process may stay for values that are being copied off it. Those that are
/// scattered can't be made again.
const COPY_TIME: Duration = Duration::from_secs(10);

/// Who has been told to stop, and who pays for those that don't.
#[derive(Debug, Default)]
pub(crate) struct Overruns {
    /// When to look whether these have stopped, and how long their neighbours may go on then.
    /// Looked at once: entries of what has stopped go when their time comes.
    due: BTreeSet<(Time, AssignmentId, Range, Duration)>,
    /// Processes that are to be ended, and until when at most their other runs are waited for.
    closing: BTreeMap<ProcessId, Time>,
}

impl Overruns {
    pub(crate) fn next_timeout(&self, now: Time) -> Option<Time> {
        let due = self.due.first().map(|(time, ..)| *time);
        let next = |latest: &Time| if *latest > now { *latest } else { *latest + COPY_TIME };
        due.into_iter().chain(self.closing.values().map(next)).min()
    }
}

impl Scheduler {
    /// Runs of these tasks, if there are any, were told to stop.
    pub(crate) fn expect_stop(&mut self, id: AssignmentId, range: Range) {
        let Some(assignment) = self.assignments.get(&id).filter(|one| one.threads > 0) else {
            return;
        };
        let shape = self.groups.get(assignment.group).and_then(|group| group.shape(range.start));
        let grace = shape.and_then(|shape| shape.shape.options.kill_grace).unwrap_or(KILL_GRACE);
        self.overruns.due.insert((self.now + grace, id, range, grace));
    }

    /// Timed-out runs of a process have ended: only now their slots are free.
    pub(crate) fn stopped(&mut self, from: ProcessId, assignment: AssignmentId, range: Range) {
        let Some(gid) = self.assignments.get(&assignment).map(|one| one.group) else {
            return self.stale_count += 1;
        };
        // Runs that nobody told to stop end with a report. Of a group that is forgotten all were.
        let told: Vec<(Range, bool)> = match self.groups.get(gid) {
            Some(group) => {
                let parts = group.state.runs(range.intersection(group.all()));
                parts.map(|(part, state)| (part, state != State::Assigned(assignment))).collect()
            }
            None => vec![(range, true)],
        };
        for (part, is_told) in told {
            if !is_told || self.account(from, assignment, part).is_empty() {
                self.stale_count += 1;
            }
        }
        self.open.insert(from);
    }

    /// Looks who has not stopped in time.
    pub(crate) fn end_graces(&mut self) {
        if self.now < self.no_verdict_before {
            return;
        }
        while let Some(first) = self.overruns.due.first().copied()
            && first.0 <= self.now
        {
            self.overruns.due.pop_first();
            let (_, id, range, grace) = first;
            let goes_on = self
                .assignments
                .get(&id)
                .filter(|assignment| assignment.remaining.intersects(range));
            match goes_on.map(|assignment| assignment.process) {
                // What it has to say may be on its way. Its lease decides whether it comes.
                Some(process) if self.is_silent(Peer::Process(process)) => {
                    self.overruns.due.insert((self.now + LOOK_AGAIN, id, range, grace));
                }
                Some(process) => self.close_process(process, grace),
                None => {}
            }
        }
        self.work_off();
    }

    /// Nothing new goes to this process, and what can be saved is saved, before it is ended.
    fn close_process(&mut self, id: ProcessId, grace: Duration) {
        let process = self.cluster.processes.get(&id);
        let is_running = process.is_some_and(|process| process.stage == Stage::Running);
        if !is_running || self.overruns.closing.contains_key(&id) {
            return;
        }
        tracing::warn!(process = %id, "a run does not stop; its process will be ended");
        self.overruns.closing.insert(id, self.now + grace);
        self.take_back_all(id);
        self.copy_off(id, COPIED_OFF_BYTES_MAX);
    }

    /// Whether a process is to be ended for a run that doesn't stop.
    #[must_use]
    pub fn is_closing(&self, id: ProcessId) -> bool {
        self.overruns.closing.contains_key(&id)
    }

    /// Ends processes for the runs in them that don't stop, as soon as nothing else is lost by it.
    pub(crate) fn end_closing(&mut self) {
        for (id, latest) in self.overruns.closing.clone() {
            if !self.cluster.processes.contains_key(&id) {
                self.overruns.closing.remove(&id);
                continue;
            }
            let is_alone = latest <= self.now || !self.has_live_runs(id);
            if latest + COPY_TIME <= self.now || (is_alone && self.is_copied_off(id)) {
                self.overruns.closing.remove(&id);
                self.end_process(id, "a run in it did not stop when it was told to");
            }
        }
    }

    /// Whether a process has tasks whose results somebody waits for.
    fn has_live_runs(&self, id: ProcessId) -> bool {
        let Some(process) = self.cluster.processes.get(&id) else { return false };
        process.assignments.iter().any(|id| {
            let Some(assignment) = self.assignments.get(id) else { return false };
            let Some(group) = self.groups.get(assignment.group) else { return false };
            let mut parts = assignment.remaining.iter().flat_map(|part| group.state.runs(part));
            parts.any(|(_, state)| state == State::Assigned(*id))
        })
    }
}
