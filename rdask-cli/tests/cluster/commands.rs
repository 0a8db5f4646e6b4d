//! Commands end with their tasks, and with their processes, whatever ends those.

use std::process::Stdio;

use super::*;

/// Writes the number of each of its processes to a file of its own, named after its role, once that
/// is deaf to SIGTERM.
const DEAF: &str = "trap '' TERM; sleep 1000 & echo $! > child.new; mv child.new child; \
                    echo $$ > shell.new; mv shell.new shell; wait; wait";

impl Cluster {
    /// Starts a command that doesn't end; returns its client, and the numbers of its processes.
    fn start_deaf(&self) -> (Running, Vec<u32>) {
        let mut client = self.client(&["submit", "--", "sh", "-c", DEAF]);
        client.stdout(Stdio::null()).stderr(Stdio::null());
        let client = Running(client.spawn().unwrap());
        let files = ["shell", "child"].map(|name| self.folder.path().join(name));
        wait_until("the command runs", || files.iter().all(|file| file.exists()));
        let pids: Vec<u32> = files.iter().map(|file| number_in(file)).collect();
        assert!(pids.iter().all(|pid| is_alive(*pid)));
        files.iter().for_each(|file| fs::remove_file(file).unwrap());
        (client, pids)
    }
}

fn number_in(file: &Path) -> u32 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

fn kill(signal: &str, pid: u32) {
    let killed = Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(killed.unwrap().success());
}

fn parent_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit(')').next().unwrap();
    rest.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn check_that_they_end(what: &str, pids: &[u32]) {
    wait_until(what, || !pids.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn an_interrupted_client_takes_its_commands_along_and_nobody_elses() {
    let cluster = Cluster::new();
    let _scheduler = cluster.start("scheduler --host 127.0.0.1", "s");
    let _worker = cluster.start("worker --host 127.0.0.1 --nthreads 2", "w");
    assert_eq!(cluster.status("--wait --timeout 30s").0, 0);
    let other = cluster
        .client(&[
            "submit",
            "--",
            "sh",
            "-c",
            "echo ran >> log; until [ -e end ]; do sleep 0.1; done",
        ])
        .spawn();
    let mut other = Running(other.unwrap());
    wait_until("the other's command runs", || cluster.folder.path().join("log").exists());

    let (mut client, pids) = cluster.start_deaf();
    let process = parent_of(pids[0]);
    kill("-INT", client.0.id());
    client.0.wait().unwrap();
    check_that_they_end("the end of the command", &pids);
    assert!(is_alive(process), "{}", cluster.log("w"));
    fs::write(cluster.folder.path().join("end"), "").unwrap();
    assert_eq!(other.exit_code(), 0);
    assert_eq!(cluster.log("log"), "ran\n", "the other's command ran once");
}

#[test]
fn commands_end_with_a_process_that_is_killed_and_run_again() {
    let cluster = Cluster::new();
    let _running = cluster.up();
    let (_client, pids) = cluster.start_deaf();
    kill("-KILL", parent_of(pids[0]));
    check_that_they_end("the end of the command", &pids);
    wait_until("it runs again", || cluster.folder.path().join("shell").exists());
    let again = number_in(&cluster.folder.path().join("shell"));
    kill("-KILL", parent_of(again));
    wait_until("its end", || !is_alive(again));
}

#[test]
fn commands_end_with_a_nanny_that_is_killed_or_told_twice_to_end() {
    for signal in ["-KILL", "-INT"] {
        let cluster = Cluster::new();
        let (_scheduler, mut worker) = cluster.up();
        // Without a shell in between, which only a nanny that lives could look behind.
        let script = "echo $$ > pid.new; mv pid.new pid; exec sleep 1000";
        let mut client =
            Running(cluster.client(&["submit", "--", "sh", "-c", script]).spawn().unwrap());
        let file = cluster.folder.path().join("pid");
        wait_until("the command runs", || file.exists());
        let pid = number_in(&file);
        kill(signal, worker.0.id());
        if signal == "-INT" {
            wait_until("it leaves", || cluster.log("w").contains("leaving"));
            std::thread::sleep(Duration::from_millis(1100));
            kill(signal, worker.0.id());
        }
        worker.0.wait().unwrap();
        check_that_they_end("the end of the command", &[pid]);
        client.0.kill().unwrap();
    }
}
