//! From typed calls, whose values are encoded already, to what the state machine numbers and sends.

use std::sync::Arc;

use bytes::Bytes;
use rdask_core::client::Client as Machine;
use rdask_core::failure::{Failure, FailureKind};
use rdask_core::id::{FunctionKey, TaskId};
use rdask_core::message::{Edge, Param, Parent, Shape, TaskOptions};
use rdask_core::range::Range;
use rdask_core::time::Time;

use super::nested;
use super::session::{Session, Tasks};
use crate::function::{Entry, ParamSource, UnknownFunction, Value};
use crate::remote::Handle;
use crate::task::Dep;
use crate::task::submission::OneTask;

/// What all tasks of one call have in common.
pub(super) struct Call<'a> {
    function: &'a Entry,
    options: &'a TaskOptions,
    pub(super) parent: Option<Parent>,
}

impl Call<'_> {
    fn name(&self) -> &'static str {
        (self.function.name)()
    }

    pub(super) fn shape(&self, params: Vec<Param>) -> Shape {
        Shape {
            function: FunctionKey(self.function.key),
            name: self.name().to_owned(),
            params,
            options: self.options.clone(),
        }
    }

    /// A task that fails here, instead of one that cannot be submitted.
    pub(super) fn refuse(&self, machine: &mut Machine, refusal: Refusal) -> TaskId {
        match refusal {
            Refusal::Own(message) => {
                machine.fail_here(FailureKind::Unrunnable, message, self.name())
            }
            Refusal::Input(failure) => machine.fail_with(failure),
        }
    }

    /// Makes tasks of all inputs that are none. Their handles go to `held`.
    pub(super) fn resolve(
        &self,
        machine: &mut Machine,
        now: Time,
        inputs: Vec<Input>,
        held: &mut Tasks,
    ) -> Vec<Result<Edge, Refusal>> {
        let values: Vec<Bytes> = inputs
            .iter()
            .filter_map(|input| match input {
                Input::Value(bytes) => Some(bytes.clone()),
                Input::Task(_) | Input::List(..) | Input::Parts(..) | Input::Bad(_) => None,
            })
            .collect();
        let len = values.len() as u32;
        let scattered = (len > 0).then(|| machine.scatter(values, self.options.clone()));
        held.extend(scattered.map(|array| (array, Range::new(0, len))));
        let mut scattered = scattered
            .into_iter()
            .flat_map(|array| (0..len).map(move |index| TaskId { array, index }));
        let resolve = |input| match input {
            Input::Task(source) => match machine.failure_here(source.task) {
                None => Ok(source),
                Some(failure) => Err(Refusal::Input(failure)),
            },
            Input::Value(_) => Ok(edge(scattered.next().expect("one for each value"))),
            Input::List(collect, tasks) => {
                let task = self.collect(machine, now, collect, &tasks)?;
                held.push((task.array, Range::one(task.index)));
                Ok(edge(task))
            }
            Input::Parts(collect, parts) => {
                let options = self.collecting();
                let task = self.over(collect, &options).of_all(machine, now, parts)?;
                held.push((task.array, Range::one(task.index)));
                Ok(edge(task))
            }
            Input::Bad(message) => Err(Refusal::Own(message)),
        };
        inputs.into_iter().map(resolve).collect()
    }

    /// A task that makes one vector of the results of others.
    fn collect(
        &self,
        machine: &mut Machine,
        now: Time,
        collect: &'static Entry,
        tasks: &Tasks,
    ) -> Result<TaskId, Refusal> {
        let options = self.collecting();
        let call = self.over(collect, &options);
        if let [(array, range)] = tasks[..]
            && !machine.is_here(array)
        {
            let shape = call.shape(vec![Param::All { array, range }]);
            let array = machine.submit_array(1, shape, Vec::new(), call.parent);
            return Ok(TaskId { array, index: 0 });
        }
        let all = tasks
            .iter()
            .flat_map(|&(array, range)| range.iter().map(move |index| TaskId { array, index }));
        call.of_all(machine, now, all.map(edge).collect())
    }

    /// What a task is asked that makes one vector for tasks of this call.
    fn collecting(&self) -> TaskOptions {
        TaskOptions {
            priority: self.options.priority,
            workers: self.options.workers.clone(),
            pools: self.options.pools.clone(),
            ..TaskOptions::default()
        }
    }

    /// Another function's call, by the same run.
    pub(super) fn over<'b>(&self, function: &'b Entry, options: &'b TaskOptions) -> Call<'b> {
        Call { function, options, parent: self.parent }
    }

    /// A task that takes all these as one list.
    pub(super) fn of_all(
        &self,
        machine: &mut Machine,
        now: Time,
        edges: Vec<Edge>,
    ) -> Result<TaskId, Refusal> {
        if let Some(failure) = edges.iter().find_map(|edge| machine.failure_here(edge.task)) {
            return Err(Refusal::Input(failure));
        }
        if !fit_a_message(&edges) {
            let count = edges.len();
            let error = format!("a list of {count} is too long for one task; combine with `tree`");
            return Err(Refusal::Own(error));
        }
        let shape = self.shape(vec![Param::Edges]);
        Ok(machine.submit(now, shape, &[], &edges, self.parent))
    }
}

/// The most bytes that one task's edges may take in a message; there is little beside them.
const EDGES_BYTES_MAX: usize = 900 << 10;

