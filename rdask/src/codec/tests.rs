//! What goes in comes out, and what did not go in comes out as an error.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Circle(f64),
    Box { width: u32, height: u32 },
    Pair(i8, String),
    Group(Vec<Self>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct List(u8, Option<Box<Self>>);

fn shapes() -> Vec<Shape> {
    let pair = Shape::Pair(-3, String::from("über"));
    vec![
        Shape::Dot,
        Shape::Circle(0.5),
        Shape::Box { width: 300, height: 2 },
        Shape::Group(vec![pair]),
    ]
}

#[track_caller]
fn round_trip<T: Data + Debug + PartialEq>(value: T) {
    let mut alone = Vec::new();
    encode(&value, &mut alone).unwrap();
    assert_eq!(decode::<T>(&alone).unwrap(), value);
    let mut packed = vec![9];
    assert_eq!(pack_limited(&value, usize::MAX, &mut packed), Ok(Encoded::Done));
    assert_eq!(pack_limited(&value, usize::MAX, &mut packed), Ok(Encoded::Done));
    let mut rest = &packed[1..];
    assert_eq!(unpack::<T>(&mut rest).unwrap(), value);
    assert_eq!(unpack::<T>(&mut rest).unwrap(), value);
    assert!(rest.is_empty());
    // At an odd address, too.
    packed[0] = 0;
    packed.truncate(1);
    packed.extend_from_slice(&alone);
    assert_eq!(decode::<T>(&packed[1..]).unwrap(), value);
}

#[test]
fn values_of_all_kinds_come_back() {
    round_trip(());
    round_trip(u64::MAX);
    round_trip((i128::MIN, -1i16, 'ß', true, 1.5f32));
    round_trip(String::from("text"));
    round_trip(shapes());
    round_trip(Some(BTreeMap::from([(1u8, vec![Some(1u64), None])])));
    round_trip(HashMap::from([(String::from("a"), [1u16, 2, 3])]));
    round_trip(vec![(); 1000]);
    round_trip(Result::<u8, String>::Err(String::from("no")));
    round_trip(vec![vec![1.0f64; 3]; 200]);
}

#[test]
fn vectors_of_numbers_are_their_bytes() {
    round_trip(Vec::<f64>::new());
    round_trip(vec![1.0f64, -0.0, f64::INFINITY]);
    round_trip((0..=255).collect::<Vec<u8>>());
    round_trip(vec![i128::MIN, 7]);
    round_trip(vec![usize::MAX; 300]);
    let mut bytes = Vec::new();
    encode(&vec![0x0102u16, 3], &mut bytes).unwrap();
    assert_eq!(bytes, [2, 1, 3, 0]);
}

#[test]
fn the_encoder_stops_at_its_limit() {
    let check = |fits: bool, limit: usize| {
        for (value, mut out) in [(vec![7u8; 100], vec![1, 2]), (vec![0; 100], Vec::new())] {
            let before = out.clone();
            let text = String::from_utf8(vec![b'x'; 99]).unwrap();
            let (raw, mut other) =
                (encode_limited(&value, limit, &mut out).unwrap(), before.clone());
            assert_eq!(raw == Encoded::Done, fits);
            assert_eq!(encode_limited(&text, limit, &mut other).unwrap(), raw);
            let length = before.len() + if fits { 100 } else { 0 };
            assert_eq!((out.len(), other.len()), (length, length));
        }
    };
    check(true, 100);
    check(true, usize::MAX);
    check(false, 99);
    check(false, 0);
}

#[test]
fn a_serialize_that_swallows_the_limit_is_still_too_long() {
    #[derive(Deserialize)]
    struct Stubborn;
    impl Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeTuple;
            let mut tuple = serializer.serialize_tuple(3)?;
            let _ = tuple.serialize_element("more than eight bytes");
            let _ = tuple.serialize_element(&1u8);
            tuple.end()
        }
    }
    let mut out = Vec::new();
    assert_eq!(encode_limited(&Stubborn, 8, &mut out), Ok(Encoded::TooLong));
    assert!(out.is_empty());
}

#[test]
fn bytes_that_are_left_over_are_an_error() {
    let extra = |result| matches!(result, Err(DecodeError::Trailing { extra: 1, .. }));
    assert!(extra(decode::<u8>(&[1, 2]).map(drop)));
    assert!(extra(decode::<()>(&[0]).map(drop)));
    assert!(matches!(decode::<Vec<u32>>(&[0; 7]), Err(DecodeError::PartialElement { .. })));
}

#[test]
fn nesting_has_a_limit() {
    let deep = |depth: usize| {
        let mut bytes = [0u8, 1].repeat(depth);
        bytes.extend([0, 0]);
        decode::<List>(&bytes)
    };
    assert!(deep(250).is_ok());
    assert!(matches!(deep(1_000_000), Err(DecodeError::Excessive { .. })));
}

#[test]
fn elements_without_bytes_have_a_limit() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert!(matches!(decode::<Vec<()>>(&huge), Err(DecodeError::Excessive { .. })));
    assert!(matches!(decode::<Vec<[(); 3]>>(&huge), Err(DecodeError::Excessive { .. })));
    assert!(decode::<Vec<u64>>(&huge).is_err());
    assert!(decode::<Vec<Vec<String>>>(&huge).is_err());
    assert!(decode::<String>(&huge).is_err());
}

#[test]
fn types_that_look_at_the_bytes_first_get_a_clear_error() {
    let result = decode::<serde_json::Value>(&[0]);
    assert!(matches!(result, Err(DecodeError::NotSelfDescribing { .. })), "{result:?}");
}

#[test]
fn any_bytes_are_a_value_or_an_error() {
    type Everything = (Shape, Option<List>, BTreeMap<String, Vec<u32>>, char, bool, i64);
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u8
    };
    for round in 0..20_000 {
        // Small numbers are valid tags more often.
        let bytes: Vec<u8> = (0..round % 60).map(|_| random() >> (round % 8)).collect();
        let _ = decode::<Everything>(&bytes);
        let _ = decode::<Vec<Shape>>(&bytes);
        let _ = decode::<Vec<f32>>(&bytes);
        let mut rest = bytes.as_slice();
        let _ = unpack::<Vec<u16>>(&mut rest);
        let _ = unpack::<List>(&mut rest);
    }
}

#[test]
fn packed_lengths_that_lie_are_errors() {
    for mut bytes in [&[0xff; 12][..], &[5, 1], &[0x80], &[3, 1, 2, 3], &[]] {
        assert!(unpack::<Vec<u16>>(&mut bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn estimates_are_exact_for_small_values_and_close_for_long_ones() {
    #[track_caller]
    fn exact<T: Data>(value: T) {
        let mut bytes = Vec::new();
        encode(&value, &mut bytes).unwrap();
        assert_eq!(size_hint(&value), bytes.len());
    }
    exact(300u32);
    exact(-300i64);
    exact((i128::MIN, u128::MAX, 0u64, 'ß'));
    exact(String::from("text"));
    exact(shapes());
    exact(vec![1.0f64; 12345]);
    exact(vec![Some((1.0f64, String::from("ten bytes!"))); 10_000]);
    exact(BTreeMap::from([(1u8, Some(2u8)), (3, None)]));
    let uneven: Vec<String> = (0..1000).map(|n| "x".repeat(n % 50)).collect();
    let estimate = size_hint(&uneven);
    assert!((10_000..40_000).contains(&estimate), "{estimate}");
}

#[test]
fn completed_encodings_are_counted() {
    let before = encodings_completed();
    encode(&1u8, &mut Vec::new()).unwrap();
    assert!(encodings_completed() > before);
}
