//! What people type by mistake, or out of habit with Dask, and what to type instead.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Flags of Dask that have no meaning here, and why.
const OF_DASK: &[(&str, &str)] = &[
    ("--nanny", "a worker always has a nanny: it is the `rdask worker` process itself"),
    ("--no-nanny", "a worker always has a nanny: it is the `rdask worker` process itself"),
    ("--preload", "`#[rdask::main(setup = f)]` in your program runs f in every process"),
    ("--preload-nanny", "`#[rdask::main(setup = f)]` in your program runs f in every process"),
    ("--worker-class", "there is one kind of worker; what runs in it is your program"),
    ("--protocol", "QUIC is the default; --transport auto|quic|tls chooses"),
    (
        "--tls-ca-file",
        "encryption is always on and needs no files: the scheduler file holds it all",
    ),
    ("--tls-cert", "encryption is always on and needs no files: the scheduler file holds it all"),
    ("--tls-key", "encryption is always on and needs no files: the scheduler file holds it all"),
    ("--scheduler-sni", "the scheduler file holds the name by which the scheduler proves itself"),
    ("--listen-address", "use --host or --interface, and --worker-port for the ports"),
    ("--contact-address", "use --host or --interface"),
    ("--nanny-port", "use --worker-port for all ports of a nanny and its processes"),
    ("--dashboard", "there is no dashboard yet: use `rdask status`"),
    ("--no-dashboard", "there is no dashboard yet, so nothing needs turning off"),
    ("--dashboard-address", "there is no dashboard yet: use `rdask status`"),
    ("--dashboard-prefix", "there is no dashboard yet: use `rdask status`"),
    ("--show", "there is no dashboard yet: use `rdask status`"),
    ("--no-show", "there is no dashboard yet, so nothing needs turning off"),
    ("--use-xheaders", "there is no dashboard yet: use `rdask status`"),
    (
        "--lifetime-restart",
        "a worker ends with its lifetime: start it in a loop, or submit another job",
    ),
    ("--no-lifetime-restart", "a worker ends with its lifetime, so nothing needs turning off"),
    ("--reconnect", "a worker always waits for its scheduler, up to --death-timeout"),
    ("--no-reconnect", "a worker waits for its scheduler up to --death-timeout: set that to 0"),
    ("--nprocs", "use --nworkers"),
    ("--jupyter", "there is no Jupyter inside the scheduler"),
    ("--no-jupyter", "there is no Jupyter inside the scheduler, so nothing needs turning off"),
];

/// A mistake in the arguments: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) error: String,
    pub(crate) hint: String,
}

/// The first mistake that deserves a better answer than "unexpected argument".
pub(crate) fn find(arguments: &[OsString]) -> Option<Mistake> {
    let texts = arguments.iter().skip(1).map(|argument| argument.to_string_lossy());
    for text in texts.take_while(|text| text != "--") {
        let name = text.split('=').next().unwrap_or(&text);
        let is_role = matches!(name, "-" | "");
        let dashes = name.chars().take_while(|c| is_dash(*c)).count();
        let word: String = name.chars().skip(dashes).collect();
        let typographic = name.chars().take(dashes).any(|c| c != '-');
        if !is_role && !word.is_empty() && (dashes > 2 || typographic) {
            let what = if typographic { "has a typographic dash" } else { "has too many dashes" };
            let right = format!("--{word}");
            return Some(Mistake {
                error: format!("{name} {what}"),
                hint: format!("write {right}"),
            });
        }
        if let Some((_, why)) = OF_DASK.iter().find(|(flag, _)| *flag == name) {
            return Some(Mistake {
                error: format!("{name} is a flag of Dask that rdask does not have"),
                hint: (*why).to_owned(),
            });
        }
    }
    None
}

/// What clap did not expect: what stands where Dask has the scheduler's address, or a command to run
/// where others need no dashes before it.
pub(crate) fn unexpected(error: &clap::Error, command: &str) -> Option<Mistake> {
    let Some(ContextValue::String(text)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != ErrorKind::UnknownArgument || text.starts_with('-') {
        return None;
    }
    if is_address(text) {
        return Some(Mistake {
            error: format!("{text} is an address: a scheduler is found by its file"),
            hint: "give the file that `rdask scheduler` writes by --scheduler-file or \
                   RDASK_SCHEDULER_FILE; it holds the addresses, and the certificates without which \
                   nobody is let in"
                .to_owned(),
        });
    }
    if matches!(command, "submit" | "map") {
        return Some(Mistake {
            error: format!("{text} has no -- before it"),
            hint: format!("write -- before the command: rdask {command} ... -- {text} ..."),
        });
    }
    text.ends_with(".json").then(|| Mistake {
        error: format!("{text} has no flag before it"),
        hint: format!("write --scheduler-file {text}"),
    })
}

/// `tcp://10.0.0.1:8786`, or `n1:8786`.
fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    text.contains("://") || port.is_some()
}

/// The dashes that editors and web pages turn two hyphens into, too.
fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &str) -> Option<Mistake> {
        find(&arguments.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_mistyped_dash_is_answered_with_the_right_spelling() {
        let mistake = check("rdask worker ---interface ib0").unwrap();
        assert_eq!(mistake.error, "---interface has too many dashes");
        assert_eq!(mistake.hint, "write --interface");
        let mistake = check("rdask worker \u{2014}interface=ib0").unwrap();
        assert_eq!(mistake.hint, "write --interface");
    }

    #[test]
    fn flags_of_dask_are_explained() {
        let mistake = check("rdask worker --no-nanny").unwrap();
        assert!(mistake.error.contains("Dask") && mistake.hint.contains("nanny"), "{mistake:?}");
        assert!(check("rdask scheduler --protocol=tls").unwrap().hint.contains("--transport"));
        assert!(check("rdask scheduler --no-show").is_some());
        assert!(check("rdask worker --scheduler-sni=n1").unwrap().hint.contains("scheduler file"));
    }

    #[test]
    fn what_is_right_or_belongs_to_a_command_is_left_alone() {
        for arguments in [
            "rdask",
            "rdask worker --interface ib0 -v",
            "rdask submit -- program ---strange --no-nanny",
            "rdask status -",
        ] {
            assert_eq!(check(arguments), None, "{arguments}");
        }
    }
}
