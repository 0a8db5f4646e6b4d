//! Workers without threads, as many as there are sockets for, in one OS process.
//!
//! To the scheduler they are nannies and program processes like all others: each is a connection of
//! its own, with a certificate of its own, and speaks by the process's state machine. What they
//! don't have is user code. A slot reads a task's first argument, a number, waits on a timer for as
//! many microseconds as the second one says, if there is one, and answers with the first.

mod clock;
mod nanny;
mod process;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdask::connection::{
    Connected, FileMode, Persistence, Transport, Weigh, contact_of, dial, joining,
};
use rdask_core::hello::Role;
use rdask_core::message::Contact;
use rdask_net::{Endpoint, SchedulerFile};
use rdask_testbed::cluster::{Cluster, Running};
use rdask_testbed::proc::wait_for;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use clock::Clock;

/// The scene that a copy of this program plays.
pub(crate) const SCENE: &str = "emulate";

/// What a figure that was measured with them has to say of them.
pub(crate) const REMARK: &str = "workers and slots are emulated by one OS process: a connection \
    for each nanny and each program process, no user code; a task ends at once, or by a timer if \
    it sleeps, with its first argument as its result";

/// The peers share so many OS threads.
const THREADS: u32 = 2;

/// So many dial at once. Real ones have a processor each; these share two, and a thousand
/// handshakes that advance a little each end too late.
const DIALS_MAX: usize = 64;

/// A scheduler whose machine is busy gives up on handshakes that last too long.
const PAUSE: Duration = Duration::from_millis(100);
const TRIES_MAX: u32 = 20;

/// A process of emulated workers; it ends with this.
#[derive(Debug)]
pub(crate) struct Emulation {
    running: Running,
}

impl Emulation {
    /// Starts so many workers of so many slots, and waits for none of them.
    pub(crate) fn start(cluster: &Cluster, workers: u32, slots: u32) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let arguments = [workers.to_string(), slots.to_string()];
        let running = cluster.program(&program, SCENE, &arguments.each_ref().map(String::as_str));
        Ok(Self { running })
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Waits until each worker has joined, and a client's program is at work in it: the seconds that
    /// this took from its start.
    pub(crate) fn wait_until_at_work(&self) -> f64 {
        wait_for("all emulated workers at work", || {
            let log = self.running.log();
            assert!(!log.contains("panicked"), "the emulation has failed:\n{log}");
            let (told, _) = log.split_once(AT_WORK)?.1.split_once('\n')?;
            told.trim().parse().ok()
        })
    }
}

/// What comes before the seconds in the one line of its output.
const AT_WORK: &str = "all at work after seconds:";

/// Plays the scene.
pub(crate) fn play(file: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let number = |nth: usize| -> anyhow::Result<u32> {
        Ok(arguments.get(nth).context("workers and slots")?.parse()?)
    };
    let (workers, slots) = (number(0)?, number(1)?);
    let stage = Stage {
        file: SchedulerFile::read(Path::new(file), FileMode::Private)?,
        slots,
        begun: Instant::now(),
        awaited: AtomicU32::new(workers),
        dials: Semaphore::new(DIALS_MAX),
        clock: Clock::start()?,
    };
    let stage = Arc::new(stage);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let stage = Arc::clone(&stage);
            let own = (0..workers).filter(move |worker| worker % THREADS == thread);
            std::thread::spawn(move || run(&stage, own))
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread of emulated workers panicked"))??;
    }
    Ok(())
}

/// Runs some of the workers until the last of their nannies was told to end.
fn run(stage: &Arc<Stage>, workers: impl Iterator<Item = u32>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut nannies = tokio::task::JoinSet::new();
        for worker in workers {
            nannies.spawn(nanny::run(Arc::clone(stage), worker));
        }
        while let Some(ended) = nannies.join_next().await {
            ended??;
        }
        Ok(())
    })
}

/// What all of them share.
#[derive(Debug)]
struct Stage {
    file: SchedulerFile,
    slots: u32,
    begun: Instant,
    /// How many processes are not at work yet.
    awaited: AtomicU32,
    dials: Semaphore,
    clock: Clock,
}

impl Stage {
    /// Joins the scheduler in a role, over an endpoint of its own: certificates go with it. Tries
    /// again as nannies do, and as processes are started again.
    async fn join<Out, In>(
        &self,
        role: impl Fn(Contact) -> Role,
        persistence: fn() -> Persistence,
    ) -> anyhow::Result<(Endpoint, Connected<Out, In>)>
    where
        Out: Serialize + Weigh + Send + 'static,
        In: DeserializeOwned + Weigh + Send + 'static,
    {
        let mut tries = 0;
        let _dial = self.dials.acquire().await?;
        loop {
            let config = joining(&self.file)?.on_loopback().with_transport(Transport::Quic);
            let endpoint = Endpoint::bind(config).await?;
            let role = role(contact_of(&endpoint));
            match dial(&endpoint, &self.file, role, persistence()).await {
                Ok(connected) => return Ok((endpoint, connected)),
                Err(error) if error.is_refusal() || tries == TRIES_MAX => return Err(error.into()),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            tries += 1;
        }
    }

    /// One more process is at work.
    #[expect(clippy::print_stdout, reason = "whoever started this program waits for it")]
    fn at_work(&self) {
        if self.awaited.fetch_sub(1, Ordering::Relaxed) == 1 {
            println!("{AT_WORK} {}", self.begun.elapsed().as_secs_f64());
        }
    }
}
