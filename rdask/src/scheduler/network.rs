//! What a scheduler holds open in the world: its endpoint, its files, its signals.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdask_core::id::ProgramHash;
use rdask_core::message::DataRequest;
use rdask_net::{
    Authority, DataStream, Endpoint, EndpointConfig, Incoming, PeerName, SchedulerFile, address_of,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::peers::Hall;
use super::programs::Programs;
use super::relays::Relays;
use super::sessions::Sessions;
use super::shell::{CoreEnd, Input, Stalls};
use super::turns::Core;
use super::{FIRST_EPOCH, SchedulerOptions, StartError, claim, peers};
use crate::program::exchange;
use crate::slurm;

/// How long the last words to peers may take.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(4);

/// What a scheduler holds open in the world.
pub(super) struct Opened {
    network: Option<Network>,
    pid_file: Option<PathBuf>,
}

pub(super) struct Network {
    endpoint: Endpoint,
    authority: Arc<Authority>,
    file: SchedulerFile,
    path: PathBuf,
    programs: Programs,
}

impl Opened {
    pub(super) async fn open(options: &SchedulerOptions) -> Result<Self, StartError> {
        let network = match &options.scheduler_file {
            Some(path) => Some(Network::open(path, options).await?),
            None => None,
        };
        if let Some(path) = &options.pid_file {
            let written = std::fs::write(path, format!("{}\n", std::process::id()));
            written.map_err(|source| StartError::PidFile { path: path.clone(), source })?;
        }
        Ok(Self { network, pid_file: options.pid_file.clone() })
    }

    /// What others need to join, unless there is no network.
    pub(super) fn file(&self) -> Option<SchedulerFile> {
        self.network.as_ref().map(|network| network.file.clone())
    }

    /// Serves whoever comes until the core ends.
    pub(super) async fn serve(
        self,
        core: Core,
        mut core_ended: oneshot::Receiver<CoreEnd>,
        to_forget: mpsc::UnboundedReceiver<ProgramHash>,
        handle_signals: bool,
    ) -> Option<CoreEnd> {
        let mut tasks = JoinSet::new();
        if handle_signals {
            tasks.spawn(stop_on_signal(core.clone()));
        }
        let end = match &self.network {
            None => (&mut core_ended).await.ok(),
            Some(network) => network.serve(core, core_ended, to_forget).await,
        };
        if let Some(network) = self.network {
            network.close();
        }
        if let Some(path) = self.pid_file {
            remove(&path);
        }
        end
    }
}

impl Network {
    async fn open(path: &Path, options: &SchedulerOptions) -> Result<Self, StartError> {
        let run_id = random_run_id().map_err(StartError::Threads)?;
        let authority = Arc::new(Authority::new(&run_id)?);
        let identity = authority.issue(&PeerName::scheduler(&run_id)?)?;
        let mut config = EndpointConfig::new(identity)
            .with_transport(options.transport)
            .with_local_sockets(options.local_sockets);
        config.ports = options.port..=options.port;
        if let Some(host) = options.host {
            config.bind = host;
        } else if let Some(interface) = &options.interface {
            config.bind = address_of(interface)?;
        }
        let endpoint = Endpoint::bind(config).await?;
        let join = authority.issue(&PeerName::join(&run_id)?)?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let file = SchedulerFile {
            version: SchedulerFile::VERSION,
            run_id,
            epoch: FIRST_EPOCH,
            addresses: endpoint.addresses(),
            tls_addresses: endpoint.tls_addresses(),
            ca_certificate: join.ca_pem(),
            join_certificate: join.certificate_pem(),
            join_key: join.key_pem(),
            pid: std::process::id(),
            host: slurm::node_name(),
            started: started.as_secs(),
            slurm_job_id: slurm::job_id(),
            local_sockets: options.local_sockets,
        };
        let programs = Programs::open(&file.run_id)?;
        claim::claim(path, &file, options.file_mode).await?;
        let addresses: Vec<_> = file.addresses.iter().map(ToString::to_string).collect();
        tracing::info!(run = file.run_id, file = %path.display(), "scheduler listens at {}",
            addresses.join(", "));
        Ok(Self { endpoint, authority, file, path: path.to_owned(), programs })
    }

    async fn serve(
        &self,
        core: Core,
        mut core_ended: oneshot::Receiver<CoreEnd>,
        mut to_forget: mpsc::UnboundedReceiver<ProgramHash>,
    ) -> Option<CoreEnd> {
        let hall = Arc::new(Hall {
            authority: self.authority.clone(),
            epoch: self.file.epoch,
            core: core.clone(),
            sessions: Sessions::default(),
            relays: Relays::new(self.endpoint.clone()),
        });
        let mut visits = JoinSet::new();
        visits.spawn(note_stalls(core.clone()));
        let end = loop {
            tokio::select! {
                incoming = self.endpoint.accept() => match incoming {
                    Some(Incoming::Control(link)) => {
                        visits.spawn(peers::serve(link, hall.clone()));
                    }
                    Some(Incoming::Data { stream, .. }) => {
                        let (programs, relays) = (self.programs.clone(), hall.relays.clone());
                        visits.spawn(serve_data(stream, programs, relays, core.clone()));
                    }
                    None => break (&mut core_ended).await.ok(),
                },
                end = &mut core_ended => break end.ok(),
                Some(hash) = to_forget.recv() => self.programs.forget(hash),
                Some(ended) = visits.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the task of a peer panicked");
                    }
                }
            }
        };
        // Last words are in the queues; each connection closes itself once they are out.
        let goodbye = async { while visits.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE_TIME_MAX, goodbye).await.is_err() {
            tracing::warn!("some peers may not know why the scheduler ended");
        }
        visits.shutdown().await;
        self.endpoint.close().await;
        end
    }

    fn close(self) {
        match SchedulerFile::remove_own(&self.path, &self.file.run_id) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(path = %self.path.display(), "the scheduler file is another's now");
            }
            Err(error) => tracing::warn!(%error, "the scheduler file stays"),
        }
    }
}

