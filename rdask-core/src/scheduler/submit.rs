//! Bringing tasks in: checks what a client says, then builds the group and ties its inputs.

use crate::blob::Blob;
use crate::failure::{Failure, FailureKind};
use crate::id::{ArrayId, ClientId};
use crate::message::{BATCH_TASKS_MAX, Batch, CHUNK_TASKS_MAX, Param, Parent, Shape, TaskOptions};
use crate::range::Range;

use super::Scheduler;
use super::clients::ClientKind;
use super::graph::Work;
use super::group::{BatchInputs, EdgeTo, Gid, Group, Holding, Inputs, ShapeInfo, State};
use super::ready::ShareNo;

/// The most parameters of a function.
const PARAMS_MAX: usize = 16;

/// How a client broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSubmit {
    #[error("an observer can only ask")]
    Observer,
    #[error("the numbers of arrays and batches must rise")]
    Number,
    #[error("payload for no array, or too much of it")]
    Payload,
    #[error("a byte table that doesn't fit its bytes")]
    Blob,
    #[error("a shape that no function has")]
    Shape,
    #[error("a batch whose tables don't fit each other")]
    Batch,
}

impl Scheduler {
    /// Checks that `from` may submit under `number`; says for which share.
    fn admit(&mut self, from: ClientId, number: u32) -> Result<(ArrayId, ShareNo), BadSubmit> {
        let client = self.clients.get_mut(&from).ok_or(BadSubmit::Observer)?;
        let ClientKind::Program { share, .. } = client.kind else {
            return Err(BadSubmit::Observer);
        };
        if number < client.next_number || number == u32::MAX {
            return Err(BadSubmit::Number);
        }
        client.next_number = number + 1;
        Ok((ArrayId { client: from, number }, share))
    }

    /// The group takes its place, under its parent if it has one.
    fn enter(&mut self, from: ClientId, mut group: Group, parent: Option<Parent>) -> Gid {
        if let Some(above) = parent.and_then(|parent| self.groups.find(parent.task.array))
            && let Some(above) = self.groups.get(above)
        {
            group.share = above.share;
            group.depth = above.depth.saturating_add(1);
        }
        group.parent = parent;
        let is_orphan = parent.is_some_and(|parent| self.is_called_back(parent));
        if let Some(client) = self.clients.get(&from)
            && let ClientKind::Program { nested_in, .. } = client.kind
        {
            group.nested_in = nested_in;
        }
        if self.shares.get(&group.share).is_some_and(|share| share.groups == 0) {
            let level = self.level();
            if let Some(share) = self.shares.get_mut(&group.share) {
                share.used_ns = share.used_ns.max(level);
            }
        }
        if let Some(share) = self.shares.get_mut(&group.share) {
            share.groups += 1;
        }
        let gid = self.groups.insert(group);
        if is_orphan {
            self.work.push_back(Work::Orphaned(gid));
        }
        if let Some(client) = self.clients.get_mut(&from) {
            client.groups.insert(gid);
        }
        gid
    }

    /// Whether a run that still submits was cancelled, or nobody wants its result any more.
    fn is_called_back(&self, parent: Parent) -> bool {
        let group = self.groups.find(parent.task.array).and_then(|gid| self.groups.get(gid));
        group.is_none_or(|group| {
            let index = parent.task.index;
            index >= group.len || matches!(group.state.get(index), State::Failed | State::Dropped)
        })
    }

    fn shape_info(&mut self, share: ShareNo, shape: Shape) -> Result<ShapeInfo, BadSubmit> {
        let options = &shape.options;
        let fits = shape.params.len() <= PARAMS_MAX && options.threads >= 1 && options.parts >= 1;
        if !fits {
            return Err(BadSubmit::Shape);
        }
        let program = self.shares.get(&share).ok_or(BadSubmit::Observer)?.program;
        let class = self.classes.number(options);
        let stat = self.stats.number(program, shape.function);
        let param_groups = shape.params.iter().map(|param| self.group_of(param)).collect();
        Ok(ShapeInfo { class, stat, param_groups, shape })
    }

    fn group_of(&self, param: &Param) -> Option<Gid> {
        match param {
            Param::Inline | Param::Edge | Param::Edges => None,
            Param::Each { array, .. } | Param::Block { array, .. } | Param::All { array, .. } => {
                self.groups.find(*array)
            }
            Param::One { task, .. } => self.groups.find(task.array),
        }
    }

