//! Given these events, exactly these actions and no others.

mod model;

use super::*;
use crate::blob::{Blob, BlobBuilder};
use crate::failure::{Failure, FailureKind};
use crate::id::{ClientId, FunctionKey, StealId};
use crate::message::{Feed, Offered, Offering, TaskOptions};

const ME: ProcessId = ProcessId(7);
const OTHER: ProcessId = ProcessId(8);
const THIRD: ProcessId = ProcessId(9);

fn array(number: u32) -> ArrayId {
    ArrayId { client: ClientId(1), number }
}

fn task(number: u32, index: u32) -> TaskId {
    TaskId { array: array(number), index }
}

fn value(number: u32, index: u32) -> ValueId {
    kept::first_of(array(number), index)
}

fn source(number: u32, index: u32, place: Place) -> Source {
    Source { task: task(number, index), part: 0, place }
}

fn contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

/// Assignment `id` of `range` of array `number`, with nothing special.
fn assign(id: u64, number: u32, range: Range, params: Vec<Feed>) -> Assign {
    let options = TaskOptions::default();
    Assign {
        assignment: AssignmentId(id),
        array: array(number),
        range,
        function: FunctionKey(u64::from(number)),
        name: None,
        depth: 0,
        priority: 0,
        threads: options.threads,
        parts: options.parts,
        nested_here: false,
        inline_max: 1024,
        timeout: None,
        payload: Blob::empty(range.len()),
        params,
        runs: Vec::new(),
    }
}

fn inline_end(range: Range) -> End {
    let mut builder = BlobBuilder::new();
    range.iter().for_each(|index| builder.push(&index.to_le_bytes()));
    End::Inline(builder.build())
}

/// All that `range` did, inline, 10 ms per task.
fn ended(range: Range) -> ChunkEnd {
    ChunkEnd {
        ended: vec![(range, inline_end(range))],
        busy: Duration::from_millis(10) * range.len(),
    }
}

fn stored(range: Range) -> ChunkEnd {
    ChunkEnd {
        ended: vec![(range, End::Stored(vec![5000; range.len() as usize]))],
        busy: Duration::from_millis(10) * range.len(),
    }
}

fn failed(index: u32) -> ChunkEnd {
    let failure = Failure::of_scheduler(FailureKind::Panicked, "ouch", task(1, index));
    ChunkEnd {
        ended: vec![(Range::one(index), End::Failed(failure))],
        busy: Duration::from_millis(10),
    }
}

/// A process and its log: one word or two per action.
struct Script {
    process: Process,
    now: Time,
}

