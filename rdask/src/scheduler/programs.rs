//! The programs that clients have brought, in a private folder, for nannies to fetch.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use rdask_core::id::ProgramHash;
use rdask_core::message::DataRequest;
use rdask_net::DataStream;
use tokio::sync::Semaphore;

use super::StartError;
use super::shell::Input;
use super::turns::Core;
use crate::program::cache::{Cache, CacheError};
use crate::program::exchange::{self, SERVED_AT_ONCE};

/// The store of programs; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cache: Cache,
    gate: Semaphore,
    /// Shows to later schedulers that this store is in use.
    _lock: Flock<File>,
}

/// Stores are folders of this name, with the run behind it.
const FOLDER: &str = "rdask-scheduler-";

/// The store of a scheduler that is just starting may not be locked yet.
const YOUNG: Duration = Duration::from_secs(60);

impl Programs {
    /// An empty store in the folder for temporary files.
    pub(crate) fn open(run_id: &str) -> Result<Self, StartError> {
        let base = std::env::temp_dir();
        remove_abandoned(&base);
        let folder = base.join(format!("{FOLDER}{run_id}"));
        // Nothing is evicted here: the core says what is not needed any more.
        let cache = Cache::open(&folder, u64::MAX);
        let cache = cache.map_err(|error| StartError::Programs(Box::new(error)))?;
        let lock = lock(&folder).map_err(|source| {
            StartError::Programs(Box::new(CacheError::Folder { folder, source }))
        })?;
        let gate = Semaphore::new(SERVED_AT_ONCE);
        Ok(Self { shared: Arc::new(Shared { cache, gate, _lock: lock }) })
    }

    /// Serves one stream: a nanny fetches, or a client brings.
    pub(crate) async fn serve(self, stream: DataStream, request: DataRequest, core: Core) {
        let peer = stream.peer().clone();
        let Shared { cache, gate, .. } = &*self.shared;
        match exchange::answer(stream, request, cache, gate, true).await {
            Ok(Some(hash)) => {
                tracing::info!("program {hash} received from {peer}");
                core.tell(Input::ProgramStored(hash)).await;
            }
            Ok(None) => tracing::debug!(%peer, "served a data stream"),
            Err(error) => tracing::warn!(%peer, %error, "a data stream failed"),
        }
    }

    pub(crate) fn forget(&self, hash: ProgramHash) {
        self.shared.cache.remove(hash);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let folder = self.cache.folder();
        if let Err(error) = std::fs::remove_dir_all(folder) {
            tracing::debug!(folder = %folder.display(), %error, "a folder of programs stays");
        }
    }
}

/// Takes a store for as long as this scheduler lives, however it ends.
fn lock(folder: &Path) -> io::Result<Flock<File>> {
    let open = File::open(folder)?;
    Flock::lock(open, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Removes the stores of this user's schedulers that were killed before they could.
fn remove_abandoned(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_store = name.to_str().is_some_and(|name| name.starts_with(FOLDER));
        let is_old = entry.metadata().is_ok_and(|found| {
            let age = found.modified().ok().and_then(|time| time.elapsed().ok());
            found.is_dir() && age.is_some_and(|age| age > YOUNG)
        });
        // Others' folders can't be opened: stores have mode 0700.
        if is_store && is_old && lock(&entry.path()).is_ok() {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_abandoned_stores_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        let names = ["rdask-scheduler-killed", "rdask-scheduler-alive", "rdask-scheduler-new", "x"];
        for name in names {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("program"), "bytes").unwrap();
            if !name.ends_with("-new") {
                let past = SystemTime::now() - 2 * YOUNG;
                File::open(at(name)).unwrap().set_modified(past).unwrap();
            }
        }
        symlink(at("x"), at("rdask-scheduler-link")).unwrap();
        let alive = lock(&at("rdask-scheduler-alive")).unwrap();
        remove_abandoned(base.path());
        let left: Vec<bool> = names.iter().map(|name| at(name).join("program").exists()).collect();
        assert_eq!(left, [false, true, true, true]);
        drop(alive);
        remove_abandoned(base.path());
        assert!(!at("rdask-scheduler-alive").exists());
    }
}
