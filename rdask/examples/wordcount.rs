//! Counts the words of text files: a map over the files, a tree over the counts.
//!
//! Arguments: a scheduler's file, then text files. Without any it counts the words of rdask's own
//! sources, in this process.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rdask::Client;

type Counts = BTreeMap<String, u64>;

fn count(path: String) -> io::Result<Counts> {
    let mut counts = Counts::new();
    let text = fs::read_to_string(path)?;
    for word in text.split(|c: char| !c.is_alphabetic()) {
        if !word.is_empty() {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
    }
    Ok(counts)
}

fn merge(mut a: Counts, b: Counts) -> Counts {
    for (word, count) in b {
        *a.entry(word).or_default() += count;
    }
    a
}

fn sources() -> io::Result<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let paths = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let paths: Vec<_> = paths.collect::<io::Result<_>>()?;
    let files = paths.iter().filter(|path| path.is_file());
    Ok(files.map(|path| path.display().to_string()).collect())
}

#[rdask::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let client = match arguments.next() {
        Some(scheduler_file) => Client::connect(scheduler_file)?,
        None => Client::local()?,
    };
    let mut files: Vec<String> = arguments.collect();
    if files.is_empty() {
        files = sources()?;
    }
    let counts = client.options().retries(1).try_map(count, files.clone());
    let total = client.tree(&counts, merge).result()?;

    let mut ranked: Vec<(&String, &u64)> = total.iter().collect();
    ranked.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), *word));
    for (word, count) in ranked.iter().take(10) {
        println!("{count:6} {word}");
    }

    // The same, here.
    let mut expected = Counts::new();
    for file in files {
        expected = merge(expected, count(file)?);
    }
    assert_eq!(total, expected);
    Ok(())
}
