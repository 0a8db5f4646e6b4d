//! Clients: what each has submitted, wants and still has handles of.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ArrayId, ClientId, Peer, ProcessId, ProgramHash};
use crate::message::{FromClient, ToClient};
use crate::range::{Range, RangeSet};

use super::group::Gid;
use super::ready::{Share, ShareNo};
use super::submit::BadSubmit;
use super::{ClientInfo, Scheduler};

/// One registered client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) kind: ClientKind,
    /// Its arrays and batches that are not forgotten.
    pub(crate) groups: BTreeSet<Gid>,
    /// The lowest number that its next array or batch may have.
    pub(crate) next_number: u32,
    /// Handles of other clients' tasks, by attaching.
    pub(crate) attached: BTreeMap<Gid, RangeSet>,
    /// Groups in which it has a want.
    pub(crate) wants_in: BTreeSet<Gid>,
    /// Bytes of inline results sent and not yet taken.
    pub(crate) in_flight: u64,
    /// Processes that it has been told of as holders.
    pub(crate) knows: BTreeSet<ProcessId>,
    /// Groups with results that wait until it has taken others.
    pub(crate) backlog: BTreeSet<Gid>,
}

/// Tasks under a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detached {
    pub(crate) array: ArrayId,
    pub(crate) range: Range,
    /// The group that has a reference for it: what a later array of this name gets is not ours.
    pub(crate) group: Option<Gid>,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// Everything.
    Program { hash: ProgramHash, share: ShareNo, nested_in: Option<ProcessId> },
    /// Ask.
    Observer,
}

impl Scheduler {
    pub(crate) fn add_client(&mut self, info: ClientInfo) -> ClientId {
        let id = ClientId(self.fresh_id());
        let hash = info.program.hash;
        let share = self.share_for(hash);
        self.programs.add_client(id, info.program, info.surroundings, info.nested_in.is_some());
        // Nannies may wait for its bytes since the client left that had been asked for them.
        self.serve_program(hash);
        self.insert_client(id, ClientKind::Program { hash, share, nested_in: info.nested_in });
        id
    }

    /// What the one at work who has used least has used; it never falls. Whoever begins to work
    /// starts level with it, since slot time that was not used is gone.
    pub(super) fn level(&mut self) -> u64 {
        let at_work = self.shares.values().filter(|share| share.groups > 0);
        let least = at_work.map(|share| share.used_ns).min().unwrap_or(0);
        self.level_ns = self.level_ns.max(least);
        self.level_ns
    }

    /// A claim of its own for a client program. What a nested client submits is charged to the
    /// parents' shares, so its own is only a fallback.
    fn share_for(&mut self, program: ProgramHash) -> ShareNo {
        let level = self.level();
        let number = ShareNo(self.fresh_id());
        self.shares.insert(number, Share::new(program, level));
        number
    }

    pub(crate) fn add_observer(&mut self) -> ClientId {
        let id = ClientId(self.fresh_id());
        self.insert_client(id, ClientKind::Observer);
        id
    }

    fn insert_client(&mut self, id: ClientId, kind: ClientKind) {
        let client = Client {
            kind,
            groups: BTreeSet::new(),
            next_number: 0,
            attached: BTreeMap::new(),
            wants_in: BTreeSet::new(),
            in_flight: 0,
            knows: BTreeSet::new(),
            backlog: BTreeSet::new(),
        };
        self.clients.insert(id, client);
    }

    /// # Errors
    /// If the message breaks the protocol: the client is cut off.
    pub(crate) fn client_message(
        &mut self,
        from: ClientId,
        message: FromClient,
    ) -> Result<(), BadSubmit> {
        match message {
            FromClient::SubmitArray { number, len, shape, parent } => {
                self.submit_array(from, number, len, shape, parent)?;
            }
            FromClient::Payload { number, payload } => self.take_payload(from, number, payload)?,
            FromClient::SubmitBatch { number, batch, parent } => {
                self.submit_batch(from, number, batch, parent)?;
            }
            FromClient::ScatterInline { number, values } => {
                self.scatter_inline(from, number, values)?;
            }
            FromClient::Scatter { number, sizes, options } => {
                self.scatter(from, number, sizes, &options)?;
            }
            FromClient::PutFailed { assignment, message } => self.put_failed(assignment, &message),
            FromClient::Want { array, range, values } => self.want(from, array, range, values),
            FromClient::Missed { task, holder, denied } => {
                self.value_missed(task, holder, denied);
            }
            FromClient::Release { ranges } => self.release_handles(from, &ranges),
            FromClient::Cancel { array, range } => self.cancel(array, range),
            FromClient::Detach { name, ranges } => self.detach(name, ranges),
            FromClient::Attach { request, name } => self.attach(from, request, &name),
            FromClient::AskStates { request, array, range } => {
                self.answer_states(from, request, array, range);
            }
            FromClient::AskStatus { request, when_ready: true } => {
                self.asking_ready.push((from, request));
            }
            FromClient::AskStatus { request, when_ready: false } => {
                let status = self.status();
                self.send_client(from, ToClient::Status { request, status });
            }
            FromClient::Taken { bytes } => self.results_taken(from, bytes),
            FromClient::ProgramNotSent { message } => self.program_not_sent(from, &message),
            FromClient::Retire { request, names, within } => {
                let workers = self.retire(&names, within);
                self.send_client(from, ToClient::Retiring { request, workers });
            }
            FromClient::PutGone { assignment } => self.put_gone(assignment),
            FromClient::AskLeaving { request, workers } => {
                let workers = self.leftovers(&workers);
                self.send_client(from, ToClient::Leaving { request, workers });
            }
            FromClient::Explain { request, task } => self.asking_why.push((from, request, task)),
        }
        self.work_off();
        Ok(())
    }

