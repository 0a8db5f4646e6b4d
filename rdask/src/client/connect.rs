//! How a client comes to a connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Client;
use super::session::Session;
use crate::error::{ConnectionError, Result};

/// The variable that names the scheduler's file.
const FILE_VARIABLE: &str = "RDASK_SCHEDULER_FILE";

/// The scheduler's file, as the environment names it.
///
/// # Errors
/// If it doesn't.
pub(crate) fn file_from_env() -> Result<PathBuf> {
    std::env::var_os(FILE_VARIABLE)
        .filter(|file| !file.is_empty())
        .map(PathBuf::from)
        .ok_or_else(|| ConnectionError::NotNamed.into())
}

/// Joins the scheduler of a file as a client.
pub(crate) async fn connect(file: &Path) -> Result<Arc<Session>> {
    let reason = format!("{}: not built in yet", file.display());
    Err(ConnectionError::NotConnected { reason }.into())
}

/// A client of a cluster inside this process.
pub(crate) fn local() -> Result<Client> {
    let reason = "the local cluster is not built in yet".into();
    Err(ConnectionError::NotConnected { reason }.into())
}
