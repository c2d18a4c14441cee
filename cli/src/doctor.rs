//! `weft doctor`: can this host run weft well, and what to change if not.
//!
//! Each check looks at one thing and changes nothing: devices and sockets are tried in a network
//! namespace that goes with the thread that made it.

mod dns;
mod engine;
mod filter;
mod host;
mod network;

use std::process::ExitCode;

use serde::Serialize;

use crate::args::{DoctorArgs, Places};
pub(crate) use crate::doctor::engine::tun_mend;
use crate::output::{self, Format};

/// How well one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As good as it gets.
    Ok,
    /// Works, and could be better.
    Warn,
    /// weft does not run like this.
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            mend: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Warn,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Fail,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{:<5} {:<13} {}",
            self.verdict.word(),
            self.name,
            self.found
        );
        if let Some(mend) = &self.mend {
            line.push_str("; mend: ");
            line.push_str(mend);
        }
        line.push('\n');
        line
    }
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Findings {
    healthy: bool,
    checks: Vec<Check>,
}

/// Examines the host and prints a line for each check.
///
/// # Errors
///
/// When stdout cannot be written; a failed check is exit code 1.
pub(crate) fn run(places: &Places, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let checks = examine(places, args.port);
    let failed = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .count();
    match places.output {
        Format::Text => output::data(&checks.iter().map(Check::line).collect::<String>())?,
        Format::Json => output::json(&Findings {
            healthy: failed == 0,
            checks,
        })?,
    }
    if failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    output::talk(&format!(
        "weft: {failed} of the checks failed: this host cannot run weft until they are mended"
    ));
    Ok(ExitCode::FAILURE)
}

fn examine(places: &Places, port: u16) -> Vec<Check> {
    let mut checks = vec![host::kernel(), host::capabilities()];
    checks.extend(engine::checks());
    checks.push(host::locked_memory());
    checks.push(host::receive_buffer());
    checks.push(network::port(places, port));
    checks.push(network::mtu());
    checks.push(network::bridge_filter());
    checks.push(filter::check(&places.bridge));
    checks.push(dns::check());
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_verdict_name_finding_and_mending() {
        let good = Check::ok("kernel", "6.12.1");
        let bad = Check::fail("tun", "/dev/net/tun is missing", "modprobe tun");

        assert_eq!(good.line(), "ok    kernel        6.12.1\n");
        assert_eq!(
            bad.line(),
            "fail  tun           /dev/net/tun is missing; mend: modprobe tun\n"
        );
    }

    #[test]
    fn json_leaves_out_a_mending_that_is_not_needed() {
        let json = serde_json::to_value(Check::ok("kernel", "6.12.1")).unwrap();

        assert_eq!(
            json,
            serde_json::json!({ "name": "kernel", "verdict": "ok", "found": "6.12.1" })
        );
    }
}
