//! How values become bytes and bytes become values again.
//!
//! Both ends run the same program, so the format needs no schema: postcard, with one exception. A
//! value that is itself a `Vec` of primitive numbers travels as the raw bytes of its elements,
//! which is as fast as memory.
//!
//! There are two forms of the same bytes. *Alone*, a value fills its slice to the end, and bytes
//! that are left over are an error. *Packed*, values stand back to back, and each one knows where
//! it ends.
//!
//! Encoding and decoding run the user's `Serialize` and `Deserialize`: they may panic, be slow, or
//! refuse. Callers run them where user code may run. What this module adds itself never panics,
//! whatever the bytes are.

use std::any::type_name;
use std::sync::atomic::{AtomicU64, Ordering};

use rdask_core::bulk::Bulk;
use serde::Serialize;
use serde::de::DeserializeOwned;

mod estimate;
mod guard;
mod raw;
mod received;

pub use estimate::size_hint;
pub(crate) use raw::{bytes_of as raw_bytes_of, duplicate, is_raw, take_over};
pub use received::Received;

/// What can travel between processes: arguments and results of tasks.
///
/// Every type that serde can write and read again, and that threads may share, is `Data`; there is
/// nothing to implement.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Point { x: f64, y: f64 }
///
/// fn travels<T: rdask::Data>() {}
/// travels::<Point>();
/// travels::<Vec<(String, Option<Point>)>>();
/// ```
///
/// The format is not self-describing: types that look at the bytes before they know what to read
/// (`#[serde(untagged)]`, `#[serde(flatten)]`, `serde_json::Value`) compile, but fail when they are
/// decoded. So do values that nest more than 512 levels deep, such as long linked lists.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel between processes",
    label = "not `Serialize + DeserializeOwned + Send + Sync + 'static`",
    note = "add `#[derive(serde::Serialize, serde::Deserialize)]` to the type"
)]
pub trait Data: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T> Data for T where T: Serialize + DeserializeOwned + Send + Sync + 'static {}

/// Why a value could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A sequence or map did not say how long it is.
    #[error(
        "{type_name} cannot be encoded: it holds a sequence that does not tell its length first"
    )]
    UnknownLength {
        /// The type that was being encoded.
        type_name: &'static str,
    },
    /// The type's own `Serialize` returned an error.
    #[error("{type_name} cannot be encoded: its `Serialize` refused: {cause}")]
    Refused {
        /// The type that was being encoded.
        type_name: &'static str,
        /// What serde said.
        #[source]
        cause: postcard::Error,
    },
}

impl EncodeError {
    fn new<T>(cause: postcard::Error) -> Self {
        let type_name = type_name::<T>();
        match cause {
            postcard::Error::SerializeSeqLengthUnknown => Self::UnknownLength { type_name },
            cause => Self::Refused { type_name, cause },
        }
    }
}

/// Why bytes could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are no value of this type.
    #[error("{length} bytes are no {type_name}: {cause}")]
    Malformed {
        /// The type that was wanted.
        type_name: &'static str,
        /// How many bytes there were.
        length: usize,
        /// What serde said.
        #[source]
        cause: postcard::Error,
    },
    /// The type asks for a self-describing format.
    #[error(
        "{type_name} cannot be decoded: it needs a self-describing format (`untagged`, `flatten` or a JSON value)"
    )]
    NotSelfDescribing {
        /// The type that was wanted.
        type_name: &'static str,
    },
    /// Raw numbers that do not fill their last element.
    #[error("{length} bytes are no {type_name}: not a whole number of elements")]
    PartialElement {
        /// The type that was wanted.
        type_name: &'static str,
        /// How many bytes there were.
        length: usize,
    },
    /// A value that is deeper, or has more empty elements, than we are ready to decode.
    #[error(
        "{type_name} cannot be decoded: it nests too deep, or has too many elements of no size"
    )]
    Excessive {
        /// The type that was wanted.
        type_name: &'static str,
    },
    /// More bytes than the value.
    #[error("{extra} bytes follow the {type_name}")]
    Trailing {
        /// The type that was wanted.
        type_name: &'static str,
        /// How many bytes were left over.
        extra: usize,
    },
}

impl DecodeError {
    fn new<T>(length: usize, cause: guard::Stopped) -> Self {
        let type_name = type_name::<T>();
        match cause {
            guard::Stopped::Excessive => Self::Excessive { type_name },
            guard::Stopped::Malformed(postcard::Error::WontImplement) => {
                Self::NotSelfDescribing { type_name }
            }
            guard::Stopped::Malformed(cause) => Self::Malformed { type_name, length, cause },
        }
    }
}

/// How an encoding with a limit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Encoded {
    /// The value is in the buffer.
    Done,
    /// The value is longer than the limit; the buffer is as it was.
    TooLong,
}

static ENCODINGS_COMPLETED: AtomicU64 = AtomicU64::new(0);

