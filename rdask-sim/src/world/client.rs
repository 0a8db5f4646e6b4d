//! The shell around a client: a program that does its steps, and compares what comes of them with
//! what should.

use std::collections::BTreeMap;

use bytes::Bytes;
use rdask_core::blob::BlobBuilder;
use rdask_core::client::{Action, Client as Core, Interest, Piece, WaiterId};
use rdask_core::failure::{Failure, FailureKind};
use rdask_core::hello::You;
use rdask_core::id::{ArrayId, ClientId, FunctionKey, TaskId};
use rdask_core::message::{Edge, Param, Parent, Shape, TaskOptions, TaskStatus};
use rdask_core::process::{ChunkId, ValueId};
use rdask_core::range::Range;

use super::scheduler::hash_of;
use super::{Actor, Event, MS, SECOND, US, World, note};
use crate::link::{Message, Way};
use crate::scenario::{Act, Input, Until, Work};
use crate::value::{always_fails, compute, decode, encode, payload, scattered};

/// Scattered values are put with processes if they have more bytes than this together.
const LARGE_BYTES: usize = 66 * 1024;

/// What should come of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expect {
    value: u64,
    fails: bool,
}

/// Tasks under a name, and what should come of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    local: Local,
    /// Whether the scheduler has them now, as far as it has been told.
    pub(super) is_there: bool,
}

/// Tasks that a program has handles of.
#[derive(Clone, Debug, Default)]
struct Local {
    tasks: Vec<TaskId>,
    expect: Vec<Expect>,
    /// Set if all of them are of one array, in order from its first task on.
    array: Option<ArrayId>,
}

/// A wait under way.
#[derive(Clone, Debug)]
struct Gather {
    local: Local,
    until: Until,
    sum: Option<u64>,
    /// The run that waits, if this is a client for nested tasks.
    chunk: Option<ChunkId>,
    begun: u64,
}

pub(super) struct Client {
    /// Which of the scenario's it is.
    pub(super) spec: Option<usize>,
    /// The process whose nested tasks it submits.
    pub(super) home: Option<usize>,
    pub(super) program: u8,
    pub(super) core: Option<Core>,
    pub(super) link: Option<usize>,
    pub(super) is_alive: bool,
    pub(super) frozen_until: u64,
    pub(super) cut_until: (u64, u64),
    timer_at: Option<u64>,
    next_step: usize,
    next_at: Option<u64>,
    locals: BTreeMap<u32, Local>,
    gathers: BTreeMap<WaiterId, Gather>,
    /// Names asked for, by request.
    attaching: BTreeMap<u32, u32>,
    /// Questions without an answer.
    asking: usize,
    /// Runs that wait for it to be connected.
    waiting: Vec<(ChunkId, Parent)>,
}

impl World {
    pub(super) fn add_client(&mut self, spec: Option<usize>, home: Option<usize>) -> usize {
        let program = match (spec, home) {
            (Some(spec), _) => self.scenario.clients[spec].program,
            (None, Some(process)) => self.processes[process].program,
            (None, None) => 0,
        };
        self.clients.push(Client {
            spec,
            home,
            program,
            core: None,
            link: None,
            is_alive: true,
            frozen_until: 0,
            cut_until: (0, 0),
            timer_at: None,
            next_step: 0,
            next_at: None,
            locals: BTreeMap::new(),
            gathers: BTreeMap::new(),
            attaching: BTreeMap::new(),
            asking: 0,
            waiting: Vec::new(),
        });
        self.clients.len() - 1
    }

    pub(super) fn client_starts(&mut self, client: usize) {
        if !self.clients[client].is_alive {
            return;
        }
        let home = self.clients[client].home.map(|process| self.processes[process].id);
        let link = self.dial(Actor::Client(client), home);
        self.clients[client].link = Some(link);
    }

