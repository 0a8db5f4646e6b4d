//! The client against a model that keeps everything per task.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LEN: u32 = 12;

/// What the world does.
#[derive(Clone, Debug)]
enum Step {
    /// Tasks end at the scheduler, as the numbers say: 0 small values, 1 held, 2 failed.
    End(Range, u8),
    /// The scheduler answers wants of tasks that have ended.
    Answer,
    /// A fetch succeeds or fails.
    Fetched(prop::sample::Index, bool),
    /// The holder is gone, and the next one has its values; fetches from it fail late.
    Gone,
    Wait(Range, Interest),
    Stop(prop::sample::Index),
    Retain(Range),
    Release(prop::sample::Index),
    Flush,
}

fn range() -> impl Strategy<Value = Range> {
    (0..LEN, 1..LEN).prop_map(|(start, len)| Range::new(start, (start + len).min(LEN)))
}

fn interest() -> impl Strategy<Value = Interest> {
    prop_oneof![Just(Interest::End), Just(Interest::Small), Just(Interest::Value)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (range(), 0..3u8).prop_map(|(range, how)| Step::End(range, how)),
        Just(Step::Answer),
        (any::<prop::sample::Index>(), prop::bool::weighted(0.7))
            .prop_map(|(which, well)| Step::Fetched(which, well)),
        Just(Step::Gone),
        (range(), interest()).prop_map(|(range, interest)| Step::Wait(range, interest)),
        any::<prop::sample::Index>().prop_map(Step::Stop),
        range().prop_map(Step::Retain),
        any::<prop::sample::Index>().prop_map(Step::Release),
        Just(Step::Flush),
    ]
}

/// One array at the scheduler and in the program, task by task.
struct World {
    client: Client,
    array: ArrayId,
    /// How each task ended, if it has.
    ended: Vec<Option<u8>>,
    /// Wants that have no answer: whether the value is wanted.
    wanted: BTreeMap<u32, bool>,
    fetching: BTreeSet<u32>,
    holder: ProcessId,
    /// What the program holds and waits for.
    handles: Vec<Range>,
    waiters: BTreeMap<WaiterId, (Range, Interest)>,
    complete: BTreeSet<WaiterId>,
    released: BTreeSet<u32>,
}

impl World {
    fn new() -> Self {
        let (client, array) = with_array(LEN);
        Self {
            client,
            array,
            ended: vec![None; LEN as usize],
            wanted: BTreeMap::new(),
            fetching: BTreeSet::new(),
            holder: HOLDER,
            handles: vec![Range::new(0, LEN)],
            waiters: BTreeMap::new(),
            complete: BTreeSet::new(),
            released: BTreeSet::new(),
        }
    }

    fn is_held(&self, index: u32) -> bool {
        self.handles.iter().any(|range| range.contains(index))
    }

