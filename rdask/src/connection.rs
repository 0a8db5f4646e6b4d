//! Typed control connections: the first frames of their links, and what carries messages after
//! them. A connection is a session: it outlives its links.

mod held;
pub mod observer;
mod queue;
mod resume;
pub(crate) mod session;
#[cfg(test)]
mod tests;
mod unacknowledged;
mod weight;

use std::time::Duration;

use rdask_core::hello::{
    Hello, HelloError, Resumption, Role, Welcome, decode_hello, decode_welcome, encode_hello,
    encode_refusal, encode_resumption, encode_welcome,
};
use rdask_core::message::Contact;
use rdask_net::{
    CertificateError, DialError, Endpoint, EndpointConfig, FrameSender, KeyRequest, Link,
    LinkError, PeerName, PeerNameError, SchedulerFile, Target, push_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::mpsc;

pub use rdask_core::message::{ClusterStatus, LEAVING_MAX, LeavingWorker, WorkerStatus};
pub use rdask_net::{FileMode, Transport};

pub use queue::{ConnectionEnd, Drained, Ended, Inbox, Outbox, Queue, outbox};
pub use resume::Persistence;
use resume::Return;
use session::{Halves, Session};
pub use weight::Weigh;

/// From the first frame to the scheduler's answer. The scheduler answers in milliseconds; one that
/// is suspended or swaps may take longer.
const WELCOME_TIME_MAX: Duration = Duration::from_secs(10);

/// Messages that wait in a plain channel to or from a connection.
const CHANNEL_MAX: usize = 1024;

/// A connection that the scheduler has taken.
#[derive(Debug)]
pub struct Connected<Out, In> {
    /// What the scheduler calls us.
    pub welcome: Welcome,
    /// Messages to the scheduler.
    pub send: Outbox<Out>,
    /// Messages from the scheduler, then how the connection ended.
    pub receive: Inbox<In>,
}

impl<Out: Weigh + Send + 'static, In: Weigh + Send + 'static> Connected<Out, In> {
    /// The two directions as plain channels, the incoming one closed when the connection ends.
    /// Must be called in the runtime that carries the messages; dropping the outgoing channel ends
    /// the connection.
    #[must_use]
    pub fn into_channels(self) -> (mpsc::Sender<Out>, mpsc::Receiver<In>) {
        let Self { send, mut receive, .. } = self;
        let (out, mut outgoing) = mpsc::channel(CHANNEL_MAX);
        let (incoming, into) = mpsc::channel(CHANNEL_MAX);
        // Both end with the connection or with the channel's other end.
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                if send.send(message).is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let received = tokio::select! {
                    received = receive.recv() => received,
                    () = incoming.closed() => return,
                };
                match received {
                    Ok(message) => {
                        if incoming.send(message).await.is_err() {
                            return;
                        }
                    }
                    Err(end) => return tracing::debug!(%end, "the connection has ended"),
                }
            }
        });
        (out, into)
    }
}