    /// A client is no more.
    pub(super) fn kill_client(&mut self, client: usize, scheduler_hears_within: u64) {
        if std::mem::take(&mut self.clients[client].is_alive) {
            note!(self, "client {client} is gone");
            if let Some(link) = self.clients[client].link {
                self.end_link(link, scheduler_hears_within);
            }
        }
    }

    pub(super) fn client_loses_link(&mut self, client: usize) {
        self.kill_client(client, SECOND);
        if let Some(process) = self.clients[client].home {
            // Its runs can't go on.
            self.kill_process(process, Self::soon());
        }
        self.client_returns(client);
    }

    /// The same program begins anew.
    pub(super) fn client_returns(&mut self, client: usize) {
        let Some(spec) = self.clients[client].spec else { return };
        if self.scenario.clients[spec].returns {
            let again = self.add_client(Some(spec), None);
            self.clients[again].cut_until = self.clients[client].cut_until;
            let at = self.now + self.dice.between(10 * MS, 2 * SECOND);
            self.push(at, Event::ClientStarts(again));
        }
    }

    pub(super) fn client_gets(&mut self, client: usize, message: Message) {
        let now = self.time();
        match message {
            Message::Welcome(You::Client(id)) => {
                self.clients[client].core = Some(Core::new(id));
                if self.clients[client].spec.is_some() {
                    self.client_step(client);
                }
                for (chunk, parent) in std::mem::take(&mut self.clients[client].waiting) {
                    self.submit_nested(client, chunk, parent);
                }
            }
            Message::ToClient(message) => {
                if let Some(core) = &mut self.clients[client].core {
                    core.handle_message(now, message);
                }
            }
            message => self.fail(format!("client {client} was told {message:?}")),
        }
    }

    pub(super) fn client_timer(&mut self, client: usize) {
        self.clients[client].timer_at = None;
        let now = self.time();
        if self.clients[client].is_alive
            && let Some(core) = &mut self.clients[client].core
        {
            core.handle_timeout(now);
            self.client_acts(client);
        }
    }

    /// Does what the machine wants done.
    pub(super) fn client_acts(&mut self, client: usize) {
        while self.clients[client].is_alive
            && let Some(core) = &mut self.clients[client].core
            && let Some(action) = core.poll_action()
        {
            self.client_does(client, action);
        }
        let state = &mut self.clients[client];
        if let Some(at) = state.core.as_ref().and_then(Core::poll_timeout) {
            let at = at.0.max(self.now);
            if state.timer_at.is_none_or(|timer| timer > at) {
                state.timer_at = Some(at);
                self.push(at, Event::ClientTimer(client));
            }
        }
    }

    fn client_does(&mut self, client: usize, action: Action) {
        match action {
            Action::Send(message) => {
                if let Some(link) = self.clients[client].link {
                    self.send(link, Way::Up, Message::FromClient(message));
                }
            }
            Action::Fetch { task, holder, .. } => {
                self.start_get(Actor::Client(client), ValueId { task, part: 0 }, holder);
            }
            Action::Put { task, assignment, process, value, .. } => {
                let number = decode(&value).unwrap_or(0);
                let put = (assignment, number, value.len() as u64);
                self.start_put(Actor::Client(client), ValueId { task, part: 0 }, process, put);
            }
            Action::Progress { .. }
            | Action::Warn(_)
            | Action::Retiring { .. }
            | Action::Explained { .. } => {}
            Action::Complete(waiter) => self.completed(client, waiter),
            Action::Attached { request, ranges } => self.attached(client, request, ranges),
            Action::States { .. } | Action::Status { .. } => {
                self.clients[client].asking = self.clients[client].asking.saturating_sub(1);
            }
            Action::SendProgram => {
                let at = self.now + self.dice.between(MS, 200 * MS);
                let program = self.clients[client].program;
                self.push(at, Event::ProgramStored(hash_of(program)));
            }
            Action::Close(reason) => self.fail(format!("client {client} closes: {reason}")),
        }
    }

