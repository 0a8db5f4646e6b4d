//! The inline arguments of an array, cut into chunks that fit frames.

use bytes::Bytes;

use crate::blob::{BadBlob, Blob};
use crate::message::{CHUNK_BYTES_MAX, CHUNK_TASKS_MAX};

/// Cuts the arguments of consecutive tasks into chunks, without copying them.
///
/// Task `i` has the bytes before `ends[i]` that no task before it has; the first task's begin at
/// `start`. A chunk holds at least one task, so a frame's limit is kept if no task's arguments
/// alone exceed it.
///
/// # Errors
/// If the ends decrease, or reach beyond the bytes.
pub fn cut_payload(bytes: &Bytes, start: u64, ends: &[u64]) -> Result<Vec<Blob>, BadBlob> {
    let mut chunks = Vec::new();
    let (mut from, mut rest) = (start, ends);
    while !rest.is_empty() {
        let limit = from.saturating_add(CHUNK_BYTES_MAX as u64);
        let fitting = rest.partition_point(|end| *end <= limit);
        let (chunk, after) =
            rest.split_at(fitting.clamp(1, CHUNK_TASKS_MAX as usize).min(rest.len()));
        let to = chunk.last().copied().unwrap_or(from);
        // Cut to the bytes there are: a table that reaches beyond them is refused by the blob.
        let cut = |at: u64| usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
        let part = bytes.slice(cut(from)..cut(to).max(cut(from)));
        let relative = |end: &u64| u32::try_from(end.wrapping_sub(from)).unwrap_or(u32::MAX);
        chunks.push(Blob::new(chunk.iter().map(relative).collect(), part)?);
        (from, rest) = (to, after);
    }
    Ok(chunks)
}
