//! An array or batch as the scheduler knows it: the one record of its tasks.
//!
//! The state of a task, who has its value and who needs it are kept apart, each as a table over
//! the task indexes. Invariants, checked by [`invariants`](super::invariants):
//! a task is in `ready` exactly if its state is `Ready(None)`; in `available` exactly if its state
//! is `Done` and its value is somewhere; `refs` counts the client's handle, names that it was
//! detached under and every unfinished dependent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::blob::Blob;
use crate::failure::Failure;
use crate::id::{ArrayId, AssignmentId, ClientId, ProcessId, TaskId};
use crate::message::{Param, Parent, Shape};
use crate::range::{Range, RangeMap, RangeSet};

use super::blame::Deaths;
use super::missed::Misses;
use super::ready::{ClassNo, ReadyKey, ShareNo};
use super::stats::StatNo;
use super::table::Table;

/// The scheduler's own number of an array or batch, rising in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Gid(pub(crate) u32);

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// For so many inputs, for its payload, or for the end of a delay.
    Waiting(u32),
    /// It can run: anywhere, or rather in this process, which has its inputs.
    Ready(Option<ProcessId>),
    /// A process has it.
    Assigned(AssignmentId),
    /// It ended well.
    Done,
    /// It ended badly; `failures` says how.
    Failed,
    /// It never ran, since nobody wants it any more.
    Dropped,
}

impl State {
    /// Whether it has come to its end.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Dropped)
    }
}

/// Where the value of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// Nowhere: the task isn't done, or nobody wanted the value any more, or it was lost.
    Nowhere,
    /// Here, in `results`.
    Inline,
    /// With a process; its length in bytes is below two to the power of the second number.
    Held(ProcessId, u8),
}

/// What a group's tasks depend on.
#[derive(Debug)]
pub(crate) enum Inputs {
    /// All tasks have the one shape, whose parameters say it by patterns.
    Patterns(Box<ShapeInfo>),
    /// Each task has its own edges.
    Edges(Box<BatchInputs>),
    /// Values that a client scatters: no function.
    Scattered(ClassNo),
}

/// A shape, with what the scheduler looks up once.
#[derive(Debug)]
pub(crate) struct ShapeInfo {
    pub(crate) shape: Shape,
    pub(crate) class: ClassNo,
    pub(crate) stat: StatNo,
    /// The group of each parameter's array, where it has one.
    pub(crate) param_groups: Vec<Option<Gid>>,
}

/// The shapes and edges of a batch.
#[derive(Debug)]
pub(crate) struct BatchInputs {
    pub(crate) shapes: Vec<ShapeInfo>,
    pub(crate) shape_of: Vec<u16>,
    pub(crate) edge_ends: Vec<u32>,
    pub(crate) edges: Vec<EdgeTo>,
}

/// An edge with its group looked up. [`Gid`]s of forgotten groups are never given again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EdgeTo {
    pub(crate) group: Gid,
    pub(crate) index: u32,
    pub(crate) part: u16,
}

impl BatchInputs {
    pub(crate) fn edges_of(&self, index: u32) -> &[EdgeTo] {
        let end = |at: u32| self.edge_ends[at as usize] as usize;
        let start = if index == 0 { 0 } else { end(index - 1) };
        &self.edges[start..end(index)]
    }
}

/// Tasks of batches that depend on tasks of one group: a linked list per task.
#[derive(Debug, Default)]
pub(crate) struct EdgeLists {
    heads: BTreeMap<u32, u32>,
    nodes: Vec<EdgeNode>,
    /// How many nodes name groups that are forgotten.
    gone: usize,
}

#[derive(Clone, Copy, Debug)]
struct EdgeNode {
    dependent: (Gid, u32),
    next: u32,
}

const NO_NODE: u32 = u32::MAX;

