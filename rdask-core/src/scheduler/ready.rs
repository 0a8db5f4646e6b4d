//! The order in which ready work is taken: whose turn it is, then what goes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::ProgramHash;
use crate::message::TaskOptions;

use super::group::Gid;

/// Deeper (nested) tasks first, then higher priorities, then earlier arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadyKey {
    depth: Reverse<u16>,
    priority: Reverse<i32>,
    pub(crate) group: Gid,
}

impl ReadyKey {
    pub(crate) fn new(depth: u16, priority: i32, group: Gid) -> Self {
        Self { depth: Reverse(depth), priority: Reverse(priority), group }
    }
}

/// A number for "what a worker must have", so that equal wishes are looked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClassNo(pub(crate) u32);

impl ClassNo {
    /// One slot of any worker.
    pub(crate) const ANY: Self = Self(0);
}

/// What a worker must have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Requirement {
    pub(crate) threads: u16,
    pub(crate) resources: Vec<(String, u64)>,
    pub(crate) workers: Vec<String>,
    pub(crate) pools: Vec<String>,
}

impl From<&TaskOptions> for Requirement {
    fn from(options: &TaskOptions) -> Self {
        Self {
            threads: options.threads.max(1),
            resources: options.resources.clone(),
            workers: options.workers.clone(),
            pools: options.pools.clone(),
        }
    }
}

/// All requirements seen, numbered.
#[derive(Debug)]
pub(crate) struct Classes {
    numbers: BTreeMap<Requirement, ClassNo>,
    requirements: Vec<Requirement>,
}

impl Default for Classes {
    fn default() -> Self {
        let mut classes = Self { numbers: BTreeMap::new(), requirements: Vec::new() };
        classes.number(&TaskOptions::default());
        classes
    }
}

impl Classes {
    pub(crate) fn number(&mut self, options: &TaskOptions) -> ClassNo {
        let requirement = Requirement::from(options);
        if let Some(number) = self.numbers.get(&requirement) {
            return *number;
        }
        let number = ClassNo(self.requirements.len() as u32);
        self.requirements.push(requirement.clone());
        self.numbers.insert(requirement, number);
        number
    }

    pub(crate) fn get(&self, class: ClassNo) -> &Requirement {
        &self.requirements[class.0 as usize]
    }
}

/// A client program's claim to slots: what its own and all its nested tasks use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ShareNo(pub(crate) u32);

/// See [`ShareNo`].
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) program: ProgramHash,
    /// Slot time that it has used, in nanoseconds, with what its assigned tasks will likely use.
    pub(crate) used_ns: u64,
    /// Groups with ready tasks that are tied to no process, by what they need of a worker.
    pub(crate) queues: BTreeMap<ClassNo, BTreeSet<ReadyKey>>,
    /// Groups that are not forgotten.
    pub(crate) groups: u32,
    /// Whether its client is still there.
    pub(crate) connected: bool,
}

impl Share {
    pub(crate) fn new(program: ProgramHash, used_ns: u64) -> Self {
        Self { program, used_ns, queues: BTreeMap::new(), groups: 0, connected: true }
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.queues.is_empty()
    }

    pub(crate) fn enqueue(&mut self, class: ClassNo, key: ReadyKey) {
        self.queues.entry(class).or_default().insert(key);
    }

    pub(crate) fn dequeue(&mut self, class: ClassNo, key: ReadyKey) {
        if let Some(queue) = self.queues.get_mut(&class) {
            queue.remove(&key);
            if queue.is_empty() {
                self.queues.remove(&class);
            }
        }
    }
}
