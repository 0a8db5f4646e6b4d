//! Runs that don't stop: what they cost, and whom.

use std::time::Duration;

use super::blame::Court;
use crate::failure::{Failure, FailureKind};
use crate::id::{ArrayId, ProcessId, TaskId, ValueId};
use crate::message::{End, Exit, Finished, FromClient, FromProcess, TaskOptions, Why};
use crate::range::Range;
use crate::time::Time;

const GRACE: Duration = Duration::from_secs(10);

impl Court {
    fn cancel(&mut self, index: u32) {
        let message =
            FromClient::Cancel { array: self.task(index).array, range: Range::one(index) };
        self.scheduler.handle_client(self.now, self.client, message);
        self.act();
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        if self.scheduler.poll_timeout().is_some_and(|due| due <= self.now) {
            self.scheduler.handle_timeout(self.now);
        }
        self.act();
    }

    /// The process says that a run has timed out.
    fn time_out(&mut self, index: u32) -> ProcessId {
        let (process, _) = self.home_of(index).expect("it runs");
        let failure = Failure::of_scheduler(FailureKind::TimedOut, "slow", self.task(index));
        let finished = vec![self.finished(index, End::Failed(failure))];
        self.hear(process, FromProcess::Report { number: 1, finished });
        process
    }

    fn finished(&self, index: u32, end: End) -> Finished {
        let task = self.task(index);
        let (_, assign) = self
            .running
            .iter()
            .find(|(_, assign)| assign.array == task.array && assign.range.contains(index))
            .expect("it runs");
        let (assignment, range) = (assign.assignment, Range::one(index));
        Finished { assignment, array: task.array, range, busy_ns: 1, end }
    }

    fn hear(&mut self, process: ProcessId, message: FromProcess) {
        self.scheduler.handle_process(self.now, process, message);
        self.act();
    }
}

#[test]
fn what_cannot_time_out_is_not_waited_for() {
    let mut court = Court::new(1);
    court.submit(0, 1, None);
    let (process, _) = court.home_of(0).unwrap();
    let failure = Failure::of_scheduler(FailureKind::TimedOut, "slow", court.task(0));
    for start in [1, 4_000_000_000] {
        let end = End::Failed(failure.clone());
        let range = Range::new(start, start + 1);
        let finished = vec![Finished { range, ..court.finished(0, end) }];
        court.hear(process, FromProcess::Report { number: 1, finished });
    }
    assert_eq!(court.scheduler.overruns.next_timeout(court.now), None);
}

#[test]
fn a_cancelled_run_that_stops_in_time_costs_nothing() {
    let mut court = Court::new(2);
    court.submit(0, 2, None);
    let (process, _) = court.home_of(0).unwrap();
    court.cancel(0);
    court.pass(GRACE - Duration::from_millis(1));
    court.finish_all();
    court.pass(GRACE * 3);
    assert!(court.scheduler.knows(process) && court.ended.is_empty());
    assert_eq!((court.done, court.failures.len()), (1, 1));
    assert_eq!(court.scheduler.overruns.next_timeout(court.now), None);
}

#[test]
fn what_only_its_process_has_is_copied_first() {
    let mut court = Court::new(1);
    let scatter =
        FromClient::Scatter { number: 0, sizes: vec![5000], options: TaskOptions::default() };
    court.scheduler.handle_client(court.now, court.client, scatter);
    court.act();
    let (process, assignment) = court.puts[0];
    let array = ArrayId { client: court.client, number: 0 };
    let end = End::Stored(vec![5000]);
    let finished = vec![Finished { assignment, array, range: Range::one(0), busy_ns: 0, end }];
    court.hear(process, FromProcess::Report { number: 1, finished });
    court.submit(1, 1, None);
    court.on_trial = 1;
    assert_eq!(court.home_of(0).map(|(at, _)| at), Some(process));
    court.add_worker("other", 1);
    court.cancel(0);
    court.pass(GRACE);
    assert!(court.scheduler.knows(process), "a scattered value is on its way");
    court.pass(GRACE);
    assert!(court.scheduler.knows(process), "nor does that depend on its neighbours' time");
    let mut others = court.scheduler.cluster.processes.keys().copied();
    let other = others.find(|id| *id != process).unwrap();
    let value = ValueId { task: TaskId { array, index: 0 }, part: 0 };
    court.hear(other, FromProcess::Holds { values: vec![value] });
    assert!(court.ended.contains(&process));
    let why = court.scheduler.explain(value.task).why;
    assert_eq!(why, Why::Done { holders: vec![other] });
}

