//! Maps and trees: many tasks of one function, in as few arrays as their inputs allow.

use bytes::Bytes;
use rdask_core::client::{Client as Machine, cut_payload};
use rdask_core::id::{ArrayId, TaskId};
use rdask_core::message::{Edge, Param, TaskOptions};
use rdask_core::range::Range;
use rdask_core::time::Time;

use super::sending::{Call, Input, Refusal, edge, release_all};
use super::session::{Session, Tasks};
use crate::function::UnknownFunction;
use crate::task::submission::ManyTasks;

/// How many tasks a run of consecutive inputs must have on average to become an array of its own.
/// Below that, a batch with an edge per task is shorter.
const RUN_LEN_MIN: usize = 8;

/// Items of a map that are of one kind, by position.
#[derive(Debug)]
enum Run {
    /// In the payload.
    Inline { start: usize, end: usize },
    /// One output each of consecutive tasks.
    Each { array: ArrayId, range: Range, part: u16 },
    /// One that cannot be submitted.
    Refused(Refusal),
}

/// The items of a map, encoded, before the client's state is looked at.
struct Map {
    inline: Bytes,
    ends: Vec<u64>,
    /// Items that are not inline, by position, rising.
    inputs: Vec<(u64, Input)>,
    shared: Option<Input>,
}

/// The items of a map as runs.
struct Runs {
    runs: Vec<Run>,
    shared: Option<Edge>,
    /// Handles to drop when all is submitted.
    held: Tasks,
}

/// A tree's levels of no more nodes than this are folded by twos: of what several processes have made,
/// two partial results meet at a time, beside others, and each moves once at most. A wide node would
/// fetch all of its children one after the other. Below, a process finds most children at home, and
/// wide nodes are fewer.
const TREE_TOP: u64 = 64;

impl Session {
    /// A task per item. There is one handle of each.
    pub(crate) fn send_many(
        &self,
        tasks: Result<ManyTasks, UnknownFunction>,
        options: &TaskOptions,
    ) -> Tasks {
        let tasks = match tasks {
            Ok(tasks) => tasks,
            // Nobody has counted the items: one failure stands for all.
            Err(error) => return one(self.fail(error.to_string(), error.name)),
        };
        let call = self.call(tasks.function, options);
        let map = self.prepare(tasks);
        self.with(|state, now| map.send(&mut state.machine, now, &call))
    }

    /// A tree over the items: each node folds up to `fan_in` neighbours. There is one handle, of
    /// its root.
    pub(super) fn send_tree(
        &self,
        tasks: Result<ManyTasks, UnknownFunction>,
        options: &TaskOptions,
        fan_in: u32,
    ) -> TaskId {
        let tasks = match tasks {
            Ok(tasks) => tasks,
            Err(error) => return self.fail(error.to_string(), error.name),
        };
        if tasks.ends.is_empty() {
            let name = (tasks.function.name)();
            return self.fail("a tree needs at least one item".into(), name);
        }
        let call = self.call(tasks.function, options);
        let map = self.prepare(tasks);
        self.with(|state, now| {
            let machine = &mut state.machine;
            let mut level = map.leaves(machine, now, &call);
            loop {
                if let [(array, range)] = level[..]
                    && range.len() == 1
                {
                    let index = range.start;
                    return TaskId { array, index };
                }
                let len: u64 = level.iter().map(|(_, range)| u64::from(range.len())).sum();
                let fan_in = if len > TREE_TOP { fan_in } else { 2 };
                let next = fold(machine, now, &call, &level, fan_in);
                release_all(machine, now, level);
                level = next;
            }
        })
    }

    fn prepare(&self, tasks: ManyTasks) -> Map {
        let deps = tasks.deps.into_iter();
        let mut inputs: Vec<(u64, Input)> =
            deps.map(|(index, dep)| (index, self.input(dep))).collect();
        if !tasks.errors.is_empty() {
            let errors = tasks.errors.into_iter();
            inputs.extend(errors.map(|(index, error)| (index, Input::Bad(error.to_string()))));
            inputs.sort_by_key(|(index, _)| *index);
        }
        Map {
            inline: tasks.inline.into(),
            ends: tasks.ends,
            inputs,
            shared: tasks.shared.map(|dep| self.input(dep)),
        }
    }
}

