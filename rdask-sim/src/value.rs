//! What tasks compute: a number that tells which function took what, or their sum.

use bytes::Bytes;

use crate::dice::mix;
use crate::scenario::{Fails, Work};

/// The inline argument of a task: a number of its own.
#[must_use]
pub(crate) fn payload(index: u32) -> [u8; 8] {
    u64::from(index).to_le_bytes()
}

/// The value of a scattered array's task.
#[must_use]
pub(crate) fn scattered(array: u32, index: u32) -> u64 {
    mix(u64::from(array) << 32 | u64::from(index))
}

/// The value of a task.
#[must_use]
pub(crate) fn compute(work: &Work, key: u64, argument: Option<u64>, inputs: &[u64]) -> u64 {
    if work.adds {
        let own = argument.map_or(0, |index| index.wrapping_mul(index));
        return inputs.iter().fold(own, |sum, input| sum.wrapping_add(*input));
    }
    let start = mix(key ^ argument.map_or(0, mix));
    inputs.iter().fold(start, |sum, input| mix(sum.wrapping_mul(31) ^ input))
}

/// The most that a value is taken for: its length is known up to a factor of two.
pub(crate) const BYTES_MAX: u64 = 1 << 24;

/// How many bytes a stored value is said to have.
#[must_use]
pub(crate) fn size_of(value: u64) -> u64 {
    1 << (mix(value) % 24)
}

/// One of the outputs of a task.
#[must_use]
pub(crate) fn part_of(value: u64, part: u16, parts: u16) -> u64 {
    if parts > 1 { mix(value ^ mix(u64::from(part))) } else { value }
}

/// Whether a value stays with its process.
#[must_use]
pub(crate) fn is_stored(work: &Work, value: u64) -> bool {
    mix(value) % 100 < work.stored_percent
}

/// Whether every run of a task fails.
#[must_use]
pub(crate) fn always_fails(work: &Work, index: u32) -> bool {
    match work.fails {
        Fails::Never | Fails::First(_) => false,
        Fails::Every(nth) | Fails::Hangs(nth) | Fails::Kills(nth) => {
            index.is_multiple_of(nth.max(1))
        }
    }
}

/// Whether every run of a task ends its process.
#[must_use]
pub(crate) fn is_poison(work: &Work, index: u32) -> bool {
    matches!(work.fails, Fails::Kills(_)) && always_fails(work, index)
}

/// A value as bytes.
#[must_use]
pub(crate) fn encode(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_le_bytes())
}

/// The value that bytes begin with. Large ones have more behind it.
#[must_use]
pub(crate) fn decode(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.first_chunk::<8>()?))
}
