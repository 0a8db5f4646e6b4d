//! The programs of a node: files named by hash, shared by all nannies of a user there.
//!
//! A program is written under a temporary name, made readable and executable, and renamed: as long
//! as the node runs, there are never half its bytes under its own name. It is hashed by each nanny
//! that takes it, and again if the file has been touched since, so that a power cut or a person that
//! changed it costs a transfer and never runs. Locks are `flock`s: they end with their nanny, however
//! that ends.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC,
    fstatfs,
};
use rdask_core::id::ProgramHash;
use thiserror::Error;

use crate::handover::parse_hash;
use crate::program::{self, FileState};

/// The most bytes of programs to keep on a node. About 40 debug builds.
pub const CACHE_BYTES_MAX: u64 = 2 << 30;

/// What a dead nanny left half written is removed after this time.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// How precisely it is known when a program was last used.
const USE_GRAIN: Duration = Duration::from_secs(60);

/// The programs of a node.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    /// The state in which each file had the right bytes.
    checked: Arc<Mutex<HashMap<ProgramHash, FileState>>>,
}

/// A program that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedProgram {
    /// Its file.
    pub path: PathBuf,
    /// The file as it was when it had the right bytes.
    pub state: FileState,
}

/// The cache can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// No folder could be had.
    #[error(
        "programs can't be kept in {folder}: set RDASK_CACHE to another folder for a worker, TMPDIR \
         for a scheduler"
    )]
    Folder {
        /// The last folder that was tried.
        folder: PathBuf,
        /// Why it couldn't be used.
        #[source]
        source: io::Error,
    },
    /// Somebody else could put programs there.
    #[error(
        "the program cache {folder} belongs to another user: set RDASK_CACHE to a folder of your own"
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
    },
    /// A program could not be written or read.
    #[error("program {hash} can't be kept in {folder}")]
    File {
        /// The program.
        hash: ProgramHash,
        /// The cache.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bytes that came are others.
    #[error("what should be program {expected} has the hash {found}")]
    OtherBytes {
        /// What was asked for.
        expected: ProgramHash,
        /// What came.
        found: ProgramHash,
    },
}

