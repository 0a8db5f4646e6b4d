//! The built `rdask` command: real processes on loopback, and what people see of them.

#![expect(clippy::unwrap_used, reason = "a test that can not go on ends")]

#[path = "cluster/commands.rs"]
mod commands;
#[path = "cluster/programs.rs"]
mod programs;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const RDASK: &str = env!("CARGO_BIN_EXE_rdask");

/// Whatever a test waits for takes a fraction of a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn rdask(arguments: &str) -> Command {
    let mut command = Command::new(RDASK);
    command.args(arguments.split_whitespace()).env_remove("RDASK_SCHEDULER_FILE");
    command
}

fn run(arguments: &str) -> (i32, String, String) {
    let Output { status, stdout, stderr } = rdask(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A command that is killed with its test.
struct Running(Child);

impl Running {
    fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        let log = fs::File::create(folder.join(name)).unwrap();
        command.stderr(log).stdout(Stdio::null()).current_dir(folder);
        Self(command.spawn().unwrap())
    }

    fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(killed.unwrap().success());
    }

    fn exit_code(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().expect("it ended by itself");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("still running after {PATIENCE:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Cluster {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scheduler.json");
        Self { folder, file }
    }

    fn start(&self, arguments: &str, log: &str) -> Running {
        let mut command = rdask(arguments);
        command.env("RDASK_SCHEDULER_FILE", &self.file);
        command.env("RDASK_CACHE", self.folder.path().join("cache"));
        Running::start(command, self.folder.path(), log)
    }

    fn status(&self, more: &str) -> (i32, String, String) {
        run(&format!("status --scheduler-file {} {more}", self.file.display()))
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

#[test]
fn a_cluster_comes_up_in_any_order_and_goes_down_together() {
    let cluster = Cluster::new();
    let mut worker =
        cluster.start("worker --host 127.0.0.1 --nworkers 2 --nthreads 1 --pool p9", "w");
    let mut scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    let (code, out, err) = cluster.status("--wait --workers 2 --timeout 30s");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("pool p9: 2 worker(s), 0 of 2 slots busy"), "{out}");
    let (code, out, _) = cluster.status("--json");
    assert_eq!(code, 0);
    assert!(out.contains("\"pool\": \"p9\""), "{out}");

    scheduler.terminate();
    assert_eq!(scheduler.exit_code(), 0, "{}", cluster.log("s"));
    assert_eq!(worker.exit_code(), 0, "{}", cluster.log("w"));
    assert!(cluster.log("w").contains("SIGTERM"), "{}", cluster.log("w"));
    assert!(!cluster.file.exists());
}

#[test]
fn a_worker_that_is_terminated_leaves_in_good_order() {
    let cluster = Cluster::new();
    let _scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    let mut worker = cluster.start("worker --host 127.0.0.1", "w");
    assert_eq!(cluster.status("--wait --timeout 30s").0, 0);
    worker.terminate();
    assert_eq!(worker.exit_code(), 0, "{}", cluster.log("w"));
    let (_, out, _) = cluster.status("");
    assert!(out.contains("none; bring some"), "{out}");
}

#[test]
fn a_worker_moves_to_the_next_scheduler() {
    let cluster = Cluster::new();
    let mut first = cluster.start("scheduler --host 127.0.0.1", "s1");
    let _worker = cluster.start("worker --host 127.0.0.1", "w");
    assert_eq!(cluster.status("--wait --timeout 30s").0, 0);
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let _second = cluster.start("scheduler --host 127.0.0.1", "s2");
    let (code, _, err) = cluster.status("--wait --timeout 60s");
    assert_eq!(code, 0, "{err}\n{}\n{}", cluster.log("s2"), cluster.log("w"));
}

#[test]
fn without_a_scheduler_everybody_ends_with_3() {
    let cluster = Cluster::new();
    // It waits for a while.
    let mut submit = cluster.client(&["submit", "--", "true"]);
    let submit = submit.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (code, _, err) = cluster.status("");
    assert_eq!(code, 3, "{err}");
    assert!(err.starts_with("error: no scheduler file") && err.contains("\nhint: "), "{err}");
    let (code, _, err) = cluster.status("--wait --timeout 300ms");
    assert_eq!(code, 3);
    assert!(err.contains("waited 0.3 s for 1 worker"), "{err}");
    let mut worker = cluster.start("worker --death-timeout 500ms", "w");
    assert_eq!(worker.exit_code(), 3);
    assert!(cluster.log("w").contains("hint: is the scheduler running"), "{}", cluster.log("w"));
    let (code, _, err) = text(&submit.wait_with_output().unwrap());
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("no scheduler file") && err.contains("hint: is the scheduler"), "{err}");
}

