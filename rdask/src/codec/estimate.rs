//! How long a value would be if it were encoded, without encoding it.

use super::{Data, raw};

/// About how many bytes the value takes when encoded, for scheduling. Exact for vectors of numbers.
pub fn size_hint<T: Data>(value: &T) -> usize {
    if let Some(bytes) = raw::bytes_of(value) {
        return bytes.len();
    }
    size_of::<T>()
}
