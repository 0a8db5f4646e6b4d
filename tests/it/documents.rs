//! What the documents tell people to type works: each `cargo` line names what there is to build,
//! each of our commands knows the words and flags it is given, scripts are where they are said to
//! be, and the lines of the README that bring up a cluster do.
//!
//! Commands are looked for beside this program, where `cargo test --workspace` puts them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Our commands, and the packages that `cargo run -p` finds them in.
const OURS: [&str; 4] = ["rdask", "rdask-bench", "rdask-chaos", "rdask-sim"];

/// What follows it in a table's header is meant in all its cells.
const BENCH: &str = "cargo run --release -p rdask-bench --";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Where `cargo` puts programs.
fn built(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    here.parent().and_then(Path::parent).unwrap().join(name)
}

/// One thing to type, and the folder of the document that says so.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    document: PathBuf,
    words: Vec<String>,
}

/// All documents of the project.
fn documents() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"])
        .current_dir(root())
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let documents: Vec<PathBuf> =
        listed.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    assert!(documents.contains(&PathBuf::from("README.md")), "{documents:?}");
    documents
}

/// Blocks of code, and code within text.
fn code_of(text: &str) -> Vec<String> {
    let (mut code, mut prose) = (Vec::new(), String::new());
    let mut fence: Option<bool> = None;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fence = if fence.is_none() { Some(language == "sh") } else { None };
        } else if fence == Some(true) || (fence.is_none() && line.starts_with("    ")) {
            code.push(line.trim().to_owned());
        } else if fence.is_none() {
            prose.push_str(line);
            prose.push(' ');
        }
    }
    code.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    code
}

/// What is typed of a line: without comment, without what it is piped to, without `&` and variables.
fn words_of(line: &str) -> Vec<String> {
    let line = line.replace("| ", "# ").replace("&& ", "# ");
    let words = line.split_whitespace().take_while(|word| !word.starts_with('#') && *word != "&");
    let is_variable = |word: &&str| word.contains('=') && !word.starts_with('-');
    words.skip_while(is_variable).map(|word| word.trim_matches('\'').to_owned()).collect()
}

fn lines() -> BTreeSet<Line> {
    let mut lines = BTreeSet::new();
    for document in documents() {
        let text = fs::read_to_string(root().join(&document)).unwrap();
        let has_table = text.contains(&format!("`{BENCH}`"));
        for code in code_of(&text) {
            let code = match code.starts_with("--") && code.contains(' ') && has_table {
                true => format!("{BENCH} {code}"),
                false => code,
            };
            let words = words_of(&code);
            if words.len() > 1 && !words.iter().any(|word| word == "...") {
                lines.insert(Line { document: document.clone(), words });
            }
        }
    }
    lines
}

/// Has cargo resolve what a line names, as it does before it builds.
fn check_cargo(words: &[String]) -> Result<(), String> {
    let own = words.iter().take_while(|word| *word != "--").filter(|word| *word != "--open");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(own.skip(1)).args(["--offline", "--unit-graph", "-Z", "unstable-options"]);
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUST_BACKTRACE", "0").current_dir(root());
    let Output { stdout, stderr, .. } = cargo.output().unwrap();
    // Of `cargo run` it is all that comes: there is nothing to run then.
    let is_resolved = stdout.starts_with(b"{\"version\"");
    if is_resolved { Ok(()) } else { Err(String::from_utf8_lossy(&stderr).into_owned()) }
}

/// What commands say of themselves, by the words they were asked with.
#[derive(Default)]
struct Helps(BTreeMap<Vec<String>, String>);

impl Helps {
    fn of(&mut self, words: &[String]) -> Result<&str, String> {
        if !self.0.contains_key(words) {
            let Output { status, stdout, stderr } =
                Command::new(built(&words[0])).args(&words[1..]).arg("--help").output().unwrap();
            if !status.success() {
                return Err(String::from_utf8_lossy(&stderr).into_owned());
            }
            self.0.insert(words.to_vec(), String::from_utf8(stdout).unwrap());
        }
        Ok(&self.0[words])
    }

    /// Whether a command has this subcommand, and that has these flags.
    fn check(&mut self, name: &str, arguments: &[String]) -> Result<(), String> {
        if !built(name).exists() {
            return Ok(());
        }
        let mut asked = vec![name.to_owned()];
        let help = self.of(&asked)?;
        let is_word = |word: &&String| word.chars().all(|c| c.is_ascii_lowercase());
        if help.contains("Commands:")
            && let Some(word) = arguments.first().filter(is_word)
        {
            asked.push(word.clone());
        }
        let help = self.of(&asked)?;
        for flag in arguments.iter().take_while(|word| *word != "--") {
            let flag = flag.split('=').next().unwrap_or_default();
            let is_known =
                help.split(|c: char| !c.is_alphanumeric() && c != '-').any(|it| it == flag);
            if flag.starts_with("--") && !is_known {
                return Err(format!("{} has no {flag}", asked.join(" ")));
            }
        }
        Ok(())
    }
}

