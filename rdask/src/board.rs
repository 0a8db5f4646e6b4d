//! The slot board: what a process runs at this moment, in memory that outlives it.
//!
//! A nanny makes a [`BoardFile`] for each process it starts, a file that is in memory only, and the
//! process maps it as its [`Board`]. Whatever runs user code has an [`Entry`] there and notes the
//! task before the body starts: one store per task, no lock, no system call. When the process has
//! died, by whatever signal, the nanny reads who was at it.
//!
//! An entry is a cache line with two words, array and run. A run is noted with one store, after
//! the array, so an entry is whole or empty however suddenly the process ends: stores of a thread
//! are made in its order, and the nanny looks when no thread is left. The first line says whether
//! the process has closed the board: it ends by itself then, and nobody is to blame.
//!
//! Mapping the file is the one place with `unsafe` code here, [`map`].

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};
use rdask_core::id::{ArrayId, ClientId, TaskId};
use rdask_core::process::PARKED_MAX;

/// The bytes of a line: a cache line, so that slots don't slow each other down.
const LINE_BYTES: usize = 64;

/// Lines for what encodes values for others, beside slots and parked runs.
const SPARE_LINES: u32 = 64;

/// No board has more lines: 4 MiB.
const LINES_MAX: u32 = 1 << 16;

/// What the first line says at the end.
const CLOSED: u64 = 1;

/// A line of a board.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Line {
    /// The client in the high half, the number of its array in the low half.
    array: AtomicU64,
    /// One more than the run in the high half, the index in the low half; 0 for nothing.
    run: AtomicU64,
}

const _: () = assert!(size_of::<Line>() == LINE_BYTES);

/// A board as its nanny has it.
#[derive(Debug)]
pub struct BoardFile(File);

impl BoardFile {
    /// An empty board for a process that is granted at most so many slots.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn create(slots: u32) -> io::Result<Self> {
        let file = File::from(memfd_create("rdask-board", MFdFlags::MFD_CLOEXEC)?);
        let lines = slots.saturating_add(PARKED_MAX as u32 + SPARE_LINES + 1).min(LINES_MAX);
        file.set_len(u64::from(lines) * LINE_BYTES as u64)?;
        Ok(Self(file))
    }

    /// Where the process finds it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// What ran when the process died: which tasks, and in which run; 0 if a result of the task
    /// was being encoded for others. Nothing if the process had closed its board.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read(&self) -> io::Result<Vec<(TaskId, u32)>> {
        let mut bytes = vec![0; self.0.metadata()?.len() as usize];
        self.0.read_exact_at(&mut bytes, 0)?;
        let word =
            |line: &[u8], at: usize| line[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
        let mut lines = bytes.chunks_exact(LINE_BYTES);
        if lines.next().is_none_or(|line| word(line, 8) == CLOSED) {
            return Ok(Vec::new());
        }
        let noted = lines.map(|line| (word(line, 0), word(line, 8))).filter(|(_, run)| *run != 0);
        Ok(noted
            .map(|(array, run)| {
                let client = ClientId((array >> 32) as u32);
                let array = ArrayId { client, number: array as u32 };
                (TaskId { array, index: run as u32 }, ((run >> 32) as u32).saturating_sub(1))
            })
            .collect())
    }
}

/// A board as the process has it that notes what it runs.
#[derive(Debug, Default)]
pub struct Board {
    /// Without any, nothing is noted: nobody would read it.
    lines: &'static [Line],
    /// Lines that nobody uses. Locked to take one or to give one back, once per chunk.
    free: Mutex<Vec<&'static Line>>,
}

impl Board {
    /// The board at this path. It stays mapped as long as the process lives.
    ///
    /// # Errors
    /// If it isn't there, or is no board.
    pub fn open(path: &str) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self::of(map(&file)?))
    }

    fn of(lines: &'static [Line]) -> Self {
        Self { lines, free: Mutex::new(lines.iter().skip(1).collect()) }
    }

    /// A line for somebody who is about to run tasks of an array. One of whom there are too many
    /// notes nothing.
    pub(crate) fn entry(&self, array: ArrayId) -> Entry<'_> {
        let line = match self.lines.is_empty() {
            true => None,
            false => self.free.lock().unwrap_or_else(PoisonError::into_inner).pop(),
        };
        if let Some(line) = line {
            let client = u64::from(array.client.0);
            line.array.store(client << 32 | u64::from(array.number), Ordering::Release);
        }
        Entry { board: self, line }
    }

    /// From now on nothing that is noted counts: the process ends, and no task is why.
    pub(crate) fn close(&self) {
        if let Some(line) = self.lines.first() {
            line.run.store(CLOSED, Ordering::Release);
        }
    }
}

