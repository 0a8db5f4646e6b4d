//! What tasks note while they run, and whether each run had a cause.
//!
//! A body writes a line when it begins and one when it ends, each by a single write in append mode,
//! into a file in the client's working folder, where its process works too. A line that is there
//! is true whatever happened to the process a moment later.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use rdask::TaskId;

/// The name of the file.
pub(crate) const FILE: &str = "ledger";

/// A result that ended so long before its process was lost has been told to the scheduler.
const TOLD_WITHIN: u64 = 2_000_000;

thread_local! {
    /// What this thread noted last.
    static LAST: Cell<Option<(TaskId, u32)>> = const { Cell::new(None) };
}

/// Runs the body of a task between its two lines. A task that calls several bodies, such as one
/// that folds a piece of a tree, notes the first.
pub(crate) fn noted<T>(body: impl FnOnce() -> T) -> T {
    static LEDGER: OnceLock<File> = OnceLock::new();
    let mut ledger = LEDGER.get_or_init(|| {
        let file = OpenOptions::new().append(true).create(true).open(FILE);
        file.expect("a task works in its client's folder")
    });
    let context = rdask::context();
    let (task, run) = (context.task(), context.run());
    if LAST.replace(Some((task, run))) == Some((task, run)) {
        return body();
    }
    let mut note = |what| {
        let pid = std::process::id();
        let line = format!("{what} {task} {run} {pid} {}\n", now());
        ledger.write_all(line.as_bytes()).expect("the ledger can be written");
    };
    note('b');
    let value = body();
    note('e');
    value
}

/// Notes, as a client, that from now on nobody wants what came of a task.
pub(crate) fn note_dropped(tasks: &[TaskId]) -> std::io::Result<()> {
    let mut ledger = OpenOptions::new().append(true).create(true).open(FILE)?;
    let (pid, now) = (std::process::id(), now());
    let lines: String = tasks.iter().map(|task| format!("d {task} 0 {pid} {now}\n")).collect();
    ledger.write_all(lines.as_bytes())
}

/// Microseconds of a clock that all processes of this machine share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// One run of a task.
#[derive(Clone, Copy, Debug)]
struct Run {
    pid: u32,
    begin: u64,
    end: Option<u64>,
}

/// All that was noted.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    tasks: BTreeMap<String, BTreeMap<u32, Run>>,
    /// Since when nobody wants what came of them.
    dropped: BTreeMap<String, u64>,
}

/// When a process was killed, frozen or cut off, by its number: from then on its tasks may run
/// elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses(BTreeMap<u32, u64>);

impl Losses {
    /// From now on this process may be taken for lost.
    pub(crate) fn add(&mut self, pid: u32) {
        self.add_at(pid, now());
    }

    /// From then on this process may be taken for lost.
    pub(crate) fn add_at(&mut self, pid: u32, time: u64) {
        let known = self.0.entry(pid).or_insert(time);
        *known = time.min(*known);
    }
}

/// What kind of results tasks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Results {
    /// They ride along with the report: once told they can't be lost.
    Small,
    /// They stay with the process, and may be lost with it.
    Large,
}