/// The arguments that a line has for one of our commands.
fn ours(words: &[String]) -> Option<(&str, &[String])> {
    let name = |word: &str| OURS.into_iter().find(|ours| *ours == word);
    if let Some(name) = name(&words[0]) {
        return Some((name, &words[1..]));
    }
    let package = words.iter().position(|word| word == "-p").map(|at| &words[at + 1]);
    let arguments = words.iter().position(|word| word == "--")?;
    let is_run = words[0] == "cargo" && words[1] == "run";
    is_run.then_some((name(package?)?, &words[arguments + 1..]))
}

/// A script of ours is there, can be run, and mentions the flags that it is given.
fn check_script(line: &Line) -> Result<(), String> {
    let (script, arguments) = match &line.words[..] {
        [sbatch, rest @ ..] if sbatch == "sbatch" => {
            let Some(at) = rest.iter().position(|word| word.ends_with(".sh")) else {
                return Ok(());
            };
            (&rest[at], &rest[at + 1..])
        }
        [script, rest @ ..]
            if script.contains('/') && !script.starts_with(['.', '/', '$', '<']) =>
        {
            (script, rest)
        }
        _ => return Ok(()),
    };
    if script.starts_with("target/") {
        return Ok(());
    }
    let beside = line.document.parent().unwrap_or(Path::new(""));
    let places = [root().join(script), root().join(beside).join(script)];
    let found = places.iter().find(|place| place.is_file()).ok_or("there is no such file")?;
    let mode = fs::metadata(found).unwrap().permissions().mode();
    let is_copied_by_slurm = line.words[0] == "sbatch";
    if mode & 0o111 == 0 && !is_copied_by_slurm {
        return Err("it can't be run".to_owned());
    }
    // What a script hands on to a program of ours is checked with that.
    let folder = found.parent().unwrap();
    let text: String = [found.clone(), folder.join("comparison"), folder.join("src")]
        .iter()
        .flat_map(|place| texts(place))
        .collect();
    let flags = arguments.iter().filter(|word| word.starts_with("--"));
    let unknown = flags.filter(|flag| !text.contains(&***flag)).cloned().collect::<Vec<_>>();
    if unknown.is_empty() { Ok(()) } else { Err(format!("it has no {}", unknown.join(", "))) }
}

fn texts(place: &Path) -> Vec<String> {
    if place.is_file() {
        return fs::read_to_string(place).into_iter().collect();
    }
    let inside = fs::read_dir(place).into_iter().flatten().flatten();
    inside.flat_map(|entry| texts(&entry.path())).collect()
}

pub(crate) fn every_line_to_type_is_one_that_works() {
    let mut helps = Helps::default();
    let mut resolved: BTreeMap<Vec<String>, Result<(), String>> = BTreeMap::new();
    let (mut checked, mut wrong) = (0, Vec::new());
    for line in lines() {
        let words = &line.words;
        let subcommands = ["build", "run", "test", "bench", "doc"];
        let mut found = match words[0].as_str() {
            "cargo" if subcommands.contains(&words[1].as_str()) => {
                resolved.entry(words.clone()).or_insert_with(|| check_cargo(words)).clone()
            }
            _ => check_script(&line),
        };
        if let Some((name, arguments)) = ours(words) {
            found = found.and_then(|()| helps.check(name, arguments));
            checked += 1;
        }
        if let Err(error) = found {
            let said = words.join(" ");
            wrong.push(format!("{}: {said}\n    {}", line.document.display(), error.trim()));
        }
    }
    assert!(wrong.is_empty(), "of what people are told to type:\n{}", wrong.join("\n"));
    assert!(resolved.len() > 20 && checked > 40, "{} and {checked} lines", resolved.len());
}

/// The lines of the README for one machine, as they stand there, but for where programs were built.
#[expect(clippy::print_stderr, reason = "for whoever runs this test alone")]
pub(crate) fn the_cluster_of_the_readme_comes_up_and_computes() {
    let square = built("examples/square");
    if !built("rdask").exists() || !square.exists() {
        eprintln!("skipped: build `rdask` and the example `square`, or test the whole workspace");
        return;
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let block = blocks.find(|block| block.contains("rdask scheduler &")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scheduler.json");
    let lines = block.lines().filter(|line| !line.starts_with("cargo build "));
    let script: String = lines.map(|line| format!("{line}\n")).collect();
    let script = script
        .replace("$PWD/target/release", built("").to_str().unwrap())
        .replace("target/release/examples/square", square.to_str().unwrap())
        .replace("/tmp/scheduler.json", file.to_str().unwrap());
    assert!(!script.contains("target/release"), "{script}");
    let end = "trap 'kill $(jobs -p); wait' EXIT";
    let mut bash = Command::new("bash");
    bash.args(["-eu", "-c", &format!("{end}\n{script}")]).current_dir(folder.path());
    bash.env("RDASK_CACHE", folder.path().join("cache")).env_remove("RDASK_SCHEDULER_FILE");
    let Output { status, stdout, stderr } = bash.output().unwrap();
    let said = String::from_utf8_lossy(&stdout);
    let log = String::from_utf8_lossy(&stderr);
    assert!(status.success() && said.contains("196.0, 225.0]"), "{said}\n{log}");
    assert!(!file.exists(), "the scheduler has ended: {log}");
}