impl Script {
    fn new(slots: u32) -> Self {
        Self { process: Process::new(ME, slots), now: Time(1_000_000_000) }
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    fn tell(&mut self, message: ToProcess) -> Vec<String> {
        self.process.handle_message(self.now, message);
        self.log()
    }

    fn assign(&mut self, assign: Assign) -> Vec<String> {
        self.tell(ToProcess::Assign(assign))
    }

    fn end(&mut self, chunk: u64, end: ChunkEnd) -> Vec<String> {
        self.process.handle_chunk_ended(self.now, ChunkId(chunk), end);
        self.log()
    }

    fn returned(&mut self, id: ProcessId) -> Vec<String> {
        self.process.handle_returned(self.now, id);
        self.log()
    }

    fn log(&mut self) -> Vec<String> {
        let actions = std::iter::from_fn(|| self.process.poll_action());
        actions.map(|action| short(&action)).collect()
    }
}

fn short(action: &Action) -> String {
    match action {
        Action::StartChunk(start) => format!(
            "start {} a{} {:?}{}",
            start.chunk.0,
            start.assign.assignment.0,
            start.range,
            if start.small.is_empty() { "" } else { " small" },
        ),
        Action::TakeBack(chunk) => format!("take back {}", chunk.0),
        Action::CancelRunning(chunk, range) => format!("cancel {} {range:?}", chunk.0),
        Action::Resume(chunk) => format!("resume {}", chunk.0),
        Action::Fetch { value, holder, .. } => format!("fetch {} from {holder}", value.task),
        Action::DropValues(array, range) => format!("drop {array} {range:?}"),
        Action::DropReplica(value) => format!("drop {}", value.task),
        Action::Send(message) => short_message(message),
        Action::Exit { reason } => format!("exit: {reason}"),
    }
}

fn short_message(message: &FromProcess) -> String {
    match message {
        FromProcess::Report { number, finished } => {
            let each = finished.iter().map(|it| {
                let how = match &it.end {
                    End::Inline(_) => "inline",
                    End::Stored(_) => "stored",
                    End::Failed(failure) => match failure.kind {
                        FailureKind::TimedOut => "timed out",
                        _ => "failed",
                    },
                    End::Cancelled => "cancelled",
                    End::Lost => "lost",
                };
                format!(" a{} {:?} {how}", it.assignment.0, it.range)
            });
            format!("report {number}:{}", each.collect::<String>())
        }
        FromProcess::Stopped { range, .. } => format!("stopped {range:?}"),
        FromProcess::SlotsFree { slots } => format!("slots free {slots}"),
        FromProcess::Fetched { bytes, .. } => format!("fetched {bytes}"),
        FromProcess::Parked { runs, slots } => format!("parked {runs} {slots}"),
        FromProcess::GaveUp { assignment, ranges, .. } => {
            format!("gave up a{} {ranges:?}", assignment.0)
        }
        FromProcess::Holds { values } => format!("holds {values:?}"),
        FromProcess::Missed { task, holder, given_back, .. } => {
            let given = given_back.iter().map(|(id, range)| format!(" a{} {range:?}", id.0));
            format!("missed {task} {holder}{}", given.collect::<String>())
        }
        FromProcess::NotAcquired { task } => format!("not acquired {task}"),
        FromProcess::Offer { values, is_last } => {
            let each = values.iter().map(|it| {
                let how = match &it.what {
                    Offering::Inline { run, .. } => format!("inline {run}"),
                    Offering::Stored { run, sizes } => format!("stored {run} {sizes:?}"),
                    Offering::Copies => "copies".into(),
                };
                format!(" {} {:?} {how}", it.array, it.range)
            });
            let last = if *is_last { " last" } else { "" };
            format!("offer{last}:{}", each.collect::<String>())
        }
    }
}

fn acquire(number: u32, range: Range, parts: u16) -> ToProcess {
    ToProcess::Acquire { array: array(number), range, parts, holder: OTHER }
}

#[test]
fn a_value_is_acquired_once_beside_the_tasks_that_take_it() {
    let mut script = Script::new(2);
    script.tell(ToProcess::Peer { process: OTHER, contact: contact() });
    let feed = Feed::One(source(5, 3, Place::Held(vec![OTHER])));
    assert_eq!(script.assign(assign(1, 1, Range::one(0), vec![feed])), ["fetch c1.5.3 from p8"]);
    assert_eq!(script.tell(acquire(5, Range::new(3, 5), 1)), ["fetch c1.5.4 from p8"]);
    script.process.handle_fetched(script.now, value(5, 3), 0, Duration::ZERO);
    let (three, four) = (task(5, 3), task(5, 4));
    assert_eq!(script.log(), ["start 0 a1 0..1".into(), format!("holds {:?}", [three])]);
    script.process.handle_fetched(script.now, value(5, 4), 0, Duration::ZERO);
    assert_eq!(script.log(), [format!("holds {:?}", [four])]);
    script.end(0, ended(Range::one(0)));
    // What is here is announced again.
    assert_eq!(script.tell(acquire(5, Range::one(4), 1)), [format!("holds {:?}", [four])]);
    assert!(script.process.inputs.all.is_empty());
}

#[test]
fn what_can_not_be_acquired_is_no_verdict_on_its_holder() {
    let mut script = Script::new(1);
    script.tell(ToProcess::Peer { process: OTHER, contact: contact() });
    assert_eq!(
        script.tell(acquire(5, Range::one(3), 2)),
        ["fetch c1.5.3 from p8", "fetch c1.5.3 from p8"]
    );
    script.process.handle_fetched(script.now, value(5, 3), 0, Duration::ZERO);
    assert_eq!(script.log(), [""; 0], "it is half here");
    let second = ValueId { part: 1, ..value(5, 3) };
    script.process.handle_fetch_failed(script.now, second, OTHER, true);
    // What has come is known, so that it can be dropped.
    assert_eq!(script.log(), ["not acquired c1.5.3", "holds [c1.5.3]"]);
    assert!(script.process.inputs.all.is_empty());
}

#[test]
fn slots_are_filled_and_an_idle_slot_reports_at_once() {
    let mut script = Script::new(2);
    let log = script.assign(assign(1, 1, Range::new(0, 3), vec![]));
    assert_eq!(log, ["start 0 a1 0..1", "start 1 a1 1..2"]);
    assert_eq!(
        script.end(0, ended(Range::one(0))),
        ["start 2 a1 2..3", "report 1: a1 0..1 inline"]
    );
    assert_eq!(script.end(1, ended(Range::one(1))), ["report 2: a1 1..2 inline"]);
    assert_eq!(script.end(2, ended(Range::one(2))), ["report 3: a1 2..3 inline"]);
    assert!(script.process.is_idle());
    assert_eq!(script.process.poll_timeout(), None);
}

#[test]
fn a_busy_process_reports_once_a_millisecond_and_merges() {
    let mut script = Script::new(1);
    let short =
        |range: Range| ChunkEnd { busy: Duration::from_micros(100) * range.len(), ..ended(range) };
    script.assign(assign(1, 1, Range::new(0, 100), vec![]));
    assert_eq!(
        script.end(0, short(Range::one(0))),
        ["start 1 a1 1..9", "report 1: a1 0..1 inline"]
    );
    assert_eq!(script.end(1, short(Range::new(1, 9))), ["start 2 a1 9..19"]);
    assert_eq!(script.end(2, short(Range::new(9, 19))), ["start 3 a1 19..29"]);
    assert_eq!(script.process.poll_timeout(), Some(script.now + Duration::from_millis(1)));
    script.pass(1);
    script.process.handle_timeout(script.now);
    assert_eq!(script.log(), ["report 2: a1 1..19 inline"]);
}

#[test]
fn a_chunk_that_lasts_long_gives_its_rest_back() {
    let mut script = Script::new(2);
    script.assign(assign(1, 1, Range::new(0, 40), vec![]));
    let short = |range: Range| ChunkEnd { busy: Duration::from_micros(1), ..ended(range) };
    script.end(0, short(Range::one(0)));
    script.end(1, short(Range::one(1)));
    script.pass(5);
    script.process.handle_timeout(script.now);
    assert_eq!(script.log()[0], "take back 2");
    script.process.handle_taken_back(script.now, ChunkId(2), Range::new(3, 10));
    assert_eq!(script.log(), Vec::<String>::new());
    let log = script.end(2, short(Range::one(2)));
    assert_eq!(log[0], "start 4 a1 3..10");
}

#[test]
fn deeper_goes_first_then_priority_then_arrival() {
    let mut script = Script::new(0);
    let of = |id, depth, priority| Assign {
        depth,
        priority,
        ..assign(id, id as u32, Range::one(0), vec![])
    };
    for assign in [of(1, 0, 0), of(2, 0, 5), of(3, 1, -9), of(4, 0, 0)] {
        assert_eq!(script.assign(assign), Vec::<String>::new());
    }
    let log = script.tell(ToProcess::SetSlots { slots: 4 });
    let order = ["start 0 a3 0..1", "start 1 a2 0..1", "start 2 a1 0..1", "start 3 a4 0..1"];
    assert_eq!(log, order);
}

#[test]
fn a_missing_input_is_fetched_once_and_announced() {
    let mut script = Script::new(2);
    let peer = ToProcess::Peer { process: OTHER, contact: contact() };
    script.tell(peer);
    let held = || source(5, 3, Place::Held(vec![OTHER]));
    let mut log = script.assign(assign(1, 1, Range::new(0, 2), vec![Feed::One(held())]));
    log.extend(script.assign(assign(2, 2, Range::one(0), vec![Feed::Each(vec![held()])])));
    assert_eq!(log, ["fetch c1.5.3 from p8"]);
    script.process.handle_fetched(script.now, value(5, 3), 900, Duration::ZERO);
    let log = ["start 0 a1 0..1", "start 1 a1 1..2", "holds [c1.5.3]", "fetched 900"];
    assert_eq!(script.log(), log);
    // Dropped while in use, it stays until the last user has ended.
    let ranges = vec![(array(5), Range::new(0, 9))];
    assert_eq!(script.tell(ToProcess::Drop { ranges }), Vec::<String>::new());
    script.end(0, ended(Range::one(0)));
    script.end(1, ended(Range::one(1)));
    assert_eq!(script.end(2, ended(Range::one(0))), ["drop c1.5 3..4", "report 2: a2 0..1 inline"]);
}

#[test]
fn nobody_waits_for_a_holder_that_is_gone() {
    let mut script = Script::new(1);
    for process in [OTHER, THIRD] {
        script.tell(ToProcess::Peer { process, contact: contact() });
    }
    let feed = Feed::One(source(5, 0, Place::Held(vec![OTHER, THIRD])));
    assert_eq!(script.assign(assign(1, 1, Range::new(0, 4), vec![feed])), ["fetch c1.5.0 from p8"]);
    let log = script.tell(ToProcess::Gone { process: OTHER });
    assert_eq!(log, ["missed c1.5.0 p8", "fetch c1.5.0 from p9"]);
    // Who isn't gone after all comes too late.
    script.process.handle_fetch_failed(script.now, value(5, 0), OTHER, false);
    assert_eq!(script.log(), [""; 0]);
    assert_eq!(script.tell(ToProcess::Gone { process: THIRD }), ["missed c1.5.0 p9 a1 0..4"]);
    script.process.handle_fetched(script.now, value(5, 0), 900, Duration::ZERO);
    assert_eq!(script.log(), ["drop c1.5.0"]);
    // And is not asked again.
    let feed = Feed::One(source(5, 1, Place::Held(vec![OTHER])));
    let log = script.assign(assign(2, 2, Range::one(0), vec![feed]));
    assert_eq!(log, ["missed c1.5.1 p8 a2 0..1"]);
}

#[test]
fn another_holder_is_tried_and_then_the_tasks_are_given_back() {
    let mut script = Script::new(1);
    for process in [OTHER, THIRD] {
        let contact = contact();
        script.tell(ToProcess::Peer { process, contact });
    }
    let feed = Feed::One(source(5, 0, Place::Held(vec![OTHER, THIRD])));
    assert_eq!(script.assign(assign(1, 1, Range::new(0, 4), vec![feed])), ["fetch c1.5.0 from p8"]);
    script.process.handle_fetch_failed(script.now, value(5, 0), OTHER, true);
    assert_eq!(script.log(), ["missed c1.5.0 p8", "fetch c1.5.0 from p9"]);
    script.process.handle_fetch_failed(script.now, value(5, 0), THIRD, true);
    assert_eq!(script.log(), ["missed c1.5.0 p9 a1 0..4"]);
    assert!(script.process.is_idle());
}

#[test]
fn a_chain_on_one_process_needs_no_scheduler() {
    let mut script = Script::new(1);
    script.assign(assign(1, 1, Range::one(0), vec![]));
    let next = vec![Feed::Each(vec![source(1, 0, Place::Here)])];
    let last = vec![Feed::Each(vec![source(2, 0, Place::Here)])];
    script.assign(assign(2, 2, Range::one(0), next));
    script.assign(assign(3, 3, Range::one(0), last));
    assert_eq!(script.end(0, ended(Range::one(0)))[0], "start 1 a2 0..1 small");
    assert_eq!(script.end(1, stored(Range::one(0)))[0], "start 2 a3 0..1");
    script.pass(2);
    assert_eq!(script.end(2, ended(Range::one(0))).len(), 1);
}

/// Tasks of one assignment, each of which takes what the one before gives. The function has been
/// found to be short.
fn short_chain(script: &mut Script, len: u32) -> Vec<String> {
    script.process.paces.measured(FunctionKey(1), 1, Duration::from_micros(1));
    for _ in 0..5 {
        let count = script.process.paces.chunk_len(FunctionKey(1));
        script.process.paces.measured(FunctionKey(1), count, Duration::from_micros(1) * count);
    }
    let first = source(5, 0, Place::Inline(Bytes::new()));
    let rest = (1..len).map(|index| source(1, index - 1, Place::Here));
    let feed = Feed::Each(std::iter::once(first).chain(rest).collect());
    script.assign(assign(1, 1, Range::new(0, len), vec![feed]))
}

#[test]
fn a_chain_of_one_assignment_runs_in_one_go() {
    let mut script = Script::new(2);
    assert_eq!(short_chain(&mut script, 10), ["start 0 a1 0..10"]);
    assert_eq!(
        script.end(0, ended(Range::new(0, 10))),
        ["report 1: a1 0..10 inline"],
        "nothing else was to run"
    );
    assert!(script.process.is_idle());
}

#[test]
fn what_follows_a_failed_task_in_one_go_is_given_back() {
    let mut script = Script::new(1);
    assert_eq!(short_chain(&mut script, 10), ["start 0 a1 0..10"]);
    let mut end = ended(Range::new(0, 3));
    end.ended.extend(failed(3).ended);
    assert_eq!(
        script.end(0, end),
        [
            "report 1: a1 0..3 inline a1 3..4 failed",
            "missed c1.1.3 p7 a1 4..5",
            "missed c1.1.4 p7 a1 5..6",
            "missed c1.1.5 p7 a1 6..7",
            "missed c1.1.6 p7 a1 7..8",
            "missed c1.1.7 p7 a1 8..9",
            "missed c1.1.8 p7 a1 9..10"
        ]
    );
    assert!(script.process.is_idle());
}

#[test]
fn what_is_taken_back_of_a_chain_waits_again() {
    let mut script = Script::new(2);
    assert_eq!(short_chain(&mut script, 10), ["start 0 a1 0..10"]);
    script.process.handle_taken_back(script.now, ChunkId(0), Range::new(4, 10));
    assert_eq!(script.log(), [""; 0], "a slot is free, but its input is not here");
    let next = script.end(0, ended(Range::new(0, 4)));
    assert_eq!(next[0], "start 1 a1 4..5 small", "they have turned out to be long");
}

#[test]
fn a_failed_link_of_a_chain_gives_the_rest_back_after_its_report() {
    let mut script = Script::new(1);
    script.assign(assign(1, 1, Range::one(0), vec![]));
    let next = vec![Feed::Each(vec![source(1, 0, Place::Here)])];
    let last = vec![Feed::One(source(2, 0, Place::Here))];
    script.assign(assign(2, 2, Range::one(0), next));
    script.assign(assign(3, 3, Range::one(0), last));
    assert_eq!(
        script.end(0, failed(0)),
        ["report 1: a1 0..1 failed", "missed c1.1.0 p7 a2 0..1", "missed c1.2.0 p7 a3 0..1"]
    );
    assert!(script.process.is_idle());
}

#[test]
fn what_a_run_returns_that_was_called_back_is_nobodys_input() {
    for end in [ended(Range::one(0)), stored(Range::one(0))] {
        let mut script = Script::new(1);
        script.assign(assign(1, 1, Range::one(0), vec![]));
        let next = vec![Feed::Each(vec![source(1, 0, Place::Here)])];
        script.assign(assign(2, 2, Range::one(0), next));
        script.tell(ToProcess::Cancel { array: array(1), range: Range::one(0) });
        let log = script.end(0, end);
        assert!(log.contains(&"report 1: a1 0..1 cancelled".to_owned()), "{log:?}");
        assert!(log.contains(&"missed c1.1.0 p7 a2 0..1".to_owned()), "{log:?}");
        assert!(!log.iter().any(|line| line.starts_with("start")), "{log:?}");
        assert!(script.process.is_idle());
    }
}

#[test]
fn beside_a_run_that_was_called_back_the_others_of_its_chunk_count() {
    let mut script = Script::new(1);
    let short = |range: Range| ChunkEnd { busy: Duration::from_micros(1), ..ended(range) };
    script.assign(assign(1, 1, Range::new(0, 9), vec![]));
    script.end(0, short(Range::one(0)));
    script.tell(ToProcess::Cancel { array: array(1), range: Range::new(2, 4) });
    script.pass(2);
    let log = script.end(1, short(Range::new(1, 9)));
    let parts = ["a1 1..2 inline", "a1 2..4 cancelled", "a1 4..9 inline"];
    assert!(parts.iter().all(|part| log.iter().any(|line| line.contains(part))), "{log:?}");
}

#[test]
fn small_results_serve_until_their_report_is_seen() {
    let mut script = Script::new(1);
    let mine = |index| vec![Feed::One(source(1, index, Place::Held(vec![ME])))];
    script.assign(assign(1, 1, Range::new(0, 1), vec![]));
    script.end(0, ended(Range::one(0)));
    script.assign(assign(2, 2, Range::one(0), mine(0)));
    script.assign(assign(3, 3, Range::one(0), mine(0)));
    script.tell(ToProcess::Seen { report: 1 });
    assert_eq!(script.end(1, ended(Range::one(0)))[0], "start 2 a3 0..1 small");
    script.end(2, ended(Range::one(0)));
    assert_eq!(script.assign(assign(4, 4, Range::one(0), mine(0))), ["missed c1.1.0 p7 a4 0..1"]);
}

#[test]
fn a_thief_gets_the_far_end_and_the_rest_runs() {
    let mut script = Script::new(1);
    script.assign(assign(1, 1, Range::new(0, 10), vec![]));
    let steal = |count| ToProcess::Steal { steal: StealId(1), assignment: AssignmentId(1), count };
    assert_eq!(script.tell(steal(4)), ["gave up a1 [6..10]"]);
    assert_eq!(script.tell(steal(100)), ["gave up a1 [1..6]"]);
    assert_eq!(script.tell(steal(1)), ["gave up a1 []"]);
    assert_eq!(script.end(0, ended(Range::one(0))), ["report 1: a1 0..1 inline"]);
    assert_eq!(script.tell(steal(1)), ["gave up a1 []"]);
    assert_eq!(script.process.stale_count(), 1);
}

#[test]
fn cancelled_tasks_are_reported_and_running_ones_are_told() {
    let mut script = Script::new(1);
    script.assign(assign(1, 1, Range::new(0, 10), vec![]));
    let cancel = ToProcess::Cancel { array: array(1), range: Range::new(0, 5) };
    assert_eq!(script.tell(cancel), ["cancel 0 0..1", "report 1: a1 1..5 cancelled"]);
    script.pass(1);
    assert_eq!(
        script.end(0, ended(Range::one(0))),
        ["start 1 a1 5..6", "report 2: a1 0..1 cancelled"]
    );
}

#[test]
fn revoked_slots_are_free_when_their_runs_have_ended() {
    let mut script = Script::new(2);
    script.assign(assign(1, 1, Range::new(0, 5), vec![]));
    assert_eq!(script.tell(ToProcess::SetSlots { slots: 1 }), Vec::<String>::new());
    assert_eq!(script.end(1, ended(Range::one(1))), ["slots free 1", "report 1: a1 1..2 inline"]);
    assert_eq!(script.tell(ToProcess::SetSlots { slots: 2 }), ["start 2 a1 2..3"]);
}

#[test]
fn a_parked_run_makes_room_and_goes_on_before_anything_new() {
    let mut script = Script::new(1);
    script.assign(assign(1, 1, Range::new(0, 3), vec![]));
    script.process.handle_parked(script.now, ChunkId(0));
    assert_eq!(script.log(), ["start 1 a1 1..2", "parked 1 1"]);
    script.process.handle_unpark_wanted(script.now, ChunkId(0));
    assert_eq!(script.log(), Vec::<String>::new());
    assert_eq!(
        script.end(1, ended(Range::one(1))),
        ["resume 0", "parked 0 0", "report 1: a1 1..2 inline"]
    );
}

#[test]
fn past_the_limit_of_parked_runs_only_descendants_start() {
    let mut script = Script::new(1);
    script.assign(assign(1, 1, Range::new(0, 300), vec![]));
    for chunk in 0..PARKED_MAX as u64 {
        script.process.handle_parked(script.now, ChunkId(chunk));
        script.log();
    }
    assert_eq!(script.process.chunks.len(), PARKED_MAX);
    let nested = Assign { depth: 1, nested_here: true, ..assign(2, 2, Range::one(0), vec![]) };
    assert_eq!(script.assign(nested), ["start 256 a2 0..1"]);
}

#[test]
fn a_wide_task_is_not_overtaken_for_ever() {
    let mut script = Script::new(2);
    let wide = Assign { threads: 2, ..assign(2, 2, Range::one(0), vec![]) };
    script.assign(assign(1, 1, Range::one(0), vec![]));
    script.assign(wide);
    assert_eq!(script.assign(assign(3, 3, Range::one(0), vec![])), Vec::<String>::new());
    assert_eq!(script.end(0, ended(Range::one(0)))[0], "start 1 a2 0..1");
    let log = script.end(1, ended(Range::one(0)));
    assert_eq!(log[0], "start 2 a3 0..1");
}

#[test]
fn a_run_beyond_its_timeout_fails_once_and_keeps_its_slot_until_it_ends() {
    let mut script = Script::new(1);
    let timeout = Some(Duration::from_secs(1));
    script.assign(Assign { timeout, ..assign(1, 1, Range::new(0, 2), vec![]) });
    script.pass(1000);
    script.process.handle_timeout(script.now);
    assert_eq!(script.log(), ["cancel 0 0..1", "report 1: a1 0..1 timed out"]);
    let log = script.end(0, stored(Range::one(0)));
    assert_eq!(log, ["drop c1.1 0..1", "stopped 0..1", "start 1 a1 1..2"]);
}

#[test]
fn a_run_that_has_timed_out_has_no_slot_after_a_return() {
    let mut script = Script::new(1);
    let timeout = Some(Duration::from_secs(1));
    script.assign(Assign { timeout, ..assign(1, 1, Range::one(0), vec![]) });
    script.pass(1000);
    script.process.handle_timeout(script.now);
    script.returned(OTHER);
    script.tell(ToProcess::SetSlots { slots: 1 });
    assert_eq!(script.assign(assign(2, 2, Range::one(0), vec![])), ["start 1 a2 0..1"]);
}

#[test]
fn what_was_dropped_is_not_what_a_run_makes_later() {
    let mut script = Script::new(1);
    script.assign(assign(1, 1, Range::one(0), vec![]));
    let ranges = vec![(array(1), Range::new(0, 9))];
    script.tell(ToProcess::Drop { ranges });
    assert_eq!(script.end(0, stored(Range::one(0))), ["report 1: a1 0..1 stored"]);
}

fn late(id: u64) -> ToProcess {
    let assignment = AssignmentId(id);
    ToProcess::DropResults { assignment, array: array(1), range: Range::new(0, 9) }
}

#[test]
fn a_result_that_came_too_late_is_not_what_was_made_again() {
    // The same task twice: nobody wanted it while it ran the first time, and somebody did again.
    for order in [[0, 1], [1, 0]] {
        let mut script = Script::new(2);
        script.assign(assign(1, 1, Range::one(0), vec![]));
        script.assign(Assign {
            runs: vec![(Range::one(0), 2)],
            ..assign(2, 1, Range::one(0), vec![])
        });
        for chunk in order {
            script.end(chunk, stored(Range::one(0)));
        }
        // The second has been reported when the word about the first comes.
        assert_eq!(script.tell(late(1)), [""; 0]);
        assert!(script.process.kept.is_stored(task(1, 0)), "{order:?}");
        assert_eq!(script.tell(late(2)), ["drop c1.1 0..1"]);
    }
}

#[test]
fn a_result_that_came_too_late_goes_while_its_task_runs_again() {
    let mut script = Script::new(2);
    script.assign(assign(1, 1, Range::one(0), vec![]));
    script.assign(assign(2, 1, Range::one(0), vec![]));
    script.end(0, stored(Range::one(0)));
    assert_eq!(script.tell(late(1)), ["drop c1.1 0..1"]);
    assert_eq!(script.end(1, stored(Range::one(0))), ["report 2: a2 0..1 stored"]);
    assert!(script.process.kept.is_stored(task(1, 0)));
}

#[test]
fn a_value_that_is_put_again_outlives_the_first_put() {
    let mut script = Script::new(1);
    for id in [1, 2] {
        script.process.handle_put(script.now, task(1, 0), AssignmentId(id), 9);
    }
    script.log();
    assert_eq!(script.tell(late(1)), [""; 0]);
    assert!(script.process.kept.is_stored(task(1, 0)));
}

#[test]
fn a_value_made_again_here_outlives_the_copies_of_the_one_before() {
    let mut script = Script::new(2);
    script.tell(ToProcess::Peer { process: OTHER, contact: contact() });
    let output = |part| ValueId { part, ..value(5, 3) };
    let takes = |part| {
        let source = Source { part, ..source(5, 3, Place::Held(vec![OTHER])) };
        vec![Feed::One(source)]
    };
    for part in [0, 1] {
        let id = 1 + u64::from(part);
        script.assign(assign(id, id as u32, Range::one(0), takes(part)));
        script.process.handle_fetched(script.now, output(part), 900, Duration::ZERO);
        assert_eq!(script.log()[0], format!("start {part} a{id} 0..1"));
    }
    // Its maker is lost while two tasks here run with copies, and it is made again here.
    let ranges = vec![(array(5), Range::one(3))];
    assert_eq!(script.tell(ToProcess::Drop { ranges }), [""; 0]);
    script.assign(Assign { parts: 2, ..assign(3, 5, Range::one(3), vec![]) });
    // The first of them ends before that, the other one after it.
    let log = script.end(0, ended(Range::one(0)));
    assert!(log.contains(&"start 2 a3 3..4".to_owned()), "{log:?}");
    let made = End::Stored(vec![5000; 2]);
    let made = ChunkEnd { ended: vec![(Range::one(3), made)], busy: Duration::ZERO };
    let drops_nothing = |log: Vec<String>| {
        assert!(!log.iter().any(|line| line.starts_with("drop")), "{log:?}");
    };
    drops_nothing(script.end(2, made));
    drops_nothing(script.end(1, ended(Range::one(0))));
    assert!(script.process.kept.is_stored(task(5, 3)));
    assert_eq!(script.assign(assign(4, 4, Range::one(0), takes(0)))[0], "start 3 a4 0..1");
    // Nor is it meant by what is said of copies.
    let values = vec![output(0), output(1)];
    assert_eq!(script.tell(ToProcess::DropCopies { values }), [""; 0]);
    drops_nothing(script.end(3, ended(Range::one(0))));
    assert!(script.process.kept.is_stored(task(5, 3)));
}

#[test]
fn copies_that_nobody_knows_of_are_dropped_one_by_one() {
    let mut script = Script::new(1);
    script.tell(ToProcess::Peer { process: OTHER, contact: contact() });
    let output = |part| ValueId { part, ..value(5, 3) };
    let sources = [0, 1].map(|part| Source { part, ..source(5, 3, Place::Held(vec![OTHER])) });
    script.assign(assign(1, 1, Range::one(0), vec![Feed::List(sources.to_vec())]));
    for part in [0, 1] {
        script.process.handle_fetched(script.now, output(part), 900, Duration::ZERO);
    }
    script.log();
    script.end(0, ended(Range::one(0)));
    let log = script.tell(ToProcess::DropCopies { values: vec![output(1), value(6, 0)] });
    assert_eq!(log, ["drop c1.5.3"]);
    assert_eq!(script.process.kept.replicas_of(task(5, 3)), [output(0)]);
}

#[test]
fn a_put_is_reported_as_a_result() {
    let mut script = Script::new(1);
    script.process.handle_put(script.now, task(4, 2), AssignmentId(6), 99);
    assert_eq!(script.log(), ["report 1: a6 2..3 stored"]);
    let mine = vec![Feed::One(source(4, 2, Place::Held(vec![ME])))];
    assert_eq!(script.assign(assign(7, 5, Range::one(0), mine)), ["start 0 a7 0..1"]);
}

#[test]
fn nonsense_from_the_scheduler_ends_the_process_with_a_reason() {
    let mut script = Script::new(1);
    let log = script.assign(assign(1, 1, Range::new(3, 3), vec![]));
    assert_eq!(log, ["exit: the scheduler sent assignment 1 of c1.1, and its range is empty"]);
}

#[test]
fn a_process_that_is_back_offers_what_it_has_and_nothing_else_counts() {
    let mut script = Script::new(1);
    let mut kept = assign(1, 1, Range::new(0, 4), vec![]);
    kept.runs = vec![(Range::one(2), 3)];
    script.assign(kept);
    (0..3).for_each(|index| drop(script.end(u64::from(index), stored(Range::one(index)))));
    script.end(3, ended(Range::one(3)));
    script.assign(assign(2, 2, Range::new(0, 2), vec![]));
    script.assign(assign(3, 3, Range::new(0, 9), vec![]));
    let offer = "offer last: c1.1 3..4 inline 1 c1.1 0..2 stored 1 [13] c1.1 2..3 stored 3 [13]";
    assert_eq!(script.returned(ProcessId(70)), ["cancel 4 0..1", offer]);
    // What ran is told nobody, and what waited does not start.
    script.tell(ToProcess::SetSlots { slots: 2 });
    let quiet = script.end(4, stored(Range::one(0)));
    assert_eq!(quiet, ["drop c1.2 0..1", "stopped 0..1"]);
    assert_eq!(script.assign(assign(9, 3, Range::new(4, 5), vec![])), ["start 5 a9 4..5"]);
}

#[test]
fn runs_of_before_it_came_back_hold_no_slots() {
    let mut script = Script::new(2);
    script.assign(assign(1, 1, Range::new(0, 2), vec![]));
    // One of them waits for nested tasks.
    script.process.handle_parked(script.now, ChunkId(1));
    script.returned(ProcessId(70));
    script.tell(ToProcess::SetSlots { slots: 2 });
    let log = script.assign(assign(2, 2, Range::new(0, 2), vec![]));
    assert_eq!(log, ["start 2 a2 0..1", "start 3 a2 1..2"]);
    script.process.handle_unpark_wanted(script.now, ChunkId(1));
    assert_eq!(script.log()[0], "resume 1");
    script.end(0, ended(Range::one(0)));
    script.end(1, ended(Range::one(1)));
    let log = script.assign(assign(3, 3, Range::new(0, 2), vec![]));
    assert!(!log.iter().any(|line| line.starts_with("start")), "both slots are taken: {log:?}");
}
