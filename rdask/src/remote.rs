//! Handles of results that are, or will be, somewhere in the cluster.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// What a handle keeps alive: the client's record of one result.
pub(crate) type Handle = Arc<()>;

/// The result of a task, wherever it is: what other Dask calls a future.
///
/// A `Remote<T>` or `&Remote<T>` feeds any parameter of type `T`, `&T` or `Shared<T>`.
#[must_use = "dropping the handle releases the task"]
pub struct Remote<T> {
    pub(crate) handle: Handle,
    _value: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Remote<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

/// The results of a `map`, in order.
#[must_use = "dropping the handle releases the tasks"]
pub struct Remotes<T> {
    remotes: Vec<Remote<T>>,
}

impl<T> fmt::Debug for Remotes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remotes")
            .field("len", &self.remotes.len())
            .finish_non_exhaustive()
    }
}

impl<T> IntoIterator for Remotes<T> {
    type Item = Remote<T>;
    type IntoIter = std::vec::IntoIter<Remote<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.remotes.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Remotes<T> {
    type Item = &'a Remote<T>;
    type IntoIter = std::slice::Iter<'a, Remote<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.remotes.iter()
    }
}