    fn are_held(&self, range: Range) -> bool {
        range.iter().all(|index| self.is_held(index))
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::End(range, how) => {
                for index in range {
                    self.ended[index as usize].get_or_insert(how);
                }
            }
            Step::Answer => self.answer(),
            Step::Fetched(which, well) => {
                if !self.fetching.is_empty() {
                    let position = which.index(self.fetching.len());
                    let index = *self.fetching.iter().nth(position).unwrap();
                    self.end_fetch(index, well);
                }
            }
            Step::Gone => {
                let process = self.holder;
                self.client.handle_message(Time(0), ToClient::Gone { process });
                self.holder = ProcessId(process.0 + 1);
                for index in std::mem::take(&mut self.fetching) {
                    let task = TaskId { array: self.array, index };
                    self.client.handle_fetch_failed(Time(0), task, process, false);
                }
            }
            Step::Wait(range, interest) => {
                if self.are_held(range) {
                    let waiter = self.client.wait(&[(self.array, range)], interest);
                    self.waiters.insert(waiter, (range, interest));
                }
            }
            Step::Stop(which) => {
                if !self.waiters.is_empty() {
                    let position = which.index(self.waiters.len());
                    let waiter = *self.waiters.keys().nth(position).unwrap();
                    self.waiters.remove(&waiter);
                    self.client.stop_waiting(waiter);
                }
            }
            Step::Retain(range) => {
                if self.are_held(range) {
                    self.client.retain(self.array, range);
                    self.handles.push(range);
                }
            }
            Step::Release(which) => self.release(which),
            Step::Flush => self.client.flush(),
        }
        self.act();
    }

    /// Whoever waits keeps its handles.
    fn release(&mut self, which: prop::sample::Index) {
        if self.handles.is_empty() {
            return;
        }
        let range = self.handles.swap_remove(which.index(self.handles.len()));
        if self.waiters.values().all(|(range, _)| self.are_held(*range)) {
            self.client.release(Time(0), self.array, range);
        } else {
            self.handles.push(range);
        }
    }

    /// The scheduler answers with ranges as long as they are of one kind.
    fn answer(&mut self) {
        let mut index = 0;
        while index < LEN {
            let kind = |index: u32| {
                let value = *self.wanted.get(&index)?;
                let how = *self.ended.get(index as usize)?;
                Some((how?, value))
            };
            let Some((how, value)) = kind(index) else {
                index += 1;
                continue;
            };
            let same = |next: &u32| kind(*next) == Some((how, value));
            let end = (index..=LEN).find(|next| !same(next)).unwrap();
            let range = Range::new(index, end);
            let outcome = match how {
                2 => failed(),
                _ if !value => Outcome::Done,
                0 => Outcome::Values(values(range)),
                _ => Outcome::Held { holder: self.holder, contact: contact() },
            };
            range.iter().for_each(|index| {
                self.wanted.remove(&index);
            });
            let message = ended(self.array, range, outcome);
            self.client.handle_message(Time(0), message);
            index = end;
        }
    }

    fn end_fetch(&mut self, index: u32, well: bool) {
        self.fetching.remove(&index);
        let task = TaskId { array: self.array, index };
        if well {
            let value = Bytes::from(bytes_of(index));
            self.client.handle_fetched(Time(0), task, value);
        } else {
            self.client.handle_fetch_failed(Time(0), task, self.holder, true);
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.client.poll_action() {
            match action {
                Action::Send(FromClient::Want { range, values, .. }) => {
                    for index in range {
                        let wanted = self.wanted.entry(index).or_default();
                        *wanted |= values;
                    }
                }
                Action::Send(FromClient::Release { ranges }) => {
                    for index in ranges.iter().flat_map(|(_, range)| range.iter()) {
                        assert!(self.released.insert(index), "{index} was released twice");
                        assert!(!self.is_held(index), "{index} was released too early");
                    }
                }
                Action::Send(FromClient::Missed { .. } | FromClient::Taken { .. }) => {}
                Action::Fetch { task, holder, .. } => {
                    assert_eq!(holder, self.holder, "{task} is fetched from the dead");
                    assert!(self.fetching.insert(task.index), "{task} is fetched twice");
                }
                Action::Complete(waiter) => {
                    assert!(self.complete.insert(waiter), "{waiter:?} was complete before");
                    self.check_waiter(waiter);
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// What a complete waiter waited for is there.
    fn check_waiter(&self, waiter: WaiterId) {
        let Some(&(range, interest)) = self.waiters.get(&waiter) else {
            return;
        };
        for index in range {
            assert!(self.ended[index as usize].is_some(), "{index} has not ended");
        }
        if interest == Interest::Value {
            self.check_values(range);
        }
    }

    fn check_values(&self, range: Range) {
        let mut next = range.start;
        let mut see = |index: u32, value: Option<&[u8]>| {
            assert_eq!(index, next);
            next += 1;
            let failed = self.ended[index as usize] == Some(2);
            assert_eq!(value.is_none(), failed);
            assert!(value.is_none_or(|value| value == bytes_of(index)));
        };
        for piece in self.client.pieces(self.array, range) {
            match piece {
                Piece::Values(range, blob) => {
                    range.iter().zip(blob.iter()).for_each(|(index, value)| see(index, Some(value)))
                }
                Piece::Value(index, value) => see(index, Some(value.bytes())),
                Piece::Failed(range, _) => range.iter().for_each(|index| see(index, None)),
                Piece::Absent(range) => panic!("{range:?} is absent"),
            }
        }
        assert_eq!(next, range.end);
    }

    /// When everything ends and every fetch succeeds, everybody has what it waited for, and all
    /// that nobody holds has been released once.
    fn settle(&mut self) {
        self.run(Step::End(Range::new(0, LEN), 1));
        loop {
            self.run(Step::Answer);
            let Some(&index) = self.fetching.first() else {
                break;
            };
            self.end_fetch(index, true);
            self.act();
        }
        for waiter in self.waiters.keys() {
            assert!(self.complete.contains(waiter), "{waiter:?} waits for ever");
            self.check_waiter(*waiter);
        }
        let waiters: Vec<WaiterId> = self.waiters.keys().copied().collect();
        for waiter in waiters {
            self.waiters.remove(&waiter);
            self.client.stop_waiting(waiter);
        }
        self.run(Step::Flush);
        for index in 0..LEN {
            assert_eq!(self.released.contains(&index), !self.is_held(index));
        }
    }
}

proptest! {
    #[test]
    fn ranges_say_what_single_tasks_would(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.run(step));
        world.settle();
    }
}
