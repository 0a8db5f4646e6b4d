//! Values between peers that can't reach each other: their streams go through here.
//!
//! Whoever may open a stream to a process may ask for one by the scheduler, and only to processes
//! that are members. It is a proxy's CONNECT: bytes are copied, and nobody knows of what. It is sent
//! what it would be sent over a network, so nobody shows memory to who only carries.

mod carry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdask_core::id::ProcessId;
use rdask_core::message::{Contact, DataReply};
use rdask_net::{DataStream, Endpoint, PeerName, PeerRole};
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::turns::Core;
use crate::data::{DataError, refuse, target, write_head};
use crate::error::chain;
use carry::{BULK_MAX, carry};

/// How many streams are carried at a time. A process takes twice as many of one peer.
const CARRIED_MAX: usize = 8;

/// A process closes a stream on which no request comes; who waits longer for a place opens it anew.
const FRESH: Duration = Duration::from_secs(10);

/// Pairs that are in the log: two pools have many.
const TOLD_MAX: usize = 100;

/// The processes that can be asked for, and those who are asking. Clones are the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Relays(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    members: Mutex<BTreeMap<PeerName, Member>>,
    /// For each stream.
    places: Semaphore,
    /// For each stream with much to carry.
    bulk: Semaphore,
    /// Who was relayed to whom.
    told: Mutex<BTreeSet<(PeerName, ProcessId)>>,
}

#[derive(Debug)]
struct Member {
    /// Where it listens, if it is a process.
    contact: Option<Contact>,
    /// Dropped when it is no member any more.
    stay: watch::Sender<()>,
}

/// Somebody's entry, for as long as they are a member.
#[derive(Debug)]
pub(crate) struct Listed {
    relays: Relays,
    name: PeerName,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.relays.members().remove(&self.name);
    }
}

impl Relays {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self(Arc::new(Shared {
            endpoint,
            members: Mutex::default(),
            places: Semaphore::new(CARRIED_MAX),
            bulk: Semaphore::new(BULK_MAX),
            told: Mutex::default(),
        }))
    }

    /// Lists somebody who has become a member, and where they listen.
    pub(crate) fn list(&self, name: PeerName, contact: Option<Contact>) -> Listed {
        let (stay, _) = watch::channel(());
        self.members().insert(name.clone(), Member { contact, stay });
        Listed { relays: self.clone(), name }
    }

    /// Carries a stream to a process, until one of the ends or the scheduler has ended.
    pub(crate) async fn serve(self, mut stream: DataStream, process: ProcessId, core: Core) {
        let peer = stream.peer().clone();
        let served = tokio::select! {
            served = self.relay(&mut stream, process) => served,
            () = core.closed() => return,
        };
        if let Err(error) = served {
            // Who has what it asked for drops its stream.
            tracing::debug!(%peer, %process, %error, "a relayed stream ended");
        }
    }

    async fn relay(&self, stream: &mut DataStream, process: ProcessId) -> Result<(), DataError> {
        if !matches!(stream.peer().role(), PeerRole::Client | PeerRole::Process) {
            return refuse(stream, "only for clients and processes".to_owned()).await;
        }
        let to = PeerName::new(PeerRole::Process, u64::from(process.0), stream.peer().run())?;
        let Some((Some(contact), asked)) = self.stay(&to) else {
            return refuse(stream, format!("{process} has gone")).await;
        };
        // A process that has come back under a new name may still ask under the old one.
        let asking = self.stay(stream.peer()).map(|(_, stay)| stay);
        let mut has_gone = pin!(async {
            tokio::select! {
                () = gone(Some(asked)) => {}
                () = gone(asking) => {}
            }
        });
        let connected = tokio::select! {
            connected = self.connect(process, &contact) => connected,
            () = &mut has_gone => return refuse(stream, format!("{process} has gone")).await,
            // It waits for an answer and says nothing, unless it gives up.
            _ = stream.read_u8() => return Ok(()),
        };
        let (mut to, _place) = match connected {
            Ok(connected) => connected,
            Err(error) => return refuse(stream, chain(&error)).await,
        };
        self.tell(stream.peer(), process);
        write_head(stream, &DataReply::Connected).await?;
        tokio::select! {
            carried = carry(stream, &mut to, &self.0.bulk) => Ok(carried?),
            () = has_gone => Ok(()),
        }
    }

    /// A stream to a process, and a place to carry it. Never by a socket of this host: the process
    /// would take who asks for a neighbour.
    async fn connect(
        &self,
        process: ProcessId,
        contact: &Contact,
    ) -> Result<(DataStream, SemaphorePermit<'_>), DataError> {
        let to = target(&self.0.endpoint, contact, process)?;
        let mut place = pin!(self.0.places.acquire());
        loop {
            let stream = self.0.endpoint.open_data_by_network(&to).await?;
            if let Ok(place) = tokio::time::timeout(FRESH, &mut place).await {
                return Ok((stream, place.map_err(std::io::Error::other)?));
            }
        }
    }

    /// Where somebody listens, and what resolves when they are no member any more.
    fn stay(&self, name: &PeerName) -> Option<(Option<Contact>, watch::Receiver<()>)> {
        let members = self.members();
        members.get(name).map(|one| (one.contact.clone(), one.stay.subscribe()))
    }

    /// Says who needs this, once.
    fn tell(&self, peer: &PeerName, process: ProcessId) {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD_MAX && told.insert((peer.clone(), process)) {
            let more = if told.len() == TOLD_MAX { "; further pairs are not named" } else { "" };
            tracing::warn!(
                "relays values between {peer} and {process}, which can't reach each other; see \
                 docs/operations.md{more}"
            );
        }
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<PeerName, Member>> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when somebody is no member any more, if it is known who.
async fn gone(stay: Option<watch::Receiver<()>>) {
    match stay {
        Some(mut stay) => drop(stay.changed().await),
        None => std::future::pending().await,
    }
}
