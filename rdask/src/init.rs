//! The beginning of every program that uses rdask: is it a client, or did a nanny start it?
//!
//! [`init`] must be the first thing that `main` does. In a process that a nanny started it never
//! returns: the program's `main` is the client's, and what runs in the cluster are its functions.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use rdask_core::hello::{PROTOCOL_VERSION, Role};
use rdask_core::id::ProcessId;
use rdask_core::message::{FromProcess, ToProcess};
use rdask_net::{Endpoint, SchedulerFile, address_of};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::board::Board;
use crate::client::Client;
use crate::client::connect::connect_file;
use crate::client::nested::NestedClient;
use crate::client::parking::park_on;
use crate::connection::{
    ConnectError, Connected, Persistence, contact_of, dial, joining, scheduler_target,
};
use crate::context;
use crate::data::Routes;
use crate::error::chain;
use crate::handover::{
    Handover, PROBE_ARGUMENT, PROCESS_ARGUMENT, ProbeAnswer, RDASK_VERSION, parse_hash, read_return,
};
use crate::process::{self, DataPlane, Home, ProcessSetup, Return};
use crate::program;

/// A process could not begin to work.
pub const EXIT_NOT_STARTED: i32 = 70;

/// Program and nanny speak different versions.
pub const EXIT_VERSION: i32 = 5;

static CALLED: AtomicBool = AtomicBool::new(false);

/// Makes this program one that workers can start. First in `main`, before threads and output.
///
/// Returns in a client. In a process that a nanny started it works and never returns.
///
/// ```no_run
/// rdask::init();
/// println!("only the client says this");
/// ```
pub fn init() {
    init_with(|| ());
}

/// As [`init`], and `setup` runs once in each process before its first task: what `main` prepares
/// in a client is not there in a process. [`#[rdask::main(setup = f)]`](crate::main) is the same.
///
/// ```no_run
/// static TABLE: std::sync::OnceLock<Vec<f64>> = std::sync::OnceLock::new();
///
/// fn load_table() {
///     TABLE.get_or_init(|| (0..1000).map(|i| f64::from(i).sqrt()).collect());
/// }
///
/// fn main() -> rdask::Result<()> {
///     rdask::init_with(load_table);
///     let client = rdask::Client::from_env()?;
///     let root = client.submit(|i: usize| TABLE.get().map(|table| table[i]), (4,));
///     println!("{:?}", root.result()?); // Some(2.0)
///     Ok(())
/// }
/// ```
pub fn init_with(setup: impl FnOnce()) {
    CALLED.store(true, Ordering::Relaxed);
    match std::env::args_os().nth(1) {
        Some(argument) if argument == PROBE_ARGUMENT => answer_probe(),
        Some(argument) if argument == PROCESS_ARGUMENT => work(setup),
        _ => {}
    }
}

/// Whether this program can be started by workers, as a client must be.
#[must_use]
pub fn is_called() -> bool {
    CALLED.load(Ordering::Relaxed)
}

#[expect(clippy::print_stdout, reason = "the answer to a probe is its output")]
fn answer_probe() -> ! {
    let rdask = RDASK_VERSION.to_owned();
    println!("{}", ProbeAnswer { protocol: PROTOCOL_VERSION, rdask }.encode());
    exit(0)
}

fn work(setup: impl FnOnce()) -> ! {
    let (handover, numbers) = match begin() {
        Ok(begun) => begun,
        Err(NotStarted { code, message }) => give_up(code, &message),
    };
    setup();
    exit(run(handover, numbers))
}

#[expect(clippy::print_stderr, reason = "the nanny keeps what a process says last")]
fn give_up(code: i32, message: &str) -> ! {
    eprintln!("rdask: {message}");
    exit(code)
}

struct NotStarted {
    code: i32,
    message: String,
}

impl NotStarted {
    fn new(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self { code: EXIT_NOT_STARTED, message: format!("{what}: {error}") }
    }
}

/// The numbers under which the scheduler takes the process back that it had given up.
type Numbers = mpsc::UnboundedReceiver<ProcessId>;

