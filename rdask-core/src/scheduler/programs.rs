//! Getting programs to nodes, starting their processes, and ending them when nobody needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::failure::{Failure, FailureKind};
use crate::id::{ClientId, NannyId, Peer, ProcessId, ProgramHash, WorkerId};
use crate::message::{
    Contact, Launch, ProgramInfo, ProgramState, Surroundings, ToClient, ToNanny, ToProcess,
};
use crate::range::Range;
use crate::time::Time;

use super::blame::Suspect;
use super::cluster::{Process, Stage};
use super::group::{Gid, State};
use super::{Action, PROGRAM_IDLE, Scheduler};

/// How many nannies one source serves at a time.
const SERVED_MAX: usize = 4;

/// After a launch failed, the next one in that worker waits: first so long, then twice, and so on.
const RELAUNCH_DELAY: Duration = Duration::from_millis(200);

/// After so many failed launches in a row a program has no place in a worker, as far as its tasks go.
const LAUNCHES_FAILED_MAX: u32 = 3;

/// How often such a worker is tried all the same: whatever it lacks may have come.
const RETRY_LOST_CAUSE: Duration = Duration::from_secs(60);

/// A program that clients have announced.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) info: ProgramInfo,
    pub(crate) surroundings: Surroundings,
    /// Clients that brought it and are connected, without nested ones.
    pub(crate) clients: BTreeSet<ClientId>,
    /// One in each worker, without those that were started for one suspect each.
    pub(crate) processes: BTreeSet<ProcessId>,
    /// The slots that these have, together.
    pub(crate) granted: u64,
    alone: BTreeSet<ProcessId>,
    /// Nannies that have its bytes.
    holders: BTreeSet<NannyId>,
    /// Whether the scheduler's process has them.
    is_stored: bool,
    /// The client that was asked to send them.
    asked: Option<ClientId>,
    /// Nannies that want the bytes and have no source yet, in order.
    wanting: Vec<NannyId>,
    /// Who is being served by whom; `None` is the scheduler.
    fetching: BTreeMap<NannyId, Option<NannyId>>,
    /// Workers in which it could not be started: how often in a row, and when to try again.
    failed: BTreeMap<WorkerId, (u32, Time, String)>,
    idle_since: Option<Time>,
}

/// All programs.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    programs: BTreeMap<ProgramHash, Program>,
}

