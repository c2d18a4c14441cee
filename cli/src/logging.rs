//! Where the daemon's log goes: stderr, which is `<run-dir>/weft.log` in the background.

use std::io::IsTerminal;

use anyhow::bail;
use tracing_subscriber::EnvFilter;

/// Levels that may stand alone, with Weave's and syslog's spelling of one.
const LEVELS: [&str; 6] = ["error", "warn", "warning", "info", "debug", "trace"];

/// What libraries say of each packet is not ours to pass on, at any speed that somebody else chooses; a filter that names
/// them brings it back.
const QUIET: &str = "hickory_proto=off,hickory_net=off,hickory_resolver=off,hickory_server=off,";

/// Reads `--log-level`: a level, or a filter such as `info,weft_control=debug`.
///
/// # Errors
///
/// One line that names the level and what is accepted.
pub(crate) fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    // A single unknown word would be taken for a module's name and silence everything.
    let single = !level.contains([',', '=', '[']);
    if single && !LEVELS.contains(&level) {
        bail!(
            "--log-level `{level}` is not known: accepted are error, warning, info, debug, trace, or a filter such as info,weft_control=debug"
        );
    }
    let spelt = if level == "warning" { "warn" } else { level };
    match EnvFilter::builder().parse(format!("{QUIET}{spelt}")) {
        Ok(filter) => Ok(filter),
        Err(error) => bail!("--log-level `{level}` does not parse: {error}"),
    }
}

/// Starts logging to stderr.
///
/// # Errors
///
/// As [`filter`]; logging that runs already is left alone.
pub(crate) fn start(level: &str) -> anyhow::Result<()> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(std::io::stderr)
        // It would be said on stderr, with a panic where that is what fails: a full disk, a terminal that was closed.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .finish();
    let _started_before = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read() {
        for level in [
            "error",
            "warning",
            "warn",
            "info",
            "debug",
            "trace",
            "info,weft_control=debug",
            "weft_engine=trace",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn libraries_are_silent_unless_they_are_named() {
        let spelt = |level| filter(level).unwrap().to_string();
        assert!(spelt("info").contains("hickory_proto=off"));
        let named = spelt("info,hickory_proto=debug");
        assert!(named.contains("hickory_proto=debug") && !named.contains("hickory_proto=off"));
    }

    #[test]
    fn an_unknown_level_is_named_with_what_is_accepted() {
        let error = filter("verbose").unwrap_err().to_string();

        assert!(
            error.contains("`verbose`") && error.contains("debug"),
            "{error}"
        );
        assert!(filter("info,weft=loud").is_err());
    }
}
