//! Handles of single outputs of tasks that have several.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use rdask_core::id::{ArrayId, TaskId};
use rdask_core::message::TaskOptions;
use rdask_core::range::Range;

use super::{Handle, Remote, Remotes};
use crate::client::session::{Session, Tasks, release};
use crate::codec::Data;
use crate::error::Result;
use crate::function::UnknownFunction;
use crate::task::Dep;
use crate::task::submission::{self, ManyTasks};

/// The outputs of the tasks of a [`split`](crate::Core::split): each task has several of them, and
/// who takes one moves only that one.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// let client = rdask::Client::local()?;
/// // Each task has two outputs: the even numbers and the odd ones.
/// let sorted = client.split(
///     |all: Vec<u32>| -> [Vec<u32>; 2] { all.into_iter().partition(|n| n % 2 == 0).into() },
///     [vec![1, 2, 3, 4], vec![5, 6, 7, 8]],
///     2,
/// );
/// let first_odd = client.submit(|odd: Vec<u32>| odd[0], (sorted.get(0, 1).unwrap(),));
/// assert_eq!(first_odd.result()?, 1);
/// assert_eq!(client.gather(sorted.output(0))?, [[2, 4], [6, 8]]);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping the handles releases the tasks"]
pub struct Parts<T> {
    session: Arc<Session>,
    tasks: Tasks,
    width: u16,
    value: PhantomData<fn() -> T>,
}

impl<T> Parts<T> {
    /// Handles that take over counts that the client's state has.
    pub(crate) fn counted(session: Arc<Session>, tasks: Tasks, width: u16) -> Self {
        Self { session, tasks, width, value: PhantomData }
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// How many tasks there are.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let digits = client.split(|n: u32| [n / 10, n % 10], [42, 7, 99], 2);
    /// assert_eq!((digits.len(), digits.width()), (3, 2));
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.iter().map(|(_, range)| range.len() as usize).sum()
    }

    /// Whether there are none.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// assert!(client.split(|n: u32| [n / 10, n % 10], [0; 0], 2).is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many outputs each task has.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// assert_eq!(client.split(|n: u32| [n / 10, n % 10], [42], 2).width(), 2);
    /// ```
    #[must_use]
    pub fn width(&self) -> usize {
        usize::from(self.width)
    }

    /// A handle of one output of one task, if there is such a task and such an output.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let digits = client.split(|n: u32| [n / 10, n % 10], [42, 7, 99], 2);
    /// assert_eq!(digits.get(0, 1).unwrap().result().unwrap(), 2);
    /// assert!(digits.get(0, 2).is_none() && digits.get(3, 0).is_none());
    /// ```
    #[must_use]
    pub fn get(&self, task: usize, output: usize) -> Option<Part<T>> {
        let part = u16::try_from(output).ok().filter(|part| *part < self.width)?;
        let mut left = task;
        for (array, range) in &self.tasks {
            let len = range.len() as usize;
            if left < len {
                let index = range.start + u32::try_from(left).ok()?;
                return Some(self.part(TaskId { array: *array, index }, part));
            }
            left -= len;
        }
        None
    }

    /// Handles of one output of every task, in order: arguments of a
    /// [`map`](crate::Core::map), or, by reference, of a parameter `Vec<T>`.
    ///
    /// # Panics
    /// If the tasks have no such output, as indexing does.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let digits = client.split(|n: u32| [n / 10, n % 10], [42, 7, 99], 2);
    /// let doubled = client.map(|n: u32| 2 * n, digits.column(1));
    /// assert_eq!(client.gather(doubled).unwrap(), [4, 14, 18]);
    /// let sum = client.submit(|all: Vec<u32>| all.iter().sum::<u32>(), (&digits.column(0),));
    /// assert_eq!(sum.result().unwrap(), 4 + 0 + 9);
    /// ```
    #[must_use]
    pub fn column(&self, output: usize) -> Vec<Part<T>> {
        let part = self.checked(output);
        self.all().map(|task| self.part(task, part)).collect()
    }

    /// These tasks need not run any more. Those that have not ended fail as cancelled.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// client.split(|n: u32| [n / 10, n % 10], 0..1000, 2).cancel();
    /// ```
    pub fn cancel(&self) {
        self.session.cancel(&self.tasks);
    }

    fn checked(&self, output: usize) -> u16 {
        let part = u16::try_from(output).ok().filter(|part| *part < self.width);
        part.unwrap_or_else(|| panic!("output {output} of tasks that have {}", self.width))
    }

    fn all(&self) -> impl Iterator<Item = TaskId> + '_ {
        let of = |&(array, range): &(ArrayId, Range)| {
            range.iter().map(move |index| TaskId { array, index })
        };
        self.tasks.iter().flat_map(of)
    }

    fn part(&self, task: TaskId, part: u16) -> Part<T> {
        self.session.retain(task.array, Range::one(task.index));
        Part { session: Arc::clone(&self.session), task, part, value: PhantomData }
    }
}