#[test]
fn copies_that_do_not_arrive_hold_up_nobody_for_ever() {
    let mut court = Court::new(1);
    court.submit(0, 2, None);
    let (process, _) = court.home_of(0).unwrap();
    court.finish_all();
    court.submit(1, 1, None);
    court.on_trial = 1;
    court.add_worker("other", 1);
    court.cancel(0);
    for _ in 0..31 {
        court.pass(Duration::from_secs(1));
    }
    assert!(!court.scheduler.knows(process));
}

#[test]
fn one_that_does_not_stop_costs_its_process_after_the_neighbours_have_ended() {
    let mut court = Court::new(2);
    court.submit(0, 6, None);
    let (process, _) = court.home_of(0).unwrap();
    court.cancel(0);
    court.pass(GRACE);
    assert!(court.scheduler.knows(process), "its neighbour has time to end");
    let before = court.running.len();
    let end = court.finished(1, End::Stored(vec![5000]));
    court.hear(process, FromProcess::Report { number: 1, finished: vec![end] });
    assert!(!court.scheduler.knows(process) && court.ended.contains(&process));
    assert_eq!(before, 1, "nothing new was given to it: {:?}", court.running);
    court.exited(process, Exit::Planned, &[0]);
    // Nobody else has room, so the neighbour's value could not be copied: it is made again.
    court.finish_all();
    assert_eq!((court.done, court.failures.len()), (5, 1));
    assert_eq!(court.failures[0].kind, FailureKind::Cancelled);
}

#[test]
fn neighbours_that_take_longer_are_repeated_without_blame() {
    let mut court = Court::new(2);
    court.submit(0, 2, None);
    for round in 1..=4 {
        let (process, run) = court.home_of(1).expect("the neighbour runs");
        assert_eq!(run, round);
        if round == 1 {
            court.cancel(0);
            court.pass(GRACE);
            court.pass(GRACE - Duration::from_millis(1));
            assert!(court.scheduler.knows(process));
            court.pass(Duration::from_millis(1));
        } else {
            court.lose_link(process);
        }
        assert!(!court.scheduler.knows(process));
        court.exited(process, Exit::Planned, &[0, 1]);
    }
    court.finish_all();
    assert_eq!((court.done, court.failures.len()), (1, 1));
}

#[test]
fn a_timed_out_run_keeps_its_slot_until_it_stops() {
    let mut court = Court::new(1);
    court.submit(0, 2, None);
    let process = court.time_out(0);
    assert_eq!(court.failures[0].kind, FailureKind::TimedOut);
    assert!(court.home_of(1).is_none(), "its slot is not free");
    let assignment = court.running[0].1.assignment;
    court.running.clear();
    court.hear(process, FromProcess::Stopped { assignment, range: Range::one(0) });
    assert_eq!(court.home_of(1).expect("the slot is free").0, process);
    court.pass(GRACE * 2);
    court.finish_all();
    assert!(court.ended.is_empty());
    assert_eq!((court.done, court.failures.len()), (1, 1));
}

#[test]
fn a_timed_out_run_that_goes_on_costs_its_process() {
    let mut court = Court::new(1);
    court.submit(0, 2, None);
    let process = court.time_out(0);
    court.pass(GRACE);
    assert!(court.ended.contains(&process), "it had no neighbours to wait for");
    court.exited(process, Exit::Planned, &[0]);
    court.finish_all();
    assert_eq!((court.done, court.failures.len()), (1, 1));
    assert!(court.now > Time(0));
}

#[test]
fn who_ends_by_itself_because_it_was_told_to_blames_nobody() {
    let mut court = Court::new(2);
    court.submit(0, 2, None);
    let (process, _) = court.home_of(1).expect("the neighbour runs");
    court.cancel(0);
    court.pass(GRACE);
    court.pass(GRACE);
    assert!(!court.scheduler.knows(process));
    // It was told at the same time as its nanny, and both runs were on its board.
    court.exited(process, Exit::Code(0), &[0, 1]);
    assert_eq!(court.scheduler.deaths(court.task(1)), 0);
    court.finish_all();
    assert_eq!((court.done, court.failures.len()), (1, 1));
}

#[test]
fn a_run_that_stops_costs_nothing_although_its_array_is_forgotten() {
    let mut court = Court::new(2);
    court.submit(0, 1, None);
    let array = court.task(0).array;
    let assignment = court.running[0].1.assignment;
    let process = court.time_out(0);
    let ranges = vec![(array, Range::one(0))];
    court.scheduler.handle_client(court.now, court.client, FromClient::Release { ranges });
    court.act();
    court.hear(process, FromProcess::Stopped { assignment, range: Range::one(0) });
    court.pass(GRACE);
    court.pass(GRACE);
    assert!(court.scheduler.knows(process) && court.ended.is_empty());
}
