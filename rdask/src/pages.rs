//! Large pages for large memory.
//!
//! The system gives memory in pages of 4 KiB, each by a fault of its own when it is first touched,
//! unless it may use large pages. On many systems it may only where it was told so. For 256 MiB
//! that is 128 faults instead of 65,536, and a third of the time.
//!
//! Telling it is the one place with `unsafe` code here, `prefer_large`.

use std::ffi::c_void;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// The bytes of a large page, or of a part of one where they are larger.
const LARGE: usize = 2 << 20;

/// Less than a few large pages is not worth a system call, and may be memory that was touched
/// before.
const WORTH_BYTES: usize = 4 * LARGE;

/// Lets the system use large pages for memory that nobody has touched yet. That it doesn't is no
/// failure.
#[allow(unsafe_code, reason = "advice on memory is given by address")]
pub(crate) fn prefer_large<T>(memory: &mut [T]) {
    let bytes = size_of_val(memory);
    if bytes < WORTH_BYTES {
        return;
    }
    let start: NonNull<c_void> = NonNull::from(memory).cast();
    let skipped = start.as_ptr().align_offset(LARGE);
    let Some(length) = bytes.checked_sub(skipped).map(|rest| rest / LARGE * LARGE) else {
        return;
    };
    // SAFETY: `start + skipped` to `start + skipped + length` lies within `memory`, which is
    // borrowed for us alone. The advice changes which pages hold it, never what it holds.
    let advised = unsafe { madvise(start.byte_add(skipped), length, MmapAdvise::MADV_HUGEPAGE) };
    if let Err(error) = advised {
        tracing::trace!(%error, "no large pages");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_holds_what_it_held() {
        let mut numbers = vec![0_u64; (WORTH_BYTES + LARGE) / 8];
        prefer_large(&mut numbers);
        numbers.iter_mut().zip(0..).for_each(|(one, value)| *one = value);
        prefer_large(&mut numbers);
        assert!(numbers.iter().zip(0..).all(|(one, expected)| *one == expected));
    }
}
