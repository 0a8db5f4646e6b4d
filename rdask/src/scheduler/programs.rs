//! The programs that clients have brought, in a private folder, for nannies to fetch.

use std::sync::Arc;

use rdask_core::id::ProgramHash;
use rdask_net::DataStream;
use tokio::sync::{Semaphore, mpsc};

use super::StartError;
use super::core_thread::Input;
use super::peers::tell;
use crate::program::cache::Cache;
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
}

impl Programs {
    /// An empty store in the folder for temporary files.
    pub(crate) fn open(run_id: &str) -> Result<Self, StartError> {
        let folder = std::env::temp_dir().join(format!("rdask-scheduler-{run_id}"));
        // Nothing is evicted here: the core says what is not needed any more.
        let cache = Cache::open(&folder, u64::MAX);
        let cache = cache.map_err(|error| StartError::Programs(Box::new(error)))?;
        Ok(Self { shared: Arc::new(Shared { cache, gate: Semaphore::new(SERVED_AT_ONCE) }) })
    }

    /// Serves one stream: a nanny fetches, or a client brings.
    pub(crate) async fn serve(self, stream: DataStream, core: mpsc::Sender<Input>) {
        let peer = stream.peer().clone();
        match exchange::serve(stream, &self.shared.cache, &self.shared.gate, true).await {
            Ok(Some(hash)) => {
                tracing::info!("program {hash} received from {peer}");
                tell(&core, Input::ProgramStored(hash)).await;
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
