//! Starts the process that answers Docker once the daemon has ended, and is that process.
//!
//! A process of its own, since a daemon may be killed: it waits at a pipe whose other end the daemon never uses, and
//! which the kernel closes with it.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use nix::sys::prctl::set_name;
use weft_control::driver::plugin;

use crate::args::{Places, StandInArgs};
use crate::settings::Settings;

/// Starts it, unless Docker is not served or nothing outlives us: the first process of a container.
///
/// It serves from the moment when what is returned is dropped, or this process ends.
pub(crate) fn start(settings: &Settings) -> Option<Child> {
    let plugin_dir = settings.plugin_dir.as_ref()?;
    if std::process::id() == 1 {
        return None;
    }
    // Not by its path, which may lie under a mount, or belong to a newer version by now.
    let started = Command::new("/proc/self/exe")
        .arg0("weft")
        .args(["--config", "/dev/null", "--data-dir"])
        .arg(&settings.data_dir)
        .arg("stand-in")
        .arg(plugin_dir)
        .stdin(Stdio::piped())
        // Whoever reads ours waits for their end.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What a terminal sends is for the daemon.
        .process_group(0)
        .spawn();
    started
        .inspect_err(
            |error| tracing::warn!(%error, "nobody will answer Docker when weft has ended"),
        )
        .ok()
}

/// Waits for the daemon's end, then answers in its place for as long as Docker has networks of weft's.
///
/// # Errors
///
/// When the sockets cannot be had.
pub(crate) fn run(places: &Places, args: &StandInArgs) -> anyhow::Result<()> {
    set_name(c"weft-stand-in").context("name the process")?;
    std::env::set_current_dir("/").context("leave the working directory")?;
    // Nothing comes.
    let _end = io::stdin().read_to_end(&mut Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    runtime.block_on(plugin::stand_in(&args.plugin_dir, &places.data_dir))?;
    Ok(())
}
