//! A program: it does its steps, one after the other.

use bytes::Bytes;
use rdask_core::blob::BlobBuilder;
use rdask_core::id::{ArrayId, TaskId};
use rdask_core::message::{Edge, Param, TaskOptions};
use rdask_core::range::Range;

use super::tasks::{Expect, Kept, Local, param_of, shape};
use crate::scenario::{Act, Input, Until, Work};
use crate::value::{encode, is_poison, payload, scattered};
use crate::world::{Event, US, World, note};

/// Scattered values are put with processes if they have more bytes than this together.
const LARGE_BYTES: usize = 66 * 1024;

impl World {
    /// Does the steps whose time has come.
    pub(in crate::world) fn client_step(&mut self, client: usize) {
        let Some(spec) = self.clients[client].spec else { return };
        while self.failure.is_none() {
            let state = &mut self.clients[client];
            if !state.is_alive || state.core.is_none() {
                return;
            }
            let Some(step) = self.scenario.clients[spec].steps.get(state.next_step) else {
                break;
            };
            if step.act == Act::Join && !state.gathers.is_empty() {
                break;
            }
            let at = *state.next_at.get_or_insert(self.now + step.after_us * US);
            if at > self.now {
                self.push(at, Event::ClientStep(client));
                break;
            }
            state.next_at = None;
            let number = state.next_step;
            state.next_step += 1;
            let (act, key) = (step.act.clone(), self.keys[spec][number]);
            self.act(client, act, key);
        }
        self.client_acts(client);
    }

    fn act(&mut self, client: usize, act: Act, key: u64) {
        note!(self, "client {client}: {act:?}");
        match act {
            Act::Map { array, len, inputs, work } => {
                self.map(client, array, (len, &inputs), &work, key);
            }
            Act::Submit { array, tasks, work } => self.submit(client, array, tasks, &work, key),
            Act::Scatter { array, len, large, replicas } => {
                self.scatter(client, array, len, (large, replicas));
            }
            Act::Gather { array, from, len, until, sum } => {
                if let Some(local) = self.clients[client].locals.get(&array) {
                    let part = local.part(from, len);
                    let sum = sum.filter(|_| part.tasks.len() == local.tasks.len());
                    self.gather(client, part, until, sum, None);
                }
            }
            Act::Join => {}
            Act::Release { array } => self.release(client, array),
            Act::Cancel { array, from, len } => {
                if let Some(local) = self.clients[client].locals.get(&array) {
                    let ranges = local.part(from, len).ranges();
                    for (array, range) in &ranges {
                        self.note_cancelled(*array, *range);
                    }
                    self.core(client).cancel(&ranges);
                }
            }
            Act::Detach { array, name } => {
                if let Some(local) = self.clients[client].locals.get(&array).cloned()
                    && !self.kept.contains_key(&name)
                {
                    let ranges = local.ranges();
                    self.kept.insert(name, Kept { local, is_there: false });
                    self.core(client).detach(format!("{name}"), ranges);
                }
            }
            Act::Attach { name } => self.attach(client, name),
            Act::AskReady => {
                self.clients[client].asking += 1;
                self.core(client).ask_status(true);
            }
            Act::AskStates { array } => {
                if let Some(local) = self.clients[client].locals.get(&array) {
                    let ranges = local.ranges();
                    for (array, range) in ranges {
                        self.clients[client].asking += 1;
                        self.core(client).ask_states(array, range);
                    }
                }
            }
        }
    }

    fn map(
        &mut self,
        client: usize,
        array: u32,
        (mut len, inputs): (u32, &[Input]),
        work: &Work,
        key: u64,
    ) {
        let locals = &self.clients[client].locals;
        let mut params: Vec<(Param, Input)> = Vec::new();
        for input in inputs {
            let Some((param, fitting)) = param_of(locals, *input) else { continue };
            len = len.min(fitting);
            params.push((param, *input));
        }
        if params.is_empty() {
            params.push((Param::Inline, Input::Inline));
        }
        for (param, _) in &mut params {
            if let Param::Block { start, end, width, .. } = param {
                *end = (*end).min(*start + len * *width);
            }
        }
        let expect = (0..len).map(|index| self.expect(client, work, key, index, &params)).collect();
        let is_inline = params.iter().any(|(param, _)| *param == Param::Inline);
        let mut payloads = Vec::new();
        if is_inline {
            let cut = len / 2;
            for range in [0..cut, cut..len] {
                let mut blob = BlobBuilder::new();
                range.for_each(|index| blob.push(&payload(index)));
                payloads.push(blob.build());
            }
            payloads.retain(|blob| blob.count() > 0);
        }
        let params = params.into_iter().map(|(param, _)| param).collect();
        let shape = shape(key, work, params);
        let id = self.core(client).submit_array(len, shape, payloads, None);
        let tasks: Vec<TaskId> = (0..len).map(|index| TaskId { array: id, index }).collect();
        self.note_poison(work, &tasks);
        self.note_replicas(work.replicas, &tasks);
        let local = Local { tasks, expect, array: Some(id), parts: work.parts.max(1) };
        self.clients[client].locals.insert(array, local);
    }