impl Cache {
    /// The cache of this node: `$RDASK_CACHE`, or else the first of these that can be used: the
    /// given local folder, the scratch folder of the Slurm job, `$TMPDIR`, `/tmp`.
    ///
    /// # Errors
    /// If none of them can be used.
    pub fn of_this_node(local_folder: Option<&Path>) -> Result<Self, CacheError> {
        if let Some(folder) = std::env::var_os("RDASK_CACHE").filter(|value| !value.is_empty()) {
            return Self::open(Path::new(&folder), CACHE_BYTES_MAX);
        }
        let own = format!("rdask-cache-{}", nix::unistd::getuid());
        let variables = ["SLURM_TMPDIR", "TMPDIR"].iter().filter_map(std::env::var_os);
        let mut bases: Vec<PathBuf> = local_folder.map(Path::to_owned).into_iter().collect();
        bases.extend(variables.map(PathBuf::from));
        bases.push(PathBuf::from("/tmp"));
        let mut last = None;
        for base in bases {
            match Self::open(&base.join(&own), CACHE_BYTES_MAX) {
                Ok(cache) => return Ok(cache),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("at least /tmp was tried"))
    }

    /// The cache in a folder, which is created if need be and closed to others.
    ///
    /// # Errors
    /// If the folder can't be created or belongs to somebody else.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, CacheError> {
        own_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), bytes_max, checked: Arc::default() })
    }

    /// Where the cache is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program that is here with all its bytes. They are read when it is found for the first time,
    /// and when its file has been touched since. A file with other bytes is removed.
    #[must_use]
    pub fn find(&self, hash: ProgramHash) -> Option<CachedProgram> {
        let path = self.path_of(hash);
        let mut file = File::open(&path).ok()?;
        note_use(&file);
        let state = FileState::of(&file.metadata().ok()?);
        if self.checked().get(&hash) == Some(&state) {
            return Some(CachedProgram { path, state });
        }
        match program::hash_bytes(&mut file) {
            Ok((found, _)) if found == hash => {
                self.checked().insert(hash, state);
                Some(CachedProgram { path, state })
            }
            Ok((found, _)) => {
                tracing::warn!(path = %path.display(), %found, "removed a program with other bytes");
                // Another nanny may have put the right ones there meanwhile.
                let now = fs::symlink_metadata(&path);
                if now.is_ok_and(|metadata| FileState::of(&metadata) == state) {
                    drop(fs::remove_file(&path));
                }
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a cached program can't be read");
                None
            }
        }
    }

    /// The right to bring a program here, `None` while another nanny of this node has it.
    ///
    /// # Errors
    /// If the lock file can't be used.
    pub fn try_claim(&self, hash: ProgramHash) -> Result<Option<Claim>, CacheError> {
        let failed = |source| self.file_error(hash, source);
        // Whoever tidies up folders for temporary files may have removed it since.
        own_folder(&self.folder)?;
        let path = self.folder.join(format!("{hash:#}.lock"));
        let file = open_lock(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Claim { _lock: lock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Takes a program from a reader.
    ///
    /// # Errors
    /// If it can't be read or written, or has another hash.
    pub fn store(
        &self,
        hash: ProgramHash,
        mut from: impl Read,
    ) -> Result<CachedProgram, CacheError> {
        let mut incoming = self.begin(hash)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return incoming.finish(),
                Ok(count) => incoming.write(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.file_error(hash, error)),
            }
        }
    }

    /// Begins to take a program whose bytes come piece by piece.
    ///
    /// # Errors
    /// If nothing can be written.
    pub fn begin(&self, hash: ProgramHash) -> Result<IncomingProgram, CacheError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        own_folder(&self.folder)?;
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("incoming-{}-{counter}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| self.file_error(hash, source))?;
        let hasher = Box::new(blake3::Hasher::new());
        Ok(IncomingProgram { cache: self.clone(), hash, path, file: Some(file), hasher })
    }

    /// Forgets a program. A process that runs it keeps running.
    pub fn remove(&self, hash: ProgramHash) {
        if let Err(error) = fs::remove_file(self.path_of(hash)) {
            tracing::debug!(%hash, %error, "a program that was to be forgotten stays");
        }
    }

    /// Removes the programs that were not used for longest, until the rest fits the limit.
    fn make_room(&self, keep: &Path) -> io::Result<()> {
        let lock = open_lock(&self.folder.join("lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let mut programs = Vec::new();
        let mut bytes = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another nanny may have removed or renamed it by now.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let Ok(modified) = metadata.modified() else {
                continue;
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            if parse_hash(&name).is_some() {
                bytes += metadata.len();
                programs.push((modified, metadata.len(), entry.path()));
            } else if name.starts_with("incoming-")
                && modified.elapsed().is_ok_and(|age| age > LEFTOVER_AGE)
            {
                fs::remove_file(entry.path())?;
            }
        }
        programs.sort();
        for (_, length, path) in programs {
            if bytes <= self.bytes_max {
                break;
            }
            if path != keep {
                fs::remove_file(path)?;
                bytes -= length;
            }
        }
        Ok(())
    }

    fn checked(&self) -> MutexGuard<'_, HashMap<ProgramHash, FileState>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, hash: ProgramHash) -> PathBuf {
        self.folder.join(format!("{hash:#}"))
    }

    fn file_error(&self, hash: ProgramHash, source: io::Error) -> CacheError {
        CacheError::File { hash, folder: self.folder.clone(), source }
    }
}

/// Whether a file system is one of those that say at once when they are full. Nothing is synced
/// there: what a power cut leaves of a program is found out by the first nanny that takes it.
fn is_local(file: &File) -> bool {
    let local =
        [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC];
    fstatfs(file).is_ok_and(|one| local.contains(&one.filesystem_type()))
}

/// Only the order in which programs are forgotten hangs on this. Not each time: whoever has checked
/// the file would have to do so again.
fn note_use(file: &File) {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    if modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > USE_GRAIN)) {
        drop(file.set_modified(SystemTime::now()));
    }
}

