//! What comes ahead of an assignment: parts of lists that are too long for one message.

use std::collections::BTreeMap;

use crate::id::AssignmentId;
use crate::message::{Assign, Feed, Source};

/// The most sources that come ahead of one assignment. The scheduler has a lower limit, in bytes.
const SOURCES_MAX: usize = 1 << 20;

/// The sources of an assignment that is about to come.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    assignment: Option<AssignmentId>,
    count: usize,
    lists: BTreeMap<u8, Vec<Source>>,
}

impl Ahead {
    /// Keeps a part of a list; those of another assignment are dropped, as it has not come. Says
    /// whether there was room.
    pub(super) fn push(&mut self, of: AssignmentId, param: u8, sources: Vec<Source>) -> bool {
        if self.assignment != Some(of) {
            *self = Self { assignment: Some(of), ..Self::default() };
        }
        self.count += sources.len();
        self.lists.entry(param).or_default().extend(sources);
        self.count <= SOURCES_MAX
    }

    /// Puts what came ahead of an assignment where it belongs. Says whether there is such a place.
    pub(super) fn complete(&mut self, assign: &mut Assign) -> bool {
        let ahead = std::mem::take(self);
        if ahead.assignment != Some(assign.assignment) {
            return true;
        }
        for (param, mut sources) in ahead.lists {
            let list = match assign.params.get_mut(usize::from(param)) {
                Some(Feed::List(list)) => list,
                Some(Feed::Lists(lists)) if lists.len() == 1 => &mut lists[0],
                _ => return false,
            };
            sources.append(list);
            *list = sources;
        }
        true
    }
}
