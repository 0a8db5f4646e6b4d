//! What was sent and may have to be sent again: encoded frames, kept until the peer has them.
//!
//! Frames are numbered by their order alone. A link that breaks loses the last ones under way; the
//! peer says how many it has, and the rest goes out again over the next link.

use std::collections::VecDeque;

use rdask_net::{FrameTooLong, push_frame};
use thiserror::Error;

/// A chunk takes no more frames once it is so long. One write takes a chunk.
const CHUNK_BYTES: usize = 256 << 10;

/// What an empty buffer may keep of its memory.
const SPARE_BYTES: usize = 64 << 10;

/// Bytes before each frame's body.
const HEADER_BYTES: usize = 4;

/// The peer says that it has what it can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{count} frames were acknowledged: between {least} and {most} can be")]
pub(super) struct NotSent {
    count: u64,
    least: u64,
    most: u64,
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    frames: u64,
}

/// Frames from the first one that the peer may lack to the last one made.
#[derive(Debug)]
pub(super) struct Unacknowledged {
    /// Never none: the last one takes the next frame.
    chunks: VecDeque<Chunk>,
    /// How many frames came before the first chunk.
    before: u64,
    /// How many frames there were in all.
    made: u64,
    acknowledged: u64,
    bytes: usize,
    /// What the link has taken: so many chunks, and so many bytes of the one after them.
    written: (usize, usize),
}

impl Unacknowledged {
    pub(super) fn new() -> Self {
        let chunks = VecDeque::from([Chunk::default()]);
        Self { chunks, before: 0, made: 0, acknowledged: 0, bytes: 0, written: (0, 0) }
    }

    /// How many bytes are kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a frame; `body` writes its body.
    pub(super) fn push(&mut self, body: impl FnOnce(&mut Vec<u8>)) -> Result<(), FrameTooLong> {
        if self.chunks.back().is_none_or(|chunk| chunk.bytes.len() >= CHUNK_BYTES) {
            if self.unwritten().is_none() {
                self.written = (self.chunks.len(), 0);
            }
            self.chunks.push_back(Chunk::default());
        }
        let chunk = self.chunks.back_mut().expect("there is always one");
        let length = chunk.bytes.len();
        push_frame(&mut chunk.bytes, body)?;
        chunk.frames += 1;
        self.bytes += chunk.bytes.len() - length;
        self.made += 1;
        Ok(())
    }

    /// What the link has not taken yet, the next piece of it.
    pub(super) fn unwritten(&self) -> Option<&[u8]> {
        let (chunk, byte) = self.written;
        let rest = self.chunks.get(chunk)?.bytes.get(byte..)?;
        (!rest.is_empty()).then_some(rest)
    }

    /// The link has taken that piece.
    pub(super) fn mark_written(&mut self) {
        let last = self.chunks.len() - 1;
        let (chunk, _) = self.written;
        self.written =
            if chunk < last { (chunk + 1, 0) } else { (chunk, self.chunks[chunk].bytes.len()) };
    }

    /// The peer has so many frames.
    pub(super) fn acknowledge(&mut self, count: u64) -> Result<(), NotSent> {
        if count > self.made {
            return Err(NotSent { count, least: 0, most: self.made });
        }
        // An older word, said over an earlier link, is no news.
        self.acknowledged = self.acknowledged.max(count);
        while self.written.0 > 0 && self.before + self.chunks[0].frames <= self.acknowledged {
            self.drop_first();
            self.written.0 -= 1;
        }
        let is_all_written = self.unwritten().is_none();
        if is_all_written && self.chunks.len() == 1 && self.made == self.acknowledged {
            self.bytes = 0;
            self.before = self.made;
            self.written = (0, 0);
            let chunk = &mut self.chunks[0];
            chunk.frames = 0;
            chunk.bytes.clear();
            chunk.bytes.shrink_to(SPARE_BYTES);
        }
        Ok(())
    }

    /// A new link begins, and the peer has so many frames: the others are not written yet.
    pub(super) fn rewind(&mut self, count: u64) -> Result<(), NotSent> {
        if count < self.acknowledged || count > self.made {
            return Err(NotSent { count, least: self.acknowledged, most: self.made });
        }
        self.acknowledged = count;
        while self.chunks.len() > 1 && self.before + self.chunks[0].frames <= count {
            self.drop_first();
        }
        let bytes = &self.chunks[0].bytes;
        let mut start = 0;
        for _ in self.before..count {
            let header = bytes[start..].first_chunk::<HEADER_BYTES>();
            let header = header.expect("a chunk has as many frames as it says");
            start += HEADER_BYTES + u32::from_le_bytes(*header) as usize;
        }
        self.written = (0, start);
        Ok(())
    }

