//! A run for one test: its authority, endpoints of any role, and what tests do with links.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use rdask_net::{
    Authority, DataStream, Endpoint, EndpointConfig, FrameReceiver, FrameSender, Identity,
    Incoming, Link, LinkError, PeerName, PeerRole, Transport, push_frame,
};

/// Backstop of every wait: what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on a current-thread runtime, within the backstop.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, test).await });
    ended.expect("the test hangs");
}

/// Waits for what must come, within the backstop.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen"),
    }
}

/// One run over one transport.
pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    pub(crate) transport: Transport,
}

impl Cluster {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { authority: Authority::new("r1").unwrap(), transport }
    }

    pub(crate) fn name(&self, role: PeerRole, id: u64) -> PeerName {
        PeerName::new(role, id, "r1").unwrap()
    }

    pub(crate) fn identity(&self, role: PeerRole, id: u64) -> Identity {
        self.authority.issue(&self.name(role, id)).unwrap()
    }

    pub(crate) async fn endpoint(&self, role: PeerRole, id: u64) -> Endpoint {
        endpoint(self.identity(role, id), self.transport).await
    }

    pub(crate) async fn scheduler(&self) -> Endpoint {
        self.endpoint(PeerRole::Scheduler, 0).await
    }

    /// The client's and the scheduler's end of a fresh link.
    pub(crate) async fn linked(&self, client: &Endpoint, scheduler: &Endpoint) -> (Ends, Ends) {
        let dialled = soon("a dial", client.dial_control(&scheduler.target())).await.unwrap();
        let mut near = Ends::of(dialled);
        near.send(b"hello").await;
        let mut far = Ends::of(accept_control(scheduler).await);
        assert_eq!(far.receive().await.unwrap().unwrap(), "hello");
        (near, far)
    }
}

pub(crate) async fn endpoint(identity: Identity, transport: Transport) -> Endpoint {
    let config = EndpointConfig::new(identity).on_loopback().with_transport(transport);
    let config = config.with_local_sockets(false);
    Endpoint::bind(config).await.unwrap()
}

pub(crate) async fn accept_control(endpoint: &Endpoint) -> Link {
    match soon("a control link", endpoint.accept()).await {
        Some(Incoming::Control(link)) => link,
        other => panic!("not a control link: {other:?}"),
    }
}

pub(crate) async fn accept_data(endpoint: &Endpoint) -> DataStream {
    match soon("a data stream", endpoint.accept()).await {
        Some(Incoming::Data { stream, .. }) => stream,
        other => panic!("not a data stream: {other:?}"),
    }
}

/// Both halves of one end of a link.
pub(crate) struct Ends {
    pub(crate) sender: FrameSender,
    pub(crate) receiver: FrameReceiver,
}

impl Ends {
    pub(crate) fn of(link: Link) -> Self {
        let (sender, receiver) = link.split();
        Self { sender, receiver }
    }

    pub(crate) async fn send(&mut self, body: &[u8]) {
        let mut frames = Vec::new();
        push_frame(&mut frames, |out| out.extend_from_slice(body)).unwrap();
        soon("a send", self.sender.send(&frames)).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        soon("a frame", self.receiver.recv()).await
    }
}

/// Makes one test per transport of each `async fn(Transport)`.
macro_rules! on_both_transports {
    ($($test:ident),+ $(,)?) => {
        mod quic {
            $(#[test] fn $test() { crate::cluster::run(super::$test(rdask_net::Transport::Quic)); })+
        }
        mod tls {
            $(#[test] fn $test() { crate::cluster::run(super::$test(rdask_net::Transport::Tls)); })+
        }
    };
}
pub(crate) use on_both_transports;
