//! What is told of all that happens: the story, for people, and a hash of it, to compare two runs.

use super::{SECOND, World, note};
use crate::dice::mix;
use crate::link::Message;

impl World {
    pub(super) fn tell(&mut self, line: String) {
        let at = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.6} {line}", at as f64 / SECOND as f64));
        }
    }

    pub(super) fn mix_in(&mut self, number: u64) {
        self.hash[0] = mix(self.hash[0] ^ number);
        self.hash[1] = mix(self.hash[1].rotate_left(17) ^ number.wrapping_mul(31));
    }

    pub(super) fn mix_message(&mut self, link: usize, message: &Message) {
        note!(self, "{:?} {}", self.links[link].actor, brief(message));
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let written = match message {
            Message::FromNanny(message) => postcard::to_extend(message, buffer),
            Message::ToNanny(message) => postcard::to_extend(message, buffer),
            Message::FromProcess(message) => postcard::to_extend(message, buffer),
            Message::ToProcess(message) => postcard::to_extend(message, buffer),
            Message::FromClient(message) => postcard::to_extend(message, buffer),
            Message::ToClient(message) => postcard::to_extend(message, buffer),
            Message::Hello(..) | Message::Welcome(_) | Message::Refused(_) => Ok(buffer),
        };
        let buffer = written.expect("a message encodes into memory");
        self.mix_in(link as u64);
        for bytes in buffer.chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.mix_in(u64::from_le_bytes(word));
        }
        self.buffer = buffer;
    }
}

/// A message as a line of the story.
fn brief(message: &Message) -> String {
    let mut text = format!("{message:?}");
    if text.len() > 400 {
        let end = (0..=400).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ..");
    }
    text
}
