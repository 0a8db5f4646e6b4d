//! Filling the memory of a large value, beside the thread that receives it.
//!
//! The net thread has enough to do with a packet: take it from the kernel and decrypt it. To put its
//! bytes where the value is to be takes as long again, most of it for memory that is touched for the
//! first time. A thread of its own does that.

use std::io;

use bytes::Bytes;
use rdask_net::DataStream;
use tokio::sync::mpsc;

use super::{DataError, in_time};
use crate::codec::Received;

/// Chunks that are taken at once. A chunk is a packet's, so these are 2 MiB at most.
const CHUNKS_MAX: usize = 32;

/// How often so much may wait for the thread that fills.
const WAITING_MAX: usize = 2;

/// Fills the room with what comes on the stream.
pub(super) async fn beside(
    stream: &mut DataStream,
    mut room: Received,
) -> Result<Received, DataError> {
    let mut left = room.as_ref().len();
    let (sender, mut waiting) = mpsc::channel::<Vec<Bytes>>(WAITING_MAX);
    let filling = tokio::task::spawn_blocking(move || {
        let mut rest = room.as_mut();
        while let Some(chunks) = waiting.blocking_recv() {
            for chunk in chunks {
                let piece = rest.split_off_mut(..chunk.len())?;
                piece.copy_from_slice(&chunk);
            }
        }
        rest.is_empty().then_some(room)
    });
    while left > 0 {
        let mut chunks = vec![Bytes::new(); CHUNKS_MAX];
        let came = in_time(stream.read_chunks(&mut chunks)).await??;
        chunks.truncate(came);
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        if bytes == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        left = left.checked_sub(bytes).ok_or(DataError::Nonsense)?;
        // Fails only if the thread has ended, and says below why.
        if in_time(sender.send(chunks)).await?.is_err() {
            break;
        }
    }
    drop(sender);
    let filled = in_time(filling).await?.map_err(io::Error::other)?;
    filled.ok_or(DataError::Nonsense)
}
