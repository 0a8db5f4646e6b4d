//! Values over data streams, both ends: one request, one reply, then raw bytes.
//!
//! Requests and replies are framed as on control links and bounded to a few kilobytes. Whoever
//! sends bytes sends exactly as many as it announced; whoever reads them takes no more than it
//! allows. A stream on which nothing moves is given up.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rdask_core::bulk::Bulk;
use rdask_core::id::{AssignmentId, ProcessId, TaskId};
use rdask_core::message::{Contact, DataReply, DataRequest};
pub use rdask_net::Carrier;
use rdask_net::{
    DataStream, DialError, Endpoint, FrameTooLong, PeerName, PeerNameError, PeerRole, Target,
    push_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::task::yield_now;

use crate::codec::Received;

mod fill;
mod in_place;
mod route;

pub use route::Routes;

/// A stream on which nothing moves for so long is given up. A holder may need some seconds to
/// encode; one that is suspended longer than this is about to be fenced.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Requests and replies are a few numbers or a short text.
const HEAD_BYTES_MAX: usize = 4096;

/// How much of a refusal's reason travels.
const REASON_BYTES_MAX: usize = 2000;

/// One write, or read. Each piece has the whole patience, so that slow links are no dead ones; and
/// between two the net thread looks after others, since a local socket never makes it wait.
const PIECE_BYTES: usize = 256 * 1024;

/// From here on it is worth a thread that puts the bytes of a value where they belong.
const FILLED_BESIDE_BYTES_MIN: u64 = 4 << 20;

/// The longest value. Longer ones would be refused by the memory of any worker today.
pub const VALUE_BYTES_MAX: u64 = 1 << 38;

/// A value could not be got, put or served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// The holder can't be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Neither can the scheduler.
    #[error("{direct}; nor does the scheduler help: {relay}")]
    Unreachable {
        /// Why it can't be reached from here.
        direct: DialError,
        /// Why not by the scheduler.
        relay: Box<Self>,
    },
    /// The scheduler carries no stream to the holder.
    #[error("it is not relayed: {0}")]
    NotRelayed(String),
    /// The holder's name can't be formed.
    #[error(transparent)]
    Name(#[from] PeerNameError),
    /// The stream broke.
    #[error("the transfer broke off")]
    Stream(#[from] io::Error),
    /// Nothing moved.
    #[error("nothing has moved for {} s", PATIENCE.as_secs())]
    Stalled,
    /// The holder doesn't have the value.
    #[error("it is not there")]
    NotHere,
    /// The other side said no.
    #[error("refused: {0}")]
    Refused(String),
    /// A value is longer than anything we take.
    #[error("{0} bytes are more than a value may have")]
    TooLong(u64),
    /// There is no memory for the value.
    #[error("no memory for {0} bytes")]
    NoMemory(u64),
    /// The other side sent something else than it should.
    #[error("the other side's words make no sense")]
    Nonsense,
}

impl DataError {
    /// Whether it is what the other side said.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::NotHere | Self::Refused(_))
    }
}

impl From<FrameTooLong> for DataError {
    fn from(_: FrameTooLong) -> Self {
        Self::Nonsense
    }
}

/// Where a process of this endpoint's run listens.
pub(crate) fn target(
    endpoint: &Endpoint,
    contact: &Contact,
    process: ProcessId,
) -> Result<Target, DataError> {
    let identity = endpoint.identity();
    let run = identity.name().run();
    Ok(Target {
        quic: contact.quic.clone(),
        tls: contact.tls.clone(),
        name: PeerName::new(PeerRole::Process, u64::from(process.0), run)?,
    })
}

/// Gets a value's encoded bytes from a holder.
///
/// # Errors
/// See [`DataError`].
pub async fn get(
    routes: &Routes,
    contact: &Contact,
    holder: ProcessId,
    task: TaskId,
    part: u16,
) -> Result<Bulk, DataError> {
    let mut stream = routes.open(contact, holder).await?;
    write_head(&mut stream, &DataRequest::Get { task, part }).await?;
    match read_head(&mut stream).await? {
        DataReply::Follows { size } => read_value(&mut stream, size).await,
        DataReply::Shown { at } => in_place::take(&mut stream, at).await,
        other => Err(unwanted(other)),
    }
}

/// A value to be put with a process, as the scheduler said.
#[derive(Clone, Debug)]
pub struct Put {
    /// Whose result it is.
    pub task: TaskId,
    /// As the scheduler named it.
    pub assignment: AssignmentId,
    /// The encoded value.
    pub bytes: Bytes,
}

/// Puts a value with a process.
///
/// # Errors
/// See [`DataError`].
pub async fn put(
    routes: &Routes,
    contact: &Contact,
    process: ProcessId,
    put: Put,
) -> Result<(), DataError> {
    let mut stream = routes.open(contact, process).await?;
    let Put { task, assignment, bytes } = put;
    if let Some(at) = in_place::show(&stream, &bytes) {
        write_head(&mut stream, &DataRequest::PutShown { task, assignment, at }).await?;
        in_place::keep(&mut stream, bytes).await?;
    } else {
        let size = bytes.len() as u64;
        write_head(&mut stream, &DataRequest::Put { task, assignment, size }).await?;
        write_value(&mut stream, bytes).await?;
    }
    match read_head(&mut stream).await? {
        DataReply::Taken => Ok(()),
        other => Err(unwanted(other)),
    }
}

/// What a reply says that is not what was asked for.
fn unwanted(reply: DataReply) -> DataError {
    match reply {
        DataReply::NotHere => DataError::NotHere,
        DataReply::Refused { message } => DataError::Refused(message),
        DataReply::Follows { .. }
        | DataReply::Taken
        | DataReply::Shown { .. }
        | DataReply::Connected => DataError::Nonsense,
    }
}

/// Who has values and takes values.
pub trait DataHandler: Sync {
    /// The encoded bytes of a value, `None` if it is not here.
    ///
    /// # Errors
    /// If it can't be given: the text says why.
    fn value(
        &self,
        task: TaskId,
        part: u16,
    ) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;

    /// Takes the encoded bytes of a value.
    ///
    /// # Errors
    /// If it isn't taken: the text says why.
    fn put(
        &self,
        task: TaskId,
        assignment: AssignmentId,
        bytes: Bulk,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// Answers one stream.
///
/// # Errors
/// See [`DataError`]; the other side sees that the stream ended.
pub async fn serve(stream: DataStream, handler: &impl DataHandler) -> Result<(), DataError> {
    // The scheduler wants no values for itself.
    let is_relayed = stream.peer().role() == PeerRole::Scheduler;
    let mut stream = if is_relayed { stream.into_relayed() } else { stream };
    match read_head(&mut stream).await? {
        DataRequest::Get { task, part } => match handler.value(task, part).await {
            Ok(Some(bytes)) => give(&mut stream, bytes).await?,
            Ok(None) => write_head(&mut stream, &DataReply::NotHere).await?,
            Err(reason) => refuse(&mut stream, reason).await?,
        },
        DataRequest::Put { task, assignment, size } => {
            let bytes = read_value(&mut stream, size).await?;
            take_in(&mut stream, handler, (task, assignment, bytes)).await?;
        }
        DataRequest::PutShown { task, assignment, at } => {
            let bytes = in_place::take(&mut stream, at).await?;
            take_in(&mut stream, handler, (task, assignment, bytes)).await?;
        }
        DataRequest::GetProgram { .. } | DataRequest::PutProgram { .. } => {
            refuse(&mut stream, "programs are with nannies".to_owned()).await?;
        }
        DataRequest::Relay { .. } => {
            refuse(&mut stream, "the scheduler relays".to_owned()).await?;
        }
    }
    in_time(stream.finish()).await?.map_err(DataError::from)
}

async fn give(stream: &mut DataStream, bytes: Bytes) -> Result<(), DataError> {
    if let Some(at) = in_place::show(stream, &bytes) {
        write_head(stream, &DataReply::Shown { at }).await?;
        return in_place::keep(stream, bytes).await;
    }
    let size = bytes.len() as u64;
    write_head(stream, &DataReply::Follows { size }).await?;
    write_value(stream, bytes).await
}

async fn take_in(
    stream: &mut DataStream,
    handler: &impl DataHandler,
    (task, assignment, bytes): (TaskId, AssignmentId, Bulk),
) -> Result<(), DataError> {
    match handler.put(task, assignment, bytes).await {
        Ok(()) => write_head(stream, &DataReply::Taken).await,
        Err(reason) => refuse(stream, reason).await,
    }
}

pub(crate) async fn refuse(stream: &mut DataStream, mut reason: String) -> Result<(), DataError> {
    let mut cut = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(cut) {
        cut -= 1;
    }
    reason.truncate(cut);
    write_head(stream, &DataReply::Refused { message: reason }).await
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, DataError> {
    let timed = tokio::time::timeout(PATIENCE, work).await;
    timed.map_err(|_| DataError::Stalled)
}

pub(crate) async fn write_head(
    stream: &mut DataStream,
    head: &impl Serialize,
) -> Result<(), DataError> {
    let body = postcard::to_allocvec(head).map_err(|_| DataError::Nonsense)?;
    let mut frame = Vec::new();
    push_frame(&mut frame, |buffer| buffer.extend_from_slice(&body))?;
    in_time(stream.write_bytes(frame.into())).await??;
    Ok(())
}

async fn read_head<T: DeserializeOwned>(stream: &mut DataStream) -> Result<T, DataError> {
    read_head_within(stream, PATIENCE).await
}

/// Waits so long for it to begin.
async fn read_head_within<T: DeserializeOwned>(
    stream: &mut DataStream,
    patience: Duration,
) -> Result<T, DataError> {
    let mut length = [0; 4];
    let began = tokio::time::timeout(patience, stream.read_exact(&mut length)).await;
    began.map_err(|_| DataError::Stalled)??;
    let length = u32::from_le_bytes(length) as usize;
    if length > HEAD_BYTES_MAX {
        return Err(DataError::Nonsense);
    }
    let mut body = vec![0; length];
    in_time(stream.read_exact(&mut body)).await??;
    postcard::from_bytes(&body).map_err(|_| DataError::Nonsense)
}

async fn write_value(stream: &mut DataStream, mut bytes: Bytes) -> Result<(), DataError> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
        in_time(stream.write_bytes(piece)).await??;
        yield_now().await;
    }
    Ok(())
}

/// Room for an announced value. A large one costs addresses, but no memory until bytes are there.
fn room_for(size: u64) -> Result<Received, DataError> {
    if size > VALUE_BYTES_MAX {
        return Err(DataError::TooLong(size));
    }
    let bytes = usize::try_from(size).map_err(|_| DataError::TooLong(size))?;
    Received::zeros(bytes).map_err(|_| DataError::NoMemory(size))
}

async fn read_value(stream: &mut DataStream, size: u64) -> Result<Bulk, DataError> {
    let mut received = room_for(size)?;
    let carrier = stream.carrier();
    if matches!(carrier, Carrier::Quic | Carrier::Relay) && size >= FILLED_BESIDE_BYTES_MIN {
        return Ok(count(carrier, fill::beside(stream, received).await?));
    }
    for piece in received.as_mut().chunks_mut(PIECE_BYTES) {
        in_time(stream.read_exact(piece)).await??;
        yield_now().await;
    }
    Ok(count(carrier, received))
}

fn count(carrier: Carrier, received: Received) -> Bulk {
    let size = received.as_ref().len() as u64;
    RECEIVED[carrier as usize].fetch_add(size, Ordering::Relaxed);
    Bulk::in_memory(received)
}

/// Bytes of values by carrier.
static RECEIVED: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

/// How many bytes of values this OS process has received by a carrier, so that whoever measures can
/// tell which way they took.
pub fn bytes_received(carrier: Carrier) -> u64 {
    RECEIVED[carrier as usize].load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
