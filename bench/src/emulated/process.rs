//! A program's process without a program.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdask::connection::{Connected, Inbox, Outbox, Persistence};
use rdask_core::blob::BlobBuilder;
use rdask_core::hello::Role;
use rdask_core::id::ProcessId;
use rdask_core::message::{End, FromProcess, ToProcess};
use rdask_core::process::{Action, ChunkEnd, ChunkId, Process, StartChunk};
use rdask_core::range::Range;
use rdask_core::time::Time;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Stage;
use super::clock::Clock;

/// As many messages are taken in before the state machine is asked what to do.
const TAKEN_AT_ONCE: usize = 256;

/// Joins the scheduler and answers what it assigns, until it says that it is over.
pub(super) async fn run(stage: Arc<Stage>, id: ProcessId) -> anyhow::Result<ProcessId> {
    let role = |contact| Role::Process { process: id, pid: std::process::id(), contact };
    let joined = stage.join::<FromProcess, ToProcess>(role, Persistence::unlimited);
    let (endpoint, Connected { send, receive, .. }) = joined.await?;
    stage.at_work();
    let (over, overs) = unbounded_channel();
    let slots = Slots {
        machine: Process::new(id, 0),
        begun: stage.begun,
        to_scheduler: send,
        clock: stage.clock.clone(),
        over,
        running: BTreeMap::new(),
        is_over: false,
    };
    slots.serve(receive, overs).await?;
    endpoint.close().await;
    Ok(id)
}

/// A chunk that waits for the end of a task.
#[derive(Debug)]
struct Running {
    start: StartChunk,
    begun: Instant,
    /// The task under way.
    task: u32,
    /// One past the last task.
    end: u32,
    results: BlobBuilder,
}

impl Running {
    /// The result of the task under way, and how long it takes.
    fn read(&self) -> anyhow::Result<(&[u8], Duration)> {
        let assign = &self.start.assign;
        let arguments = assign.payload.get(self.task - assign.range.start);
        if arguments.is_empty() {
            return Ok((arguments, Duration::ZERO));
        }
        let (_, rest) = postcard::take_from_bytes::<u64>(arguments).context("no number first")?;
        let result = &arguments[..arguments.len() - rest.len()];
        let micros = match rest {
            [] => 0,
            rest => postcard::from_bytes::<u32>(rest).context("no microseconds second")?,
        };
        Ok((result, Duration::from_micros(micros.into())))
    }
}

struct Slots {
    machine: Process,
    begun: Instant,
    to_scheduler: Outbox<FromProcess>,
    clock: Clock,
    over: UnboundedSender<ChunkId>,
    running: BTreeMap<ChunkId, Running>,
    is_over: bool,
}

impl Slots {
    async fn serve(
        mut self,
        mut receive: Inbox<ToProcess>,
        mut overs: UnboundedReceiver<ChunkId>,
    ) -> anyhow::Result<()> {
        loop {
            self.act()?;
            if self.is_over {
                return Ok(());
            }
            let timeout = self.machine.poll_timeout();
            let deadline = timeout.map(|time| self.begun + Duration::from_nanos(time.0));
            let sleep = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(chunk) = overs.recv() => self.task_over(chunk)?,
                message = receive.recv() => {
                    // Its nanny hears of the end, too.
                    let Ok(message) = message else { return Ok(()) };
                    self.machine.handle_message(self.now(), message);
                }
                () = sleep => {}
            }
            for _ in 0..TAKEN_AT_ONCE {
                let Ok(chunk) = overs.try_recv() else { break };
                self.task_over(chunk)?;
            }
            for _ in 0..TAKEN_AT_ONCE {
                let Ok(Some(message)) = receive.try_recv() else { break };
                self.machine.handle_message(self.now(), message);
            }
            self.machine.handle_timeout(self.now());
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn act(&mut self) -> anyhow::Result<()> {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::StartChunk(start) => {
                    let Range { start: task, end } = start.range;
                    let (begun, results) = (Instant::now(), BlobBuilder::new());
                    self.go_on(Running { start, begun, task, end, results })?;
                }
                Action::TakeBack(chunk) => {
                    let range = self.running.get_mut(&chunk).map(|running| {
                        let range = Range::new(running.task + 1, running.end);
                        running.end = range.start;
                        range
                    });
                    let range = range.unwrap_or(Range::new(0, 0));
                    self.machine.handle_taken_back(self.now(), chunk, range);
                }
                Action::Send(message) => {
                    // The inbox tells of the end.
                    let _ = self.to_scheduler.send(message);
                }
                Action::Fetch { value, holder, .. } => {
                    self.machine.handle_fetch_failed(self.now(), value, holder, true);
                }
                Action::Exit { .. } => self.is_over = true,
                // A task that sleeps ends at its time; values are with the state machine.
                Action::CancelRunning(..)
                | Action::Resume(_)
                | Action::DropValues(..)
                | Action::DropReplica(_) => {}
            }
        }
        Ok(())
    }

    /// Goes through a chunk's tasks up to one that takes its time.
    fn go_on(&mut self, mut running: Running) -> anyhow::Result<()> {
        let chunk = running.start.chunk;
        while running.task < running.end {
            let (result, time) = running.read()?;
            if time > Duration::ZERO {
                self.clock.wake(Instant::now() + time, chunk, self.over.clone());
                self.running.insert(chunk, running);
                return Ok(());
            }
            let result = result.to_vec();
            running.results.push(&result);
            running.task += 1;
        }
        self.chunk_over(running);
        Ok(())
    }

    /// The time of a chunk's task is over.
    fn task_over(&mut self, chunk: ChunkId) -> anyhow::Result<()> {
        let Some(mut running) = self.running.remove(&chunk) else { return Ok(()) };
        let result = running.read()?.0.to_vec();
        running.results.push(&result);
        running.task += 1;
        self.go_on(running)
    }

    fn chunk_over(&mut self, running: Running) {
        let Running { start, begun, task, results, .. } = running;
        let range = Range::new(start.range.start, task);
        let ended = vec![(range, End::Inline(results.build()))];
        let end = ChunkEnd { ended, busy: begun.elapsed() };
        self.machine.handle_chunk_ended(self.now(), start.chunk, end);
    }
}
