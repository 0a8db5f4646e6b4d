//! Whose the scheduler file is: a scheduler takes the place of one that has ended, never of one
//! that answers.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use rdask_net::{
    Endpoint, EndpointConfig, FileMode, Garbage, ReadError, SchedulerFile, WriteError,
};
use thiserror::Error;

use crate::connection::scheduler_target;

/// The place of the scheduler file can't be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Another scheduler has it, and answers.
    #[error(
        "another scheduler uses {path}: run {run} on {host} (process {pid}); stop it, or give \
         another --scheduler-file"
    )]
    Taken {
        /// The file.
        path: PathBuf,
        /// The other's run.
        run: String,
        /// The other's node.
        host: String,
        /// The other's process number there.
        pid: u32,
    },
    /// What is there must not be overwritten.
    #[error("{path} is not replaced; remove it if you are sure, or give another --scheduler-file")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        #[source]
        source: Box<ReadError>,
    },
    /// It can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes the scheduler file, unless a scheduler that answers has it. Two schedulers that start at
/// the same moment do this one after the other.
pub(crate) async fn claim(
    path: &Path,
    file: &SchedulerFile,
    mode: FileMode,
) -> Result<(), ClaimError> {
    let _lock = lock_folder(path).await;
    match SchedulerFile::read(path, mode) {
        Ok(other) => {
            if answers(&other).await {
                return Err(ClaimError::Taken {
                    path: path.to_owned(),
                    run: other.run_id,
                    host: other.host,
                    pid: other.pid,
                });
            }
            tracing::info!(path = %path.display(), run = other.run_id, "replacing the file of a \
                scheduler that does not answer");
        }
        Err(ReadError::Missing { .. } | ReadError::Garbage { what: Garbage::HalfWritten, .. }) => {}
        Err(source) => {
            let path = path.to_owned();
            return Err(ClaimError::NotOurs { path, source: Box::new(source) });
        }
    }
    Ok(file.write(path)?)
}

/// Whether the scheduler of a file is alive: something there proves to be it.
async fn answers(file: &SchedulerFile) -> bool {
    let (Ok(identity), Ok(target)) = (file.join_identity(), scheduler_target(file)) else {
        return false;
    };
    let Ok(endpoint) = Endpoint::bind(EndpointConfig::dial_only(identity)).await else {
        return false;
    };
    endpoint.dial_control(&target).await.is_ok()
}

/// A lock on the file's folder, where the file system has such locks. Without, two schedulers
/// that start at the same moment end with the file of one of them.
async fn lock_folder(path: &Path) -> Option<Flock<File>> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let folder = File::open(folder).ok()?;
    let lock = move || Flock::lock(folder, FlockArg::LockExclusive).ok();
    tokio::task::spawn_blocking(lock).await.ok()?
}
