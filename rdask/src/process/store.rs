//! The values that a process holds: results as they are, fetched and put ones as bytes.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use rdask_core::bulk::Bulk;
use rdask_core::id::{ArrayId, TaskId};
use rdask_core::process::ValueId;
use rdask_core::range::Range;

use crate::function::{EncodedInput, Input, Value};

/// How many values are kept encoded, too. Those that many want are wanted within seconds; more
/// would only be memory.
const ENCODED_MAX: usize = 16;

type Encoding = Arc<OnceLock<Result<Bytes, String>>>;

/// All values of a process. Locks are held for look-ups only: no user code runs under them.
#[derive(Debug, Default)]
pub struct Store {
    values: Mutex<BTreeMap<ValueId, Input>>,
    encoded: Mutex<VecDeque<(ValueId, Encoding)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks leaves things half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Takes results in. What they replace is returned: dropping it is user code.
    pub(super) fn insert_results(&self, results: Vec<(ValueId, Value)>) -> Vec<Input> {
        if results.is_empty() {
            return Vec::new();
        }
        let mut values = lock(&self.values);
        let insert = |(id, value)| values.insert(id, Input::Typed(value));
        results.into_iter().filter_map(insert).collect()
    }

    /// Takes encoded bytes in, unless the value is here already.
    pub(super) fn insert_encoded(&self, id: ValueId, bytes: Bulk) {
        let input = Input::Encoded(Arc::new(EncodedInput::new(bytes)));
        lock(&self.values).entry(id).or_insert(input);
    }

    /// Looks many values up at once.
    pub(super) fn look_up<R>(&self, look: impl FnOnce(&BTreeMap<ValueId, Input>) -> R) -> R {
        look(&lock(&self.values))
    }

    /// Takes all parts of these tasks out. Dropping them is user code: not on a net thread.
    pub(super) fn remove(&self, array: ArrayId, range: Range) -> Vec<Input> {
        let first = |index| ValueId { task: TaskId { array, index }, part: 0 };
        let mut values = lock(&self.values);
        let inside = values.range(first(range.start)..first(range.end));
        let inside: Vec<ValueId> = inside.map(|(id, _)| *id).collect();
        let removed = inside.iter().filter_map(|id| values.remove(id)).collect();
        drop(values);
        if !inside.is_empty() {
            lock(&self.encoded).retain(|(id, _)| inside.binary_search(id).is_err());
        }
        removed
    }

    /// Takes one value out.
    pub(super) fn remove_one(&self, id: ValueId) -> Option<Input> {
        lock(&self.encoded).retain(|(other, _)| *other != id);
        lock(&self.values).remove(&id)
    }

    /// The encoded bytes of a value, `None` if it is not here. Runs the user's `Serialize`, once
    /// for all who ask while it is fresh: call it where that may be.
    ///
    /// # Errors
    /// If the value can't be encoded: the text says why.
    pub fn encoded(&self, id: ValueId) -> Result<Option<Bytes>, String> {
        let value = match lock(&self.values).get(&id) {
            None | Some(Input::Taken) => return Ok(None),
            Some(Input::Encoded(encoded)) => return Ok(Some(encoded.bytes())),
            Some(Input::Typed(value)) => value.clone(),
        };
        let encoding = self.encoding(id);
        let encode = || match catch_unwind(AssertUnwindSafe(|| value.encode())) {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("encoding a {} panicked", value.type_name())),
        };
        encoding.get_or_init(encode).clone().map(Some)
    }

    /// The place for the bytes of a value.
    fn encoding(&self, id: ValueId) -> Encoding {
        let mut encoded = lock(&self.encoded);
        if let Some((_, encoding)) = encoded.iter().find(|(other, _)| *other == id) {
            return Arc::clone(encoding);
        }
        if encoded.len() >= ENCODED_MAX {
            encoded.pop_front();
        }
        let encoding = Encoding::default();
        encoded.push_back((id, Arc::clone(&encoding)));
        encoding
    }

    /// How many values are here.
    pub fn len(&self) -> usize {
        lock(&self.values).len()
    }

    /// Whether none is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