    pub(crate) fn submit_array(
        &mut self,
        from: ClientId,
        number: u32,
        len: u32,
        shape: Shape,
        parent: Option<Parent>,
    ) -> Result<(), BadSubmit> {
        let (id, share) = self.admit(from, number)?;
        for param in &shape.params {
            let fits = match param {
                Param::Inline | Param::One { .. } => true,
                Param::Each { start, .. } => start.checked_add(len).is_some(),
                Param::Block { start, end, width, .. } => {
                    *width > 0 && end.saturating_sub(*start).div_ceil(*width) == len
                }
                Param::All { range, .. } => range.start <= range.end,
                Param::Edge | Param::Edges => false,
            };
            if !fits {
                return Err(BadSubmit::Shape);
            }
        }
        let info = self.shape_info(share, shape)?;
        let waits = 1 + info.shape.params.iter().filter(|param| **param != Param::Inline).count();
        let params = info.shape.params.clone();
        let replicas = info.shape.options.replicas;
        let mut group = Group::new(id, len, Inputs::Patterns(Box::new(info)), share);
        group.holders_min = replicas.max(1);
        let has_payload = group.has_payload();
        let gid = self.enter(from, group, parent);
        if len == 0 {
            self.work.push_back(Work::Forget(gid));
            return Ok(());
        }
        self.set_waiting(gid, waits as u32);
        for (nth, param) in params.iter().enumerate() {
            if *param != Param::Inline {
                self.tie_param(gid, nth);
            }
        }
        // The wait for the payload stands for the tying too: nothing is ready before this line.
        if !has_payload {
            self.work.push_back(Work::Satisfied(gid, Range::new(0, len)));
        }
        Ok(())
    }

    fn set_waiting(&mut self, gid: Gid, missing: u32) {
        if let Some(group) = self.groups.get_mut(gid)
            && group.len > 0
        {
            let all = group.all();
            group.state.set(all, State::Waiting(missing));
        }
    }

    pub(crate) fn take_payload(
        &mut self,
        from: ClientId,
        number: u32,
        payload: Blob,
    ) -> Result<(), BadSubmit> {
        payload.check().map_err(|_| BadSubmit::Blob)?;
        let Some(gid) = self.groups.find(ArrayId { client: from, number }) else {
            // All its tasks were released or failed meanwhile.
            self.stale_count += 1;
            return Ok(());
        };
        let group = self.groups.get_mut(gid).ok_or(BadSubmit::Payload)?;
        let end = group.payload_len.checked_add(payload.count()).ok_or(BadSubmit::Payload)?;
        let is_array = matches!(group.inputs, Inputs::Patterns(_));
        let too_many = end > group.len || payload.count() > CHUNK_TASKS_MAX;
        if !is_array || too_many || !group.has_payload() {
            return Err(BadSubmit::Payload);
        }
        let range = Range::new(group.payload_len, end);
        group.payload_len = end;
        if !range.is_empty() {
            group.payload.insert(range.start, payload);
            // Tasks that ended before their payload came don't need it.
            let over: Vec<Range> = group
                .state
                .runs(range)
                .filter(|(_, state)| matches!(state, State::Failed | State::Dropped))
                .map(|(part, _)| part)
                .collect();
            for part in over {
                group.payload.release(part);
            }
            self.work.push_back(Work::Satisfied(gid, range));
        }
        Ok(())
    }

