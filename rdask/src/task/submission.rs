//! From a typed call to what a client sends. The client's methods are thin around these functions.
//!
//! Each checks that the function is in the program's table and encodes the values. Values that do
//! not encode are reported beside the others: such a task fails, the rest of its `map` does not.

use std::marker::PhantomData;

use super::arg::{Arg, ArgSink, Args, Dep};
use super::out::{AsResult, AsValue, Finish, Out, Outputs, TryOut};
use super::param::{Param, TaskFn};
use crate::codec::{self, Data, EncodeError};
use crate::function::{
    Call, Cursor, Entry, Failure, ParamSource, Parts, Same, UnknownFunction, Value, register,
};

/// One task, to be submitted.
#[derive(Debug)]
pub struct OneTask {
    /// What it runs.
    pub function: &'static Entry,
    /// The short arguments, packed.
    pub inline: Vec<u8>,
    /// Where each argument is, in the order of the parameters.
    pub params: Vec<ParamSource>,
    /// The other arguments, in the order of the parameters.
    pub deps: Vec<Dep>,
    /// Why the task fails before it starts, if an argument could not be encoded.
    pub error: Option<EncodeError>,
}

/// Tasks of one function, one per item, to be submitted.
#[derive(Debug)]
pub struct ManyTasks {
    /// What they run.
    pub function: &'static Entry,
    /// The short items, packed: item `i` ends at `ends[i]` and starts where the one before it ends.
    pub inline: Vec<u8>,
    /// As many as there are items. Items that are not inline take no bytes.
    pub ends: Vec<u64>,
    /// The items that are not inline, by index, ascending.
    pub deps: Vec<(u64, Dep)>,
    /// The items that could not be encoded, by index, ascending.
    pub errors: Vec<(u64, EncodeError)>,
    /// The second argument of all tasks, if they have one.
    pub shared: Option<Dep>,
}

/// One task: `function(args..)`.
///
/// # Errors
/// If the function is not in the program's table.
pub fn submit<F, P, X, K>(function: F, args: X) -> Result<OneTask, UnknownFunction>
where
    F: TaskFn<P>,
    X: Args<P>,
    F::Ret: Out<K>,
    P: 'static,
    K: 'static,
{
    one::<Submit<F, P, AsValue<K>>, P, X>(function, args)
}

/// One task: `function(args..)?`.
///
/// # Errors
/// If the function is not in the program's table.
pub fn try_submit<F, P, X, K>(function: F, args: X) -> Result<OneTask, UnknownFunction>
where
    F: TaskFn<P>,
    X: Args<P>,
    F::Ret: TryOut<K>,
    P: 'static,
    K: 'static,
{
    one::<Submit<F, P, AsResult<K>>, P, X>(function, args)
}

/// A task per item: `function(item)`.
///
/// # Errors
/// If the function is not in the program's table.
pub fn map<F, A, R, K, X, I>(function: F, items: I) -> Result<ManyTasks, UnknownFunction>
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    A: Data,
    R: Out<K> + 'static,
    K: 'static,
    X: Arg<A>,
    I: IntoIterator<Item = X>,
{
    many::<Map<F, A, R, AsValue<K>>, A, X>(function, items)
}

/// A task per item: `function(item)?`.
///
/// # Errors
/// If the function is not in the program's table.
pub fn try_map<F, A, R, K, X, I>(function: F, items: I) -> Result<ManyTasks, UnknownFunction>
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    A: Data,
    R: TryOut<K> + 'static,
    K: 'static,
    X: Arg<A>,
    I: IntoIterator<Item = X>,
{
    many::<Map<F, A, R, AsResult<K>>, A, X>(function, items)
}

/// A task per item: `function(item, &shared)`.
///
/// # Errors
/// If the function is not in the program's table.
pub fn map_with<F, A, C, R, K, X, Y, I>(
    function: F,
    items: I,
    shared: Y,
) -> Result<ManyTasks, UnknownFunction>
where
    F: Fn(A, &C) -> R + Copy + Send + Sync + 'static,
    A: Data,
    C: Data,
    R: Out<K> + 'static,
    K: 'static,
    X: Arg<A>,
    Y: Arg<C>,
    I: IntoIterator<Item = X>,
{
    let mut tasks = many::<MapWith<F, A, C, R, AsValue<K>>, A, X>(function, items)?;
    share(&mut tasks, shared);
    Ok(tasks)
}

