//! The running executable as rdask sees it: its hash, its bytes, and what its processes inherit.
//!
//! The bytes are read through `/proc/self/exe`, which still names the running image when
//! `cargo build` has put a new file in its place.

pub mod cache;
pub mod exchange;

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use rdask_core::id::ProgramHash;
use rdask_core::message::{ProgramInfo, Surroundings};
use serde::{Deserialize, Serialize};

/// The running image, whatever its path names by now.
const SELF: &str = "/proc/self/exe";

/// Variables that processes inherit from their client, besides those that begin with a prefix of
/// [`INHERITED_PREFIXES`]. What a program finds its libraries and its modules by, and nothing that
/// belongs to the client's session.
const INHERITED: &[&str] = &[
    "PATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LANG",
    "TZ",
    "MODULEPATH",
    "LOADEDMODULES",
    "_LMFILES_",
    "CONDA_PREFIX",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "RUST_MIN_STACK",
    "RAYON_NUM_THREADS",
    "CUDA_HOME",
    "HDF5_USE_FILE_LOCKING",
];

/// Families of variables that processes inherit from their client.
const INHERITED_PREFIXES: &[&str] = &["LC_", "OMP_", "MKL_", "OPENBLAS_", "BLIS_", "EBROOT"];

/// Libraries that start threads of their own, one per processor, unless these are set.
const THREAD_COUNTS: &[&str] = &[
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
];

/// The hash of this executable's bytes, computed once.
///
/// # Errors
/// If the executable can't be read, as when a file server lost it.
pub fn hash() -> io::Result<ProgramHash> {
    Ok(measured()?.0)
}

/// This executable, as its client announces it.
///
/// # Errors
/// If the executable can't be read.
pub fn info() -> io::Result<ProgramInfo> {
    let (hash, size) = measured()?;
    let path = std::fs::read_link(SELF)?.to_string_lossy().into_owned();
    // The kernel marks a path whose file was replaced; the file there has another hash then.
    let path = path.trim_end_matches(" (deleted)").to_owned();
    Ok(ProgramInfo { hash, size, path })
}

/// The bytes of this executable.
///
/// # Errors
/// If the executable can't be opened.
pub fn open() -> io::Result<File> {
    File::open(SELF)
}

/// The program's file name, for logs.
#[must_use]
pub fn name() -> String {
    let path = std::fs::read_link(SELF).unwrap_or_default();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "program".to_owned());
    name.trim_end_matches(" (deleted)").to_owned()
}

/// What the processes of this client inherit.
#[must_use]
pub fn surroundings() -> Surroundings {
    let folder = std::env::current_dir().unwrap_or_default();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| is_inherited(name))
        .collect();
    Surroundings {
        folder: folder.to_string_lossy().into_owned(),
        umask: umask(),
        environment,
        cpu_features: cpu_features(),
    }
}

/// The hash and length of what a reader gives.
///
/// # Errors
/// As the reader's.
pub fn hash_bytes(mut from: impl Read) -> io::Result<(ProgramHash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((ProgramHash(*hasher.finalize().as_bytes()), size)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}

/// The hash of a file.
///
/// # Errors
/// If it can't be read.
pub fn hash_file(path: &Path) -> io::Result<ProgramHash> {
    Ok(hash_bytes(File::open(path)?)?.0)
}

/// What is added to a process's environment where the variable isn't set: one thread per task.
pub(crate) fn thread_counts(is_set: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let unset = THREAD_COUNTS.iter().filter(|name| !is_set(name));
    unset.map(|name| ((*name).to_owned(), "1".to_owned())).collect()
}

/// A file as it was at some moment. The kernel sees to it that one whose bytes have changed since
/// doesn't equal it, which is told without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    changed_s: i64,
    changed_ns: i64,
}

impl FileState {
    /// Of the file that has these metadata.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed_s: metadata.ctime(),
            changed_ns: metadata.ctime_nsec(),
        }
    }
}

/// Takes over the hash that this executable had in a state, if it is still in that one.
///
/// # Errors
/// If the executable can't be looked at.
pub fn adopt(hash: ProgramHash, state: FileState) -> io::Result<()> {
    if FileState::of(&std::fs::metadata(SELF)?) == state {
        MEASURED.get_or_init(|| (hash, state.size));
    }
    Ok(())
}

static MEASURED: OnceLock<(ProgramHash, u64)> = OnceLock::new();

fn measured() -> io::Result<(ProgramHash, u64)> {
    if let Some(measured) = MEASURED.get() {
        return Ok(*measured);
    }
    let measured = hash_bytes(open()?)?;
    Ok(*MEASURED.get_or_init(|| measured))
}

fn is_inherited(name: &str) -> bool {
    INHERITED.contains(&name) || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The umask, read where reading doesn't change it.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok()).unwrap_or(0o022)
}

fn cpu_features() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let words = line.and_then(|line| line.split_once(':')).map_or("", |(_, words)| words);
    words.split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_the_hash_of_its_file() {
        let info = info().unwrap();
        assert_eq!(info.hash, hash_file(Path::new(&info.path)).unwrap());
        assert_eq!(info.size, std::fs::metadata(&info.path).unwrap().len());
    }

    #[test]
    fn the_hash_is_blake3() {
        let (hash, size) = hash_bytes(&b"abc"[..]).unwrap();
        assert_eq!(size, 3);
        assert_eq!(hash.to_string(), "6437b3ac");
    }

    #[test]
    fn secrets_of_the_session_are_not_inherited() {
        for name in ["SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY", "SLURM_JOB_ID", "HOME"] {
            assert!(!is_inherited(name), "{name}");
        }
        assert!(is_inherited("LD_LIBRARY_PATH") && is_inherited("LC_ALL"));
    }

    #[test]
    fn libraries_get_one_thread_unless_told_otherwise() {
        let added = thread_counts(|name| name == "OMP_NUM_THREADS");
        assert!(added.iter().all(|(name, value)| name != "OMP_NUM_THREADS" && value == "1"));
        assert_eq!(added.len(), THREAD_COUNTS.len() - 1);
    }

    #[test]
    fn surroundings_name_the_folder_and_umask() {
        let surroundings = surroundings();
        assert_eq!(Path::new(&surroundings.folder), std::env::current_dir().unwrap());
        assert!(surroundings.umask <= 0o777);
    }
}
