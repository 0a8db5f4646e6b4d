//! Dask for Rust programs: map plain functions over data, on every node of a cluster.
//!
//! A program connects to a scheduler and maps functions over data. The scheduler spreads the
//! tasks, workers run them and steal from each other, and a worker that is killed costs time but
//! never a result. Everything between them is encrypted, and set up by nothing more than the
//! scheduler's file.
//!
//! ```no_run
//! use rdask::Client;
//!
//! fn square(x: f64) -> f64 {
//!     std::thread::sleep(std::time::Duration::from_secs(1)); // stands for real work
//!     x * x
//! }
//!
//! #[rdask::main] // a worker can start this very program
//! fn main() -> rdask::Result<()> {
//!     let client = Client::connect("scheduler.json")?; // Client::local()? needs no cluster
//!     let squares = client.map(square, (0..16).map(f64::from));
//!     println!("{:?}", client.gather(squares)?);
//!     Ok(())
//! }
//! ```
//!
//! # Tasks and handles
//!
//! [`submit`](Core::submit) runs one task, [`map`](Core::map) runs one per item. Both return at
//! once with handles: a [`Remote<T>`] is the result of a task, wherever it is, and feeds other
//! tasks without coming here first. [`gather`](Client::gather) and [`result`](Remote::result)
//! bring values here; [`as_completed`](Client::as_completed) brings them in the order they come.
//! Dropping the last handle of a task releases it.
//!
//! ```no_run
//! # fn main() -> rdask::Result<()> {
//! use rdask::{Client, Remote};
//!
//! fn load(path: String) -> std::io::Result<String> {
//!     std::fs::read_to_string(path)
//! }
//!
//! let client = Client::local()?;
//! let text: Remote<String> = client.try_submit(load, ("poem.txt",)); // an Err fails the task
//! let lines = client.submit(|text: &String| text.lines().count(), (&text,)); // &T: no copy
//! let words = client.submit(|text: &String| text.split_whitespace().count(), (&text,));
//! println!("{} lines, {} words", lines.result()?, words.result()?);
//! # Ok(())
//! # }
//! ```
//!
//! # What can be a task
//!
//! Functions, methods, and closures that capture nothing: a task is named, not sent, since both
//! ends run the same program. What a closure would capture goes along as an argument:
//! [`map_with`](Core::map_with) shares one value among all tasks of a map. Parameters are `T`,
//! `&T` or, for `async fn`s, [`Shared<T>`]; types are whatever serde can write and read.
//!
//! ```
//! # fn main() -> rdask::Result<()> {
//! # let client = rdask::Client::local()?;
//! let table = client.scatter(vec![10.0, 20.0, 30.0]);
//! let rows = client.map_with(|i: usize, table: &Vec<f64>| table[i], [2, 0], &table);
//! let sum = client.tree(rows, |a, b| a + b);
//! assert_eq!(sum.result()?, 40.0);
//! # Ok(())
//! # }
//! ```
//!
//! # Shuffles
//!
//! A task of [`split`](Core::split) has several outputs, and who takes one moves only that one.
//! [`shuffle`](Core::shuffle) regroups data with it: pieces go straight from those who cut them to
//! those who join them.
//!
//! ```
//! # fn main() -> rdask::Result<()> {
//! # let client = rdask::Client::local()?;
//! let even_and_odd = |block: Vec<u32>| -> [Vec<u32>; 2] {
//!     block.into_iter().partition(|n| n % 2 == 0).into()
//! };
//! let blocks = [vec![1, 2, 3], vec![4, 5, 6]];
//! let sorted = client.shuffle(blocks, 2, even_and_odd, |pieces: Vec<Vec<u32>>| pieces.concat());
//! assert_eq!(client.gather(sorted)?, [[2, 4, 6], [1, 3, 5]]);
//! # Ok(())
//! # }
//! ```
//!
//! # When things go wrong
//!
//! A task that panics, or returns an `Err` to one of the `try_` methods, fails; so does what
//! depends on it, and nothing else. [`Error::Task`] says which function it was, where, on which
//! worker, and with which message. A task whose *worker* is lost has not failed: it runs again
//! elsewhere.
//!
//! ```
//! # fn main() -> rdask::Result<()> {
//! # let client = rdask::Client::local()?;
//! let numbers = client.try_map(|s: String| s.parse::<f64>(), ["1.5", "one"]);
//! for number in &numbers {
//!     match number.result() {
//!         Ok(number) => println!("{number}"),
//!         Err(error) => println!("{error}"), // task .. failed: invalid float literal
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How and where
//!
//! [`options`](Core::options) sets priority, retries, timeouts, threads, resources and the workers
//! that may run a task. Tasks may submit tasks: [`context`] gives them a client. Async programs use
//! [`aio::Client`], and `.await` handles.
//!
//! ```
//! # async fn job() -> rdask::Result<()> {
//! # let client = rdask::aio::Client::local()?;
//! let careful = client.options().retries(2).resource("GPU", 1.0);
//! println!("{}", careful.submit(f64::sqrt, (2.0,)).await?);
//! # Ok(())
//! # }
//! ```

pub mod aio;
mod as_completed;
#[doc(hidden)]
pub mod board;
mod client;
#[doc(hidden)]
pub mod codec;
#[doc(hidden)]
pub mod connection;
#[doc(hidden)]
pub mod context;
#[doc(hidden)]
pub mod data;
mod error;
pub mod explain;
#[doc(hidden)]
pub mod function;
#[doc(hidden)]
pub mod handover;
#[doc(hidden)]
pub mod init;
mod local;
#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod nanny;
mod options;
mod pages;
mod panics;
#[doc(hidden)]
pub mod process;
#[doc(hidden)]
pub mod program;
mod remote;
#[doc(hidden)]
pub mod scheduler;
mod shared;
#[doc(hidden)]
pub mod slurm;
pub mod task;

pub use as_completed::AsCompleted;
#[doc(hidden)]
pub use client::nested::NestedClient;
pub use client::{Client, ConnectOptions, Core, Waited};
pub use codec::{Data, DecodeError};
pub use context::{CancelToken, Context, context, try_context};
pub use error::{ConnectionError, Error, FailureKind, Result, TaskError, UnknownWorkers};
pub use init::{init, init_with};
pub use local::{LocalCluster, LocalClusterBuilder};
pub use options::Options;
pub use rdask_core::id::TaskId;
pub use rdask_core::message::{ClusterStatus, TaskStatus, WorkerStatus};
pub use rdask_macros::main;
pub use remote::{Handles, IntoIter, Part, Parts, Remote, Remotes};
pub use scheduler::Policy;
pub use shared::Shared;
