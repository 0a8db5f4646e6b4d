//! The way between two peers of one host: a Unix socket beside their data connection.
//!
//! Values that stay on a host need no packets and no encryption; the kernel carries them at the
//! speed of memory. Whoever listens for data also listens on a Unix socket that is named after
//! itself. The name is an abstract one: it is no file, nobody else can have it at the same time,
//! and it is gone with its process, however that ends. Whoever has a data connection to a peer
//! tries that name. It is not there if the peer is on another host, or in another container: the
//! data connection carries the values then.
//!
//! Who is at the other end is known three times over. Both sides ask the kernel, and talk to their
//! own user only. And both show a proof that only the two ends of the data connection can know, as
//! it comes from the keys of that connection: so certificates of the run, and the exact names in
//! them, hold here, too, and a socket of an earlier or another run proves nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::accept::{ACCEPT_PAUSE, Incoming};
use crate::data_stream::DataStream;
use crate::identity::Identity;
use crate::peer_name::{PeerName, PeerRole};
use crate::transport::DATA_STREAMS;

/// What the exported keys are for, as TLS wants to be told.
const LABEL: &[u8] = b"EXPORTER-rdask-local";

const PROOF_BYTES: usize = 32;

/// From connecting to the proof of the other side. A busy net thread takes milliseconds.
const GREETING_TIME_MAX: Duration = Duration::from_secs(2);

/// Greetings at a time: those of 16 streams from each of some peers. Others are turned away, and
/// take their data connection.
const GREETINGS_MAX: usize = 256;

/// Streams that an endpoint serves at a time; each takes a file descriptor, of which a process often
/// has 1,024.
const SEATS_MAX: usize = 256;

/// Who can't have its name tries again after so long. Somebody has taken it, or there is no way to
/// have one.
const BIND_PAUSE: Duration = Duration::from_secs(1);

/// What the kernel may hold for a reader. With the usual 208 KiB the two sides wait for each other
/// twenty times as often.
const BUFFER_BYTES: usize = 4 << 20;

type Proof = [u8; PROOF_BYTES];

/// What the two ends of a data connection can prove to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proofs {
    dialer: Proof,
    acceptor: Proof,
}

impl Proofs {
    /// None if the connection has no keys yet, which is never so after its handshake.
    pub(crate) fn of(connection: &quinn::Connection) -> Option<Self> {
        let export = |side: &[u8]| {
            let mut proof = [0; PROOF_BYTES];
            connection.export_keying_material(&mut proof, LABEL, side).ok()?;
            Some(proof)
        };
        Some(Self { dialer: export(b"dialer")?, acceptor: export(b"acceptor")? })
    }
}

/// Compares in a time that says nothing about where the two differ.
fn same(one: &Proof, other: &Proof) -> bool {
    one.iter().zip(other).fold(0, |differing, (one, other)| differing | (one ^ other)) == 0
}

/// Those who have a data connection to this endpoint, and so may use its socket.
#[derive(Clone)]
pub(crate) struct Guests {
    invited: Arc<watch::Sender<BTreeMap<PeerName, Vec<Guest>>>>,
    /// Streams at a time of all of them.
    seats: Arc<Semaphore>,
}

#[derive(Clone)]
struct Guest {
    proofs: Proofs,
    /// Its streams at a time. Twice as many as it may open, since it hears of an end first.
    seats: Arc<Semaphore>,
}

impl Default for Guests {
    fn default() -> Self {
        Self::with_seats(SEATS_MAX)
    }
}

impl Guests {
    fn with_seats(seats: usize) -> Self {
        let seats = Arc::new(Semaphore::new(seats));
        Self { invited: Arc::new(watch::Sender::default()), seats }
    }

    /// Lets the dialer of a data connection in for as long as the invitation is kept.
    pub(crate) fn invite(&self, peer: &PeerName, proofs: Proofs) -> Invitation {
        let guest = Guest { proofs, seats: Arc::new(Semaphore::new(2 * DATA_STREAMS as usize)) };
        self.invited.send_modify(|guests| guests.entry(peer.clone()).or_default().push(guest));
        Invitation { guests: self.clone(), peer: peer.clone(), proofs }
    }

