//! One connected peer: greeting, certificate, welcome, and then its words to the core.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdask_core::hello::{Resumption, Role, Welcome, You};
use rdask_core::id::Peer;
use rdask_core::message::Contact;
use rdask_core::scheduler::{ClientInfo, NannyInfo};
use rdask_net::{Authority, Link, PeerName, PeerNameError, PeerRole};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::relays::Relays;
use super::sessions::{NewLink, NotTaken, Place, Sessions};
use super::shell::{Input, Newcomer};
use super::turns::{Core, Words, are_short};
use crate::connection::session::{Deliver, Halves, LinkEnd, Session};
use crate::connection::{
    ConnectionEnd, Greeted, Outbox, Weigh, answer_resumption, greet, outbox, refuse, welcome,
};

/// What every connection of a scheduler needs.
#[derive(Debug)]
pub(crate) struct Hall {
    pub(crate) authority: Arc<Authority>,
    pub(crate) epoch: u64,
    pub(crate) core: Core,
    pub(crate) sessions: Sessions,
    pub(crate) relays: Relays,
}

/// Serves one link from its first frame on: with a new connection to its end, with one that goes on
/// until that has it.
pub(crate) async fn serve(link: Link, hall: Arc<Hall>) {
    let address = link.remote_address();
    let Greeted { hello, link } = match greet(link, hall.authority.run()).await {
        Ok(greeted) => greeted,
        Err(error) => return tracing::warn!(%address, %error, "turned somebody away"),
    };
    if let Role::Resume { who, epoch, attempt, received } = hello.role {
        return resume(&hall, NewLink { link, received }, who, (epoch, attempt)).await;
    }
    let csr = hello.certificate_request;
    let visit = |who| Visit { hall, link, csr, who, listens: None };
    match hello.role {
        Role::Nanny { node, pool, pid, workers, contact, returning } => {
            let slots: u64 = workers.iter().map(|worker| u64::from(worker.slots)).sum();
            let count = workers.len();
            let who =
                format!("{count} worker(s), {slots} slot(s) on {node}, pool {pool}, pid {pid}");
            let info = NannyInfo { node, pool, workers, contact };
            let newcomer = |outbox| Newcomer::Nanny(info, returning, outbox);
            visit(who).run(newcomer, input_of_nanny).await;
        }
        Role::Process { process, pid, contact } => {
            let who = format!("process, pid {pid} at {}", address.ip());
            let visit = Visit { listens: Some(contact.clone()), ..visit(who) };
            let newcomer = |outbox| Newcomer::Process(process, contact, outbox);
            visit.run(newcomer, input_of_process).await;
        }
        Role::Client { program, surroundings, name, nested_in } => {
            let who = format!("client {name}, program {}", program.hash);
            let info = ClientInfo { program, surroundings, name, nested_in };
            visit(who).run(|outbox| Newcomer::Client(info, outbox), input_of_client).await;
        }
        Role::Observer => {
            visit(OBSERVER.to_owned()).run(Newcomer::Observer, input_of_client).await;
        }
        Role::Resume { .. } => unreachable!("it was served above"),
    }
}

/// Brings a peer's new link to its connection.
async fn resume(hall: &Hall, mut new: NewLink, who: Peer, (epoch, attempt): (u64, u64)) {
    let certificate = new.link.receiver.peer().clone();
    let claimed = if epoch == hall.epoch {
        hall.sessions.claim(who, &certificate, attempt)
    } else {
        Err(NotTaken::Fenced)
    };
    match claimed {
        // The connection may have ended in this moment, or not have taken the try before yet.
        Ok(links) => drop(links.try_send(new)),
        Err(NotTaken::Stale) => tracing::debug!(%who, attempt, "a link came too late"),
        Err(NotTaken::Fenced) => {
            tracing::info!(%who, "came back too late, and has to join anew");
            let answered = answer_resumption(&mut new.link.sender, &Resumption::Fenced).await;
            if answered.is_ok() {
                new.link.sender.close("there is no such connection any more").await;
            }
        }
        Err(NotTaken::Other) => {
            tracing::warn!(%who, %certificate, "turned away: the connection is another's");
            refuse(new.link.sender, "the connection is another's").await;
        }
    }
}

