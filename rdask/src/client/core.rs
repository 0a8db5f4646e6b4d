//! What the blocking and the async client share: everything that doesn't wait.

use std::sync::Arc;

use rdask_core::message::TaskOptions;

use super::session::{Making, Session};
use crate::assert_captures_nothing;
use crate::codec::Data;
use crate::function::Value;
use crate::options::Options;
use crate::remote::{Handles, Parts, Remote, Remotes};
use crate::task::submission;
use crate::task::{Arg, Args, Out, Outputs, Param, TaskFn, TryOut};

/// How many children a node of [`Core::tree`] folds. More make the tree flatter and its nodes
/// slower to start, since a node needs all its children; Dask's folds use 8, too.
const TREE_FAN_IN: u32 = 8;

/// What can be done with a [`Client`](crate::Client), a [`aio::Client`](crate::aio::Client) and
/// [`Options`] alike: submit, and whatever else doesn't wait.
///
/// Nothing here waits for the network. What goes wrong with a submission, such as an argument that
/// doesn't encode, is the error of its task.
#[derive(Clone, Debug)]
pub struct Core {
    pub(crate) session: Arc<Session>,
    pub(crate) options: Arc<TaskOptions>,
}

impl Core {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session, options: Arc::new(TaskOptions::default()) }
    }

    /// Options for tasks: set some, then submit or map with what you get.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let careful = client.options().retries(2).priority(3);
    /// let root = careful.submit(f64::sqrt, (16.0,));
    /// ```
    pub fn options(&self) -> Options {
        Options::new(self.clone())
    }

    /// Runs `function(args..)` as a task.
    ///
    /// An argument is a value, or a [`Remote`] whose result is passed. `args` is a tuple: `(x,)`
    /// for one. The function is named, not sent, so it must not capture variables; closures need
    /// the types of their parameters. It may be an `async fn`.
    ///
    /// # Panics
    /// If a handle among the arguments is of another client.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// fn total(prices: &Vec<f64>, tax: f64) -> f64 {
    ///     prices.iter().sum::<f64>() * (1.0 + tax)
    /// }
    ///
    /// let client = rdask::Client::local()?;
    /// let prices = client.submit(|n: usize| vec![1.0; n], (100,));
    /// assert_eq!(client.submit(total, (&prices, 0.5)).result()?, 150.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn submit<F, P, X, K>(&self, function: F, args: X) -> Remote<<F::Ret as Out<K>>::Value>
    where
        F: TaskFn<P>,
        X: Args<P>,
        F::Ret: Out<K>,
        P: 'static,
        K: 'static,
    {
        assert_captures_nothing!(F);
        let _making = Making::begin();
        let task = submission::submit(function, args);
        self.remote(self.session.send_one(task, &self.options))
    }

    /// Like [`submit`](Self::submit), for functions that return a `Result`: an `Err` fails the
    /// task, and what depends on it.
    ///
    /// # Panics
    /// If a handle among the arguments is of another client.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// let text = client.try_submit(std::fs::read_to_string::<String>, ("no such file".to_owned(),));
    /// let error = text.result().unwrap_err();
    /// assert!(error.to_string().contains("No such file"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_submit<F, P, X, K>(
        &self,
        function: F,
        args: X,
    ) -> Remote<<F::Ret as TryOut<K>>::Value>
    where
        F: TaskFn<P>,
        X: Args<P>,
        F::Ret: TryOut<K>,
        P: 'static,
        K: 'static,
    {
        assert_captures_nothing!(F);
        let _making = Making::begin();
        let task = submission::try_submit(function, args);
        self.remote(self.session.send_one(task, &self.options))
    }

    /// Runs `function(item)` as a task for each item.
    ///
    /// Items are values, or handles whose results are passed: `Remotes` or `Vec<Remote>`, by value
    /// or by reference. The types of a closure's parameters are inferred.
    ///
    /// # Panics
    /// If a handle among the items is of another client.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// let squares = client.map(|x| x * x, [1.0, 2.0, 3.0]);
    /// let halves = client.map(|x| x / 2.0, &squares);
    /// assert_eq!(client.gather(halves)?, [0.5, 2.0, 4.5]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<F, A, R, K, X, I>(&self, function: F, items: I) -> Remotes<R::Value>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Data,
        R: Out<K> + 'static,
        K: 'static,
        X: Arg<A>,
        I: IntoIterator<Item = X>,
    {
        assert_captures_nothing!(F);
        let _making = Making::begin();
        let tasks = submission::map(function, items);
        self.remotes(self.session.send_many(tasks, &self.options))
    }

    /// Like [`map`](Self::map), for functions that return a `Result`: an `Err` fails its task, and
    /// no other.
    ///
    /// # Panics
    /// If a handle among the items is of another client.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// let numbers = client.try_map(|s: String| s.parse::<f64>(), ["1.5", "one"]);
    /// assert_eq!(numbers[0].result()?, 1.5);
    /// assert!(numbers[1].result().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_map<F, A, R, K, X, I>(&self, function: F, items: I) -> Remotes<R::Value>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Data,
        R: TryOut<K> + 'static,
        K: 'static,
        X: Arg<A>,
        I: IntoIterator<Item = X>,
    {
        assert_captures_nothing!(F);
        let _making = Making::begin();
        let tasks = submission::try_map(function, items);
        self.remotes(self.session.send_many(tasks, &self.options))
    }

    /// Runs `function(item, &shared)` as a task for each item. What a closure would capture goes
    /// into `shared`: it travels once per process, not once per task.
    ///
    /// # Panics
    /// If a handle among the items, or the shared value, is of another client.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// let (slope, offset) = (3.0, 0.5);
    /// let line = client.map_with(|x, (k, b)| k * x + b, [1.0, 2.0], (slope, offset));
    /// assert_eq!(client.gather(line)?, [3.5, 6.5]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_with<F, A, C, R, K, X, Y, I>(
        &self,
        function: F,
        items: I,
        shared: Y,
    ) -> Remotes<R::Value>
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
        assert_captures_nothing!(F);
        let _making = Making::begin();
        let tasks = submission::map_with(function, items, shared);
        self.remotes(self.session.send_many(tasks, &self.options))
    }

    /// Like [`map_with`](Self::map_with), for functions that return a `Result`.
    ///
    /// # Panics
    /// If a handle among the items, or the shared value, is of another client.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// let table = client.scatter(vec![10.0, 20.0]);
    /// let look = |i: usize, table: &Vec<f64>| table.get(i).copied().ok_or("no such row");
    /// let rows = client.try_map_with(look, [1, 7], &table);
    /// assert_eq!(rows[0].result()?, 20.0);
    /// assert_eq!(rows[1].result().unwrap_err().task().unwrap().message(), "no such row");
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_map_with<F, A, C, R, K, X, Y, I>(
        &self,
        function: F,
        items: I,
        shared: Y,
    ) -> Remotes<R::Value>
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
        assert_captures_nothing!(F);
        let _making = Making::begin();
        let tasks = submission::try_map_with(function, items, shared);
        self.remotes(self.session.send_many(tasks, &self.options))
    }

    /// Folds many results to one: pairs of neighbours, then neighbours of those, and so on, in
    /// parallel and in order. `function` must be associative; it need not be commutative. Without
    /// items the task fails.
    ///
    /// # Panics
    /// If a handle among the items is of another client.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// let words = client.map(|n: u32| format!("{n} "), 0..5);
    /// assert_eq!(client.tree(words, |a, b| a + &b).result()?, "0 1 2 3 4 ");
    /// # Ok(())
    /// # }
    /// ```
    pub fn tree<F, A, X, I>(&self, items: I, function: F) -> Remote<A>
    where
        F: Fn(A, A) -> A + Copy + Send + Sync + 'static,
        A: Data,
        X: Arg<A>,
        I: IntoIterator<Item = X>,
    {
        assert_captures_nothing!(F);
        let _making = Making::begin();
        let tasks = submission::tree(items, function);
        let root = self.session.send_tree(tasks, &self.options, TREE_FAN_IN);
        self.remote(root)
    }

    /// Gives a value to the cluster, once, for many tasks to use.
    ///
    /// Arguments of more than 64 KiB are scattered anyway; scatter what several calls share.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// let table = client.scatter(vec![10.0, 20.0, 30.0]);
    /// let rows = client.map_with(|i: usize, table: &Vec<f64>| table[i], [2, 0], &table);
    /// assert_eq!(client.gather(rows)?, [30.0, 10.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn scatter<T: Data>(&self, value: T) -> Remote<T> {
        let tasks = self.scatter_all([value]);
        tasks.into_iter().next().expect("one value is one task")
    }

    /// Gives values to the cluster, spread over its workers.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// let parts = client.scatter_all([vec![1.0, 2.0], vec![3.0]]);
    /// let sums = client.map(|part: Vec<f64>| part.iter().sum::<f64>(), &parts);
    /// assert_eq!(client.gather(sums)?, [3.0, 3.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn scatter_all<T: Data>(&self, values: impl IntoIterator<Item = T>) -> Remotes<T> {
        let values = values.into_iter().map(Value::new);
        self.remotes(self.session.send_values(values, &self.options))
    }

    /// Tasks need not run any more. Those that have not ended fail as cancelled, and with them
    /// what depends on them; others go on.
    ///
    /// # Panics
    /// If the handles are of different clients.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let roots = client.map(f64::sqrt, (0..1_000_000).map(f64::from));
    /// client.cancel(&roots);
    /// ```
    pub fn cancel<T>(&self, remotes: impl Handles<T>) {
        let listed = remotes.list();
        if let Some(session) = listed.session {
            session.cancel(&listed.tasks);
        }
    }

    /// A task per item, each with `parts` outputs. Who takes one of them moves only that one: what
    /// [`map`](Self::map) is to results, this is to pieces of results.
    ///
    /// The function has one parameter and returns a `Vec` (or array) with exactly `parts` values,
    /// or a `Result` of one. If it returns more or fewer, the task fails.
    ///
    /// # Panics
    /// If `parts` is 0 or above 65,535, or if a handle among the items is of another client.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// let digits = client.split(|n: u32| [n / 10, n % 10], [42, 7, 99], 2);
    /// assert_eq!(client.gather(digits.output(1))?, [2, 7, 9]);
    /// let tens = client.map(|n: u32| 10 * n, digits.column(0));
    /// assert_eq!(client.gather(tens)?, [40, 0, 90]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn split<F, P, X, I>(
        &self,
        function: F,
        items: I,
        parts: usize,
    ) -> Parts<<F::Ret as Outputs>::Part>
    where
        F: TaskFn<(P,)>,
        F::Ret: Outputs,
        P: Param,
        X: Arg<P::Value>,
        I: IntoIterator<Item = X>,
    {
        assert_captures_nothing!(F);
        let width = parts_of(parts);
        let _making = Making::begin();
        let tasks = submission::split(function, items);
        let options = TaskOptions { parts: width, ..(*self.options).clone() };
        let tasks = self.session.send_many(tasks, &options);
        Parts::counted(Arc::clone(&self.session), tasks, width)
    }

    /// Regroups data: `split` cuts each item into `parts` pieces, and `join` makes each result of
    /// the pieces that have the same position, in the order of the items. Only pieces move, and
    /// none of them more than once unless it was lost.
    ///
    /// A `split` is run again when its process is lost, so it should cut the same input in the same
    /// way each time. It returns a `Vec` with exactly `parts` pieces; see [`split`](Self::split) for
    /// what else can be done with them.
    ///
    /// # Panics
    /// If `parts` is 0 or above 65,535, or if a handle among the items is of another client.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    ///
    /// /// One piece for each of the last digits.
    /// fn by_last_digit(numbers: Vec<usize>) -> Vec<Vec<usize>> {
    ///     let mut pieces = vec![Vec::new(); 10];
    ///     numbers.into_iter().for_each(|n| pieces[n % 10].push(n));
    ///     pieces
    /// }
    ///
    /// let blocks = (0..4).map(|i| (100 * i..100 * (i + 1)).collect::<Vec<usize>>());
    /// let join = |pieces: Vec<Vec<usize>>| pieces.concat();
    /// let groups = client.gather(client.shuffle(blocks, 10, by_last_digit, join))?;
    /// assert!(groups[7].iter().all(|n| n % 10 == 7) && groups[7].len() == 40);
    /// # Ok(())
    /// # }
    /// ```
    pub fn shuffle<F, P, X, I, G, R, K>(
        &self,
        items: I,
        parts: usize,
        split: F,
        join: G,
    ) -> Remotes<R::Value>
    where
        F: TaskFn<(P,)>,
        F::Ret: Outputs,
        P: Param,
        X: Arg<P::Value>,
        I: IntoIterator<Item = X>,
        G: Fn(Vec<<F::Ret as Outputs>::Part>) -> R + Copy + Send + Sync + 'static,
        R: Out<K> + 'static,
        K: 'static,
    {
        assert_captures_nothing!(F);
        assert_captures_nothing!(G);
        let splits = self.split(split, items, parts);
        let _making = Making::begin();
        let join = submission::join(join);
        let (tasks, width) = (splits.tasks(), parts_of(parts));
        self.remotes(self.session.send_joins(join, &self.options, tasks, width))
    }

    fn remote<T>(&self, task: rdask_core::id::TaskId) -> Remote<T> {
        Remote::counted(Arc::clone(&self.session), task)
    }

    fn remotes<T>(&self, tasks: super::session::Tasks) -> Remotes<T> {
        Remotes::counted(Arc::clone(&self.session), tasks)
    }
}

/// How many outputs a task may have.
fn parts_of(parts: usize) -> u16 {
    let width = u16::try_from(parts).ok().filter(|parts| *parts > 0);
    width.unwrap_or_else(|| panic!("a task has 1 to 65,535 outputs, not {parts}"))
}
