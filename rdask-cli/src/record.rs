//! Which nannies run on this machine: one small file for each, so that `chaos/kill_pool.sh` and
//! people find a pool's processes without asking a scheduler that may not answer.
//!
//! A file outlives a nanny that is killed, and numbers of processes are used again: whoever reads
//! it must compare the time at which the process started. Jobs of Slurm have no such files:
//! `scancel` knows their processes, and their nodes may share a folder but no numbers.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file of this nanny, as long as it lives.
#[derive(Debug)]
pub(crate) struct Record(PathBuf);

impl Record {
    /// Writes the file into the folder of this user's nannies, and removes those of dead ones.
    pub(crate) fn write(pool: &str, scheduler_file: &Path) -> io::Result<Self> {
        Self::write_into(&folder(), pool, scheduler_file)
    }

    fn write_into(folder: &Path, pool: &str, scheduler_file: &Path) -> io::Result<Self> {
        open_folder(folder)?;
        remove_stale(folder);
        let pid = std::process::id();
        let start = start_of(pid).ok_or_else(|| io::Error::other("/proc can't be read"))?;
        let file = std::path::absolute(scheduler_file)?;
        let text = format!(
            "pid {pid}\nstart {start}\nhost {}\npool {}\nscheduler-file {}\n",
            host(),
            printable(pool),
            printable(&file.to_string_lossy())
        );
        let path = folder.join(pid.to_string());
        // What is there under this name is a dead nanny's: we have its number now.
        drop(fs::remove_file(&path));
        let mut new = fs::OpenOptions::new();
        new.write(true).create_new(true).mode(0o600);
        io::Write::write_all(&mut new.open(&path)?, text.as_bytes())?;
        Ok(Self(path))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "the record stays");
        }
    }
}

/// Where the files are.
fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("rdask-nannies-{}", nix::unistd::geteuid()))
}

/// Makes sure that nobody else can write there: a signal is sent to whom these files name.
fn open_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::symlink_metadata(folder)?;
    let ours = metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw();
    if !ours || metadata.mode() & 0o077 != 0 {
        let reason = format!("{} is open to others", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(())
}

/// Removes the files of nannies of this machine that have ended without doing it.
fn remove_stale(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let pid = field("pid").and_then(|pid| pid.parse().ok());
        let lives = pid.is_some_and(|pid| start_of(pid).as_deref() == field("start"));
        if field("host") == Some(&host()) && !lives {
            drop(fs::remove_file(path));
        }
    }
}

/// When a process started, in clock ticks since the machine did; `None` if there is none.
fn start_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything but ends with the last parenthesis.
    let fields = stat.rsplit_once(')')?.1;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// One line, whatever a label holds.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_says_who_runs_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("nannies");
        let record = Record::write_into(&folder, "a\nb", "s.json".as_ref()).unwrap();
        let pid = std::process::id();
        let text = fs::read_to_string(folder.join(pid.to_string())).unwrap();
        let start = start_of(pid).unwrap();
        assert!(text.starts_with(&format!("pid {pid}\nstart {start}\nhost ")), "{text}");
        assert!(text.contains("\npool a?b\nscheduler-file /"), "{text}");
        drop(record);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn the_files_of_dead_nannies_are_removed_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        // The number lives, but it is not who wrote this.
        let pid = std::process::id();
        fs::write(folder.path().join("1"), format!("pid {pid}\nstart 1\nhost {}\n", host()))
            .unwrap();
        fs::write(folder.path().join("2"), "pid 2\nstart 1\nhost another\n").unwrap();
        let _record = Record::write_into(folder.path(), "p", "s.json".as_ref()).unwrap();
        assert!(!folder.path().join("1").exists() && folder.path().join("2").exists());
    }

    #[test]
    fn a_folder_that_is_open_to_others_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Record::write_into(folder.path(), "p", "s.json".as_ref()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