/// Serves one stream, whatever it is for.
async fn serve_data(mut stream: DataStream, programs: Programs, relays: Relays, core: Core) {
    match exchange::read_request(&mut stream).await {
        Ok(DataRequest::Relay { process }) => relays.serve(stream, process, core).await,
        Ok(request) => programs.serve(stream, request, core).await,
        Err(error) => {
            tracing::warn!(peer = %stream.peer(), %error, "a data stream brought no request");
        }
    }
}

/// Tells the core when this thread has heard nobody for a while, since it stood still itself.
async fn note_stalls(core: Core) {
    let mut stalls = Stalls::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(Stalls::LOOK_EVERY) => {}
            () = core.closed() => return,
        }
        if stalls.look() {
            core.tell(Input::Stalled).await;
        }
    }
}

/// Ends the scheduler on SIGTERM and SIGINT. SIGHUP, as at the end of a login, is survived.
async fn stop_on_signal(core: Core) {
    let signals = (SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup());
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(signals.0), signal(signals.1), signal(signals.2))
    else {
        return tracing::warn!("signals end the scheduler without a goodbye");
    };
    let name = loop {
        tokio::select! {
            _ = term.recv() => break "SIGTERM",
            _ = int.recv() => break "SIGINT",
            _ = hup.recv() => tracing::info!("ignored SIGHUP; end the scheduler with SIGTERM"),
        }
    };
    tracing::info!("got {name}: telling workers and clients");
    core.tell(Input::Stop(format!("the scheduler got {name}"))).await;
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "a file of the scheduler stays");
    }
}

/// Sixteen hexadecimal digits of the system's randomness: no two runs have the same.
fn random_run_id() -> io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}
