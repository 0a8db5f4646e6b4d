//! Around the core: batches of facts in, messages to peers out.
//!
//! Nothing it does blocks: messages go to queues that never make it wait, and a peer whose queue
//! grows past its limit is closed instead. Nobody else calls the state machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdask_core::hello::You;
use rdask_core::id::{ClientId, NannyId, Peer, ProcessId, ProgramHash};
use rdask_core::message::{
    Contact, FromClient, FromNanny, FromProcess, Returning, ToClient, ToNanny, ToProcess,
};
use rdask_core::scheduler::{Action, ClientInfo, Config, NannyInfo, Scheduler};
use rdask_core::time::Time;
use tokio::sync::{mpsc, oneshot};

use crate::connection::{Outbox, Weigh};

/// A peer that lets more than this wait is not reading: it would take the scheduler's memory.
const QUEUE_BYTES_MAX: usize = 256 << 20;

/// What happens around the core.
#[derive(Debug)]
pub(crate) enum Input {
    /// Somebody registers.
    Connect(Newcomer, oneshot::Sender<Result<You, String>>),
    /// A client said these.
    FromClient(ClientId, Vec<FromClient>),
    /// A process said these.
    FromProcess(ProcessId, Vec<FromProcess>),
    /// A nanny said these.
    FromNanny(NannyId, Vec<FromNanny>),
    /// A peer's connection ended.
    LinkLost(Peer),
    /// A peer's link broke, after so much silence; it may come back on another one.
    LinkBroken(Peer, Duration),
    /// It has.
    LinkResumed(Peer),
    /// The network thread stood still.
    Stalled,
    /// A program's bytes are in the store.
    ProgramStored(ProgramHash),
    /// Nothing; but the time to look by oneself has changed.
    Look,
    /// The end: tell everybody why.
    Stop(String),
}

/// Who registers, and where messages to it go.
#[derive(Debug)]
pub(crate) enum Newcomer {
    Nanny(NannyInfo, Vec<Returning>, Outbox<ToNanny>),
    Process(ProcessId, Contact, Outbox<ToProcess>),
    Client(ClientInfo, Outbox<ToClient>),
    Observer(Outbox<ToClient>),
}

/// What the core's thread needs besides its inputs.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) idle_timeout: Option<Duration>,
    /// Where programs that nobody needs any more are named.
    pub(crate) forgotten: mpsc::UnboundedSender<ProgramHash>,
}

/// Why the core's thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CoreEnd {
    /// It was told to.
    Stopped(String),
    /// Nobody has wanted anything for so long.
    Idle(Duration),
}

/// Notices when a thread that looks at the time regularly could not: it was stopped, or busy with
/// something else. What others said meanwhile it has not heard.
#[derive(Debug)]
pub(crate) struct Stalls {
    last: Instant,
}

impl Stalls {
    /// How often to look, at least.
    pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

    /// Looks that come later than this are worth a word.
    const LATE: Duration = Duration::from_millis(1500);

    pub(crate) fn new() -> Self {
        Self { last: Instant::now() }
    }

    /// Whether the thread stood still since the last look.
    pub(crate) fn look(&mut self) -> bool {
        let now = Instant::now();
        let stood_still = now - std::mem::replace(&mut self.last, now);
        if stood_still > Self::LATE {
            tracing::warn!(
                "the scheduler stood still for {:.1} s: nobody is given up for that",
                stood_still.as_secs_f64()
            );
        }
        stood_still > Self::LATE
    }
}

/// The state machine and its peers.
#[derive(Debug)]
pub(crate) struct Shell {
    core: Scheduler,
    started: Instant,
    stalls: Stalls,
    idle_timeout: Option<Duration>,
    forgotten: mpsc::UnboundedSender<ProgramHash>,
    nannies: BTreeMap<NannyId, Outbox<ToNanny>>,
    processes: BTreeMap<ProcessId, Outbox<ToProcess>>,
    clients: BTreeMap<ClientId, Outbox<ToClient>>,
    /// Peers whose queue passed its limit in this turn.
    overfull: Vec<Peer>,
}

