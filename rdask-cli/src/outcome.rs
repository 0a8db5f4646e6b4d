//! What became of a command of `rdask submit` or `rdask map`: it travels back as a task's result,
//! and is printed for people or for scripts.

use serde::{Deserialize, Serialize};

use crate::output;

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// As shells report it.
    pub(crate) status: u8,
    /// Where it ran, or could not be started; not known of one that was lost too often.
    pub(crate) node: Option<String>,
    /// Why it has no exit status of its own.
    pub(crate) error: Option<String>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// The JSON form of [`Outcome`]. Fields are added, never changed or removed.
#[derive(Serialize)]
struct Document<'a> {
    index: usize,
    line: Option<&'a str>,
    status: u8,
    node: Option<&'a str>,
    error: Option<&'a str>,
    stdout: &'a str,
    stderr: &'a str,
}

impl Outcome {
    /// What the command has printed becomes ours.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        output::data(&self.stdout)?;
        output::diagnostics(&self.stderr);
        if let Some(error) = &self.error {
            output::error(&anyhow::Error::msg(error.clone()), None);
        }
        Ok(())
    }

    /// One line of JSON. Bytes that are no text in UTF-8 are replaced.
    pub(crate) fn json(&self, index: usize, line: Option<&str>) -> String {
        let text = |bytes| String::from_utf8_lossy(bytes);
        let document = Document {
            index,
            line,
            status: self.status,
            node: self.node.as_deref(),
            error: self.error.as_deref(),
            stdout: &text(&self.stdout),
            stderr: &text(&self.stderr),
        };
        let json = serde_json::to_string(&document);
        json.expect("numbers and text always become JSON") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_output_is_one_line_of_json() {
        let outcome = Outcome { status: 3, stdout: b"a\n\"\xff".to_vec(), ..Outcome::default() };
        let json = outcome.json(7, Some("x\ty"));
        assert_eq!(json.matches('\n').count(), 1, "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["index"], &value["status"]), (&7.into(), &3.into()));
        assert_eq!((&value["line"], &value["stdout"]), (&"x\ty".into(), &"a\n\"\u{fffd}".into()));
        assert!(value["node"].is_null() && value["error"].is_null());
    }
}
