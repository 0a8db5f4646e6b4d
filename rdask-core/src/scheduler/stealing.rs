//! POLICY: which thief takes what from which victim.
//!
//! Windows are small, so there is little to steal: what a process has ahead while others are idle,
//! because durations are uneven, or because a worker has just joined. A thief is a process with idle
//! slots and nothing ready for it. The victim is the one of its program with most time queued beyond
//! what its slots run. Half of that is asked back from the far end of its latest assignment; the
//! victim gives up only what has not started, says exactly what, and it is assigned anew.
//!
//! There is one steal per victim at a time, and one that gave nothing is left alone until it has
//! reported or got more: so two idle processes can't ask for the same task for ever.

use crate::id::{AssignmentId, Peer, ProcessId, StealId};
use crate::message::ToProcess;

use super::Scheduler;
use super::cluster::{Process, Stage};

/// Queued work that a process is through with sooner than this is not worth two round trips.
const WORTH_NS: u64 = 1_000_000;

/// How far a victim is with being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It may be asked.
    #[default]
    Not,
    /// It was asked and has not answered.
    Now(StealId),
    /// It had nothing to give, and nothing has changed since.
    InVain,
}

impl Scheduler {
    /// Asks victims on behalf of those that are idle.
    pub(crate) fn steal(&mut self) {
        // Whoever are fewer tell first that there is nothing to do.
        let are_few = self.open.len() < self.laden.len();
        if are_few && !self.open.iter().any(|id| self.is_idle(*id)) {
            return;
        }
        let mut victims = self.victims();
        if victims.is_empty() {
            return;
        }
        let thieves: Vec<ProcessId> =
            self.open.iter().copied().filter(|id| self.is_idle(*id) && !self.waits(*id)).collect();
        for thief in thieves {
            if victims.is_empty() {
                return;
            }
            if let Some((victim, assignment, count)) = self.choose_victim(thief, &victims) {
                victims.retain(|(_, id)| *id != victim);
                let steal = StealId(self.next_steal);
                self.next_steal += 1;
                if let Some(process) = self.cluster.processes.get_mut(&victim) {
                    process.asked = Asked::Now(steal);
                }
                self.send_process(victim, ToProcess::Steal { steal, assignment, count });
            }
        }
    }

    /// Who could be asked: those with most to spare last.
    fn victims(&mut self) -> Vec<(u64, ProcessId)> {
        let processes = &self.cluster.processes;
        self.laden.retain(|id| processes.get(id).is_some_and(Process::is_laden));
        let victims = self.laden.iter().filter_map(|id| {
            let process = self.cluster.processes.get(id)?;
            let surplus = surplus_ns(process);
            let is_askable = process.asked == Asked::Not
                && process.alone_for.is_none()
                && surplus > WORTH_NS
                && !self.is_silent(Peer::Process(*id));
            is_askable.then_some((surplus, *id))
        });
        let mut victims: Vec<(u64, ProcessId)> = victims.collect();
        victims.sort_unstable();
        victims
    }

    /// Whether a process has slots that nothing is there for.
    fn is_idle(&self, id: ProcessId) -> bool {
        let Some(process) = self.cluster.processes.get(&id) else { return false };
        let is_leaving = self.cluster.worker_of(id).is_none_or(|worker| worker.leaving);
        let is_heard = !self.is_silent(Peer::Process(id));
        let is_open = process.leaving.is_none() && process.alone_for.is_none();
        let may_take = process.stage == Stage::Running && is_open;
        may_take && process.idle_slots() > 0 && !is_leaving && is_heard
    }

    /// Whether a process keeps idle slots for what needs more of them. What it stole meanwhile would
    /// go back to where it came from, and be stolen again.
    fn waits(&self, id: ProcessId) -> bool {
        self.pick(id).is_some()
    }

    /// From whom to take what.
    fn choose_victim(
        &self,
        thief: ProcessId,
        victims: &[(u64, ProcessId)],
    ) -> Option<(ProcessId, AssignmentId, u32)> {
        victims.iter().rev().find_map(|(surplus, victim)| {
            let (assignment, count) = self.loot(thief, *victim, *surplus)?;
            Some((*victim, assignment, count))
        })
    }

    /// What of a victim suits a thief: half of its surplus at most, of one assignment.
    fn loot(
        &self,
        thief: ProcessId,
        victim: ProcessId,
        surplus: u64,
    ) -> Option<(AssignmentId, u32)> {
        let program = self.cluster.processes.get(&thief)?.program;
        let worker = self.cluster.worker_of(thief)?;
        let process = self.cluster.processes.get(&victim)?;
        if process.program != program || victim == thief {
            return None;
        }
        // The latest assignment is the farthest from being started.
        let (id, assignment) = process.assignments.iter().rev().find_map(|id| {
            let assignment = self.assignments.get(id)?;
            let requirement = self.classes.get(assignment.class);
            let suits = worker.suits(requirement) && worker.resource_room(requirement) > 0;
            let group = self.groups.get(assignment.group)?;
            let last = assignment.remaining.iter().next_back().map_or(0, |part| part.end - 1);
            // What follows a task of the victim can't run anywhere else before that has ended.
            let follows = || self.missing_inputs(assignment.group, last) > 0;
            let fits = suits
                && assignment.threads > 0
                && self.fits_in_time(thief, group, last)
                && !follows();
            fits.then_some((*id, assignment))
        })?;
        let tasks = surplus / assignment.mean_ns.max(1);
        let half = tasks.div_ceil(2).min(assignment.remaining.len());
        Some((id, u32::try_from(half).unwrap_or(u32::MAX).max(1)))
    }

    /// A victim has answered.
    pub(crate) fn steal_answered(&mut self, victim: ProcessId, steal: StealId, gave: bool) {
        if let Some(process) = self.cluster.processes.get_mut(&victim)
            && process.asked == Asked::Now(steal)
        {
            process.asked = if gave { Asked::Not } else { Asked::InVain };
        }
    }
}

/// The time queued beyond what the slots run now.
fn surplus_ns(process: &Process) -> u64 {
    if !process.is_laden() {
        return 0;
    }
    let beyond = u64::from(process.load() - process.granted);
    process.queued_ns / u64::from(process.load().max(1)) * beyond
}