impl EdgeLists {
    pub(crate) fn add(&mut self, index: u32, dependent: (Gid, u32)) {
        let node = self.nodes.len() as u32;
        let next = self.heads.insert(index, node).unwrap_or(NO_NODE);
        self.nodes.push(EdgeNode { dependent, next });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn of(&self, index: u32) -> impl Iterator<Item = (Gid, u32)> + '_ {
        let mut at = self.heads.get(&index).copied().unwrap_or(NO_NODE);
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            Some(node.dependent)
        })
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// So many dependents are forgotten with their group. Says whether most of all are by now, so
    /// that it is time to [`retain`](Self::retain) the others.
    pub(crate) fn lose(&mut self, count: usize) -> bool {
        self.gone += count;
        2 * self.gone > self.nodes.len()
    }

    /// Drops the dependents of groups that are forgotten.
    pub(crate) fn retain(&mut self, is_known: impl Fn(Gid) -> bool) {
        let old = std::mem::take(self);
        for index in old.heads.keys() {
            let known: Vec<(Gid, u32)> = old.of(*index).filter(|(gid, _)| is_known(*gid)).collect();
            // In the same order: the last one that is added comes first.
            known.into_iter().rev().for_each(|dependent| self.add(*index, dependent));
        }
    }

    /// All dependents of the tasks in `range`.
    pub(crate) fn within(&self, range: Range) -> impl Iterator<Item = (Gid, u32)> + '_ {
        self.heads.range(range.start..range.end).flat_map(|(index, _)| self.of(*index))
    }
}

/// Byte strings of tasks, in pieces as they came, each freed when its last task is.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: BTreeMap<u32, Piece>,
}

#[derive(Debug)]
struct Piece {
    blob: Blob,
    live: u32,
}

impl Pieces {
    /// Adds the strings of the tasks from `start` on; returns what they cost in bytes.
    pub(crate) fn insert(&mut self, start: u32, blob: Blob) -> usize {
        let (cost, live) = (blob.cost(), blob.count());
        self.pieces.insert(start, Piece { blob, live });
        cost
    }

    /// The strings of as many tasks of `range` as lie in one piece, from its start on.
    pub(crate) fn slice(&self, range: Range) -> Option<Blob> {
        let (start, piece) = self.pieces.range(..=range.start).next_back()?;
        let whole = Range::new(*start, start + piece.blob.count());
        let part = whole.intersection(range);
        (!part.is_empty() && part.start == range.start)
            .then(|| piece.blob.slice(Range::new(part.start - start, part.end - start)))
    }

    /// The tasks in `range` are through with their strings, once each; returns the bytes freed.
    pub(crate) fn release(&mut self, range: Range) -> usize {
        let mut freed = 0;
        let mut rest = range;
        while let Some((&start, piece)) = self.pieces.range_mut(..rest.end).next_back() {
            let part = Range::new(start, start + piece.blob.count()).intersection(rest);
            if part.is_empty() {
                break;
            }
            piece.live = piece.live.saturating_sub(part.len());
            if piece.live == 0
                && let Some(piece) = self.pieces.remove(&start)
            {
                freed += piece.blob.cost();
            }
            rest.end = part.start;
            if rest.is_empty() {
                break;
            }
        }
        freed
    }

    /// What all of it costs in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.pieces.values().map(|piece| piece.blob.cost()).sum()
    }
}

/// A client that waits for the end of tasks.
#[derive(Debug)]
pub(crate) struct Want {
    pub(crate) client: ClientId,
    pub(crate) pending: RangeSet,
    pub(crate) values: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: ArrayId,
    pub(crate) len: u32,
    pub(crate) inputs: Inputs,
    /// Whose slot time it uses.
    pub(crate) share: ShareNo,
    /// 0 for what a client program submits, one more than the parent's for nested tasks.
    pub(crate) depth: u16,
    pub(crate) parent: Option<Parent>,
    /// The process whose runs submitted it.
    pub(crate) nested_in: Option<ProcessId>,

    pub(crate) state: Table<State>,
    pub(crate) holding: Table<Holding>,
    pub(crate) refs: Table<u32>,
    /// How many tasks have references.
    pub(crate) referenced: u32,
    /// Of which tasks the client has a handle.
    pub(crate) handles: Table<bool>,
    pub(crate) ready: RangeSet,
    /// Where each process goes on that has got some of it, if neighbours should be together.
    pub(crate) regions: BTreeMap<ProcessId, u32>,
    pub(crate) available: RangeSet,
    /// How many tasks are not over.
    pub(crate) unfinished: u32,
    /// Tasks that are over and will never run again: they have let go of their arguments.
    pub(crate) settled: RangeSet,

