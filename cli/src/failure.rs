//! Why a verb failed, and the exit code that says so.
//!
//! | code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | failed, already running, or an argument that parses and makes no sense |
//! | 2 | usage: does not parse |
//! | 3 | the daemon is not running |

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// A failure whose exit code is not 1.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, the environment or the configuration file does not parse.
    Usage(String),
    /// Nobody answers on the control socket.
    NotRunning {
        /// Where we knocked.
        socket: String,
    },
}

impl Failure {
    /// Makes an error one of usage: a value that does not parse.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is what `map_err` passes on"
    )]
    pub(crate) fn usage(error: anyhow::Error) -> anyhow::Error {
        Self::Usage(one_line(&error)).into()
    }

    /// Says that nobody listens in this run directory.
    pub(crate) fn not_running(socket: &Path) -> Self {
        Self::NotRunning {
            socket: socket.display().to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(line) => f.write_str(line),
            Self::NotRunning { socket } => write!(
                f,
                "weft is not running (nobody listens on {socket}): start it with `weft launch`, or name its --run-dir"
            ),
        }
    }
}

impl std::error::Error for Failure {}

/// Returns the exit code of an error that reached `main`.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Usage(_)) => ExitCode::from(2),
        Some(Failure::NotRunning { .. }) => ExitCode::from(3),
        None => ExitCode::FAILURE,
    }
}

/// Returns the error and its causes as one line.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line.replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn each_failure_has_its_exit_code() {
        let usage = anyhow::Error::from(Failure::Usage("x".into()));
        let absent = anyhow::Error::from(Failure::not_running(Path::new("/run/weft/weft.sock")));

        assert_eq!(exit_code(&usage), ExitCode::from(2));
        assert_eq!(exit_code(&absent), ExitCode::from(3));
        assert_eq!(exit_code(&anyhow!("x")), ExitCode::from(1));
    }

    #[test]
    fn a_context_does_not_hide_the_exit_code() {
        let absent = anyhow::Error::from(Failure::not_running(Path::new("/s"))).context("ask");

        assert_eq!(exit_code(&absent), ExitCode::from(3));
    }

    #[test]
    fn causes_are_joined_into_one_line_without_repetition() {
        let error = anyhow!("no such file\nor directory").context("open a");

        assert_eq!(one_line(&error), "open a: no such file; or directory");
        let repeated = anyhow!("gone").context("open a: gone");
        assert_eq!(one_line(&repeated), "open a: gone");
    }
}
