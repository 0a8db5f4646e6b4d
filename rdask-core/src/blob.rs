//! Many small byte strings in one piece: the arguments or the results of consecutive tasks.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::range::Range;

/// The byte strings of consecutive tasks, back to back.
///
/// Strings of equal length, the usual case for numbers, need no table of ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    count: u32,
    layout: Layout,
    bytes: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Layout {
    /// All strings have this length.
    Stride(u32),
    /// String `i` ends before `ends[i]`.
    Ends(Vec<u32>),
}

/// Why bytes that claim to be a [`Blob`] are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a blob of {count} strings doesn't fit its {bytes} bytes")]
pub struct BadBlob {
    count: u32,
    bytes: usize,
}

impl Blob {
    /// A blob from strings back to back and where each ends.
    ///
    /// # Errors
    /// If the ends decrease or the last one is not the length of `bytes`.
    pub fn new(ends: Vec<u32>, bytes: Bytes) -> Result<Self, BadBlob> {
        let count = u32::try_from(ends.len())
            .map_err(|_| BadBlob { count: u32::MAX, bytes: bytes.len() })?;
        let stride = ends.first().copied().unwrap_or(0);
        let even =
            ends.iter().zip(1u64..).all(|(end, nth)| u64::from(*end) == nth * u64::from(stride));
        let layout = if even { Layout::Stride(stride) } else { Layout::Ends(ends) };
        let blob = Self { count, layout, bytes };
        blob.check()?;
        Ok(blob)
    }

    /// `count` strings without bytes, as for tasks without inline arguments.
    #[must_use]
    pub fn empty(count: u32) -> Self {
        Self { count, layout: Layout::Stride(0), bytes: Bytes::new() }
    }

    /// Checks what came from a peer. Every other method relies on it.
    ///
    /// # Errors
    /// If the table of ends doesn't fit the bytes.
    pub fn check(&self) -> Result<(), BadBlob> {
        let bad = BadBlob { count: self.count, bytes: self.bytes.len() };
        let fits = match &self.layout {
            Layout::Stride(stride) => {
                u64::from(*stride) * u64::from(self.count) == self.bytes.len() as u64
            }
            Layout::Ends(ends) => {
                ends.len() == self.count as usize
                    && ends.last().is_none_or(|last| *last as usize == self.bytes.len())
                    && ends.windows(2).all(|pair| pair[0] <= pair[1])
            }
        };
        if fits { Ok(()) } else { Err(bad) }
    }

    /// How many strings it holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The length of all strings together, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// What it costs to keep, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        let table = match &self.layout {
            Layout::Stride(_) => 0,
            Layout::Ends(ends) => ends.len() * size_of::<u32>(),
        };
        self.bytes.len() + table
    }

    fn end(&self, position: u32) -> usize {
        match &self.layout {
            Layout::Stride(stride) => (position as usize + 1) * *stride as usize,
            Layout::Ends(ends) => ends[position as usize] as usize,
        }
    }

    fn start(&self, position: u32) -> usize {
        if position == 0 { 0 } else { self.end(position - 1) }
    }

    /// String number `position`.
    ///
    /// # Panics
    /// If there is no such string.
    #[must_use]
    pub fn get(&self, position: u32) -> &[u8] {
        assert!(position < self.count, "string {position} of a blob of {}", self.count);
        &self.bytes[self.start(position)..self.end(position)]
    }

    /// String number `position`, sharing the memory.
    ///
    /// # Panics
    /// If there is no such string.
    #[must_use]
    pub fn get_bytes(&self, position: u32) -> Bytes {
        assert!(position < self.count, "string {position} of a blob of {}", self.count);
        self.bytes.slice(self.start(position)..self.end(position))
    }

    /// The strings at the positions of `range`, sharing the memory.
    ///
    /// # Panics
    /// If `range` reaches beyond the blob.
    #[must_use]
    pub fn slice(&self, range: Range) -> Self {
        assert!(range.end <= self.count, "strings {range:?} of a blob of {}", self.count);
        if range.is_empty() {
            return Self::empty(0);
        }
        let (from, to) = (self.start(range.start), self.end(range.end - 1));
        let layout = match &self.layout {
            Layout::Stride(stride) => Layout::Stride(*stride),
            Layout::Ends(ends) => {
                let ends = &ends[range.start as usize..range.end as usize];
                // Starts lie below 4 GiB, since ends are u32.
                Layout::Ends(ends.iter().map(|end| end - from as u32).collect())
            }
        };
        Self { count: range.len(), layout, bytes: self.bytes.slice(from..to) }
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count).map(|position| self.get(position))
    }

    /// The same strings in memory of their own, so that a short slice doesn't keep a long blob.
    #[must_use]
    pub fn compact(&self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes), ..self.clone() }
    }
}

/// Gathers strings into a [`Blob`].
#[derive(Debug, Default)]
pub struct BlobBuilder {
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl BlobBuilder {
    /// A builder without strings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The buffer to append the next string's bytes to; then call [`end_string`](Self::end_string).
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends a string at the end of the buffer.
    ///
    /// # Panics
    /// If the buffer has grown beyond 4 GiB: split long before, by [`byte_len`](Self::byte_len).
    pub fn end_string(&mut self) {
        self.ends.push(u32::try_from(self.bytes.len()).expect("blobs are split below 4 GiB"));
    }

    /// Appends one string.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.end_string();
    }

    /// How many strings it holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// How many bytes its strings have.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The blob.
    #[must_use]
    pub fn build(self) -> Blob {
        Blob::new(self.ends, self.bytes.into()).expect("a builder's ends fit its bytes")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_blob_gives_back_its_strings(
            strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..20),
            cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let mut builder = BlobBuilder::new();
            strings.iter().for_each(|string| builder.push(string));
            let blob = builder.build();
            prop_assert!(blob.check().is_ok());
            prop_assert!(blob.iter().eq(strings.iter().map(Vec::as_slice)));
            let (a, b) = (cut.0.index(strings.len() + 1), cut.1.index(strings.len() + 1));
            let range = Range::new(a.min(b) as u32, a.max(b) as u32);
            let part = blob.slice(range);
            prop_assert!(part.check().is_ok());
            prop_assert!(part.iter().eq(strings[a.min(b)..a.max(b)].iter().map(Vec::as_slice)));
            prop_assert_eq!(part.compact(), part);
        }
    }

    #[test]
    fn equal_lengths_need_no_table() {
        let mut builder = BlobBuilder::new();
        (0..1000u64).for_each(|number| builder.push(&number.to_le_bytes()));
        assert_eq!(builder.build().cost(), 8000);
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        assert!(Blob::new(vec![3, 1], Bytes::from_static(b"abc")).is_err());
        assert!(Blob::new(vec![1, 2], Bytes::from_static(b"abc")).is_err());
        let lying = Blob { count: 5, layout: Layout::Stride(7), bytes: Bytes::new() };
        assert!(lying.check().is_err());
    }
}
