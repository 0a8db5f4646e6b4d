//! Lists of inputs that are too long for one message: they go ahead of their assignment, in parts.

use crate::id::AssignmentId;
use crate::message::{Feed, Place, Source, ToProcess};

/// The most bytes of inputs that an assignment carries beside its payload, which is at most six
/// arguments of 64 KiB or a chunk: together they stay below a frame's 1 MiB.
pub(super) const FEED_BYTES_MAX: usize = 600 * 1024;

/// The most bytes of inputs that one task has: about 280,000 small ones.
pub(super) const TASK_FEED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What one input costs in a frame besides its value: three numbers of at most five bytes, the
/// part, the place, a length.
const SOURCE_BYTES: usize = 20;

/// What naming one holder costs.
const HOLDER_BYTES: usize = 5;

/// What a source costs in a frame, at most.
pub(super) fn source_bytes(source: &Source) -> usize {
    let place = match &source.place {
        Place::Inline(value) => value.len(),
        Place::Held(holders) => HOLDER_BYTES * holders.len(),
        Place::Here => 0,
    };
    SOURCE_BYTES + place
}

/// Takes the lists out of what one task takes. What is left fits a frame, and so does each of these
/// messages, to be sent before.
pub(super) fn send_ahead(assignment: AssignmentId, params: &mut [Feed]) -> Vec<ToProcess> {
    let mut messages = Vec::new();
    for (param, feed) in (0..).zip(params) {
        let list = match feed {
            Feed::List(list) => list,
            Feed::Lists(lists) if lists.len() == 1 => &mut lists[0],
            _ => continue,
        };
        for sources in parts(std::mem::take(list)) {
            messages.push(ToProcess::Sources { assignment, param, sources });
        }
    }
    messages
}

/// Consecutive parts of a list that fit a frame each.
fn parts(list: Vec<Source>) -> Vec<Vec<Source>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for source in list {
        let cost = source_bytes(&source);
        if bytes + cost > FEED_BYTES_MAX {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += cost;
        part.push(source);
    }
    parts.push(part);
    parts
}