    fn note_poison(&mut self, work: &Work, tasks: &[TaskId]) {
        let numbered = tasks.iter().zip(0..).filter(|(_, number)| is_poison(work, *number));
        self.poison.extend(numbered.map(|(task, _)| *task));
    }

    fn submit(
        &mut self,
        client: usize,
        array: u32,
        tasks: Vec<Vec<(u32, u32)>>,
        work: &Work,
        key: u64,
    ) {
        let mut local = Local { parts: work.parts.max(1), ..Local::default() };
        for (number, wanted) in tasks.into_iter().enumerate() {
            let (mut edges, mut taken) = (Vec::new(), Vec::new());
            for (from, index) in wanted {
                let of = if from == array {
                    Some(&local)
                } else {
                    self.clients[client].locals.get(&from)
                };
                let Some(of) = of else { continue };
                if let Some(task) = of.tasks.get(index as usize) {
                    let part = (number + index as usize) as u16 % of.parts.max(1);
                    edges.push(Edge { task: *task, part });
                    taken.push(of.output(index, part));
                }
            }
            let number = number as u32;
            let expect = self.expect_of(work, key, Some(u64::from(number)), number, &taken);
            let params = match edges.len() {
                0 => vec![Param::Inline],
                1 => vec![Param::Inline, Param::Edge],
                _ => vec![Param::Inline, Param::Edges],
            };
            let now = self.time();
            let shape = shape(key, work, params);
            let task = self.core(client).submit(now, shape, &payload(number), &edges, None);
            local.tasks.push(task);
            local.expect.push(expect);
        }
        self.note_poison(work, &local.tasks);
        self.clients[client].locals.insert(array, local);
    }

    fn scatter(&mut self, client: usize, array: u32, len: u32, (large, replicas): (bool, u8)) {
        let number = |index| scattered(array, index);
        let mut values: Vec<Bytes> = (0..len).map(|index| encode(number(index))).collect();
        if large && let Some(first) = values.first_mut() {
            let mut bytes = first.to_vec();
            bytes.resize(LARGE_BYTES, 0);
            *first = bytes.into();
        }
        let options = TaskOptions { replicas, ..TaskOptions::default() };
        let id = self.core(client).scatter(values, options);
        let tasks: Vec<TaskId> = (0..len).map(|index| TaskId { array: id, index }).collect();
        self.note_replicas(replicas, &tasks);
        let expect = (0..len).map(|index| Expect { value: number(index), fails: false }).collect();
        let local = Local { tasks, expect, array: Some(id), parts: 1 };
        self.clients[client].locals.insert(array, local);
    }

    fn release(&mut self, client: usize, array: u32) {
        let now = self.time();
        if let Some(local) = self.clients[client].locals.remove(&array) {
            for (array, range) in local.ranges() {
                self.core(client).release(now, array, range);
            }
        }
    }

    /// A program's end: it drops all that it has.
    pub(in crate::world) fn release_all(&mut self, client: usize) {
        let arrays: Vec<u32> = self.clients[client].locals.keys().copied().collect();
        for array in arrays {
            self.release(client, array);
        }
        if self.clients[client].core.is_some() {
            self.client_acts(client);
        }
    }

    pub(in crate::world) fn attach(&mut self, client: usize, name: u32) {
        let request = self.core(client).attach(format!("{name}"));
        self.clients[client].attaching.insert(request, name);
    }

    pub(super) fn attached(
        &mut self,
        client: usize,
        request: u32,
        ranges: Option<Vec<(ArrayId, Range)>>,
    ) {
        let Some(name) = self.clients[client].attaching.remove(&request) else { return };
        let at = self.now;
        self.push(at, Event::ClientStep(client));
        let Some(ranges) = ranges else {
            if self.clients[client].spec.is_none() {
                self.fail(format!("nothing of the name {name} was there"));
            }
            return;
        };
        let Some(kept) = self.kept.get(&name).cloned() else {
            self.fail(format!("nobody detached anything as {name}"));
            return;
        };
        if ranges != kept.local.ranges() {
            self.fail(format!("as {name} came {ranges:?}, not {:?}", kept.local.ranges()));
            return;
        }
        // Attaching gives a handle of each.
        let known = self.clients[client].locals.values();
        let is_own = known.flat_map(|local| &local.tasks).any(|task| *task == kept.local.tasks[0]);
        self.gather(client, kept.local.clone(), Until::Values, None, None);
        if is_own {
            let now = self.time();
            for (array, range) in kept.local.ranges() {
                self.core(client).release(now, array, range);
            }
        } else {
            self.clients[client].locals.insert(1_000_000 + name, kept.local);
        }
    }

    /// The scheduler hears that tasks have a name.
    pub(in crate::world) fn name_kept(&mut self, name: &str, _ranges: &[(ArrayId, Range)]) {
        if let Some(kept) = name.parse().ok().and_then(|name: u32| self.kept.get_mut(&name)) {
            kept.is_there = true;
        }
    }

    /// The scheduler hears that somebody takes what has a name.
    pub(in crate::world) fn name_taken(&mut self, name: &str) {
        if let Some(kept) = name.parse().ok().and_then(|name: u32| self.kept.get_mut(&name)) {
            kept.is_there = false;
        }
    }
}
