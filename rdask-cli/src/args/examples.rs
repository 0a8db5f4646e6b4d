//! Every command that help and documents show is one that is understood.

use clap::{CommandFactory, Parser};

use super::Arguments;

const DOCUMENTS: [&str; 3] = [
    include_str!("../../../README.md"),
    include_str!("../../../docs/operations.md"),
    include_str!("../../../slurm/README.md"),
];

/// The arguments of each `rdask` among the lines of a text.
fn commands(text: &str) -> Vec<Vec<String>> {
    let own = text.lines().filter_map(|line| {
        let at = line.find("rdask ").filter(|at| line.starts_with("  ") || *at == 0)?;
        // `rdask` may read from a pipe or be run by another command; it may be part of a path.
        let before = line[..at].trim();
        let begins = before.is_empty() || before.ends_with('|') || before.starts_with("srun");
        begins.then(|| words(&line[at..]))
    });
    own.filter(|words| words.len() > 1).collect()
}

/// The words of one command: without what it is followed by, be that a comment or another command.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut quoted: Option<String> = None;
    for word in line.split(' ') {
        if let Some(mut text) = quoted.take() {
            text.push(' ');
            text.push_str(word);
            quoted = Some(text);
        } else if word.matches('\'').count() == 1 {
            quoted = Some(word.to_owned());
        } else if ["", "|", "&&", "&", "#"].contains(&word) {
            break;
        } else {
            words.push(word.trim_matches('\'').to_owned());
        }
        if let Some(text) = quoted.take_if(|text| text.ends_with('\'')) {
            words.push(text.replace('\'', ""));
        }
    }
    words
}

#[test]
fn what_help_and_documents_show_is_understood() {
    let mut texts: Vec<String> = DOCUMENTS.map(str::to_owned).to_vec();
    let command = Arguments::command();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        texts.extend(command.get_after_help().map(ToString::to_string));
    }
    let all: Vec<Vec<String>> = texts.iter().flat_map(|text| commands(text)).collect();
    assert!(all.len() > 20, "{all:?}");
    for mut words in all {
        // As if RDASK_SCHEDULER_FILE were set.
        let is_named = words.iter().any(|word| word == "--scheduler-file");
        if !is_named {
            words.splice(2..2, ["--scheduler-file".to_owned(), "scheduler.json".to_owned()]);
        }
        let said = words.join(" ");
        if let Err(error) = Arguments::try_parse_from(words) {
            panic!("{said}\n{error}");
        }
    }
}
