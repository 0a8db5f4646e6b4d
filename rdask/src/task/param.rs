//! Parameters: by value, by reference, shared; and the functions that have up to six of them.

use std::marker::PhantomData;

use crate::codec::Data;
use crate::function::{Cursor, Failure};
use crate::shared::Shared;

/// A parameter `T`: the task owns its argument.
///
/// Where the process has the value and others use it too, it is copied, through serde if there is
/// no shorter way.
#[derive(Debug)]
pub struct By<T>(PhantomData<fn() -> T>);

/// A parameter `&T`: the task borrows the process's value, without a copy.
#[derive(Debug)]
pub struct Ref<T>(PhantomData<fn() -> T>);

/// A parameter `Shared<T>`: the task shares the process's value, without a copy.
#[derive(Debug)]
pub struct Shr<T>(PhantomData<fn() -> T>);

/// A parameter of a task function: [`By`], [`Ref`] or [`Shr`].
pub trait Param: 'static {
    /// What the parameter takes, refers to or shares.
    type Value: Data;
}

impl<T: Data> Param for By<T> {
    type Value = T;
}

impl<T: Data> Param for Ref<T> {
    type Value = T;
}

impl<T: Data> Param for Shr<T> {
    type Value = T;
}

/// A function that `submit` can run as a task: an item, a method, or a closure that captures
/// nothing.
///
/// `P` is the tuple of its parameters. A parameter is a `T`, `&T` or (with up to three parameters)
/// `Shared<T>`, where `T` is [`Data`]. The parameters of closures need types: `|x: f64, y: f64| x *
/// y`, and those of generic functions need to be named: `square::<f64>`.
///
/// ```
/// use rdask::task::{By, Ref, TaskFn};
///
/// fn scale(v: &Vec<f64>, by: f64) -> Vec<f64> {
///     v.iter().map(|x| x * by).collect()
/// }
///
/// fn task<P: 'static>(_: impl TaskFn<P>) {}
/// task::<(Ref<Vec<f64>>, By<f64>)>(scale);
/// task::<(By<f64>,)>(f64::sqrt);
/// task::<(By<f64>, By<f64>)>(|x: f64, y: f64| x * y);
/// ```
///
/// # What must not be captured
/// A closure that captures a variable with a size does not compile. One that captures a value
/// *without* a size does, and gets another value of that type where it runs. That is wrong for
/// tokens that vouch for a fact of one machine or process, such as "this CPU has AVX2" or "this
/// library is initialised": obtain such a token inside the function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be run as a task with these parameters",
    label = "each parameter must be `T`, `&T` or `Shared<T>` of a serialisable `T`",
    note = "references such as `&str` and `&[T]` have no owner: take `&String` and `&Vec<T>`, or wrap the function in a closure",
    note = "add `#[derive(serde::Serialize, serde::Deserialize)]` to the types of the parameters",
    note = "functions of more than six parameters take a struct or a tuple instead"
)]
pub trait TaskFn<P: 'static>: Copy + Send + Sync + 'static {
    /// What the function returns.
    type Ret;

    #[doc(hidden)]
    fn call(self, task: &mut Cursor<'_>) -> Result<Self::Ret, Box<Failure>>;
}

/// Implements `TaskFn` for one list of kinds.
macro_rules! task_fn {
    ($($kind:ident $T:ident),*) => {
        impl<Function, R, $($T),*> TaskFn<($($kind<$T>,)*)> for Function
        where
            Function: Fn($(param_type!($kind $T)),*) -> R + Copy + Send + Sync + 'static,
            $($T: Data,)*
        {
            type Ret = R;

            #[inline]
            #[allow(non_snake_case, reason = "a type parameter and its argument share a name")]
            fn call(self, task: &mut Cursor<'_>) -> Result<R, Box<Failure>> {
                $(let $T = param_take!($kind task);)*
                task.finish()?;
                Ok(self($(param_pass!($kind $T)),*))
            }
        }
    };
}

macro_rules! param_type {
    (By $T:ident) => { $T };
    (Ref $T:ident) => { &$T };
    (Shr $T:ident) => { Shared<$T> };
}

macro_rules! param_take {
    (By $task:ident) => {
        $task.owned()?
    };
    (Ref $task:ident) => {
        $task.borrowed()?
    };
    (Shr $task:ident) => {
        $task.shared()?
    };
}

macro_rules! param_pass {
    (By $arg:ident) => {
        $arg
    };
    (Ref $arg:ident) => {
        &$arg
    };
    (Shr $arg:ident) => {
        $arg
    };
}

/// Implements `TaskFn` for all lists of kinds: takes the type parameters one by one and branches at
/// each.
macro_rules! with_shared {
    ([] $($done:tt)*) => { task_fn!($($done)*); };
    ([$T:ident $($rest:ident)*]) => {
        with_shared!([$($rest)*] By $T);
        with_shared!([$($rest)*] Ref $T);
        with_shared!([$($rest)*] Shr $T);
    };
    ([$T:ident $($rest:ident)*] $($done:tt)+) => {
        with_shared!([$($rest)*] $($done)+, By $T);
        with_shared!([$($rest)*] $($done)+, Ref $T);
        with_shared!([$($rest)*] $($done)+, Shr $T);
    };
}

/// The same without `Shr`: with it, six parameters alone would take 729 implementations.
macro_rules! without_shared {
    ([] $($done:tt)*) => { task_fn!($($done)*); };
    ([$T:ident $($rest:ident)*]) => {
        without_shared!([$($rest)*] By $T);
        without_shared!([$($rest)*] Ref $T);
    };
    ([$T:ident $($rest:ident)*] $($done:tt)+) => {
        without_shared!([$($rest)*] $($done)+, By $T);
        without_shared!([$($rest)*] $($done)+, Ref $T);
    };
}

with_shared!([]);
with_shared!([A]);
with_shared!([A B]);
with_shared!([A B C]);
without_shared!([A B C D]);
without_shared!([A B C D E]);
without_shared!([A B C D E G]);
