//! The scheduler file on a real file system, honest and not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rdask_net::{Authority, FileMode, Garbage, PeerName, ReadError, SchedulerFile, WriteError};
use tempfile::tempdir;

fn file(run_id: &str) -> SchedulerFile {
    let authority = Authority::new(run_id).unwrap();
    let join = authority.issue(&PeerName::join(run_id).unwrap()).unwrap();
    SchedulerFile {
        version: SchedulerFile::VERSION,
        run_id: run_id.to_owned(),
        epoch: 1,
        addresses: vec!["10.1.2.3:7000".parse().unwrap()],
        tls_addresses: vec!["10.1.2.3:7000".parse().unwrap()],
        ca_certificate: join.ca_pem(),
        join_certificate: join.certificate_pem(),
        join_key: join.key_pem(),
        pid: 1,
        host: "login1".to_owned(),
        started: 1_700_000_000,
        slurm_job_id: None,
        local_sockets: true,
    }
}

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_written_is_read_and_good_for_joining() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("scheduler.json");
    file("r1").write(&path).unwrap();
    let read = SchedulerFile::read(&path, FileMode::Private).unwrap();
    assert_eq!(read, file_like(&read));
    assert_eq!(read.join_identity().unwrap().name().to_string(), "join.r1.rdask");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are left");
    assert!(fs::read_to_string(&path).unwrap().starts_with("{\n  \"version\": 1,"));
    assert!(!format!("{read:?}").contains("PRIVATE KEY"));
}

fn file_like(read: &SchedulerFile) -> SchedulerFile {
    SchedulerFile::from_json(&read.to_json()).unwrap()
}

#[test]
fn a_missing_file_is_missing() {
    let folder = tempdir().unwrap();
    let error = SchedulerFile::read(folder.path().join("no"), FileMode::Private).unwrap_err();
    assert!(matches!(error, ReadError::Missing { .. }), "{error}");
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_command_that_closes_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("it's here.json");
    file("r1").write(&path).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o660, 0o601] {
        set_mode(&path, mode);
        let error = SchedulerFile::read(&path, FileMode::Private).unwrap_err();
        let ReadError::Permissions { mode: found, fix, .. } = error else { panic!("{error}") };
        assert_eq!(found, mode);
        SchedulerFile::read(&path, FileMode::Insecure).unwrap();
        let status = std::process::Command::new("sh").arg("-c").arg(&fix).status().unwrap();
        assert!(status.success(), "{fix}");
        SchedulerFile::read(&path, FileMode::Private).unwrap();
    }
}

#[test]
fn a_foreign_file_is_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("scheduler.json");
    file("r1").write(&path).unwrap();
    // Only root can give files away; elsewhere there is nothing to test.
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
        return;
    }
    let error = SchedulerFile::read(&path, FileMode::Private).unwrap_err();
    assert!(matches!(error, ReadError::Owner { owner: 12_345, .. }), "{error}");
    SchedulerFile::read(&path, FileMode::Insecure).unwrap();
}

#[test]
fn every_cut_off_file_is_half_written() {
    let text = file("r1").to_json();
    let folder = tempdir().unwrap();
    let path = folder.path().join("scheduler.json");
    for length in 0..text.trim_end().len() {
        fs::write(&path, &text[..length]).unwrap();
        set_mode(&path, 0o600);
        let error = SchedulerFile::read(&path, FileMode::Private).unwrap_err();
        let half = matches!(error, ReadError::Garbage { what: Garbage::HalfWritten, .. });
        assert!(half, "{length}: {error}");
    }
}

#[test]
fn something_else_is_not_a_scheduler_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("scheduler.json");
    for bytes in [&b"hello"[..], b"{\"version\": \"x\"}", b"{}", b"\xff\xfe", b"{\"version\": 1}"] {
        fs::write(&path, bytes).unwrap();
        set_mode(&path, 0o600);
        let error = SchedulerFile::read(&path, FileMode::Private).unwrap_err();
        let other = matches!(error, ReadError::Garbage { what: Garbage::NotASchedulerFile, .. });
        assert!(other, "{error}");
    }
    let error = SchedulerFile::read(folder.path(), FileMode::Private).unwrap_err();
    assert!(matches!(error, ReadError::Garbage { .. }), "{error}");
}

#[test]
fn a_file_of_another_version_says_so_whatever_else_is_in_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("scheduler.json");
    fs::write(&path, "{\"version\": 9, \"everything\": [\"is\", \"different\"]}").unwrap();
    set_mode(&path, 0o600);
    let error = SchedulerFile::read(&path, FileMode::Private).unwrap_err();
    assert!(matches!(error, ReadError::Version { found: 9, ours: 1, .. }), "{error}");
}

#[test]
fn a_planted_symlink_is_replaced_and_not_followed() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("scheduler.json");
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, &path).unwrap();
    file("r1").write(&path).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    SchedulerFile::read(&path, FileMode::Private).unwrap();
}

#[test]
fn only_the_own_file_is_removed() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("scheduler.json");
    file("r2").write(&path).unwrap();
    assert!(!SchedulerFile::remove_own(&path, "r1").unwrap());
    assert!(SchedulerFile::remove_own(&path, "r2").unwrap());
    assert!(!SchedulerFile::remove_own(&path, "r2").unwrap());
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = tempdir().unwrap();
    let error = file("r1").write(folder.path().join("no/scheduler.json")).unwrap_err();
    assert!(matches!(error, WriteError::Io { step: "create", .. }), "{error}");
    assert!(matches!(file("r1").write("/").unwrap_err(), WriteError::NotAFile { .. }));
}
