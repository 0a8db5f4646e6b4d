//! The blocking client. What it does that doesn't wait is in [`Core`]; waiting is written once, as
//! futures, and blocking parks on them.
//!
//! Three parts share a session: faces and handles on the user's threads, the state machine of
//! `rdask-core` behind a lock that is held for its own steps only, and a driver on the network
//! thread that carries out what the machine wants.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rdask_core::message::{ClusterStatus, Explanation};

use crate::as_completed::AsCompleted;
use crate::codec::Data;
use crate::error::Result;
use crate::remote::{Handles, Listed, Remote, Remotes};

pub(crate) mod connect;
mod core;
mod driver;
pub(crate) mod nested;
pub(crate) mod net_thread;
pub(crate) mod parking;
pub(crate) mod parts;
mod sending;
mod sending_many;
pub(crate) mod session;
mod shuffling;
#[cfg(test)]
mod tests;
pub(crate) mod values;
pub(crate) mod waiting;

pub use self::connect::ConnectOptions;
pub use self::core::Core;
use parking::block_on;
use parts::ClientParts;
use session::Session;

/// A connection to a scheduler, for programs that block while they wait. Async programs take
/// [`aio::Client`](crate::aio::Client).
///
/// Submitting, mapping and scattering are methods of [`Core`]. Clones are the same client. When the
/// last of them and all handles are dropped, the client leaves, and what it did not
/// [`detach`](Self::detach) is forgotten.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// let client = rdask::Client::local()?;
/// let squares = client.map(|x| x * x, [1.0, 2.0, 3.0]);
/// assert_eq!(client.gather(squares)?, [1.0, 4.0, 9.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    core: Core,
}

/// Which of some tasks have ended, and which have not.
#[derive(Debug)]
#[must_use = "dropping the handles releases the tasks"]
pub struct Waited<T> {
    /// Those that have ended, well or not, in order.
    pub done: Remotes<T>,
    /// The others, in order.
    pub not_done: Remotes<T>,
}

impl Client {
    /// Connects to the scheduler that wrote this file.
    ///
    /// An address alone would not do: the file also brings the certificates by which both sides
    /// know each other.
    ///
    /// File and scheduler may be a moment late: it tries for 10 s. Once the scheduler has answered it
    /// waits up to 2 s more for workers to start this program; a slower start is no error.
    ///
    /// # Errors
    /// All are [`Error::Connection`](crate::Error::Connection):
    /// [`NotInitialised`](crate::ConnectionError::NotInitialised) if `main` does not begin with
    /// [`rdask::init`](crate::init) or [`#[rdask::main]`](crate::main);
    /// [`NotConnected`](crate::ConnectionError::NotConnected) if there is no such file, or nobody
    /// answers at the addresses in it, for 10 s. At once it is
    /// [`Refused`](crate::ConnectionError::Refused) if others can read the file, which
    /// [`connect_with`](Self::connect_with) can accept, if it is no scheduler's, or if the scheduler
    /// says no; and [`Version`](crate::ConnectionError::Version) if file or scheduler are of another
    /// protocol version.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```no_run
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::connect("scheduler.json")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect(scheduler_file: impl AsRef<Path>) -> Result<Self> {
        Self::connect_with(scheduler_file, ConnectOptions::new())
    }

