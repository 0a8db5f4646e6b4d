//! What becomes of the process that a suspect has for itself while its inputs are hard to get.

use std::time::Duration;

use super::blame::Court;
use crate::id::*;
use crate::message::*;
use crate::range::Range;

/// A worker of one slot, where a task is on its last try. It takes the value of `source`, which the
/// program's process there has.
struct LastTry {
    court: Court,
    source: TaskId,
    own: ProcessId,
}

impl LastTry {
    fn new() -> Self {
        let mut court = Court::new(1);
        let source = court.task(0);
        court.submit(0, 1, None);
        court.on_trial = 1;
        court.submit_with(1, 1, vec![Param::One { task: source, part: 0 }], None);
        let mut one = Self { court, source, own: ProcessId(0) };
        one.store();
        for _ in 0..2 {
            one.court.kill(0);
            one.store();
        }
        one.own = one.home().expect("its last try");
        one
    }

    fn home(&self) -> Option<ProcessId> {
        self.court.home_of(0).map(|(process, _)| process)
    }

    /// The process that runs what the suspect takes has done it.
    fn store(&mut self) {
        let is_source = |(_, assign): &(_, Assign)| assign.array == self.source.array;
        let nth = self.court.running.iter().position(is_source).expect("it runs");
        let (process, assign) = self.court.running.remove(nth);
        let finished = Finished {
            assignment: assign.assignment,
            array: assign.array,
            range: assign.range,
            busy_ns: 200_000_000,
            end: End::Stored(vec![5000]),
        };
        self.say(process, FromProcess::Report { number: 1, finished: vec![finished] });
    }

    fn say(&mut self, process: ProcessId, message: FromProcess) {
        self.court.scheduler.handle_process(self.court.now, process, message);
        self.court.act();
    }

    /// The suspect's process could not get what it takes.
    fn miss(&mut self, denied: bool) {
        let mine = |(process, _): &(ProcessId, Assign)| *process == self.own;
        let nth = self.court.running.iter().position(mine).expect("it has its task");
        let (_, assign) = self.court.running.remove(nth);
        let holder = self.holder();
        let given_back = vec![(assign.assignment, Range::one(0))];
        let task = self.source;
        self.say(self.own, FromProcess::Missed { task, holder, denied, given_back });
    }

    fn holder(&self) -> ProcessId {
        let processes = &self.court.scheduler.cluster.processes;
        let main = processes.iter().find(|(_, process)| process.alone_for.is_none());
        *main.expect("it lives").0
    }

    fn later(&mut self, time: Duration) {
        self.court.now = self.court.now + time;
        self.court.scheduler.handle_timeout(self.court.now);
        self.court.act();
    }
}

#[test]
fn misses_don_t_cost_a_suspect_its_process() {
    let mut one = LastTry::new();
    for _ in 0..5 {
        one.miss(false);
        assert_eq!(one.home(), None, "it tries again later");
        // Somebody else has got the value, so that these are no failures in a row.
        let values = vec![ValueId { task: one.source, part: 0 }];
        one.say(one.own, FromProcess::Holds { values });
        one.later(Duration::from_millis(500));
        assert_eq!(one.home(), Some(one.own));
    }
    one.court.finish_all();
    assert!(one.court.ended.contains(&one.own), "it has served");
    assert!(one.court.is_at_rest());
}

#[test]
fn the_slots_of_a_suspect_are_lent_while_its_inputs_are_made_again() {
    let mut one = LastTry::new();
    one.miss(true);
    assert_eq!(one.home(), None);
    assert!(!one.court.ended.contains(&one.own), "it keeps what else it has fetched");
    one.store();
    assert_eq!(one.home(), Some(one.own));
    one.court.kill(0);
    assert_eq!(one.court.failures.len(), 1);
    one.court.finish_all();
    assert!(one.court.is_at_rest());
}