impl Map {
    fn send(mut self, machine: &mut Machine, now: Time, call: &Call<'_>) -> Tasks {
        let len = self.ends.len();
        let Runs { runs, shared, held } = self.resolve(machine, now, call);
        let mut tasks = Tasks::new();
        if runs.len() > 1 && len < runs.len() * RUN_LEN_MIN {
            self.send_batch(machine, now, call, (runs, shared), &mut tasks);
        } else {
            for run in runs {
                let (param, len, payload) = match run {
                    Run::Inline { start, end } => {
                        (Param::Inline, end - start, self.payload(start, end))
                    }
                    Run::Each { array, range, part } => {
                        let start = range.start;
                        let param = Param::Each { array, start, part };
                        (param, range.len() as usize, Vec::new())
                    }
                    Run::Refused(refusal) => {
                        push(&mut tasks, call.refuse(machine, refusal));
                        continue;
                    }
                };
                let shared = shared.map(|Edge { task, part }| Param::One { task, part });
                let shape = call.shape(std::iter::once(param).chain(shared).collect());
                let len = u32::try_from(len).expect("a map has at most u32::MAX items");
                let array = machine.submit_array(len, shape, payload, call.parent);
                tasks.push((array, Range::new(0, len)));
            }
        }
        release_all(machine, now, held);
        tasks
    }

    /// One record per task.
    fn send_batch(
        &self,
        machine: &mut Machine,
        now: Time,
        call: &Call<'_>,
        (runs, shared): (Vec<Run>, Option<Edge>),
        tasks: &mut Tasks,
    ) {
        let shared_param = shared.map(|_| Param::Edge);
        let shape =
            |param| call.shape(std::iter::once(param).chain(shared_param.clone()).collect());
        for run in runs {
            match run {
                Run::Inline { start, end } => {
                    let edges: Vec<Edge> = shared.into_iter().collect();
                    for position in start..end {
                        let payload = self.item(position);
                        let shape = shape(Param::Inline);
                        push(tasks, machine.submit(now, shape, payload, &edges, call.parent));
                    }
                }
                Run::Each { array, range, part } => {
                    for index in range {
                        let own = Edge { task: TaskId { array, index }, part };
                        let edges: Vec<Edge> = std::iter::once(own).chain(shared).collect();
                        let shape = shape(Param::Edge);
                        push(tasks, machine.submit(now, shape, &[], &edges, call.parent));
                    }
                }
                Run::Refused(refusal) => push(tasks, call.refuse(machine, refusal)),
            }
        }
    }

    /// A task for each item, for the bottom of a tree. One argument folds to itself, so items that
    /// are values become tasks that way.
    fn leaves(mut self, machine: &mut Machine, now: Time, call: &Call<'_>) -> Tasks {
        let Runs { runs, held, .. } = self.resolve(machine, now, call);
        let mut tasks = Tasks::new();
        for run in runs {
            match run {
                Run::Inline { start, end } => {
                    let payload = self.payload(start, end);
                    let len =
                        u32::try_from(end - start).expect("a tree has at most u32::MAX items");
                    let shape = call.shape(vec![Param::Inline]);
                    let array = machine.submit_array(len, shape, payload, call.parent);
                    tasks.push((array, Range::new(0, len)));
                }
                Run::Each { array, range, part } if part > 0 => {
                    let param = Param::Each { array, start: range.start, part };
                    let shape = call.shape(vec![param]);
                    let len = range.len();
                    let array = machine.submit_array(len, shape, Vec::new(), call.parent);
                    tasks.push((array, Range::new(0, len)));
                }
                Run::Each { array, range, .. } => {
                    machine.retain(array, range);
                    tasks.push((array, range));
                }
                Run::Refused(refusal) => push(&mut tasks, call.refuse(machine, refusal)),
            }
        }
        release_all(machine, now, held);
        tasks
    }

