//! Whom a certificate speaks for: a role, a number and a run, written as one DNS name.
//!
//! Names, not addresses, are what a dialer pins: a node may have many interfaces, and a port that
//! another run took over must fail by name.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What every name of the cluster ends in.
const SUFFIX: &str = "rdask";

/// The longest label that DNS allows.
const RUN_BYTES_MAX: usize = 63;

/// What a peer is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerRole {
    /// The one scheduler of a run.
    Scheduler,
    /// Whoever holds the scheduler file: may ask the scheduler for a name of its own, nothing else.
    Join,
    /// The process that looks after workers on a node.
    Nanny,
    /// One program's process inside a worker.
    Process,
    /// A client program.
    Client,
}

impl PeerRole {
    /// The letter before the number, for the roles that are numbered.
    fn letter(self) -> Option<char> {
        match self {
            Self::Scheduler | Self::Join => None,
            Self::Nanny => Some('n'),
            Self::Process => Some('p'),
            Self::Client => Some('c'),
        }
    }
}

/// The name in a peer's certificate, such as `p7.k3x9.rdask`.
///
/// ```
/// use rdask_net::{PeerName, PeerRole};
///
/// let name = PeerName::new(PeerRole::Process, 7, "k3x9")?;
/// assert_eq!(name.to_string(), "p7.k3x9.rdask");
/// assert_eq!("p7.k3x9.rdask".parse::<PeerName>()?, name);
/// # Ok::<(), rdask_net::PeerNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName {
    role: PeerRole,
    id: u64,
    run: String,
}

/// A text is not the name of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerNameError {
    /// The run id can't be part of a DNS name.
    #[error(
        "run id {run:?} is not usable in a certificate: take 1 to 63 characters of a-z, 0-9 and \
         inner '-'"
    )]
    Run {
        /// The run id as given.
        run: String,
    },
    /// The text has another form.
    #[error("{name:?} is not a peer's name: expected a form like \"p7.<run>.rdask\"")]
    Form {
        /// The text as given, at most its first 100 characters.
        name: String,
    },
}

impl PeerName {
    /// A name of the given role in the given run. Schedulers and joiners are not numbered; their
    /// `id` is taken as 0.
    ///
    /// # Errors
    ///
    /// [`PeerNameError::Run`] if the run id is not a DNS label.
    pub fn new(role: PeerRole, id: u64, run: &str) -> Result<Self, PeerNameError> {
        if !is_label(run) {
            return Err(PeerNameError::Run { run: first_characters(run) });
        }
        let id = if role.letter().is_some() { id } else { 0 };
        Ok(Self { role, id, run: run.to_owned() })
    }

    /// The scheduler's name in a run.
    ///
    /// # Errors
    ///
    /// [`PeerNameError::Run`] if the run id is not a DNS label.
    pub fn scheduler(run: &str) -> Result<Self, PeerNameError> {
        Self::new(PeerRole::Scheduler, 0, run)
    }

    /// The name in a run's join certificate.
    ///
    /// # Errors
    ///
    /// [`PeerNameError::Run`] if the run id is not a DNS label.
    pub fn join(run: &str) -> Result<Self, PeerNameError> {
        Self::new(PeerRole::Join, 0, run)
    }

    /// What the peer is.
    pub fn role(&self) -> PeerRole {
        self.role
    }

    /// The peer's number within its role; 0 for the scheduler and for joiners.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The run that the peer belongs to.
    pub fn run(&self) -> &str {
        &self.run
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            PeerRole::Scheduler => f.write_str("scheduler")?,
            PeerRole::Join => f.write_str("join")?,
            PeerRole::Nanny => write!(f, "n{}", self.id)?,
            PeerRole::Process => write!(f, "p{}", self.id)?,
            PeerRole::Client => write!(f, "c{}", self.id)?,
        }
        write!(f, ".{}.{SUFFIX}", self.run)
    }
}

impl FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<Self, PeerNameError> {
        let form = || PeerNameError::Form { name: first_characters(text) };
        let mut labels = text.split('.');
        let (Some(who), Some(run), Some(SUFFIX), None) =
            (labels.next(), labels.next(), labels.next(), labels.next())
        else {
            return Err(form());
        };
        match who {
            "scheduler" => return Self::scheduler(run),
            "join" => return Self::join(run),
            _ => {}
        }
        for role in [PeerRole::Nanny, PeerRole::Process, PeerRole::Client] {
            let Some(digits) = role.letter().and_then(|letter| who.strip_prefix(letter)) else {
                continue;
            };
            let id = digits.parse::<u64>().map_err(|_| form())?;
            // One spelling per name: no leading zeros, no plus sign.
            if id.to_string() != digits {
                return Err(form());
            }
            return Self::new(role, id, run);
        }
        Err(form())
    }
}

fn is_label(run: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !run.is_empty()
        && run.len() <= RUN_BYTES_MAX
        && run.bytes().all(inner)
        && !run.starts_with('-')
        && !run.ends_with('-')
}

fn first_characters(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_text() {
        for text in
            ["scheduler.r1.rdask", "join.r1.rdask", "n0.a-b.rdask", "p18446744073709551615.x.rdask"]
        {
            assert_eq!(text.parse::<PeerName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "rdask",
            "p7.rdask",
            "p7.x.y.rdask",
            "p07.x.rdask",
            "p+7.x.rdask",
            "p.x.rdask",
            "p-1.x.rdask",
            "q1.x.rdask",
            "p1.X.rdask",
            "p1.-x.rdask",
            "p1..rdask",
            "p1.x.other",
            "p18446744073709551616.x.rdask",
            "schedulers.x.rdask",
            "p1.x.rdask.",
        ] {
            assert!(text.parse::<PeerName>().is_err(), "{text}");
        }
    }
}
