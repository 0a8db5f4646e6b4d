//! What this program is besides itself: a scheduler, a nanny, or a second client program.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rdask::nanny::{NannyOptions, WorkerInfo};
use rdask::scheduler::{Policy, SchedulerOptions, Server};
use tracing_subscriber::EnvFilter;

/// The variable that says what to be: words separated by commas.
pub(crate) const ROLE: &str = "RDASK_TESTBED_ROLE";

/// A nanny without scheduler ends well after any test.
const DEATH_TIMEOUT: Duration = Duration::from_secs(60);

/// Plays the role in the environment, if there is one, and never returns then. Second in `main`,
/// after [`rdask::init`].
///
/// As a client, it calls `scene` with a name, the path of the scheduler file, and arguments: those
/// of [`Cluster::program`](crate::cluster::Cluster::program).
///
/// # Panics
/// If the role can't be played: what is measured or tested can't go on without.
pub fn play(scene: impl FnOnce(&str, &str, &[&str])) {
    let Ok(role) = std::env::var(ROLE) else { return };
    tracing_subscriber::fmt()
        .with_env_filter(log_filter())
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    let words: Vec<&str> = role.split(',').collect();
    match words[..] {
        ["scheduler", file, seed, local_sockets] => {
            let mut options = SchedulerOptions::new(file);
            // At random, if there is a seed.
            let random = seed.parse().map(|seed| Policy::Random { seed });
            options.policy = random.unwrap_or_default();
            options.host = Some(std::net::Ipv4Addr::LOCALHOST.into());
            options.local_sockets = local_sockets == "true";
            options.handle_signals = true;
            Server::start(options).expect("the scheduler starts").wait();
        }
        ["worker", file, pool, ref workers @ ..] => {
            let workers = workers.iter().map(|worker| worker_of(worker)).collect();
            if let Err(error) = rdask::nanny::run(nanny_options(file.into(), pool, workers)) {
                give_up(&error);
            }
        }
        ["client", name, file, ref arguments @ ..] => scene(name, file, arguments),
        _ => panic!("{ROLE} says nothing that makes sense: {role:?}"),
    }
    std::process::exit(0);
}

/// As the `rdask` command has it.
fn log_filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"))
}

#[expect(clippy::print_stderr, reason = "what a nanny says last")]
fn give_up(error: &rdask::nanny::NannyError) -> ! {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    eprintln!("error: {text}");
    std::process::exit(if error.is_version() { 5 } else { 3 })
}

/// `name:slots`, and `:resource=amount` as often as there are resources; `memory_mib` is its limit.
fn worker_of(words: &str) -> WorkerInfo {
    let mut words = words.split(':');
    let name = words.next().unwrap().to_owned();
    let slots = words.next().unwrap().parse().unwrap();
    let resources = words.map(|resource| {
        let (name, amount) = resource.split_once('=').unwrap();
        (name.to_owned(), amount.parse::<u64>().unwrap() * 10_000)
    });
    let mut resources: Vec<(String, u64)> = resources.collect();
    let limit = resources.iter().position(|(name, _)| name == "memory_mib");
    let limit = limit.map_or(0, |nth| resources.remove(nth).1 / 10_000);
    WorkerInfo { name, slots, memory_limit: limit << 20, resources }
}

fn nanny_options(file: PathBuf, pool: &str, workers: Vec<WorkerInfo>) -> NannyOptions {
    NannyOptions {
        scheduler_file: file,
        file_mode: rdask::connection::FileMode::Private,
        workers,
        pool: pool.to_owned(),
        node: "here".to_owned(),
        host: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        interface: None,
        ports: 0..=0,
        local_directory: None,
        death_timeout: DEATH_TIMEOUT,
        lifetime: None,
        pid_file: None,
        handle_signals: true,
    }
}