/// The scheduler could not be joined.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answers at the addresses in the scheduler file.
    #[error(
        "no scheduler answers at {addresses} (run {run}, started on {host}): its file may be of a \
         scheduler that has ended, or UDP is blocked between here and there"
    )]
    NoAnswer {
        /// The addresses that were tried.
        addresses: String,
        /// The run in the file.
        run: String,
        /// The node in the file.
        host: String,
        /// How each address failed.
        #[source]
        source: DialError,
    },
    /// The connection ended before the scheduler's answer.
    #[error("the scheduler let us connect and then ended the connection")]
    Broken(#[source] LinkError),
    /// The scheduler answered the handshake and nothing more.
    #[error("the scheduler accepted the connection and has not answered for {} s", .0.as_secs())]
    Silent(Duration),
    /// The scheduler speaks another version.
    #[error(
        "the scheduler speaks protocol version {theirs}, this program (rdask {}) speaks {ours}: \
         build both with the same rdask, then start the scheduler and its workers again",
        crate::handover::RDASK_VERSION
    )]
    Version {
        /// The scheduler's.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// The scheduler said no.
    #[error("the scheduler refused: {0}")]
    Refused(String),
    /// What answered is no scheduler of ours.
    #[error("what answers there is no rdask scheduler")]
    NotAScheduler(#[source] HelloError),
    /// The certificates in the file, or the one that the scheduler gave, are not usable.
    #[error("the scheduler's certificates can't be used; is the scheduler file intact?")]
    Certificate(#[from] CertificateError),
    /// The run in the file has no usable name.
    #[error("the scheduler file names no usable run")]
    Run(#[from] PeerNameError),
}

impl ConnectError {
    /// Whether the scheduler answered and said no, so that trying again won't help.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Certificate(_) | Self::Run(_) => true,
            Self::Broken(error) => matches!(error, LinkError::Refused { .. }),
            _ => false,
        }
    }

    /// Whether versions differ.
    #[must_use]
    pub fn is_version(&self) -> bool {
        matches!(self, Self::Version { .. })
    }
}

/// How to dial the scheduler of a file.
///
/// # Errors
/// If the file names no usable run.
pub fn scheduler_target(file: &SchedulerFile) -> Result<Target, PeerNameError> {
    Ok(Target {
        quic: file.addresses.clone(),
        tls: file.tls_addresses.clone(),
        name: PeerName::scheduler(&file.run_id)?,
    })
}

/// How an endpoint that joins the scheduler of a file begins: with the file's join identity.
///
/// # Errors
/// If certificates and key in the file are broken.
pub fn joining(file: &SchedulerFile) -> Result<EndpointConfig, CertificateError> {
    Ok(EndpointConfig::new(file.join_identity()?).with_local_sockets(file.local_sockets))
}

/// Where an endpoint can be reached, for a [`Role`].
#[must_use]
pub fn contact_of(endpoint: &Endpoint) -> Contact {
    Contact { quic: endpoint.addresses(), tls: endpoint.tls_addresses() }
}

/// Joins the scheduler of a file in a role. Once it has answered, the endpoint has an identity of
/// its own, and messages are carried by tasks of this runtime until both ends are dropped. When the
/// link breaks it is dialled again, and nothing is lost, as far as `persistence` goes.
///
/// # Errors
/// See [`ConnectError`].
pub async fn dial<Out, In>(
    endpoint: &Endpoint,
    file: &SchedulerFile,
    role: Role,
    persistence: Persistence,
) -> Result<Connected<Out, In>, ConnectError>
where
    Out: Serialize + Weigh + Send + 'static,
    In: DeserializeOwned + Weigh + Send + 'static,
{
    let target = scheduler_target(file)?;
    let link = endpoint.dial_control(&target).await.map_err(|source| no_answer(file, source))?;
    let request = KeyRequest::new()?;
    let hello = Hello {
        run_id: file.run_id.clone(),
        certificate_request: request.csr_der().to_vec(),
        role,
    };
    let is_quic = link.is_quic();
    let (mut sender, mut receiver) = link.split();
    sender.send(&frame_of(&encode_hello(&hello))).await.map_err(ConnectError::Broken)?;
    let answer = tokio::time::timeout(WELCOME_TIME_MAX, receiver.recv()).await;
    let answer = answer.map_err(|_| ConnectError::Silent(WELCOME_TIME_MAX))?;
    let answer = answer.map_err(ConnectError::Broken)?.unwrap_or_default();
    let welcome = decode_welcome(&answer).map_err(|error| match error {
        HelloError::Version { theirs, ours } => ConnectError::Version { theirs, ours },
        HelloError::Refused(reason) => ConnectError::Refused(reason),
        error @ (HelloError::NotRdask | HelloError::Garbled) => ConnectError::NotAScheduler(error),
    })?;
    let ca = endpoint.identity().ca_der().to_vec();
    endpoint.set_identity(request.into_identity(ca, welcome.certificate.clone())?);
    let (send, queue) = outbox();
    let (taken, receive) = Inbox::new();
    let back = Return {
        endpoint: endpoint.clone(),
        file: file.clone(),
        who: welcome.you.peer(),
        epoch: welcome.epoch,
        persistence,
    };
    let link = Halves { sender, receiver, is_quic };
    // Ends with the connection, and the connection when both queues are dropped.
    tokio::spawn(resume::carry(Session::new(queue), link, back, taken));
    Ok(Connected { welcome, send, receive })
}

fn no_answer(file: &SchedulerFile, source: DialError) -> ConnectError {
    let mut addresses = file.addresses.iter().chain(&file.tls_addresses);
    let addresses: Vec<_> = addresses.by_ref().map(ToString::to_string).collect();
    ConnectError::NoAnswer {
        addresses: addresses.join(", "),
        run: file.run_id.clone(),
        host: file.host.clone(),
        source,
    }
}

/// Someone who dialled the scheduler and said hello.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) hello: Hello,
    pub(crate) link: Halves,
}

/// The first frame of a link was no hello of this run.
#[derive(Debug, Error)]
pub(crate) enum GreetError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("the greeting is for run {0:?}")]
    OtherRun(String),
    #[error("the link ended without a greeting")]
    Nothing,
}

/// Reads the first frame of a link. Whoever sent another one is told what is wrong with it.
pub(crate) async fn greet(link: Link, run_id: &str) -> Result<Greeted, GreetError> {
    let is_quic = link.is_quic();
    let (sender, mut receiver) = link.split();
    // The endpoint hands out links whose first frame is there.
    let frame = receiver.recv().await?.ok_or(GreetError::Nothing)?;
    let error = match decode_hello(&frame) {
        Ok(hello) if hello.run_id == run_id => {
            return Ok(Greeted { hello, link: Halves { sender, receiver, is_quic } });
        }
        Ok(hello) => GreetError::OtherRun(hello.run_id),
        Err(error) => GreetError::Hello(error),
    };
    let reason = match &error {
        GreetError::OtherRun(run) => {
            format!("this is run {run_id}, not {run}: read the scheduler file again")
        }
        error => error.to_string(),
    };
    refuse(sender, &reason).await;
    Err(error)
}

/// Says no and closes.
pub(crate) async fn refuse(mut sender: FrameSender, reason: &str) {
    if sender.send(&frame_of(&encode_refusal(reason))).await.is_ok() {
        sender.close(reason).await;
    }
}

/// Says yes. What comes after it is up to the caller's pumps.
pub(crate) async fn welcome(sender: &mut FrameSender, welcome: &Welcome) -> Result<(), LinkError> {
    sender.send(&frame_of(&encode_welcome(welcome))).await
}

/// Answers somebody who comes back.
pub(crate) async fn answer_resumption(
    sender: &mut FrameSender,
    answer: &Resumption,
) -> Result<(), LinkError> {
    sender.send(&frame_of(&encode_resumption(answer))).await
}

fn frame_of(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 4);
    push_frame(&mut frame, |buffer| buffer.extend_from_slice(body))
        .expect("a greeting is far shorter than a frame may be");
    frame
}
