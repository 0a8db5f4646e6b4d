//! A nanny's time with one scheduler: from its welcome until one of them leaves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdask_core::hello::You;
use rdask_core::id::{NannyId, ProcessId, ProgramHash, WorkerId};
use rdask_core::message::{Contact, Exit, FromNanny, Launch, ToNanny, WorkerInfo};
use rdask_net::{DataStream, Endpoint, Incoming, SchedulerFile};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::children::Children;
use super::launch::Launched;
use super::memory_watch::{Use, choose};
use super::{Joined, NannyOptions, Signals, launch};
use crate::connection::{ConnectionEnd, Inbox, Outbox};
use crate::memory;
use crate::program::cache::Cache;
use crate::program::exchange::{self, SERVED_AT_ONCE};
use crate::slurm;

/// How long a nanny that has given notice lets its tasks end. Slurm's KillWait is 30 s unless the
/// site says otherwise; what is left after that is made again elsewhere.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(25);

/// So long before the end of its job a nanny's workers are given notice, so that their values are
/// copied by then; in a short job after three quarters of its time.
const JOB_NOTICE: Duration = Duration::from_secs(30);

fn before_end(left: Duration) -> Duration {
    left - JOB_NOTICE.min(left / 4)
}

/// A second signal ends a nanny at once, unless it comes with the first: Slurm sends SIGTERM twice
/// at a time limit.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// How often the memory of processes is looked at.
const MEMORY_LOOK: Duration = Duration::from_millis(500);

/// How long the last words to the scheduler may take: its link may be broken.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// How a membership ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The scheduler said so.
    Told(String),
    /// A signal came.
    Signal(&'static str),
    /// The connection ended.
    Lost(ConnectionEnd),
}

/// Where the scheduler says a program may be fetched: another nanny, or itself.
pub(super) type Offer = Option<(NannyId, Contact)>;

/// What every launch needs. One per membership.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) nanny: NannyId,
    pub(super) node: String,
    pub(super) pool: String,
    pub(super) interface: Option<String>,
    pub(super) host: Option<String>,
    pub(super) scratch: String,
    pub(super) workers: Vec<(WorkerId, WorkerInfo)>,
    pub(super) cache: Cache,
    pub(super) endpoint: Endpoint,
    pub(super) file: SchedulerFile,
    pub(super) outbox: Outbox<FromNanny>,
    /// Locked to put in, take out or look up, never across an await.
    pub(super) offers: Mutex<BTreeMap<ProgramHash, mpsc::UnboundedSender<Offer>>>,
    /// Programs that have answered a probe here. Locked as the above.
    pub(super) probed: Mutex<Vec<ProgramHash>>,
}

impl Context {
    /// Tells the scheduler something, unless the connection has ended: then the membership is
    /// about to.
    pub(super) fn tell(&self, message: FromNanny) {
        if self.outbox.send(message).is_err() {
            tracing::debug!("the scheduler is gone");
        }
    }
}

/// A nanny that a scheduler has welcomed.
pub(super) struct Membership<'a> {
    context: Arc<Context>,
    inbox: Inbox<ToNanny>,
    /// Launches under way, and what ends each when something is sent.
    launches: JoinSet<(ProcessId, Launched)>,
    kills: BTreeMap<ProcessId, oneshot::Sender<Exit>>,
    children: &'a mut Children,
    serving: JoinSet<()>,
    gate: Arc<Semaphore>,
    notice: Option<Notice>,
}

/// That the nanny leaves, as the scheduler was told.
#[derive(Clone, Copy, Debug)]
struct Notice {
    signal: &'static str,
    given: Instant,
}

/// Resolves when a nanny that has given notice can't wait any longer, to what made it do so.
async fn time_is_over(notice: Option<Notice>) -> &'static str {
    let Some(Notice { signal, given }) = notice else { return std::future::pending().await };
    tokio::time::sleep_until(given + LEAVE_TIME_MAX).await;
    signal
}

