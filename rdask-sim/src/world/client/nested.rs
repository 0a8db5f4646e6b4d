//! The client of a process: it submits the tasks that runs there submit.

use rdask_core::blob::BlobBuilder;
use rdask_core::id::TaskId;
use rdask_core::message::{Param, Parent};
use rdask_core::process::ChunkId;

use super::tasks::{Expect, Local, shape};
use crate::scenario::Until;
use crate::value::payload;
use crate::world::World;

impl World {
    /// A run submits tasks of its own and waits for them.
    pub(in crate::world) fn begin_nested(
        &mut self,
        process: usize,
        chunk: ChunkId,
        parent: Parent,
    ) {
        let client = match self.processes[process].nested {
            Some(client) => client,
            None => {
                let client = self.add_client(None, Some(process));
                self.processes[process].nested = Some(client);
                self.client_starts(client);
                client
            }
        };
        if self.clients[client].core.is_some() {
            self.submit_nested(client, chunk, parent);
        } else {
            self.clients[client].waiting.push((chunk, parent));
        }
    }

    /// The runs that wait for what a client submitted. It hears no more of it.
    pub(in crate::world) fn chunks_that_wait(&mut self, client: usize) -> Vec<ChunkId> {
        let state = &mut self.clients[client];
        let unsent = std::mem::take(&mut state.waiting).into_iter().map(|(chunk, _)| chunk);
        let sent = std::mem::take(&mut state.gathers).into_values();
        unsent.chain(sent.filter_map(|gather| gather.chunk)).collect()
    }

    pub(super) fn submit_nested(&mut self, client: usize, chunk: ChunkId, parent: Parent) {
        let Some(process) = self.clients[client].home else { return };
        let Some(key) = self.key_of(process, chunk) else { return };
        let count = self.work(key).nested;
        let expect =
            self.children_of(key).into_iter().map(|value| Expect { value, fails: false }).collect();
        let work = self.work(key + 1).clone();
        let mut blob = BlobBuilder::new();
        (0..count).for_each(|index| blob.push(&payload(index)));
        let shape = shape(key + 1, &work, vec![Param::Inline]);
        let core = self.core(client);
        let id = core.submit_array(count, shape, vec![blob.build()], Some(parent));
        let tasks = (0..count).map(|index| TaskId { array: id, index }).collect();
        let local = Local { tasks, expect, array: Some(id), parts: 1 };
        self.gather(client, local, Until::Values, None, Some(chunk));
        self.client_acts(client);
        self.park(process, chunk);
    }
}
