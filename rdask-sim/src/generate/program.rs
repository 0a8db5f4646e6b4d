//! What client programs do.

use crate::dice::Dice;
use crate::scenario::{Act, Fails, Input, Node, Step, Until, Work};

/// How many arrays a client makes at most, or so.
const JOBS_MAX: u64 = 4;

/// A client program that is being written.
pub(super) struct Program<'a> {
    dice: &'a mut Dice,
    names: &'a mut u32,
    nodes: &'a [Node],
    steps: Vec<Step>,
    next_array: u32,
    /// Arrays so far: number, length, whether patterns can name it.
    arrays: Vec<(u32, u32, bool)>,
    /// About how long runs last.
    busy_us: u64,
    stored_percent: u64,
    /// How many of a hundred arrays have options.
    special_percent: u64,
}

impl<'a> Program<'a> {
    pub(super) fn new(dice: &'a mut Dice, names: &'a mut u32, nodes: &'a [Node]) -> Self {
        let busy_us = dice.magnitude(5, 1_000_000);
        let stored_percent = *dice.pick(&[0, 30, 100, 100]);
        let special_percent = *dice.pick(&[0, 20, 60]);
        Self {
            dice,
            names,
            nodes,
            steps: Vec::new(),
            next_array: 0,
            arrays: Vec::new(),
            busy_us,
            stored_percent,
            special_percent,
        }
    }

    pub(super) fn write(mut self) -> Vec<Step> {
        for _ in 0..self.dice.between(1, JOBS_MAX) {
            let before = self.arrays.len();
            match self.dice.below(14) {
                0 | 1 => self.map_and_gather(),
                2 | 3 => self.tree(),
                4 => self.chain(),
                5 | 6 => self.graph(),
                7 => self.scatter(),
                8 => self.nested(),
                9 | 10 => self.patterns(),
                11 => self.shuffle(),
                12 => self.cancelled(),
                _ => self.all_to_all(),
            }
            self.afterwards(before);
        }
        self.steps
    }

    fn step(&mut self, act: Act) {
        let after_us = if self.dice.chance(60) { 0 } else { self.dice.magnitude(10, 3_000_000) };
        self.steps.push(Step { after_us, act });
    }

    fn array(&mut self, len: u32, is_array: bool) -> u32 {
        let array = self.next_array;
        self.next_array += 1;
        self.arrays.push((array, len, is_array));
        array
    }

    fn work(&mut self) -> Work {
        let mut work = Work {
            busy_us: self.dice.magnitude(self.busy_us / 4 + 1, self.busy_us * 4),
            stored_percent: self.stored_percent,
            ..Work::default()
        };
        if self.dice.chance(self.special_percent) {
            self.specialise(&mut work);
        }
        work
    }

    fn specialise(&mut self, work: &mut Work) {
        match self.dice.below(9) {
            8 => work.replicas = 2,
            0 => work.priority = self.dice.below(5) as i32 - 2,
            1 => work.threads = 2,
            2 => work.cards = 1,
            3 => work.pool = Some(0),
            4 => {
                let runs = self.dice.between(1, 3) as u32;
                work.fails = Fails::First(runs);
                work.retries = runs;
                work.retry_delay_ms = *self.dice.pick(&[0, 0, 10, 2_000]);
            }
            5 => {
                work.fails = Fails::Every(self.dice.between(2, 9) as u32);
                work.retries = self.dice.below(2) as u32;
            }
            6 => work.fails = Fails::Kills(self.dice.between(4, 40) as u32),
            _ => {
                work.fails = Fails::Hangs(self.dice.between(3, 20) as u32);
                // Frozen processes must not make others late.
                work.busy_us = 10;
                work.timeout_ms = Some(200_000);
                work.kill_grace_ms = *self.dice.pick(&[None, None, Some(0), Some(2_000)]);
            }
        }
    }

    fn gather(&mut self, array: u32, len: u32, sum: Option<u64>) {
        let whole = sum.is_some() || self.dice.chance(70);
        let from = if whole { 0 } else { self.dice.below(u64::from(len)) as u32 };
        let len = if whole { len } else { self.dice.between(1, u64::from(len - from)) as u32 };
        let until = match self.dice.below(10) {
            0 => Until::Ends,
            1 => Until::Small,
            2 | 3 => Until::Each,
            _ => Until::Values,
        };
        self.step(Act::Gather { array, from, len, until, sum });
    }

    fn len(&mut self) -> u32 {
        self.dice.magnitude(1, 100) as u32
    }