impl Programs {
    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ProgramHash, &Program)> {
        self.programs.iter()
    }

    pub(crate) fn get(&self, hash: ProgramHash) -> Option<&Program> {
        self.programs.get(&hash)
    }

    pub(crate) fn add_client(
        &mut self,
        client: ClientId,
        info: ProgramInfo,
        surroundings: Surroundings,
        is_nested: bool,
    ) {
        let program = self.programs.entry(info.hash).or_insert_with(|| Program {
            info: info.clone(),
            surroundings: surroundings.clone(),
            clients: BTreeSet::new(),
            processes: BTreeSet::new(),
            granted: 0,
            alone: BTreeSet::new(),
            holders: BTreeSet::new(),
            is_stored: false,
            asked: None,
            wanting: Vec::new(),
            fetching: BTreeMap::new(),
            failed: BTreeMap::new(),
            idle_since: None,
        });
        if !is_nested {
            // The newest client's path and surroundings are the likeliest to be right.
            program.info = info;
            program.surroundings = surroundings;
            program.clients.insert(client);
            program.failed.clear();
            program.idle_since = None;
        }
    }

    pub(crate) fn remove_client(&mut self, hash: ProgramHash, client: ClientId) {
        if let Some(program) = self.programs.get_mut(&hash) {
            program.clients.remove(&client);
            if program.asked == Some(client) {
                program.asked = None;
            }
        }
    }

    pub(crate) fn remove_process(&mut self, hash: ProgramHash, process: ProcessId, granted: u32) {
        if let Some(program) = self.programs.get_mut(&hash) {
            if program.processes.remove(&process) {
                program.granted -= u64::from(granted);
            }
            program.alone.remove(&process);
        }
    }

    /// One of a program's processes, but none that runs a suspect alone, has got so many slots
    /// instead of as many before.
    pub(crate) fn granted(&mut self, hash: ProgramHash, before: u32, now: u32) {
        if let Some(program) = self.programs.get_mut(&hash) {
            program.granted = program.granted + u64::from(now) - u64::from(before);
        }
    }

    /// Processes that were started for one suspect each.
    pub(crate) fn alone(&self) -> impl Iterator<Item = ProcessId> {
        self.programs.values().flat_map(|program| program.alone.iter().copied())
    }

    /// A process of the program has started in a worker: what failed there before is over.
    pub(crate) fn launched(&mut self, hash: ProgramHash, worker: WorkerId) {
        if let Some(program) = self.programs.get_mut(&hash) {
            program.failed.remove(&worker);
        }
    }

    pub(crate) fn remove_nanny(&mut self, nanny: NannyId) {
        for program in self.programs.values_mut() {
            program.holders.remove(&nanny);
            program.wanting.retain(|wanting| *wanting != nanny);
            program.fetching.remove(&nanny);
            let orphans: Vec<NannyId> = program
                .fetching
                .iter()
                .filter(|(_, source)| **source == Some(nanny))
                .map(|(fetcher, _)| *fetcher)
                .collect();
            // They will report the failure; the place is free now.
            for orphan in orphans {
                program.fetching.remove(&orphan);
            }
        }
    }

    /// How far a program is in a worker where it isn't at work.
    pub(crate) fn state(
        &self,
        hash: ProgramHash,
        worker: WorkerId,
        nanny: NannyId,
    ) -> ProgramState {
        let Some(program) = self.programs.get(&hash) else { return ProgramState::Starting };
        match program.failed.get(&worker) {
            Some((count, _, why)) if *count >= LAUNCHES_FAILED_MAX => {
                ProgramState::GivenUp(why.clone())
            }
            _ if program.wanting.contains(&nanny) || program.fetching.contains_key(&nanny) => {
                ProgramState::Fetching
            }
            Some((_, _, why)) => ProgramState::Failed(why.clone()),
            None => ProgramState::Starting,
        }
    }

    /// Whether a process of it may be started in a worker now.
    pub(crate) fn may_launch(&self, hash: ProgramHash, worker: WorkerId, now: Time) -> bool {
        self.get(hash).is_some_and(|program| {
            let failed = program.failed.get(&worker);
            failed.is_none_or(|(_, time, _)| *time <= now)
        })
    }

    /// When a program has been idle for long enough, or a launch is tried again. One that is due by
    /// `now` has been tried.
    pub(crate) fn next_timeout(&self, now: Time) -> Option<Time> {
        let ends = self.programs.values().filter_map(|one| Some(one.idle_since? + PROGRAM_IDLE));
        let retries = self.programs.values().flat_map(move |one| {
            one.failed.values().map(|(_, time, _)| *time).filter(move |time| *time > now)
        });
        ends.chain(retries).min()
    }
}

impl Scheduler {
    /// Sees to it that each program with clients or work has a process in each worker.
    pub(crate) fn launch_processes(&mut self) {
        let hashes: Vec<ProgramHash> = self.programs.programs.keys().copied().collect();
        let busy: BTreeSet<ProgramHash> = self
            .shares
            .values()
            .filter(|share| share.groups > 0)
            .map(|share| share.program)
            .collect();
        for hash in hashes {
            let is_needed = busy.contains(&hash)
                || self.programs.get(hash).is_some_and(|program| !program.clients.is_empty());
            let Some(program) = self.programs.programs.get_mut(&hash) else {
                continue;
            };
            if !is_needed {
                program.idle_since.get_or_insert(self.now);
                continue;
            }
            program.idle_since = None;
            if program.processes.len() < self.cluster.workers.len() {
                self.launch_missing(hash);
            }
            self.fail_if_nowhere(hash);
        }
    }

    /// Whether each worker that can run the program has begun to.
    pub(crate) fn is_at_work(&self, hash: ProgramHash) -> bool {
        self.cluster.workers.iter().all(|(id, worker)| {
            let process = worker.processes.get(&hash).and_then(|id| self.cluster.processes.get(id));
            let has_failed = self.programs.get(hash).is_some_and(|one| one.failed.contains_key(id));
            worker.leaving || has_failed || process.is_some_and(|one| one.stage == Stage::Running)
        })
    }

    fn launch_missing(&mut self, hash: ProgramHash) {
        let missing: Vec<WorkerId> = self
            .cluster
            .workers
            .iter()
            .filter(|(id, worker)| {
                !worker.leaving
                    && !self.is_silent(Peer::Nanny(worker.nanny))
                    && !worker.processes.contains_key(&hash)
                    && self.programs.may_launch(hash, **id, self.now)
            })
            .map(|(id, _)| *id)
            .collect();
        for worker in missing {
            self.launch(hash, worker, None);
        }
    }