#[test]
fn too_few_workers_on_a_scheduler_that_answers_end_a_wait_with_6() {
    let cluster = Cluster::new();
    let _scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    assert_eq!(cluster.status("--wait --workers 0 --timeout 30s").0, 0);
    let (code, out, err) = cluster.status("--wait --workers 2 --timeout 300ms");
    assert_eq!((code, out.as_str()), (6, ""), "{err}");
    assert!(err.contains("waited 0.3 s for 2 worker(s)") && err.contains("0 of 2"), "{err}");
    assert!(err.contains("hint: the scheduler is there."), "{err}");
}

#[test]
fn each_way_not_to_be_let_in_has_its_exit_code_in_every_command() {
    let cluster = Cluster::new();
    for (content, mode, expected) in [
        (r#"{"version": 999}"#, 0o600, 5),
        ("name,age\nJane,40\n", 0o600, 4),
        ("whatever", 0o644, 4),
    ] {
        fs::write(&cluster.file, content).unwrap();
        fs::set_permissions(&cluster.file, fs::Permissions::from_mode(mode)).unwrap();
        let commands: [&[&str]; 5] = [
            &["status", "--wait", "--timeout", "60s"],
            &["retire", "p9"],
            &["explain", "c0.0.0"],
            &["worker"],
            &["submit", "--", "true"],
        ];
        for command in commands {
            let (code, _, err) = text(&cluster.client(command).output().unwrap());
            assert_eq!(code, Some(expected), "{command:?} with {content:?}: {err}");
        }
        fs::remove_file(&cluster.file).unwrap();
    }
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_command_to_run() {
    let cluster = Cluster::new();
    let _scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    assert_eq!(cluster.status("--wait --workers 0 --timeout 30s").0, 0);
    fs::set_permissions(&cluster.file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, err) = cluster.status("");
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("chmod"), "{err}");
    assert_eq!(cluster.status("--insecure-file-mode").0, 0);
    let mut second = cluster.start("scheduler --host 127.0.0.1 --insecure-file-mode", "s2");
    assert_eq!(second.exit_code(), 4);
    assert!(cluster.log("s2").contains("another scheduler uses"), "{}", cluster.log("s2"));
    let mut worker = cluster.start("worker", "w");
    assert_eq!(worker.exit_code(), 4, "{}", cluster.log("w"));
    let _worker = cluster.start("worker --host 127.0.0.1 --insecure-file-mode", "w2");
    let submit = ["submit", "--insecure-file-mode", "--", "echo", "1"];
    let (code, out, err) = text(&cluster.client(&submit).output().unwrap());
    assert_eq!((code, out.as_str()), (Some(0), "1\n"), "{err}");
}

#[test]
fn a_second_scheduler_is_refused() {
    let cluster = Cluster::new();
    let _first = cluster.start("scheduler --host 127.0.0.1", "s1");
    assert_eq!(cluster.status("--wait --workers 0 --timeout 30s").0, 0);
    let mut second = cluster.start("scheduler --host 127.0.0.1", "s2");
    assert_eq!(second.exit_code(), 4);
    assert!(cluster.log("s2").contains("another scheduler uses"), "{}", cluster.log("s2"));
}

#[test]
fn mistakes_are_answered_with_what_to_type() {
    let (code, _, err) = run("worker ---interface ib0");
    assert_eq!(code, 2);
    assert_eq!(err, "error: ---interface has too many dashes\nhint: write --interface\n");
    let (code, _, err) = run("worker --interfaec ib0");
    assert_eq!(code, 2);
    assert!(err.contains("--interface"), "{err}");
    let (code, _, err) = run("worker --no-nanny");
    assert_eq!(code, 2);
    assert!(err.contains("Dask") && err.contains("hint: "), "{err}");
    let (code, _, err) = run("worker --scheduler-file x --memory-limit lots");
    assert_eq!(code, 2);
    assert!(err.contains("4GiB"), "{err}");
    for command in ["submit", "map --each-line x"] {
        let (code, _, err) = run(&format!("{command} gzip job.json"));
        assert_eq!(code, 2);
        assert!(err.contains("hint: write -- before the command"), "{err}");
    }
}

/// A disk that is always full.
fn full() -> fs::File {
    fs::OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
fn what_cannot_be_printed_is_no_success_and_no_panic() {
    let cluster = Cluster::new();
    let _running = cluster.up();
    for arguments in [&["status", "--json"][..], &["submit", "--", "echo", "1"]] {
        let (code, _, err) = text(&cluster.client(arguments).stdout(full()).output().unwrap());
        assert_eq!(code, Some(1), "{arguments:?}: {err}");
        assert!(err.contains("can't write to standard output"), "{err}");
    }
    let missing = ["submit", "--", "no-such-command"];
    let output = cluster.client(&missing).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    let output = rdask("worker ---interface ib0").stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn an_address_in_the_place_of_the_file_is_answered_with_what_to_type() {
    for place in ["tcp://h:1", "h:8786", "worker.example:8786"] {
        for command in ["worker", "status", "worker --nthreads 2", "submit"] {
            let (code, _, err) = run(&format!("{command} {place}"));
            assert_eq!(code, 2);
            assert!(err.contains("found by its file") && err.contains("--scheduler-file"), "{err}");
        }
    }
    let (code, _, err) = run("worker scheduler.json");
    assert_eq!(code, 2);
    assert!(err.ends_with("hint: write --scheduler-file scheduler.json\n"), "{err}");
}

#[test]
fn what_dask_takes_is_taken() {
    let cluster = Cluster::new();
    let _scheduler = cluster.start("scheduler --host localhost", "s");
    let _all = cluster.start("worker --host localhost --nworkers auto --nthreads 1 --pool a", "a");
    let _each = cluster.start("worker --host localhost --nworkers -1 --pool b", "b");
    let cores = std::thread::available_parallelism().unwrap();
    let (code, out, err) =
        cluster.status(&format!("--wait --workers {} --timeout 30s", cores.get() + 1));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("pool a: 1 worker(s), 0 of 1 slots busy"), "{out}");
    let each = format!("pool b: {cores} worker(s), 0 of {cores} slots busy");
    assert!(out.contains(&each), "{out}");
    let (code, _, err) = run("worker --scheduler-file x --host tcp://n1:8786");
    assert_eq!(code, 2);
    assert!(err.contains("ports have a flag of their own"), "{err}");
    let (code, out, _) = run("worker --version");
    assert_eq!((code, out.starts_with("rdask")), (0, true), "{out}");
}

#[test]
fn help_teaches_by_example() {
    let (code, out, _) = run("--help");
    assert_eq!(code, 0);
    assert!(out.contains("rdask scheduler --scheduler-file scheduler.json &"), "{out}");
    let (code, out, _) = run("worker --help");
    assert_eq!(code, 0);
    assert!(out.contains("srun -c 16 rdask worker"), "{out}");
}

#[test]
fn the_names_of_dask_work() {
    let scheduler = Command::new(env!("CARGO_BIN_EXE_rdask-scheduler")).arg("--help").output();
    let worker = Command::new(env!("CARGO_BIN_EXE_rdask-worker")).arg("--help").output();
    for (output, flag) in [(scheduler, "--idle-timeout"), (worker, "--nthreads")] {
        let output = output.unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(flag));
    }
}

#[test]
fn the_stock_binary_is_a_program_that_workers_can_start() {
    let output = Command::new(RDASK).arg("--rdask-probe").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("rdask-probe 1 "), "{text}");
    let output = Command::new(RDASK).arg("--rdask-process").stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(70));
    assert!(text.contains("standard input holds no hand-over"), "{text}");
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