/// Sees to it that a folder is there, this user's, and closed to others.
fn own_folder(folder: &Path) -> Result<(), CacheError> {
    let failed = |source| CacheError::Folder { folder: folder.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let metadata = fs::symlink_metadata(folder).map_err(failed)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(CacheError::Foreign { folder: folder.to_owned() });
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// The right to bring a program to a node, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    _lock: Flock<File>,
}

/// A program on its way into the cache. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct IncomingProgram {
    cache: Cache,
    hash: ProgramHash,
    path: PathBuf,
    /// `None` once its bytes are under the program's own name.
    file: Option<File>,
    hasher: Box<blake3::Hasher>,
}

impl IncomingProgram {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        self.hasher.update(bytes);
        let file = self.file.as_mut().expect("only finishing takes the file");
        file.write_all(bytes).map_err(|source| self.cache.file_error(self.hash, source))
    }

    /// Puts the program under its name, if it has the right bytes.
    ///
    /// # Errors
    /// If it has others, or can't be written.
    pub fn finish(mut self) -> Result<CachedProgram, CacheError> {
        let found = ProgramHash(*self.hasher.finalize().as_bytes());
        if found != self.hash {
            return Err(CacheError::OtherBytes { expected: self.hash, found });
        }
        let path = self.cache.path_of(self.hash);
        let publish = || {
            let file = self.file.as_ref().expect("only finishing takes the file");
            file.set_permissions(Permissions::from_mode(0o500))?;
            if !is_local(file) {
                // A file server says only now that its disk is full.
                file.sync_all()?;
            }
            fs::rename(&self.path, &path)?;
            Ok(FileState::of(&file.metadata()?))
        };
        let state = publish().map_err(|source| self.cache.file_error(self.hash, source))?;
        self.file = None;
        self.cache.checked().insert(self.hash, state);
        if let Err(error) = self.cache.make_room(&path) {
            tracing::warn!(%error, folder = %self.cache.folder.display(), "old programs stay");
        }
        Ok(CachedProgram { path, state })
    }
}