    /// Answers those who asked how it is with a task: after all decisions, so that none of them is
    /// taken for a reason.
    pub(crate) fn answer_why(&mut self) {
        for (client, request, task) in std::mem::take(&mut self.asking_why) {
            if self.clients.contains_key(&client) {
                let explanation = self.explain(task);
                self.send_client(client, ToClient::Explained { request, explanation });
            }
        }
    }

    /// Answers those who wait for their programs to be at work in each worker that can run them.
    pub(crate) fn answer_ready(&mut self) {
        for (client, request) in std::mem::take(&mut self.asking_ready) {
            let hash = match self.clients.get(&client).map(|client| client.kind) {
                Some(ClientKind::Program { hash, .. }) => Some(hash),
                Some(ClientKind::Observer) => None,
                None => continue,
            };
            if hash.is_none_or(|hash| self.is_at_work(hash)) {
                let status = self.status();
                self.send_client(client, ToClient::Status { request, status });
            } else {
                self.asking_ready.push((client, request));
            }
        }
    }

    fn detach(&mut self, name: String, ranges: Vec<(ArrayId, Range)>) {
        let found: Vec<Detached> = ranges
            .into_iter()
            .map(|(array, range)| Detached { array, range, group: self.groups.find(array) })
            .collect();
        for Detached { range, group, .. } in &found {
            if let Some(gid) = group {
                self.add_refs(*gid, *range);
            }
        }
        for Detached { range, group, .. } in self.detached.insert(name, found).unwrap_or_default() {
            if let Some(gid) = group {
                self.drop_refs(gid, range);
            }
        }
    }

    /// The name's references become the client's handles, one for each task.
    fn attach(&mut self, from: ClientId, request: u32, name: &str) {
        let found = self.detached.remove(name);
        for Detached { range, group, .. } in found.iter().flatten() {
            if let Some(gid) = *group
                && let Some(all) = self.groups.get(gid).map(super::Group::all)
            {
                self.give_handles(from, gid, range.intersection(all));
            }
        }
        let ranges = found.map(|found| found.iter().map(|one| (one.array, one.range)).collect());
        self.send_client(from, ToClient::Attached { request, ranges });
    }

    /// References to these tasks become handles of the client's, which has one of each at most:
    /// those to tasks that it has a handle of are dropped.
    fn give_handles(&mut self, to: ClientId, gid: Gid, range: Range) {
        let (Some(group), Some(client)) = (self.groups.get_mut(gid), self.clients.get_mut(&to))
        else {
            return self.drop_refs(gid, range);
        };
        let mut surplus = Vec::new();
        if group.id.client == to {
            for (part, has_handle) in group.handles.runs_vec(range) {
                if has_handle {
                    surplus.push(part);
                }
            }
            group.handles.set(range, true);
        } else {
            let attached = client.attached.entry(gid).or_default();
            surplus.extend(attached.within(range));
            attached.insert(range);
        }
        for part in surplus {
            self.drop_refs(gid, part);
        }
    }

    /// The client has no handle of these tasks any more.
    fn release_handles(&mut self, from: ClientId, ranges: &[(ArrayId, Range)]) {
        for (array, range) in ranges {
            let Some(gid) = self.groups.find(*array) else {
                continue;
            };
            if array.client == from {
                self.release_own(gid, *range);
            } else {
                self.release_attached(from, gid, *range);
            }
        }
    }

    fn release_own(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get_mut(gid) else {
            return;
        };
        let range = range.intersection(group.all());
        for (part, has_handle) in group.handles.runs_vec(range) {
            if has_handle {
                let Some(group) = self.groups.get_mut(gid) else {
                    return;
                };
                group.handles.set(part, false);
                self.drop_refs(gid, part);
            }
        }
    }

    fn release_attached(&mut self, from: ClientId, gid: Gid, range: Range) {
        let Some(client) = self.clients.get_mut(&from) else {
            return;
        };
        let Some(handles) = client.attached.get_mut(&gid) else {
            return;
        };
        let parts: Vec<Range> = handles.within(range).collect();
        for part in parts {
            if let Some(handles) = client_handles(&mut self.clients, from, gid) {
                handles.remove(part);
            }
            self.drop_refs(gid, part);
        }
    }

    /// A client is gone, and all its handles with it.
    pub(crate) fn lose_client(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        self.leases.remove(&Peer::Client(id));
        let groups: Vec<Gid> = client.groups.iter().copied().collect();
        let attached = std::mem::take(&mut client.attached);
        let wants_in = std::mem::take(&mut client.wants_in);
        for gid in wants_in {
            if let Some(group) = self.groups.get_mut(gid) {
                group.wants.retain(|want| want.client != id);
            }
        }
        for gid in &groups {
            if let Some(all) = self.groups.get(*gid).map(super::Group::all) {
                self.release_own(*gid, all);
            }
        }
        for (gid, handles) in attached {
            for range in handles.iter() {
                self.drop_refs(gid, range);
            }
        }
        self.work_off();
        // What others want of it and it has not put will never come.
        for gid in groups {
            self.lose_puts(gid);
        }
        let Some(client) = self.clients.remove(&id) else {
            return;
        };
        if let ClientKind::Program { hash, share, .. } = client.kind {
            self.programs.remove_client(hash, id);
            // Another client may have to send the program instead.
            self.serve_program(hash);
            if let Some(share_record) = self.shares.get_mut(&share) {
                share_record.connected = false;
                if share_record.groups == 0 {
                    self.shares.remove(&share);
                }
            }
        }
    }
}

fn client_handles(
    clients: &mut BTreeMap<ClientId, Client>,
    client: ClientId,
    gid: Gid,
) -> Option<&mut RangeSet> {
    clients.get_mut(&client)?.attached.get_mut(&gid)
}
