//! One connected peer: greeting, certificate, welcome, and then its words to the core.

use std::sync::Arc;

use rdask_core::hello::{Role, Welcome, You};
use rdask_core::id::Peer;
use rdask_core::scheduler::{ClientInfo, NannyInfo};
use rdask_net::{Authority, FrameReceiver, FrameSender, Link, PeerName, PeerRole};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::core_thread::{Input, Newcomer};
use crate::connection::{
    ConnectionEnd, Greeted, MessageReader, Outbox, Weigh, greet, outbox, refuse, welcome,
    write_messages,
};

/// What every connection of a scheduler needs.
#[derive(Debug)]
pub(crate) struct Hall {
    pub(crate) authority: Arc<Authority>,
    pub(crate) epoch: u64,
    pub(crate) core: mpsc::Sender<Input>,
}

/// Serves one link from its first frame to its end.
pub(crate) async fn serve(link: Link, hall: Arc<Hall>) {
    let address = link.remote_address();
    let Greeted { hello, sender, receiver } = match greet(link, hall.authority.run()).await {
        Ok(greeted) => greeted,
        Err(error) => return tracing::warn!(%address, %error, "turned somebody away"),
    };
    let csr = hello.certificate_request;
    let visit = |who| Visit { hall, sender, receiver, csr, who };
    match hello.role {
        Role::Nanny { node, pool, pid, workers, contact } => {
            let slots: u64 = workers.iter().map(|worker| u64::from(worker.slots)).sum();
            let count = workers.len();
            let who =
                format!("{count} worker(s), {slots} slot(s) on {node}, pool {pool}, pid {pid}");
            let info = NannyInfo { node, pool, workers, contact };
            visit(who).run(|outbox| Newcomer::Nanny(info, outbox), input_of_nanny).await;
        }
        Role::Process { process, pid, contact } => {
            let newcomer = |outbox| Newcomer::Process(process, contact, outbox);
            let who = format!("process, pid {pid} at {}", address.ip());
            visit(who).run(newcomer, input_of_process).await;
        }
        Role::Client { program, surroundings, name, nested_in } => {
            let who = format!("client {name}, program {}", program.hash);
            let info = ClientInfo { program, surroundings, name, nested_in };
            visit(who).run(|outbox| Newcomer::Client(info, outbox), input_of_client).await;
        }
        Role::Observer => {
            visit("observer".to_owned()).run(Newcomer::Observer, input_of_client).await;
        }
    }
}

/// A connection whose role is known.
struct Visit {
    hall: Arc<Hall>,
    sender: FrameSender,
    receiver: FrameReceiver,
    csr: Vec<u8>,
    /// For the log.
    who: String,
}

impl Visit {
    async fn run<Out, In>(
        mut self,
        newcomer: impl FnOnce(Outbox<Out>) -> Newcomer,
        input_of: fn(Peer, Vec<In>) -> Option<Input>,
    ) where
        Out: Serialize + Weigh + Send + 'static,
        In: DeserializeOwned,
    {
        let who = self.who;
        let core = &self.hall.core;
        let (outbox, queue) = outbox();
        let you = match connect(core, newcomer(outbox.clone())).await {
            Ok(you) => you,
            Err(reason) => {
                tracing::warn!(reason, "turned away: {who}");
                return refuse(self.sender, &reason).await;
            }
        };
        let peer = peer_of(&you);
        let certificate = match sign(&self.hall.authority, peer, &self.csr) {
            Ok(certificate) => certificate,
            Err(reason) => {
                tracing::warn!(reason, "turned away: {who}");
                tell(core, Input::LinkLost(peer)).await;
                return refuse(self.sender, &reason).await;
            }
        };
        let answer = Welcome { epoch: self.hall.epoch, certificate, you };
        if let Err(error) = welcome(&mut self.sender, &answer).await {
            tracing::warn!(%error, "lost before it was welcomed: {who}");
            return tell(core, Input::LinkLost(peer)).await;
        }
        let quiet = who == "observer";
        if !quiet {
            tracing::info!(%peer, "joined: {who}");
        }
        let writer = tokio::spawn(write_messages(self.sender, queue));
        let reader = MessageReader::new(self.receiver);
        let end = tokio::select! {
            end = listen(core, peer, reader, input_of) => end,
            // When the scheduler ends, the nanny kills it: it would answer no goodbye.
            () = core.closed(), if matches!(peer, Peer::Process(_)) => {
                return writer.abort();
            }
        };
        if end == ConnectionEnd::Garbled {
            // It may have gone already.
            let _ = outbox.close("you sent a message that does not decode; versions may differ");
        }
        match peer {
            // The core knows more of it, and says so.
            Peer::Process(_) => tracing::debug!(%peer, why = %end, "left: {who}"),
            _ if quiet => {}
            Peer::Nanny(_) if matches!(end, ConnectionEnd::Lost(_)) => {
                tracing::warn!(%peer, why = %end, "lost without notice: {who}");
            }
            _ => tracing::info!(%peer, why = %end, "left: {who}"),
        }
        tell(core, Input::LinkLost(peer)).await;
        // The core has dropped its end of the queue by then, so that the writer ends too.
        drop(outbox);
        if let Err(error) = writer.await {
            tracing::error!(%peer, %error, "the task that writes to a peer panicked");
        }
    }
}

/// Brings a peer's words to the core until its link ends.
async fn listen<In: DeserializeOwned>(
    core: &mpsc::Sender<Input>,
    peer: Peer,
    mut reader: MessageReader<In>,
    input_of: fn(Peer, Vec<In>) -> Option<Input>,
) -> ConnectionEnd {
    loop {
        let messages = match reader.next().await {
            Ok(messages) => messages,
            Err(end) => return end,
        };
        let input = input_of(peer, messages).expect("the core numbers peers by their role");
        if core.send(input).await.is_err() {
            return ConnectionEnd::Here;
        }
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
pub(crate) async fn connect(core: &mpsc::Sender<Input>, newcomer: Newcomer) -> Result<You, String> {
    let (answer, answered) = oneshot::channel();
    tell(core, Input::Connect(newcomer, answer)).await;
    answered.await.unwrap_or_else(|_| Err("the scheduler is ending".to_owned()))
}

/// Tells the core something that is of no use to anybody if the core has ended.
pub(crate) async fn tell(core: &mpsc::Sender<Input>, input: Input) {
    if core.send(input).await.is_err() {
        tracing::debug!("the core has ended");
    }
}

pub(crate) fn peer_of(you: &You) -> Peer {
    match you {
        You::Nanny(id, _) => Peer::Nanny(*id),
        You::Process(id) => Peer::Process(*id),
        You::Client(id) => Peer::Client(*id),
    }
}

/// A certificate in the name that the core gave.
fn sign(authority: &Authority, peer: Peer, csr: &[u8]) -> Result<Vec<u8>, String> {
    let (role, id) = match peer {
        Peer::Nanny(id) => (PeerRole::Nanny, id.0),
        Peer::Process(id) => (PeerRole::Process, id.0),
        Peer::Client(id) => (PeerRole::Client, id.0),
    };
    let name = PeerName::new(role, u64::from(id), authority.run()).map_err(|e| e.to_string())?;
    authority.sign(csr, &name).map_err(|error| error.to_string())
}
