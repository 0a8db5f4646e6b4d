//! What task functions return: values, errors, and futures of both.

use std::fmt::Display;
use std::future::Future;

use crate::client::parking::park_on;
use crate::codec::Data;
use crate::function::{Failure, FailureKind};

/// The function returns its result.
#[derive(Debug)]
pub enum Plain {}

/// The function returns a future of its result, as an `async fn` does.
#[derive(Debug)]
pub enum Awaited {}

/// What a task function may return: any [`Data`], or a future of it.
///
/// A `Result` is a value like any other; see [`TryOut`] for tasks that fail.
///
/// ```
/// use rdask::task::{Awaited, Out, Plain};
///
/// fn returned<R: Out<K>, K>(_: R) {}
/// returned::<_, Plain>(Some(vec![1.0]));
/// returned::<_, Awaited>(async { 1 });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a task",
    label = "not serialisable",
    note = "add `#[derive(serde::Serialize, serde::Deserialize)]` to the type",
    note = "if it is a `Result` whose error is not serialisable, use `try_submit` / `try_map`: an `Err` then fails the task"
)]
pub trait Out<K> {
    /// The result.
    type Value: Data;

    #[doc(hidden)]
    fn finish(self) -> Self::Value;
}

impl<T: Data> Out<Plain> for T {
    type Value = T;

    #[inline(always)]
    fn finish(self) -> T {
        self
    }
}

impl<F> Out<Awaited> for F
where
    F: Future<Output: Data>,
{
    type Value = F::Output;

    fn finish(self) -> F::Output {
        block_on(self)
    }
}

/// What the functions of `try_submit`, `try_map` and `try_map_with` may return: a `Result` whose
/// error can be displayed, or a future of one. An `Err` fails the task.
///
/// ```
/// use rdask::task::{Plain, TryOut};
///
/// fn returned<R: TryOut<K>, K>(_: R) {}
/// returned::<_, Plain>("1.5".parse::<f64>());
/// returned::<_, Plain>(std::fs::read_to_string("data.csv"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Result` that a task can end with",
    label = "expected `Result<T, E>` with a serialisable `T` and an `E` that implements `Display`",
    note = "functions that return no `Result` go with `submit` / `map` instead"
)]
pub trait TryOut<K> {
    /// The result, if it is `Ok`.
    type Value: Data;

    #[doc(hidden)]
    fn finish(self) -> Result<Self::Value, Box<Failure>>;
}

impl<R: EndsTask> TryOut<Plain> for R {
    type Value = R::Value;

    #[inline]
    fn finish(self) -> Result<R::Value, Box<Failure>> {
        self.end()
    }
}

impl<F> TryOut<Awaited> for F
where
    F: Future<Output: EndsTask>,
{
    type Value = <F::Output as EndsTask>::Value;

    fn finish(self) -> Result<Self::Value, Box<Failure>> {
        block_on(self).end()
    }
}

/// `Result`, with a name. Both implementations of [`TryOut`] are for any type that has something:
/// if one were for `Result` alone, the compiler would complain of every other type that it is not a
/// future.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Result` that a task can end with",
    label = "expected `Result<T, E>` with a serialisable `T` and an `E` that implements `Display`"
)]
pub trait EndsTask {
    type Value: Data;

    fn end(self) -> Result<Self::Value, Box<Failure>>;
}

impl<T: Data, E: Display> EndsTask for Result<T, E> {
    type Value = T;

    #[inline]
    fn end(self) -> Result<T, Box<Failure>> {
        self.map_err(returned)
    }
}

/// The alternate form, since errors with a chain of causes print all of it that way.
#[cold]
fn returned<E: Display>(error: E) -> Box<Failure> {
    let message = format!("{error:#}");
    Box::new(Failure { kind: FailureKind::Returned, message, location: None, backtrace: None })
}

/// What the functions of `split` and `shuffle` return: a `Vec<T>` or `[T; N]` with one output for
/// each part, or a `Result` of one, whose `Err` fails the task.
///
/// ```
/// use rdask::task::Outputs;
///
/// fn returned<R: Outputs>(_: R) {}
/// returned(vec![vec![1.0], vec![2.0]]);
/// returned([1, 2, 3]);
/// returned("1.5".parse::<f64>().map(|x| vec![x, 2.0 * x]));
/// ```
#[diagnostic::on_unimplemented(
    message = "a function that splits cannot return `{Self}`",
    label = "expected a `Vec<T>` of a serialisable `T`: one output for each part"
)]
pub trait Outputs {
    /// One output.
    type Part: Data;

    #[doc(hidden)]
    fn finish(self) -> Result<Vec<Self::Part>, Box<Failure>>;
}

impl<T: Data> Outputs for Vec<T> {
    type Part = T;

    fn finish(self) -> Result<Self, Box<Failure>> {
        Ok(self)
    }
}

impl<T: Data, const N: usize> Outputs for [T; N] {
    type Part = T;

    fn finish(self) -> Result<Vec<T>, Box<Failure>> {
        Ok(self.into())
    }
}

impl<O: Outputs, E: Display> Outputs for Result<O, E> {
    type Part = O::Part;

    fn finish(self) -> Result<Vec<O::Part>, Box<Failure>> {
        self.map_err(returned)?.finish()
    }
}

/// How a call treats what its function returned: as [`Out`] or as [`TryOut`].
pub(super) trait Finish<R>: 'static {
    type Value: Data;

    fn finish(returned: R) -> Result<Self::Value, Box<Failure>>;
}

/// Takes what was returned as the value.
#[derive(Debug)]
pub(super) struct AsValue<K>(K);

/// Takes an `Err` as a failure.
#[derive(Debug)]
pub(super) struct AsResult<K>(K);

impl<K: 'static, R: Out<K>> Finish<R> for AsValue<K> {
    type Value = R::Value;

    #[inline(always)]
    fn finish(returned: R) -> Result<R::Value, Box<Failure>> {
        Ok(returned.finish())
    }
}

impl<K: 'static, R: TryOut<K>> Finish<R> for AsResult<K> {
    type Value = R::Value;

    #[inline(always)]
    fn finish(returned: R) -> Result<R::Value, Box<Failure>> {
        returned.finish()
    }
}

/// Runs a future on this slot: in the runtime that the slot has entered, if any, else by parking
/// the thread.
fn block_on<F: Future>(future: F) -> F::Output {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.block_on(future),
        Err(_) => park_on(future),
    }
}
