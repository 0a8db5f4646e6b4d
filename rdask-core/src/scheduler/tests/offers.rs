//! What is used of what processes offer that were given up.

use std::time::Duration;

use crate::id::*;
use crate::message::*;
use crate::range::Range;
use crate::scheduler::{Action, ClientInfo, RETURN_AWAITED};
use crate::time::Time;

use super::leases::{Stage, assigned, contact, join};

const TASK: Range = Range { start: 0, end: 1 };

impl Stage {
    fn array(&self, number: u32) -> ArrayId {
        ArrayId { client: self.client, number }
    }

    fn task(&self, number: u32) -> TaskId {
        TaskId { array: self.array(number), index: 0 }
    }

    fn says(&mut self, process: ProcessId, message: FromProcess) -> Vec<Action> {
        self.scheduler.handle_process(self.scheduler.now, process, message);
        self.actions()
    }

    /// A process has run the only task of an array, and keeps the result.
    fn stores(&mut self, process: ProcessId, assignment: AssignmentId, number: u32) -> Vec<Action> {
        let (array, end) = (self.array(number), End::Stored(vec![2000]));
        let finished = vec![Finished { assignment, array, range: TASK, busy_ns: 1, end }];
        self.says(process, FromProcess::Report { number: 1, finished })
    }

    /// The node of a process is given up.
    fn loses(&mut self, process: ProcessId, second: u64) -> Vec<Action> {
        let nanny = self.scheduler.cluster.processes[&process].nanny;
        self.breaks(second, Peer::Nanny(nanny));
        self.breaks(second, Peer::Process(process));
        self.at(second + 5)
    }

    /// It is back: its number now, and what the scheduler says of what it has.
    fn returns(&mut self, was: ProcessId, values: Vec<Offered>) -> (ProcessId, Vec<Action>) {
        let now = self.scheduler.now;
        let nanny = join(&mut self.scheduler, now);
        let program = ProgramHash([1; 32]);
        self.scheduler.handle_return(now, nanny, &[Returning { was, worker: 0, program }]);
        let actions = self.actions();
        let kept = actions.iter().find_map(|action| match action {
            Action::ToNanny(_, ToNanny::Keep { process, .. }) => Some(*process),
            Action::ToNanny(_, ToNanny::Launch(_)) => panic!("{actions:?}"),
            _ => None,
        });
        let process = kept.expect("it is kept");
        self.scheduler.connect_process(now, process, contact()).unwrap();
        assert_eq!(assigned(&self.actions()), [], "it has not told what it holds");
        (process, self.says(process, FromProcess::Offer { values, is_last: true }))
    }

    fn holders(&self, number: u32) -> Vec<ProcessId> {
        match self.scheduler.explain(self.task(number)).why {
            Why::Done { holders } => holders,
            why => panic!("{why:?}"),
        }
    }
}

fn stored(array: ArrayId, run: u32) -> Vec<Offered> {
    vec![Offered { array, range: TASK, what: Offering::Stored { run, sizes: vec![11] } }]
}

/// Who got the only task of an array.
fn given(actions: &[Action]) -> (ProcessId, AssignmentId) {
    let mut found = actions.iter().filter_map(|action| match action {
        Action::ToProcess(process, ToProcess::Assign(one)) => Some((*process, one.assignment)),
        Action::ToClient(_, ToClient::Put { process, assignment, .. }) => {
            Some((*process, *assignment))
        }
        _ => None,
    });
    found.next().expect("it was assigned")
}

fn told(actions: &[Action], process: ProcessId, what: impl Fn(&ToProcess) -> bool) -> bool {
    let is = |one: &Action| matches!(one, Action::ToProcess(to, it) if *to == process && what(it));
    actions.iter().any(is)
}

fn is_drop(message: &ToProcess) -> bool {
    matches!(message, ToProcess::Drop { .. })
}

#[test]
fn a_value_ends_its_task_that_was_to_run_again() {
    let mut stage = Stage::new();
    let (first, assignment) = given(&stage.submit(1));
    stage.stores(first, assignment, 0);
    let (second, again) = given(&stage.loses(first, 1));
    let (back, actions) = stage.returns(first, stored(stage.array(0), 1));
    assert!(told(&actions, second, |it| matches!(it, ToProcess::Cancel { .. })), "{actions:?}");
    assert_eq!(stage.holders(0), [back]);
    // The run that was called back comes to nothing.
    let late = |it: &ToProcess| matches!(it, ToProcess::DropResults { assignment, .. } if *assignment == again);
    assert!(told(&stage.stores(second, again, 0), second, late));
    assert_eq!(stage.holders(0), [back]);
    // The next run has a number of its own.
    stage.loses(back, 20);
    assert_eq!(stage.scheduler.explain(stage.task(0)).run, 3);
}

