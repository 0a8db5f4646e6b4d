//! The client for async programs: the same core, and waiting that is `.await`ed.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rdask_core::message::{ClusterStatus, Explanation};

pub use crate::as_completed::Completed;
use crate::client::{self, ConnectOptions, Core, Waited};
use crate::codec::Data;
use crate::error::Result;
use crate::remote::{Handles, Remote, Remotes};

/// A connection to a scheduler, for async programs on any runtime.
///
/// Submitting, mapping and scattering are methods of [`Core`] and don't wait. Handles are
/// `.await`ed: `remote.await?` instead of `remote.result()?`.
///
/// ```no_run
/// # async fn job() -> rdask::Result<()> {
/// use rdask::aio::Client;
///
/// let client = Client::connect("scheduler.json").await?;
/// let root = client.submit(f64::sqrt, (16.0,));
/// assert_eq!(root.await?, 4.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    core: Core,
}

impl From<crate::Client> for Client {
    /// The same client, for async code.
    fn from(client: crate::Client) -> Self {
        Self { core: client.core().clone() }
    }
}

impl Client {
    /// Connects to the scheduler that wrote this file.
    ///
    /// An address alone would not do: the file also brings the certificates by which both sides
    /// know each other. It tries for 10 s, and waits up to 2 s more for workers to start this program.
    ///
    /// # Errors
    /// As for the blocking [`Client::connect`](crate::Client::connect), whose program must begin with
    /// [`rdask::init`](crate::init), too.
    ///
    /// ```no_run
    /// # async fn job() -> rdask::Result<()> {
    /// let client = rdask::aio::Client::connect("scheduler.json").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(scheduler_file: impl AsRef<Path>) -> Result<Self> {
        Self::connect_with(scheduler_file, ConnectOptions::new()).await
    }

    /// As [`connect`](Self::connect), and with options.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    ///
    /// ```no_run
    /// # async fn job() -> rdask::Result<()> {
    /// // On a file system that knows no owners.
    /// let options = rdask::ConnectOptions::new().insecure_file_mode(true);
    /// let client = rdask::aio::Client::connect_with("scheduler.json", options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_with(
        scheduler_file: impl AsRef<Path>,
        options: ConnectOptions,
    ) -> Result<Self> {
        let session = client::connect::connect(scheduler_file.as_ref(), options).await?;
        Ok(Self { core: Core::new(session) })
    }

    /// Connects to the scheduler whose file the variable `RDASK_SCHEDULER_FILE` names.
    ///
    /// # Errors
    /// If there is no such variable, or as for [`connect`](Self::connect).
    ///
    /// ```no_run
    /// # async fn job() -> rdask::Result<()> {
    /// let client = rdask::aio::Client::from_env().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn from_env() -> Result<Self> {
        Self::connect(client::connect::file_from_env()?).await
    }

    /// A client of a cluster inside this very process.
    ///
    /// # Errors
    /// If the system gives no threads.
    ///
    /// ```
    /// # fn job() -> rdask::Result<()> {
    /// let client = rdask::aio::Client::local()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn local() -> Result<Self> {
        crate::Client::local().map(Self::from)
    }

    /// The results of tasks, in order.
    ///
    /// # Errors
    /// With a failure among them, as soon as there is one; if the connection is lost.
    ///
    /// # Panics
    /// If the handles are of different clients.
    ///
    /// ```
    /// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
    /// let roots = client.map(f64::sqrt, [1.0, 4.0]);
    /// assert_eq!(client.gather(roots).await?, [1.0, 2.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn gather<T: Data>(&self, remotes: impl Handles<T>) -> Result<Vec<T>> {
        client::gather(remotes).await
    }

    /// Waits until tasks have ended, well or not.
    ///
    /// # Errors
    /// If the connection is lost before. A failed task is no error here.
    ///
    /// # Panics
    /// If the handles are of different clients.
    ///
    /// ```
    /// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
    /// let roots = client.map(f64::sqrt, [1.0, 4.0]);
    /// client.wait(&roots).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait<T>(&self, remotes: impl Handles<T>) -> Result<()> {
        client::wait(remotes).await
    }

    /// Waits until tasks have ended or some time has passed, and says which have.
    ///
    /// # Errors
    /// If the connection is lost before.
    ///
    /// # Panics
    /// If the handles are of different clients.
    ///
    /// ```
    /// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
    /// let roots = client.map(f64::sqrt, [1.0, 4.0]);
    /// let waited = client.wait_timeout(&roots, std::time::Duration::from_secs(1)).await?;
    /// println!("{} done", waited.done.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_timeout<T>(
        &self,
        remotes: impl Handles<T>,
        timeout: Duration,
    ) -> Result<Waited<T>> {
        client::wait_timeout(&self.core.session, remotes, timeout).await
    }

    /// Results as they come.
    ///
    /// # Panics
    /// If the handles are of different clients.
    ///
    /// ```
    /// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
    /// let mut roots = client.as_completed(client.map(f64::sqrt, [1.0, 4.0]));
    /// while let Some((position, root)) = roots.next().await {
    ///     println!("{position}: {}", root?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_completed<T: Data>(&self, remotes: impl Handles<T>) -> Completed<T> {
        Completed::new(&self.core.session, &remotes.list())
    }

    /// Keeps results under a name until somebody [attaches](Self::attach) to it.
    ///
    /// # Errors
    /// If the connection is lost.
    ///
    /// # Panics
    /// If the handles are of different clients.
    ///
    /// ```
    /// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
    /// let roots = client.map(f64::sqrt, [1.0, 4.0]);
    /// client.detach("roots", &roots).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn detach<T>(&self, name: &str, remotes: impl Handles<T>) -> Result<()> {
        client::detach(name, remotes).await
    }

    /// The results that were [detached](Self::detach) under a name, which must be of this type.
    ///
    /// # Errors
    /// If nothing was; if the connection is lost. Results of another type fail to decode.
    ///
    /// ```no_run
    /// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
    /// let roots = client.attach::<f64>("roots").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn attach<T: Data>(&self, name: &str) -> Result<Remotes<T>> {
        let tasks = self.core.session.attach(name).await?;
        Ok(Remotes::counted(Arc::clone(&self.core.session), tasks))
    }

    /// Why a task isn't running, or how it ended: what `rdask explain` tells.
    ///
    /// # Errors
    /// If the connection is lost.
    ///
    /// ```
    /// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
    /// let root = client.submit(f64::sqrt, (16.0,));
    /// println!("{:?}", client.explain(&root).await?.why);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn explain<T>(&self, remote: &Remote<T>) -> Result<Explanation> {
        remote.session().explain(remote.id()).await
    }

    /// What the cluster looks like: its workers, and how many tasks are in which state.
    ///
    /// # Errors
    /// If the connection is lost.
    ///
    /// ```
    /// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
    /// println!("{} workers", client.status().await?.workers.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self) -> Result<ClusterStatus> {
        self.core.session.cluster().await
    }

    /// Lets workers go in good order, as a notice would: their running tasks end, the others and
    /// what only they hold go to other workers. Waits until they are gone, and says how many.
    /// Names are those of pools, or of single workers.
    ///
    /// # Errors
    /// If there is no pool and no worker of one of the names, then none goes; or if the connection
    /// is lost.
    ///
    /// ```
    /// # async fn job(client: rdask::aio::Client) -> rdask::Result<()> {
    /// println!("{} workers have left", client.retire_workers(["gpu"]).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn retire_workers<N: Into<String>>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<usize> {
        self.core.session.retire(names.into_iter().map(Into::into).collect()).await
    }
}

impl Deref for Client {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}
