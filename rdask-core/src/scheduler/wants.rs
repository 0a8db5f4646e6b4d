//! Telling clients how tasks end: each want is answered once per task, as soon as it can be.

use crate::failure::FailureKind;
use crate::id::{ArrayId, ClientId};
use crate::message::{Outcome, TaskStatus, ToClient};
use crate::range::{Range, RangeSet};

use super::Scheduler;
use super::group::{Gid, Holding, State, Want};

/// Results sent to a client that it hasn't taken yet, in bytes. What lies beyond waits here, where
/// it is anyway, instead of in the link's queue.
const IN_FLIGHT_BYTES_MAX: u64 = 32 * 1024 * 1024;

impl Scheduler {
    pub(crate) fn want(&mut self, client: ClientId, array: ArrayId, range: Range, values: bool) {
        let Some(gid) = self.groups.find(array) else {
            // Forgotten: what was asked for had been released. Nothing else is true to say.
            let failure = crate::failure::Failure::of_scheduler(
                FailureKind::Cancelled,
                "the task was released before it was asked for",
                crate::id::TaskId { array, index: range.start },
            );
            let outcome = Outcome::Failed(failure);
            self.send_client(client, ToClient::Ended { array, range, outcome });
            return;
        };
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let range = range.intersection(group.all());
        match group.wants.iter_mut().find(|want| want.client == client && want.values == values) {
            Some(want) => want.pending.insert(range),
            None => group.wants.push(Want { client, pending: RangeSet::from(range), values }),
        }
        if let Some(record) = self.clients.get_mut(&client) {
            record.wants_in.insert(gid);
        }
        self.tell_wanting(gid, range);
    }

    /// Tells all clients that want to know what is known of these tasks' ends.
    pub(crate) fn tell_wanting(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        if group.wants.is_empty() {
            return;
        }
        for nth in 0..group.wants.len() {
            let Some(want) = self.groups.get(gid).and_then(|group| group.wants.get(nth)) else {
                return;
            };
            let (client, values) = (want.client, want.values);
            let parts: Vec<Range> = want.pending.within(range).collect();
            for part in parts {
                self.tell(gid, nth, client, part, values);
            }
        }
        if let Some(group) = self.groups.get_mut(gid) {
            for want in group.wants.iter().filter(|want| want.pending.is_empty()) {
                if let Some(client) = self.clients.get_mut(&want.client) {
                    client.wants_in.remove(&gid);
                }
            }
            group.wants.retain(|want| !want.pending.is_empty());
            for want in &group.wants {
                if let Some(client) = self.clients.get_mut(&want.client) {
                    client.wants_in.insert(gid);
                }
            }
        }
    }

    fn tell(&mut self, gid: Gid, nth: usize, client: ClientId, range: Range, values: bool) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let array = group.id;
        for (part, state) in group.state.runs_vec(range) {
            if !state.is_over() {
                continue;
            }
            let Some(told) = self.outcomes(gid, part, state, client, values) else {
                return;
            };
            for (part, outcome) in told {
                if let Some(want) =
                    self.groups.get_mut(gid).and_then(|group| group.wants.get_mut(nth))
                {
                    want.pending.remove(part);
                }
                self.send_client(client, ToClient::Ended { array, range: part, outcome });
            }
        }
    }

    /// What to say of tasks that are all over in the same way; `None` if the client has to take
    /// other results first.
    fn outcomes(
        &mut self,
        gid: Gid,
        range: Range,
        state: State,
        client: ClientId,
        values: bool,
    ) -> Option<Vec<(Range, Outcome)>> {
        let group = self.groups.get(gid)?;
        let mut told = Vec::new();
        match state {
            State::Done if !values => told.push((range, Outcome::Done)),
            State::Done => {
                for (part, holding) in group.holding.runs(range) {
                    match holding {
                        Holding::Inline => {
                            let record = self.clients.get_mut(&client)?;
                            let mut rest = part;
                            while !rest.is_empty() {
                                if record.in_flight > IN_FLIGHT_BYTES_MAX {
                                    record.backlog.insert(gid);
                                    return Some(told);
                                }
                                let blob = group.results.slice(rest)?;
                                record.in_flight += blob.byte_len() as u64;
                                let piece = Range::new(rest.start, rest.start + blob.count());
                                rest.start = piece.end;
                                told.push((piece, Outcome::Values(blob)));
                            }
                        }
                        Holding::Held(holder, _) => {
                            let contact = self.cluster.processes.get(&holder)?.contact.clone();
                            self.clients.get_mut(&client)?.knows.insert(holder);
                            told.push((part, Outcome::Held { holder, contact }));
                        }
                        // Dropped, since nobody had a handle: nobody can want it either.
                        Holding::Nowhere => told.push((part, Outcome::Done)),
                    }
                }
            }
            State::Failed => {
                for (part, failure) in group.failures.within(range) {
                    told.push((part, Outcome::Failed((**failure).clone())));
                }
            }
            State::Dropped => {
                let failure = crate::failure::Failure::of_scheduler(
                    FailureKind::Cancelled,
                    "the task was released before it ran",
                    group.task(range.start),
                );
                told.push((range, Outcome::Failed(failure)));
            }
            State::Waiting(_) | State::Ready(_) | State::Assigned(_) => {}
        }
        Some(told)
    }

    /// The client has taken results: others may follow.
    pub(crate) fn results_taken(&mut self, client: ClientId, bytes: u64) {
        let Some(record) = self.clients.get_mut(&client) else {
            return;
        };
        record.in_flight = record.in_flight.saturating_sub(bytes);
        if record.in_flight > IN_FLIGHT_BYTES_MAX / 2 {
            return;
        }
        for gid in std::mem::take(&mut record.backlog) {
            if let Some(all) = self.groups.get(gid).map(super::Group::all) {
                self.tell_wanting(gid, all);
            }
        }
    }

    pub(crate) fn answer_states(
        &mut self,
        client: ClientId,
        request: u32,
        array: ArrayId,
        range: Range,
    ) {
        let mut states: Vec<(Range, TaskStatus)> = Vec::new();
        if let Some(group) = self.groups.find(array).and_then(|gid| self.groups.get(gid)) {
            for (part, state) in group.state.runs(range.intersection(group.all())) {
                let status = match state {
                    State::Waiting(_) | State::Ready(_) | State::Assigned(_) => TaskStatus::Pending,
                    State::Done => TaskStatus::Finished,
                    State::Dropped => TaskStatus::Cancelled,
                    State::Failed => {
                        match group.failures.get(part.start).map(|failure| failure.kind) {
                            Some(FailureKind::Cancelled) => TaskStatus::Cancelled,
                            _ => TaskStatus::Error,
                        }
                    }
                };
                match states.last_mut() {
                    Some((last, same)) if *same == status => last.end = part.end,
                    _ => states.push((part, status)),
                }
            }
        }
        self.send_client(client, ToClient::States { request, states });
    }
}
