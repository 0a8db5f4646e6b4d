//! Frames: a length of four little-endian bytes, then that many bytes of body.
//!
//! Pure encoding and decoding, without a socket. The decoder takes any bytes a peer may send:
//! the worst they can do is to end their own link with an error. It never holds more than one
//! incomplete frame and one read.
//!
//! One length, [`CLOSE_MARK`], is no length: it announces the reason for which the sender closes
//! the link. In-band, the reason arrives after everything sent before it, over any transport.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// The longest body of a frame, in bytes. What is larger is split by whoever sends it. Ten times
/// more would let a peer hold 10 MiB per link in the scheduler before saying anything.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Bytes before each body.
const HEADER_BYTES: usize = 4;

/// A length that no body can have: what follows is a reason for closing.
const CLOSE_MARK: u32 = u32::MAX;

/// The longest reason, in bytes; longer ones are cut.
const REASON_BYTES_MAX: usize = 1024;

/// How much one read may bring. Larger reads gain nothing (measured), smaller ones cost calls.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// A body is longer than a frame may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a message of {length} bytes is longer than a frame of {FRAME_BYTES_MAX}: split it")]
pub struct FrameTooLong {
    /// The body's length in bytes.
    pub length: usize,
}

/// What ends the decoding of a link's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer announced more than a frame may hold, so it speaks another language.
    #[error(
        "the peer announced a frame of {length} bytes where {FRAME_BYTES_MAX} is the limit: it \
         does not speak this protocol"
    )]
    TooLong {
        /// The announced length in bytes.
        length: usize,
    },
    /// The peer closed the link and said why.
    #[error("closed by the peer: {reason}")]
    Closed {
        /// The peer's own words.
        reason: String,
    },
}

/// Appends one frame to `buffer`; `body` writes the body behind what is there.
///
/// Many frames in one buffer make one write. On an error the buffer is as it was before.
///
/// # Errors
///
/// [`FrameTooLong`] if the body has more than [`FRAME_BYTES_MAX`] bytes.
///
/// ```
/// use rdask_net::{FrameDecoder, push_frame};
///
/// let mut buffer = Vec::new();
/// push_frame(&mut buffer, |body| body.extend_from_slice(b"hello"))?;
/// let mut decoder = FrameDecoder::new();
/// decoder.push(&buffer);
/// assert_eq!(decoder.next_frame()?.as_deref(), Some(&b"hello"[..]));
/// assert_eq!(decoder.next_frame()?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn push_frame(
    buffer: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>),
) -> Result<(), FrameTooLong> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    body(buffer);
    let length = buffer.len().saturating_sub(start + HEADER_BYTES);
    let header = match u32::try_from(length) {
        Ok(header) if length <= FRAME_BYTES_MAX => header,
        Ok(_) | Err(_) => {
            buffer.truncate(start);
            return Err(FrameTooLong { length });
        }
    };
    buffer[start..start + HEADER_BYTES].copy_from_slice(&header.to_le_bytes());
    Ok(())
}

/// Appends the reason for closing; nothing may follow it.
pub(crate) fn push_close(buffer: &mut Vec<u8>, reason: &str) {
    let mut length = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(length) {
        length -= 1;
    }
    buffer.extend_from_slice(&CLOSE_MARK.to_le_bytes());
    buffer.extend_from_slice(&(length as u32).to_le_bytes());
    buffer.extend_from_slice(&reason.as_bytes()[..length]);
}