#[test]
fn a_run_that_is_not_needed_any_more_costs_its_process_nothing() {
    let mut stage = Stage::new();
    let (first, assignment) = given(&stage.submit(1));
    stage.stores(first, assignment, 0);
    let (second, _) = given(&stage.loses(first, 1));
    stage.returns(first, stored(stage.array(0), 1));
    for second in 7..60 {
        stage.at(second);
    }
    // It goes on, deaf to its token.
    assert!(stage.scheduler.knows(second));
    assert!(!stage.scheduler.is_closing(second));
}

#[test]
fn a_put_that_was_taken_and_failed_is_no_reason_to_drop_the_next_one() {
    let mut stage = Stage::new();
    let now = stage.scheduler.now;
    let scatter = |stage: &mut Stage, message| {
        stage.scheduler.handle_client(now, stage.client, message);
        given(&stage.actions())
    };
    let options = TaskOptions::default();
    let (process, first) =
        scatter(&mut stage, FromClient::Scatter { number: 0, sizes: vec![2000], options });
    // The value is there, and the client does not hear it. It is asked for elsewhere.
    let failed = FromClient::PutFailed { assignment: first, message: "no answer came".to_owned() };
    let (other, second) = scatter(&mut stage, failed);
    let is_late = |it: &ToProcess| matches!(it, ToProcess::DropResults { assignment, .. } if *assignment == first);
    assert!(told(&stage.stores(process, first, 0), process, is_late));
    // If it was asked for in the same process, the first word of it means what was put before.
    stage.stores(other, second, 0);
    assert_eq!(stage.holders(0), [other]);
    let actions = stage.stores(other, first, 0);
    assert!(!told(&actions, other, |it| matches!(it, ToProcess::DropResults { .. })));
}

#[test]
fn who_was_named_a_holder_is_told_of_its_loss_once() {
    let mut stage = Stage::new();
    let (first, assignment) = given(&stage.submit(1));
    let (array, client) = (stage.array(0), stage.client);
    let gone = |actions: &[Action]| {
        let is_gone = |one: &&Action| {
            matches!(one, Action::ToClient(to, ToClient::Gone { process })
                if (*to, *process) == (client, first))
        };
        actions.iter().filter(is_gone).count()
    };
    stage.stores(first, assignment, 0);
    let now = stage.scheduler.now;
    let want = FromClient::Want { array, range: TASK, values: true };
    stage.scheduler.handle_client(now, client, want.clone());
    let named = |one: &Action| {
        matches!(one, Action::ToClient(_, ToClient::Ended { outcome: Outcome::Held { .. }, .. }))
    };
    assert!(stage.actions().iter().any(named));
    let actions = stage.loses(first, 1);
    assert_eq!(gone(&actions), 1, "{actions:?}");
    // Who asks again hears of the next holder.
    let (second, again) = given(&actions);
    stage.scheduler.handle_client(stage.scheduler.now, client, want);
    assert!(stage.stores(second, again, 0).iter().any(named));
}

#[test]
fn a_value_of_another_run_is_no_copy_and_one_of_the_same_run_is() {
    let mut stage = Stage::new();
    let (first, assignment) = given(&stage.submit(1));
    stage.stores(first, assignment, 0);
    let (second, again) = given(&stage.loses(first, 1));
    stage.stores(second, again, 0);
    let (back, actions) = stage.returns(first, stored(stage.array(0), 1));
    assert!(told(&actions, back, is_drop), "{actions:?}");
    assert_eq!(stage.holders(0), [second]);
    let value = ValueId { task: stage.task(0), part: 0 };
    stage.says(back, FromProcess::Holds { values: vec![value] });
    stage.loses(second, 20);
    assert_eq!(stage.holders(0), [back]);
    let (second, actions) = stage.returns(second, stored(stage.array(0), 2));
    assert!(!told(&actions, second, is_drop), "{actions:?}");
    assert_eq!(stage.holders(0), [back, second]);
}

#[test]
fn a_value_that_is_offered_twice_is_not_dropped_for_that() {
    let mut stage = Stage::new();
    let (first, assignment) = given(&stage.submit(1));
    stage.stores(first, assignment, 0);
    stage.loses(first, 1);
    // A small result of one run and a stored one of another, or a confused process.
    let twice = [stored(stage.array(0), 1), stored(stage.array(0), 1)].concat();
    let (back, actions) = stage.returns(first, twice);
    assert_eq!(stage.holders(0), [back]);
    assert!(!told(&actions, back, is_drop), "{actions:?}");
    // Of what it is not counted as a holder, nothing is left there.
    let mut stage = Stage::new();
    let (first, assignment) = given(&stage.submit(1));
    stage.stores(first, assignment, 0);
    stage.loses(first, 1);
    let mut blob = crate::blob::BlobBuilder::new();
    blob.push(b"x");
    let what = Offering::Inline { run: 1, blob: blob.build() };
    let small = Offered { array: stage.array(0), range: TASK, what };
    let both = [vec![small], stored(stage.array(0), 1)].concat();
    let (back, actions) = stage.returns(first, both);
    assert_eq!(stage.holders(0), []);
    assert!(told(&actions, back, is_drop), "{actions:?}");
}