    fn drop_first(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.before += chunk.frames;
            self.bytes -= chunk.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rdask_net::FrameDecoder;

    use super::*;

    /// A peer that gets some of the bytes of each link.
    #[derive(Default)]
    struct Peer {
        decoder: FrameDecoder,
        got: Vec<Bytes>,
    }

    impl Peer {
        fn take(&mut self, bytes: &[u8]) {
            self.decoder.push(bytes);
            while let Some(body) = self.decoder.next_frame().unwrap() {
                self.got.push(body);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Frames of these lengths are made.
        Make(Vec<usize>),
        /// The link takes pieces, and all of it arrives.
        Write(usize),
        /// The peer says what it has, or what it had some frames ago.
        Acknowledge(u64),
        /// The link takes pieces, of which this part in a thousand arrives, and breaks.
        Break(usize, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let lengths = prop_oneof![8 => 1_usize..50, 1 => 50_000_usize..300_000];
        let step = prop_oneof![
            4 => prop::collection::vec(lengths, 0..6).prop_map(Step::Make),
            3 => (0_usize..4).prop_map(Step::Write),
            3 => (0_u64..4).prop_map(Step::Acknowledge),
            2 => (0_usize..4, 0_usize..=1000).prop_map(|(pieces, part)| Step::Break(pieces, part)),
        ];
        prop::collection::vec(step, 1..60)
    }

    fn rewound(peer: &mut Peer, kept: &mut Unacknowledged) {
        peer.decoder = FrameDecoder::new();
        kept.rewind(peer.got.len() as u64).unwrap();
    }

    proptest! {
        #[test]
        fn whatever_breaks_each_frame_arrives_once_and_in_order(steps in steps()) {
            let mut kept = Unacknowledged::new();
            let mut peer = Peer::default();
            let mut made = 0_u32;
            let mut bodies = Vec::new();
            for step in steps {
                match step {
                    Step::Make(lengths) => for length in lengths {
                        let body = vec![made.to_le_bytes()[0]; length];
                        kept.push(|frame| frame.extend_from_slice(&body)).unwrap();
                        bodies.push(Bytes::from(body));
                        made += 1;
                    },
                    Step::Write(pieces) => for _ in 0..pieces {
                        let Some(piece) = kept.unwritten() else { break };
                        peer.take(piece);
                        kept.mark_written();
                    },
                    Step::Acknowledge(ago) => {
                        kept.acknowledge((peer.got.len() as u64).saturating_sub(ago)).unwrap();
                    }
                    Step::Break(pieces, part) => {
                        let mut sent = Vec::new();
                        for _ in 0..pieces {
                            let Some(piece) = kept.unwritten() else { break };
                            sent.extend_from_slice(piece);
                            kept.mark_written();
                        }
                        peer.take(&sent[..sent.len() * part / 1000]);
                        rewound(&mut peer, &mut kept);
                    }
                }
                prop_assert_eq!(&peer.got[..], &bodies[..peer.got.len()]);
            }
            rewound(&mut peer, &mut kept);
            while let Some(piece) = kept.unwritten() {
                peer.take(piece);
                kept.mark_written();
            }
            prop_assert_eq!(&peer.got, &bodies);
            kept.acknowledge(bodies.len() as u64).unwrap();
            prop_assert_eq!(kept.bytes(), 0);
            prop_assert!(kept.chunks.len() == 1 && kept.chunks[0].bytes.capacity() <= SPARE_BYTES);
        }
    }

    #[test]
    fn a_peer_that_claims_what_was_not_sent_is_found_out() {
        let mut kept = Unacknowledged::new();
        kept.push(|body| body.push(1)).unwrap();
        assert!(kept.acknowledge(2).is_err());
        kept.mark_written();
        kept.acknowledge(1).unwrap();
        assert!(kept.rewind(0).is_err(), "it is not kept any more");
        assert!(kept.rewind(2).is_err());
    }
}
