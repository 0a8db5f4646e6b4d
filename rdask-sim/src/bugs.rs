//! Whether the simulator is any good: it has to find bugs that are planted.
//!
//! Each is a patch of the core. It is applied to a copy in a temporary folder, built, and simulated
//! seed by seed until it shows. A patch that doesn't apply any more fails, too: it has to be made
//! anew for the code as it is now.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;

/// Which bugs, and how long to look for each.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only those whose names contain one of these.
    names: Vec<String>,
    /// Only see whether each can still be planted: building all of them takes minutes.
    #[arg(long)]
    check: bool,
    /// The most seeds until each must be found.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The repository.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    root: PathBuf,
}

/// The workspace of the copy: only what the simulator is made of.
const MEMBERS: [&str; 2] = ["rdask-core", "rdask-sim"];

/// Plants one bug after the other. Says whether all were found.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let root = options.root.canonicalize().context("there is no such repository")?;
    let copy = tempfile::tempdir().context("no temporary folder")?;
    copy_workspace(&root, copy.path())?;
    let mut patches: Vec<PathBuf> = std::fs::read_dir(root.join("rdask-sim/bugs"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "patch"))
        .collect();
    patches.sort();
    let named = |path: &Path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        options.names.is_empty() || options.names.iter().any(|part| name.contains(part.as_str()))
    };
    patches.retain(|path| named(path));
    ensure!(!patches.is_empty(), "there is no such bug in rdask-sim/bugs");
    let mut is_well = true;
    for patch in &patches {
        let begun = Instant::now();
        let found = match options.check {
            true => plant(&root, copy.path(), patch),
            false => find(&root, copy.path(), patch, options.seeds),
        };
        is_well &= found.is_ok();
        let said = found.unwrap_or_else(|why| format!("FAILED: {why:#}"));
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        println!("{name:<34} {said} ({} s)", begun.elapsed().as_secs());
        if let Some(line) = first_line(patch) {
            println!("    {line}");
        }
    }
    Ok(is_well)
}

/// What a patch says of itself.
fn first_line(patch: &Path) -> Option<String> {
    std::fs::read_to_string(patch).ok()?.lines().next().map(str::to_owned)
}

/// Plants a bug and takes it out again.
fn plant(root: &Path, copy: &Path, patch: &Path) -> anyhow::Result<String> {
    let applied = apply(copy, patch);
    take_out(root, copy, patch)?;
    applied.map(|()| "applies".to_owned())
}

/// Plants a bug, looks for it and takes it out again. Says after how many seeds it was found.
fn find(root: &Path, copy: &Path, patch: &Path, seeds: u64) -> anyhow::Result<String> {
    let found = apply(copy, patch)
        .and_then(|()| build(root, copy))
        .and_then(|program| look(&program, seeds));
    take_out(root, copy, patch)?;
    found
}

/// Only where all lines around it are those that it was made for: elsewhere it would be another bug.
fn apply(copy: &Path, patch: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("patch");
    command.args(["-p1", "--fuzz=0", "--silent", "--no-backup-if-mismatch", "--forward"]);
    let input = std::fs::File::open(patch)?;
    let done = command.current_dir(copy).stdin(input).output().context("`patch` can't be run")?;
    let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    ensure!(done.status.success(), "it doesn't apply any more: make it anew ({said})");
    Ok(())
}

/// The files that a patch changes are again as they were.
fn take_out(root: &Path, copy: &Path, patch: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(patch)?;
    for file in text.lines().filter_map(|line| line.strip_prefix("+++ b/")) {
        // Read and written, so that it is newer than what was built from it.
        std::fs::write(copy.join(file), std::fs::read(root.join(file))?)?;
    }
    Ok(())
}

fn build(root: &Path, copy: &Path) -> anyhow::Result<PathBuf> {
    // A folder that stays, so that only what a patch touches is built.
    let target = root.join("target/bugs");
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--offline", "--profile", "sim", "--package", "rdask-sim"])
        .env("CARGO_TARGET_DIR", &target)
        // Time goes to building rather than to the seeds.
        .env("CARGO_PROFILE_SIM_OPT_LEVEL", "1")
        .env_remove("RUSTFLAGS")
        .current_dir(copy)
        .output()
        .context("cargo can't be run")?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(target.join("sim/rdask-sim"))
}

fn look(program: &Path, seeds: u64) -> anyhow::Result<String> {
    let looked = Command::new(program)
        .args(["--seeds", &seeds.to_string(), "--no-shrink"])
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&looked.stdout);
    let Some(line) = said.lines().find(|line| line.contains("FAILED")) else {
        bail!("not found within {seeds} seeds");
    };
    let after = said.split_whitespace().next().unwrap_or("?");
    let line: String = line.chars().take(120).collect();
    Ok(format!("found after {after} seeds: {line}"))
}

/// The simulator and the core, with a workspace of their own.
fn copy_workspace(root: &Path, copy: &Path) -> anyhow::Result<()> {
    for member in MEMBERS {
        copy_folder(&root.join(member), &copy.join(member))?;
    }
    for file in ["Cargo.lock", "clippy.toml"] {
        std::fs::copy(root.join(file), copy.join(file))?;
    }
    let manifest = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let mut lines: Vec<String> = Vec::new();
    let mut is_in_members = false;
    for line in manifest.lines() {
        if line.starts_with("members = ") {
            is_in_members = true;
            lines.push(format!("members = {MEMBERS:?}"));
        } else if !is_in_members && !line.starts_with("exclude = ") {
            lines.push(line.to_owned());
        }
        is_in_members &= !line.ends_with(']');
    }
    std::fs::write(copy.join("Cargo.toml"), lines.join("\n"))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&path, &to.join(name))?;
        } else {
            copy_file(&path, &to.join(name))?;
        }
    }
    Ok(())
}

/// With its times, so that cargo knows what it has built before.
fn copy_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::copy(from, to)?;
    let modified = std::fs::metadata(from)?.modified()?;
    std::fs::File::options().write(true).open(to)?.set_modified(modified)?;
    Ok(())
}