    /// Starts a process in a worker: the program's, or one for a suspect alone.
    pub(crate) fn launch(
        &mut self,
        hash: ProgramHash,
        worker: WorkerId,
        alone_for: Option<Suspect>,
    ) -> Option<ProcessId> {
        let id = self.add_process(hash, worker, alone_for)?;
        let nanny = self.cluster.processes.get(&id)?.nanny;
        let program = self.programs.get(hash)?;
        let launch = Launch {
            process: id,
            worker,
            program: program.info.clone(),
            surroundings: program.surroundings.clone(),
        };
        self.send_nanny(nanny, ToNanny::Launch(launch));
        Some(id)
    }

    /// A new process of a program in a worker, which has not registered.
    pub(crate) fn add_process(
        &mut self,
        hash: ProgramHash,
        worker: WorkerId,
        alone_for: Option<Suspect>,
    ) -> Option<ProcessId> {
        let id = ProcessId(self.fresh_id());
        let record = self.cluster.workers.get_mut(&worker)?;
        let program = self.programs.programs.get_mut(&hash)?;
        if alone_for.is_some() {
            record.alone.insert(id);
            program.alone.insert(id);
        } else {
            record.processes.insert(hash, id);
            program.processes.insert(id);
        }
        self.contested.insert(worker);
        let nanny = record.nanny;
        let process = Process { alone_for, ..Process::new(worker, nanny, hash) };
        self.cluster.processes.insert(id, process);
        Some(id)
    }

    /// A process could not be started, or ended before it registered.
    pub(crate) fn launch_failed(&mut self, process: ProcessId, message: &str) {
        let Some(record) = self.cluster.processes.get(&process) else {
            return;
        };
        let (hash, worker, nanny) = (record.program, record.worker, record.nanny);
        self.lose_process(process, message);
        // Who has given up in the middle of a transfer leaves its place to others, unless another
        // process of that nanny waits for the same program.
        let processes = &self.cluster.processes;
        if let Some(program) = self.programs.programs.get_mut(&hash) {
            let waits = |id: &ProcessId| {
                let process = processes.get(id);
                process.is_some_and(|one| one.nanny == nanny && one.stage == Stage::Launching)
            };
            if !program.processes.iter().any(waits) {
                program.fetching.remove(&nanny);
                program.wanting.retain(|wanting| *wanting != nanny);
            }
        }
        self.serve_program(hash);
        let now = self.now;
        let Some(program) = self.programs.programs.get_mut(&hash) else {
            return;
        };
        let (count, time, why) = program.failed.entry(worker).or_insert((0, now, String::new()));
        *count += 1;
        let has_place = *count < LAUNCHES_FAILED_MAX;
        *time = now + if has_place { RELAUNCH_DELAY * (1 << *count) } else { RETRY_LOST_CAUSE };
        message.clone_into(why);
        let is_final = *count == LAUNCHES_FAILED_MAX;
        let clients: Vec<ClientId> = program.clients.iter().copied().collect();
        tracing::warn!(program = %hash, %worker, message, "a program could not be started");
        if is_final {
            let text = format!("the program can't be started in a worker: {message}");
            for client in clients {
                self.send_client(client, ToClient::Warning { message: text.clone() });
            }
        }
    }

    /// A program that no worker can run fails its tasks, rather than let them wait for ever.
    fn fail_if_nowhere(&mut self, hash: ProgramHash) {
        let Some(program) = self.programs.get(hash) else {
            return;
        };
        let is_hopeless = |id: &WorkerId| {
            program.failed.get(id).is_some_and(|(count, ..)| *count >= LAUNCHES_FAILED_MAX)
        };
        let workers = &self.cluster.workers;
        let may_run = !program.processes.is_empty() || program.failed.is_empty();
        if may_run || workers.is_empty() || !workers.keys().all(is_hopeless) {
            return;
        }
        let Some((_, _, why)) = program.failed.values().next().cloned() else {
            return;
        };
        let gids: Vec<Gid> = self
            .groups
            .by_gid
            .iter()
            .filter(|(_, group)| {
                self.shares.get(&group.share).is_some_and(|share| share.program == hash)
            })
            .map(|(gid, _)| *gid)
            .collect();
        for gid in gids {
            let Some(group) = self.groups.get(gid) else {
                continue;
            };
            let held = self.blame.held().filter(|(of, _)| *of == gid);
            let held = held.map(|(_, index)| (Range::one(index), true)).collect::<Vec<_>>();
            let states = group.state.runs(group.all());
            let ready = states.map(|(part, state)| (part, matches!(state, State::Ready(_))));
            for (part, is_stuck) in ready.chain(held).collect::<Vec<_>>() {
                if is_stuck {
                    let Some(group) = self.groups.get(gid) else {
                        break;
                    };
                    let failure = Failure::of_scheduler(
                        FailureKind::Unrunnable,
                        format!("no worker can start the program: {why}"),
                        group.task(part.start),
                    );
                    self.fail(gid, part, &failure.into());
                }
            }
        }
        self.work_off();
    }

