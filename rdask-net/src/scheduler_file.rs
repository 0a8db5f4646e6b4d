//! The scheduler file: all that a joiner needs to find the scheduler and be let in, in one JSON
//! file that only its owner can read.
//!
//! It is written beside its place and renamed, so that readers see an old file, a new one or none.
//! It is read with suspicion: someone else's file, or one that others could read, is refused,
//! because the join key in it opens the cluster to whoever has it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::authority::CertificateError;
use crate::identity::Identity;

/// The largest file that is read, in bytes. Ours have about 3 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The permission bits that let others than the owner in.
const OTHERS: u32 = 0o077;

/// What the scheduler file says. The JSON has the fields in this order, the version first and for
/// ever under that name: whatever else changes, any rdask can tell that it doesn't understand.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerFile {
    /// The protocol version of whoever wrote it.
    pub version: u16,
    /// The run, as certificates name it.
    pub run_id: String,
    /// The scheduler's start within the run, from 1.
    pub epoch: u64,
    /// Where the scheduler listens for QUIC (UDP), best first.
    pub addresses: Vec<SocketAddr>,
    /// Where it listens for TLS (TCP), best first.
    pub tls_addresses: Vec<SocketAddr>,
    /// The certificate of the run's authority, PEM.
    pub ca_certificate: String,
    /// The certificate to join with, PEM.
    pub join_certificate: String,
    /// Its key, PEM.
    pub join_key: String,
    /// The scheduler's process id, on `host`.
    pub pid: u32,
    /// The node that the scheduler runs on.
    pub host: String,
    /// When the scheduler started, in seconds since 1970.
    pub started: u64,
    /// The Slurm job that the scheduler runs in, if any.
    pub slurm_job_id: Option<String>,
    /// Whether values within a host take Unix sockets, instead of the network.
    #[serde(default = "usually")]
    pub local_sockets: bool,
}

fn usually() -> bool {
    true
}

/// What to demand of a file's owner and permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileMode {
    /// Ours, and closed to all others.
    #[default]
    Private,
    /// Anything, for file systems that can't show owners or permissions.
    Insecure,
}

/// A scheduler file could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The path has no file name.
    #[error("{path} is not the path of a file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A step of writing failed; the old file, if any, is untouched.
    #[error("could not {step} scheduler file {path}; is its folder there, writable and not full?")]
    Io {
        /// What was being done, such as "rename".
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A scheduler file could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such file.
    #[error("no scheduler file {path}; is the scheduler running, and the file system shared?")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// Others than the owner can read or change the file.
    #[error(
        "scheduler file {path} has mode {mode:04o}, so others can read the key in it; run: {fix} \
         (or give --insecure-file-mode if this file system can't show modes)"
    )]
    Permissions {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The command that closes it.
        fix: String,
    },
    /// The file belongs to someone else.
    #[error(
        "scheduler file {path} belongs to user {owner}, not to you (user {own}); use a file of \
         your own (or give --insecure-file-mode if this file system can't show owners)"
    )]
    Owner {
        /// The path.
        path: PathBuf,
        /// The owner's number.
        owner: u32,
        /// Our own.
        own: u32,
    },
    /// The file is not a scheduler file, or not all of one.
    #[error("{path} {what}")]
    Garbage {
        /// The path.
        path: PathBuf,
        /// What it seems to be.
        what: Garbage,
        /// What the parser says.
        #[source]
        source: io::Error,
    },
    /// The file was written by another version of rdask.
    #[error(
        "scheduler file {path} is of protocol version {found}, this program speaks {ours}; \
         use the same rdask on both sides"
    )]
    Version {
        /// The path.
        path: PathBuf,
        /// The file's version.
        found: u16,
        /// Ours.
        ours: u16,
    },
    /// Reading failed.
    #[error("could not read scheduler file {path}")]
    Io {
        /// The path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    /// Whether waiting may help: a file server shows a new file late, a folder may be mounted
    /// late. What is there and wrong stays wrong until somebody does something about it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Io { .. } => true,
            Self::Garbage { what, .. } => *what == Garbage::HalfWritten,
            Self::Permissions { .. } | Self::Owner { .. } | Self::Version { .. } => false,
        }
    }
}

/// What a file that can't be parsed seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Garbage {
    /// It ends too early.
    #[error("is half-written or was cut off; wait a moment, else restart the scheduler")]
    HalfWritten,
    /// It is something else.
    #[error("is not a scheduler file; check the path")]
    NotASchedulerFile,
}

/// The one field that every version has.
#[derive(Deserialize)]
struct VersionOnly {
    version: u16,
}

/// A text is not a scheduler file of our version.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It is none at all.
    #[error("the text {what}")]
    Garbage {
        /// What it seems to be.
        what: Garbage,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// It is one of another version.
    #[error("the file is of protocol version {found}, this program speaks {ours}")]
    Version {
        /// The file's version.
        found: u16,
        /// Ours.
        ours: u16,
    },
}

impl SchedulerFile {
    /// The protocol version that this rdask speaks and writes.
    pub const VERSION: u16 = 1;

