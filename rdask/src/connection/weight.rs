//! What messages weigh while they wait: estimates, made without encoding them.

use rdask_core::blob::Blob;
use rdask_core::message::{
    Assign, Batch, End, Feed, FromClient, FromNanny, FromProcess, Offered, Offering, Outcome,
    Place, Source, ToClient, ToNanny, ToProcess,
};

/// About how many bytes a message keeps while it waits.
pub trait Weigh {
    /// The number of bytes.
    fn weight(&self) -> usize;

    /// Whether nobody waits for it: it may go a millisecond later, with others.
    fn can_wait(&self) -> bool {
        false
    }
}

fn all_of<T: Weigh>(items: &[T]) -> usize {
    items.iter().map(Weigh::weight).sum()
}

impl Weigh for Blob {
    fn weight(&self) -> usize {
        self.cost()
    }
}

impl Weigh for Source {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + match &self.place {
                Place::Inline(bytes) => bytes.len(),
                Place::Held(holders) => size_of_val(&holders[..]),
                Place::Here => 0,
            }
    }
}

impl Weigh for Feed {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Inline => 0,
                Self::Each(sources) | Self::List(sources) => all_of(sources),
                Self::One(source) => source.weight(),
                Self::Lists(lists) => lists.iter().map(|list| all_of(list)).sum(),
            }
    }
}

impl Weigh for Assign {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.payload.weight() + all_of(&self.params)
    }
}

impl Weigh for Batch {
    fn weight(&self) -> usize {
        let per_task = size_of_val(&self.shape_of[..]) + size_of_val(&self.edge_ends[..]);
        self.payload.weight() + per_task + size_of_val(&self.edges[..])
    }
}

impl Weigh for ToProcess {
    fn weight(&self) -> usize {
        match self {
            Self::Assign(assign) => assign.weight(),
            Self::Drop { ranges } => size_of::<Self>() + size_of_val(&ranges[..]),
            Self::Sources { sources, .. } => size_of::<Self>() + all_of(sources),
            Self::DropCopies { values } => size_of::<Self>() + size_of_val(&values[..]),
            _ => size_of::<Self>(),
        }
    }

    fn can_wait(&self) -> bool {
        matches!(self, Self::Seen { .. } | Self::Drop { .. } | Self::DropCopies { .. })
    }
}

impl Weigh for ToClient {
    fn weight(&self) -> usize {
        let inside = match self {
            Self::Ended { outcome: Outcome::Values(values), .. } => values.weight(),
            Self::Ended { outcome: Outcome::Failed(failure), .. } => failure.message.len(),
            Self::States { states, .. } => size_of_val(&states[..]),
            Self::Status { status, .. } => size_of_val(&status.workers[..]),
            _ => 0,
        };
        size_of::<Self>() + inside
    }
}

impl Weigh for ToNanny {
    fn weight(&self) -> usize {
        match self {
            // Surroundings are a few kilobytes of text.
            Self::Launch(_) => 8 << 10,
            _ => size_of::<Self>(),
        }
    }
}

impl Weigh for FromClient {
    fn weight(&self) -> usize {
        let inside = match self {
            Self::Payload { payload, .. } => payload.weight(),
            Self::SubmitBatch { batch, .. } => batch.weight(),
            Self::ScatterInline { values, .. } => values.weight(),
            Self::Scatter { sizes, .. } => size_of_val(&sizes[..]),
            Self::Release { ranges } | Self::Detach { ranges, .. } => size_of_val(&ranges[..]),
            _ => 0,
        };
        size_of::<Self>() + inside
    }

    fn can_wait(&self) -> bool {
        matches!(self, Self::Release { .. })
    }
}

impl Weigh for FromProcess {
    fn weight(&self) -> usize {
        let of_end = |end: &End| match end {
            End::Inline(values) => values.weight(),
            End::Stored(sizes) => size_of_val(&sizes[..]),
            End::Failed(failure) => failure.message.len(),
            End::Cancelled | End::Lost => 0,
        };
        let inside = match self {
            Self::Report { finished, .. } => {
                finished.iter().map(|one| size_of_val(one) + of_end(&one.end)).sum()
            }
            Self::Holds { values } => size_of_val(&values[..]),
            Self::Offer { values, .. } => values.iter().map(Weigh::weight).sum(),
            _ => 0,
        };
        size_of::<Self>() + inside
    }
}

impl Weigh for Offered {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + match &self.what {
                Offering::Inline { blob, .. } => blob.weight(),
                Offering::Stored { sizes, .. } => sizes.len(),
                Offering::Copies => 0,
            }
    }
}

impl Weigh for FromNanny {
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}