impl<'a> Membership<'a> {
    pub(super) fn new(
        options: &NannyOptions,
        cache: Cache,
        joined: Joined,
        children: &'a mut Children,
    ) -> Self {
        let Joined { endpoint, file, connected } = joined;
        let (nanny, ids) = match connected.welcome.you {
            You::Nanny(id, workers) => (id, workers),
            // A scheduler that takes us for something else launches nothing here.
            You::Process(_) | You::Client(_) => (NannyId(u32::MAX), Vec::new()),
        };
        let scratch = options.local_directory.clone().unwrap_or_else(std::env::temp_dir);
        let slots: u64 = options.workers.iter().map(|worker| u64::from(worker.slots)).sum();
        tracing::info!(
            run = file.run_id,
            node = options.node,
            pool = options.pool,
            slots,
            "{nanny} joined the scheduler on {} with {} worker(s)",
            file.host,
            ids.len()
        );
        let context = Context {
            nanny,
            node: options.node.clone(),
            pool: options.pool.clone(),
            interface: options.interface.clone(),
            host: options.host.map(|host| host.to_string()),
            scratch: scratch.to_string_lossy().into_owned(),
            workers: ids.into_iter().zip(options.workers.iter().cloned()).collect(),
            cache,
            endpoint,
            file,
            outbox: connected.send,
            offers: Mutex::default(),
            probed: Mutex::default(),
        };
        Self {
            context: Arc::new(context),
            inbox: connected.receive,
            launches: JoinSet::new(),
            kills: BTreeMap::new(),
            children,
            serving: JoinSet::new(),
            gate: Arc::new(Semaphore::new(SERVED_AT_ONCE)),
            notice: None,
        }
    }

    /// Tells when the workers end, as far as that is known. A nanny inside another program is no
    /// part of a Slurm job of its own.
    pub(super) fn tell_end(&self, end: Option<Instant>, in_job: bool) {
        if let Some(end) = end {
            let time = end.saturating_duration_since(Instant::now());
            self.context.tell(FromNanny::EndsIn { time, is_job: false });
        }
        let Some(job) = slurm::job_id().filter(|_| in_job) else { return };
        self.context.tell(match slurm::time_left() {
            Some(left) => FromNanny::EndsIn { time: before_end(left), is_job: true },
            None => FromNanny::InJob { job },
        });
    }

    fn ask_job_end(&mut self) {
        let context = self.context.clone();
        self.serving.spawn(async move {
            let left = match slurm::job_id() {
                Some(job) => slurm::ask_time_left(&job).await,
                None => None,
            };
            context.tell(FromNanny::JobEndsIn { time: left.map(before_end) });
        });
    }

