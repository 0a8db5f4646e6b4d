//! `kill_pool.sh` kills what it is told to, and refuses what is not rdask's or not the user's.

#![expect(clippy::unwrap_used, reason = "a test that can not go on ends")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A machine as the script sees it: records of nannies, and commands of Slurm that play a part.
struct Machine(tempfile::TempDir);

/// A process that is killed with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// When it started, as records have it.
    fn start(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields = stat.rsplit(')').next().unwrap();
        fields.split_whitespace().nth(19).unwrap().parse().unwrap()
    }
}

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::create_dir(machine.records()).unwrap();
        fs::create_dir(machine.path("bin")).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn records(&self) -> PathBuf {
        self.path(&format!("rdask-nannies-{}", nix::unistd::getuid()))
    }

    /// A process that sleeps, under a name.
    fn sleeper(&self, name: &str) -> Process {
        let program = self.path(name);
        fs::copy("/bin/sleep", &program).unwrap();
        Process(Command::new(program).arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }

    /// Notes a process as a nanny of the pool "mine".
    fn record(&self, process: &Process, start: u64) {
        let (pid, host) =
            (process.0.id(), fs::read_to_string("/proc/sys/kernel/hostname").unwrap());
        let text = format!("pid {pid}\nstart {start}\nhost {}\npool mine\n", host.trim());
        fs::write(self.records().join(pid.to_string()), text).unwrap();
    }

    /// A command that the script finds first.
    fn command(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A Slurm with one job, which has an owner, a name and a script; it notes what it is to cancel.
    fn slurm(&self, owner: &str, name: &str, script: &str) {
        self.command("squeue", &format!("echo '{owner} {name}'"));
        self.command("scontrol", &format!("echo '{script}'"));
        self.command("scancel", &format!("echo $* >> {}", self.path("cancelled").display()));
    }

    fn cancelled(&self) -> String {
        fs::read_to_string(self.path("cancelled")).unwrap_or_default()
    }

    /// The status of the script, and what it says.
    fn kill_pool(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kill_pool.sh");
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(script);
        let output =
            command.args(arguments).env("TMPDIR", self.0.path()).env("PATH", path).output();
        let output = output.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }
}

fn own_name() -> String {
    let uid = nix::unistd::getuid();
    nix::unistd::User::from_uid(uid).unwrap().unwrap().name
}

#[test]
fn a_number_that_is_another_processs_now_is_left_alone() {
    let machine = Machine::new();
    let mut nanny = machine.sleeper("rdask");
    machine.record(&nanny, nanny.start() - 1);
    for signal in ["TERM", "KILL"] {
        let (code, text) = machine.kill_pool(&["--signal", signal, "mine"]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("there is no pool mine"), "{text}");
    }
    assert!(!nanny.has_ended());
    // With its own start it is the same one, and goes.
    machine.record(&nanny, nanny.start());
    let (code, text) = machine.kill_pool(&["mine"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(nanny.0.wait().unwrap().code().is_none(), "a signal ended it");
}

#[test]
fn what_is_not_rdask_is_refused_by_name() {
    let machine = Machine::new();
    let mut other = machine.sleeper("precious");
    machine.record(&other, other.start());
    let (code, text) = machine.kill_pool(&["--signal", "KILL", "mine"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("/precious, which is not rdask"), "{text}");
    assert!(!other.has_ended());
}

#[test]
fn jobs_of_others_and_jobs_without_workers_are_refused() {
    let machine = Machine::new();
    let workers = "srun rdask worker --scheduler-file s.json";
    machine.slurm("somebody-else", "rdask-workers", workers);
    let (code, text) = machine.kill_pool(&["4711"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("job 4711 belongs to somebody-else"), "{text}");

    machine.slurm(&own_name(), "weather", "srun ./forecast");
    let (code, text) = machine.kill_pool(&["4711"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("job 4711 does not start rdask workers"), "{text}");
    assert_eq!(machine.cancelled(), "");

    machine.slurm(&own_name(), "weather", workers);
    let (code, text) = machine.kill_pool(&["4711"]);
    assert_eq!((code, machine.cancelled().as_str()), (Some(0), "4711\n"), "{text}");
}
