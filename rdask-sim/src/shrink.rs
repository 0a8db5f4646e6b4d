//! A failure made small: entries are taken out for as long as it still fails.

use crate::run;
use crate::scenario::{Act, Scenario};

/// The most scenarios that are tried.
const TRIES_MAX: usize = 3_000;

/// The smallest scenario found that still fails, and why it does.
#[must_use]
pub fn shrink(scenario: &Scenario) -> (Scenario, String) {
    let failure = run(scenario, false).failure.unwrap_or_default();
    let mut best = Shrinker { scenario: scenario.clone(), failure, tries: 0 };
    loop {
        let before = size(&best.scenario);
        best.pass();
        if size(&best.scenario) == before || best.tries >= TRIES_MAX {
            return (best.scenario, best.failure);
        }
    }
}

/// What is to become less.
fn size(scenario: &Scenario) -> usize {
    let steps: usize = scenario.clients.iter().map(|client| client.steps.len() + 1).sum();
    let tasks: usize = scenario
        .clients
        .iter()
        .flat_map(|client| &client.steps)
        .map(|step| match &step.act {
            Act::Map { len, .. } | Act::Scatter { len, .. } => *len as usize,
            Act::Submit { tasks, .. } => tasks.iter().map(|edges| 1 + edges.len()).sum(),
            _ => 0,
        })
        .sum();
    let slots: u32 = scenario.nodes.iter().flat_map(|node| &node.slots).sum();
    scenario.faults.len() + steps + tasks + scenario.nodes.len() + slots as usize
}

/// What a failure is about: its words without names and numbers.
fn kind(failure: &str) -> String {
    let words = failure.split(|at: char| !at.is_alphabetic());
    words.filter(|word| word.len() > 1).take(8).collect::<Vec<_>>().join(" ")
}

struct Shrinker {
    scenario: Scenario,
    failure: String,
    tries: usize,
}

impl Shrinker {
    /// Keeps a change if the scenario still fails. Some failures hang on chance, so other seeds
    /// are tried as well.
    fn try_change(&mut self, change: impl Fn(&mut Scenario)) -> bool {
        let mut scenario = self.scenario.clone();
        change(&mut scenario);
        if scenario == self.scenario || self.tries >= TRIES_MAX {
            return false;
        }
        for salt in 0..4 {
            self.tries += 1;
            let mut other = scenario.clone();
            other.seed = scenario.seed.wrapping_add(salt);
            if let Some(failure) = run(&other, false).failure
                && kind(&failure) == kind(&self.failure)
            {
                (self.scenario, self.failure) = (other, failure);
                return true;
            }
        }
        false
    }

    /// Takes out halves, then quarters, and so on down to single entries.
    fn thin(
        &mut self,
        len: impl Fn(&Scenario) -> usize,
        remove: impl Fn(&mut Scenario, usize, usize),
    ) {
        let mut chunk = len(&self.scenario);
        while chunk > 0 {
            let mut start = 0;
            while start < len(&self.scenario) {
                let end = (start + chunk).min(len(&self.scenario));
                if !self.try_change(|scenario| remove(scenario, start, end)) {
                    start = end;
                }
            }
            chunk /= 2;
        }
    }

    fn pass(&mut self) {
        self.thin(
            |scenario| scenario.faults.len(),
            |scenario, from, to| drop(scenario.faults.drain(from..to)),
        );
        for client in (0..self.scenario.clients.len()).rev() {
            self.try_change(|scenario| scenario.clients[client].steps.clear());
            self.thin(
                |scenario| scenario.clients[client].steps.len(),
                |scenario, from, to| drop(scenario.clients[client].steps.drain(from..to)),
            );
        }
        // Faults name clients and nodes by their places, so only the last ones go.
        while self.scenario.clients.len() > 1
            && self.try_change(|scenario| drop(scenario.clients.pop()))
        {}
        while self.scenario.nodes.len() > 1
            && self.try_change(|scenario| drop(scenario.nodes.pop()))
        {}
        self.simplify_nodes();
        self.simplify_steps();
        self.try_change(|scenario| scenario.network.tail_percent = 0);
        self.try_change(|scenario| scenario.network.slow_percent = 0);
        self.try_change(|scenario| scenario.network.fetch_fails_percent = 0);
        self.try_change(|scenario| scenario.network.turn_us = 0);
        self.try_change(|scenario| scenario.result_bytes_max = u64::MAX);
    }

    fn simplify_nodes(&mut self) {
        for node in 0..self.scenario.nodes.len() {
            self.try_change(|scenario| scenario.nodes[node].slots.truncate(1));
            self.try_change(|scenario| scenario.nodes[node].slots.fill(1));
            self.try_change(|scenario| scenario.nodes[node].slowness = 100);
            self.try_change(|scenario| scenario.nodes[node].has_programs = true);
        }
    }

    fn simplify_steps(&mut self) {
        for client in 0..self.scenario.clients.len() {
            for step in 0..self.scenario.clients[client].steps.len() {
                while self.try_change(|scenario| {
                    halve(&mut scenario.clients[client].steps[step].act);
                }) {}
                self.try_change(|scenario| {
                    if let Act::Map { work, .. } | Act::Submit { work, .. } =
                        &mut scenario.clients[client].steps[step].act
                    {
                        let kept = (work.adds, work.busy_us, work.stored_percent, work.nested);
                        *work = crate::scenario::Work::default();
                        (work.adds, work.busy_us, work.stored_percent, work.nested) = kept;
                    }
                });
                self.try_change(|scenario| scenario.clients[client].steps[step].after_us = 0);
            }
        }
    }
}

fn halve(act: &mut Act) {
    match act {
        Act::Map { len, .. } | Act::Scatter { len, .. } => *len = (*len / 2).max(1),
        Act::Submit { tasks, .. } => tasks.truncate((tasks.len() / 2).max(1)),
        _ => {}
    }
}
