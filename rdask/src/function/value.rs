//! Values while they are in this process: typed where they were made here, bytes where they came
//! from elsewhere.

use std::any::{Any, type_name};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use rdask_core::bulk::Bulk;

use crate::codec::{self, Data, DecodeError, EncodeError};

type AnyArc = Arc<dyn Any + Send + Sync>;

/// A value of a type that only those who made it and those who use it know. Cloning shares it.
///
/// It is encoded when someone in another process asks, not before.
///
/// Dropping the last share drops the value. That is user code; a panic in it is caught and logged,
/// since nobody is left whom it could concern.
#[derive(Clone)]
pub struct Value {
    /// `None` only while it is dropped.
    any: Option<AnyArc>,
    kind: &'static Kind,
}

/// What is known of the type where it is not known.
struct Kind {
    type_name: fn() -> &'static str,
    encode: fn(&AnyArc) -> Result<Bytes, EncodeError>,
    size_hint: fn(&AnyArc) -> usize,
}

fn kind<T: Data>() -> &'static Kind {
    const { &Kind { type_name: type_name::<T>, encode: encode_any::<T>, size_hint: size_hint_any::<T> } }
}

impl Value {
    /// Takes a value in.
    pub fn new<T: Data>(value: T) -> Self {
        Self::from(Arc::new(value))
    }

    fn any(&self) -> &AnyArc {
        self.any.as_ref().expect("a value is present until it is dropped")
    }

    /// The value, if it is a `T`.
    pub fn downcast_ref<T: Data>(&self) -> Option<&T> {
        (**self.any()).downcast_ref()
    }

    /// A share of the value, if it is a `T`.
    pub fn downcast<T: Data>(&self) -> Option<Arc<T>> {
        Arc::clone(self.any()).downcast().ok()
    }

    /// The value itself, if it is a `T` and this is its last share.
    ///
    /// # Errors
    /// Gives the value back otherwise.
    pub fn try_into_inner<T: Data>(mut self) -> Result<T, Self> {
        let any = self.any.take().expect("a value is present until it is dropped");
        match any.downcast::<T>().map(Arc::try_unwrap) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(shared)) => Err(Self { any: Some(shared), kind: self.kind }),
            Err(other) => Err(Self { any: Some(other), kind: self.kind }),
        }
    }

    /// The value's bytes, in the form that stands alone. Vectors of numbers are not copied.
    ///
    /// Runs the user's `Serialize`.
    ///
    /// # Errors
    /// If the type cannot be encoded.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        (self.kind.encode)(self.any())
    }

    /// About how long [`encode`](Self::encode) would be, in bytes. Cheap, but it runs the user's
    /// `Serialize`.
    pub fn size_hint(&self) -> usize {
        (self.kind.size_hint)(self.any())
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> &'static str {
        (self.kind.type_name)()
    }
}

impl<T: Data> From<Arc<T>> for Value {
    fn from(value: Arc<T>) -> Self {
        Self { any: Some(value), kind: kind::<T>() }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        let any = self.any.take();
        if catch_unwind(AssertUnwindSafe(|| drop(any))).is_err() {
            tracing::warn!(type_name = self.type_name(), "dropping a value panicked");
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Value").field(&self.type_name()).finish()
    }
}

fn downcast_kind<T: Data>(any: &AnyArc) -> Arc<T> {
    Arc::clone(any).downcast().expect("a value's kind is that of its type")
}

fn encode_any<T: Data>(any: &AnyArc) -> Result<Bytes, EncodeError> {
    let value = downcast_kind::<T>(any);
    if codec::raw_bytes_of(&*value).is_some() {
        codec::count_encodings(1);
        return Ok(Bytes::from_owner(RawBytes(value)));
    }
    let mut bytes = Vec::new();
    codec::encode(&*value, &mut bytes)?;
    Ok(bytes.into())
}

fn size_hint_any<T: Data>(any: &AnyArc) -> usize {
    codec::size_hint(&*downcast_kind::<T>(any))
}

/// Keeps a vector of numbers alive while its bytes are sent.
struct RawBytes<T>(Arc<T>);

impl<T: Data> AsRef<[u8]> for RawBytes<T> {
    fn as_ref(&self) -> &[u8] {
        codec::raw_bytes_of(&*self.0).unwrap_or_default()
    }
}

/// A value that came as bytes. It is decoded by the first task that needs it and then shared by
/// all. A vector of numbers takes the memory of its bytes over, and they are its bytes from then on.
pub struct EncodedInput {
    /// Held to look, and to swap the bytes for those of the vector.
    bulk: Mutex<Bulk>,
    decoded: OnceLock<Result<Value, DecodeError>>,
}

impl EncodedInput {
    /// Takes bytes in the form that stands alone.
    pub fn new(bytes: impl Into<Bulk>) -> Self {
        Self { bulk: Mutex::new(bytes.into()), decoded: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Bulk> {
        // Nothing that is done under it leaves things half done.
        self.bulk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> Bytes {
        self.lock().bytes().clone()
    }

    /// The decoded value, if a task has needed it.
    pub fn decoded(&self) -> Option<&Value> {
        self.decoded.get()?.as_ref().ok()
    }

    /// Decodes the bytes, unless that has been done. Concurrent callers wait for the first.
    ///
    /// Runs the user's `Deserialize`. If that panics, the next caller tries again.
    ///
    /// # Errors
    /// If the bytes are no `T`.
    pub fn decode<T: Data>(&self) -> Result<&Value, DecodeError> {
        let decode = || match self.take_over::<T>() {
            Some(value) => Ok(value),
            None => codec::decode::<T>(&self.bytes()).map(Value::new),
        };
        self.decoded.get_or_init(decode).as_ref().map_err(Clone::clone)
    }

    /// The value in the memory of its bytes, if that can be.
    fn take_over<T: Data>(&self) -> Option<Value> {
        let mut bulk = self.lock();
        match codec::take_over::<T>(std::mem::take(&mut *bulk)) {
            Ok(value) => {
                let value = Arc::new(value);
                *bulk = Bytes::from_owner(RawBytes(Arc::clone(&value))).into();
                Some(Value::from(value))
            }
            Err(back) => {
                *bulk = back;
                None
            }
        }
    }

    /// The value itself, if it is decoded and has no other share, else a fresh one from the bytes.
    pub(super) fn into_owned<T: Data>(self) -> Result<T, DecodeError> {
        let bulk = self.bulk.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(Ok(value)) = self.decoded.into_inner() else {
            return codec::decode_bulk(bulk);
        };
        if codec::is_raw::<T>() {
            // They may be a share of the value.
            drop(bulk);
            let copy = |value: Value| value.downcast_ref().and_then(codec::duplicate);
            let value = value.try_into_inner().or_else(|shared| copy(shared).ok_or(()));
            return Ok(value.expect("a vector of numbers can be copied"));
        }
        value.try_into_inner().or_else(|_| codec::decode(bulk.bytes()))
    }
}

impl fmt::Debug for EncodedInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedInput")
            .field("length", &self.bytes().len())
            .field("decoded", &self.decoded.get().is_some())
            .finish()
    }
}

/// What one parameter of one task is fed from, if not from the task's own inline bytes.
#[derive(Debug, Clone)]
pub enum Input {
    /// A value that this process has.
    Typed(Value),
    /// A value that came from elsewhere.
    Encoded(Arc<EncodedInput>),
    /// A task took it.
    Taken,
}
