//! `weft setup`: what a machine needs besides the binary, printed to be put where it belongs.

use std::path::Path;

use anyhow::Context;

use crate::args::SetupPart;
use crate::output;

/// The unit, with `@BINARY@` where the binary goes.
const UNIT: &str = include_str!("setup/weft.service");

/// Prints one part.
///
/// # Errors
///
/// If the binary does not know where it lies, or nobody reads.
pub(crate) fn run(part: SetupPart) -> anyhow::Result<()> {
    match part {
        SetupPart::Systemd => {
            let binary = std::env::current_exe().context("find the place of this binary")?;
            output::data(&unit(&binary)?)
        }
    }
}

fn unit(binary: &Path) -> anyhow::Result<String> {
    let binary = binary.to_str().context("the binary's path is no text")?;
    // A word of a command line, in which the service manager takes % and $ for its own.
    let quoted = binary
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    let plain = binary
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    let word = if plain {
        binary.to_owned()
    } else {
        format!("\"{quoted}\"")
    };
    Ok(UNIT.replace("@BINARY@", &word))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_binary_is_one_word_whatever_it_is_called() {
        let start = |binary: &str| {
            let unit = unit(Path::new(binary)).unwrap();
            let line = unit.lines().find(|line| line.starts_with("ExecStart="));
            line.unwrap().to_owned()
        };
        assert_eq!(
            start("/usr/bin/weft"),
            "ExecStart=/usr/bin/weft launch --foreground"
        );
        assert_eq!(
            start("/opt/my 100%/weft"),
            "ExecStart=\"/opt/my 100%%/weft\" launch --foreground"
        );
    }

    /// Ten times what `systemd-analyze security` may find: most of what is left is that weft sets up networks.
    const EXPOSURE_MAX: u32 = 45;

    /// The service manager's own opinion, where it is installed.
    #[test]
    fn the_unit_is_well_formed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weft.service");
        fs::write(&path, unit(Path::new("/bin/true")).unwrap()).unwrap();
        let mut verify = Command::new("systemd-analyze");
        let verified = verify.args(["verify", "--man=no"]).arg(&path).output();
        if let Ok(output) = verified {
            let said = String::from_utf8_lossy(&output.stderr);
            let ours: Vec<&str> = said
                .lines()
                .filter(|line| line.contains("weft.service"))
                .collect();
            assert!(ours.is_empty(), "{said}");
        }
        let mut judge = Command::new("systemd-analyze");
        let limit = format!("--threshold={EXPOSURE_MAX}");
        judge.args(["security", "--offline=yes", "--no-pager", &limit]);
        if let Ok(output) = judge.arg(&path).output() {
            let said = String::from_utf8_lossy(&output.stdout);
            // An older one judges only what is installed.
            let is_judged = said.contains("Overall exposure level");
            assert!(!is_judged || output.status.success(), "{said}");
        }
        let text = fs::read_to_string(&path).unwrap();
        let mut section = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.starts_with('[') {
                section = line;
                assert!(
                    ["[Unit]", "[Service]", "[Install]"].contains(&line),
                    "{line}"
                );
            } else {
                assert!(
                    line.starts_with('#') || line.contains('='),
                    "{section} {line}"
                );
            }
        }
        assert_eq!(section, "[Install]");
        assert!(!text.contains("@BINARY@"), "nothing is left to fill in");
    }
}