    pub(crate) fn submit_batch(
        &mut self,
        from: ClientId,
        number: u32,
        batch: Batch,
        parent: Option<Parent>,
    ) -> Result<(), BadSubmit> {
        let (id, share) = self.admit(from, number)?;
        let len = batch.shape_of.len();
        batch.payload.check().map_err(|_| BadSubmit::Blob)?;
        if len > BATCH_TASKS_MAX as usize
            || batch.payload.count() as usize != len
            || batch.edge_ends.len() != len
            || batch.edge_ends.last().is_some_and(|end| *end as usize != batch.edges.len())
            || batch.edge_ends.windows(2).any(|pair| pair[0] > pair[1])
        {
            return Err(BadSubmit::Batch);
        }
        let len = len as u32;
        let first = batch.shapes.first().ok_or(BadSubmit::Batch)?;
        let options = first.options.clone();
        let mut shapes = Vec::with_capacity(batch.shapes.len());
        for shape in batch.shapes {
            if !shape.options.fit_a_batch_with(&options) {
                return Err(BadSubmit::Batch);
            }
            let last = shape.params.len().saturating_sub(1);
            let fits = shape.params.iter().enumerate().all(|(nth, param)| match param {
                Param::Inline | Param::Edge => true,
                Param::Edges => nth == last,
                _ => false,
            });
            if !fits {
                return Err(BadSubmit::Shape);
            }
            shapes.push(self.shape_info(share, shape)?);
        }
        let mut start = 0;
        for (index, end) in batch.edge_ends.iter().enumerate() {
            let info = shapes.get(batch.shape_of[index] as usize).ok_or(BadSubmit::Batch)?;
            let params = &info.shape.params;
            let singles = params.iter().filter(|param| **param == Param::Edge).count();
            let edges = (end - start) as usize;
            let open_ended = params.last() == Some(&Param::Edges);
            let own = &batch.edges[start as usize..*end as usize];
            // Only earlier tasks: a cycle cannot be said.
            let forward =
                own.iter().any(|edge| edge.task.array == id && edge.task.index as usize >= index);
            if edges < singles || (edges > singles && !open_ended) || forward {
                return Err(BadSubmit::Batch);
            }
            start = *end;
        }
        let own = Gid(self.groups.next);
        // An unknown group gets a number that no group has.
        let gid_of = |array: ArrayId| {
            if array == id { Some(own) } else { self.groups.find(array) }
        };
        let edges = batch.edges.iter().map(|edge| EdgeTo {
            group: gid_of(edge.task.array).unwrap_or(Gid(u32::MAX)),
            index: edge.task.index,
            part: edge.part,
        });
        let inputs = BatchInputs {
            shapes,
            edges: edges.collect(),
            shape_of: batch.shape_of,
            edge_ends: batch.edge_ends,
        };
        let mut group = Group::new(id, len, Inputs::Edges(Box::new(inputs)), share);
        group.holders_min = options.replicas.max(1);
        group.payload_len = len;
        if len > 0 {
            group.payload.insert(0, batch.payload);
        }
        let gid = self.enter(from, group, parent);
        self.tie_edges(gid);
        self.work.push_back(Work::Forget(gid));
        Ok(())
    }

    /// Small values stay here: tasks that are done at birth.
    pub(crate) fn scatter_inline(
        &mut self,
        from: ClientId,
        number: u32,
        values: Blob,
    ) -> Result<(), BadSubmit> {
        values.check().map_err(|_| BadSubmit::Blob)?;
        let (id, share) = self.admit(from, number)?;
        let len = values.count();
        if len > CHUNK_TASKS_MAX {
            return Err(BadSubmit::Payload);
        }
        let class = self.classes.number(&TaskOptions::default());
        let gid = self.enter(from, Group::new(id, len, Inputs::Scattered(class), share), None);
        let Some(group) = self.groups.get_mut(gid) else {
            return Ok(());
        };
        if len > 0 {
            let all = group.all();
            self.result_bytes += group.results.insert(0, values) as u64;
            group.holding.set(all, Holding::Inline);
            self.end_tasks(gid, all, State::Done);
        }
        self.work.push_back(Work::Forget(gid));
        Ok(())
    }

    /// Large values are put with processes: tasks without a function.
    pub(crate) fn scatter(
        &mut self,
        from: ClientId,
        number: u32,
        sizes: Vec<u64>,
        options: &TaskOptions,
    ) -> Result<(), BadSubmit> {
        let (id, share) = self.admit(from, number)?;
        let len = u32::try_from(sizes.len()).map_err(|_| BadSubmit::Payload)?;
        let class = self.classes.number(options);
        let mut group = Group::new(id, len, Inputs::Scattered(class), share);
        group.holders_min = options.replicas.max(1);
        group.sizes = sizes;
        let gid = self.enter(from, group, None);
        self.set_waiting(gid, 1);
        self.work.push_back(Work::Satisfied(gid, Range::new(0, len)));
        self.work.push_back(Work::Forget(gid));
        Ok(())
    }

    /// An input is no task that the scheduler knows.
    pub(crate) fn fail_unknown_input(&mut self, gid: Gid, range: Range) {
        let Some(group) = self.groups.get(gid) else {
            return;
        };
        let failure = Failure::of_scheduler(
            FailureKind::InputLost,
            "an input was released before this task was submitted",
            group.task(range.start),
        );
        self.work.push_back(Work::Failed(gid, range, failure.into()));
    }
}
