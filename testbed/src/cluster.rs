//! A scheduler and workers as OS processes of their own, in a folder of their own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rdask::{Client, ClusterStatus, LocalCluster, Policy};
use rdask_net::SchedulerFile;
use tempfile::TempDir;

use crate::proc::{children, is_alive, kill_9, wait_for, wait_until};
use crate::role::ROLE;

/// A scheduler and workers. Dropping it ends them.
#[derive(Debug)]
pub struct Cluster {
    // Workers end before the scheduler, and all before their folder is removed.
    /// In the order of their start. Those that were killed stay in their places.
    pub nannies: Vec<Running>,
    /// The scheduler.
    pub scheduler: Running,
    folder: TempDir,
}

impl Cluster {
    /// A scheduler and so many workers of so many slots, each with a nanny of its own: `w0`, `w1`.
    pub fn new(workers: u32, slots: u32) -> Self {
        Self::with_policy(workers, slots, Policy::default())
    }

    /// The same with a scheduler that places tasks by this policy.
    pub fn with_policy(workers: u32, slots: u32, policy: Policy) -> Self {
        let mut cluster = Self::start(policy, true);
        cluster.add_workers(workers, slots);
        cluster
    }

    /// The same whose values go over QUIC, as if each process had a host of its own.
    pub fn over_quic(workers: u32, slots: u32) -> Self {
        let mut cluster = Self::start(Policy::default(), false);
        cluster.add_workers(workers, slots);
        cluster
    }

    /// Adds so many workers of so many slots, each with a nanny of its own, named by its place
    /// among [`nannies`](Self::nannies).
    pub fn add_workers(&mut self, workers: u32, slots: u32) {
        for _ in 0..workers {
            self.add("pool", &[&format!("w{}:{slots}", self.nannies.len())]);
        }
    }

    /// A scheduler alone.
    pub fn empty() -> Self {
        Self::start(Policy::default(), true)
    }

    fn start(policy: Policy, local_sockets: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scheduler.json");
        let program = std::env::current_exe().unwrap();
        let seed = match policy {
            Policy::Random { seed } => seed.to_string(),
            Policy::Locality => String::new(),
        };
        let role = format!("scheduler,{},{seed},{local_sockets}", file.display());
        let scheduler = Running::start(Command::new(&program), &role, folder.path(), "scheduler");
        wait_until("the scheduler file", || file.exists());
        Self { nannies: Vec::new(), scheduler, folder }
    }

    /// Adds a nanny with workers: `name:slots`, or `name:slots:GPU=1`.
    pub fn add(&mut self, pool: &str, workers: &[&str]) {
        let file = self.file();
        self.add_with_file(&file, pool, workers);
    }

    /// Adds a nanny that finds the scheduler by this file.
    pub fn add_with_file(&mut self, file: &Path, pool: &str, workers: &[&str]) {
        let program = std::env::current_exe().unwrap();
        self.add_by(Command::new(program), file, pool, workers);
    }

    /// Adds a nanny whose processes can't do what only root can: look into processes that have
    /// forbidden it.
    pub fn add_without_privileges(&mut self, pool: &str, workers: &[&str]) {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(&program);
        if nix::unistd::geteuid().is_root() {
            command = Command::new("setpriv");
            command.arg("--bounding-set=-sys_ptrace").arg(program);
        }
        let file = self.file();
        self.add_by(command, &file, pool, workers);
    }

    fn add_by(&mut self, command: Command, file: &Path, pool: &str, workers: &[&str]) {
        let role = format!("worker,{},{pool},{}", file.display(), workers.join(","));
        let name = format!("nanny-{}", self.nannies.len());
        self.nannies.push(Running::start(command, &role, self.folder.path(), &name));
    }