    pub(crate) payload: Pieces,
    /// How many tasks have their payload, in order.
    pub(crate) payload_len: u32,
    pub(crate) results: Pieces,
    /// Inline results that nobody wants but recomputing a dependent might.
    pub(crate) deferred: RangeSet,
    pub(crate) failures: RangeMap<Arc<Failure>>,
    /// Run numbers that are not 1.
    pub(crate) runs: RangeMap<u32>,
    /// The runs that made the values of tasks, where it was not the latest.
    pub(crate) made_by: RangeMap<u32>,
    /// How often tasks failed, where they did.
    pub(crate) tries: BTreeMap<u32, u32>,
    /// How often the holders of values could not be reached, where that happened.
    pub(crate) misses: BTreeMap<u32, Misses>,
    /// Who could not get a copy of which value: others are tried then.
    pub(crate) unacquired: BTreeSet<(u32, ProcessId)>,
    /// How often a task was run again since its value could not be had from a living holder.
    pub(crate) unreached: BTreeMap<u32, u32>,
    /// Processes that died while tasks ran, where any did.
    pub(crate) deaths: BTreeMap<u32, Deaths>,
    /// Copies of held values beyond the first, by task and part.
    pub(crate) copies: BTreeMap<(u32, u16), Vec<ProcessId>>,
    /// How many holders a value should have.
    pub(crate) holders_min: u8,
    /// The size of each output of held results, as [`Holding::Held`] says it of whole results, of
    /// tasks with several.
    pub(crate) part_sizes: BTreeMap<u32, Box<[u8]>>,
    /// The lengths that a client announced for scattered values.
    pub(crate) sizes: Vec<u64>,

    pub(crate) wants: Vec<Want>,
    /// Arrays that depend on this group by a pattern: which, and by which parameter.
    pub(crate) pattern_dependents: BTreeSet<(Gid, u8)>,
    pub(crate) edge_dependents: EdgeLists,
    /// Groups that this one was built from; each is pinned while this one may run again.
    pub(crate) pinned: BTreeSet<Gid>,
    /// How many groups pin this one.
    pub(crate) pins: u32,
    /// Whether the groups that all tasks share as inputs count this one as a dependent now.
    pub(crate) shared_interest: bool,
}

impl Group {
    /// A group whose tasks all wait for `missing` things and are wanted by their client's handle.
    pub(crate) fn new(id: ArrayId, len: u32, inputs: Inputs, share: ShareNo) -> Self {
        let dense = matches!(inputs, Inputs::Edges(_));
        Self {
            id,
            len,
            inputs,
            share,
            depth: 0,
            parent: None,
            nested_in: None,
            state: Table::filled(dense, len, State::Waiting(0)),
            holding: Table::filled(dense, len, Holding::Nowhere),
            refs: Table::filled(dense, len, 1),
            referenced: len,
            handles: Table::filled(false, len, true),
            ready: RangeSet::new(),
            regions: BTreeMap::new(),
            available: RangeSet::new(),
            unfinished: len,
            settled: RangeSet::new(),
            payload: Pieces::default(),
            payload_len: 0,
            results: Pieces::default(),
            deferred: RangeSet::new(),
            failures: RangeMap::new(),
            runs: RangeMap::new(),
            made_by: RangeMap::new(),
            tries: BTreeMap::new(),
            misses: BTreeMap::new(),
            unacquired: BTreeSet::new(),
            unreached: BTreeMap::new(),
            deaths: BTreeMap::new(),
            copies: BTreeMap::new(),
            holders_min: 1,
            part_sizes: BTreeMap::new(),
            sizes: Vec::new(),
            wants: Vec::new(),
            pattern_dependents: BTreeSet::new(),
            edge_dependents: EdgeLists::default(),
            pinned: BTreeSet::new(),
            pins: 0,
            shared_interest: false,
        }
    }

    /// All its task indexes.
    pub(crate) fn all(&self) -> Range {
        Range::new(0, self.len)
    }

    /// A task of it, as the world calls it.
    pub(crate) fn task(&self, index: u32) -> TaskId {
        TaskId { array: self.id, index }
    }