/// A task that ran in a process which is lost, and runs elsewhere, and one of another program.
fn lost_and_anothers() -> (Stage, ProcessId, ArrayId, ArrayId) {
    let mut stage = Stage::new();
    let (first, assignment) = given(&stage.submit(1));
    stage.stores(first, assignment, 0);
    let program = ProgramInfo { hash: ProgramHash([2; 32]), size: 1, path: "q".into() };
    let surroundings = Surroundings::default();
    let info = ClientInfo { program, surroundings, name: "d".into(), nested_in: None };
    let mine = stage.client;
    stage.client = stage.scheduler.connect_client(stage.scheduler.now, info);
    stage.submit(1);
    let others = stage.array(0);
    stage.client = mine;
    stage.loses(first, 1);
    let array = stage.array(0);
    (stage, first, array, others)
}

#[test]
fn what_a_process_may_not_offer_is_not_taken() {
    let long = Range::new(0, 9);
    for case in 0..6 {
        let (mut stage, first, array, others) = lost_and_anothers();
        let one = |array, range, run, sizes| Offered {
            array,
            range,
            what: Offering::Stored { run, sizes },
        };
        let bad = match case {
            0 => one(others, TASK, 1, vec![11]),
            1 => one(array, TASK, 1, vec![11, 11]),
            2 => one(array, long, 1, vec![11]),
            3 => one(array, TASK, 0, vec![11]),
            // The run that is under way elsewhere.
            4 => one(array, TASK, 2, vec![11]),
            _ => Offered { array, range: TASK, what: Offering::Copies },
        };
        let range = (bad.array, bad.range);
        let (back, actions) = stage.returns(first, vec![bad]);
        let is_dropped =
            |it: &ToProcess| matches!(it, ToProcess::Drop { ranges } if *ranges == [range]);
        assert!(told(&actions, back, is_dropped), "{case}: {actions:?}");
        assert!(matches!(stage.scheduler.explain(stage.task(0)).why, Why::Assigned { .. }));
        // Only who is back offers, and only once.
        let before = stage.scheduler.stale_count();
        let late = FromProcess::Offer { values: stored(array, 1), is_last: true };
        assert!(!told(&stage.says(back, late), back, |_| true));
        assert_eq!(stage.scheduler.stale_count(), before + 1);
    }
}

fn scatter(stage: &mut Stage) -> ProcessId {
    let options = TaskOptions::default();
    let scatter = FromClient::Scatter { number: 0, sizes: vec![2000], options };
    stage.scheduler.handle_client(stage.scheduler.now, stage.client, scatter);
    let actions = stage.actions();
    let (process, assignment) = given(&actions);
    stage.stores(process, assignment, 0);
    process
}

#[test]
fn a_scattered_value_is_waited_for_and_lost_for_good_after_that() {
    let mut stage = Stage::new();
    let holder = scatter(&mut stage);
    stage.loses(holder, 1);
    let left = RETURN_AWAITED;
    assert_eq!(stage.scheduler.explain(stage.task(0)).why, Why::Away { left });
    let (back, _) = stage.returns(holder, stored(stage.array(0), 1));
    assert_eq!(stage.holders(0), [back]);
    stage.loses(back, 10);
    stage.at(15 + 29);
    assert!(matches!(stage.scheduler.explain(stage.task(0)).why, Why::Away { .. }));
    stage.at(15 + 30);
    let lost = stage.scheduler.explain(stage.task(0)).why;
    assert!(matches!(lost, Why::Failed(_)), "{lost:?}");
    let (late, actions) = stage.returns(back, stored(stage.array(0), 1));
    assert!(told(&actions, late, is_drop), "{actions:?}");
    assert_eq!(stage.scheduler.explain(stage.task(0)).why, lost);
}

#[test]
fn a_scattered_value_without_a_place_holds_up_no_other() {
    let mut stage = Stage::new();
    let nowhere = TaskOptions { workers: vec!["nobody".into()], ..TaskOptions::default() };
    let scatter = FromClient::Scatter { number: 7, sizes: vec![1], options: nowhere };
    stage.scheduler.handle_client(stage.scheduler.now, stage.client, scatter);
    assert!(
        stage.actions().iter().all(|it| !matches!(it, Action::ToClient(_, ToClient::Put { .. })))
    );
    let options = TaskOptions::default();
    let scatter = FromClient::Scatter { number: 8, sizes: vec![1], options };
    stage.scheduler.handle_client(stage.scheduler.now, stage.client, scatter);
    let (process, _) = given(&stage.actions());
    assert!(stage.processes.contains(&process));
}