/// What the log calls those who only ask.
const OBSERVER: &str = "observer";

/// A new connection whose role is known.
struct Visit {
    hall: Arc<Hall>,
    link: Halves,
    csr: Vec<u8>,
    /// For the log.
    who: String,
    /// Where it takes data streams, if it is a process.
    listens: Option<Contact>,
}

impl Visit {
    async fn run<Out, In>(
        self,
        newcomer: impl FnOnce(Outbox<Out>) -> Newcomer,
        input_of: fn(Peer, Vec<In>) -> Option<Input>,
    ) where
        Out: Serialize + Weigh + Send,
        In: DeserializeOwned + Words + Send,
    {
        let Self { hall, mut link, csr, who, listens } = self;
        let core = &hall.core;
        let (outbox, queue) = outbox();
        // The core has the only end of the queue: the connection ends when it drops that.
        let you = match connect(core, newcomer(outbox)).await {
            Ok(you) => you,
            Err(reason) => {
                tracing::warn!(reason, "turned away: {who}");
                return refuse(link.sender, &reason).await;
            }
        };
        let peer = you.peer();
        let certificate = match sign(&hall.authority, peer, &csr) {
            Ok(certificate) => certificate,
            Err(reason) => {
                tracing::warn!(reason, "turned away: {who}");
                core.tell(Input::LinkLost(peer)).await;
                return refuse(link.sender, &reason).await;
            }
        };
        let name = name_of(peer, hall.authority.run()).ok();
        let _listed = name.map(|name| hall.relays.list(name, listens));
        let place = (who != OBSERVER).then(|| hall.sessions.open(peer));
        let answer = Welcome { epoch: hall.epoch, certificate, you };
        if let Err(error) = welcome(&mut link.sender, &answer).await {
            tracing::warn!(%error, "lost before it was welcomed: {who}");
            return core.tell(Input::LinkLost(peer)).await;
        }
        if who != OBSERVER {
            tracing::info!(%peer, "joined: {who}");
        }
        let to = ToCore { core, peer, input_of };
        let mut stay = Stay { session: Session::new(queue), place, to };
        let end = tokio::select! {
            end = stay.last(link) => end,
            // When the scheduler ends, the nanny kills it: it would answer no goodbye.
            () = core.closed(), if matches!(peer, Peer::Process(_)) => return,
        };
        match peer {
            // The core knows more of it, and says so.
            Peer::Process(_) => tracing::debug!(%peer, why = %end, "left: {who}"),
            _ if who == OBSERVER => {}
            Peer::Nanny(_) if matches!(end, ConnectionEnd::Lost(_)) => {
                tracing::warn!(%peer, why = %end, "lost without notice: {who}");
            }
            _ => tracing::info!(%peer, why = %end, "left: {who}"),
        }
        core.tell(Input::LinkLost(peer)).await;
    }
}

/// A peer's time here, over however many links.
struct Stay<'a, Out, In> {
    session: Session<Out, In>,
    /// Where its next link comes from, if it may have one.
    place: Option<Place>,
    to: ToCore<'a, In>,
}

