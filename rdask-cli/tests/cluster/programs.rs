//! How programs come to workers.

use super::*;

#[test]
fn a_worker_that_leaves_gives_its_program_to_its_successor() {
    let cluster = Cluster::new();
    let folder = cluster.folder.path();
    let start = |log: &str| {
        let mut command = rdask("worker --host 127.0.0.1 --nworkers 1 --nthreads 2");
        command.env("RDASK_SCHEDULER_FILE", &cluster.file);
        command.env("RDASK_CACHE", folder.join(format!("cache-{log}")));
        Running::start(command, folder, log)
    };
    let _scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    let mut first = start("first");
    // The first worker copies the client's file; then it is gone.
    let copy = folder.join("short-lived");
    fs::copy(RDASK, &copy).unwrap();
    fs::write(
        folder.join("lines"),
        "until [ -e end ]; do sleep 0.1; done\n\
        echo ran >> log; head -c 100000 /dev/zero | tr '\\0' x\n",
    )
    .unwrap();
    let mut client = Command::new(&copy);
    client.args(["map", "--each-line", "lines", "--", "sh", "-c"]).current_dir(folder);
    client.env("RDASK_SCHEDULER_FILE", &cluster.file).stdout(Stdio::piped());
    let client = client.spawn().unwrap();
    wait_until("a run", || folder.join("log").exists());
    wait_until("its end", || cluster.status("--json").1.contains("\"assigned\": 1,"));
    fs::remove_file(&copy).unwrap();

    first.terminate();
    wait_until("the notice", || cluster.log("s").contains("a nanny is leaving"));
    let _second = start("second");
    wait_until("the program", || cluster.log("second").contains("MB, "));
    fs::write(folder.join("end"), "").unwrap();
    assert_eq!(first.exit_code(), 0, "{}", cluster.log("first"));
    let (code, out, _) = text(&client.wait_with_output().unwrap());
    assert_eq!((code, out.len()), (Some(0), 100_000));
    assert_eq!(cluster.log("log"), "ran\n", "what the first held was copied");
}