impl Shell {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            core: Scheduler::new(setup.config),
            started: Instant::now(),
            stalls: Stalls::new(),
            idle_timeout: setup.idle_timeout,
            forgotten: setup.forgotten,
            nannies: BTreeMap::new(),
            processes: BTreeMap::new(),
            clients: BTreeMap::new(),
            overfull: Vec::new(),
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long the core may be left alone if nothing happens.
    pub(crate) fn time_to_wait(&self) -> Duration {
        let next = self.core.poll_timeout().map(|at| at.since(self.now()));
        next.map_or(Stalls::LOOK_EVERY, |next| next.min(Stalls::LOOK_EVERY))
    }

    /// Tells the core what happened and does what it wants done.
    pub(crate) fn turn(&mut self, inputs: impl IntoIterator<Item = Input>) -> Option<CoreEnd> {
        let now = self.now();
        if self.stalls.look() {
            self.core.handle_stall(now);
        }
        for input in inputs {
            if let Input::Stop(reason) = input {
                self.say_goodbye(&reason);
                return Some(CoreEnd::Stopped(reason));
            }
            self.take(now, input);
        }
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
        }
        self.act();
        while let Some(peer) = self.overfull.pop() {
            self.abort(peer, "you have not read what the scheduler sent: 256 MiB wait");
            self.core.handle_link_lost(now, peer);
            self.act();
        }
        None
    }

    /// Ends a core that has had nothing to do for too long.
    pub(crate) fn end_if_idle(&mut self) -> Option<CoreEnd> {
        let now = self.now();
        let idle = self.core.idle_since().map(|since| now.since(since));
        let (Some(idle), Some(limit)) = (idle, self.idle_timeout) else {
            return None;
        };
        (idle >= limit).then(|| {
            self.say_goodbye(&format!("nothing to do for {} s", limit.as_secs()));
            CoreEnd::Idle(limit)
        })
    }

    fn take(&mut self, now: Time, input: Input) {
        match input {
            Input::Connect(newcomer, answer) => {
                let you = self.connect(now, newcomer);
                let connected = you.as_ref().ok().map(You::peer);
                if answer.send(you).is_err() {
                    // Its connection ended before it was welcomed.
                    if let Some(peer) = connected {
                        self.lose(now, peer);
                    }
                }
            }
            Input::FromClient(id, messages) if self.clients.contains_key(&id) => {
                for message in messages {
                    self.core.handle_client(now, id, message);
                }
            }
            Input::FromProcess(id, messages) if self.processes.contains_key(&id) => {
                for message in messages {
                    self.core.handle_process(now, id, message);
                }
            }
            Input::FromNanny(id, messages) if self.nannies.contains_key(&id) => {
                for message in messages {
                    self.core.handle_nanny(now, id, message);
                }
            }
            // Words of a peer that was closed meanwhile.
            Input::FromClient(..) | Input::FromProcess(..) | Input::FromNanny(..) => {}
            Input::LinkLost(peer) => self.lose(now, peer),
            Input::LinkBroken(peer, silent) => self.core.handle_link_broken(now, peer, silent),
            Input::LinkResumed(peer) => self.core.handle_link_resumed(now, peer),
            Input::Stalled => self.core.handle_stall(now),
            Input::ProgramStored(hash) => self.core.handle_program_stored(now, hash),
            Input::Look => {}
            Input::Stop(_) => unreachable!("a turn ends with it"),
        }
    }

    fn connect(&mut self, now: Time, newcomer: Newcomer) -> Result<You, String> {
        Ok(match newcomer {
            Newcomer::Nanny(info, returning, outbox) => {
                let (id, workers) = self.core.connect_nanny(now, info);
                self.core.handle_return(now, id, &returning);
                self.nannies.insert(id, outbox);
                You::Nanny(id, workers)
            }
            Newcomer::Process(id, contact, outbox) => {
                self.core.connect_process(now, id, contact)?;
                self.processes.insert(id, outbox);
                You::Process(id)
            }
            Newcomer::Client(info, outbox) => {
                let id = self.core.connect_client(now, info);
                self.clients.insert(id, outbox);
                You::Client(id)
            }
            Newcomer::Observer(outbox) => {
                let id = self.core.connect_observer(now);
                self.clients.insert(id, outbox);
                You::Client(id)
            }
        })
    }

    fn lose(&mut self, now: Time, peer: Peer) {
        if self.forget(peer) {
            self.core.handle_link_lost(now, peer);
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::ToClient(id, message) => {
                    let sent = put(&self.clients, &id, message);
                    self.check(sent, Peer::Client(id));
                }
                Action::ToProcess(id, message) => {
                    let sent = put(&self.processes, &id, message);
                    self.check(sent, Peer::Process(id));
                }
                Action::ToNanny(id, message) => {
                    let sent = put(&self.nannies, &id, message);
                    self.check(sent, Peer::Nanny(id));
                }
                Action::Close(peer, reason) => self.close(peer, &reason),
                Action::ForgetProgram(hash) => {
                    // The store ends only together with this thread.
                    let _ = self.forgotten.send(hash);
                }
            }
        }
    }

    fn check(&mut self, queued_bytes: usize, peer: Peer) {
        if queued_bytes > QUEUE_BYTES_MAX && !self.overfull.contains(&peer) {
            self.overfull.push(peer);
        }
    }

    /// Ends a peer's connection, once what was said before is out.
    fn close(&mut self, peer: Peer, reason: &str) {
        tracing::debug!(%peer, reason, "closing a connection");
        // A connection that has ended by itself needs no closing.
        let _ = match peer {
            Peer::Nanny(id) => self.nannies.get(&id).map(|outbox| outbox.close(reason)),
            Peer::Process(id) => self.processes.get(&id).map(|outbox| outbox.close(reason)),
            Peer::Client(id) => self.clients.get(&id).map(|outbox| outbox.close(reason)),
        };
        self.forget(peer);
    }

    /// Ends a peer's connection now, with all that waits for it.
    fn abort(&mut self, peer: Peer, reason: &str) {
        tracing::warn!(%peer, reason, "ending a connection");
        match peer {
            Peer::Nanny(id) => self.nannies.get(&id).map(|outbox| outbox.abort(reason)),
            Peer::Process(id) => self.processes.get(&id).map(|outbox| outbox.abort(reason)),
            Peer::Client(id) => self.clients.get(&id).map(|outbox| outbox.abort(reason)),
        };
        self.forget(peer);
    }

    fn forget(&mut self, peer: Peer) -> bool {
        match peer {
            Peer::Nanny(id) => self.nannies.remove(&id).is_some(),
            Peer::Process(id) => self.processes.remove(&id).is_some(),
            Peer::Client(id) => self.clients.remove(&id).is_some(),
        }
    }

    /// Nannies end their processes and leave; clients hear why.
    fn say_goodbye(&mut self, reason: &str) {
        // Connections that have ended by themselves need no goodbye.
        for outbox in self.nannies.values() {
            let _ = outbox.send(ToNanny::Exit { reason: reason.to_owned() });
            let _ = outbox.close(reason);
        }
        for outbox in self.clients.values() {
            let _ = outbox.close(reason);
        }
    }
}

/// Puts a message into a peer's queue and returns how many bytes wait there. A message to a peer
/// whose connection has just ended is dropped: the core is about to hear of that.
fn put<Id: Ord, M: Weigh>(outboxes: &BTreeMap<Id, Outbox<M>>, id: &Id, message: M) -> usize {
    let Some(outbox) = outboxes.get(id) else {
        return 0;
    };
    if outbox.send(message).is_err() {
        return 0;
    }
    outbox.queued_bytes()
}
