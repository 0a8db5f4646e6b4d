//! The wires of rdask: how scheduler, nannies, processes and clients find, trust and talk to each
//! other. QUIC first, TLS over TCP where UDP doesn't get through.
//!
//! This crate moves frames and bytes and never knows what they mean. What it answers for:
//!
//! - **Who.** The scheduler is a small [`Authority`]; each peer has an [`Identity`] with a
//!   [`PeerName`]. Nobody without one of the run's certificates comes out of
//!   [`Endpoint::accept`], and a dialer talks to exactly the name it dialled.
//! - **Where.** The [`SchedulerFile`] holds what a joiner needs; [`address_of`] and its kin choose
//!   interfaces.
//! - **Control.** A [`Link`] is one long stream of frames with the scheduler.
//! - **Data.** A [`DataStream`] is raw bytes for one get or put, on a connection of its own kind:
//!   bulk never shares a connection with control. Within a host it goes over a Unix socket beside
//!   that connection.
//!
//! Two endpoints in one process, as tests and local clusters have them:
//!
//! ```
//! use rdask_net::{Authority, Endpoint, EndpointConfig, Incoming, PeerName, PeerRole, push_frame};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = Authority::new("r1")?;
//! let scheduler = authority.issue(&PeerName::scheduler("r1")?)?;
//! let scheduler = Endpoint::bind(EndpointConfig::new(scheduler).on_loopback()).await?;
//! let client = authority.issue(&PeerName::new(PeerRole::Client, 1, "r1")?)?;
//! let client = Endpoint::bind(EndpointConfig::dial_only(client).on_loopback()).await?;
//!
//! let (mut sender, _receiver) = client.dial_control(&scheduler.target()).await?.split();
//! let mut frames = Vec::new();
//! push_frame(&mut frames, |body| body.extend_from_slice(b"hello"))?;
//! sender.send(&frames).await?;
//!
//! let Some(Incoming::Control(link)) = scheduler.accept().await else { panic!("no link") };
//! assert_eq!(link.peer().to_string(), "c1.r1.rdask");
//! let (_sender, mut receiver) = link.split();
//! assert_eq!(receiver.recv().await?.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(example())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accept;
mod authority;
mod bind;
mod data_stream;
mod dial;
mod endpoint;
mod frame;
mod identity;
mod interface;
mod link;
mod local;
mod local_way;
mod neighbour;
mod peer_name;
mod pool;
mod scheduler_file;
mod socket;
mod tls_wire;
mod transport;
mod unreachable;

pub use accept::Incoming;
pub use authority::{Authority, CertificateError, KeyRequest};
pub use data_stream::{Carrier, DataStream};
pub use dial::{Attempt, AttemptError, Attempts, DialError, Target};
pub use endpoint::{BindError, Endpoint, EndpointConfig};
pub use frame::{FRAME_BYTES_MAX, FrameDecoder, FrameError, FrameTooLong, push_frame};
pub use identity::Identity;
pub use interface::{InterfaceError, address_of, advertised_addresses, mtu_of, route_to};
pub use link::{FrameReceiver, FrameSender, Link, LinkError};
pub use neighbour::Neighbour;
pub use peer_name::{PeerName, PeerNameError, PeerRole};
pub use scheduler_file::{FileMode, Garbage, ParseError, ReadError, SchedulerFile, WriteError};
pub use transport::{SILENCE_MAX, Transport};