impl Cluster {
    /// A scheduler and one nanny with two workers of one slot.
    fn up(&self) -> (Running, Running) {
        let scheduler = self.start("scheduler --host 127.0.0.1", "s");
        let worker = self.start("worker --host 127.0.0.1 --nworkers 2 --nthreads 1", "w");
        let (code, _, err) = self.status("--wait --workers 2 --timeout 30s");
        assert_eq!(code, 0, "{err}");
        (scheduler, worker)
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(RDASK);
        command.args(arguments).current_dir(self.folder.path());
        command.env("RDASK_SCHEDULER_FILE", &self.file);
        command
    }
}

#[test]
fn commands_run_in_this_folder_and_answer_in_order() {
    let cluster = Cluster::new();
    let _running = cluster.up();
    let folder = fs::canonicalize(cluster.folder.path()).unwrap();

    let script = "pwd; echo $X >&2; cat; exit 3";
    let output = cluster.client(&["submit", "--env", "X=y z", "--", "sh", "-c", script]).output();
    let (code, out, err) = text(&output.unwrap());
    assert_eq!(
        (code, out.as_str()),
        (Some(3), format!("{}\n", folder.display()).as_str()),
        "{err}"
    );
    assert_eq!(err, "y z\n");

    fs::write(folder.join("lines"), "0.5 a\n0 b\n0 c\n").unwrap();
    let script = "set -- $1; sleep $1; echo $2; test $2 != b";
    let output = cluster
        .client(&["map", "--each-line", "lines", "--", "sh", "-c", script, "sh", "{}"])
        .output();
    let (code, out, err) = text(&output.unwrap());
    assert_eq!((code, out.as_str()), (Some(1), "a\nb\nc\n"), "{err}");

    let (code, _, err) =
        text(&cluster.client(&["submit", "--", "no-such-command"]).output().unwrap());
    assert_eq!(code, Some(127), "{err}");
    assert!(err.starts_with("error: node ") && err.contains("no-such-command"), "{err}");
}

