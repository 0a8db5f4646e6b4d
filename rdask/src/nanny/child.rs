//! One process that a nanny started: its beginning, what it writes, and how it ended.

use std::io::{self, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rdask_core::id::{ProcessId, TaskId};
use rdask_core::message::Exit;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::probe::spawn_patiently;
use super::session;
use crate::board::BoardFile;
use crate::handover::{self, Handover, PROCESS_ARGUMENT};
use crate::{memory, program};

const SIGKILL: i32 = 9;

/// How many lines of standard error are kept for the error of a task that killed its process.
const STDERR_LINES: usize = 50;

/// Longer lines are cut: they are for people.
const LINE_BYTES_MAX: usize = 4096;

/// The hand-over is written before anybody reads, so it has to fit an empty pipe (64 KiB).
const HANDOVER_BYTES_MAX: usize = 60 << 10;

/// Something that a process started may keep its output open; what it wrote itself is here by then.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a process is started with.
#[derive(Debug)]
pub struct Start {
    /// The program's file.
    pub path: PathBuf,
    /// What `ps` shows: the name that the user gave the program.
    pub name: String,
    /// What it is told.
    pub handover: Handover,
    /// Its working folder.
    pub folder: PathBuf,
    /// What it inherits of its client.
    pub environment: Vec<(String, String)>,
    /// Where it notes what it runs; the hand-over names it.
    pub board: BoardFile,
}

/// A process that runs.
#[derive(Debug)]
pub struct Started {
    /// Its number on this node.
    pub pid: u32,
    child: Child,
    lifeline: Option<Lifeline>,
    /// The prefix of what it writes.
    label: String,
    board: BoardFile,
    oom_kills: Option<u64>,
}

/// A process's standard input. Open as long as the nanny lives: the process ends when it closes.
#[derive(Debug)]
pub struct Lifeline(PipeWriter);

impl Lifeline {
    /// Tells the process under which number the scheduler takes it back.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn tell(&mut self, process: ProcessId) -> io::Result<()> {
        self.0.write_all(handover::encode_return(process).as_bytes())
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// The tasks that ran, and in which run.
    pub board: Vec<(TaskId, u32)>,
    /// The last lines of its standard error.
    pub stderr: Vec<String>,
}

impl Start {
    /// Starts the process. Call it on a thread that lives as long as the nanny: the kernel ends
    /// the process with the thread that started it.
    ///
    /// # Errors
    /// If the kernel doesn't start it.
    pub async fn start(self) -> io::Result<Started> {
        let text = self.handover.encode();
        if text.len() > HANDOVER_BYTES_MAX {
            return Err(io::Error::other("the scheduler file is too long to be handed over"));
        }
        let (reader, mut lifeline) = io::pipe()?;
        lifeline.write_all(text.as_bytes())?;
        let mut command = Command::new(&self.path);
        command
            .arg0(&self.name)
            .arg(PROCESS_ARGUMENT)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(thread_counts(&self.environment))
            .current_dir(&self.folder)
            .stdin(Stdio::from(OwnedFd::from(reader)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let oom_kills = memory::out_of_memory_kills();
        let child = spawn_patiently(&mut command).await?;
        let label = format!("{} {}", self.handover.worker_name, self.handover.process);
        let pid = child.id().expect("a child that nobody waited for has a number");
        let lifeline = Some(Lifeline(lifeline));
        Ok(Started { pid, child, lifeline, label, board: self.board, oom_kills })
    }
}

impl Started {
    /// Its lifeline, for whoever keeps it open from now on.
    pub fn take_lifeline(&mut self) -> Option<Lifeline> {
        self.lifeline.take()
    }

    /// Passes on what the process writes until it ends. Kills it when `kill` resolves, and
    /// reports what that says as its end, unless it has died of something else just before. What
    /// it has started is gone then, too.
    ///
    /// # Errors
    /// If the process can't be waited for.
    pub async fn watch(mut self, kill: impl Future<Output = Exit>) -> io::Result<Ended> {
        let stdout = self.child.stdout.take().expect("it was piped");
        let stderr = self.child.stderr.take().expect("it was piped");
        let out = tokio::spawn(forward(stdout, self.label.clone()));
        let err = tokio::spawn(forward(stderr, self.label.clone()));
        let exit = tokio::select! {
            biased;
            status = self.child.wait() => self.exit_of(status?),
            exit = kill => {
                self.child.start_kill()?;
                let status = self.child.wait().await?;
                if status.signal() == Some(SIGKILL) { exit } else { self.exit_of(status) }
            }
        };
        session::end(self.pid).await;
        let (_, stderr) = tokio::join!(last_lines(out), last_lines(err));
        Ok(Ended { exit, board: self.board.read()?, stderr })
    }

    fn exit_of(&self, status: ExitStatus) -> Exit {
        let more_oom_kills = || memory::out_of_memory_kills() > self.oom_kills;
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(SIGKILL)) if more_oom_kills() => Exit::OutOfMemory,
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        }
    }
}

fn thread_counts(environment: &[(String, String)]) -> Vec<(String, String)> {
    program::thread_counts(|name| {
        std::env::var_os(name).is_some() || environment.iter().any(|(set, _)| set == name)
    })
}

/// The lines that a forwarding task kept, also if something still holds the other end open.
async fn last_lines(task: tokio::task::JoinHandle<Vec<String>>) -> Vec<String> {
    let abort = task.abort_handle();
    match tokio::time::timeout(LAST_WORDS, task).await {
        Ok(lines) => lines.unwrap_or_default(),
        Err(_) => {
            abort.abort();
            Vec::new()
        }
    }
}

/// Writes each line with the process's name before it to the nanny's standard error.
async fn forward(from: impl AsyncRead + Unpin, label: String) -> Vec<String> {
    let mut from = BufReader::new(from);
    let mut last = std::collections::VecDeque::with_capacity(STDERR_LINES);
    while let Some(line) = next_line(&mut from).await {
        // Nobody is left to tell that standard error is closed.
        drop(writeln!(io::stderr().lock(), "{label} | {line}"));
        if last.len() == STDERR_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.into()
}

/// The next line, cut at its limit; `None` at the end.
async fn next_line(from: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    loop {
        // Cancel safety: only ever dropped whole, with its reader.
        let available = from.fill_buf().await.ok()?;
        if available.is_empty() {
            return (!line.is_empty()).then(|| text_of(&line));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&available[..taken.min(room)]);
        from.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Some(text_of(&line));
        }
    }
}

fn text_of(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

/// The folder to start in: the client's where it exists, or else the given one.
#[must_use]
pub fn folder_or(client: &str, otherwise: &Path) -> PathBuf {
    let client = Path::new(client);
    if client.is_absolute() && client.is_dir() {
        return client.to_owned();
    }
    tracing::warn!(folder = %client.display(), instead = %otherwise.display(),
        "the client's folder is not on this node");
    otherwise.to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rdask_core::id::{NannyId, WorkerId};

    use super::*;

    fn handover() -> Handover {
        Handover {
            rdask: "0".into(),
            scheduler_file: "secret".into(),
            process: ProcessId(1),
            worker: WorkerId(0),
            nanny: NannyId(0),
            worker_name: "w".into(),
            node: "n".into(),
            pool: "p".into(),
            slots: 1,
            memory_limit: 0,
            program: String::new(),
            file: None,
            umask: 0o022,
            scratch: "/tmp".into(),
            board: None,
            interface: None,
            host: None,
        }
    }

    async fn run(script: &str, kill: impl Future<Output = Exit>) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let start = Start {
            path,
            name: "program".into(),
            handover: handover(),
            folder: folder.path().to_owned(),
            environment: vec![("OMP_NUM_THREADS".into(), "3".into())],
            board: BoardFile::create(1).unwrap(),
        };
        start.start().await.unwrap().watch(kill).await.unwrap()
    }

    #[tokio::test]
    async fn the_handover_comes_by_standard_input() {
        let script = "read a; read b; echo $1 $a >&2; echo $b | grep -c secret >&2";
        let ended = run(script, std::future::pending()).await;
        assert_eq!(ended.exit, Exit::Code(0));
        assert_eq!(ended.stderr, ["--rdask-process rdask-handover 1 1", "1"]);
    }

    #[tokio::test]
    async fn the_last_lines_of_standard_error_are_kept() {
        let script = "for i in $(seq 100); do echo line $i >&2; done; printf end >&2; exit 7";
        let ended = run(script, std::future::pending()).await;
        assert_eq!(ended.exit, Exit::Code(7));
        assert_eq!(ended.stderr.len(), STDERR_LINES);
        assert_eq!(ended.stderr[STDERR_LINES - 2..], ["line 100", "end"]);
    }

    #[tokio::test]
    async fn a_killed_process_ended_as_its_killer_says() {
        let ended = run("exec sleep 1000", std::future::ready(Exit::OutOfMemory)).await;
        assert_eq!(ended.exit, Exit::OutOfMemory);
    }

    #[tokio::test]
    async fn libraries_get_one_thread_unless_the_client_said_otherwise() {
        let script = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS >&2";
        let ended = run(script, std::future::pending()).await;
        assert_eq!(ended.stderr, ["3 1"]);
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_output_open_does_not_hide_the_end() {
        let ended = run("sleep 1000 & exit 3", std::future::pending()).await;
        assert_eq!(ended.exit, Exit::Code(3));
    }
}
