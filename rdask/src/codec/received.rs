//! Memory for bytes that arrive, which a vector of numbers can take over as it is.
//!
//! A value of 256 MiB spends more time in memory that the system has just given us than on its way:
//! each page is taken, cleared and entered when it is first touched. So the bytes are put once, into
//! memory that is aligned for numbers, on large pages where the system has them, and that memory
//! becomes the vector.

use bytemuck::Pod;
use bytemuck::allocation::try_cast_vec;

use crate::pages;

/// The bytes of a word: of the numbers whose vectors can take the memory over.
const WORD_BYTES: usize = size_of::<u64>();

/// Bytes that have arrived so far, and room for more.
#[derive(Debug, Default)]
pub struct Received {
    words: Vec<u64>,
    /// The last word may not be full.
    length: usize,
}

impl Received {
    /// Room for so many bytes, in memory that is not touched before they are there.
    ///
    /// # Errors
    /// If there isn't so much.
    pub fn with_room_for(bytes: usize) -> Result<Self, std::collections::TryReserveError> {
        let mut words = Vec::new();
        words.try_reserve_exact(bytes.div_ceil(WORD_BYTES))?;
        pages::prefer_large(words.spare_capacity_mut());
        Ok(Self { words, length: 0 })
    }

    /// Adds so many bytes, zeros at first, and returns them.
    pub fn grow(&mut self, more: usize) -> &mut [u8] {
        let start = self.length;
        self.length += more;
        self.words.resize(self.length.div_ceil(WORD_BYTES), 0);
        &mut bytemuck::cast_slice_mut(&mut self.words)[start..self.length]
    }

    /// The numbers that the bytes are, in the same memory.
    ///
    /// # Errors
    /// Gives the memory back if the numbers have another alignment, or don't fill it.
    pub(super) fn into_numbers<N: Pod>(self) -> Result<Vec<N>, Self> {
        let Self { words, length } = self;
        if length != words.len() * WORD_BYTES {
            return Err(Self { words, length });
        }
        try_cast_vec(words).map_err(|(_, words)| Self { words, length })
    }
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(bytes: &[u8]) -> Received {
        let mut received = Received::with_room_for(bytes.len()).unwrap();
        for piece in bytes.chunks(3) {
            received.grow(piece.len()).copy_from_slice(piece);
        }
        received
    }

    #[test]
    fn bytes_come_in_pieces_of_any_length() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..bytes.len() {
            assert_eq!(received(&bytes[..length]).as_ref(), &bytes[..length]);
        }
    }

    #[test]
    fn words_become_numbers_where_they_lie() {
        let bytes: Vec<u8> =
            [1.5_f64, -2.0, 4.0].iter().flat_map(|one| one.to_le_bytes()).collect();
        let words = received(&bytes);
        let start = words.as_ref().as_ptr();
        let numbers: Vec<f64> = words.into_numbers().unwrap();
        assert_eq!((numbers.as_ptr().cast(), numbers), (start, vec![1.5, -2.0, 4.0]));
        let half = received(&bytes[..20]).into_numbers::<f64>().unwrap_err();
        assert_eq!(half.as_ref(), &bytes[..20]);
        let small = received(&bytes).into_numbers::<u8>().unwrap_err();
        assert_eq!(small.as_ref(), bytes);
    }

    #[test]
    fn what_nobody_has_is_refused() {
        assert!(Received::with_room_for(usize::MAX).is_err());
    }
}
