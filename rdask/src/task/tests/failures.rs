//! Every way in which a task can fail, and that the others do not mind.

use std::panic::{self, AssertUnwindSafe};

use serde::{Deserializer, Serializer};

use super::*;

fn failure_of<T: Data + Clone + std::fmt::Debug>(outcomes: &Outcomes, position: usize) -> Failure {
    results::<T>(outcomes).swap_remove(position).expect_err("this task fails")
}

#[test]
fn a_returned_error_fails_the_task() {
    let parsed = try_map(|s: String| s.parse::<f64>(), ["1.5", "one", "2.5"]).unwrap();
    let outcomes = run_many(parsed);
    let failure = failure_of::<f64>(&outcomes, 1);
    assert_eq!((failure.kind, &*failure.message), (FailureKind::Returned, "invalid float literal"));
    let fine: Vec<f64> = results(&outcomes).into_iter().filter_map(Result::ok).collect();
    assert_eq!(fine, [1.5, 2.5]);
}

#[test]
fn a_returned_error_of_a_future_fails_the_task() {
    async fn never(x: u8) -> Result<u8, String> {
        Err(format!("not {x}"))
    }
    let failure = only::<u8>(&run_one(try_submit(never, (3,)).unwrap())).unwrap_err();
    assert_eq!((failure.kind, &*failure.message), (FailureKind::Returned, "not 3"));
}

#[test]
fn a_result_is_a_value_without_try() {
    let outcomes = run_many(map(|x: u8| x.checked_add(250).ok_or(x), [1, 9]).unwrap());
    assert_eq!(all::<Result<u8, u8>>(&outcomes), [Ok(251), Err(9)]);
}

#[test]
fn panics_have_message_place_and_backtrace() {
    fn picky(x: u32) -> u32 {
        assert!(x != 2, "two is not welcome");
        x
    }
    let line = line!() - 3;
    let outcomes = run_many(map(picky, [1, 2, 3, 2]).unwrap());
    let failure = failure_of::<u32>(&outcomes, 1);
    assert_eq!((failure.kind, &*failure.message), (FailureKind::Panicked, "two is not welcome"));
    let place = format!("{}:{line}:", file!());
    assert!(failure.location.as_ref().unwrap().starts_with(&place), "{failure:?}");
    let backtrace = failure.backtrace.unwrap();
    assert!(backtrace.contains("picky"), "{backtrace}");
    assert!(
        !backtrace.contains("trampoline") && !backtrace.contains("begin_unwind"),
        "{backtrace}"
    );
    assert_eq!(results::<u32>(&outcomes)[2], Ok(3));
    assert_eq!(failure_of::<u32>(&outcomes, 3).message, "two is not welcome");
}

#[test]
fn panics_of_the_language_and_without_text() {
    let index = run_one(submit(|v: Vec<u8>, i: usize| v[i], (vec![1], 5usize)).unwrap());
    let message = failure_of::<u8>(&index, 0).message;
    assert_eq!(message, "index out of bounds: the len is 1 but the index is 5");
    let any = run_one(submit(|x: u8| -> u8 { panic::panic_any(x) }, (17,)).unwrap());
    let failure = failure_of::<u8>(&any, 0);
    assert_eq!(failure.message, "a panic without text");
    assert!(failure.location.is_some());
}

#[test]
fn only_the_first_panics_of_a_chunk_have_backtraces() {
    let outcomes = run_many(map(|x: u8| -> u8 { panic!("{x}") }, 0..10).unwrap());
    let with_backtrace = |failure: &Failure| failure.backtrace.is_some();
    let failures: Vec<_> =
        results::<u8>(&outcomes).into_iter().map(|result| result.unwrap_err()).collect();
    assert_eq!(failures.iter().filter(|failure| with_backtrace(failure)).count(), 4);
    assert!(failures.iter().zip(0..).all(|(failure, x): (_, u8)| failure.message == x.to_string()));
}

#[test]
fn a_resumed_panic_has_its_text_but_no_place() {
    let resume = |x: u8| -> u8 {
        let _ = panic::catch_unwind(|| panic!("caught by the task itself"));
        panic::resume_unwind(Box::new(format!("resumed {x}")))
    };
    let failure = only::<u8>(&run_one(submit(resume, (1,)).unwrap())).unwrap_err();
    assert_eq!((&*failure.message, failure.location), ("resumed 1", None));
}

#[test]
fn a_panic_that_panics_when_dropped_is_only_one_failure() {
    let bomb = |x: u8| -> u8 { panic::panic_any(Bomb(x)) };
    let outcomes = run_many(map(bomb, [1, 1]).unwrap());
    assert_eq!(failure_of::<u8>(&outcomes, 1).message, "a panic without text");
}

/// Panics when it is dropped, if it is not zero.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bomb(u8);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 && !std::thread::panicking() {
            panic!("dropped {}", self.0);
        }
    }
}

