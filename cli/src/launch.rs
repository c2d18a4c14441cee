//! `weft launch`: starts the daemon, in the background or here.
//!
//! ```text
//!  weft launch ─── settings, secrets on stdin ──► weft launch --handover   (new session)
//!      ▲                                              │ lock, log, signals
//!      └──────────── ready: name, or why not ─────────┘ daemon::run
//! ```
//!
//! A daemon that stays in the foreground starts itself anew in the same way when a secret came as an
//! argument or in the environment, which everybody on the host could read for as long as it runs.

mod background;
mod foreground;
mod handover;
pub(crate) mod lock;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::args::{LaunchArgs, Places};
use crate::launch::handover::{Handover, Mode};
use crate::launch::lock::RunLock;
use crate::settings::Settings;

/// Carries out `weft launch`.
///
/// # Errors
///
/// One line for what stands in the way: a bad argument, a running daemon, or why the daemon failed.
pub(crate) fn run(places: &Places, args: &LaunchArgs) -> anyhow::Result<ExitCode> {
    if args.handover {
        let Handover { mode, settings } = handover::receive()?;
        return foreground::run(&settings, mode);
    }
    let settings = Settings::new(places, args)?;
    make_dir(&settings.run_dir, 0o755)?;
    make_dir(&settings.data_dir, 0o700)?;
    if args.foreground {
        return if settings.secrets.is_empty() {
            foreground::run(&settings, Mode::Foreground)
        } else {
            Err(handover::start_anew(&Handover {
                mode: Mode::Foreground,
                settings,
            }))
        };
    }
    // Says so before anything is started; the daemon itself takes the lock for good.
    drop(RunLock::take(&settings.pid_file())?);
    background::run(settings, places.output)?;
    Ok(ExitCode::SUCCESS)
}

fn make_dir(path: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| {
            format!(
                "make directory {} (as root, or name another with a flag)",
                path.display()
            )
        })
}