    /// The guest with this name and proof. Waits until it is there: a dialer may be here before
    /// its data connection has been taken in.
    async fn find(&self, peer: &PeerName, proof: &Proof) -> Option<Guest> {
        let mut changes = self.invited.subscribe();
        let is_it = |guest: &&Guest| same(&guest.proofs.dialer, proof);
        let found = |guests: &BTreeMap<PeerName, Vec<Guest>>| {
            guests.get(peer).and_then(|guests| guests.iter().find(is_it)).cloned()
        };
        let mut guest = None;
        let waited = changes.wait_for(|guests| {
            guest = found(guests);
            guest.is_some()
        });
        waited.await.ok()?;
        guest
    }
}

/// A data connection's right to the socket beside it.
pub(crate) struct Invitation {
    guests: Guests,
    peer: PeerName,
    proofs: Proofs,
}

impl Drop for Invitation {
    fn drop(&mut self) {
        self.guests.invited.send_modify(|guests| {
            if let Some(with_name) = guests.get_mut(&self.peer) {
                with_name.retain(|guest| guest.proofs != self.proofs);
                if with_name.is_empty() {
                    guests.remove(&self.peer);
                }
            }
        });
    }
}

/// Connects to a peer of this host to which there is a data connection with these proofs.
pub(crate) async fn dial(
    own: &PeerName,
    peer: &PeerName,
    proofs: &Proofs,
) -> io::Result<UnixStream> {
    let greeted = tokio::time::timeout(GREETING_TIME_MAX, async {
        let mut stream = UnixStream::connect(name_of(peer)).await?;
        tune(&stream)?;
        let own = own.to_string();
        let mut greeting = vec![u8::try_from(own.len()).map_err(io::Error::other)?];
        greeting.extend_from_slice(own.as_bytes());
        greeting.extend_from_slice(&proofs.dialer);
        stream.write_all(&greeting).await?;
        let mut proof = [0; PROOF_BYTES];
        stream.read_exact(&mut proof).await?;
        if !same(&proof, &proofs.acceptor) {
            return Err(denied("somebody else has the peer's name".to_owned()));
        }
        Ok(stream)
    });
    greeted.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Serves the socket of whoever the endpoint is, until its task is dropped.
pub(crate) async fn accept(
    mut identity: watch::Receiver<Identity>,
    guests: Guests,
    incoming: mpsc::Sender<Incoming>,
) {
    loop {
        let own = identity.borrow_and_update().name().clone();
        tokio::select! {
            () = accept_as(&own, &guests, &incoming) => {}
            changed = identity.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn accept_as(own: &PeerName, guests: &Guests, incoming: &mpsc::Sender<Incoming>) {
    // Who only joins is not dialled.
    let listener = match own.role() {
        PeerRole::Join => return std::future::pending().await,
        _ => UnixListener::bind(name_of(own)),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::debug!(%own, %error, "values go over the network within this host, for now");
            return tokio::time::sleep(BIND_PAUSE).await;
        }
    };
    let mut greetings = JoinSet::new();
    loop {
        while greetings.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                // Other users take no place of those who may come in.
                if let Err(error) = tune(&stream) {
                    tracing::debug!(%error, "a local peer was turned away");
                } else if greetings.len() < GREETINGS_MAX {
                    greetings.spawn(welcome(stream, guests.clone(), incoming.clone()));
                } else {
                    tracing::debug!("too many greetings at a time");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a local connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn welcome(stream: UnixStream, guests: Guests, incoming: mpsc::Sender<Incoming>) {
    match tokio::time::timeout(GREETING_TIME_MAX, greet(stream, &guests)).await {
        Ok(Ok((stream, peer))) => {
            // Fails only while the endpoint closes.
            let _ = incoming.send(Incoming::Data { stream, peer }).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a local peer was turned away"),
        Err(_) => tracing::debug!("a local peer was turned away: no proof in time"),
    }
}

/// Finds out who connected.
async fn greet(mut stream: UnixStream, guests: &Guests) -> io::Result<(DataStream, PeerName)> {
    let mut name = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut name).await?;
    let mut proof = [0; PROOF_BYTES];
    stream.read_exact(&mut proof).await?;
    let name = std::str::from_utf8(&name).map_err(io::Error::other)?;
    let peer: PeerName = name.parse().map_err(io::Error::other)?;
    let gone = || io::Error::other("its data connection is gone");
    let guest = guests.find(&peer, &proof).await.ok_or_else(gone)?;
    let seat = guest.seats.try_acquire_owned().map_err(io::Error::other)?;
    let seats = [seat, guests.seats.clone().try_acquire_owned().map_err(io::Error::other)?];
    stream.write_all(&guest.proofs.acceptor).await?;
    Ok((DataStream::local(stream, Place::Seats(seats), peer.clone()), peer))
}

/// What a local stream holds while it is open.
#[derive(Debug)]
pub(crate) enum Place {
    /// Of the dialer: its data connection stays, and of its streams this is one.
    Lease(
        #[expect(dead_code, reason = "held")] crate::pool::Lease,
        #[expect(dead_code, reason = "held")] OwnedSemaphorePermit,
    ),
    /// Of the acceptor: one of those that a guest may have, and one of all guests'.
    Seats(#[expect(dead_code, reason = "held")] [OwnedSemaphorePermit; 2]),
}

/// Refuses other users, and raises the buffer.
fn tune(stream: &UnixStream) -> io::Result<()> {
    // As the kernel noted it when the other side connected, or began to listen.
    let (user, own) = (stream.peer_cred()?.uid(), nix::unistd::geteuid().as_raw());
    if user != own {
        return Err(denied(format!("it is of user {user}, not {own}")));
    }
    SockRef::from(stream).set_send_buffer_size(BUFFER_BYTES)
}

/// Whoever it is, it is not the peer, and will not be.
fn denied(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// The abstract name of a peer's socket. It has the run in it.
fn name_of(peer: &PeerName) -> String {
    format!("\0{peer}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u64) -> PeerName {
        PeerName::new(PeerRole::Process, id, "r1").unwrap()
    }

    fn proofs(seed: u8) -> Proofs {
        Proofs { dialer: [seed; PROOF_BYTES], acceptor: [seed + 1; PROOF_BYTES] }
    }

    #[tokio::test]
    async fn a_guest_is_known_by_name_and_proof_while_it_is_invited() {
        let guests = Guests::default();
        let invitation = guests.invite(&peer(1), proofs(10));
        let other = guests.invite(&peer(1), proofs(20));
        assert!(guests.find(&peer(1), &[10; PROOF_BYTES]).await.is_some());
        drop(invitation);
        assert!(guests.find(&peer(1), &[20; PROOF_BYTES]).await.is_some());
        for (id, proof) in [(1, [10; PROOF_BYTES]), (2, [20; PROOF_BYTES]), (1, [21; PROOF_BYTES])]
        {
            let id = peer(id);
            tokio::select! {
                biased;
                guest = guests.find(&id, &proof) => assert!(guest.is_none(), "{id} came in"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(other);
        assert!(guests.invited.borrow().is_empty());
    }

    /// A stream of a guest, if there is a seat for it.
    async fn sit(guests: &Guests, id: u64, seed: u8) -> io::Result<DataStream> {
        let (mut near, far) = UnixStream::pair().unwrap();
        let name = peer(id).to_string();
        near.write_all(&[name.len() as u8]).await.unwrap();
        near.write_all(name.as_bytes()).await.unwrap();
        near.write_all(&proofs(seed).dialer).await.unwrap();
        let (stream, known) = greet(far, guests).await?;
        assert_eq!(known, peer(id));
        let mut proof = [0; PROOF_BYTES];
        near.read_exact(&mut proof).await.unwrap();
        assert_eq!(proof, proofs(seed).acceptor);
        Ok(stream)
    }

    #[tokio::test]
    async fn seats_of_one_guest_and_of_all_are_counted() {
        const ONES: usize = 2 * DATA_STREAMS as usize;
        let guests = Guests::with_seats(ONES + 1);
        let _first = guests.invite(&peer(1), proofs(10));
        let _second = guests.invite(&peer(2), proofs(20));
        let mut streams = Vec::new();
        for _ in 0..ONES {
            streams.push(sit(&guests, 1, 10).await.unwrap());
        }
        sit(&guests, 1, 10).await.expect_err("it has all seats of a guest");
        let second = sit(&guests, 2, 20).await.unwrap();
        sit(&guests, 2, 20).await.expect_err("all seats are taken");
        drop(second);
        sit(&guests, 2, 20).await.unwrap();
    }

    #[tokio::test]
    async fn who_comes_before_its_connection_waits_for_it() {
        let guests = Guests::default();
        let (one, proof) = (peer(1), [10; PROOF_BYTES]);
        let (found, _invitation) = tokio::join!(guests.find(&one, &proof), async {
            tokio::task::yield_now().await;
            guests.invite(&one, proofs(10))
        });
        assert!(found.is_some());
    }
}