    /// The shape of a task; `None` for scattered values.
    pub(crate) fn shape(&self, index: u32) -> Option<&ShapeInfo> {
        match &self.inputs {
            Inputs::Patterns(shape) => Some(shape),
            Inputs::Edges(batch) => Some(&batch.shapes[batch.shape_of[index as usize] as usize]),
            Inputs::Scattered(_) => None,
        }
    }

    /// What a worker must have for a task of it.
    pub(crate) fn class(&self, index: u32) -> ClassNo {
        match &self.inputs {
            Inputs::Scattered(class) => *class,
            _ => self.shape(index).map_or(ClassNo::ANY, |shape| shape.class),
        }
    }

    /// How many outputs a task has.
    pub(crate) fn parts(&self, index: u32) -> u16 {
        self.shape(index).map_or(1, |info| info.shape.options.parts)
    }

    /// How many outputs each of the tasks has at least.
    pub(crate) fn parts_min(&self) -> u16 {
        let parts = |info: &ShapeInfo| info.shape.options.parts;
        match &self.inputs {
            Inputs::Patterns(info) => parts(info),
            Inputs::Edges(batch) => batch.shapes.iter().map(parts).min().unwrap_or(1),
            Inputs::Scattered(_) => 1,
        }
    }

    /// The first holder of an output, and about how many bytes it has.
    pub(crate) fn held(&self, index: u32, part: u16) -> Option<(ProcessId, u64)> {
        let Holding::Held(process, log2) = self.holding.get(index) else { return None };
        let own = self.part_sizes.get(&index).and_then(|sizes| sizes.get(usize::from(part)));
        Some((process, 1 << own.copied().unwrap_or(log2).min(62)))
    }

    /// The processes that have copies of all outputs of a task.
    pub(crate) fn whole_copies(&self, index: u32) -> impl Iterator<Item = ProcessId> {
        let of = move |part| self.copies.get(&(index, part)).map_or(&[][..], Vec::as_slice);
        let has_rest =
            move |id: &ProcessId| (1..self.parts(index)).all(|part| of(part).contains(id));
        of(0).iter().copied().filter(has_rest)
    }

    /// A process has no copies of these tasks' results any more, or is their first holder.
    pub(crate) fn remove_copies(&mut self, range: Range, process: ProcessId) {
        let mut emptied = Vec::new();
        for (value, copies) in self.copies.range_mut((range.start, 0)..(range.end, 0)) {
            copies.retain(|holder| *holder != process);
            if copies.is_empty() {
                emptied.push(*value);
            }
        }
        for value in emptied {
            self.copies.remove(&value);
        }
    }

    /// Where a ready task stands in the queue.
    pub(crate) fn ready_key(&self, gid: Gid, index: u32) -> ReadyKey {
        let priority = self.shape(index).map_or(0, |shape| shape.shape.options.priority);
        ReadyKey::new(self.depth, priority, gid)
    }

    /// The number of a task's next or current run.
    pub(crate) fn run(&self, index: u32) -> u32 {
        self.runs.get(index).copied().unwrap_or(1)
    }

    /// The number of the run that made a task's value, if it has one.
    pub(crate) fn value_run(&self, index: u32) -> u32 {
        self.made_by.get(index).copied().unwrap_or_else(|| self.run(index))
    }

    /// Whether parts of a task's inputs are inline arguments.
    pub(crate) fn has_payload(&self) -> bool {
        match &self.inputs {
            Inputs::Patterns(shape) => shape.shape.params.contains(&Param::Inline),
            Inputs::Edges(_) => true,
            Inputs::Scattered(_) => false,
        }
    }

    /// Whether a task that may run again takes values of this group: of another group, or, in a
    /// batch, of its own.
    pub(crate) fn may_be_needed_again(&self) -> bool {
        self.pins > 0 || (matches!(self.inputs, Inputs::Edges(_)) && !self.is_settled())
    }

    /// Whether none of its tasks will ever run again.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.covers(self.all())
    }

    /// Whether it can be forgotten as a whole.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.pins == 0 && self.unfinished == 0 && self.referenced == 0
    }
}

/// Takes out what has keys in a range.
pub(crate) fn remove_range<K: Ord + Copy, V>(map: &mut BTreeMap<K, V>, keys: std::ops::Range<K>) {
    let gone: Vec<K> = map.range(keys).map(|(key, _)| *key).collect();
    gone.iter().for_each(|key| drop(map.remove(key)));
}