    /// Does what the scheduler says until one of them leaves. After a signal its tasks have time to
    /// end, and the scheduler says when none is left. No process is left then, unless the scheduler
    /// has given the nanny up and may take them back.
    pub(super) async fn serve(mut self, signals: &mut Signals) -> Gone {
        let mut look = tokio::time::interval(MEMORY_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let gone = loop {
            tokio::select! {
                _ = look.tick() => self.end_what_takes_too_much(),
                message = self.inbox.recv() => match message {
                    Ok(ToNanny::Exit { reason }) => break Gone::Told(reason),
                    Ok(message) => self.handle(message),
                    Err(end) => break Gone::Lost(end),
                },
                incoming = self.context.endpoint.accept() => self.serve_stream(incoming),
                Some(launched) = self.launches.join_next() => self.launched(launched),
                Some(report) = self.children.next_end() => self.context.tell(report),
                Some(_) = self.serving.join_next() => {}
                name = signals.next() => match &self.notice {
                    None => self.give_notice(name),
                    Some(notice) if notice.given.elapsed() > ONE_SIGNAL => break Gone::Signal(name),
                    Some(_) => {}
                },
                name = time_is_over(self.notice) => break Gone::Signal(name),
            }
        };
        let gone = self.notice.map_or(gone, |notice| Gone::Signal(notice.signal));
        self.end(&gone).await;
        gone
    }

    fn give_notice(&mut self, signal: &'static str) {
        tracing::info!("got {signal}: leaving");
        self.context.tell(FromNanny::Leaving { reason: format!("its nanny got {signal}") });
        self.notice = Some(Notice { signal, given: Instant::now() });
    }

    fn handle(&mut self, message: ToNanny) {
        match message {
            ToNanny::Launch(launch) => self.launch(launch),
            ToNanny::FetchProgram { hash, from } => {
                let offers = self.context.offers.lock().unwrap_or_else(PoisonError::into_inner);
                // Nobody waits for it if it came from elsewhere meanwhile.
                if let Some(offer) = offers.get(&hash) {
                    let _ = offer.send(from);
                }
            }
            ToNanny::Kill { process, reason } => {
                tracing::info!(%process, reason, "ending a process");
                self.kill(process, Exit::Planned);
            }
            ToNanny::Keep { was, process } => {
                self.children.keep(was, process).into_iter().for_each(|it| self.context.tell(it));
            }
            ToNanny::AskJobEnd => self.ask_job_end(),
            ToNanny::Exit { .. } => unreachable!("the loop ends with it"),
        }
    }

    fn launch(&mut self, launch: Launch) {
        let process = launch.process;
        if self.notice.is_some() {
            let message = format!("node {}: the worker is leaving", self.context.node);
            return self.context.tell(FromNanny::LaunchFailed { process, message });
        }
        let (kill, killed) = oneshot::channel();
        self.kills.insert(process, kill);
        let context = self.context.clone();
        self.launches.spawn(async move { (process, launch::run(&context, launch, killed).await) });
    }

    fn launched(&mut self, launched: Result<(ProcessId, Launched), tokio::task::JoinError>) {
        match launched {
            Ok((process, Launched::Running(running))) => {
                let kill = self.kills.remove(&process);
                self.children.add(*running, kill);
            }
            Ok((process, Launched::Over(report))) => {
                self.kills.remove(&process);
                self.context.tell(report);
            }
            Err(error) => tracing::error!(%error, "the task of a launch panicked"),
        }
    }

    fn kill(&mut self, process: ProcessId, exit: Exit) {
        match self.kills.remove(&process) {
            // It may have come to an end by itself a moment ago.
            Some(kill) => drop(kill.send(exit)),
            None => self.children.kill(process, exit),
        }
    }

    fn end_what_takes_too_much(&mut self) {
        let workers = self.context.workers.clone();
        let uses: Vec<Use> = self
            .children
            .running()
            .filter_map(|(process, worker, pid)| {
                let (worker, _) = *workers.get(worker as usize)?;
                Some(Use { process, worker, bytes: memory::resident(pid)? })
            })
            .collect();
        let limit_of = |worker| {
            let info = workers.iter().find(|(id, _)| *id == worker);
            info.map_or(0, |(_, info)| info.memory_limit)
        };
        for Use { process, worker, bytes } in choose(&uses, limit_of) {
            tracing::warn!(%process, bytes, limit = limit_of(worker),
                "ending a process: its worker is at 95 % of its memory limit");
            self.kill(process, Exit::OutOfMemory);
        }
    }

    fn serve_stream(&mut self, incoming: Option<Incoming>) {
        match incoming {
            Some(Incoming::Data { stream, .. }) => {
                let context = self.context.clone();
                let gate = self.gate.clone();
                self.serving.spawn(async move { serve_program(stream, &context, &gate).await });
            }
            // Endpoints of nannies refuse control connections themselves.
            Some(Incoming::Control(_)) | None => {}
        }
    }

    /// Ends the connection, and all processes if nobody may take them back.
    async fn end(mut self, gone: &Gone) {
        // What has just been started is killed when its task is dropped.
        self.launches.shutdown().await;
        if *gone != Gone::Lost(ConnectionEnd::Fenced) {
            self.children.end().await;
        }
        self.serving.shutdown().await;
        let reason = match gone {
            Gone::Told(_) => "as told",
            Gone::Signal(name) => name,
            Gone::Lost(_) => "lost",
        };
        let outbox = &self.context.outbox;
        if outbox.close(reason).is_ok() && timeout(LAST_WORDS, outbox.ended()).await.is_err() {
            tracing::debug!("the scheduler did not take the last words");
        }
        self.context.endpoint.close().await;
    }
}

async fn serve_program(stream: DataStream, context: &Context, gate: &Semaphore) {
    let peer = stream.peer().clone();
    if let Err(error) = exchange::serve(stream, &context.cache, gate).await {
        tracing::warn!(%peer, %error, "a program could not be served");
    }
}
