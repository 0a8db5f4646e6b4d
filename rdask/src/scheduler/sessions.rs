//! Who may come back: a place for each connection whose next link is welcome.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdask_core::id::Peer;
use rdask_net::PeerName;
use tokio::sync::mpsc;

use super::peers::name_of;
use crate::connection::session::Halves;

/// A link on which a peer wants to go on.
#[derive(Debug)]
pub(crate) struct NewLink {
    pub(crate) link: Halves,
    /// How many messages the peer has had.
    pub(crate) received: u64,
}

/// All connections that can be resumed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(Arc<Mutex<BTreeMap<Peer, Entry>>>);

#[derive(Debug)]
struct Entry {
    links: mpsc::Sender<NewLink>,
    /// The latest try that was taken.
    attempt: u64,
}

/// One connection's place. Nobody resumes it once this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    peer: Peer,
    sessions: Sessions,
    links: mpsc::Receiver<NewLink>,
}

/// Why a link was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The certificate is another's.
    Other,
    /// There is no such connection, or not any more.
    Fenced,
    /// There is a later try, or the one before it is being taken.
    Stale,
}

impl Sessions {
    /// A place for a peer that was welcomed.
    pub(crate) fn open(&self, peer: Peer) -> Place {
        let (sender, links) = mpsc::channel(1);
        self.lock().insert(peer, Entry { links: sender, attempt: 0 });
        Place { peer, sessions: self.clone(), links }
    }

    /// Whether a peer with this certificate may go on as `who`, on its try of this number.
    pub(crate) fn claim(
        &self,
        who: Peer,
        certificate: &PeerName,
        attempt: u64,
    ) -> Result<mpsc::Sender<NewLink>, NotTaken> {
        // A join certificate names nobody, so nobody goes on as another.
        if name_of(who, certificate.run()).as_ref() != Ok(certificate) {
            return Err(NotTaken::Other);
        }
        let mut sessions = self.lock();
        let entry = sessions.get_mut(&who).ok_or(NotTaken::Fenced)?;
        if attempt <= entry.attempt {
            return Err(NotTaken::Stale);
        }
        entry.attempt = attempt;
        Ok(entry.links.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Peer, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The next link on which the peer wants to go on.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> NewLink {
        match self.links.recv().await {
            Some(link) => link,
            // The registry has the other end for as long as the place is there.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.peer);
    }
}

#[cfg(test)]
mod tests {
    use rdask_core::id::{ClientId, ProcessId};
    use rdask_net::PeerRole;

    use super::*;

    #[test]
    fn only_the_owner_of_a_name_goes_on_under_it_and_only_by_its_latest_try() {
        let sessions = Sessions::default();
        let who = Peer::Process(ProcessId(7));
        let own = PeerName::new(PeerRole::Process, 7, "r1").unwrap();
        assert_eq!(sessions.claim(who, &own, 1).unwrap_err(), NotTaken::Fenced);
        let place = sessions.open(who);
        for other in [
            PeerName::join("r1").unwrap(),
            PeerName::scheduler("r1").unwrap(),
            PeerName::new(PeerRole::Process, 8, "r1").unwrap(),
            PeerName::new(PeerRole::Nanny, 7, "r1").unwrap(),
            PeerName::new(PeerRole::Client, 7, "r1").unwrap(),
        ] {
            assert_eq!(sessions.claim(who, &other, 1).unwrap_err(), NotTaken::Other, "{other}");
        }
        assert!(sessions.claim(who, &own, 2).is_ok());
        assert_eq!(sessions.claim(who, &own, 1).unwrap_err(), NotTaken::Stale);
        assert_eq!(sessions.claim(who, &own, 2).unwrap_err(), NotTaken::Stale);
        assert!(sessions.claim(who, &own, 3).is_ok());
        let client = PeerName::new(PeerRole::Client, 7, "r1").unwrap();
        let as_client = sessions.claim(Peer::Client(ClientId(7)), &client, 1);
        assert_eq!(as_client.unwrap_err(), NotTaken::Fenced);
        drop(place);
        assert_eq!(sessions.claim(who, &own, 4).unwrap_err(), NotTaken::Fenced);
    }
}
