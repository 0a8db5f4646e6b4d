//! The second half of a shuffle: tasks that take one output each of all tasks of the first half.

use rdask_core::id::TaskId;
use rdask_core::message::{Edge, Param, TaskOptions};
use rdask_core::range::Range;

use super::sending_many::{one, push};
use super::session::{Session, Tasks};
use crate::function::{Entry, UnknownFunction};

impl Session {
    /// Task `j` takes output `j` of all these tasks. There is one handle of each.
    pub(super) fn send_joins(
        &self,
        join: Result<&'static Entry, UnknownFunction>,
        options: &TaskOptions,
        splits: &Tasks,
        width: u16,
    ) -> Tasks {
        let join = match join {
            Ok(join) => join,
            // One failure stands for all.
            Err(error) => return one(self.fail(error.to_string(), error.name)),
        };
        let call = self.call(join, options);
        self.with(|state, now| {
            let machine = &mut state.machine;
            if let [(array, range)] = splits[..]
                && !machine.is_here(array)
            {
                let shape = call.shape(vec![Param::Shuffle { array, range, first: 0 }]);
                let len = u32::from(width);
                let array = machine.submit_array(len, shape, Vec::new(), call.parent);
                return vec![(array, Range::new(0, len))];
            }
            let mut tasks = Tasks::new();
            for part in 0..width {
                let all = splits.iter().flat_map(|&(array, range)| {
                    range.iter().map(move |index| Edge { task: TaskId { array, index }, part })
                });
                let task = call.of_all(machine, now, all.collect());
                push(&mut tasks, task.unwrap_or_else(|refusal| call.refuse(machine, refusal)));
            }
            tasks
        })
    }
}