impl Drop for IncomingProgram {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(bytes_max: u64) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache"), bytes_max).unwrap();
        (folder, cache)
    }

    fn hash(bytes: &[u8]) -> ProgramHash {
        program::hash_bytes(bytes).unwrap().0
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_stored_program_is_found_and_closed_to_others() {
        let (_folder, cache) = cache(100);
        assert_eq!(cache.find(hash(b"abc")), None);
        let stored = cache.store(hash(b"abc"), &b"abc"[..]).unwrap();
        assert_eq!(cache.find(hash(b"abc")), Some(stored.clone()));
        assert_eq!((mode(&stored.path), mode(cache.folder())), (0o500, 0o700));
    }

    #[test]
    fn other_bytes_are_neither_kept_nor_run() {
        let (_folder, cache) = cache(100);
        let error = cache.store(hash(b"abc"), &b"xyz"[..]).unwrap_err();
        assert!(matches!(error, CacheError::OtherBytes { .. }), "{error}");
        assert_eq!(fs::read_dir(cache.folder()).unwrap().count(), 0);

        let path = cache.store(hash(b"abc"), &b"abc"[..]).unwrap().path;
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        fs::write(&path, b"abd").unwrap();
        assert_eq!(cache.find(hash(b"abc")), None);
        assert!(!path.exists());
    }

    #[test]
    fn who_has_checked_a_program_does_not_read_it_again_until_it_is_touched() {
        let (_folder, cache) = cache(100);
        let stored = cache.store(hash(b"abc"), &b"abc"[..]).unwrap();
        let other = Cache::open(cache.folder(), 100).unwrap();
        assert_eq!(other.find(hash(b"abc")), Some(stored.clone()), "whoever reads it first");

        fs::set_permissions(&stored.path, Permissions::from_mode(0o700)).unwrap();
        let touched = cache.find(hash(b"abc")).unwrap();
        assert_ne!(touched.state, stored.state);
        assert_eq!(cache.find(hash(b"abc")), Some(touched));
    }

    #[test]
    fn an_unfinished_program_leaves_nothing() {
        let (_folder, cache) = cache(100);
        let mut incoming = cache.begin(hash(b"abc")).unwrap();
        incoming.write(b"a").unwrap();
        drop(incoming);
        assert_eq!(fs::read_dir(cache.folder()).unwrap().count(), 0);
    }

    #[test]
    fn the_program_that_was_not_used_for_longest_goes_first() {
        let (_folder, cache) = cache(5);
        let old = |bytes: &[u8], age| {
            let path = cache.store(hash(bytes), bytes).unwrap().path;
            let then = SystemTime::now() - Duration::from_secs(age);
            File::open(path).unwrap().set_modified(then).unwrap();
        };
        old(b"aa", 200);
        old(b"bb", 300);
        assert!(cache.find(hash(b"bb")).is_some(), "finding it is a use");
        cache.store(hash(b"cc"), &b"cc"[..]).unwrap();
        assert_eq!(cache.find(hash(b"aa")), None);
        assert!(cache.find(hash(b"bb")).is_some() && cache.find(hash(b"cc")).is_some());
        // What is larger than the whole cache is kept as long as it is the newest.
        cache.store(hash(b"larger"), &b"larger"[..]).unwrap();
        assert!(cache.find(hash(b"larger")).is_some() && cache.find(hash(b"cc")).is_none());
    }

    #[test]
    fn a_folder_that_was_tidied_away_comes_back() {
        let (_folder, cache) = cache(100);
        fs::remove_dir_all(cache.folder()).unwrap();
        let _claim = cache.try_claim(hash(b"abc")).unwrap().expect("nobody has it");
        cache.store(hash(b"abc"), &b"abc"[..]).unwrap();
        assert_eq!(mode(cache.folder()), 0o700);
    }

    #[test]
    fn one_nanny_at_a_time_brings_a_program() {
        let (_folder, cache) = cache(100);
        let claim = cache.try_claim(hash(b"abc")).unwrap().expect("nobody has it");
        assert!(cache.try_claim(hash(b"abc")).unwrap().is_none());
        assert!(cache.try_claim(hash(b"xyz")).unwrap().is_some(), "another program");
        drop(claim);
        assert!(cache.try_claim(hash(b"abc")).unwrap().is_some());
    }

    #[test]
    fn many_writers_of_one_program_do_not_disturb_each_other() {
        let (_folder, cache) = cache(1 << 20);
        let bytes = vec![7; 100_000];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| cache.store(hash(&bytes), &bytes[..]).unwrap());
            }
        });
        assert!(cache.find(hash(&bytes)).is_some());
    }

    #[test]
    fn an_open_folder_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Cache::open(folder.path(), 1).unwrap();
        assert_eq!(mode(folder.path()), 0o700);
    }

    /// A file system of its own, of so many KiB; gone when it is dropped.
    struct Disk(tempfile::TempDir);

    impl Disk {
        /// None if this user may not mount.
        fn of(kib: u32) -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(folder.path());
            let is_mounted = mount.output().is_ok_and(|done| done.status.success());
            is_mounted.then_some(Self(folder))
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            drop(std::process::Command::new("umount").arg("-l").arg(self.0.path()).status());
        }
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "for whoever looks for why")]
    fn a_full_disk_is_told_and_keeps_nothing_of_what_did_not_fit() {
        let Some(disk) = Disk::of(256) else {
            eprintln!("skipped: only root can mount a small disk");
            return;
        };
        let cache = Cache::open(&disk.0.path().join("cache"), 1 << 30).unwrap();
        let small = cache.store(hash(b"abc"), &b"abc"[..]).unwrap();
        let large = vec![7; 1 << 20];
        for _ in 0..3 {
            let error = cache.store(hash(&large), &large[..]).unwrap_err();
            let CacheError::File { source, .. } = &error else { panic!("{error}") };
            assert_eq!(source.kind(), io::ErrorKind::StorageFull, "{error}");
        }
        assert_eq!(cache.find(hash(&large)), None);
        assert_eq!(cache.find(hash(b"abc")), Some(small), "what was there works");
        // The place is free again: nothing is left of the tries.
        let fits = vec![7; 200 << 10];
        cache.store(hash(&fits), &fits[..]).unwrap();
    }
}