/// Takes the hand-over and puts the process in order.
fn begin() -> Result<(Handover, Numbers), NotStarted> {
    // A session of its own: signals to the nanny's whole tree are for the nanny. It may lead one.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| NotStarted::new("no signal at the nanny's end", &error))?;
    let (handover, lifeline) = take_handover()?;
    umask(Mode::from_bits_truncate(handover.umask));
    let unreadable = |error: std::io::Error| NotStarted::new("can't read the program", &error);
    if let (Some(hash), Some(state)) = (parse_hash(&handover.program), handover.file) {
        program::adopt(hash, state).map_err(unreadable)?;
    }
    let hash = program::hash().map_err(unreadable)?;
    if format!("{hash:#}") != handover.program {
        let message = "the program's file changed while it was started".to_owned();
        return Err(NotStarted { code: EXIT_NOT_STARTED, message });
    }
    let (number, numbers) = mpsc::unbounded_channel();
    let watch = std::thread::Builder::new().name("rdask-lifeline".to_owned());
    watch
        .spawn(move || end_with_nanny(lifeline, &number))
        .map_err(|error| NotStarted::new("no thread", &error))?;
    Ok((handover, numbers))
}

/// Reads standard input up to the hand-over's end, and gives the program an empty one instead.
fn take_handover() -> Result<(Handover, BufReader<File>), NotStarted> {
    let failed = |error: std::io::Error| NotStarted::new("no hand-over", &error);
    // The same pipe under a number of its own, closed in whatever the program starts.
    let mut pipe = BufReader::new(File::open("/proc/self/fd/0").map_err(failed)?);
    let handover = Handover::read(&mut pipe).map_err(|error| NotStarted {
        code: if error.is_version() { EXIT_VERSION } else { EXIT_NOT_STARTED },
        message: error.to_string(),
    })?;
    let nothing = File::open(Path::new("/dev/null")).map_err(failed)?;
    nix::unistd::dup2_stdin(nothing).map_err(|errno| failed(errno.into()))?;
    Ok((handover, pipe))
}

/// Hears what the nanny has to say until it ends, and ends the process then as the kernel would: no
/// destructor of the program may keep it.
fn end_with_nanny(mut lifeline: BufReader<File>, numbers: &mpsc::UnboundedSender<ProcessId>) {
    while let Ok(Some(number)) = read_return(&mut lifeline) {
        // The process may be about to end.
        let _ = numbers.send(number);
    }
    if let Err(errno) = kill(nix::unistd::getpid(), Signal::SIGKILL) {
        give_up(EXIT_NOT_STARTED, &format!("the nanny has ended, and the process can't: {errno}"));
    }
}

/// Joins the scheduler and runs tasks until the process is told to end. Returns the exit code.
fn run(handover: Handover, numbers: Numbers) -> i32 {
    match try_run(handover, numbers) {
        Ok(()) => 0,
        Err(NotStarted { code, message }) => give_up(code, &message),
    }
}