#[test]
fn a_scattered_value_whose_process_died_is_not_waited_for() {
    let mut stage = Stage::new();
    let holder = scatter(&mut stage);
    stage.scheduler.handle_link_lost(stage.scheduler.now, Peer::Process(holder));
    stage.actions();
    assert!(matches!(stage.scheduler.explain(stage.task(0)).why, Why::Failed(_)));
}

#[test]
fn a_process_that_does_not_come_back_in_time_is_replaced() {
    let mut stage = Stage::new();
    let first = stage.processes[0];
    stage.loses(first, 1);
    let now = stage.scheduler.now;
    let nanny = join(&mut stage.scheduler, now);
    let program = ProgramHash([1; 32]);
    let one = Returning { was: first, worker: 0, program };
    // Only one for a program in each worker; none of which others live; no such worker.
    let second = Returning { was: stage.processes[1], ..one.clone() };
    let nowhere = Returning { worker: 1, ..one.clone() };
    stage.scheduler.handle_return(now, nanny, &[second, nowhere, one.clone(), one]);
    let actions = stage.actions();
    let count = |is: fn(&ToNanny) -> bool| {
        let to = actions.iter().filter(|it| matches!(it, Action::ToNanny(_, it) if is(it)));
        to.count()
    };
    assert_eq!(count(|it| matches!(it, ToNanny::Keep { .. })), 1, "{actions:?}");
    assert_eq!(count(|it| matches!(it, ToNanny::Kill { .. })), 3, "{actions:?}");
    assert_eq!(count(|it| matches!(it, ToNanny::Launch(_))), 0, "{actions:?}");
    let launches = |it: &Action| matches!(it, Action::ToNanny(_, ToNanny::Launch(_)));
    assert!(!stage.at(15).iter().any(launches));
    assert!(stage.at(16).iter().any(launches));
}

#[test]
fn a_value_that_was_not_reached_stays_as_long_as_its_holder_is_believed() {
    let mut stage = Stage::new();
    let holder = scatter(&mut stage);
    let task = stage.task(0);
    let miss = |stage: &mut Stage, denied: bool| {
        stage.scheduler.handle_client(
            stage.scheduler.now,
            stage.client,
            FromClient::Missed { task, holder, denied },
        );
        stage.actions();
        matches!(stage.scheduler.explain(task).why, Why::Done { .. })
    };
    // Many at once are one.
    assert!((0..100).all(|_| miss(&mut stage, false)));
    assert!((1..15).all(|second| {
        stage.at(second);
        miss(&mut stage, false)
    }));
    // While the holder's link is broken its lease decides.
    stage.breaks(15, Peer::Process(holder));
    assert!((0..40).all(|tenth| {
        stage.scheduler.handle_timeout(Time(0) + Duration::from_millis(15_000 + tenth * 100));
        miss(&mut stage, false)
    }));
    assert!(!miss(&mut stage, true), "it denied to have it");
}

#[test]
fn a_value_that_nobody_reaches_is_not_made_again_for_ever() {
    let mut stage = Stage::new();
    let mut actions = stage.submit(1);
    let (task, mut second) = (stage.task(0), 0);
    for round in 1..=4 {
        let (holder, assignment) = given(&actions);
        stage.stores(holder, assignment, 0);
        assert_eq!(stage.scheduler.explain(task).run, round);
        for _ in 0..2 {
            second += 1;
            stage.at(second);
            let missed = FromClient::Missed { task, holder, denied: false };
            stage.scheduler.handle_client(stage.scheduler.now, stage.client, missed);
            actions = stage.actions();
        }
    }
    let why = stage.scheduler.explain(task).why;
    let Why::Failed(failure) = why else { panic!("{why:?}") };
    assert!(failure.message.contains("run 4 times"), "{failure:?}");
    assert!(failure.message.contains("firewall"), "{failure:?}");
}

#[test]
fn a_value_that_can_be_made_again_is_after_two_tries() {
    let mut stage = Stage::new();
    let (holder, assignment) = given(&stage.submit(1));
    stage.stores(holder, assignment, 0);
    let (task, denied) = (stage.task(0), false);
    for (second, is_done) in [(1, true), (2, false)] {
        stage.at(second);
        let missed = FromClient::Missed { task, holder, denied };
        stage.scheduler.handle_client(stage.scheduler.now, stage.client, missed);
        stage.actions();
        let why = stage.scheduler.explain(task).why;
        assert_eq!(matches!(why, Why::Done { .. }), is_done, "{why:?}");
    }
}