    fn map_and_gather(&mut self) {
        let (len, work) = (self.len(), self.work());
        let array = self.array(len, true);
        self.step(Act::Map { array, len, inputs: vec![Input::Inline], work });
        self.gather(array, len, None);
    }

    /// Squares, summed up level by level: the formula is known.
    fn tree(&mut self) {
        let len = self.dice.magnitude(4, 120) as u32;
        let width = self.dice.between(2, 8) as u32;
        let sum = (0..u64::from(len)).map(|index| index * index).sum();
        let work = Work {
            adds: true,
            busy_us: self.busy_us,
            stored_percent: self.stored_percent,
            ..Work::default()
        };
        let mut below = self.array(len, true);
        let act = Act::Map { array: below, len, inputs: vec![Input::Inline], work: work.clone() };
        self.step(act);
        let mut left = len;
        while left > 1 {
            left = left.div_ceil(width);
            let above = self.array(left, true);
            let inputs = vec![Input::Block { array: below, start: 0, width }];
            self.step(Act::Map { array: above, len: left, inputs, work: work.clone() });
            // Programs drop the handles of inner levels at once.
            self.steps.push(Step { after_us: 0, act: Act::Release { array: below } });
            self.arrays.retain(|(array, ..)| *array != below);
            below = above;
        }
        self.gather(below, 1, Some(sum));
    }

    fn chain(&mut self) {
        let len = self.dice.magnitude(2, 40) as u32;
        let work = self.work();
        let array = self.array(len, false);
        let tasks = (0..len)
            .map(|index| if index == 0 { Vec::new() } else { vec![(array, index - 1)] })
            .collect();
        self.step(Act::Submit { array, tasks, work });
        self.step(Act::Gather { array, from: len - 1, len: 1, until: Until::Values, sum: None });
    }

    /// Random edges, also to what was there before.
    fn graph(&mut self) {
        let len = self.dice.magnitude(2, 60) as u32;
        let work = self.work();
        let others = self.arrays.clone();
        let array = self.array(len, false);
        let mut tasks = Vec::new();
        for index in 0..len {
            let mut edges = Vec::new();
            for _ in 0..self.dice.below(4) {
                if index > 0 && (others.is_empty() || self.dice.chance(70)) {
                    edges.push((array, self.dice.below(u64::from(index)) as u32));
                } else if !others.is_empty() {
                    let (other, reach, _) = *self.dice.pick(&others);
                    edges.push((other, self.dice.below(u64::from(reach)) as u32));
                }
            }
            tasks.push(edges);
        }
        self.step(Act::Submit { array, tasks, work });
        self.gather(array, len, None);
    }

    fn scatter(&mut self) {
        let len = self.dice.between(1, 12) as u32;
        let large = self.dice.chance(60);
        let array = self.array(len, true);
        let replicas = *self.dice.pick(&[1, 1, 2, 2]);
        self.step(Act::Scatter { array, len, large, replicas });
        let work = self.work();
        let taker = self.array(len, true);
        let inputs = vec![Input::Inline, Input::Each { array, start: 0, part: 0 }];
        self.step(Act::Map { array: taker, len, inputs, work });
        self.gather(taker, len, None);
        if self.dice.chance(50) {
            self.gather(array, len, None);
        }
    }

    fn nested(&mut self) {
        let len = self.dice.between(1, 12) as u32;
        let array = self.array(len, true);
        let mut work = self.work();
        work.nested = self.dice.between(1, 6) as u32;
        work.timeout_ms = None;
        if matches!(work.fails, Fails::Hangs(_) | Fails::Kills(_)) {
            work.fails = Fails::Never;
        }
        // Nested tasks need slots beside those that wait.
        (work.threads, work.cards, work.pool) = (1, 0, None);
        self.step(Act::Map { array, len, inputs: vec![Input::Inline], work });
        self.gather(array, len, None);
    }

    /// An array whose inputs are patterns of earlier ones.
    fn patterns(&mut self) {
        let known: Vec<(u32, u32, bool)> =
            self.arrays.iter().filter(|(.., is_array)| *is_array).copied().collect();
        let mut inputs = Vec::new();
        let mut len = self.len();
        for _ in 0..self.dice.between(1, 3) {
            if known.is_empty() {
                break;
            }
            let (array, reach, _) = *self.dice.pick(&known);
            let start = self.dice.below(u64::from(reach)) as u32;
            inputs.push(match self.dice.below(4) {
                0 => {
                    len = len.min(reach - start);
                    Input::Each { array, start, part: self.dice.below(4) as u16 }
                }
                1 => {
                    let width = self.dice.between(1, 5) as u32;
                    len = len.min((reach - start).div_ceil(width));
                    Input::Block { array, start, width }
                }
                2 => Input::All { array, start },
                _ => Input::One { array, index: start, part: self.dice.below(4) as u16 },
            });
        }
        if inputs.is_empty() || self.dice.chance(60) {
            inputs.insert(0, Input::Inline);
        }
        let work = self.work();
        let array = self.array(len, true);
        self.step(Act::Map { array, len, inputs, work });
        self.gather(array, len, None);
    }

