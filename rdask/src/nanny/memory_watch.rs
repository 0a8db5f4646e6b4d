//! Which process must end so that its worker keeps to its memory limit.
//!
//! Better one process ended with a reason than a node whose kernel picks a victim: past 95 % of a
//! worker's limit its largest process goes, and the tasks that it ran know why.

use std::collections::BTreeMap;

use rdask_core::id::{ProcessId, WorkerId};

/// Above this part of the limit, in hundredths, a process is ended.
const LIMIT_PERCENT: u64 = 95;

/// A process that runs: where, and how many bytes of memory it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) process: ProcessId,
    pub(super) worker: WorkerId,
    pub(super) bytes: u64,
}

/// The largest process of each worker that is past its limit; a limit of 0 is none.
pub(super) fn choose(uses: &[Use], limit_of: impl Fn(WorkerId) -> u64) -> Vec<Use> {
    let mut workers: BTreeMap<WorkerId, Vec<Use>> = BTreeMap::new();
    for one in uses {
        workers.entry(one.worker).or_default().push(*one);
    }
    let chosen = workers.into_iter().filter_map(|(worker, uses)| {
        let limit = limit_of(worker);
        let total: u64 = uses.iter().map(|one| one.bytes).sum();
        let is_past = limit > 0 && total > limit / 100 * LIMIT_PERCENT;
        is_past.then(|| uses.into_iter().max_by_key(|one| one.bytes)).flatten()
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(process: u32, worker: u32, bytes: u64) -> Use {
        Use { process: ProcessId(process), worker: WorkerId(worker), bytes }
    }

    #[test]
    fn the_largest_process_of_a_worker_past_its_limit_goes() {
        let uses = [one(1, 1, 500), one(2, 1, 400), one(3, 1, 51), one(4, 2, 950), one(5, 3, 9999)];
        let limit_of = |worker: WorkerId| if worker == WorkerId(3) { 0 } else { 1000 };
        assert_eq!(choose(&uses, limit_of), [uses[0]]);
        assert_eq!(choose(&[], limit_of), []);
    }
}
