//! `Shared<T>`: a parameter that owns its share of a value, for functions that outlive a borrow.

use std::ops::Deref;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A value that a task shares with others in its process: no copy is made.
///
/// A task function takes `&T` where it can. An `async fn` cannot, since its future outlives the
/// call; it takes `Shared<T>`, which is fed by the same arguments and behaves like `&T` and like an
/// [`Arc`].
///
/// ```
/// use rdask::Shared;
///
/// async fn mean(table: Shared<Vec<f64>>) -> f64 {
///     table.iter().sum::<f64>() / table.len() as f64
/// }
/// # let _ = mean;
///
/// let table = Shared::new(vec![1.0, 2.0]);
/// assert_eq!(table.clone().len(), 2);
/// ```
///
/// It serialises as `T`. It does not deserialise: it is a way to *receive* a `T`, not a type of
/// data.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// Shares a value.
    ///
    /// ```
    /// assert_eq!(*rdask::Shared::new(3), 3);
    /// ```
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// The value itself, if nobody else shares it.
    ///
    /// # Errors
    /// Gives the share back if there are others.
    ///
    /// ```
    /// # use rdask::Shared;
    /// let one = Shared::new(String::from("text"));
    /// let two = one.clone();
    /// let one = one.try_into_inner().expect_err("two has a share");
    /// drop(two);
    /// assert_eq!(one.try_into_inner().expect("the last share"), "text");
    /// ```
    pub fn try_into_inner(self) -> Result<T, Self> {
        Arc::try_unwrap(self.0).map_err(Self)
    }
}

impl<T> From<Arc<T>> for Shared<T> {
    fn from(value: Arc<T>) -> Self {
        Self(value)
    }
}

impl<T> From<Shared<T>> for Arc<T> {
    fn from(value: Shared<T>) -> Self {
        value.0
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> AsRef<T> for Shared<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}