impl<T: Data> Parts<T> {
    /// One output of every task, in order, as results like others: to be gathered and waited for.
    ///
    /// # Panics
    /// If the tasks have no such output, as indexing does.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let digits = client.split(|n: u32| [n / 10, n % 10], [42, 7, 99], 2);
    /// assert_eq!(client.gather(digits.output(1)).unwrap(), [2, 7, 9]);
    /// ```
    pub fn output(&self, output: usize) -> Remotes<T> {
        let part = self.checked(output);
        let session = Arc::as_ptr(&self.session) as usize;
        let tasks = pass_on::<T>(self.all().map(|task| Handle { session, task, part }));
        let tasks = self.session.send_many(tasks, &TaskOptions::default());
        Remotes::counted(Arc::clone(&self.session), tasks)
    }
}

impl<T> Clone for Parts<T> {
    /// More handles of the same tasks.
    fn clone(&self) -> Self {
        for (array, range) in &self.tasks {
            self.session.retain(*array, *range);
        }
        Self::counted(Arc::clone(&self.session), self.tasks.clone(), self.width)
    }
}

impl<T> Drop for Parts<T> {
    fn drop(&mut self) {
        for (array, range) in &self.tasks {
            release(&self.session, *array, *range);
        }
    }
}

impl<T> fmt::Debug for Parts<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("len", &self.len())
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

/// One output of a task that has several: an argument like [`Remote`], for parameters `T`, `&T` and
/// `Shared<T>`. It keeps all outputs of its task alive.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// let client = rdask::Client::local()?;
/// let digits = client.split(|n: u32| [n / 10, n % 10], [42], 2);
/// let (tens, ones) = (digits.get(0, 0).unwrap(), digits.get(0, 1).unwrap());
/// assert_eq!(client.submit(|a: u32, b: u32| a + b, (&tens, &ones)).result()?, 6);
/// assert_eq!(tens.result()?, 4);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping the handle releases the task"]
pub struct Part<T> {
    session: Arc<Session>,
    task: TaskId,
    part: u16,
    value: PhantomData<fn() -> T>,
}

impl<T> Part<T> {
    pub(crate) fn handle(&self) -> Handle {
        let session = Arc::as_ptr(&self.session) as usize;
        Handle { session, task: self.task, part: self.part }
    }

    /// The name of the task, as in logs and errors.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let digits = client.split(|n: u32| [n / 10, n % 10], [42], 2);
    /// println!("{}", digits.get(0, 1).unwrap().id()); // c0.0.0
    /// ```
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.task
    }
}

impl<T: Data> Part<T> {
    /// This output as a result like others: to be waited for, gathered, detached.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let digits = client.split(|n: u32| [n / 10, n % 10], [42], 2);
    /// let ones = digits.get(0, 1).unwrap().remote();
    /// ones.wait().unwrap();
    /// ```
    pub fn remote(&self) -> Remote<T> {
        let tasks = pass_on::<T>(std::iter::once(self.handle()));
        let tasks = self.session.send_many(tasks, &TaskOptions::default());
        let (array, range) = tasks[0];
        Remote::counted(Arc::clone(&self.session), TaskId { array, index: range.start })
    }

    /// Blocks until the task has ended, and returns this output. Only it moves.
    ///
    /// # Errors
    /// As [`Remote::result`].
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let digits = client.split(|n: u32| [n / 10, n % 10], [42], 2);
    /// assert_eq!(digits.get(0, 1).unwrap().result().unwrap(), 2);
    /// ```
    pub fn result(&self) -> Result<T> {
        self.remote().result()
    }
}

impl<T> Clone for Part<T> {
    /// Another handle of the same output.
    fn clone(&self) -> Self {
        self.session.retain(self.task.array, Range::one(self.task.index));
        let (task, part) = (self.task, self.part);
        Self { session: Arc::clone(&self.session), task, part, value: PhantomData }
    }
}

impl<T> Drop for Part<T> {
    fn drop(&mut self) {
        release(&self.session, self.task.array, Range::one(self.task.index));
    }
}

impl<T> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({}, output {})", self.task, self.part)
    }
}

/// Tasks that result in their one argument. Each runs where that is, and copies nothing.
fn pass_on<T: Data>(
    outputs: impl Iterator<Item = Handle>,
) -> std::result::Result<ManyTasks, UnknownFunction> {
    let deps: Vec<(u64, Dep)> = (0..).zip(outputs.map(Dep::Remote)).collect();
    Ok(ManyTasks {
        function: submission::pass::<T>()?,
        inline: Vec::new(),
        ends: vec![0; deps.len()],
        deps,
        errors: Vec::new(),
        shared: None,
    })
}