    /// As [`connect`](Self::connect), and with options.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```no_run
    /// # fn main() -> rdask::Result<()> {
    /// // On a file system that knows no owners.
    /// let options = rdask::ConnectOptions::new().insecure_file_mode(true);
    /// let client = rdask::Client::connect_with("scheduler.json", options)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_with(scheduler_file: impl AsRef<Path>, options: ConnectOptions) -> Result<Self> {
        let session = block_on(connect::connect(scheduler_file.as_ref(), options))?;
        Ok(Self::from_session(session))
    }

    /// Connects to the scheduler whose file the variable `RDASK_SCHEDULER_FILE` names.
    ///
    /// # Errors
    /// If there is no such variable, or as for [`connect`](Self::connect).
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```no_run
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::from_env()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_env() -> Result<Self> {
        Self::connect(connect::file_from_env()?)
    }

    /// A client of a cluster inside this very process: no files, no ports, no set-up.
    ///
    /// # Errors
    /// If the system gives no threads.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let client = rdask::Client::local()?;
    /// assert_eq!(client.submit(f64::sqrt, (16.0,)).result()?, 4.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local() -> Result<Self> {
        crate::local::client()
    }

    /// A client over a connection that has been made.
    pub(crate) fn from_parts(parts: ClientParts) -> Self {
        Self::from_session(Session::start(parts))
    }

    pub(crate) fn from_session(session: Arc<Session>) -> Self {
        Self { core: Core::new(session) }
    }

    /// This client, for async code.
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The results of tasks, in order.
    ///
    /// # Errors
    /// With a failure among them, as soon as there is one; if the connection is lost.
    ///
    /// # Panics
    /// Inside an async runtime; if the handles are of different clients.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let roots = client.map(f64::sqrt, [1.0, 4.0, 9.0]);
    /// assert_eq!(client.gather(&roots)?, [1.0, 2.0, 3.0]);
    /// assert_eq!(client.gather(vec![roots.get(2).unwrap()])?, [3.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn gather<T: Data>(&self, remotes: impl Handles<T>) -> Result<Vec<T>> {
        block_on(gather(remotes))
    }

    /// Blocks until tasks have ended, well or not.
    ///
    /// # Errors
    /// If the connection is lost before. A failed task is no error here.
    ///
    /// # Panics
    /// Inside an async runtime; if the handles are of different clients.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let roots = client.map(f64::sqrt, [1.0, 4.0, 9.0]);
    /// client.wait(&roots)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait<T>(&self, remotes: impl Handles<T>) -> Result<()> {
        block_on(wait(remotes))
    }

    /// Blocks until tasks have ended or some time has passed, and says which have.
    ///
    /// # Errors
    /// If the connection is lost before.
    ///
    /// # Panics
    /// Inside an async runtime; if the handles are of different clients.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let roots = client.map(f64::sqrt, (0..1000).map(f64::from));
    /// let waited = client.wait_timeout(&roots, std::time::Duration::from_secs(1))?;
    /// println!("{} done, {} to go", waited.done.len(), waited.not_done.len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_timeout<T>(
        &self,
        remotes: impl Handles<T>,
        timeout: Duration,
    ) -> Result<Waited<T>> {
        block_on(wait_timeout(&self.core.session, remotes, timeout))
    }

    /// Results as they come: an iterator over positions and results. It blocks while there is nothing
    /// new.
    ///
    /// # Panics
    /// If the handles are of different clients. The iterator panics inside an async runtime: there
    /// take [`aio::Client::as_completed`](crate::aio::Client::as_completed).
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let inputs = [1.0, 4.0, 9.0];
    /// for (position, root) in client.as_completed(client.map(f64::sqrt, inputs)) {
    ///     println!("the root of {} is {}", inputs[position], root?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_completed<T: Data>(&self, remotes: impl Handles<T>) -> AsCompleted<T> {
        AsCompleted::new(&self.core.session, &remotes.list())
    }

    /// Keeps results under a name until somebody [attaches](Self::attach) to it: this program, if
    /// it comes back, or another run of it. Blocks until the scheduler has heard of it.
    ///
    /// # Errors
    /// If the connection is lost.
    ///
    /// # Panics
    /// Inside an async runtime; if the handles are of different clients.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let roots = client.map(f64::sqrt, (0..1000).map(f64::from));
    /// client.detach("roots", &roots)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn detach<T>(&self, name: &str, remotes: impl Handles<T>) -> Result<()> {
        block_on(detach(name, remotes))
    }

    /// The results that were [detached](Self::detach) under a name, which must be of this type.
    ///
    /// # Errors
    /// If nothing was; if the connection is lost. Results of another type fail to decode.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```no_run
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let roots = client.attach::<f64>("roots")?;
    /// println!("{:?}", client.gather(roots)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn attach<T: Data>(&self, name: &str) -> Result<Remotes<T>> {
        let tasks = block_on(self.core.session.attach(name))?;
        Ok(Remotes::counted(Arc::clone(&self.core.session), tasks))
    }

    /// Why a task isn't running, or how it ended: what `rdask explain` tells.
    ///
    /// # Errors
    /// If the connection is lost.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// use rdask::explain::Why;
    ///
    /// let root = client.options().resource("GPU", 1.0).submit(f64::sqrt, (16.0,));
    /// let Why::Unsuited { workers, .. } = client.explain(&root)?.why else { panic!() };
    /// println!("{workers:?}"); // [("local", Resource("GPU", 0))]
    /// # Ok(())
    /// # }
    /// ```
    pub fn explain<T>(&self, remote: &Remote<T>) -> Result<Explanation> {
        block_on(remote.session().explain(remote.id()))
    }

    /// What the cluster looks like: its workers, and how many tasks are in which state.
    ///
    /// # Errors
    /// If the connection is lost.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// # let client = rdask::Client::local()?;
    /// let slots: u32 = client.status()?.workers.iter().map(|worker| worker.slots).sum();
    /// println!("{slots} slots");
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Result<ClusterStatus> {
        block_on(self.core.session.cluster())
    }

    /// Lets workers go in good order, as a notice would: their running tasks end, the others and
    /// what only they hold go to other workers. Waits until they are gone, and says how many.
    /// Names are those of pools, or of single workers.
    ///
    /// # Errors
    /// If there is no pool and no worker of one of the names, then none goes; or if the connection
    /// is lost.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # fn job(client: &rdask::Client) -> rdask::Result<()> {
    /// println!("{} workers have left", client.retire_workers(["gpu", "node7-4711-0"])?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retire_workers<N: Into<String>>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<usize> {
        block_on(self.core.session.retire(names.into_iter().map(Into::into).collect()))
    }
}

impl Deref for Client {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

/// The results of tasks, in order. The handles live as long as the future.
pub(crate) async fn gather<T: Data>(remotes: impl Handles<T>) -> Result<Vec<T>> {
    let Listed { session, tasks } = remotes.list();
    match session {
        Some(session) => session.gather(&tasks).await,
        None => Ok(Vec::new()),
    }
}

/// Waits for tasks to end. The handles live as long as the future.
pub(crate) async fn wait<T>(remotes: impl Handles<T>) -> Result<()> {
    let Listed { session, tasks } = remotes.list();
    match session {
        Some(session) => session.wait(&tasks).await,
        None => Ok(()),
    }
}

/// Waits for tasks to end, for some time. The handles live as long as the future.
pub(crate) async fn wait_timeout<T>(
    session: &Arc<Session>,
    remotes: impl Handles<T>,
    timeout: Duration,
) -> Result<Waited<T>> {
    let listed = remotes.list();
    let session = listed.session.as_ref().unwrap_or(session);
    session.wait_timeout(&listed.tasks, timeout).await?;
    let (done, not_done) = session.split(&listed.tasks);
    Ok(Waited {
        done: Remotes::counted(Arc::clone(session), done),
        not_done: Remotes::counted(Arc::clone(session), not_done),
    })
}

/// Detaches tasks. The handles live as long as the future.
pub(crate) async fn detach<T>(name: &str, remotes: impl Handles<T>) -> Result<()> {
    let Listed { session, tasks } = remotes.list();
    match session {
        Some(session) => session.detach(name.to_owned(), tasks).await,
        None => Ok(()),
    }
}
