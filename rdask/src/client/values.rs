//! Values over data connections, or inside one OS process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdask_core::bulk::Bulk;
use rdask_core::id::{ProcessId, TaskId};
use rdask_core::message::Contact;

use super::parts::{BoxFuture, NotFetched, Put, ValueSource};
use crate::data::{self, Routes};
use crate::error::chain;
use crate::process::Values;
use crate::program;

/// Fetches from processes and puts with them, and brings the program to the scheduler.
pub(crate) struct NetworkValues {
    routes: Routes,
    /// A local cluster lives as long as its clients.
    _guard: Option<Arc<dyn Send + Sync>>,
}

/// A holder that was not reached may be named again at once, and is not to be dialled all the time.
const TRY_AGAIN: Duration = Duration::from_millis(500);

impl NetworkValues {
    pub(crate) fn new(routes: Routes, guard: Option<Arc<dyn Send + Sync>>) -> Self {
        Self { routes, _guard: guard }
    }

    async fn bring_program(&self) -> Result<(), String> {
        let hash = program::hash().map_err(|error| error.to_string())?;
        let bytes = program::open().map_err(|error| error.to_string())?;
        let brought =
            program::exchange::bring(self.routes.endpoint(), self.routes.scheduler(), hash, bytes)
                .await;
        brought.map_err(|error| chain(&error))
    }
}

impl ValueSource for NetworkValues {
    fn get(
        &self,
        task: TaskId,
        holder: ProcessId,
        contact: Contact,
    ) -> BoxFuture<'_, Result<Bulk, NotFetched>> {
        Box::pin(async move {
            let got = data::get(&self.routes, &contact, holder, task, 0).await;
            let error = match got {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            let denied = error.is_answer();
            if !denied {
                tokio::time::sleep(TRY_AGAIN).await;
            }
            Err(NotFetched { reason: error.to_string(), denied })
        })
    }

    fn put(&self, put: Put) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let value = data::Put { task: put.task, assignment: put.assignment, bytes: put.value };
            let taken = data::put(&self.routes, &put.contact, put.process, value).await;
            taken.map_err(|error| error.to_string())
        })
    }

    fn send_program(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.bring_program())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.routes.endpoint().close())
    }
}

/// The processes of this OS process, by their numbers: a local cluster adds each as it starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalValues(Arc<Mutex<BTreeMap<ProcessId, Values>>>);

impl LocalValues {
    /// Adds a process.
    pub(crate) fn add(&self, process: ProcessId, values: Values) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(process, values);
    }

    /// Takes a process out that has ended.
    pub(crate) fn remove(&self, process: ProcessId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&process);
    }

    fn of(&self, process: ProcessId) -> Result<Values, String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values = all.get(&process).cloned();
        values.ok_or_else(|| format!("process {process} has ended"))
    }
}

impl ValueSource for LocalValues {
    fn get(
        &self,
        task: TaskId,
        holder: ProcessId,
        _contact: Contact,
    ) -> BoxFuture<'_, Result<Bulk, NotFetched>> {
        Box::pin(async move {
            let values = self.of(holder)?;
            // Encoding runs user code: not on the network thread.
            let got = tokio::task::spawn_blocking(move || values.get(task, 0)).await;
            let got = got.map_err(|error| error.to_string())??;
            got.map(Bulk::from).ok_or_else(|| format!("the value of {task} is not here").into())
        })
    }

    fn put(&self, put: Put) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let values = self.of(put.process)?;
            values.put(put.task, put.assignment, put.value.into());
            Ok(())
        })
    }

    fn send_program(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Err("everybody here runs the same program".into()) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