impl Ledger {
    /// Reads the ledger in a folder.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut ledger = Self::default();
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(ledger);
        }
        let text = std::fs::read_to_string(&path)?;
        // Long notes are seen in part while they are written.
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        for line in text[..whole].lines() {
            ledger.take(line).with_context(|| format!("in the ledger: {line:?}"))?;
        }
        Ok(ledger)
    }

    fn take(&mut self, line: &str) -> anyhow::Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, task, run, pid, time] = words[..] else { bail!("not five words") };
        let (run, pid, time) = (run.parse()?, pid.parse()?, time.parse()?);
        if what == "d" {
            self.dropped.insert(task.to_owned(), time);
            return Ok(());
        }
        let runs = self.tasks.entry(task.to_owned()).or_default();
        match what {
            "b" => {
                let before = runs.insert(run, Run { pid, begin: time, end: None });
                ensure!(before.is_none(), "run {run} of {task} began twice");
            }
            "e" => {
                let run = runs.get_mut(&run).context("it ended and never began")?;
                ensure!(run.pid == pid && run.end.is_none(), "another end of the same run");
                run.end = Some(time);
            }
            _ => bail!("neither a beginning nor an end nor a drop"),
        }
        Ok(())
    }

    /// How many tasks have begun.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// How many tasks nobody wants any more.
    pub(crate) fn dropped(&self) -> usize {
        self.dropped.len()
    }

    /// How many runs there were beyond the first of each task.
    pub(crate) fn reruns(&self) -> usize {
        self.tasks.values().map(|runs| runs.len() - 1).sum()
    }

    /// How many runs these processes began after a time.
    pub(crate) fn begun_by(&self, pids: &BTreeSet<u32>, after: u64) -> usize {
        let runs = self.tasks.values().flat_map(BTreeMap::values);
        runs.filter(|run| pids.contains(&run.pid) && run.begin > after).count()
    }

    /// How many runs began after a time.
    pub(crate) fn begun_after(&self, time: u64) -> usize {
        self.begun_by(&self.processes(), time)
    }

    /// When the first run after a time began in these processes.
    pub(crate) fn first_begin_of(&self, pids: &BTreeSet<u32>, time: u64) -> Option<u64> {
        let runs = self.tasks.values().flat_map(BTreeMap::values);
        let begins = runs.filter(|run| pids.contains(&run.pid)).map(|run| run.begin);
        begins.filter(|begin| *begin > time).min()
    }

    /// How long after each loss of a process the first of what it had ran again, without those that
    /// had nothing.
    pub(crate) fn times_to_rerun(&self, losses: &Losses) -> Vec<Duration> {
        let mut first: BTreeMap<u32, u64> = BTreeMap::new();
        for runs in self.tasks.values() {
            for (before, again) in runs.values().zip(runs.values().skip(1)) {
                let known = first.entry(before.pid).or_insert(again.begin);
                *known = again.begin.min(*known);
            }
        }
        let of_loss = |(pid, lost): (&u32, &u64)| Some(first.get(pid)?.saturating_sub(*lost));
        losses.0.iter().filter_map(of_loss).map(Duration::from_micros).collect()
    }

    /// The processes that ended in the middle of a run, and when the first such run began.
    pub(crate) fn cut_short(&self) -> BTreeMap<u32, u64> {
        let mut processes = BTreeMap::new();
        for run in self.tasks.values().flat_map(BTreeMap::values) {
            if run.end.is_none() {
                let since = processes.entry(run.pid).or_insert(run.begin);
                *since = run.begin.min(*since);
            }
        }
        processes
    }

    /// The processes that began something.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
        self.tasks.values().flat_map(BTreeMap::values).map(|run| run.pid).collect()
    }

    /// Checks that no task ran again without a cause: the process of the run before was lost, its
    /// result, if it had one, was neither told nor kept elsewhere, and somebody wanted it.
    pub(crate) fn check(&self, losses: &Losses, results: Results) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        for (task, runs) in &self.tasks {
            let numbered: Vec<_> = runs.iter().collect();
            for pair in numbered.windows(2) {
                let ((number, before), (next, again)) = (pair[0], pair[1]);
                let unwanted = self.dropped.get(task).filter(|since| **since < again.begin);
                let why = unwanted.map(|_| "nobody wanted it any more".to_owned());
                if let Some(why) = why.or_else(|| without_cause(before, again, losses, results)) {
                    wrong.push(format!("run {next} of {task} after run {number}: {why}"));
                }
            }
        }
        let first: Vec<_> = wrong.iter().take(5).map(String::as_str).collect();
        ensure!(wrong.is_empty(), "{} run(s) without a cause: {}", wrong.len(), first.join("; "));
        Ok(())
    }
}

/// Why a run should not have been, if so.
fn without_cause(before: &Run, again: &Run, losses: &Losses, results: Results) -> Option<String> {
    let Some(lost) = losses.0.get(&before.pid).filter(|lost| **lost <= again.begin) else {
        return Some(format!("process {} was not lost", before.pid));
    };
    let told = before.end.is_some_and(|end| end + TOLD_WITHIN < *lost);
    (results == Results::Small && told)
        .then(|| format!("it had ended long before process {} was lost", before.pid))
}

