//! What is always true of a process. Checked after every event in debug builds.

use std::collections::BTreeMap;

use super::fetch::State;
use super::work::{common_sources, has_own_sources, own_sources};
use super::{FETCHES_MAX, Process, ValueId};
use crate::range::{Range, RangeSet};

/// Beyond this many assigned tasks with inputs the checks would dominate every test.
const CHECKED_MAX: u64 = 2_000;

impl Process {
    /// Checks every invariant; costs time in proportion to the state.
    ///
    /// # Panics
    /// If one is broken: a bug of the process's.
    pub fn check(&self) {
        self.check_slots();
        let tasks: u64 = self.works.values().map(|work| work.unstarted.len()).sum();
        if tasks + self.inputs.all.len() as u64 > CHECKED_MAX || self.chunks.len() > 64 {
            return;
        }
        self.check_works();
        self.check_inputs();
        self.check_answers();
    }

    fn check_slots(&self) {
        let running = self.chunks.iter();
        let running = running.filter(|(id, _)| !self.slots.parked.contains_key(id));
        let used: u32 = running.map(|(_, chunk)| chunk.threads).sum();
        assert_eq!(used, self.slots.used, "slots in use");
        let parked = self.slots.parked.keys();
        assert!(parked.clone().all(|id| self.chunks.contains_key(id)));
        let resuming = self.slots.resuming.iter();
        assert!(resuming.clone().all(|id| self.slots.parked.contains_key(id)));
        assert!(self.alarms.iter().all(|(_, id)| self.chunks.contains_key(id)));
        assert!(self.inputs.fetching.len() <= FETCHES_MAX);
    }

    fn check_works(&self) {
        let mut ready = 0;
        for (id, work) in &self.works {
            assert_eq!(*id, work.assign.assignment);
            assert!(work.running > 0 || !work.unstarted.is_empty(), "a work that is over");
            let startable = work.startable();
            ready += startable;
            assert_eq!(startable > 0, self.queue.contains(&work.key), "{work:?}");
            let mut accounted = work.ready.clone();
            for index in work.missing.keys() {
                assert!(!accounted.contains(*index), "task {index} is ready and misses inputs");
                accounted.insert(Range::one(*index));
            }
            assert_eq!(accounted, work.unstarted, "{work:?}");
            let chunks = self.chunks.values().filter(|chunk| chunk.assignment == *id);
            let mut in_chunks = RangeSet::new();
            for chunk in chunks {
                assert_eq!(in_chunks.count_within(chunk.range), 0, "a task in two chunks");
                in_chunks.insert(chunk.range);
            }
            assert_eq!(in_chunks.len(), u64::from(work.running));
            assert!(work.unstarted.iter().all(|range| in_chunks.count_within(range) == 0));
            assert!(work.cancelled.iter().all(|range| in_chunks.covers(range)));
        }
        assert_eq!(ready, self.ready_count);
        assert!(self.queue.iter().all(|(.., id)| self.works.contains_key(id)));
    }

    fn check_inputs(&self) {
        let mut users: BTreeMap<ValueId, u32> = BTreeMap::new();
        for work in self.works.values() {
            for source in common_sources(&work.assign) {
                *users.entry(ValueId::of(source)).or_default() += 1;
            }
            if !has_own_sources(&work.assign) {
                continue;
            }
            let running = self
                .chunks
                .values()
                .filter(|chunk| chunk.assignment == work.assign.assignment && !chunk.is_void);
            let mut here = work.unstarted.clone();
            running.for_each(|chunk| here.insert(chunk.range));
            for index in here.iter().flatten() {
                let position = (index - work.assign.range.start) as usize;
                for source in own_sources(&work.assign, position) {
                    *users.entry(ValueId::of(source)).or_default() += 1;
                }
            }
        }
        for value in &self.inputs.acquiring {
            *users.entry(*value).or_default() += 1;
        }
        let counted = self.inputs.all.iter();
        let counted: BTreeMap<_, _> = counted.map(|(id, input)| (*id, input.users)).collect();
        assert_eq!(counted, users, "who uses which input");
        for (value, input) in &self.inputs.all {
            let awaited = !input.waiters.is_empty() || self.inputs.acquiring.contains(value);
            assert_eq!(awaited, input.state.is_missing(), "{value:?} {input:?}");
            let queued = self.inputs.queue.iter().filter(|(_, queued)| queued == value);
            let queued = queued.count();
            match &input.state {
                State::Elsewhere(_, key) => {
                    let fetching = self.inputs.fetching.contains_key(value);
                    assert_eq!(queued + usize::from(fetching), 1, "{value:?} {input:?}");
                    assert!(fetching || self.inputs.queue.contains(&(*key, *value)));
                }
                State::Present => {
                    assert_eq!(queued, 0);
                    assert!(self.kept.has(*value), "{value:?} is not here");
                }
                State::Small(_) | State::Expected => assert_eq!(queued, 0),
            }
        }
    }

    fn check_answers(&self) {
        let mut owed = 0;
        for (array, map) in &self.owed {
            for (range, id) in map.iter() {
                owed += u64::from(range.len());
                let work = &self.works[id];
                assert_eq!(work.assign.array, *array);
                assert!(work.assign.range.covers(range));
            }
        }
        let timed_out = self.chunks.values().filter(|chunk| chunk.is_void);
        let timed_out: u64 = timed_out.map(|chunk| u64::from(chunk.range.len())).sum();
        let works = self.works.values();
        let here: u64 = works.map(|work| work.unstarted.len() + u64::from(work.running)).sum();
        // A task of two assignments, one of them void and still running, is owed once.
        assert!(owed + timed_out <= here);
        for (assignment, range) in self.outbox.ranges() {
            if let Some(work) = self.works.get(&assignment) {
                assert_eq!(work.unstarted.count_within(range), 0, "answered and queued");
            }
        }
    }
}