/// Its `Serialize` panics at 1 and refuses 2, each after some bytes; its `Deserialize` panics at 3.
#[derive(Debug, Clone, PartialEq)]
struct Moody(u8);

impl Serialize for Moody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element("some bytes")?;
        assert_ne!(self.0, 1, "will not serialise");
        if self.0 == 2 {
            return Err(serde::ser::Error::custom("two"));
        }
        tuple.serialize_element(&self.0)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Moody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (_, mood) = <(String, u8)>::deserialize(deserializer)?;
        assert_ne!(mood, 3, "will not deserialise");
        Ok(Self(mood))
    }
}

#[test]
fn a_serialize_that_panics_or_refuses_fails_its_task_alone() {
    let outcomes = run_many(map(Moody, [0, 1, 0, 2, 0]).unwrap());
    let panicked = failure_of::<Moody>(&outcomes, 1);
    assert_eq!(panicked.kind, FailureKind::Panicked);
    assert!(panicked.message.contains("will not serialise"), "{panicked:?}");
    let refused = failure_of::<Moody>(&outcomes, 3);
    assert_eq!(refused.kind, FailureKind::Result);
    let fine: Vec<_> = results::<Moody>(&outcomes).into_iter().filter_map(Result::ok).collect();
    assert_eq!(fine, [Moody(0), Moody(0), Moody(0)]);
}

#[test]
fn a_deserialize_that_panics_fails_its_task_alone() {
    let outcomes = run_many(map(|moody: Moody| moody.0, [0, 3, 0].map(Moody)).unwrap());
    assert!(failure_of::<u8>(&outcomes, 1).message.contains("will not deserialise"));
    assert_eq!(results::<u8>(&outcomes)[2], Ok(0));
}

#[test]
fn an_argument_or_result_that_panics_when_dropped_fails_its_task_alone() {
    let taken = map(|bomb: Bomb| bomb.0, vec![0, 0, 0].into_iter().map(Bomb)).unwrap();
    let mut tasks = taken;
    tasks.inline[1] = 5;
    let outcomes = run_many(tasks);
    assert_eq!(failure_of::<u8>(&outcomes, 1).message, "dropped 5");
    assert_eq!(results::<u8>(&outcomes)[2], Ok(0));

    let outcomes = run_many(map(Bomb, [0, 6, 0]).unwrap());
    let kinds: Vec<_> = outcomes.iter().map(|out| matches!(out, Outcome::Failed(_))).collect();
    assert_eq!(kinds, [false, true, false]);
}

#[test]
fn a_stored_value_that_panics_when_dropped_hurts_nobody() {
    drop(Value::new(Bomb(7)));
}

#[test]
fn arguments_that_do_not_fit_are_failures() {
    let double = submit(|x: u64| x * 2, (1,)).unwrap().function;
    let inline = |bytes: &[u8], params: usize| Task {
        inline: bytes.to_vec(),
        params: vec![ParamSource::Inline; params],
        inputs: Vec::new(),
    };
    let typed = Task {
        params: vec![ParamSource::Input],
        inputs: vec![Input::Typed(Value::new(String::from("text")))],
        ..Task::default()
    };
    let absent = Task { params: vec![ParamSource::Input], ..Task::default() };
    let tasks = vec![
        inline(&[0x80], 1),
        inline(&[1, 1], 1),
        inline(&[1, 1], 2),
        inline(&[], 0),
        typed,
        absent,
    ];
    let outcomes = run(double, tasks);
    let messages: Vec<_> = results::<u64>(&outcomes)
        .into_iter()
        .map(|result| result.map_err(|failure| (failure.kind, failure.message)).unwrap_err())
        .collect();
    assert!(messages.iter().all(|(kind, _)| *kind == FailureKind::Arguments), "{messages:?}");
    assert!(messages[0].1.starts_with("argument 1: 1 bytes are no u64"), "{messages:?}");
    assert_eq!(messages[4].1, "argument 1: expected a u64, got a alloc::string::String");
    assert_eq!(messages[5].1, "argument 1: the argument is missing");
}

#[test]
fn a_source_that_panics_is_not_taken_for_a_task() {
    struct Broken;
    impl crate::function::TaskSource for Broken {
        fn next(&mut self, _: &Outcomes) -> Option<crate::function::TaskInputs<'_>> {
            panic!("our own fault")
        }
    }
    let entry = submit(|x: u64| x * 2, (1,)).unwrap().function;
    let mut out = Outcomes::new();
    let mut broken = Broken;
    let mut chunk = crate::function::Chunk::new(&mut broken, &mut out);
    let caught = panic::catch_unwind(AssertUnwindSafe(|| (entry.call)(&mut chunk)));
    assert!(caught.is_err());
    assert!(out.is_empty());
}