/// How far a load has come, by the length of its ledger: cheap enough to ask all the time.
#[derive(Debug)]
pub(crate) struct Progress {
    path: PathBuf,
    file: Option<File>,
    begun: usize,
    rest: Vec<u8>,
}

impl Progress {
    /// Of the ledger in a folder.
    pub(crate) fn of(folder: &Path) -> Self {
        Self { path: folder.join(FILE), file: None, begun: 0, rest: Vec::new() }
    }

    /// How many runs have begun by now.
    pub(crate) fn begun(&mut self) -> anyhow::Result<usize> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Ok(0) };
        file.read_to_end(&mut self.rest)?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.begun += self.rest[..whole].split(|byte| *byte == b'\n').filter(begins).count();
        self.rest.drain(..whole);
        Ok(self.begun)
    }
}

fn begins(line: &&[u8]) -> bool {
    line.first() == Some(&b'b')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(lines: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        lines.iter().for_each(|line| ledger.take(line).unwrap());
        ledger
    }

    fn lost(pid: u32, time: u64) -> Losses {
        Losses(BTreeMap::from([(pid, time)]))
    }

    #[test]
    fn a_run_after_the_loss_of_its_process_has_a_cause() {
        let ledger = ledger(&["b c0.0.1 1 7 100", "b c0.0.1 2 8 300", "e c0.0.1 2 8 310"]);
        ledger.check(&lost(7, 200), Results::Small).unwrap();
        assert_eq!((ledger.tasks(), ledger.reruns()), (1, 1));
        assert_eq!(ledger.begun_by(&BTreeSet::from([8]), 200), 1);
        assert_eq!(ledger.times_to_rerun(&lost(7, 200)), [Duration::from_micros(100)]);
        assert!(ledger.times_to_rerun(&lost(8, 200)).is_empty());
        assert_eq!(ledger.first_begin_of(&BTreeSet::from([7, 8]), 100), Some(300));
        assert_eq!(ledger.begun_after(50), 2);
        assert_eq!(ledger.cut_short(), BTreeMap::from([(7, 100)]));
    }

    #[test]
    fn other_runs_have_none() {
        let twice = ledger(&["b c0.0.1 1 7 100", "b c0.0.1 2 8 300"]);
        assert!(twice.check(&Losses::default(), Results::Large).is_err(), "nobody was lost");
        assert!(twice.check(&lost(8, 200), Results::Large).is_err(), "somebody else was lost");
        assert!(twice.check(&lost(7, 400), Results::Large).is_err(), "lost only later");
    }

    #[test]
    fn what_was_told_is_not_lost() {
        let told = ledger(&["b c0.0.1 1 7 100", "e c0.0.1 1 7 200", "b c0.0.1 2 8 9000000"]);
        let lost = lost(7, 8_000_000);
        assert!(told.check(&lost, Results::Small).is_err());
        told.check(&lost, Results::Large).unwrap();
    }

    #[test]
    fn what_nobody_wants_is_not_run_again() {
        let runs = ["b c0.0.1 1 7 100", "e c0.0.1 1 7 110", "b c0.0.1 2 8 300"];
        let lost = lost(7, 200);
        let with = |drop: &str| ledger(&[runs[0], runs[1], drop, runs[2]]);
        with("d c0.0.1 0 9 301").check(&lost, Results::Large).unwrap();
        with("d c0.0.2 0 9 120").check(&lost, Results::Large).unwrap();
        assert!(with("d c0.0.1 0 9 120").check(&lost, Results::Large).is_err());
        assert_eq!((with("d c0.0.2 0 9 120").tasks(), with("d c0.0.2 0 9 120").dropped()), (1, 1));
    }

    #[test]
    fn a_ledger_that_can_not_be_is_found_out() {
        let mut twice = ledger(&["b c0.0.1 1 7 100"]);
        assert!(twice.take("b c0.0.1 1 8 200").is_err());
        assert!(twice.take("e c0.0.2 1 8 200").is_err());
        assert!(twice.take("e c0.0.1 1 9 200").is_err());
        assert!(twice.take("b c0.0.1").is_err());
    }
}
