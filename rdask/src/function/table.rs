//! The link-time table of functions: all `unsafe` code of this matter is in this file.
//!
//! [`register`] is generic over the [`Call`]. Wherever the compiler instantiates it, an `asm!` block
//! without instructions adds one pointer to a section of the object file: the address of [`record`]
//! for that `Call`. The linker concatenates these sections and defines symbols for their start and
//! end. So the table lists what *can* be submitted, before anything is, in every process of the
//! program.
//!
//! The flag `R` (retain) is essential: without it, linkers drop sections that nothing refers to.
//! The compiler may copy an `asm!` block, as when it inlines, so records repeat; they are folded
//! when the table is first read.
//!
//! Where there is no such section (Miri, other systems), registering adds to a table at run time.
//! Then only processes that submit a function know it, which is enough for a cluster inside one
//! process.

#![allow(
    unsafe_code,
    reason = "a table made by the linker, and values of functions made from nothing"
)]
#![allow(
    clippy::uninit_assumed_init,
    reason = "functions have no size, so nothing is uninitialised"
)]

use std::any::{TypeId, type_name};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::mem::MaybeUninit;

use super::{Call, Chunk, Entry, UnknownFunction, trampoline};

/// What the table points to. All fields are functions, so that it is a constant.
pub(super) struct Record {
    id: fn() -> TypeId,
    call: fn(&mut Chunk<'_>),
    name: fn() -> &'static str,
}

fn record<C: Call>() -> &'static Record {
    const { &Record { id: TypeId::of::<C>, call: call::<C>, name: type_name::<C::Function> } }
}

/// Sees to it that the function is in the table of every process of this program, and returns its
/// entry.
///
/// It takes the function itself as a witness that such a value exists: `call` makes another one
/// from nothing.
///
/// # Errors
/// If the linker dropped the function.
#[inline]
pub fn register<C: Call>(_witness: C::Function) -> Result<&'static Entry, UnknownFunction> {
    place::add::<C>();
    entry(key(TypeId::of::<C>())).ok_or(UnknownFunction { name: type_name::<C::Function>() })
}

/// The function of this key, if this program has one.
pub fn entry(key: u64) -> Option<&'static Entry> {
    place::entry(key)
}

/// All functions of this program that can be submitted, by key.
pub fn entries() -> Vec<&'static Entry> {
    place::entries()
}

fn call<C: Call>(chunk: &mut Chunk<'_>) {
    // Public methods refuse such functions at compile time; a second compile error from here would
    // only confuse.
    assert!(size_of::<C::Function>() == 0, "rdask: a task function has no size");
    // SAFETY: The type has no size, so there are no bytes to initialise. It is `Copy + Send + Sync
    // + 'static`, so a value of it may be duplicated, on any thread, at any time, once one exists.
    // One does: a chunk names its function by a key, keys are handed out by `register` alone, and
    // that was given a value, here or in another process of the same program. (A peer that makes
    // keys up could name a function that was compiled but never submitted; it holds the cluster's
    // credentials. For a type without values `assume_init` panics.) What remains is a closure that
    // captures a zero-sized token vouching for a fact of one machine; the documentation of `TaskFn`
    // excludes it.
    let function = unsafe { MaybeUninit::<C::Function>::uninit().assume_init() };
    trampoline::run::<C>(function, chunk);
}

/// The key of a type: FNV-1a over what its type id hashes.
fn key(id: TypeId) -> u64 {
    struct Fnv(u64);

    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }

        fn write(&mut self, bytes: &[u8]) {
            for &byte in bytes {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }

    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    id.hash(&mut hasher);
    hasher.finish()
}

/// Folds records into a table by key.
///
/// # Panics
/// If two different functions have the same key. No program can work with that, and rebuilding it
/// after any change gives other keys.
fn fold(records: impl IntoIterator<Item = &'static Record>) -> BTreeMap<u64, (TypeId, Entry)> {
    let mut table = BTreeMap::new();
    for record in records {
        let id = (record.id)();
        let key = key(id);
        let new = Entry { key, call: record.call, name: record.name };
        // Equal types may have several copies of `call`, one per crate that uses it: compare the
        // types.
        let (known_id, known) = *table.entry(key).or_insert((id, new));
        assert!(
            known_id == id,
            "rdask: the task functions {} and {} have the same key {key:016x}; change either of them a little",
            (known.name)(),
            (record.name)(),
        );
    }
    table
}

/// The table that the linker made.
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
    not(miri)
))]
mod place {
    use super::*;
    use std::collections::HashMap;
    use std::ptr;
    use std::sync::OnceLock;

    type Pointer = fn() -> &'static Record;

