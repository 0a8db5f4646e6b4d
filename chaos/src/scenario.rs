//! What a scenario is, and one run of it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::net::Net;
use crate::stage::{Scale, Stage};

/// A load, an injection, and what must come of it.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What is computed.
    pub(crate) load: &'static str,
    /// What is done to it.
    pub(crate) injection: &'static str,
    /// What must be so, besides what always must: the right result, no run without a cause, and at
    /// the end no task, no byte, no process, no panic.
    pub(crate) pass: &'static str,
    /// What it needs of the machine.
    pub(crate) needs: Needs,
    /// How long the computation may take; ten times that in a soak.
    pub(crate) limit: Duration,
    /// Does it.
    pub(crate) act: fn(&mut Stage) -> anyhow::Result<()>,
}

/// What a scenario needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// A network namespace for each node.
    Network,
    /// A small file system.
    Mount,
}

impl Needs {
    /// Why it can't be had here, if so.
    fn missing(self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Network => Net::missing(),
            Self::Mount => crate::stage::SmallDisk::missing(),
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All was as it must be.
    Passed,
    /// It was not, or could not be found out.
    Failed(String),
    /// It can't be run here.
    Skipped(String),
}

/// One run of a scenario.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static Scenario,
    pub(crate) verdict: Verdict,
    pub(crate) seconds: f64,
    /// Figures of the run.
    pub(crate) notes: Vec<String>,
}

impl Scenario {
    /// Runs it in a folder of its own.
    pub(crate) fn run(&'static self, rdask: &Path, scale: Scale, keep: bool) -> Outcome {
        let started = Instant::now();
        let (verdict, notes) = match self.needs.missing() {
            Some(reason) => (Verdict::Skipped(reason), Vec::new()),
            None => self.act(rdask, scale, keep),
        };
        Outcome { scenario: self, verdict, seconds: started.elapsed().as_secs_f64(), notes }
    }

    fn act(&self, rdask: &Path, scale: Scale, keep: bool) -> (Verdict, Vec<String>) {
        let folder = match tempfile::Builder::new().prefix("rdask-chaos-").tempdir() {
            Ok(folder) => folder,
            Err(error) => return (Verdict::Failed(error.to_string()), Vec::new()),
        };
        let limit = self.limit * if scale == Scale::Soak { 10 } else { 1 };
        let mut stage = Stage::new(rdask, folder.path(), scale, limit);
        let verdict = match (self.act)(&mut stage) {
            Ok(()) => Verdict::Passed,
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        let mut notes = stage.notes;
        if keep && verdict != Verdict::Passed {
            notes.push(format!("see {}", folder.keep().display()));
        }
        (verdict, notes)
    }
}