    /// Whether a client has done all it had to do.
    pub(super) fn is_done(&self, client: usize) -> bool {
        let state = &self.clients[client];
        let Some(spec) = state.spec else { return state.gathers.is_empty() };
        !state.is_alive
            || (state.next_step >= self.scenario.clients[spec].steps.len()
                && state.gathers.is_empty()
                && state.attaching.is_empty()
                && state.asking == 0)
    }

    /// What a client waits for, for people.
    pub(super) fn waits_for(&self, client: usize) -> String {
        let state = &self.clients[client];
        let mut text = format!(
            "client {client}: connected {}, at step {}, attaching {:?}, asking {}",
            state.core.is_some(),
            state.next_step,
            state.attaching,
            state.asking
        );
        for gather in state.gathers.values() {
            let Some(core) = &state.core else { continue };
            for task in &gather.local.tasks {
                if core
                    .pieces(task.array, Range::one(task.index))
                    .iter()
                    .any(|piece| matches!(piece, Piece::Absent(_)))
                {
                    let look = self.scheduler.core.look(*task);
                    text.push_str(&format!(
                        "; {task} is {look:?}, last run {}, waited {} s",
                        self.ledger.tell(*task),
                        (self.now - gather.begun) / SECOND
                    ));
                    break;
                }
            }
        }
        text
    }

