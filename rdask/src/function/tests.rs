//! Chunks made by hand, run through the table's entry, for everything a function can be and do.

use super::*;

/// A task: packed inline arguments, and where each argument is.
#[derive(Default)]
pub(crate) struct Task {
    pub(crate) inline: Vec<u8>,
    pub(crate) params: Vec<ParamSource>,
    pub(crate) inputs: Vec<Input>,
}

/// Hands out prepared tasks.
pub(crate) struct Prepared {
    tasks: Vec<Task>,
    next: usize,
}

impl TaskSource for Prepared {
    fn next(&mut self, _: &Outcomes) -> Option<TaskInputs<'_>> {
        let task = self.tasks.get_mut(self.next)?;
        self.next += 1;
        Some(TaskInputs { inline: &task.inline, params: &task.params, inputs: &mut task.inputs })
    }
}

/// Runs the tasks as one chunk.
pub(crate) fn run(entry: &Entry, tasks: Vec<Task>) -> Outcomes {
    let count = tasks.len();
    let mut source = Prepared { tasks, next: 0 };
    let mut out = Outcomes::new();
    (entry.call)(&mut Chunk::new(&mut source, &mut out));
    assert_eq!(out.len(), count, "every task has an outcome");
    out
}
