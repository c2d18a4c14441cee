//! Writes to the user: data to stdout, talk to stderr.
//!
//! A reader that goes away (`weft report | head`) ends the output without a complaint.

use std::io::{self, Write};

use serde::Serialize;

/// How verbs that read print what they read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people; the shapes that Weave's users parse are kept. The text of a graph is Graphviz's `dot`.
    #[default]
    #[value(alias = "dot")]
    Text,
    /// One JSON value with stable keys.
    Json,
}

/// Writes data to stdout as it is.
///
/// # Errors
///
/// When stdout cannot be written, except that nobody reads it any more.
pub(crate) fn data(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("write to stdout"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a line of data to stdout.
///
/// # Errors
///
/// As [`data`].
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    data(&format!("{text}\n"))
}

/// Writes a value to stdout as indented JSON.
///
/// # Errors
///
/// As [`data`], and when the value has no JSON form.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Says something to the person at the terminal; a lost stderr is no reason to fail.
pub(crate) fn talk(text: &str) {
    let _gone = writeln!(io::stderr().lock(), "{text}");
}