    unsafe extern "C" {
        // Zero-sized on purpose: only their addresses mean something.
        #[link_name = "__start_rdask_functions"]
        static START: [usize; 0];
        #[link_name = "__stop_rdask_functions"]
        static STOP: [usize; 0];
    }

    #[inline(always)]
    pub(super) fn add<C: Call>() {
        // SAFETY: No instruction is emitted. The directives write one aligned pointer into a
        // section of our own and return to the section that was current. The pointer is to
        // `record::<C>`, a `fn() -> &'static Record`.
        unsafe {
            core::arch::asm!(
                ".pushsection rdask_functions,\"awR\",%progbits",
                ".p2align 3",
                ".8byte {record}",
                ".popsection",
                record = sym record::<C>,
                options(nomem, nostack, preserves_flags),
            );
        }
    }

    pub(super) fn entry(key: u64) -> Option<&'static Entry> {
        table().get(&key)
    }

    pub(super) fn entries() -> Vec<&'static Entry> {
        let mut entries: Vec<_> = table().values().collect();
        entries.sort_by_key(|entry| entry.key);
        entries
    }

    fn table() -> &'static HashMap<u64, Entry> {
        static TABLE: OnceLock<HashMap<u64, Entry>> = OnceLock::new();
        TABLE.get_or_init(|| {
            // The linker defines the symbols only if there is a section. A program that submits
            // nothing has this one.
            add::<Nothing>();
            let records = linked().iter().map(|record| record());
            fold(records).into_iter().map(|(key, (_, entry))| (key, entry)).collect()
        })
    }

    fn linked() -> &'static [Pointer] {
        let start = (&raw const START).addr();
        let count = ((&raw const STOP).addr() - start) / size_of::<Pointer>();
        // SAFETY: Between these symbols the linker put the sections of this name and nothing else.
        // Each consists of pointers written by `add`, aligned to 8 bytes, so they lie without gaps.
        // They are relocated before `main` and never written again. The provenance is that of the
        // linked image, which no Rust object describes.
        unsafe { std::slice::from_raw_parts(ptr::with_exposed_provenance(start), count) }
    }

    /// Keeps the table from being empty.
    struct Nothing;

    impl Call for Nothing {
        type Function = fn_nothing::Item;
        type Value = ();

        fn call(
            _: Self::Function,
            _: &mut crate::function::Cursor<'_>,
        ) -> Result<(), Box<crate::function::Failure>> {
            Ok(())
        }
    }

    mod fn_nothing {
        #[derive(Clone, Copy)]
        pub(super) struct Item;
    }
}

/// A table that fills as functions are submitted.
#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
    not(miri)
)))]
mod place {
    use super::*;
    use std::sync::RwLock;

    /// Entries are never removed: one per function of the program, so the leak has an end.
    static TABLE: RwLock<BTreeMap<u64, (TypeId, &'static Entry)>> = RwLock::new(BTreeMap::new());

    pub(super) fn add<C: Call>() {
        let read = TABLE.read().expect("nothing panics while it holds the table");
        if read.contains_key(&key(TypeId::of::<C>())) {
            return;
        }
        drop(read);
        for (key, (id, entry)) in fold([record::<C>()]) {
            let mut table = TABLE.write().expect("nothing panics while it holds the table");
            table.entry(key).or_insert_with(|| (id, Box::leak(Box::new(entry))));
        }
    }

    pub(super) fn entry(key: u64) -> Option<&'static Entry> {
        let table = TABLE.read().expect("nothing panics while it holds the table");
        table.get(&key).map(|(_, entry)| *entry)
    }

    pub(super) fn entries() -> Vec<&'static Entry> {
        let table = TABLE.read().expect("nothing panics while it holds the table");
        table.values().map(|(_, entry)| *entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dummy(_: &mut Chunk<'_>) {}

    #[test]
    fn equal_records_are_folded() {
        static ONE: Record = Record { id: TypeId::of::<u8>, call: dummy, name: || "one" };
        static TWO: Record = Record { id: TypeId::of::<u16>, call: dummy, name: || "two" };
        let table = fold([&ONE, &TWO, &ONE]);
        let names: Vec<_> = table.values().map(|(_, entry)| (entry.name)()).collect();
        assert_eq!(table.len(), 2);
        assert!(names.contains(&"one") && names.contains(&"two"));
    }

    #[test]
    fn unknown_keys_have_no_entry() {
        assert!(entry(0).is_none());
        assert!(entry(u64::MAX).is_none());
    }

    #[test]
    fn the_table_lists_what_was_never_submitted() {
        if cfg!(miri) {
            return;
        }
        assert!(
            entries().iter().all(|one| entry(one.key).is_some_and(|other| other.key == one.key))
        );
        assert!(!entries().is_empty());
    }
}