    fn resolve(&mut self, machine: &mut Machine, now: Time, call: &Call<'_>) -> Runs {
        let mut held = Tasks::new();
        let (positions, inputs): (Vec<u64>, Vec<Input>) =
            std::mem::take(&mut self.inputs).into_iter().unzip();
        let sources = call.resolve(machine, now, inputs, &mut held);
        let shared =
            call.resolve(machine, now, self.shared.take().into_iter().collect(), &mut held);
        let (shared, refused) = match shared.into_iter().next() {
            None => (None, None),
            Some(Ok(source)) => (Some(source), None),
            Some(Err(refusal)) => (None, Some(refusal)),
        };
        let len = self.ends.len();
        if let Some(refusal) = refused {
            let runs = (0..len).map(|_| Run::Refused(refusal.clone())).collect();
            return Runs { runs, shared, held };
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut next = 0;
        for (position, source) in positions.into_iter().zip(sources) {
            let position = usize::try_from(position).expect("an item's position fits memory");
            runs.extend(inline(next, position));
            next = position + 1;
            match (source, runs.last_mut()) {
                (Ok(Edge { task, part }), Some(Run::Each { array, range, part: same }))
                    if *array == task.array && range.end == task.index && *same == part =>
                {
                    range.end += 1;
                }
                (Ok(Edge { task: TaskId { array, index }, part }), _) => {
                    runs.push(Run::Each { array, range: Range::one(index), part });
                }
                (Err(refusal), _) => runs.push(Run::Refused(refusal)),
            }
        }
        runs.extend(inline(next, len));
        Runs { runs, shared, held }
    }

    fn start(&self, position: usize) -> u64 {
        position.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn item(&self, position: usize) -> &[u8] {
        // The ends are those of `inline`, which is in memory.
        &self.inline[self.start(position) as usize..self.ends[position] as usize]
    }

    fn payload(&self, start: usize, end: usize) -> Vec<rdask_core::blob::Blob> {
        cut_payload(&self.inline, self.start(start), &self.ends[start..end])
            .expect("the ends of items rise")
    }
}

/// One level of a tree over the tasks of the level below.
fn fold(machine: &mut Machine, now: Time, call: &Call<'_>, level: &Tasks, fan_in: u32) -> Tasks {
    if let [(array, Range { start, end })] = level[..]
        && !machine.is_here(array)
    {
        let len = (end - start).div_ceil(fan_in);
        let width = fan_in;
        let shape = call.shape(vec![Param::Block { array, start, end, width }]);
        let array = machine.submit_array(len, shape, Vec::new(), call.parent);
        return vec![(array, Range::new(0, len))];
    }
    let all: Vec<TaskId> = level
        .iter()
        .flat_map(|&(array, range)| range.iter().map(move |index| TaskId { array, index }))
        .collect();
    let mut tasks = Tasks::new();
    for children in all.chunks(fan_in as usize) {
        let failed = children.iter().find_map(|task| machine.failure_here(*task));
        let task = match failed {
            Some(failure) => machine.fail_with(failure),
            None => {
                let edges: Vec<Edge> = children.iter().copied().map(edge).collect();
                let shape = call.shape(vec![Param::Edges]);
                machine.submit(now, shape, &[], &edges, call.parent)
            }
        };
        push(&mut tasks, task);
    }
    tasks
}

fn inline(start: usize, end: usize) -> Option<Run> {
    (start < end).then_some(Run::Inline { start, end })
}

pub(super) fn one(task: TaskId) -> Tasks {
    vec![(task.array, Range::one(task.index))]
}

/// Appends a task, to the last range if it follows it.
pub(super) fn push(tasks: &mut Tasks, task: TaskId) {
    match tasks.last_mut() {
        Some((array, range)) if *array == task.array && range.end == task.index => range.end += 1,
        _ => tasks.push((task.array, Range::one(task.index))),
    }
}