/// A task per item: `function(item, &shared)?`.
///
/// # Errors
/// If the function is not in the program's table.
pub fn try_map_with<F, A, C, R, K, X, Y, I>(
    function: F,
    items: I,
    shared: Y,
) -> Result<ManyTasks, UnknownFunction>
where
    F: Fn(A, &C) -> R + Copy + Send + Sync + 'static,
    A: Data,
    C: Data,
    R: TryOut<K> + 'static,
    K: 'static,
    X: Arg<A>,
    Y: Arg<C>,
    I: IntoIterator<Item = X>,
{
    let mut tasks = many::<MapWith<F, A, C, R, AsResult<K>>, A, X>(function, items)?;
    share(&mut tasks, shared);
    Ok(tasks)
}

/// A task per item, with several outputs: `function(item)`.
///
/// # Errors
/// If the function is not in the program's table.
pub fn split<F, P, X, I>(function: F, items: I) -> Result<ManyTasks, UnknownFunction>
where
    F: TaskFn<(P,)>,
    F::Ret: Outputs,
    P: Param,
    X: Arg<P::Value>,
    I: IntoIterator<Item = X>,
{
    many::<Split<F, P>, P::Value, X>(function, items)
}

/// The function whose task takes many values: `function(values)`.
///
/// # Errors
/// If it is not in the program's table.
pub fn join<F, T, R, K>(function: F) -> Result<&'static Entry, UnknownFunction>
where
    F: Fn(Vec<T>) -> R + Copy + Send + Sync + 'static,
    T: Data,
    R: Out<K> + 'static,
    K: 'static,
{
    register::<Join<F, T, R, AsValue<K>>>(function)
}

/// The function whose task results in its argument.
///
/// # Errors
/// If it is not in the program's table.
pub fn pass<T: Data>() -> Result<&'static Entry, UnknownFunction> {
    register::<PassOn<T>>(NoFunction)
}

/// The leaves of a tree, and the function that each of its nodes folds its children with, in order:
/// a node is a task with as many arguments as it has children. One item is its own tree; without
/// items there is none.
///
/// # Errors
/// If the function is not in the program's table.
pub fn tree<F, A, X, I>(items: I, function: F) -> Result<ManyTasks, UnknownFunction>
where
    F: Fn(A, A) -> A + Copy + Send + Sync + 'static,
    A: Data,
    X: Arg<A>,
    I: IntoIterator<Item = X>,
{
    many::<Fold<F, A>, A, X>(function, items)
}

/// The function whose task makes one vector of its arguments.
///
/// # Errors
/// If it is not in the program's table.
pub(super) fn collect<T: Data>() -> Result<&'static Entry, UnknownFunction> {
    register::<CollectAll<T>>(NoFunction)
}

fn one<C, P, X>(function: C::Function, args: X) -> Result<OneTask, UnknownFunction>
where
    C: Call,
    X: Args<P>,
{
    let function = register::<C>(function)?;
    let mut sink = ArgSink::default();
    args.feed(&mut sink);
    let ArgSink { inline, params, deps, error, encoded, .. } = sink;
    codec::count_encodings(encoded);
    Ok(OneTask { function, inline, params, deps, error })
}

fn many<C, A, X>(
    function: C::Function,
    items: impl IntoIterator<Item = X>,
) -> Result<ManyTasks, UnknownFunction>
where
    C: Call,
    X: Arg<A>,
{
    let function = register::<C>(function)?;
    let items = items.into_iter();
    let mut sink = ArgSink::default();
    let mut ends = Vec::with_capacity(items.size_hint().0);
    let mut deps = Vec::new();
    let mut errors = Vec::new();
    for (item, index) in items.zip(0u64..) {
        item.feed(&mut sink);
        sink.params.clear();
        deps.extend(sink.deps.drain(..).map(|dep| (index, dep)));
        errors.extend(sink.error.take().map(|error| (index, error)));
        ends.push(sink.inline.len() as u64);
    }
    codec::count_encodings(sink.encoded);
    Ok(ManyTasks { function, inline: sink.inline, ends, deps, errors, shared: None })
}

fn share<C: Data>(tasks: &mut ManyTasks, shared: impl Arg<C>) {
    let mut sink = ArgSink::sharing();
    shared.feed(&mut sink);
    tasks.shared = sink.deps.pop();
}

/// Type parameters of a call that is never constructed.
type Names<T> = PhantomData<fn() -> T>;

/// `function(args..)`.
struct Submit<F, P, M>(Names<(F, P, M)>);