    /// Does the steps whose time has come.
    pub(super) fn client_step(&mut self, client: usize) {
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
            Act::Scatter { array, len, large } => self.scatter(client, array, len, large),
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

    fn core(&mut self, client: usize) -> &mut Core {
        self.clients[client].core.as_mut().expect("only connected clients act")
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
        let tasks = (0..len).map(|index| TaskId { array: id, index }).collect();
        self.clients[client].locals.insert(array, Local { tasks, expect, array: Some(id) });
    }

    /// What should come of task `index`.
    fn expect(
        &self,
        client: usize,
        work: &Work,
        key: u64,
        index: u32,
        params: &[(Param, Input)],
    ) -> Expect {
        let locals = &self.clients[client].locals;
        let mut taken: Vec<Expect> = Vec::new();
        let mut argument = None;
        for (param, input) in params {
            let (array, range) = match (*input, param) {
                (Input::Inline, _) => {
                    argument = Some(u64::from(index));
                    continue;
                }
                (Input::Each { array, start }, _) => (array, Range::one(start + index)),
                (Input::Block { array, start, width }, Param::Block { end, .. }) => {
                    let first = start + index * width;
                    (array, Range::new(first, (first + width).min(*end)))
                }
                (Input::Block { array, .. }, _) => (array, Range::new(0, 0)),
                (Input::One { array, index }, _) => (array, Range::one(index)),
                (Input::All { array, start }, _) => {
                    (array, Range::new(start, locals[&array].expect.len() as u32))
                }
            };
            taken.extend(range.iter().map(|at| locals[&array].expect[at as usize]));
        }
        self.expect_of(work, key, argument, index, &taken)
    }

    fn expect_of(
        &self,
        work: &Work,
        key: u64,
        argument: Option<u64>,
        number: u32,
        taken: &[Expect],
    ) -> Expect {
        let mut inputs: Vec<u64> = taken.iter().map(|one| one.value).collect();
        inputs.extend(self.children_of(key));
        let fails = taken.iter().any(|one| one.fails) || always_fails(work, number);
        Expect { value: compute(work, key, argument, &inputs), fails }
    }

    /// The values of the tasks that a run of a function submits itself.
    fn children_of(&self, key: u64) -> Vec<u64> {
        let count = u64::from(self.work(key).nested);
        let child = |index| compute(self.work(key + 1), key + 1, Some(index), &[]);
        (0..count).map(child).collect()
    }

    fn submit(
        &mut self,
        client: usize,
        array: u32,
        tasks: Vec<Vec<(u32, u32)>>,
        work: &Work,
        key: u64,
    ) {
        let mut local = Local::default();
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
                    edges.push(Edge { task: *task, part: 0 });
                    taken.push(of.expect[index as usize]);
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
        self.clients[client].locals.insert(array, local);
    }

    fn scatter(&mut self, client: usize, array: u32, len: u32, large: bool) {
        let number = |index| scattered(array, index);
        let mut values: Vec<Bytes> = (0..len).map(|index| encode(number(index))).collect();
        if large && let Some(first) = values.first_mut() {
            let mut bytes = first.to_vec();
            bytes.resize(LARGE_BYTES, 0);
            *first = bytes.into();
        }
        let id = self.core(client).scatter(values, TaskOptions::default());
        let tasks = (0..len).map(|index| TaskId { array: id, index }).collect();
        let expect = (0..len).map(|index| Expect { value: number(index), fails: false }).collect();
        self.clients[client].locals.insert(array, Local { tasks, expect, array: Some(id) });
    }

    fn gather(
        &mut self,
        client: usize,
        local: Local,
        until: Until,
        sum: Option<u64>,
        chunk: Option<ChunkId>,
    ) {
        let begun = self.now;
        let ranges = local.ranges();
        let core = self.core(client);
        ranges.iter().for_each(|(array, range)| core.retain(*array, *range));
        let waiter = match until {
            Until::Ends => core.wait(&ranges, Interest::End),
            Until::Small => core.wait(&ranges, Interest::Small),
            Until::Values => core.wait(&ranges, Interest::Value),
            Until::Each => core.wait_each(&ranges, Interest::Value),
        };
        let gather = Gather { local, until, sum, chunk, begun };
        self.clients[client].gathers.insert(waiter, gather);
    }

    fn completed(&mut self, client: usize, waiter: WaiterId) {
        let now = self.time();
        let Some(gather) = self.clients[client].gathers.remove(&waiter) else { return };
        let found = self.compare(client, &gather);
        let core = self.core(client);
        core.stop_waiting(waiter);
        for (array, range) in gather.local.ranges() {
            core.release(now, array, range);
        }
        if let (Some(chunk), Some(process)) = (gather.chunk, self.clients[client].home) {
            for (array, range) in gather.local.ranges() {
                self.core(client).release(now, array, range);
            }
            self.children_came(process, chunk, found);
        } else {
            if let Err(why) = found {
                self.fail(format!("client {client}: {why}"));
            }
            let at = self.now;
            self.push(at, Event::ClientStep(client));
        }
    }

    /// What came, compared with what should. Nested tasks that fail have their parent fail.
    fn compare(&self, client: usize, gather: &Gather) -> Result<Vec<u64>, String> {
        let core = self.clients[client].core.as_ref().expect("it has just acted");
        let mut values = Vec::new();
        for (task, expect) in gather.local.tasks.iter().zip(&gather.local.expect) {
            // Who waits for ends only may find that a value was missed since, and is made again.
            let is_open = matches!(gather.until, Until::Ends | Until::Small);
            if core.status(*task).is_none() && is_open && self.missed.contains(task) {
                continue;
            }
            if core.status(*task).is_none() {
                return Err(format!("{task} has not ended, it is said to have"));
            }
            let failed =
                matches!(core.status(*task), Some(TaskStatus::Error | TaskStatus::Cancelled));
            let pieces = core.pieces(task.array, Range::one(task.index));
            match pieces.first() {
                Some(Piece::Failed(_, failure)) if gather.chunk.is_some() => {
                    return Err(format!("a nested task failed: {failure}"));
                }
                Some(Piece::Failed(_, failure)) => self.explain(*task, *expect, failure)?,
                Some(Piece::Values(_, blob)) => {
                    values.push(equal(*task, *expect, decode(blob.get(0)))?);
                }
                Some(Piece::Value(_, bytes)) => {
                    values.push(equal(*task, *expect, decode(bytes.bytes()))?);
                }
                Some(Piece::Absent(_)) | None => match gather.until {
                    Until::Ends | Until::Small if expect.fails == failed => {}
                    Until::Ends | Until::Small => {
                        return Err(format!("{task} ended as failed: {failed}, not as expected"));
                    }
                    Until::Values | Until::Each => {
                        return Err(format!("the value of {task} is not here"));
                    }
                },
            }
        }
        if let Some(sum) = gather.sum
            && values.len() == gather.local.tasks.len()
            && sum == gather.local.expect.iter().fold(0u64, |sum, one| sum.wrapping_add(one.value))
        {
            let found = values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value));
            if found != sum {
                return Err(format!("the sum is {found} and should be {sum}"));
            }
        }
        Ok(values)
    }

    /// A task failed: it should have, or something that went wrong explains it.
    fn explain(&self, task: TaskId, expect: Expect, failure: &Failure) -> Result<(), String> {
        let origin = failure.origin;
        let is_fair = match failure.kind {
            FailureKind::Cancelled => {
                let cancelled = self.cancelled.get(&origin.array);
                cancelled.is_some_and(|set| set.contains(origin.index))
            }
            // Its client went before it had put the value, or who had the value is lost.
            FailureKind::InputLost if self.is_gone(origin.array.client) => true,
            FailureKind::InputLost => self.puts.get(&origin).is_some_and(|holders| {
                self.missed.contains(&origin)
                    || self.dropped_puts.contains(&origin)
                    || holders.iter().any(|holder| !self.scheduler.core.knows(*holder))
            }),
            FailureKind::Killed => self.deaths >= 3,
            FailureKind::Unrunnable => self.launches_failed >= 3,
            _ => expect.fails,
        };
        if is_fair { Ok(()) } else { Err(format!("{task} failed unfairly: {failure}")) }
    }

    fn is_gone(&self, id: ClientId) -> bool {
        let is_it = |core: &Core| core.id() == id;
        !self.clients.iter().any(|one| one.is_alive && one.core.as_ref().is_some_and(is_it))
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
    pub(super) fn release_all(&mut self, client: usize) {
        let arrays: Vec<u32> = self.clients[client].locals.keys().copied().collect();
        for array in arrays {
            self.release(client, array);
        }
        if self.clients[client].core.is_some() {
            self.client_acts(client);
        }
    }

    /// Waits for everything that a program still has handles of.
    pub(super) fn gather_all(&mut self, client: usize) {
        let locals: Vec<Local> = self.clients[client].locals.values().cloned().collect();
        for local in locals {
            self.gather(client, local, Until::Values, None, None);
        }
        self.client_acts(client);
    }

    pub(super) fn attach(&mut self, client: usize, name: u32) {
        let request = self.core(client).attach(format!("{name}"));
        self.clients[client].attaching.insert(request, name);
    }

    fn attached(&mut self, client: usize, request: u32, ranges: Option<Vec<(ArrayId, Range)>>) {
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
    pub(super) fn name_kept(&mut self, name: &str, _ranges: &[(ArrayId, Range)]) {
        if let Some(kept) = name.parse().ok().and_then(|name: u32| self.kept.get_mut(&name)) {
            kept.is_there = true;
        }
    }

    /// The scheduler hears that somebody takes what has a name.
    pub(super) fn name_taken(&mut self, name: &str) {
        if let Some(kept) = name.parse().ok().and_then(|name: u32| self.kept.get_mut(&name)) {
            kept.is_there = false;
        }
    }

    /// A run submits tasks of its own and waits for them.
    pub(super) fn begin_nested(&mut self, process: usize, chunk: ChunkId, parent: Parent) {
        let client = match self.processes[process].nested {
            Some(client) => client,
            None => {
                let client = self.add_client(None, Some(process));
                self.processes[process].nested = Some(client);
                self.client_starts(client);
                client
            }
        };
        if self.clients[client].core.is_some() {
            self.submit_nested(client, chunk, parent);
        } else {
            self.clients[client].waiting.push((chunk, parent));
        }
    }

    fn submit_nested(&mut self, client: usize, chunk: ChunkId, parent: Parent) {
        let Some(process) = self.clients[client].home else { return };
        let Some(key) = self.key_of(process, chunk) else { return };
        let count = self.work(key).nested;
        let expect =
            self.children_of(key).into_iter().map(|value| Expect { value, fails: false }).collect();
        let work = self.work(key + 1).clone();
        let mut blob = BlobBuilder::new();
        (0..count).for_each(|index| blob.push(&payload(index)));
        let shape = shape(key + 1, &work, vec![Param::Inline]);
        let core = self.core(client);
        let id = core.submit_array(count, shape, vec![blob.build()], Some(parent));
        let tasks = (0..count).map(|index| TaskId { array: id, index }).collect();
        let local = Local { tasks, expect, array: Some(id) };
        self.gather(client, local, Until::Values, None, Some(chunk));
        self.client_acts(client);
        self.park(process, chunk);
    }
}

impl Local {
    /// Consecutive tasks together.
    fn ranges(&self) -> Vec<(ArrayId, Range)> {
        let mut ranges: Vec<(ArrayId, Range)> = Vec::new();
        for task in &self.tasks {
            match ranges.last_mut() {
                Some((array, range)) if *array == task.array && range.end == task.index => {
                    range.end += 1;
                }
                _ => ranges.push((task.array, Range::one(task.index))),
            }
        }
        ranges
    }

    fn part(&self, from: u32, len: u32) -> Self {
        let from = (from as usize).min(self.tasks.len());
        let to = (from + len as usize).min(self.tasks.len());
        Self {
            tasks: self.tasks[from..to].to_vec(),
            expect: self.expect[from..to].to_vec(),
            array: None,
        }
    }
}

fn equal(task: TaskId, expect: Expect, found: Option<u64>) -> Result<u64, String> {
    match found {
        Some(found) if found == expect.value && !expect.fails => Ok(found),
        _ => Err(format!("{task} has the value {found:?}, and {expect:?} is right")),
    }
}

/// The parameter that an input means, and how many tasks it is enough for.
fn param_of(locals: &BTreeMap<u32, Local>, input: Input) -> Option<(Param, u32)> {
    let of = |array: u32| locals.get(&array).map(|local| (local, local.tasks.len() as u32));
    match input {
        Input::Inline => Some((Param::Inline, u32::MAX)),
        Input::Each { array, start } => {
            let (local, len) = of(array)?;
            let param = Param::Each { array: local.array?, start, part: 0 };
            (start < len).then_some((param, len - start))
        }
        Input::Block { array, start, width } => {
            let (local, end) = of(array)?;
            let param = Param::Block { array: local.array?, start, end, width: width.max(1) };
            (start < end).then(|| (param, (end - start).div_ceil(width.max(1))))
        }
        Input::One { array, index } => {
            let (local, _) = of(array)?;
            let task = *local.tasks.get(index as usize)?;
            Some((Param::One { task, part: 0 }, u32::MAX))
        }
        Input::All { array, start } => {
            let (local, len) = of(array)?;
            let range = Range::new(start, len);
            (start < len).then_some((Param::All { array: local.array?, range }, u32::MAX))
        }
    }
}

fn shape(key: u64, work: &Work, params: Vec<Param>) -> Shape {
    let options = TaskOptions {
        priority: work.priority,
        retries: work.retries,
        retry_delay: std::time::Duration::from_millis(work.retry_delay_ms),
        timeout: work.timeout_ms.map(std::time::Duration::from_millis),
        threads: work.threads.max(1),
        resources: if work.cards > 0 {
            vec![("card".to_owned(), work.cards * 10_000)]
        } else {
            Vec::new()
        },
        pools: work.pool.iter().map(|pool| format!("p{pool}")).collect(),
        ..TaskOptions::default()
    };
    Shape { function: FunctionKey(key), name: format!("f{key}"), params, options }
}