    /// A nanny with one worker as a child of a shell, as Slurm's step has it. Returns the shell and
    /// the nanny's log.
    pub fn add_below_shell(&self, job: &str, worker: &str) -> (Child, PathBuf) {
        let log = self.folder.path().join("below-shell.log");
        let output = File::create(&log).unwrap();
        let shell = Command::new("sh")
            .args(["-c", "\"$0\" & wait"])
            .arg(std::env::current_exe().unwrap())
            .env(ROLE, format!("worker,{},{job},{worker}", self.file().display()))
            .env("RDASK_CACHE", self.folder.path().join("cache"))
            .env("SLURM_JOB_ID", job)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        (shell, log)
    }

    /// Where the scheduler says how to join.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("scheduler.json")
    }

    /// What it says there.
    pub fn read_file(&self) -> SchedulerFile {
        SchedulerFile::read(self.file(), rdask_net::FileMode::Private).unwrap()
    }

    /// A folder for what a test needs; it goes with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client, once this program is at work in all workers.
    pub fn client(&self) -> Client {
        let observer = Client::connect(self.file()).unwrap();
        let expected = self.nannies.len();
        wait_until("all workers", || observer.status().unwrap().workers.len() >= expected);
        // Connecting waits for the program's processes in all workers that are there.
        Client::connect(self.file()).unwrap()
    }

    /// The processes of all programs in all workers.
    pub fn processes(&self) -> Vec<u32> {
        self.nannies.iter().flat_map(|nanny| children(nanny.pid())).collect()
    }

    /// Ends these nannies and the processes of their workers by SIGKILL, at once.
    pub fn kill_workers(&mut self, nannies: Range<usize>) {
        let nannies = &mut self.nannies[nannies];
        // All are known before the first dies: a nanny would start what it has lost anew.
        let processes: Vec<u32> = nannies.iter().flat_map(|one| children(one.pid())).collect();
        nannies.iter_mut().for_each(Running::kill);
        processes.into_iter().filter(|pid| is_alive(*pid)).for_each(kill_9);
    }

    /// Starts a copy of this program as a client that plays a scene.
    pub fn program(&self, program: &Path, scene: &str, arguments: &[&str]) -> Running {
        let mut role = format!("client,{scene},{}", self.file().display());
        for argument in arguments {
            role = format!("{role},{argument}");
        }
        let count = fs::read_dir(self.folder.path()).unwrap().count();
        Running::start(
            Command::new(program),
            &role,
            self.folder.path(),
            &format!("{scene}-{count}"),
        )
    }

    /// What all processes have written so far.
    pub fn logs(&self) -> String {
        let files = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.extension() == Some(OsStr::new("log")));
        logs.map(|log| String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned()).collect()
    }
}

/// This program in another role. It is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Running {
    fn start(mut command: Command, role: &str, folder: &Path, name: &str) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let child = command
            .env(ROLE, role)
            .env("RDASK_CACHE", folder.join("cache"))
            .env_remove("RDASK_SCHEDULER_FILE")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, log, name: name.to_owned() }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for(&format!("the end of {}", self.name), || self.child.try_wait().unwrap())
    }

    /// Ends it by SIGKILL, if it hasn't ended.
    pub fn kill(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    /// Waits for its good end; what it has written.
    pub fn output(mut self) -> String {
        let status = self.wait();
        assert!(status.success(), "{}: {status}\n{}", self.name, self.log());
        self.log()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a test twice: on threads of this program, and on processes, one slot in each of `slots`.
pub fn on_both(slots: u32, test: impl Fn(&Client)) {
    let threads = LocalCluster::new().threads(slots).start().unwrap();
    test(&threads.client().unwrap());
    drop(threads);
    let processes = Cluster::new(slots, 1);
    test(&processes.client());
}

/// Waits until the scheduler remembers nothing of any task.
pub fn wait_until_forgotten(client: &Client) {
    let mut last = ClusterStatus::default();
    let is_empty = |status: &ClusterStatus| {
        status.waiting + status.ready + status.assigned + status.done + status.failed == 0
            && status.result_bytes == 0
    };
    wait_until("no tasks and no bytes are left", || {
        last = client.status().unwrap();
        is_empty(&last)
    });
}
