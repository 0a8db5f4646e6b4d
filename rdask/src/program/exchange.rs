//! Programs over data connections: nannies fetch, clients bring.
//!
//! On a stream goes one request, one reply, then the program's bytes; requests and replies are
//! framed as on a control link. Whoever takes a program hashes what came before it believes it.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use rdask_core::id::ProgramHash;
use rdask_core::message::{DataReply, DataRequest};
use rdask_net::{DataStream, DialError, Endpoint, Target, push_frame};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::cache::{Cache, CacheError, CachedProgram, IncomingProgram};
use crate::error::chain;

/// One read from disk or network.
const PIECE_BYTES: usize = 256 << 10;

/// Requests and replies are a hash and a number, or a short text.
const HEAD_BYTES_MAX: usize = 4096;

/// A larger program is refused: the longest debug builds have a tenth of this.
pub const PROGRAM_BYTES_MAX: u64 = 8 << 30;

/// A stream on which nothing moves for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many nannies are served at the same time. More would slow all of them down; who has a
/// program already serves others.
pub const SERVED_AT_ONCE: usize = 4;

/// A program could not be fetched, brought or served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The other side can't be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The stream broke.
    #[error("the transfer broke off")]
    Stream(#[from] io::Error),
    /// Nothing moved.
    #[error("nothing has moved for {} s", PATIENCE.as_secs())]
    Stalled,
    /// The other side doesn't have it.
    #[error("it is not there")]
    NotThere,
    /// The other side said no.
    #[error("refused: {0}")]
    Refused(String),
    /// The other side sent something else.
    #[error("the answer makes no sense")]
    Nonsense,
    /// What came can't be kept.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Fetches a program into a cache; returns it and its length in bytes.
///
/// # Errors
/// See [`ExchangeError`].
pub async fn fetch(
    endpoint: &Endpoint,
    from: &Target,
    hash: ProgramHash,
    cache: &Cache,
) -> Result<(CachedProgram, u64), ExchangeError> {
    let mut stream = endpoint.open_data(from).await?;
    write_head(&mut stream, &DataRequest::GetProgram { hash }).await?;
    // The other side may be serving others first: it answers when it begins.
    let size = match read_head(&mut stream, 10 * PATIENCE).await? {
        DataReply::Follows { size } if size <= PROGRAM_BYTES_MAX => size,
        DataReply::NotHere => return Err(ExchangeError::NotThere),
        DataReply::Refused { message } => return Err(ExchangeError::Refused(message)),
        DataReply::Follows { .. }
        | DataReply::Taken
        | DataReply::Shown { .. }
        | DataReply::Connected => return Err(ExchangeError::Nonsense),
    };
    let program = take_in(&mut stream, cache.begin(hash)?, size).await?;
    Ok((program, size))
}

/// Brings this executable to the scheduler.
///
/// # Errors
/// See [`ExchangeError`].
pub async fn bring(
    endpoint: &Endpoint,
    to: &Target,
    hash: ProgramHash,
    mut file: File,
) -> Result<(), ExchangeError> {
    let size = file.metadata()?.len();
    let mut stream = endpoint.open_data(to).await?;
    write_head(&mut stream, &DataRequest::PutProgram { hash, size }).await?;
    let written = write_out(&mut stream, &mut file).await;
    // Who takes no more has said why.
    match (read_head(&mut stream, PATIENCE).await, written) {
        (Ok(DataReply::Taken), Ok(())) => Ok(()),
        (Ok(DataReply::Refused { message }), _) => Err(ExchangeError::Refused(message)),
        (Ok(_), _) => Err(ExchangeError::Nonsense),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}

/// Answers one stream, of whoever fetches.
///
/// # Errors
/// See [`ExchangeError`].
pub async fn serve(
    mut stream: DataStream,
    cache: &Cache,
    gate: &Semaphore,
) -> Result<(), ExchangeError> {
    let request = read_request(&mut stream).await?;
    answer(stream, request, cache, gate, false).await.map(drop)
}

/// What the other side of a stream wants.
///
/// # Errors
/// See [`ExchangeError`].
pub async fn read_request(stream: &mut DataStream) -> Result<DataRequest, ExchangeError> {
    read_head(stream, PATIENCE).await
}

/// Answers a request. Returns the program that was brought, if one was.
///
/// # Errors
/// See [`ExchangeError`].
pub async fn answer(
    mut stream: DataStream,
    request: DataRequest,
    cache: &Cache,
    gate: &Semaphore,
    takes_programs: bool,
) -> Result<Option<ProgramHash>, ExchangeError> {
    match request {
        DataRequest::GetProgram { hash } => {
            let _turn = gate.acquire().await.map_err(io::Error::other)?;
            let found = in_background(cache, move |cache| cache.find(hash)).await?;
            let Some(mut file) = found.and_then(|found| File::open(found.path).ok()) else {
                write_head(&mut stream, &DataReply::NotHere).await?;
                stream.finish().await?;
                return Ok(None);
            };
            let size = file.metadata()?.len();
            write_head(&mut stream, &DataReply::Follows { size }).await?;
            write_out(&mut stream, &mut file).await?;
            stream.finish().await?;
            // Until the other side has read it all, it is still being served.
            let _ = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await;
            Ok(None)
        }
        DataRequest::PutProgram { hash, size } if takes_programs && size <= PROGRAM_BYTES_MAX => {
            let taken = match cache.begin(hash) {
                Ok(incoming) => take_in(&mut stream, incoming, size).await,
                Err(error) => Err(error.into()),
            };
            let reply = match &taken {
                Ok(_) => DataReply::Taken,
                Err(error) => DataReply::Refused { message: chain(error) },
            };
            write_head(&mut stream, &reply).await?;
            stream.finish().await?;
            taken.map(|_| Some(hash))
        }
        DataRequest::Get { .. }
        | DataRequest::Put { .. }
        | DataRequest::PutShown { .. }
        | DataRequest::PutProgram { .. }
        | DataRequest::Relay { .. } => {
            let message = "this peer does not take that".to_owned();
            write_head(&mut stream, &DataReply::Refused { message }).await?;
            stream.finish().await?;
            Ok(None)
        }
    }
}

/// Runs something that waits for the disk where it delays no message.
///
/// # Errors
/// If it panicked.
pub async fn in_background<T: Send + 'static>(
    cache: &Cache,
    work: impl FnOnce(&Cache) -> T + Send + 'static,
) -> io::Result<T> {
    let cache = cache.clone();
    tokio::task::spawn_blocking(move || work(&cache)).await.map_err(io::Error::other)
}

async fn take_in(
    stream: &mut DataStream,
    mut incoming: IncomingProgram,
    size: u64,
) -> Result<CachedProgram, ExchangeError> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let count = patiently(stream.read(&mut buffer[..most])).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        incoming.write(&buffer[..count])?;
        left -= count as u64;
    }
    let finished = tokio::task::spawn_blocking(move || incoming.finish()).await;
    Ok(finished.map_err(io::Error::other)??)
}

