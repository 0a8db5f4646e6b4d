//! Several programs at a time, and programs that are built anew.

use std::path::Path;

use crate::cluster::Cluster;
use crate::proc::{is_alive, wait_until};
use crate::program::{edition, rebuilt};

pub(crate) fn two_programs_at_a_time_run_their_own_code() {
    let cluster = Cluster::new(2, 2);
    let paths = [1, 2].map(|number| rebuilt(cluster.folder(), number));
    let others = paths.map(|path| cluster.program(&path, "editions", &["20000"]));
    let client = cluster.client();
    let mine = client.gather(client.map(edition, 0..20_000)).unwrap();
    assert!(mine.iter().all(|one| *one == 0), "another program's tasks");
    for (other, number) in others.into_iter().zip(1..) {
        let output = other.output();
        assert!(output.contains(&format!("edition {number} ran 20000")), "{output}");
    }
}

pub(crate) fn a_program_that_is_built_anew_at_the_same_place_runs_its_new_code() {
    let cluster = Cluster::new(1, 2);
    let place = cluster.folder().join("program");
    for number in 1..=3 {
        std::fs::rename(rebuilt(cluster.folder(), number), &place).unwrap();
        let output = cluster.program(&place, "editions", &["100"]).output();
        assert!(output.contains(&format!("edition {number} ran 100")), "{output}");
    }
}

pub(crate) fn a_program_that_is_deleted_while_it_runs_still_works() {
    let cluster = Cluster::new(1, 1);
    let path = rebuilt(cluster.folder(), 1);
    let program = cluster.program(&path, "editions", &["100"]);
    std::fs::remove_file(&path).unwrap();
    assert!(program.output().contains("edition 1 ran 100"));
}

/// As on a full disk: nothing can be written where the scheduler keeps programs.
pub(crate) fn a_program_that_the_scheduler_cannot_keep_is_told_to_be_so() {
    let cluster = Cluster::new(1, 1);
    let run = cluster.read_file().run_id;
    let store = std::env::temp_dir().join(format!("rdask-scheduler-{run}"));
    std::fs::remove_dir(&store).unwrap();
    std::fs::write(&store, "no folder").unwrap();
    let path = rebuilt(cluster.folder(), 1);
    let mut program = cluster.program(&path, "editions", &["100"]);
    std::fs::remove_file(&path).unwrap();
    let status = program.wait();
    std::fs::remove_file(&store).unwrap();
    assert!(!status.success(), "{}", program.log());
    let log = program.log();
    assert!(log.contains("TMPDIR for a scheduler"), "{log}");
    assert!(log.contains("the client can't bring it"), "{log}");
}

/// The processes of ten programs without clients: their end after a minute is tested with the
/// core, by its own clock; here they end with their nanny, killed or not.
pub(crate) fn no_process_outlives_its_nanny() {
    let mut cluster = Cluster::new(1, 1);
    for number in 1..=10 {
        let path = rebuilt(cluster.folder(), number);
        cluster.program(&path, "editions", &["10"]).output();
    }
    let processes = cluster.processes();
    assert_eq!(processes.len(), 10, "one for each program that was there a moment ago");
    cluster.nannies.clear();
    wait_until("they have ended", || !processes.iter().any(|pid| is_alive(*pid)));
}

pub(crate) fn a_name_brings_results_from_one_program_to_the_next() {
    let cluster = Cluster::new(2, 1);
    let this = Path::new("/proc/self/exe").canonicalize().unwrap();
    cluster.program(&this, "detach", &["vectors"]).output();
    let client = cluster.client();
    let values = client.attach::<Vec<u32>>("vectors").unwrap();
    assert_eq!(values.len(), 100);
    let sums = client.map(|v: Vec<u32>| v.iter().sum::<u32>(), &values);
    assert_eq!(client.gather(sums).unwrap(), (0..100).map(|x| x * 1000).collect::<Vec<_>>());
    let values = client.gather(values).unwrap();
    assert!(values.iter().zip(0..).all(|(value, x)| *value == vec![x; 1000]));
    let error = client.attach::<Vec<u32>>("vectors").unwrap_err();
    assert!(error.to_string().contains("\"vectors\""), "{error}");
}
