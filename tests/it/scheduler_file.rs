//! Scheduler files that are of no use: what clients say to do.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdask::{Client, ConnectOptions, ConnectionError, Error};

use crate::cluster::Cluster;
use crate::proc::kill_9;

/// What a client says of a file that it can't join by.
fn error_of(file: &Path) -> String {
    let error = Client::connect(file).map(drop).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()) || error.contains("127.0.0.1"), "{error}");
    error
}

/// The same of a file that waiting doesn't mend.
fn error_at_once(file: &Path) -> String {
    let started = Instant::now();
    let error = error_of(file);
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    error
}

fn private(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("broken.json");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    file
}

pub(crate) fn the_file_of_a_dead_scheduler_is_told_to_be_stale() {
    let cluster = Cluster::empty();
    kill_9(cluster.scheduler.pid());
    let error = error_of(&cluster.file());
    assert!(error.contains("no scheduler answers at 127.0.0.1:"), "{error}");
    assert!(error.contains("its file may be of a scheduler that has ended"), "{error}");
}

pub(crate) fn a_file_that_is_not_there_raises_the_right_questions() {
    let folder = tempfile::tempdir().unwrap();
    let error = error_of(&folder.path().join("none.json"));
    assert!(error.contains("is the scheduler running, and the file system shared?"), "{error}");
}

pub(crate) fn a_file_that_others_can_read_is_refused_with_the_command_to_run() {
    let cluster = Cluster::empty();
    let file = cluster.file();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let error = error_at_once(&file);
    assert!(error.contains("0644"), "{error}");
    let refused = Client::connect(&file).map(drop).unwrap_err();
    assert!(matches!(refused, Error::Connection(ConnectionError::Refused { .. })), "{refused}");
    assert!(error.contains(&format!("run: chmod 600 '{}'", file.display())), "{error}");
    let insecure = ConnectOptions::new().insecure_file_mode(true);
    assert!(Client::connect_with(&file, insecure).is_ok());
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert!(Client::connect(&file).is_ok());
}

pub(crate) fn garbage_is_told_from_half_a_file() {
    let cluster = Cluster::empty();
    let whole = fs::read_to_string(cluster.file()).unwrap();
    let error = error_at_once(&private(cluster.folder(), "name,age\nJane,40\n"));
    assert!(error.contains("is not a scheduler file; check the path"), "{error}");
    let error = error_of(&private(cluster.folder(), &whole[..whole.len() / 2]));
    assert!(error.contains("half-written") && error.contains("restart the scheduler"), "{error}");
}

pub(crate) fn a_file_of_a_later_version_names_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let file = private(folder.path(), r#"{"version": 999, "whatever": [1, 2, 3]}"#);
    let error = error_at_once(&file);
    assert!(error.contains("is of protocol version 999, this program speaks 1"), "{error}");
    let other = Client::connect(&file).map(drop).unwrap_err();
    assert!(matches!(other, Error::Connection(ConnectionError::Version { .. })), "{other}");
    assert!(error.contains("use the same rdask on both sides"), "{error}");
}

pub(crate) fn a_client_that_is_too_early_waits_for_the_file() {
    let cluster = Cluster::empty();
    let later = cluster.folder().join("later.json");
    let file = cluster.read_file();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| Client::connect(&later));
        // Whether it looks before or after, it finds the file.
        file.write(&later).unwrap();
        assert!(client.join().unwrap().is_ok());
    });
}
