//! How and where tasks run.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use rdask_core::message::TaskOptions;

use crate::client::Core;

/// How and where tasks run: set what you need, then submit or map with it, once or often.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// # use std::time::Duration;
/// let client = rdask::Client::local()?;
/// let careful = client.options().name("root").retries(2).timeout(Duration::from_secs(60));
/// let roots = careful.map(f64::sqrt, [1.0, 4.0]);
/// let more = careful.submit(f64::sqrt, (9.0,));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until something is submitted with them"]
pub struct Options {
    core: Core,
}

impl Options {
    pub(crate) fn new(core: Core) -> Self {
        Self { core }
    }

    fn set(mut self, change: impl FnOnce(&mut TaskOptions)) -> Self {
        change(Arc::make_mut(&mut self.core.options));
        self
    }

    /// The tasks' name in logs and errors, instead of their function's.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let root = client.options().name("root").submit(f64::sqrt, (16.0,));
    /// ```
    pub fn name(self, name: impl Into<String>) -> Self {
        self.set(|options| options.name = Some(name.into()))
    }

    /// Tasks of a higher priority go first, among those of one client. Usually it is 0.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let soon = client.options().priority(10).submit(f64::sqrt, (16.0,));
    /// ```
    pub fn priority(self, priority: i32) -> Self {
        self.set(|options| options.priority = priority)
    }

    /// How often a task that fails is run again: never unless given. Tasks that are lost with their
    /// worker are run again anyway.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let text = client
    ///     .options()
    ///     .retries(3)
    ///     .try_submit(std::fs::read_to_string::<String>, ("data.csv",));
    /// ```
    pub fn retries(self, retries: u32) -> Self {
        self.set(|options| options.retries = retries)
    }

    /// How long to wait before a task that failed is run again: not at all unless given.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// # use std::time::Duration;
    /// let patient = client.options().retries(3).retry_delay(Duration::from_secs(10));
    /// ```
    pub fn retry_delay(self, delay: Duration) -> Self {
        self.set(|options| options.retry_delay = delay)
    }

    /// A run that takes longer fails; it has any time unless given. Its slot is free when it has stopped, or when its process has
    /// been ended for it: see [`kill_grace`](Self::kill_grace).
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// # use std::time::Duration;
    /// let root = client.options().timeout(Duration::from_secs(1)).submit(f64::sqrt, (16.0,));
    /// ```
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|options| options.timeout = Some(timeout))
    }

    /// How long a run may go on after it was cancelled or has timed out, before its process is
    /// ended: 10 s unless given. Other runs in that process have as long again, and are repeated
    /// elsewhere if they take longer. A run stops in good order by looking at
    /// [`Context::is_cancelled`](crate::Context::is_cancelled).
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// # use std::time::Duration;
    /// let strict = client.options().timeout(Duration::from_secs(60)).kill_grace(Duration::ZERO);
    /// ```
    pub fn kill_grace(self, grace: Duration) -> Self {
        self.set(|options| options.kill_grace = Some(grace))
    }

    /// How many slots of its worker a run takes, for functions that start threads themselves: one
    /// unless given.
    ///
    /// # Panics
    /// If it is 0.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let root = client.options().threads(4).submit(f64::sqrt, (16.0,));
    /// ```
    pub fn threads(self, threads: u16) -> Self {
        assert!(threads > 0, "a run takes at least one slot");
        self.set(|options| options.threads = threads)
    }

    /// What else a run takes of its worker, such as one of its GPUs. Precise to a ten-thousandth.
    ///
    /// # Panics
    /// If the amount is negative or no number.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let root = client.options().resource("GPU", 0.5).submit(f64::sqrt, (16.0,));
    /// ```
    pub fn resource(self, name: impl Into<String>, amount: f64) -> Self {
        assert!(amount >= 0.0, "an amount of a resource is not negative");
        let name = name.into();
        // Beyond the range of u64 it saturates, and no worker has that much.
        let amount = (amount * 10_000.0).round() as u64;
        self.set(|options| {
            options.resources.retain(|(other, _)| *other != name);
            options.resources.push((name, amount));
            options.resources.sort();
        })
    }

    /// How many processes are to hold each result of more than 1 KiB, or each scattered value: one
    /// unless given. A scattered value can't be computed again: with two holders it survives the loss of one, and
    /// gets another one then, as soon as there is a worker for it.
    ///
    /// # Panics
    /// If it is 0.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let table = client.options().replicas(2).scatter(vec![0.0; 1_000_000]);
    /// ```
    pub fn replicas(self, replicas: u8) -> Self {
        assert!(replicas > 0, "a value has at least one holder");
        self.set(|options| options.replicas = replicas)
    }

    /// Only workers of these names: what `rdask worker --name` says, else the node, the Slurm job and
    /// the position in it. `rdask status` shows them.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let root = client.options().workers(["node7-4711-0"]).submit(f64::sqrt, (16.0,));
    /// ```
    pub fn workers<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.set(|options| options.workers = names.into_iter().map(Into::into).collect())
    }

    /// Only workers of these pools: Slurm jobs, or what `rdask worker --pool` says.
    ///
    /// ```
    /// # let client = rdask::Client::local().unwrap();
    /// let root = client.options().pools(["gpu"]).submit(f64::sqrt, (16.0,));
    /// ```
    pub fn pools<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.set(|options| options.pools = names.into_iter().map(Into::into).collect())
    }
}

impl Deref for Options {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Options").field(&self.core.options).finish()
    }
}
