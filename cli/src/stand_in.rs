//! Starts the process that answers Docker once the daemon has ended, and is that process.
//!
//! A process of its own, since a daemon may be killed: it waits at a pipe whose other end the daemon never uses, and
//! which the kernel closes with it. One that ends before is replaced.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::sys::prctl::set_name;
use weft_control::driver::plugin;

use crate::args::{Places, StandInArgs};
use crate::settings::Settings;

/// Between the end of one and the start of the next: whatever ends them must not keep this host busy.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

/// A stand-in that waits for its turn, which comes when this is dropped, or with the end of this process.
#[derive(Debug)]
pub(crate) struct StandIn(Arc<Mutex<Turn>>);

/// Whose turn it is to answer Docker.
#[derive(Debug, Default)]
struct Turn {
    /// Our end of the pipe at which a stand-in waits.
    pipe: Option<ChildStdin>,
    /// It is the stand-in's.
    has_come: bool,
}

/// Starts it, unless Docker is not served or nothing outlives us: the first process of a container.
pub(crate) fn start(settings: &Settings) -> Option<StandIn> {
    let plugin_dir = settings.plugin_dir.clone()?;
    if std::process::id() == 1 {
        return None;
    }
    let turn = Arc::new(Mutex::new(Turn::default()));
    let watched = Arc::clone(&turn);
    let data_dir = settings.data_dir.clone();
    let watching = thread::Builder::new()
        .name("weft-stand-in".to_owned())
        .spawn(move || keep(&watched, &data_dir, &plugin_dir));
    if let Err(error) = watching {
        tracing::warn!(%error, "nobody will answer Docker when weft has ended");
    }
    Some(StandIn(turn))
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let mut turn = locked(&self.0);
        turn.has_come = true;
        drop(turn.pipe.take());
    }
}

fn locked(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    // Nothing in here panics half way.
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts one, and another when it has ended, until the turn of the last one comes.
#[expect(
    clippy::disallowed_methods,
    reason = "a pause of a thread that has nothing else to do"
)]
fn keep(turn: &Mutex<Turn>, data_dir: &Path, plugin_dir: &Path) {
    loop {
        let started = {
            let mut turn = locked(turn);
            if turn.has_come {
                return;
            }
            let started = start_one(data_dir, plugin_dir);
            started.map(|mut child| {
                turn.pipe = child.stdin.take();
                child
            })
        };
        let ended = started.and_then(|mut child| child.wait());
        if locked(turn).has_come {
            return;
        }
        tracing::warn!(
            ?ended,
            "nobody waits to answer Docker when weft has ended: another try"
        );
        thread::sleep(REPLACE_PAUSE);
    }
}

fn start_one(data_dir: &Path, plugin_dir: &Path) -> io::Result<Child> {
    // Not by its path, which may lie under a mount, or belong to a newer version by now.
    Command::new("/proc/self/exe")
        .arg0("weft")
        .args(["--config", "/dev/null", "--data-dir"])
        .arg(data_dir)
        .arg("stand-in")
        .arg(plugin_dir)
        .stdin(Stdio::piped())
        // Whoever reads ours waits for their end.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What a terminal sends is for the daemon.
        .process_group(0)
        .spawn()
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
