//! Tasks that a program has handles of, and what should come of them.

use std::collections::BTreeMap;

use rdask_core::id::{ArrayId, FunctionKey, TaskId};
use rdask_core::message::{Param, Shape, TaskOptions};
use rdask_core::range::Range;

use crate::scenario::{Input, Work};
use crate::value::{always_fails, compute, part_of};
use crate::world::World;

/// What should come of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::world) struct Expect {
    pub(super) value: u64,
    pub(super) fails: bool,
}

/// Tasks under a name, and what should come of them.
#[derive(Clone, Debug, Default)]
pub(in crate::world) struct Kept {
    pub(super) local: Local,
    /// Whether the scheduler has them now, as far as it has been told.
    pub(in crate::world) is_there: bool,
}

/// Tasks that a program has handles of.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    pub(super) tasks: Vec<TaskId>,
    pub(super) expect: Vec<Expect>,
    /// Set if all of them are of one array, in order from its first task on.
    pub(super) array: Option<ArrayId>,
    /// How many outputs each has.
    pub(super) parts: u16,
}

impl Local {
    /// Consecutive tasks together.
    pub(super) fn ranges(&self) -> Vec<(ArrayId, Range)> {
        let mut ranges: Vec<(ArrayId, Range)> = Vec::new();
        for task in &self.tasks {
            match ranges.last_mut() {
                Some((array, range)) if *array == task.array && range.end == task.index => {
                    range.end += 1;
                }
                _ => ranges.push((task.array, Range::one(task.index))),
            }
        }
        ranges
    }

    /// One of the outputs that the tasks have.
    fn part_near(&self, part: u16) -> u16 {
        part % self.parts.max(1)
    }

    /// What should come out of the output of a task that is near to this one.
    pub(super) fn output(&self, at: u32, part: u16) -> Expect {
        let Expect { value, fails } = self.expect[at as usize];
        Expect { value: part_of(value, self.part_near(part), self.parts), fails }
    }

    pub(super) fn part(&self, from: u32, len: u32) -> Self {
        let from = (from as usize).min(self.tasks.len());
        let to = (from + len as usize).min(self.tasks.len());
        Self {
            tasks: self.tasks[from..to].to_vec(),
            expect: self.expect[from..to].to_vec(),
            array: None,
            parts: self.parts,
        }
    }
}

impl World {
    /// What should come of task `index`.
    pub(super) fn expect(
        &self,
        client: usize,
        work: &Work,
        key: u64,
        index: u32,
        params: &[(Param, Input)],
    ) -> Expect {
        let locals = &self.clients[client].locals;
        let mut taken: Vec<Expect> = Vec::new();
        let mut argument = None;
        for (param, input) in params {
            let (array, range, part) = match (*input, param) {
                (Input::Inline, _) => {
                    argument = Some(u64::from(index));
                    continue;
                }
                (Input::Each { array, start, part }, _) => (array, Range::one(start + index), part),
                (Input::Shuffle { array, start }, _) => {
                    let end = locals[&array].expect.len() as u32;
                    (array, Range::new(start, end), index as u16)
                }
                (Input::Block { array, start, width }, Param::Block { end, .. }) => {
                    let first = start + index * width;
                    (array, Range::new(first, (first + width).min(*end)), 0)
                }
                (Input::Block { array, .. }, _) => (array, Range::new(0, 0), 0),
                (Input::One { array, index, part }, _) => (array, Range::one(index), part),
                (Input::All { array, start }, _) => {
                    (array, Range::new(start, locals[&array].expect.len() as u32), 0)
                }
            };
            taken.extend(range.iter().map(|at| locals[&array].output(at, part)));
        }
        self.expect_of(work, key, argument, index, &taken)
    }

    pub(super) fn expect_of(
        &self,
        work: &Work,
        key: u64,
        argument: Option<u64>,
        number: u32,
        taken: &[Expect],
    ) -> Expect {
        let mut inputs: Vec<u64> = taken.iter().map(|one| one.value).collect();
        inputs.extend(self.children_of(key));
        let fails = taken.iter().any(|one| one.fails) || always_fails(work, number);
        Expect { value: compute(work, key, argument, &inputs), fails }
    }

    /// The values of the tasks that a run of a function submits itself.
    pub(super) fn children_of(&self, key: u64) -> Vec<u64> {
        let count = u64::from(self.work(key).nested);
        let child = |index| compute(self.work(key + 1), key + 1, Some(index), &[]);
        (0..count).map(child).collect()
    }
}

/// The parameter that an input means, and how many tasks it is enough for.
pub(super) fn param_of(locals: &BTreeMap<u32, Local>, input: Input) -> Option<(Param, u32)> {
    let of = |array: u32| locals.get(&array).map(|local| (local, local.tasks.len() as u32));
    match input {
        Input::Inline => Some((Param::Inline, u32::MAX)),
        Input::Each { array, start, part } => {
            let (local, len) = of(array)?;
            let param = Param::Each { array: local.array?, start, part: local.part_near(part) };
            (start < len).then_some((param, len - start))
        }
        Input::Shuffle { array, start } => {
            let (local, len) = of(array)?;
            let range = Range::new(start, len);
            let param = Param::Shuffle { array: local.array?, range, first: 0 };
            (start < len).then_some((param, u32::from(local.parts)))
        }
        Input::Block { array, start, width } => {
            let (local, end) = of(array)?;
            let param = Param::Block { array: local.array?, start, end, width: width.max(1) };
            (start < end).then(|| (param, (end - start).div_ceil(width.max(1))))
        }
        Input::One { array, index, part } => {
            let (local, _) = of(array)?;
            let task = *local.tasks.get(index as usize)?;
            Some((Param::One { task, part: local.part_near(part) }, u32::MAX))
        }
        Input::All { array, start } => {
            let (local, len) = of(array)?;
            let range = Range::new(start, len);
            (start < len).then_some((Param::All { array: local.array?, range }, u32::MAX))
        }
    }
}

pub(super) fn shape(key: u64, work: &Work, params: Vec<Param>) -> Shape {
    let options = TaskOptions {
        priority: work.priority,
        retries: work.retries,
        retry_delay: std::time::Duration::from_millis(work.retry_delay_ms),
        timeout: work.timeout_ms.map(std::time::Duration::from_millis),
        kill_grace: work.kill_grace_ms.map(std::time::Duration::from_millis),
        threads: work.threads.max(1),
        resources: if work.cards > 0 {
            vec![("card".to_owned(), work.cards * 10_000)]
        } else {
            Vec::new()
        },
        parts: work.parts.max(1),
        replicas: work.replicas.max(1),
        pools: work.pool.iter().map(|pool| format!("p{pool}")).collect(),
        ..TaskOptions::default()
    };
    Shape { function: FunctionKey(key), name: format!("f{key}"), params, options }
}
