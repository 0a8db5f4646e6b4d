//! Memory of large values that were dropped, kept for a while for values that arrive.
//!
//! The system clears memory before it gives it, page by page, as each is first touched. Where it
//! runs in a virtual machine, the host may have to find and clear a page, too. That takes as long
//! as it takes a value to come over a fast network. Memory that was in use a moment ago costs
//! nothing of that.
//!
//! Only memory of values that arrived is kept. What a program has made goes back to its allocator at
//! once: it may be what its next values are made in, and some of its pages may never have been
//! touched. What nobody has used for some seconds goes there, too.

use std::mem::replace;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{process, thread};

use crate::memory;

/// Values that come one after the other are seldom further apart.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// Smaller values take what allocators keep themselves.
const LARGE_BYTES_MIN: usize = 4 << 20;

/// The most that is kept.
const KEPT_BYTES_MAX: u64 = 512 << 20;

/// And no more than this part of what the process may use: what is kept counts as used.
const KEPT_PART: u64 = 16;

/// A process that uses more than this part of it keeps nothing: it may need all of it soon.
const USED_PART: u64 = 2;

/// The memory that this process may use, once that is known.
static LIMIT: OnceLock<u64> = OnceLock::new();

static SPARE: Mutex<Spare> = Mutex::new(Spare::new());

#[derive(Debug)]
struct Spare {
    /// In the order in which they came.
    pieces: Vec<Piece>,
    bytes: usize,
    /// Whether there is a thread that gives back what is late.
    is_watched: bool,
}

#[derive(Debug)]
struct Piece {
    words: Vec<u64>,
    until: Instant,
}

/// The process may use so much memory, its worker's limit; 0 is none. It counts if it comes before
/// the first value.
pub(crate) fn limit_by(memory_limit: u64) {
    if memory_limit > 0 {
        let _ = LIMIT.set(memory_limit);
    }
}

/// How many bytes may be kept now.
fn room() -> usize {
    let limit = *LIMIT.get_or_init(memory::available);
    let is_tight = memory::resident(process::id()).is_none_or(|used| used > limit / USED_PART);
    if is_tight { 0 } else { (limit / KEPT_PART).min(KEPT_BYTES_MAX) as usize }
}

/// Memory of so many words, if there is some. They hold whatever they held.
pub(crate) fn take(words: usize) -> Option<Vec<u64>> {
    if words < LARGE_BYTES_MIN / size_of::<u64>() {
        return None;
    }
    let mut taken = lock().take(words)?;
    // The rest of it goes back.
    taken.truncate(words);
    taken.shrink_to_fit();
    Some(taken)
}

/// Drops the words, but may keep their memory.
pub(crate) fn keep(words: Vec<u64>) {
    if size_of_val(&*words) < LARGE_BYTES_MIN {
        return;
    }
    let (room, until) = (room(), Instant::now() + KEPT_FOR);
    let mut spare = lock();
    let surplus = spare.keep(Piece { words, until }, room);
    let was_watched = replace(&mut spare.is_watched, true);
    drop(spare);
    // Not under the lock: it may take a while.
    drop(surplus);
    if !was_watched && thread::Builder::new().name("rdask-spare".into()).spawn(watch).is_err() {
        give_back(until);
    }
}