#[test]
fn a_suspect_that_waits_for_another_one_lends_it_its_slot() {
    let mut court = Court::new(1);
    court.submit(0, 1, None);
    court.kill(0);
    court.kill(0);
    let (parent, _) = court.home_of(0).expect("its last try");
    let first = court.nanny;
    court.nanny = court.add_worker("other", 1);
    let nested = court.nest(0);
    court.submit(0, 2, Some(nested));
    let mut homes = (0..2).map(|index| (index, court.home_of(index).expect("it runs").0));
    let (child, _) = homes.find(|(_, home)| *home != parent).expect("one runs elsewhere");
    court.kill(child);
    court.kill(child);
    // The only other worker goes: now both have nothing but the one slot.
    let (home, _) = court.home_of(child).expect("its last try");
    court.lose_link(home);
    court.scheduler.handle_link_lost(court.now, Peer::Nanny(court.nanny));
    court.act();
    court.nanny = first;
    // Of a child that could start in its process the parent keeps the slot for it.
    let why = court.scheduler.explain(court.task(child)).why;
    assert!(matches!(why, Why::Suspected { deaths: 2 }), "{why:?}");
    court.finish(1 - child);
    let (home, _) = court.home_of(child).expect("it has the slot that its parent does not need");
    assert_ne!(home, parent);
    court.finish(child);
    assert!(court.ended.contains(&home));
    let process = &court.scheduler.cluster.processes[&parent];
    assert_eq!(process.granted, 1, "the parent goes on");
    court.finish_all();
    assert_eq!((court.failures.len(), court.done), (0, 3));
    assert!(court.is_at_rest());
}

#[test]
fn a_suspect_lends_its_slot_to_what_its_nested_task_takes() {
    let mut court = Court::new(1);
    court.submit(0, 1, None);
    court.kill(0);
    court.kill(0);
    let (parent, _) = court.home_of(0).expect("its last try");
    let other = court.add_worker("other", 1);
    court.submit(1, 1, None);
    court.on_trial = 1;
    let source = court.task(0);
    let (holder, _) = court.home_of(0).expect("the parent's process takes nothing else");
    court.store(0);
    court.lose_link(holder);
    court.scheduler.handle_link_lost(court.now, Peer::Nanny(other));
    court.act();
    // A task nested in the suspect takes what is lost.
    court.on_trial = 0;
    let (client, nested) = (court.client, court.nest(0));
    court.submit_with(0, 1, vec![Param::One { task: source, part: 0 }], Some(nested));
    let child = std::mem::replace(&mut court.client, client);
    court.on_trial = 1;
    court.store(0);
    (court.client, court.on_trial) = (child, 0);
    court.finish(0);
    assert_eq!(court.scheduler.cluster.processes[&parent].granted, 1, "the parent goes on");
    court.finish_all();
    assert_eq!(court.failures.len(), 0);
    assert!(court.is_at_rest());
}

#[test]
fn a_suspect_leaves_with_no_worker() {
    let mut one = LastTry::new();
    let first = one.court.nanny;
    let second = one.court.add_worker("other", 1);
    one.miss(false);
    let message = FromNanny::Leaving { reason: "its time is over".into() };
    one.court.scheduler.handle_nanny(one.court.now, first, message);
    one.court.act();
    one.later(Duration::from_millis(500));
    let home = one.home().expect("it has another process");
    assert_ne!(home, one.own);
    assert_eq!(one.court.scheduler.cluster.processes[&home].nanny, second);
    one.court.finish_all();
    assert!(one.court.ended.contains(&one.own) && one.court.is_at_rest());
}

#[test]
fn a_suspect_without_any_worker_says_that() {
    let mut court = Court::new(1);
    court.submit(0, 1, None);
    court.kill(0);
    court.kill(0);
    let (home, _) = court.home_of(0).expect("its last try");
    court.lose_link(home);
    court.scheduler.handle_link_lost(court.now, Peer::Nanny(court.nanny));
    court.act();
    assert_eq!(court.scheduler.explain(court.task(0)).why, Why::NoWorkers);
}

#[test]
fn what_a_suspect_submits_and_has_no_room_yet_names_its_process() {
    let mut court = Court::new(1);
    court.submit(0, 1, None);
    court.kill(0);
    court.kill(0);
    let nested = court.nest(0);
    court.submit(0, 2, Some(nested));
    let waiting = (0..2).find(|index| court.home_of(*index).is_none());
    let why = court.scheduler.explain(court.task(waiting.expect("one slot, one run"))).why;
    assert!(matches!(why, Why::NoRoom { processes: 2, ahead: 0, .. }), "{why:?}");
}