/// A line in use.
#[derive(Debug)]
pub(crate) struct Entry<'b> {
    board: &'b Board,
    line: Option<&'static Line>,
}

impl Entry<'_> {
    /// The body of this task starts. Whatever was noted before has ended.
    #[inline]
    pub(crate) fn begin(&self, index: u32, run: u32) {
        if let Some(line) = self.line {
            let word = u64::from(run.saturating_add(1)) << 32 | u64::from(index);
            line.run.store(word, Ordering::Release);
        }
    }

    /// Nothing runs.
    #[inline]
    pub(crate) fn clear(&self) {
        if let Some(line) = self.line {
            line.run.store(0, Ordering::Release);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.clear();
        if let Some(line) = self.line {
            self.board.free.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}

/// Maps a board for good.
#[allow(unsafe_code, reason = "memory that two processes share")]
fn map(file: &File) -> io::Result<&'static [Line]> {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap};
    use std::num::NonZeroUsize;

    let count = usize::try_from(file.metadata()?.len()).unwrap_or(0) / LINE_BYTES;
    let length = NonZeroUsize::new(count * LINE_BYTES)
        .filter(|_| count <= LINES_MAX as usize)
        .ok_or_else(|| io::Error::other("it is no board"))?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: The kernel chooses the place, so nothing that is there is replaced. The mapping is a
    // whole number of lines, aligned to a page, and is never undone, so it is good for `'static`.
    // Any bytes are a valid `Line`. It is shared and changed by others only by atomic stores of
    // this process: its nanny only reads, by system calls, and doesn't shorten the file.
    unsafe {
        let start = mmap(None, length, access, MapFlags::MAP_SHARED, file, 0)?;
        Ok(std::slice::from_raw_parts(start.as_ptr().cast::<Line>().cast_const(), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(number: u32) -> ArrayId {
        ArrayId { client: ClientId(u32::MAX), number }
    }

    fn task(number: u32, index: u32) -> TaskId {
        TaskId { array: array(number), index }
    }

    #[test]
    fn the_file_tells_what_runs_and_nothing_else() {
        let file = BoardFile::create(2).unwrap();
        let board = Board::open(&file.path()).unwrap();
        assert_eq!(file.read().unwrap(), []);
        let (one, other) = (board.entry(array(7)), board.entry(array(u32::MAX)));
        assert_eq!(file.read().unwrap(), [], "nothing has begun");
        one.begin(5, 1);
        other.begin(u32::MAX, 3);
        let mut noted = file.read().unwrap();
        noted.sort_unstable();
        assert_eq!(noted, [(task(7, 5), 1), (task(u32::MAX, u32::MAX), 3)]);
        one.begin(6, 2);
        other.clear();
        assert_eq!(file.read().unwrap(), [(task(7, 6), 2)]);
        drop(one);
        assert_eq!(file.read().unwrap(), []);
        other.begin(0, 0);
        assert_eq!(file.read().unwrap(), [(task(u32::MAX, 0), 0)]);
        board.close();
        assert_eq!(file.read().unwrap(), [], "who ends by itself blames nobody");
    }

    #[test]
    fn lines_are_used_again_and_their_lack_harms_nobody() {
        let file = BoardFile::create(1).unwrap();
        let board = Board::open(&file.path()).unwrap();
        let many = board.lines.len() - 1;
        for _ in 0..2 {
            let entries: Vec<Entry<'_>> = (0..many + 5).map(|_| board.entry(array(0))).collect();
            entries.iter().zip(0..).for_each(|(entry, index)| entry.begin(index, 1));
            assert_eq!(file.read().unwrap().len(), many);
        }
        assert_eq!(file.read().unwrap(), []);
    }

    #[test]
    fn without_a_file_nothing_is_noted() {
        let board = Board::default();
        board.entry(array(0)).begin(0, 1);
        board.close();
        assert!(Board::open("/dev/null").is_err());
        assert!(Board::open("/no/such/file").is_err());
    }
}