    /// Tasks with several outputs, each of which goes to another task.
    fn shuffle(&mut self) {
        let len = self.dice.between(2, 16) as u32;
        let parts = self.dice.between(2, 8) as u16;
        let (mut first, second) = (self.work(), self.work());
        first.parts = parts;
        let below = self.array(len, true);
        self.step(Act::Map { array: below, len, inputs: vec![Input::Inline], work: first });
        if self.dice.chance(50) {
            self.gather(below, len, None);
        }
        let above = self.array(u32::from(parts), true);
        let start = if self.dice.chance(70) { 0 } else { self.dice.below(u64::from(len)) as u32 };
        let inputs = vec![Input::Inline, Input::Shuffle { array: below, start }];
        let len = u32::from(parts);
        self.step(Act::Map { array: above, len, inputs, work: second });
        self.gather(above, len, None);
    }

    /// Long runs, some of which are cancelled while others go on beside them.
    fn cancelled(&mut self) {
        let len = self.dice.between(2, 16) as u32;
        let mut work = self.work();
        let busy_us = self.dice.magnitude(50_000, 4_000_000);
        if work.timeout_ms.is_none() {
            work.busy_us = busy_us;
        }
        work.kill_grace_ms = Some(*self.dice.pick(&[0, 50, 500, 3_000]));
        let array = self.array(len, true);
        self.step(Act::Map { array, len, inputs: vec![Input::Inline], work });
        if self.dice.chance(50) {
            self.map_and_gather();
        }
        let from = self.dice.below(u64::from(len)) as u32;
        let count = self.dice.between(1, u64::from((len - from).min(3))) as u32;
        let after_us = self.dice.magnitude(20_000, 4_000_000);
        self.steps.push(Step { after_us, act: Act::Cancel { array, from, len: count } });
        self.gather(array, len, None);
    }

    /// As a shuffle without parts: everything takes everything.
    fn all_to_all(&mut self) {
        let len = self.dice.between(2, 16) as u32;
        let (first, second) = (self.work(), self.work());
        let below = self.array(len, true);
        self.step(Act::Map { array: below, len, inputs: vec![Input::Inline], work: first });
        let above = self.array(len, true);
        let inputs = vec![Input::Inline, Input::All { array: below, start: 0 }];
        self.step(Act::Map { array: above, len, inputs, work: second });
        self.gather(above, len, None);
    }

    /// What programs do with what they have: cancel it, drop it, name it, wait for it.
    fn afterwards(&mut self, before: usize) {
        let fresh: Vec<(u32, u32, bool)> = self.arrays[before.min(self.arrays.len())..].to_vec();
        if fresh.is_empty() {
            return;
        }
        let (array, len, _) = *self.dice.pick(&fresh);
        match self.dice.below(12) {
            0 => {
                let from = self.dice.below(u64::from(len)) as u32;
                let len = self.dice.between(1, u64::from(len - from)) as u32;
                self.step(Act::Cancel { array, from, len });
            }
            1 | 2 => {
                self.step(Act::Release { array });
                self.arrays.retain(|(other, ..)| *other != array);
            }
            3 => {
                let name = *self.names;
                *self.names += 1;
                self.step(Act::Detach { array, name });
                if self.dice.chance(50) {
                    self.step(Act::Release { array });
                    self.arrays.retain(|(other, ..)| *other != array);
                }
            }
            4 if *self.names > 0 => {
                let name = self.dice.below(u64::from(*self.names)) as u32;
                self.step(Act::Attach { name });
            }
            5 => self.step(Act::AskStates { array }),
            6 if self.nodes.len() < 3 => self.step(Act::AskReady),
            7 | 8 => self.step(Act::Join),
            // What was waited for is dropped at once.
            9 => {
                self.steps.push(Step { after_us: 0, act: Act::Join });
                self.steps.push(Step { after_us: 0, act: Act::Release { array } });
                self.arrays.retain(|(other, ..)| *other != array);
            }
            _ => {}
        }
    }
}
