//! Namespaces of our own: network, mount and process.
//!
//! The program runs itself again under `unshare`. When that one ends, however it ends, the kernel ends every
//! process inside and removes every namespace, device and file made there.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::program;

/// Set in the program that runs inside.
const MARK: &str = "WEFT_BENCHES_INSIDE";

/// Where runtime files go: a private tmpfs that goes with the namespaces.
pub(crate) const RUN: &str = "/run/bench";

pub(crate) fn is_inside() -> bool {
    std::env::var_os(MARK).is_some()
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Becomes `unshare … this program`; returns only if that failed.
pub(crate) fn enter() -> Result<ExitCode> {
    if !Path::new("/dev/net/tun").exists() {
        bail!("/dev/net/tun is missing: load the tun module");
    }
    let mut unshare = Command::new("unshare");
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    // The shell is the new init: it collects daemons whose parents have gone.
    unshare.args(["sh", "-c", "\"$0\" \"$@\"; exit $?"]);
    unshare.arg(std::env::current_exe().context("find this program")?);
    unshare.args(std::env::args_os().skip(1)).env(MARK, "1");
    Err(unshare.exec()).context("run unshare (util-linux)")
}

/// Gives the inside a `/run` of its own, which is where `ip netns` keeps names.
pub(crate) fn prepare() -> Result<()> {
    program::run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]))?;
    std::fs::create_dir_all(RUN).with_context(|| format!("make {RUN}"))
}