/// How many values this process has encoded to their end, so that tests can tell that none was.
///
/// Encodings that stopped at their limit do not count, nor do size estimates.
pub fn encodings_completed() -> u64 {
    ENCODINGS_COMPLETED.load(Ordering::Relaxed)
}

/// Adds to [`encodings_completed`]. Whoever calls [`encode_limited`] in a loop counts once, at the
/// loop's end: slots that shared a counter per task would spend more on the counter than on a small
/// task.
pub(crate) fn count_encodings(n: u64) {
    if n > 0 {
        ENCODINGS_COMPLETED.fetch_add(n, Ordering::Relaxed);
    }
}

/// Appends the value to `out`, in the form that stands alone.
///
/// # Errors
/// If the type cannot be encoded; `out` is as it was then.
pub fn encode<T: Data>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match encode_limited(value, usize::MAX, out)? {
        Encoded::Done => count_encodings(1),
        Encoded::TooLong => unreachable!("no buffer is longer than usize::MAX"),
    }
    Ok(())
}

/// Appends the value to `out`, in the form that stands alone, unless that takes more than `limit`
/// bytes: then it stops there. Not counted: the caller does, once for many.
///
/// # Errors
/// If the type cannot be encoded; `out` is as it was then.
#[inline]
pub fn encode_limited<T: Data>(
    value: &T,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<Encoded, EncodeError> {
    if let Some(bytes) = raw::bytes_of(value) {
        if bytes.len() > limit {
            return Ok(Encoded::TooLong);
        }
        out.extend_from_slice(bytes);
        return Ok(Encoded::Done);
    }
    encode_postcard(value, limit, out)
}

/// Appends the value to `out` so that others may follow it, unless that takes more than `limit`
/// bytes.
///
/// # Errors
/// If the type cannot be encoded; `out` is as it was then.
#[inline]
pub(crate) fn pack_limited<T: Data>(
    value: &T,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<Encoded, EncodeError> {
    if let Some(bytes) = raw::bytes_of(value) {
        if bytes.len() > limit {
            return Ok(Encoded::TooLong);
        }
        raw::push_length(bytes.len(), out);
        out.extend_from_slice(bytes);
        return Ok(Encoded::Done);
    }
    encode_postcard(value, limit, out)
}

fn encode_postcard<T: Data>(
    value: &T,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<Encoded, EncodeError> {
    let start = out.len();
    let output = Limited { end_max: start.saturating_add(limit), out, passed: false };
    let mut serializer = postcard::Serializer { output };
    let result = value.serialize(&mut serializer);
    let Limited { out, passed, .. } = serializer.output;
    if passed {
        // Also when the type's `Serialize` swallowed our error.
        out.truncate(start);
        return Ok(Encoded::TooLong);
    }
    if let Err(cause) = result {
        out.truncate(start);
        return Err(EncodeError::new::<T>(cause));
    }
    Ok(Encoded::Done)
}

/// Reads the value that fills `bytes`.
///
/// # Errors
/// If the bytes are anything but exactly one value.
pub fn decode<T: Data>(bytes: &[u8]) -> Result<T, DecodeError> {
    if let Some(value) = raw::value_of(bytes) {
        return value;
    }
    let (value, rest) =
        guard::decode(bytes).map_err(|cause| DecodeError::new::<T>(bytes.len(), cause))?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing { type_name: type_name::<T>(), extra: rest.len() });
    }
    Ok(value)
}

/// Reads the value that fills `bulk`. A vector of numbers takes its memory over, if it can.
///
/// # Errors
/// If the bytes are anything but exactly one value.
pub fn decode_bulk<T: Data>(bulk: Bulk) -> Result<T, DecodeError> {
    raw::take_over(bulk).or_else(|bulk| decode(bulk.bytes()))
}

/// Reads the packed value at the start of `bytes` and moves `bytes` behind it.
///
/// # Errors
/// If `bytes` does not start with a value of this type.
#[inline]
pub(crate) fn unpack<T: Data>(bytes: &mut &[u8]) -> Result<T, DecodeError> {
    let malformed = |cause| DecodeError::new::<T>(bytes.len(), cause);
    if raw::is_raw::<T>() {
        let (own, rest) = raw::split_length(bytes).ok_or_else(|| {
            malformed(guard::Stopped::Malformed(postcard::Error::DeserializeUnexpectedEnd))
        })?;
        let value = raw::value_of(own).expect("checked above that the type is raw");
        *bytes = rest;
        return value;
    }
    let (value, rest) = guard::decode(bytes).map_err(malformed)?;
    *bytes = rest;
    Ok(value)
}

/// A buffer that refuses to grow past a limit, and remembers that it did.
struct Limited<'a> {
    out: &'a mut Vec<u8>,
    end_max: usize,
    passed: bool,
}

impl postcard::ser_flavors::Flavor for Limited<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if data.len() > self.end_max - self.out.len() {
            self.passed = true;
        }
        if self.passed {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.out.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