/// Takes bytes in any pieces, gives whole bodies.
///
/// A body shares the memory of the read that brought it: whoever keeps one for long copies it.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// A decoder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where the next read goes, with room for it.
    pub(crate) fn read_buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// The next whole body, or `None` if it is not all there yet.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if nothing more can be decoded; asking again gives the same error.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.number_at(0) else {
            return Ok(None);
        };
        if length == CLOSE_MARK {
            return self.close_reason();
        }
        let length = length as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { length });
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether [`next_frame`](Self::next_frame) has something to say.
    pub(crate) fn has_frame(&self) -> bool {
        let Some(length) = self.number_at(0) else {
            return false;
        };
        let length = length as usize;
        length > FRAME_BYTES_MAX || self.buffer.len() >= HEADER_BYTES + length
    }

    /// Whether the bytes end between two frames, as they do when a peer ends in good order.
    pub fn is_between_frames(&self) -> bool {
        self.buffer.is_empty()
    }

    fn close_reason(&self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.number_at(HEADER_BYTES) else {
            return Ok(None);
        };
        let length = length as usize;
        if length > REASON_BYTES_MAX {
            return Err(FrameError::TooLong { length });
        }
        let start = 2 * HEADER_BYTES;
        let Some(reason) = self.buffer.get(start..start + length) else {
            return Ok(None);
        };
        Err(FrameError::Closed { reason: String::from_utf8_lossy(reason).into_owned() })
    }

    fn number_at(&self, position: usize) -> Option<u32> {
        let bytes = self.buffer.get(position..position + HEADER_BYTES)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(decoder: &mut FrameDecoder) -> (Vec<Bytes>, Option<FrameError>) {
        let mut bodies = Vec::new();
        loop {
            match decoder.next_frame() {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => return (bodies, None),
                Err(error) => return (bodies, Some(error)),
            }
        }
    }

    #[test]
    fn a_long_body_is_refused_and_leaves_the_buffer_as_it_was() {
        let mut buffer = Vec::new();
        push_frame(&mut buffer, |body| body.push(1)).unwrap();
        let before = buffer.clone();
        let longest = |body: &mut Vec<u8>| body.resize(body.len() + FRAME_BYTES_MAX + 1, 0);
        assert_eq!(
            push_frame(&mut buffer, longest),
            Err(FrameTooLong { length: FRAME_BYTES_MAX + 1 })
        );
        assert_eq!(buffer, before);
    }

    #[test]
    fn the_longest_body_passes() {
        let mut buffer = Vec::new();
        push_frame(&mut buffer, |body| body.resize(body.len() + FRAME_BYTES_MAX, 7)).unwrap();
        let mut decoder = FrameDecoder::new();
        decoder.push(&buffer);
        assert_eq!(decoder.next_frame().unwrap().unwrap().len(), FRAME_BYTES_MAX);
        assert!(decoder.is_between_frames());
    }

    #[test]
    fn an_announced_length_over_the_limit_ends_decoding_at_once() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
        let error = FrameError::TooLong { length: FRAME_BYTES_MAX + 1 };
        assert_eq!(decoder.next_frame(), Err(error.clone()));
        assert_eq!(decoder.next_frame(), Err(error));
    }

    #[test]
    fn a_reason_arrives_behind_the_frames_before_it_and_is_cut_at_a_character() {
        let mut buffer = Vec::new();
        push_frame(&mut buffer, |body| body.push(1)).unwrap();
        push_close(&mut buffer, &format!("a{}", "é".repeat(REASON_BYTES_MAX)));
        for split in 0..=buffer.len() {
            let mut decoder = FrameDecoder::new();
            decoder.push(&buffer[..split]);
            let (mut bodies, mut end) = decode_all(&mut decoder);
            decoder.push(&buffer[split..]);
            if end.is_none() {
                let (more, last) = decode_all(&mut decoder);
                bodies.extend(more);
                end = last;
            }
            assert_eq!(bodies, vec![Bytes::from_static(&[1])]);
            let Some(FrameError::Closed { reason }) = end else { panic!("no reason: {end:?}") };
            assert_eq!(reason.len(), REASON_BYTES_MAX - 1);
        }
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            piece in 1_usize..50,
        ) {
            let mut buffer = Vec::new();
            for body in &bodies {
                push_frame(&mut buffer, |out| out.extend_from_slice(body)).unwrap();
            }
            let mut decoder = FrameDecoder::new();
            let mut decoded = Vec::new();
            for bytes in buffer.chunks(piece) {
                decoder.push(bytes);
                let (some, error) = decode_all(&mut decoder);
                prop_assert_eq!(error, None);
                decoded.extend(some);
            }
            prop_assert!(decoder.is_between_frames());
            prop_assert_eq!(decoded, bodies);
        }

        #[test]
        fn garbage_never_panics_and_never_grows(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = FrameDecoder::new();
            decoder.push(&bytes);
            let (bodies, _) = decode_all(&mut decoder);
            prop_assert!(bodies.iter().map(Bytes::len).sum::<usize>() <= bytes.len());
        }
    }
}
