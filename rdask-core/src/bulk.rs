//! The bytes of a large value, and the memory that they lie in.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The encoded bytes of a value that came from elsewhere. Cloning shares them.
///
/// Whoever received them may have put them where a value of the right type can take the memory
/// over, so that a gigabyte of numbers is not copied once more.
#[derive(Clone, Default)]
pub struct Bulk {
    bytes: Bytes,
    /// What owns the bytes, besides them.
    memory: Option<Arc<dyn Any + Send + Sync>>,
}

struct Owner<M>(Arc<M>);

impl<M: AsRef<[u8]>> AsRef<[u8]> for Owner<M> {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl Bulk {
    /// All bytes of this memory.
    pub fn in_memory<M: AsRef<[u8]> + Send + Sync + 'static>(memory: M) -> Self {
        Self::shared(Arc::new(memory))
    }

    fn shared<M: AsRef<[u8]> + Send + Sync + 'static>(memory: Arc<M>) -> Self {
        Self { bytes: Bytes::from_owner(Owner(Arc::clone(&memory))), memory: Some(memory) }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The memory itself, if it is an `M` and this is its last share.
    ///
    /// # Errors
    /// Gives the bytes back otherwise.
    pub fn into_memory<M: AsRef<[u8]> + Send + Sync + 'static>(self) -> Result<M, Self> {
        let Self { bytes, memory } = self;
        match memory.map(Arc::downcast::<M>) {
            Some(Ok(memory)) => {
                drop(bytes);
                Arc::try_unwrap(memory).map_err(Self::shared)
            }
            Some(Err(other)) => Err(Self { bytes, memory: Some(other) }),
            None => Err(Self { bytes, memory: None }),
        }
    }
}

impl From<Bytes> for Bulk {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, memory: None }
    }
}

impl PartialEq for Bulk {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Bulk {}

impl fmt::Debug for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk").field("length", &self.bytes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_share_has_the_memory() {
        let bulk = Bulk::in_memory(vec![1_u8, 2, 3]);
        let (start, share) = (bulk.bytes().as_ptr(), bulk.clone());
        let bulk = bulk.into_memory::<Vec<u8>>().expect_err("there is a share");
        assert_eq!(bulk, share);
        let bytes = share.bytes().clone();
        drop(share);
        let bulk = bulk.into_memory::<Vec<u8>>().expect_err("the bytes are in use");
        drop(bytes);
        let bulk = bulk.into_memory::<String>().expect_err("it is a vector");
        let memory = bulk.into_memory::<Vec<u8>>().expect("it is the last share");
        assert_eq!((memory.as_ptr(), memory), (start, vec![1, 2, 3]));
    }

    #[test]
    fn plain_bytes_have_no_memory_to_give() {
        let bulk = Bulk::from(Bytes::from_static(b"plain"));
        assert_eq!(bulk.into_memory::<Vec<u8>>(), Err(Bytes::from_static(b"plain").into()));
    }
}
