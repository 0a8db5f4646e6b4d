//! Large values within a host: whoever has the bytes says where they lie, and whoever wants them
//! reads them there.
//!
//! The bytes are a value only by the word of both sides. The reader says when it has read them; the
//! other side keeps them until then, and answers that it did. If it ends, gives up or is replaced by
//! another process in between, that answer never comes, and what was read is nothing. A reader that
//! can't read there says so, and gets the bytes on the stream.

use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rdask_core::bulk::Bulk;
use rdask_core::message::{DataWord, MemoryArea};
use rdask_net::{Carrier, DataStream, Neighbour};

use super::{DataError, PATIENCE, count, read_head, read_head_within, read_value, room_for};
use super::{write_head, write_value};
use crate::codec::Received;

/// Smaller values are on the stream before two more words have gone there and back.
const SHOWN_BYTES_MIN: usize = 256 << 10;

/// Where copying is slower, the reader is taken for dead.
const BYTES_PER_SECOND_MIN: u64 = 100 << 20;

/// Threads that read one value. One is slower than memory; more than some only disturb others.
const READERS_MAX: usize = 4;

/// Whether the kernel lets us read others' memory, as far as we know. Where Yama forbids it, it logs
/// each try as an attack.
static MAY_READ: AtomicBool = AtomicBool::new(true);

/// What is worth a thread.
const READER_BYTES_MIN: usize = 8 << 20;

/// Where the bytes lie, if whoever is at the other end may be able to read them there.
pub(super) fn show(stream: &DataStream, bytes: &Bytes) -> Option<MemoryArea> {
    let is_worth_it = bytes.len() >= SHOWN_BYTES_MIN && stream.neighbour().is_some();
    is_worth_it.then(|| MemoryArea { address: bytes.as_ptr() as u64, size: bytes.len() as u64 })
}

/// Keeps what was shown until it has been read, or sends it if it can't be.
pub(super) async fn keep(stream: &mut DataStream, bytes: Bytes) -> Result<(), DataError> {
    let patience = PATIENCE + Duration::from_secs(bytes.len() as u64 / BYTES_PER_SECOND_MIN);
    match read_head_within(stream, patience).await? {
        DataWord::Read => {
            let kept = write_head(stream, &DataWord::Kept).await;
            drop(bytes);
            kept
        }
        DataWord::Unreadable => write_value(stream, bytes).await,
        DataWord::Kept => Err(DataError::Nonsense),
    }
}

/// Takes what was shown.
pub(super) async fn take(stream: &mut DataStream, at: MemoryArea) -> Result<Bulk, DataError> {
    let room = room_for(at.size)?;
    match read(stream.neighbour(), at.address, room).await {
        Ok(received) => {
            write_head(stream, &DataWord::Read).await?;
            match read_head(stream).await? {
                DataWord::Kept => Ok(count(Carrier::Memory, received)),
                DataWord::Read | DataWord::Unreadable => Err(DataError::Nonsense),
            }
        }
        Err(error) => {
            tracing::debug!(peer = %stream.peer(), %error, "its memory can't be read");
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
            {
                MAY_READ.store(false, Ordering::Relaxed);
            }
            write_head(stream, &DataWord::Unreadable).await?;
            read_value(stream, at.size).await
        }
    }
}

/// Fills the room, beside the net thread.
async fn read(from: Option<Neighbour>, address: u64, mut room: Received) -> io::Result<Received> {
    let from = from.filter(|_| MAY_READ.load(Ordering::Relaxed));
    let from = from.ok_or(io::ErrorKind::NotFound)?;
    let read = move || read_together(from, address, room.as_mut()).map(|()| room);
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

/// Each thread reads a part of its own.
fn read_together(from: Neighbour, address: u64, into: &mut [u8]) -> io::Result<()> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let readers = (into.len() / READER_BYTES_MIN).clamp(1, cores.min(READERS_MAX));
    let part_bytes = into.len().div_ceil(readers).max(1);
    thread::scope(|scope| {
        let read = |(part, into): (usize, &mut [u8])| {
            from.read(address.wrapping_add((part * part_bytes) as u64), into)
        };
        let mut parts = into.chunks_mut(part_bytes).enumerate();
        let own = parts.next();
        let spawn = |part| thread::Builder::new().spawn_scoped(scope, move || read(part));
        let others = parts.map(spawn).collect::<io::Result<Vec<_>>>()?;
        own.map_or(Ok(()), read)?;
        let join = |other: thread::ScopedJoinHandle<'_, io::Result<()>>| {
            other.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))
        };
        others.into_iter().try_for_each(join)
    })
}