#[test]
fn scripts_get_one_line_of_json_per_command_in_order() {
    let cluster = Cluster::new();
    let _running = cluster.up();
    fs::write(cluster.folder.path().join("lines"), "0.3 a\n0 b\n").unwrap();
    let script = "set -- $1; sleep $1; echo $2; echo w >&2; test $2 != b";
    let map = ["map", "--json", "--each-line", "lines", "--", "sh", "-c", script, "sh"];
    let (code, out, err) = text(&cluster.client(&map).output().unwrap());
    assert_eq!(code, Some(1), "{err}");
    assert!(!err.lines().any(|line| line == "w"), "it is in the JSON: {err}");
    let node = rdask::slurm::node_name();
    let expected = [(0, "0.3 a", 0, "a\n"), (1, "0 b", 1, "b\n")];
    let expected: Vec<serde_json::Value> = expected
        .map(|(index, line, status, stdout)| {
            serde_json::json!({
                "index": index, "line": line, "status": status, "node": node, "error": null,
                "stdout": stdout, "stderr": "w\n",
            })
        })
        .into();
    let found: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found, expected);

    let (code, out, err) =
        text(&cluster.client(&["submit", "--json", "--", "no-such-command"]).output().unwrap());
    assert_eq!(code, Some(127), "{err}");
    assert!(!err.contains("error:"), "it is in the JSON: {err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["status"], &found["line"]), (&127.into(), &serde_json::Value::Null));
    assert!(found["error"].as_str().unwrap().contains("no-such-command"), "{out}");
}

#[test]
fn a_program_that_the_node_cannot_see_is_sent_once() {
    let cluster = Cluster::new();
    let _running = cluster.up();
    // The client's file is gone before any worker looks for it.
    let copy = cluster.folder.path().join("short-lived");
    fs::copy(RDASK, &copy).unwrap();
    let mut client = Command::new(&copy);
    client.args(["map", "--each-line", "-", "--", "echo"]).stdin(Stdio::piped());
    client.stdout(Stdio::piped()).stderr(Stdio::piped());
    client.env("RDASK_SCHEDULER_FILE", &cluster.file);
    let mut client = client.spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    fs::remove_file(&copy).unwrap();
    std::io::Write::write_all(&mut stdin, b"1\n2\n3\n4\n").unwrap();
    drop(stdin);
    let (code, out, err) = text(&client.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (Some(0), "1\n2\n3\n4\n"), "{err}\n{}", cluster.log("w"));
    let log = cluster.log("w");
    assert_eq!(log.matches("received from scheduler (").count(), 1, "{log}");
}

/// The numbers of the processes that a nanny has started.
fn processes(log: &str) -> Vec<u32> {
    let lines = log.lines().filter(|line| line.contains("INFO started "));
    let pid = |line: &str| line.split("pid=").nth(1)?.split_whitespace().next()?.parse().ok();
    lines.filter_map(pid).collect()
}

fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[test]
fn killed_processes_and_nannies_cost_time_and_no_result() {
    let cluster = Cluster::new();
    let (_scheduler, mut worker) = cluster.up();
    fs::write(cluster.folder.path().join("lines"), "1\n2\n3\n4\n5\n6\n").unwrap();
    let mut client = cluster.client(&["map", "--each-line", "lines", "--"]);
    client.args(["sh", "-c", "sleep 0.4; echo $0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = client.spawn().unwrap();

    wait_until("processes", || processes(&cluster.log("w")).len() == 2);
    let killed = processes(&cluster.log("w"))[0].to_string();
    assert!(Command::new("kill").args(["-9", &killed]).status().unwrap().success());
    wait_until("the report", || cluster.log("w").contains("exit=Signal(9)"));
    wait_until("a new process", || processes(&cluster.log("w")).len() == 3);

    let all = processes(&cluster.log("w"));
    worker.0.kill().unwrap();
    worker.0.wait().unwrap();
    wait_until("the end of processes", || !all.iter().any(|pid| is_alive(*pid)));
    let _next = cluster.start("worker --host 127.0.0.1 --nthreads 2", "w2");
    let (code, out, err) = text(&client.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (Some(0), "1\n2\n3\n4\n5\n6\n"), "{err}");
}

#[test]
fn retire_names_pools_or_workers_and_waits_until_they_are_gone() {
    let cluster = Cluster::new();
    let (_scheduler, _worker) = cluster.up();
    let mut other = cluster.start("worker --host 127.0.0.1 --nthreads 1 --pool p9", "w2");
    assert_eq!(cluster.status("--wait --workers 3 --timeout 30s").0, 0);
    let retire =
        |more: &str| run(&format!("retire --scheduler-file {} {more}", cluster.file.display()));
    let (code, _, err) = retire("p8");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("no pool and no worker is called p8; there are local, p9"), "{err}");
    let (code, out, err) = retire("p9 --json");
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("\"schema\": \"rdask-retire\"") && out.contains("\"gone\": true"),
        "{out}"
    );
    assert_eq!(other.exit_code(), 0, "{}", cluster.log("w2"));
    let (code, out, _) = retire("local --no-wait");
    // They have nothing to do, and may be gone before it has asked.
    assert!(code == 0 && out.contains("2 worker(s) "), "{out}");
}

/// A command that runs for a minute on some worker, and has begun.
fn begin(cluster: &Cluster) -> Running {
    let mut client = cluster.client(&["submit", "--", "sh", "-c", "echo x >> began; sleep 60"]);
    client.stderr(Stdio::null()).stdout(Stdio::null());
    let client = Running(client.spawn().unwrap());
    wait_until("it runs", || cluster.folder.path().join("began").exists());
    client
}