async fn write_out(stream: &mut DataStream, file: &mut File) -> Result<(), ExchangeError> {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        piece.truncate(count);
        patiently(stream.write_bytes(Bytes::from(piece))).await?;
    }
}

async fn patiently<T>(moving: impl Future<Output = io::Result<T>>) -> Result<T, ExchangeError> {
    let moved = tokio::time::timeout(PATIENCE, moving).await;
    Ok(moved.map_err(|_| ExchangeError::Stalled)??)
}

async fn write_head(stream: &mut DataStream, head: &impl Serialize) -> Result<(), ExchangeError> {
    let encoded = postcard::to_stdvec(head).map_err(io::Error::other)?;
    let mut frame = Vec::new();
    push_frame(&mut frame, |body| body.extend_from_slice(&encoded)).map_err(io::Error::other)?;
    patiently(stream.write_all(&frame)).await
}

async fn read_head<T: DeserializeOwned>(
    stream: &mut DataStream,
    patience: Duration,
) -> Result<T, ExchangeError> {
    let read = async {
        let length = stream.read_u32_le().await? as usize;
        if length > HEAD_BYTES_MAX {
            return Err(ExchangeError::Nonsense);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        postcard::from_bytes(&body).map_err(|_| ExchangeError::Nonsense)
    };
    tokio::time::timeout(patience, read).await.map_err(|_| ExchangeError::Stalled)?
}