    /// Ends the processes of programs that nobody has needed for a while.
    pub(crate) fn end_idle_programs(&mut self) {
        let over: Vec<ProgramHash> = self
            .programs
            .programs
            .iter()
            .filter(|(_, one)| one.idle_since.is_some_and(|since| since + PROGRAM_IDLE <= self.now))
            .map(|(hash, _)| *hash)
            .collect();
        for hash in over {
            let Some(program) = self.programs.programs.remove(&hash) else {
                continue;
            };
            for process in program.processes.into_iter().chain(program.alone) {
                self.end_process(process, "nobody needs its program any more");
            }
            if program.is_stored {
                self.actions.push_back(Action::ForgetProgram(hash));
            }
        }
    }

    /// Has a process end itself. It takes no part in anything from now on.
    pub(crate) fn end_process(&mut self, id: ProcessId, reason: &str) {
        if let Some(process) = self.cluster.processes.get_mut(&id) {
            process.stage = Stage::Ending;
            tracing::info!(process = %id, program = %process.program, reason, "ending a process");
            let message = ToProcess::Exit { reason: reason.to_owned() };
            self.send_process(id, message);
            self.actions.push_back(Action::Close(Peer::Process(id), reason.to_owned()));
            self.lose_process(id, reason);
        }
    }

    /// A nanny has the program neither in its cache nor at the client's path.
    pub(crate) fn program_wanted(&mut self, nanny: NannyId, hash: ProgramHash) {
        if let Some(program) = self.programs.programs.get_mut(&hash) {
            program.holders.remove(&nanny);
            // It asks for one at a time: a launch that was fetching it has been given up.
            program.fetching.remove(&nanny);
            if !program.wanting.contains(&nanny) {
                program.wanting.push(nanny);
            }
        }
        self.serve_program(hash);
    }

    pub(crate) fn program_arrived(&mut self, nanny: NannyId, hash: ProgramHash) {
        if let Some(program) = self.programs.programs.get_mut(&hash) {
            program.fetching.remove(&nanny);
            program.wanting.retain(|wanting| *wanting != nanny);
            program.holders.insert(nanny);
        }
        self.serve_program(hash);
    }

    pub(crate) fn program_stored(&mut self, hash: ProgramHash) {
        if let Some(program) = self.programs.programs.get_mut(&hash) {
            program.is_stored = true;
            program.asked = None;
        }
        self.serve_program(hash);
    }

    /// A client that was asked for its program could not bring it: nannies that wait for it can't
    /// start it now.
    pub(crate) fn program_not_sent(&mut self, client: ClientId, message: &str) {
        let mut waiting = Vec::new();
        for program in self.programs.programs.values_mut() {
            if program.asked == Some(client) {
                program.asked = None;
                let of_wanting = |id: &ProcessId| {
                    let process = self.cluster.processes.get(id)?;
                    let waits = process.stage == Stage::Launching;
                    (waits && program.wanting.contains(&process.nanny)).then_some(*id)
                };
                waiting.extend(program.processes.iter().filter_map(of_wanting));
            }
        }
        for process in waiting {
            self.launch_failed(process, &format!("the client can't bring it: {message}"));
        }
    }

    pub(crate) fn program_fetch_failed(
        &mut self,
        nanny: NannyId,
        hash: ProgramHash,
        message: &str,
    ) {
        tracing::warn!(program = %hash, %nanny, message, "a program could not be fetched");
        if let Some(program) = self.programs.programs.get_mut(&hash)
            && let Some(Some(source)) = program.fetching.remove(&nanny)
        {
            program.holders.remove(&source);
        }
        self.program_wanted(nanny, hash);
    }

    /// Serves every program to those who wait for one: a nanny that was being served is gone.
    pub(crate) fn serve_programs(&mut self) {
        let waited_for = self.programs.programs.iter().filter(|(_, one)| !one.wanting.is_empty());
        let hashes: Vec<ProgramHash> = waited_for.map(|(hash, _)| *hash).collect();
        for hash in hashes {
            self.serve_program(hash);
        }
    }