#[test]
fn retire_says_what_it_waits_for_and_gives_up_what_is_left_in_the_end() {
    let cluster = Cluster::new();
    let _scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    let mut worker = cluster.start("worker --host 127.0.0.1 --nthreads 1 --name w0", "w");
    assert_eq!(cluster.status("--wait --timeout 30s").0, 0);
    let _client = begin(&cluster);
    let (code, out, err) =
        text(&cluster.client(&["retire", "w0", "--no-wait", "--json"]).output().unwrap());
    assert!(code == Some(0) && out.contains("\"runs\": 1"), "{out}{err}");
    // Ctrl-C ends the wait, and the worker leaves on.
    let mut waiting = cluster.client(&["retire", "w0"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = waiting.id().to_string();
    // A signal that comes before it listens would end it.
    let blocked = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains("SigBlk:\t0000000000000002")
    };
    wait_until("it listens", blocked);
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let (code, out, err) = text(&waiting.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (Some(130), "1 worker(s) are leaving\n"), "{err}");
    assert!(err.starts_with("w0 waits for 1 task(s) to end (c"), "{err}");
    assert!(cluster.status("").1.contains("leaving"));
    let ended = cluster.client(&["retire", "w0", "--timeout", "1s"]).output();
    let (code, out, err) = text(&ended.unwrap());
    assert_eq!((code, out.as_str()), (Some(0), "1 worker(s) have left\n"), "{err}");
    assert!(err.contains("goes in 1 s in any case"), "{err}");
    assert_eq!(worker.exit_code(), 0, "{}", cluster.log("w"));
    // What was given up runs again, and nobody is blamed.
    fs::remove_file(cluster.folder.path().join("began")).unwrap();
    let _next = cluster.start("worker --host 127.0.0.1 --nthreads 1", "w2");
    wait_until("it runs again", || cluster.folder.path().join("began").exists());
}

#[test]
fn workers_have_the_names_that_help_promises() {
    let cluster = Cluster::new();
    let _scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    let alone = cluster.start("worker --host 127.0.0.1 --nthreads 1", "alone");
    let mut in_job = rdask("worker --host 127.0.0.1 --nthreads 1 --nworkers 2");
    in_job.env("RDASK_SCHEDULER_FILE", &cluster.file);
    in_job.env("RDASK_CACHE", cluster.folder.path().join("cache"));
    // Its end is known, so that nobody is asked for it.
    in_job.env("SLURM_JOB_ID", "4711").env("SLURM_PROCID", "3").env("SLURMD_NODENAME", "node7");
    in_job.env("SLURM_JOB_END_TIME", "4000000000");
    let _in_job = Running::start(in_job, cluster.folder.path(), "in_job");
    let (code, out, err) = cluster.status("--wait --workers 3 --timeout 30s");
    assert_eq!(code, 0, "{err}");
    for name in
        [format!("-{} ", alone.0.id()), " node7-4711-3-0 ".into(), " node7-4711-3-1 ".into()]
    {
        assert!(out.contains(&name), "no {name} in {out}");
    }
}

#[test]
fn a_lifetime_ends_a_worker_with_and_without_a_scheduler() {
    let cluster = Cluster::new();
    let mut alone = cluster.start("worker --host 127.0.0.1 --lifetime 300ms", "alone");
    assert_eq!(alone.exit_code(), 0, "{}", cluster.log("alone"));
    let _scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    let worker = "worker --host 127.0.0.1 --lifetime 3s --lifetime-stagger 1s";
    let mut worker = cluster.start(worker, "w");
    let (code, out, err) = cluster.status("--wait --timeout 30s");
    assert!(code == 0 && out.contains(", leaves in "), "{out}{err}");
    assert_eq!(worker.exit_code(), 0, "{}", cluster.log("w"));
    assert!(cluster.log("s").contains("its lifetime is over: it leaves"), "{}", cluster.log("s"));
}

#[test]
fn slurm_is_asked_once_for_the_end_of_a_job_and_all_its_workers_obey() {
    let cluster = Cluster::new();
    let _scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    let (folder, asked) = (cluster.folder.path(), cluster.folder.path().join("asked"));
    let script = format!("#!/bin/sh\necho $* >> {}\necho 0:04\n", asked.display());
    fs::write(folder.join("squeue"), script).unwrap();
    fs::set_permissions(folder.join("squeue"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut workers: Vec<Running> = (0..3)
        .map(|nth| {
            let mut command = rdask("worker --host 127.0.0.1 --nthreads 1");
            command.env("RDASK_SCHEDULER_FILE", &cluster.file);
            command.env("RDASK_CACHE", folder.join("cache"));
            command.env("SLURM_JOB_ID", "4711").env("PATH", &path);
            Running::start(command, folder, &format!("w{nth}"))
        })
        .collect();
    // The job has four seconds, so they are told to leave after three.
    for (nth, worker) in workers.iter_mut().enumerate() {
        assert_eq!(worker.exit_code(), 0, "{}", cluster.log(&format!("w{nth}")));
    }
    let asked = fs::read_to_string(asked).unwrap();
    assert_eq!(asked, "--noheader --job 4711 --format %L\n", "asked once");
    assert!(cluster.log("s").contains("pool=4711"), "{}", cluster.log("s"));
    assert!(
        cluster.log("s").contains("its job is about to end: it leaves"),
        "{}",
        cluster.log("s")
    );
}

#[test]
fn a_command_that_ends_with_its_worker_is_lost_and_runs_again_elsewhere() {
    let cluster = Cluster::new();
    let (_scheduler, mut worker) = cluster.up();
    let script = "echo $$ >> pids; sleep 2; echo done";
    let client = cluster
        .client(&["submit", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pids = || fs::read_to_string(cluster.folder.path().join("pids")).unwrap_or_default();
    wait_until("the command", || pids().lines().count() == 1);
    // As Slurm does it on some sites: everybody gets it, the command first.
    let kill =
        |pid: &str| assert!(Command::new("kill").args(["-TERM", pid]).status().unwrap().success());
    kill(pids().trim());
    for process in processes(&cluster.log("w")) {
        kill(&process.to_string());
    }
    worker.terminate();
    assert_eq!(worker.exit_code(), 0, "{}", cluster.log("w"));
    let _next = cluster.start("worker --host 127.0.0.1 --nthreads 1", "w2");
    let (code, out, err) = text(&client.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (Some(0), "done\n"), "{err}");
    assert_eq!(pids().lines().count(), 2, "it ran again");
}

#[test]
fn a_command_that_is_terminated_alone_has_failed() {
    let cluster = Cluster::new();
    let _running = cluster.up();
    let output = cluster.client(&["submit", "--", "sh", "-c", "kill -TERM $$; sleep 9"]).output();
    let (code, _, err) = text(&output.unwrap());
    assert_eq!(code, Some(143), "{err}");
}
