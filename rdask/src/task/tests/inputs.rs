//! How arguments reach parameters: owned, borrowed, shared; typed, encoded, inline.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::function::{EncodedInput, Entry};

/// For tests that read the counter of encodings, which is one for the whole process. Others in this
/// binary encode at any time, so such a test runs its steps again when someone interfered.
fn encodings_of(steps: impl Fn()) -> u64 {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let count = || {
        let before = codec::encodings_completed();
        steps();
        codec::encodings_completed() - before
    };
    (0..1000).map(|_| count()).min().expect("a thousand tries")
}

fn feed(function: &Entry, inputs: Vec<Input>) -> Outcomes {
    let params = vec![ParamSource::Input; inputs.len()];
    run(function, vec![Task { inline: Vec::new(), params, inputs }])
}

fn stored(outcomes: Outcomes) -> Value {
    match outcomes.into_parts().2.pop() {
        Some((0, crate::function::Special::Stored(value))) => value,
        other => panic!("expected a stored value, got {other:?}"),
    }
}

fn encoded<T: Data>(value: T) -> Arc<EncodedInput> {
    Arc::new(EncodedInput::new(Value::new(value).encode().unwrap()))
}

const MIB: usize = 1 << 20;

fn make(n: usize) -> Vec<u8> {
    vec![1; n]
}

#[test]
fn a_chain_in_one_process_encodes_nothing() {
    let make = submit(make, (MIB,)).unwrap();
    let first = stored(run_one(make));
    let by_reference = submit(|v: &Vec<u8>| v.clone(), (vec![],)).unwrap().function;
    let by_value = submit(|v: Vec<u8>| v, (vec![],)).unwrap().function;
    let shared = submit(|v: Shared<Vec<u8>>| v.to_vec(), (vec![],)).unwrap().function;
    let count = encodings_of(|| {
        let mut value = first.clone();
        for function in [by_reference, by_value, shared, by_value] {
            value = stored(feed(function, vec![Input::Typed(value)]));
        }
        assert_eq!(value.downcast_ref::<Vec<u8>>().map(Vec::len), Some(MIB));
    });
    assert_eq!(count, 0);
}

#[test]
fn the_last_share_is_moved_not_copied() {
    let identity = submit(|v: Vec<u8>| v, (vec![],)).unwrap().function;
    let value = Value::new(vec![7u8; MIB]);
    let address = value.downcast_ref::<Vec<u8>>().unwrap().as_ptr();
    let moved = stored(feed(identity, vec![Input::Typed(value)]));
    assert_eq!(moved.downcast_ref::<Vec<u8>>().unwrap().as_ptr(), address);
    let copied = stored(feed(identity, vec![Input::Typed(moved.clone())]));
    assert_ne!(copied.downcast_ref::<Vec<u8>>().unwrap().as_ptr(), address);
    assert_eq!(moved.downcast_ref::<Vec<u8>>(), copied.downcast_ref());
}

#[test]
fn a_shared_value_of_any_type_is_copied_for_its_owner() {
    let rename = |mut t: Table, name: &String| {
        t.name.push_str(name);
        t
    };
    let function = submit(rename, (table(), "")).unwrap().function;
    let value = Value::new(table());
    let name = Value::new(String::from("wo"));
    let out = feed(function, vec![Input::Typed(value.clone()), Input::Typed(name)]);
    assert_eq!(only::<Table>(&out).unwrap().name, "two");
    assert_eq!(value.downcast_ref(), Some(&table()));
}

#[test]
fn bytes_are_decoded_once_and_shared() {
    let address = |t: &Table| std::ptr::from_ref(t).addr();
    let borrows = submit(address, (table(),)).unwrap().function;
    let shares =
        submit(|t: Shared<Table>| std::ptr::from_ref(&*t).addr(), (table(),)).unwrap().function;
    let owns = submit(|t: Table| t, (table(),)).unwrap().function;
    let input = encoded(table());
    assert!(input.decoded().is_none());
    let give = || vec![Input::Encoded(Arc::clone(&input))];
    let first: usize = only(&feed(borrows, give())).unwrap();
    assert_eq!(only(&feed(borrows, give())), Ok(first));
    assert_eq!(only(&feed(shares, give())), Ok(first));
    assert_eq!(only(&feed(owns, give())), Ok(table()));
    assert_eq!(only(&feed(owns, vec![Input::Encoded(input)])), Ok(table()));
}

#[test]
fn bad_bytes_fail_the_task() {
    let function = submit(|t: &Table| t.rows.len(), (table(),)).unwrap().function;
    let input = Arc::new(EncodedInput::new(Bytes::from_static(&[255; 20])));
    for _ in 0..2 {
        let failure =
            only::<usize>(&feed(function, vec![Input::Encoded(Arc::clone(&input))])).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Arguments);
    }
}

#[test]
fn numbers_are_served_without_a_copy() {
    let value = Value::new(vec![1.0f64, 2.0]);
    let bytes = value.encode().unwrap();
    let address = value.downcast_ref::<Vec<f64>>().unwrap().as_ptr().addr();
    assert_eq!(bytes.as_ptr().addr(), address);
    drop(value);
    assert_eq!(codec::decode::<Vec<f64>>(&bytes).unwrap(), [1.0, 2.0]);
}

#[test]
fn long_arguments_do_not_travel_with_the_task() {
    let sum =
        submit(|v: &Vec<u8>, w: &Vec<u8>| v.len() + w.len(), (vec![1; 10], vec![1; MIB])).unwrap();
    assert_eq!((sum.inline.len(), sum.deps.len()), (11, 1));
    assert_eq!(sum.params, [ParamSource::Inline, ParamSource::Input]);
    assert_eq!(only(&run_one(sum)), Ok(10 + MIB));
    let lengths = map(|v: Vec<u8>| v.len(), [vec![], vec![0; MIB], vec![0]]).unwrap();
    assert_eq!((lengths.ends.as_slice(), lengths.deps.len()), ([1, 1, 3].as_slice(), 1));
    assert_eq!(all::<usize>(&run_many(lengths)), [0, MIB, 1]);
}

#[test]
fn arguments_that_do_not_encode_are_reported_by_index() {
    #[derive(Deserialize)]
    struct Shy(bool);
    impl Serialize for Shy {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0 {
                Err(serde::ser::Error::custom("shy"))
            } else {
                serializer.serialize_bool(false)
            }
        }
    }
    let tasks = map(|shy: Shy| shy.0, [false, true, false].map(Shy)).unwrap();
    assert_eq!(tasks.ends, [1, 1, 2]);
    assert_eq!(tasks.errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
    assert!(submit(|shy: Shy| shy.0, (Shy(true),)).unwrap().error.is_some());
}
