//! Memory for bytes that arrive, which a vector of numbers can take over as it is.
//!
//! A value of 256 MiB spends more time in memory that the system has just given us than on its way:
//! each page is taken, cleared and entered when it is first touched. So the bytes are put once, into
//! memory that is aligned for numbers, on large pages where the system has them, and that memory
//! becomes the vector.

use bytemuck::Pod;
use bytemuck::allocation::{try_cast_vec, try_zeroed_vec};

use crate::pages;

/// The bytes of a word: of the numbers whose vectors can take the memory over.
const WORD_BYTES: usize = size_of::<u64>();

/// Memory for so many bytes, and the bytes once they are there.
#[derive(Debug, Default)]
pub struct Received {
    words: Vec<u64>,
    /// The last word may not be full.
    length: usize,
}

/// There is no memory for the bytes.
#[derive(Clone, Copy, Debug)]
pub struct NoMemory;

impl Received {
    /// So many zeros. The system clears memory anyway before it gives it, and gives it when it is
    /// first touched, so that large ones are not touched here.
    ///
    /// # Errors
    /// If there isn't so much.
    pub fn zeros(bytes: usize) -> Result<Self, NoMemory> {
        let words = try_zeroed_vec(bytes.div_ceil(WORD_BYTES));
        let mut words = words.map_err(|()| NoMemory)?;
        pages::prefer_large(&mut words);
        Ok(Self { words, length: bytes })
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

impl AsMut<[u8]> for Received {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(bytes: &[u8]) -> Received {
        let mut received = Received::zeros(bytes.len()).unwrap();
        received.as_mut().copy_from_slice(bytes);
        received
    }

    #[test]
    fn bytes_may_have_any_length() {
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
        assert!(Received::zeros(usize::MAX).is_err());
    }
}
