//! Other client programs: copies of this one with other bytes, and what they do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rdask::Client;

/// What this program's functions return. In a copy the number is another, and so is the code.
#[used]
static EDITION: [u8; 32] = *b"rdask-tests, edition number 0000";

/// How many digits the number has.
const DIGITS: usize = 4;

/// The number of this program among its copies.
pub(crate) fn edition(_: u32) -> u32 {
    let text = std::hint::black_box(&EDITION);
    str::from_utf8(&text[EDITION.len() - DIGITS..]).unwrap().parse().unwrap()
}

/// A copy of this program whose functions return another number: the same program built anew.
pub(crate) fn rebuilt(folder: &Path, number: u32) -> PathBuf {
    let mut bytes = fs::read("/proc/self/exe").unwrap();
    let at = bytes.windows(EDITION.len()).position(|window| window == EDITION).unwrap();
    let digits = at + EDITION.len() - DIGITS..at + EDITION.len();
    bytes[digits].copy_from_slice(format!("{number:04}").as_bytes());
    let path = folder.join(format!("edition-{number:04}"));
    // Written under another name: a file that this program has open for writing, or a child of a
    // test beside this one, can't be started.
    let temporary = folder.join(format!("edition-{number:04}.new"));
    fs::write(&temporary, bytes).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(&temporary, &path).unwrap();
    path
}

/// Plays a scene as a client program.
#[expect(clippy::print_stdout, reason = "what the test reads")]
pub(crate) fn play(scene: &str, file: &str, arguments: &[&str]) {
    let client = Client::connect(file).unwrap();
    match (scene, arguments) {
        // So many tasks that return this program's number.
        ("editions", [count]) => {
            let count: u32 = count.parse().unwrap();
            let editions = client.gather(client.map(edition, 0..count)).unwrap();
            assert!(editions.iter().all(|one| *one == edition(0)), "another program's tasks");
            println!("edition {} ran {}", edition(0), editions.len());
        }
        // Results that outlive this program.
        ("detach", [name]) => {
            let values = client.map(|x: u32| vec![x; 1000], 0..100);
            client.detach(name, &values).unwrap();
        }
        // So many tasks of 1 ms.
        ("naps", [count]) => {
            let count: u32 = count.parse().unwrap();
            client.gather(client.map(crate::fairness::nap, 0..count)).unwrap();
        }
        _ => panic!("no scene {scene} with {arguments:?}"),
    }
}