/// Gives back what is late, as long as there is anything.
fn watch() {
    while let Some(until) = give_back(Instant::now()) {
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// Gives back what is late, and says when the next will be.
fn give_back(now: Instant) -> Option<Instant> {
    let mut spare = lock();
    let late = spare.remove_late(now);
    let next = spare.pieces.first().map(|piece| piece.until);
    spare.is_watched = next.is_some();
    drop(spare);
    drop(late);
    next
}

fn lock() -> MutexGuard<'static, Spare> {
    // Nothing that is done under it leaves things half done.
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spare {
    const fn new() -> Self {
        Self { pieces: Vec::new(), bytes: 0, is_watched: false }
    }

    /// The smallest piece that has so many words. One that is much larger stays for larger values.
    fn take(&mut self, words: usize) -> Option<Vec<u64>> {
        let fits = |piece: &Piece| (words..=words * 2).contains(&piece.words.len());
        let fitting = self.pieces.iter().enumerate().filter(|(_, piece)| fits(piece));
        let best = fitting.min_by_key(|(_, piece)| piece.words.len())?.0;
        let Piece { words, .. } = self.pieces.remove(best);
        self.bytes -= size_of_val(&*words);
        Some(words)
    }

    /// Returns what there is no room for any more: the oldest.
    fn keep(&mut self, piece: Piece, room: usize) -> Vec<Piece> {
        self.bytes += size_of_val(&*piece.words);
        self.pieces.push(piece);
        let mut left = self.bytes;
        let is_surplus = |piece: &&Piece| {
            let is_surplus = left > room;
            left -= if is_surplus { size_of_val(&*piece.words) } else { 0 };
            is_surplus
        };
        let surplus = self.pieces.iter().take_while(is_surplus).count();
        self.remove(surplus)
    }

    fn remove_late(&mut self, now: Instant) -> Vec<Piece> {
        self.remove(self.pieces.partition_point(|piece| piece.until <= now))
    }

    fn remove(&mut self, first: usize) -> Vec<Piece> {
        let removed: Vec<Piece> = self.pieces.drain(..first).collect();
        self.bytes -= removed.iter().map(|piece| size_of_val(&*piece.words)).sum::<usize>();
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words whose values tell one piece from another.
    fn piece(words: usize, mark: u64, until: u64) -> Piece {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = START.get_or_init(Instant::now);
        Piece { words: vec![mark; words], until: *start + Duration::from_secs(until) }
    }

    fn marks(pieces: &[Piece]) -> Vec<u64> {
        pieces.iter().map(|piece| piece.words[0]).collect()
    }

    #[test]
    fn the_oldest_make_room() {
        let mut spare = Spare::new();
        assert_eq!(marks(&spare.keep(piece(101, 1, 0), 800)), [1]);
        for mark in 2..=4 {
            assert!(spare.keep(piece(30, mark, 0), 800).is_empty());
        }
        assert!(spare.keep(piece(10, 5, 0), 800).is_empty());
        assert_eq!(marks(&spare.keep(piece(31, 6, 0), 800)), [2, 3]);
        assert_eq!((marks(&spare.pieces), spare.bytes), (vec![4, 5, 6], 71 * 8));
    }

    #[test]
    fn the_best_fit_is_taken() {
        let mut spare = Spare::new();
        for (words, mark) in [(40, 1), (20, 2), (30, 3)] {
            spare.keep(piece(words, mark, 0), 800);
        }
        assert_eq!(spare.take(9), None);
        assert_eq!(spare.take(41), None);
        assert_eq!(spare.take(21), Some(vec![3; 30]));
        assert_eq!(spare.take(20), Some(vec![2; 20]));
        assert_eq!(spare.bytes, 40 * 8);
    }

    #[test]
    fn what_is_late_goes_back() {
        let mut spare = Spare::new();
        spare.keep(piece(4, 1, 1), 800);
        spare.keep(piece(6, 2, 3), 800);
        let mut remove_late = |now| marks(&spare.remove_late(piece(1, 0, now).until));
        assert_eq!((remove_late(0), remove_late(2), remove_late(3)), (vec![], vec![1], vec![2]));
        assert_eq!(spare.bytes, 0);
    }

    #[test]
    fn memory_is_used_again() {
        let words = LARGE_BYTES_MIN / 8;
        let mut first = vec![0; words + 1];
        first[0] = 42;
        let start = first.as_ptr();
        keep(first);
        let again = take(words).expect("it was kept");
        assert_eq!((again.as_ptr(), again.len(), again[0]), (start, words, 42));
        assert_eq!(again.capacity(), words);
    }
}
