//! What tasks take: from the assignment, from what is kept with reports, from the store.

use std::collections::BTreeMap;

use bytes::Bytes;
use rdask_core::message::{Assign, Feed, Place, Source};
use rdask_core::process::{StartChunk, ValueId};

use crate::value::decode;

/// The number that a task takes as its inline argument.
pub(super) fn argument(assign: &Assign, index: u32) -> Option<u64> {
    let is_inline = assign.params.contains(&Feed::Inline);
    is_inline.then(|| decode(assign.payload.get(index - assign.range.start)).unwrap_or(u64::MAX))
}

/// A task's number to its client: batches are made of several submits.
pub(super) fn number_of(assign: &Assign, index: u32) -> u32 {
    argument(assign, index).map_or(index, |number| number as u32)
}

/// What a task takes, in order; an error with what is not here.
pub(super) fn inputs_of(
    start: &StartChunk,
    index: u32,
    store: &BTreeMap<ValueId, u64>,
    own: impl Fn(&ValueId) -> Option<u64>,
) -> Result<Vec<u64>, ValueId> {
    let position = (index - start.assign.range.start) as usize;
    let mut values = Vec::new();
    for feed in &start.assign.params {
        let sources = match feed {
            Feed::Inline => continue,
            Feed::One(source) => std::slice::from_ref(source),
            Feed::Each(each) => std::slice::from_ref(&each[position]),
            Feed::List(sources) => sources,
            Feed::Lists(lists) => &lists[position],
        };
        for source in sources {
            let found = find(source, &start.small, store);
            values.push(found.or_else(|id| own(&id).ok_or(id))?);
        }
    }
    Ok(values)
}

fn find(
    source: &Source,
    small: &BTreeMap<ValueId, Bytes>,
    store: &BTreeMap<ValueId, u64>,
) -> Result<u64, ValueId> {
    let id = ValueId::of(source);
    let found = match (&source.place, small.get(&id)) {
        (Place::Inline(bytes), _) | (_, Some(bytes)) => decode(bytes),
        (_, None) => store.get(&id).copied(),
    };
    found.ok_or(id)
}