fn try_run(handover: Handover, numbers: Numbers) -> Result<(), NotStarted> {
    let failed = |error: &dyn std::fmt::Display| NotStarted::new("can't join the scheduler", error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("rdask-blocking")
        .build()
        .map_err(|error| NotStarted::new("no runtime", &error))?;
    let file = SchedulerFile::from_json(&handover.scheduler_file).map_err(|e| failed(&e))?;
    runtime.block_on(async {
        // SIGTERM is for the nanny, which says what to do; tasks may ask for it. A handler, unlike a
        // mask, is not inherited by what the program starts.
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
        let noting = tokio::spawn(async move {
            while terminate.recv().await.is_some() {
                context::note_end();
            }
        });
        let mut config = joining(&file).map_err(|error| failed(&error))?;
        if let Some(host) = handover.host.as_deref().and_then(|host| host.parse().ok()) {
            config.bind = host;
        } else if let Some(interface) = &handover.interface {
            config.bind = address_of(interface).map_err(|error| failed(&error))?;
        }
        let endpoint = Endpoint::bind(config).await.map_err(|error| failed(&error))?;
        let connected =
            dial_as(&endpoint, &file, handover.process).await.map_err(|error| NotStarted {
                code: if error.is_version() { EXIT_VERSION } else { EXIT_NOT_STARTED },
                message: chain(&error),
            })?;
        let scheduler = scheduler_target(&file).map_err(|error| failed(&error))?;
        let (to_scheduler, from_scheduler) = connected.into_channels();
        let number = Arc::new(AtomicU32::new(handover.process.0));
        let client = nested_client(&file, &number);
        let (returned, returns) = mpsc::channel(1);
        let returning = Returning {
            endpoint: endpoint.clone(),
            file,
            number,
            client: client.clone(),
            returned,
        };
        let returning = tokio::spawn(returning.serve(numbers));
        let setup = ProcessSetup {
            process: handover.process,
            // The scheduler grants them.
            slots: 0,
            home: Home { worker: handover.worker_name, node: handover.node, client },
            to_scheduler,
            from_scheduler,
            data: DataPlane::Network(Routes::new(endpoint.clone(), scheduler)),
            board: open_board(handover.board.as_deref()),
        };
        let reason = process::run(setup, returns).await;
        returning.abort();
        tracing::debug!(reason, "the process ends");
        endpoint.close().await;
        noting.abort();
        Ok(())
    })
}

async fn dial_as(
    endpoint: &Endpoint,
    file: &SchedulerFile,
    process: ProcessId,
) -> Result<Connected<FromProcess, ToProcess>, ConnectError> {
    let (pid, contact) = (std::process::id(), contact_of(endpoint));
    let role = Role::Process { process, pid, contact };
    // Its nanny ends it when it is time.
    dial(endpoint, file, role, Persistence::unlimited()).await
}

/// The client for tasks of this process, whatever its number is.
fn nested_client(file: &SchedulerFile, number: &Arc<AtomicU32>) -> NestedClient {
    let (file, number) = (file.clone(), Arc::clone(number));
    NestedClient::new(move || {
        let process = ProcessId(number.load(Ordering::Relaxed));
        let session = park_on(connect_file(file.clone(), Some(process), None))?;
        Ok(Client::from_session(session))
    })
}

/// How long to wait before dialling again under a new number.
const RETURN_PAUSE: Duration = Duration::from_millis(200);

/// What it takes to join again under a new number.
struct Returning {
    endpoint: Endpoint,
    file: SchedulerFile,
    number: Arc<AtomicU32>,
    client: NestedClient,
    returned: mpsc::Sender<Return>,
}

impl Returning {
    /// Joins under each number that the nanny names, until it names the next one.
    async fn serve(self, mut numbers: Numbers) {
        let mut next = numbers.recv().await;
        while let Some(process) = next {
            next = tokio::select! {
                newer = numbers.recv() => newer,
                () = self.join(process) => numbers.recv().await,
            };
        }
    }

    async fn join(&self, process: ProcessId) {
        let connected = loop {
            match dial_as(&self.endpoint, &self.file, process).await {
                Ok(connected) => break connected,
                // It took too long; the nanny hears of that, too.
                Err(error) if error.is_refusal() => {
                    return tracing::warn!(%process, "can't join again: {}", chain(&error));
                }
                Err(_) => tokio::time::sleep(RETURN_PAUSE).await,
            }
        };
        self.number.store(process.0, Ordering::Relaxed);
        self.client.forget();
        let (to_scheduler, from_scheduler) = connected.into_channels();
        // The process may be about to end.
        drop(self.returned.send(Return { process, to_scheduler, from_scheduler }).await);
    }
}

/// Where the nanny will look who ended this process. Without it nobody can be blamed, which is no
/// reason not to work.
fn open_board(path: Option<&str>) -> Board {
    let opened = path.map(Board::open).transpose();
    opened.map(Option::unwrap_or_default).unwrap_or_else(|error| {
        tracing::warn!(%error, "the nanny can't see what runs: tasks that end it are run again");
        Board::default()
    })
}