    /// Names a source to each nanny that wants the program, as far as there are free ones; asks a
    /// client for it if nobody has it.
    pub(crate) fn serve_program(&mut self, hash: ProgramHash) {
        let (nannies, workers) = (&self.cluster.nannies, &self.cluster.workers);
        let Some(program) = self.programs.programs.get_mut(&hash) else {
            return;
        };
        let is_leaving = |id: &WorkerId| workers.get(id).is_none_or(|worker| worker.leaving);
        let mut orders: Vec<(NannyId, Option<(NannyId, Contact)>)> = Vec::new();
        while let Some(nanny) = program.wanting.first().copied() {
            let served = |source: Option<NannyId>| {
                program.fetching.values().filter(|one| **one == source).count() < SERVED_MAX
            };
            let holders = program.holders.iter().filter(|holder| served(Some(**holder)));
            let holders = holders.filter_map(|holder| Some((*holder, nannies.get(holder)?)));
            // Who leaves serves as long as it is there: better than nobody.
            let (leaving, staying): (Vec<_>, Vec<_>) =
                holders.partition(|(_, nanny)| nanny.workers.iter().all(is_leaving));
            let source = match (staying.first(), leaving.first()) {
                (Some(source), _) => Some(source),
                _ if program.is_stored && served(None) => None,
                (None, Some(source)) => Some(source),
                (None, None) => break,
            };
            let source = source.map(|(holder, nanny)| (*holder, nanny.contact.clone()));
            program.wanting.remove(0);
            program.fetching.insert(nanny, source.as_ref().map(|(holder, _)| *holder));
            orders.push((nanny, source));
        }
        let is_stuck = !program.wanting.is_empty() && program.fetching.is_empty();
        let ask = (is_stuck && !program.is_stored && program.asked.is_none())
            .then(|| program.clients.first().copied())
            .flatten();
        program.asked = program.asked.or(ask);
        for (nanny, from) in orders {
            self.send_nanny(nanny, ToNanny::FetchProgram { hash, from });
        }
        if let Some(client) = ask {
            self.send_client(client, ToClient::SendProgram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{FromNanny, WorkerInfo};
    use crate::scheduler::{ClientInfo, Config, NannyInfo};

    const HASH: ProgramHash = ProgramHash([1; 32]);

    fn scheduler() -> Scheduler {
        let mut scheduler = Scheduler::new(Config::default());
        let info = ClientInfo {
            program: ProgramInfo { hash: HASH, size: 1, path: "p".into() },
            surroundings: Surroundings::default(),
            name: "test".into(),
            nested_in: None,
        };
        scheduler.connect_client(Time(0), info);
        scheduler
    }

    fn nanny(scheduler: &mut Scheduler) -> NannyId {
        let worker =
            WorkerInfo { name: "w".into(), slots: 1, memory_limit: 0, resources: Vec::new() };
        let contact = Contact { quic: Vec::new(), tls: Vec::new() };
        let (node, pool) = ("n".to_owned(), "p".to_owned());
        let info = NannyInfo { node, pool, workers: vec![worker], contact };
        scheduler.connect_nanny(Time(0), info).0
    }

    /// What this nanny says, and where others are sent for the program then.
    fn say(
        scheduler: &mut Scheduler,
        nanny: NannyId,
        message: FromNanny,
    ) -> Vec<(NannyId, Option<NannyId>)> {
        scheduler.handle_nanny(Time(0), nanny, message);
        let actions: Vec<Action> = std::iter::from_fn(|| scheduler.poll_action()).collect();
        scheduler.check();
        let sent = actions.into_iter().filter_map(|action| match action {
            Action::ToNanny(to, ToNanny::FetchProgram { from, .. }) => {
                Some((to, from.map(|(from, _)| from)))
            }
            _ => None,
        });
        sent.collect()
    }

    /// Another nanny that joins and lacks the program: who has it for that one?
    fn source(scheduler: &mut Scheduler) -> Vec<Option<NannyId>> {
        let joining = nanny(scheduler);
        let sent = say(scheduler, joining, FromNanny::WantProgram { hash: HASH });
        assert!(sent.iter().all(|(to, _)| *to == joining));
        sent.into_iter().map(|(_, from)| from).collect()
    }

    #[test]
    fn nannies_that_leave_are_the_last_that_others_are_sent_to_for_a_program() {
        let mut scheduler = scheduler();
        let [first, second] = [(); 2].map(|()| nanny(&mut scheduler));
        for holder in [first, second] {
            say(&mut scheduler, holder, FromNanny::HasProgram { hash: HASH });
        }
        assert_eq!(source(&mut scheduler), [Some(first)]);
        say(&mut scheduler, first, FromNanny::Leaving { reason: String::new() });
        assert_eq!(source(&mut scheduler), [Some(second)]);
        say(&mut scheduler, second, FromNanny::Leaving { reason: String::new() });
        assert_eq!(source(&mut scheduler), [Some(first)]);
        scheduler.handle_program_stored(Time(0), HASH);
        assert_eq!(source(&mut scheduler), [None], "the scheduler stays");
    }
}
