//! The daemon's own side: lock, log, signals, the service manager, and the daemon itself.

use std::future::pending;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use nix::sys::prctl::set_name;
use nix::unistd::{dup2_stdout, setsid};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Interval;

use crate::daemon::{self, Order};
use crate::launch::handover::{Mode, News};
use crate::launch::lock::RunLock;
use crate::settings::Settings;
use crate::{failure, logging, output};

/// Orders that may wait for the daemon: more than one person can give in the time it needs for one.
const ORDERS_MAX: usize = 8;
/// How long the daemon may say good-bye: the promise is to be gone within two seconds of a signal.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long work on other threads may go on after that.
const THREADS_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a daemon in the foreground stays after it has ended because `weft stop` or `weft reset` said so: its lock
/// is free and they return meanwhile. In a container its end is the container's; where `docker exec` runs one of those
/// at that very moment, Docker 20.10 loses its end and waits for ever, one time in ten.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who ended the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndedBy {
    /// `weft stop` or `weft reset`.
    Request,
    /// A signal.
    Signal,
}

/// Runs the daemon until it is told to leave.
///
/// # Errors
///
/// In the foreground, why it could not start or go on; in the background that has been said already.
pub(crate) fn run(settings: &Settings, mode: Mode) -> anyhow::Result<ExitCode> {
    // Started as /proc/self/exe, the kernel would call it `exe`.
    set_name(c"weft").context("name the process")?;
    if mode == Mode::Background {
        // Fails only for a group leader, which a process started by `weft launch` is not.
        setsid().context("leave the terminal's session")?;
        std::env::set_current_dir("/").context("leave the working directory")?;
    }
    let outcome = start_and_serve(settings, mode);
    say(&[NotifyState::Stopping]);
    match (outcome, mode) {
        (Ok(EndedBy::Request), Mode::Foreground) => {
            linger();
            Ok(ExitCode::SUCCESS)
        }
        (Ok(EndedBy::Request | EndedBy::Signal), _) => Ok(ExitCode::SUCCESS),
        (Err(error), Mode::Foreground) => Err(error),
        (Err(error), Mode::Background) => {
            let line = failure::one_line(&error);
            tracing::error!("{line}");
            announce(&News::Failed(line));
            Ok(ExitCode::FAILURE)
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when Docker has noticed the end of what it ran beside us"
)]
fn linger() {
    std::thread::sleep(FAREWELL);
}

fn start_and_serve(settings: &Settings, mode: Mode) -> anyhow::Result<EndedBy> {
    logging::start(&settings.log_level)?;
    let _lock = RunLock::take(&settings.pid_file())?;
    for warning in settings.warnings() {
        tracing::warn!("{}", warning.trim_start_matches("warning: "));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    let outcome = runtime.block_on(serve(settings, mode));
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    outcome
}

/// Drives the daemon and hands it what signals say.
async fn serve(settings: &Settings, mode: Mode) -> anyhow::Result<EndedBy> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let mut watchdog = sd_notify::watchdog_enabled().map(|limit| tokio::time::interval(limit / 2));
    let (orders, order_receiver) = mpsc::channel(ORDERS_MAX);
    let daemon = daemon::run(settings, order_receiver, |name, notes| {
        ready(name, notes, mode)
    });
    tokio::pin!(daemon);
    loop {
        tokio::select! {
            outcome = &mut daemon => return outcome.map(|()| EndedBy::Request),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => reload(settings, &orders),
            () = tick(&mut watchdog) => say(&[NotifyState::Watchdog]),
        }
    }
    tracing::info!("leaving");
    say(&[NotifyState::Stopping]);
    // A full queue means that the daemon does not listen; the time limit below ends it then.
    let _unheard = orders.try_send(Order::Leave);
    match tokio::time::timeout(LEAVE_TIMEOUT, daemon).await {
        Ok(outcome) => outcome.map(|()| EndedBy::Signal),
        Err(_) => {
            tracing::warn!("the daemon did not take its leave in time");
            Ok(EndedBy::Signal)
        }
    }
}

fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("listen for signals")
}

async fn tick(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(interval) => {
            interval.tick().await;
        }
        None => pending().await,
    }
}

/// Reads the secrets again; a file with a fault leaves those in use alone.
fn reload(settings: &Settings, orders: &mpsc::Sender<Order>) {
    // The service manager believes the one with the other only.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "read the clock"),
    }
    match settings.credentials() {
        Ok(secrets) => {
            tracing::info!(count = secrets.len(), "read the secrets again");
            if orders.try_send(Order::Secrets(secrets)).is_err() {
                tracing::warn!("the daemon is too busy to take the secrets: send SIGHUP again");
            }
        }
        Err(error) => tracing::warn!("keep the secrets in use: {}", failure::one_line(&error)),
    }
    say(&[NotifyState::Ready]);
}

/// Tells whoever waits that the daemon is ready.
fn ready(name: &str, notes: Vec<String>, mode: Mode) {
    say(&[NotifyState::Ready]);
    for note in &notes {
        tracing::warn!("{note}");
    }
    match mode {
        Mode::Background => {
            let name = name.to_owned();
            announce(&News::Ready { name, notes });
            // Nobody reads this end of stdout any more: what is written to it belongs into the log.
            if let Err(error) = dup2_stdout(std::io::stderr()) {
                tracing::debug!(%error, "join stdout with the log");
            }
        }
        Mode::Foreground => {
            let _nobody_reads = output::line(name);
        }
    }
    tracing::info!(name, "ready");
}

fn announce(news: &News) {
    let Ok(line) = serde_json::to_string(news) else {
        return;
    };
    // The launching process may be gone; the daemon goes on without it.
    let mut stdout = std::io::stdout().lock();
    let _nobody_reads = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Speaks to the service manager, if there is one.
fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "speak to the service manager");
    }
}