impl<Out, In> Stay<'_, Out, In>
where
    Out: Serialize + Weigh + Send,
    In: DeserializeOwned + Words + Send,
{
    /// Carries messages over one link after the other; how the connection ended.
    async fn last(&mut self, first: Halves) -> ConnectionEnd {
        let (core, peer) = (self.to.core, self.to.peer);
        let mut link = Some(first);
        loop {
            let new = match link.take() {
                Some(link) => tokio::select! {
                    end = self.session.run(link, &mut self.to) => match end {
                        LinkEnd::Broken { why, silent } if self.place.is_some() => {
                            tracing::warn!(%peer, why, "a link broke");
                            core.tell(Input::LinkBroken(peer, silent)).await;
                            continue;
                        }
                        end => return end.into_connection_end(),
                    },
                    // The peer knows sooner than we do that the link is dead.
                    new = next_link(&mut self.place) => new,
                },
                None => tokio::select! {
                    new = next_link(&mut self.place) => new,
                    () = self.session.abandoned() => return ConnectionEnd::Fenced,
                },
            };
            link = match self.go_on(new).await {
                Ok(link) => link,
                Err(end) => return end,
            };
        }
    }

    /// Tells the peer that it may go on.
    async fn go_on(&mut self, new: NewLink) -> Result<Option<Halves>, ConnectionEnd> {
        let (core, peer) = (self.to.core, self.to.peer);
        let NewLink { mut link, received } = new;
        self.session.rewind(received)?;
        let answer = Resumption::Resumed { received: self.session.received() };
        if let Err(error) = answer_resumption(&mut link.sender, &answer).await {
            tracing::debug!(%peer, %error, "a new link broke at once");
            core.tell(Input::LinkBroken(peer, Duration::ZERO)).await;
            return Ok(None);
        }
        tracing::info!(%peer, "has a link again");
        core.tell(Input::LinkResumed(peer)).await;
        Ok(Some(link))
    }
}

async fn next_link(place: &mut Option<Place>) -> NewLink {
    match place {
        Some(place) => place.next().await,
        None => std::future::pending().await,
    }
}

/// Brings a peer's words to the core.
struct ToCore<'a, In> {
    core: &'a Core,
    peer: Peer,
    input_of: fn(Peer, Vec<In>) -> Option<Input>,
}

impl<In: Words + Send> Deliver<In> for ToCore<'_, In> {
    async fn deliver(&mut self, arrived: &mut VecDeque<In>) -> Option<u64> {
        let count = arrived.len() as u64;
        let are_short = are_short(arrived.iter());
        let input = || {
            let input = (self.input_of)(self.peer, Vec::from(std::mem::take(arrived)));
            input.expect("the core numbers peers by their role")
        };
        self.core.tell_words(are_short, input).await.then_some(count)
    }
}

fn input_of_nanny(peer: Peer, messages: Vec<rdask_core::message::FromNanny>) -> Option<Input> {
    let Peer::Nanny(id) = peer else { return None };
    Some(Input::FromNanny(id, messages))
}

fn input_of_process(peer: Peer, messages: Vec<rdask_core::message::FromProcess>) -> Option<Input> {
    let Peer::Process(id) = peer else { return None };
    Some(Input::FromProcess(id, messages))
}

fn input_of_client(peer: Peer, messages: Vec<rdask_core::message::FromClient>) -> Option<Input> {
    let Peer::Client(id) = peer else { return None };
    Some(Input::FromClient(id, messages))
}

/// Registers somebody with the core.
pub(crate) async fn connect(core: &Core, newcomer: Newcomer) -> Result<You, String> {
    let (answer, answered) = oneshot::channel();
    core.tell(Input::Connect(newcomer, answer)).await;
    answered.await.unwrap_or_else(|_| Err("the scheduler is ending".to_owned()))
}

/// What the certificate of a peer says.
pub(crate) fn name_of(peer: Peer, run: &str) -> Result<PeerName, PeerNameError> {
    let (role, id) = match peer {
        Peer::Nanny(id) => (PeerRole::Nanny, id.0),
        Peer::Process(id) => (PeerRole::Process, id.0),
        Peer::Client(id) => (PeerRole::Client, id.0),
    };
    PeerName::new(role, u64::from(id), run)
}

/// A certificate in the name that the core gave.
fn sign(authority: &Authority, peer: Peer, csr: &[u8]) -> Result<Vec<u8>, String> {
    let name = name_of(peer, authority.run()).map_err(|error| error.to_string())?;
    authority.sign(csr, &name).map_err(|error| error.to_string())
}
