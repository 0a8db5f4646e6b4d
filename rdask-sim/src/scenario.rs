//! A scenario: all that happens to a cluster, said beforehand.
//!
//! What programs do and what goes wrong are lists, so that a failure can be made small by taking
//! entries out. Whatever the lists don't say (how long a message takes, how long a run lasts) comes
//! from the seed. Entries that make no sense without others (a task whose input is gone) are passed
//! over, so any part of a scenario is one.

mod fault;
mod work;

use std::fmt::Write;

use serde::{Deserialize, Serialize};

pub(crate) use fault::{Fault, Ways, What, Who};
pub(crate) use work::{Fails, Input, Work};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Where chance begins.
    pub seed: u64,
    /// The network, and how busy the scheduler's machine is.
    pub network: Network,
    /// Inline results that the scheduler keeps.
    pub result_bytes_max: u64,
    /// When faults end: the core of the cluster is healed, the rest stays broken for good.
    pub heal_ms: u64,
    /// Nodes with one nanny each.
    pub nodes: Vec<Node>,
    /// Client programs.
    pub clients: Vec<Client>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// How long things take that nobody decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The least and the usual most that a message takes.
    pub delay_us: (u64, u64),
    /// How many messages of a hundred take ten times longer.
    pub slow_percent: u64,
    /// How long the scheduler takes for a batch of facts, at most.
    pub turn_us: u64,
    /// How long a launch takes, at most.
    pub launch_ms: u64,
    /// How many fetches and puts of a hundred fail for no reason.
    pub fetch_fails_percent: u64,
    /// How many runs of a hundred last a hundred times longer than others.
    pub tail_percent: u64,
}

/// A node: a nanny with workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// When its nanny starts.
    pub join_ms: u64,
    /// Its pool.
    pub pool: u32,
    /// Whether it is of the core that is healed.
    pub core: bool,
    /// Whether it has programs already.
    pub has_programs: bool,
    /// How much longer runs last here, in percent.
    pub slowness: u64,
    /// The slots of its workers.
    pub slots: Vec<u32>,
    /// How many graphics cards each worker has.
    pub cards: u64,
}

/// A client program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// When it starts.
    pub start_ms: u64,
    /// Which program it is.
    pub program: u8,
    /// Whether it is started again once it has died or lost its connection.
    pub returns: bool,
    /// What it does.
    pub steps: Vec<Step>,
}

/// One thing that a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How long it waits before.
    pub after_us: u64,
    /// What it does then.
    pub act: Act,
}

/// What clients do. Arrays have numbers of the scenario's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// An array of tasks.
    Map {
        /// Its number.
        array: u32,
        /// How many tasks; less if an input has less.
        len: u32,
        /// What they take.
        inputs: Vec<Input>,
        /// What they do.
        work: Work,
    },
    /// One task after the other.
    Submit {
        /// The number to know them by.
        array: u32,
        /// The edges of each: array and index, perhaps of this one.
        tasks: Vec<Vec<(u32, u32)>>,
        /// What they do.
        work: Work,
    },
    /// Values of the client's own.
    Scatter {
        /// Their number.
        array: u32,
        /// How many.
        len: u32,
        /// Whether they are put with processes.
        large: bool,
        /// With how many.
        #[serde(default = "one")]
        replicas: u8,
    },
    /// Wait and compare. Goes on beside what follows.
    Gather {
        /// Of which array.
        array: u32,
        /// From which task on.
        from: u32,
        /// How many.
        len: u32,
        /// How much to wait for.
        until: Until,
        /// What the values add up to, if there is a formula.
        sum: Option<u64>,
    },
    /// Wait until all that is gathered has come.
    Join,
    /// Drop the handles of an array.
    Release {
        /// Which.
        array: u32,
    },
    /// Cancel tasks.
    Cancel {
        /// Of which array.
        array: u32,
        /// From which task on.
        from: u32,
        /// How many.
        len: u32,
    },
    /// Keep an array under a name.
    Detach {
        /// Which.
        array: u32,
        /// The name.
        name: u32,
    },
    /// Take what was kept under a name, and compare.
    Attach {
        /// The name.
        name: u32,
    },
    /// Ask until the program is at work everywhere.
    AskReady,
    /// Ask for states.
    AskStates {
        /// Of which array.
        array: u32,
    },
}

/// How much to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// That the tasks end.
    Ends,
    /// That small values are here.
    Small,
    /// That all values are here.
    Values,
    /// The same, one after the other.
    Each,
}

impl Scenario {
    /// A text that [`parse`](Self::parse) reads: one line per entry.
    #[must_use]
    pub fn print(&self) -> String {
        let mut text = String::new();
        let network = json(&self.network);
        let _ = writeln!(
            text,
            "{{\n\"seed\": {}, \"result_bytes_max\": {}, \"heal_ms\": {},\n\"network\": {network},",
            self.seed, self.result_bytes_max, self.heal_ms
        );
        let nodes: Vec<String> = self.nodes.iter().map(json).collect();
        let clients: Vec<String> = self
            .clients
            .iter()
            .map(|client| {
                let Client { start_ms, program, returns, steps } = client;
                let steps: Vec<String> = steps.iter().map(json).collect();
                format!(
                    "{{\"start_ms\": {start_ms}, \"program\": {program}, \
                     \"returns\": {returns}, \"steps\": [\n  {}]}}",
                    steps.join(",\n  ")
                )
            })
            .collect();
        let faults: Vec<String> = self.faults.iter().map(json).collect();
        let _ = writeln!(text, "\"nodes\": [\n {}],", nodes.join(",\n "));
        let _ = writeln!(text, "\"clients\": [\n {}],", clients.join(",\n "));
        let _ = writeln!(text, "\"faults\": [\n {}]}}", faults.join(",\n "));
        text
    }

    /// Reads what [`print`](Self::print) writes.
    ///
    /// # Errors
    /// If it is no scenario.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

fn one() -> u8 {
    1
}

fn json<T: Serialize>(entry: &T) -> String {
    serde_json::to_string(entry).expect("plain data can be written")
}
