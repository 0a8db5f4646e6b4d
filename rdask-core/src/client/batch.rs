//! The batch that consecutive submits gather in.

use crate::blob::BlobBuilder;
use crate::message::{BATCH_TASKS_MAX, Batch, CHUNK_BYTES_MAX, Edge, Parent, Shape, TaskOptions};

/// How many of the latest shapes are compared before a task brings a shape of its own. Loops
/// submit few functions in turn; a longer search would cost more than a repeated shape.
const SHAPES_COMPARED: usize = 16;

/// What an edge costs in a frame, at most.
const EDGE_BYTES: usize = 18;

/// A batch that is still growing.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) number: u32,
    pub(super) parent: Option<Parent>,
    shapes: Vec<Shape>,
    shape_of: Vec<u16>,
    payload: BlobBuilder,
    edge_ends: Vec<u32>,
    edges: Vec<Edge>,
}

impl OpenBatch {
    pub(super) fn new(number: u32, parent: Option<Parent>) -> Self {
        Self {
            number,
            parent,
            shapes: Vec::new(),
            shape_of: Vec::new(),
            payload: BlobBuilder::new(),
            edge_ends: Vec::new(),
            edges: Vec::new(),
        }
    }

    /// Whether a task that is submitted by this run, with these options, may be of this batch.
    pub(super) fn takes(&self, parent: Option<Parent>, options: &TaskOptions) -> bool {
        let fits = |shape: &Shape| shape.options.fit_a_batch_with(options);
        self.parent == parent && self.shapes.first().is_none_or(fits)
    }

    /// Appends a task and returns its index.
    pub(super) fn push(&mut self, shape: Shape, payload: &[u8], edges: &[Edge]) -> u32 {
        let index = self.len();
        let shape = self.shape_index(shape);
        self.shape_of.push(shape);
        self.payload.push(payload);
        self.edges.extend_from_slice(edges);
        self.edge_ends
            .push(u32::try_from(self.edges.len()).expect("a batch is flushed long before"));
        index
    }

    fn shape_index(&mut self, shape: Shape) -> u16 {
        let first_compared = self.shapes.len().saturating_sub(SHAPES_COMPARED);
        let known = self.shapes[first_compared..].iter().rposition(|known| *known == shape);
        let index = match known {
            Some(position) => first_compared + position,
            None => {
                self.shapes.push(shape);
                self.shapes.len() - 1
            }
        };
        u16::try_from(index).expect("a batch has fewer tasks than u16::MAX")
    }

    pub(super) fn len(&self) -> u32 {
        self.payload.count()
    }

    /// Whether a task with so many edges fits a frame together with the tasks before it.
    pub(super) fn has_room_for(&self, edges: usize) -> bool {
        self.len() == 0 || edges * EDGE_BYTES <= CHUNK_BYTES_MAX
    }

    /// Whether it must leave before another task comes.
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.payload.byte_len() + self.edges.len() * EDGE_BYTES;
        self.len() >= BATCH_TASKS_MAX || bytes >= CHUNK_BYTES_MAX
    }

    pub(super) fn build(self) -> Batch {
        Batch {
            shapes: self.shapes,
            shape_of: self.shape_of,
            payload: self.payload.build(),
            edge_ends: self.edge_ends,
            edges: self.edges,
        }
    }
}
