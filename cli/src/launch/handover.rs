//! How one weft process hands settings, secrets among them, to the next: as JSON on its stdin.
//!
//! Not as arguments, which everybody on the host can read, and not in the environment, which stays
//! readable for as long as the daemon runs.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::dup2_stdin;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::settings::Settings;

/// Settings with a few hundred peers and a screenful of secrets stay far below.
const HANDOVER_LEN_MAX: u64 = 1 << 20;
/// Variables that hold secrets.
const SECRET_VARIABLES: [&str; 2] = ["WEFT_PASSWORD", "WEAVE_PASSWORD"];

/// Who waits for the daemon to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// `weft launch`, at the other end of stdout.
    Background,
    /// A terminal or a service manager.
    Foreground,
}

/// What the next process is given.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// How it is to run.
    pub(crate) mode: Mode,
    /// With what.
    pub(crate) settings: Settings,
}

/// What a daemon in the background says to the process that started it; one JSON value a line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum News {
    /// It is ready.
    Ready {
        /// The peer's name.
        name: String,
        /// What its user is to know.
        notes: Vec<String>,
    },
    /// It gave up; the reason follows.
    Failed(String),
}

/// Prepares the next process: this program with the handover on its stdin.
///
/// # Errors
///
/// When the system refuses a piece of memory to pass it in.
pub(crate) fn prepare(handover: &Handover) -> anyhow::Result<Command> {
    let text = Zeroizing::new(serde_json::to_vec(handover)?);
    let memory = memfd_create(c"weft-handover", MFdFlags::MFD_CLOEXEC)
        .context("make memory for the handover")?;
    let mut file = File::from(memory);
    file.write_all(&text)
        .and_then(|()| file.rewind())
        .context("write the handover")?;
    // Not by its path, which may lie under a mount, or belong to a newer version by now.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("weft")
        .arg("--config")
        .arg("/dev/null")
        .arg("--run-dir")
        .arg(&handover.settings.run_dir)
        .args(["launch", "--handover"])
        .stdin(file);
    for variable in SECRET_VARIABLES {
        command.env_remove(variable);
    }
    Ok(command)
}

/// Becomes the next process, with the same pid; returns only what prevented it.
pub(crate) fn start_anew(handover: &Handover) -> anyhow::Error {
    match prepare(handover) {
        Ok(mut command) => {
            anyhow::Error::from(command.exec()).context("start anew without secrets in sight")
        }
        Err(error) => error,
    }
}

/// Reads the handover and lets go of it.
///
/// # Errors
///
/// When stdin holds something else.
pub(crate) fn receive() -> anyhow::Result<Handover> {
    let mut text = Zeroizing::new(Vec::new());
    io::stdin()
        .lock()
        .take(HANDOVER_LEN_MAX)
        .read_to_end(&mut text)
        .context("read the handover")?;
    dup2_stdin(File::open("/dev/null")?).context("let go of the handover")?;
    match serde_json::from_slice(&text) {
        Ok(handover) => Ok(handover),
        // The text may hold secrets: nothing of it is shown.
        Err(_) => bail!("--handover is how weft starts itself: use `weft launch`"),
    }
}