    /// The file as JSON, readable by people too.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("text and numbers always become JSON");
        text.push('\n');
        text
    }

    /// Parses what [`to_json`](Self::to_json) made. The version is looked at first, so that a file
    /// of another one is known as such, whatever else is in it.
    ///
    /// # Errors
    ///
    /// A [`ParseError`] that tells a cut-off file, another version and something else apart.
    pub fn from_json(text: &str) -> Result<Self, ParseError> {
        let garbage = |source: serde_json::Error| {
            let cut = source.is_eof();
            let what = if cut { Garbage::HalfWritten } else { Garbage::NotASchedulerFile };
            ParseError::Garbage { what, source }
        };
        let VersionOnly { version } = serde_json::from_str(text).map_err(garbage)?;
        if version != Self::VERSION {
            return Err(ParseError::Version { found: version, ours: Self::VERSION });
        }
        serde_json::from_str(text).map_err(garbage)
    }

    /// The identity to join with.
    ///
    /// # Errors
    ///
    /// A [`CertificateError`] if certificates and key in the file are broken.
    pub fn join_identity(&self) -> Result<Identity, CertificateError> {
        Identity::from_pem(&self.ca_certificate, &self.join_certificate, &self.join_key)
    }

    /// Writes the file with mode 0600, in one step for readers. An old file is replaced, a
    /// symbolic link too; it is never followed.
    ///
    /// # Errors
    ///
    /// A [`WriteError`]; the old file, if any, is then as it was.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), WriteError> {
        let path = path.as_ref();
        let temporary =
            temporary_name(path).ok_or_else(|| WriteError::NotAFile { path: path.to_owned() })?;
        let written = write_new(&temporary, self.to_json().as_bytes()).and_then(|()| {
            fs::rename(&temporary, path).map_err(|error| ("rename into place", error))
        });
        if let Err((step, source)) = written {
            // Best effort: what is left behind is closed to others and has a telling name.
            let _ = fs::remove_file(&temporary);
            return Err(WriteError::Io { step, path: path.to_owned(), source });
        }
        // Makes the new name durable; file systems that can't are none the worse.
        if let Some(Ok(folder)) = path.parent().map(|folder| File::open(non_empty(folder))) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Reads a file and checks that nobody else could have read or written it. It is opened anew
    /// at each call, so that shared file systems show the newest.
    ///
    /// # Errors
    ///
    /// A [`ReadError`] that says what to do.
    pub fn read(path: impl AsRef<Path>, mode: FileMode) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let text = read_checked(path, mode)?;
        Self::from_json(&text).map_err(|error| match error {
            ParseError::Garbage { what, source } => {
                ReadError::Garbage { path: path.to_owned(), what, source: source.into() }
            }
            ParseError::Version { found, ours } => {
                ReadError::Version { path: path.to_owned(), found, ours }
            }
        })
    }

    /// Removes the file if it is still that of the given run; true if it was. A file that another
    /// scheduler has put there in the meantime stays.
    ///
    /// # Errors
    ///
    /// A [`ReadError`] if the file can't be read or removed.
    pub fn remove_own(path: impl AsRef<Path>, run_id: &str) -> Result<bool, ReadError> {
        let path = path.as_ref();
        match Self::read(path, FileMode::Insecure) {
            Ok(file) if file.run_id == run_id => {}
            Ok(_) | Err(ReadError::Missing { .. } | ReadError::Version { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ReadError::Io { path: path.to_owned(), source }),
        }
    }
}

impl std::fmt::Debug for SchedulerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerFile")
            .field("version", &self.version)
            .field("run_id", &self.run_id)
            .field("epoch", &self.epoch)
            .field("addresses", &self.addresses)
            .field("tls_addresses", &self.tls_addresses)
            .field("pid", &self.pid)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

fn read_checked(path: &Path, mode: FileMode) -> Result<String, ReadError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Missing { path: path.to_owned() },
        _ => ReadError::Io { path: path.to_owned(), source },
    };
    let not_ours = |reason: &str| ReadError::Garbage {
        path: path.to_owned(),
        what: Garbage::NotASchedulerFile,
        source: io::Error::new(io::ErrorKind::InvalidData, reason),
    };
    // Without waiting, or someone's named pipe would hold us up for ever.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(io)?;
    // Of the open file, not of the path: that may be another one by now.
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(not_ours("it is no regular file"));
    }
    if mode == FileMode::Private {
        check_private(path, metadata.uid(), metadata.mode() & 0o7777)?;
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(not_ours("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| not_ours("it is not UTF-8 text"))
}

fn check_private(path: &Path, owner: u32, mode: u32) -> Result<(), ReadError> {
    let own = geteuid().as_raw();
    if owner != own {
        return Err(ReadError::Owner { path: path.to_owned(), owner, own });
    }
    if mode & OTHERS != 0 {
        let fix = format!("chmod 600 {}", shell_quoted(path));
        return Err(ReadError::Permissions { path: path.to_owned(), mode, fix });
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), (&'static str, io::Error)> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
        .map_err(|error| ("create", error))?;
    file.write_all(bytes).map_err(|error| ("write", error))?;
    file.sync_all().map_err(|error| ("make durable", error))
}

/// A name beside the path that nobody else uses: of this process, and counted within it.
fn temporary_name(path: &Path) -> Option<PathBuf> {
    static WRITTEN: AtomicU32 = AtomicU32::new(0);
    let count = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name()?);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = clock.map_or(0, |since| since.subsec_nanos());
    name.push(format!(".{}-{count}-{nanoseconds:08x}.tmp", std::process::id()));
    Some(path.with_file_name(name))
}

fn non_empty(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

fn shell_quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