/// An edge takes 18 bytes at most, most of them six.
fn fit_a_message(edges: &[Edge]) -> bool {
    edges.len() <= EDGES_BYTES_MAX / 18
        || postcard::to_stdvec(edges).is_ok_and(|bytes| bytes.len() <= EDGES_BYTES_MAX)
}

/// Why a task cannot be submitted: it fails here.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// By itself.
    Own(String),
    /// Since its input did.
    Input(Arc<Failure>),
}

/// An argument that does not travel with its task.
#[derive(Debug)]
pub(super) enum Input {
    /// The result of a task, or an output of it.
    Task(Edge),
    /// A value, encoded.
    Value(Bytes),
    /// The results of these tasks, to be made one vector by a task of this function.
    List(&'static Entry, Tasks),
    /// The same of single outputs.
    Parts(&'static Entry, Vec<Edge>),
    /// A value that doesn't encode.
    Bad(String),
}

/// The edge to a task with one output.
pub(super) fn edge(task: TaskId) -> Edge {
    Edge { task, part: 0 }
}

/// Drops handles that were only needed while submitting. The scheduler hears of that after it has
/// heard who needs the values.
pub(super) fn release_all(machine: &mut Machine, now: Time, held: Tasks) {
    for (array, range) in held {
        machine.release(now, array, range);
    }
}

impl Session {
    pub(super) fn call<'a>(&self, function: &'a Entry, options: &'a TaskOptions) -> Call<'a> {
        let parent = if self.nested { nested::parent() } else { None };
        Call { function, options, parent }
    }

    /// A task of its own. There is one handle of it.
    pub(super) fn send_one(
        &self,
        task: Result<OneTask, UnknownFunction>,
        options: &TaskOptions,
    ) -> TaskId {
        let task = match task {
            Ok(task) => task,
            Err(error) => return self.fail(error.to_string(), error.name),
        };
        let call = self.call(task.function, options);
        let bad = task.error.map(|error| Refusal::Own(error.to_string()));
        let inputs: Vec<Input> = task.deps.into_iter().map(|dep| self.input(dep)).collect();
        self.with(|state, now| {
            let machine = &mut state.machine;
            let mut held = Tasks::new();
            let edges: Result<Vec<Edge>, Refusal> = match bad {
                Some(refusal) => Err(refusal),
                None => call.resolve(machine, now, inputs, &mut held).into_iter().collect(),
            };
            let id = match edges {
                Ok(edges) => {
                    let params = task.params.iter().map(|param| match param {
                        ParamSource::Inline => Param::Inline,
                        ParamSource::Input => Param::Edge,
                    });
                    let shape = call.shape(params.collect());
                    machine.submit(now, shape, &task.inline, &edges, call.parent)
                }
                Err(refusal) => call.refuse(machine, refusal),
            };
            release_all(machine, now, held);
            id
        })
    }

    /// Values of the program's own. There is one handle of each.
    pub(super) fn send_values(
        &self,
        values: impl Iterator<Item = Value>,
        options: &TaskOptions,
    ) -> Tasks {
        let mut tasks = Tasks::new();
        let mut run: Vec<Bytes> = Vec::new();
        for value in values {
            match value.encode() {
                Ok(bytes) => run.push(bytes),
                Err(error) => {
                    tasks.extend(self.scatter_run(std::mem::take(&mut run), options));
                    let task = self.fail(error.to_string(), "scatter");
                    tasks.push((task.array, Range::one(task.index)));
                }
            }
        }
        tasks.extend(self.scatter_run(run, options));
        tasks
    }

    fn scatter_run(
        &self,
        run: Vec<Bytes>,
        options: &TaskOptions,
    ) -> Option<(rdask_core::id::ArrayId, Range)> {
        let range = Range::new(0, run.len() as u32);
        (!range.is_empty()).then(|| {
            let array = self.with(|state, _| state.machine.scatter(run, options.clone()));
            (array, range)
        })
    }

    /// A task that fails here. There is one handle of it.
    pub(super) fn fail(&self, message: String, function: &str) -> TaskId {
        self.with(|state, _| {
            let machine = &mut state.machine;
            machine.fail_here(FailureKind::Unrunnable, message, function)
        })
    }

    /// Checks whose handle it is, or encodes the value: all that needs no lock.
    pub(super) fn input(&self, dep: Dep) -> Input {
        match dep {
            Dep::Remote(Handle { session, task, part }) => {
                self.check_own(session);
                Input::Task(Edge { task, part })
            }
            Dep::Value(value) => match value.encode() {
                Ok(bytes) => Input::Value(bytes),
                Err(error) => Input::Bad(error.to_string()),
            },
            Dep::List(collect, listed) => {
                if let Some(session) = &listed.session {
                    self.check_own(Arc::as_ptr(session) as usize);
                }
                match collect {
                    Ok(collect) => Input::List(collect, listed.tasks),
                    Err(error) => Input::Bad(error.to_string()),
                }
            }
            Dep::Parts(collect, handles) => {
                let edge = |Handle { session, task, part }| {
                    self.check_own(session);
                    Edge { task, part }
                };
                let edges = handles.into_iter().map(edge).collect();
                match collect {
                    Ok(collect) => Input::Parts(collect, edges),
                    Err(error) => Input::Bad(error.to_string()),
                }
            }
        }
    }

    fn check_own(&self, session: usize) {
        assert!(
            session == std::ptr::from_ref(self) as usize,
            "this Remote belongs to another client: submit with the client that made it"
        );
    }
}