impl<F, P, M> Call for Submit<F, P, M>
where
    F: TaskFn<P>,
    M: Finish<F::Ret>,
    P: 'static,
{
    type Function = F;
    type Value = M::Value;

    #[inline(always)]
    fn call(function: F, task: &mut Cursor<'_>) -> Result<M::Value, Box<Failure>> {
        M::finish(function.call(task)?)
    }
}

/// `function(item)`.
struct Map<F, A, R, M>(Names<(F, A, R, M)>);

impl<F, A, R, M> Call for Map<F, A, R, M>
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    A: Data,
    R: 'static,
    M: Finish<R>,
{
    type Function = F;
    type Value = M::Value;

    #[inline(always)]
    fn call(function: F, task: &mut Cursor<'_>) -> Result<M::Value, Box<Failure>> {
        let item = task.owned()?;
        task.finish()?;
        M::finish(function(item))
    }
}

/// `function(item, &shared)`.
struct MapWith<F, A, C, R, M>(Names<(F, A, C, R, M)>);

impl<F, A, C, R, M> Call for MapWith<F, A, C, R, M>
where
    F: Fn(A, &C) -> R + Copy + Send + Sync + 'static,
    A: Data,
    C: Data,
    R: 'static,
    M: Finish<R>,
{
    type Function = F;
    type Value = M::Value;

    #[inline(always)]
    fn call(function: F, task: &mut Cursor<'_>) -> Result<M::Value, Box<Failure>> {
        let item = task.owned()?;
        let shared = task.borrowed()?;
        task.finish()?;
        M::finish(function(item, &shared))
    }
}

/// `function(item)`, which makes several outputs.
struct Split<F, P>(Names<(F, P)>);

impl<F, P> Call for Split<F, P>
where
    F: TaskFn<(P,)>,
    F::Ret: Outputs,
    P: 'static,
{
    type Function = F;
    type Value = Parts;

    fn call(function: F, task: &mut Cursor<'_>) -> Result<Parts, Box<Failure>> {
        let outputs = function.call(task)?.finish()?;
        Ok(Parts(outputs.into_iter().map(Value::new).collect()))
    }
}

/// `function(vec![first, second, ..])`.
struct Join<F, T, R, M>(Names<(F, T, R, M)>);

impl<F, T, R, M> Call for Join<F, T, R, M>
where
    F: Fn(Vec<T>) -> R + Copy + Send + Sync + 'static,
    T: Data,
    R: 'static,
    M: Finish<R>,
{
    type Function = F;
    type Value = M::Value;

    fn call(function: F, task: &mut Cursor<'_>) -> Result<M::Value, Box<Failure>> {
        M::finish(function(take_all(task)?))
    }
}

/// Its argument, as it is.
struct PassOn<T>(Names<T>);

impl<T: Data> Call for PassOn<T> {
    type Function = NoFunction;
    type Value = Same<T>;

    fn call(_: NoFunction, task: &mut Cursor<'_>) -> Result<Same<T>, Box<Failure>> {
        let value = task.shared::<T>()?;
        task.finish()?;
        Ok(Same(value.into()))
    }
}

/// `function(function(first, second), third)` and so on.
struct Fold<F, A>(Names<(F, A)>);

impl<F, A> Call for Fold<F, A>
where
    F: Fn(A, A) -> A + Copy + Send + Sync + 'static,
    A: Data,
{
    type Function = F;
    type Value = A;

    #[inline(always)]
    fn call(function: F, task: &mut Cursor<'_>) -> Result<A, Box<Failure>> {
        let mut folded = task.owned()?;
        while task.remaining() > 0 {
            folded = function(folded, task.owned()?);
        }
        task.finish()?;
        Ok(folded)
    }
}

/// `vec![first, second, ..]`.
struct CollectAll<T>(Names<T>);

/// Stands for a function where none is needed.
#[derive(Clone, Copy)]
struct NoFunction;

impl<T: Data> Call for CollectAll<T> {
    type Function = NoFunction;
    type Value = Vec<T>;

    fn call(_: NoFunction, task: &mut Cursor<'_>) -> Result<Vec<T>, Box<Failure>> {
        take_all(task)
    }
}

/// All arguments.
fn take_all<T: Data>(task: &mut Cursor<'_>) -> Result<Vec<T>, Box<Failure>> {
    let mut all = Vec::with_capacity(task.remaining());
    while task.remaining() > 0 {
        all.push(task.owned()?);
    }
    task.finish()?;
    Ok(all)
}
