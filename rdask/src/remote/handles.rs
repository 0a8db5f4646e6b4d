//! What `gather`, `wait` and their like take: handles in whatever they are kept.

use std::sync::Arc;

use rdask_core::range::Range;

use super::{Remote, Remotes};
use crate::client::session::{Session, Tasks};

/// Handles of tasks that result in a `T`: [`Remotes`], or a vector, slice or array of [`Remote`]s,
/// by value or by reference. They must all be of one client: whoever takes handles of several panics.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// # let client = rdask::Client::local()?;
/// let (a, b) = (client.submit(f64::sqrt, (4.0,)), client.submit(f64::sqrt, (9.0,)));
/// assert_eq!(client.gather([&a, &b])?, [2.0, 3.0]);
/// assert_eq!(client.gather(vec![a, b])?, [2.0, 3.0]);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` are no handles of tasks",
    label = "expected `Remotes<_>`, or a vector, slice or array of `Remote<_>`, or a reference to one"
)]
pub trait Handles<T> {
    /// Which tasks, in order.
    #[doc(hidden)]
    fn list(&self) -> Listed;
}

/// Tasks of handles, and whose they are.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Listed {
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) tasks: Tasks,
}

impl Listed {
    fn of<'a, T: 'a>(remotes: impl IntoIterator<Item = &'a Remote<T>>) -> Self {
        let mut listed = Self::default();
        for remote in remotes {
            listed.push(remote);
        }
        listed
    }

    fn push<T>(&mut self, remote: &Remote<T>) {
        match &self.session {
            Some(session) => assert!(
                Arc::ptr_eq(session, remote.session()),
                "these handles belong to different clients"
            ),
            None => self.session = Some(Arc::clone(remote.session())),
        }
        let task = remote.id();
        match self.tasks.last_mut() {
            Some((array, range)) if *array == task.array && range.end == task.index => {
                range.end += 1;
            }
            _ => self.tasks.push((task.array, Range::one(task.index))),
        }
    }
}

impl<T> Handles<T> for Remotes<T> {
    fn list(&self) -> Listed {
        Listed { session: Some(Arc::clone(self.session())), tasks: self.tasks() }
    }
}

impl<T> Handles<T> for Remote<T> {
    fn list(&self) -> Listed {
        Listed::of([self])
    }
}

impl<T> Handles<T> for [Remote<T>] {
    fn list(&self) -> Listed {
        Listed::of(self)
    }
}

impl<T> Handles<T> for Vec<Remote<T>> {
    fn list(&self) -> Listed {
        Listed::of(self)
    }
}

impl<T, const N: usize> Handles<T> for [Remote<T>; N] {
    fn list(&self) -> Listed {
        Listed::of(self)
    }
}

impl<T> Handles<T> for [&Remote<T>] {
    fn list(&self) -> Listed {
        Listed::of(self.iter().copied())
    }
}

impl<T> Handles<T> for Vec<&Remote<T>> {
    fn list(&self) -> Listed {
        Listed::of(self.iter().copied())
    }
}

impl<T, const N: usize> Handles<T> for [&Remote<T>; N] {
    fn list(&self) -> Listed {
        Listed::of(self.iter().copied())
    }
}

impl<T, H: Handles<T> + ?Sized> Handles<T> for &H {
    fn list(&self) -> Listed {
        (**self).list()
    }
}
