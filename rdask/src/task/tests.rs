//! Typed calls, submitted and run in this process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::submission::{ManyTasks, OneTask, map, map_with, submit, tree, try_map, try_submit};
use super::*;
use crate::codec::{self, Data};
use crate::function::tests::{Task, run};
use crate::function::{Failure, FailureKind, Input, Outcome, Outcomes, ParamSource, Value};
use crate::shared::Shared;

mod failures;
mod inputs;
mod shapes;
mod speed;

fn input_of(dep: Dep) -> Input {
    match dep {
        Dep::Value(value) => Input::Typed(value),
        Dep::Remote(_) | Dep::List(..) | Dep::Parts(..) => {
            panic!("there is no cluster in this test")
        }
    }
}

fn run_one(task: OneTask) -> Outcomes {
    assert_eq!(task.error, None);
    let inputs = task.deps.into_iter().map(input_of).collect();
    run(task.function, vec![Task { inline: task.inline, params: task.params, inputs }])
}

fn run_many(tasks: ManyTasks) -> Outcomes {
    assert_eq!(tasks.errors, []);
    let shared = tasks.shared.map(input_of);
    let mut deps: BTreeMap<u64, Dep> = tasks.deps.into_iter().collect();
    let mut start = 0;
    let mut prepared = Vec::new();
    for (index, &end) in (0..).zip(&tasks.ends) {
        let inline = tasks.inline[start..end as usize].to_vec();
        start = end as usize;
        let own = deps.remove(&index).map(input_of);
        let mut params = vec![if own.is_some() { ParamSource::Input } else { ParamSource::Inline }];
        params.extend(shared.as_ref().map(|_| ParamSource::Input));
        let inputs = own.into_iter().chain(shared.clone()).collect();
        prepared.push(Task { inline, params, inputs });
    }
    run(tasks.function, prepared)
}

/// The results of all tasks, or what failed.
fn results<T: Data + Clone>(outcomes: &Outcomes) -> Vec<Result<T, Failure>> {
    let result = |outcome| match outcome {
        Outcome::Inline(bytes) => Ok(codec::decode(bytes).expect("we encoded it")),
        Outcome::Stored(value) => Ok(value.downcast_ref::<T>().expect("its type").clone()),
        Outcome::Parts(_) => panic!("none of these functions splits"),
        Outcome::Failed(failure) => Err(failure.clone()),
    };
    outcomes.iter().map(result).collect()
}

fn only<T: Data + Clone>(outcomes: &Outcomes) -> Result<T, Failure> {
    let mut results = results(outcomes);
    assert_eq!(results.len(), 1);
    results.pop().expect("one result")
}

fn all<T: Data + Clone>(outcomes: &Outcomes) -> Vec<T> {
    results(outcomes).into_iter().map(|result| result.expect("no task failed")).collect()
}

/// A type without a short way to copy it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Table {
    name: String,
    rows: Vec<f64>,
}

fn table() -> Table {
    Table { name: String::from("t"), rows: vec![1.0, 2.0, 4.0] }
}
