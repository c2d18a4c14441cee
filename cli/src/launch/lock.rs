//! The pid file: one daemon for each run directory, and a way to wait for its end.
//!
//! The daemon holds a lock on the file for as long as it lives, so a pid that is left over means nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

/// How often a pid file may be replaced under our hands by daemons that end just then.
const ATTEMPTS_MAX: usize = 10;
/// How long a lock in use is waited for: a killed daemon keeps it until the kernel has put its files away.
const ENDING_TIMEOUT: Duration = Duration::from_millis(250);
/// More than any pid has digits.
const PID_LEN_MAX: u64 = 32;

/// The right to be the daemon of a run directory; given back when dropped.
#[derive(Debug)]
pub(crate) struct RunLock {
    file: File,
    path: PathBuf,
}

impl RunLock {
    /// Takes the lock and writes our pid into the file.
    ///
    /// # Errors
    ///
    /// When a daemon is running, or the file cannot be written.
    pub(crate) fn take(path: &Path) -> anyhow::Result<Self> {
        for _ in 0..ATTEMPTS_MAX {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(path)
                .with_context(|| format!("open pid file {}", path.display()))?;
            match lock_soon(&file) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let pid =
                        read_pid(&mut file).map_or_else(String::new, |pid| format!(" (pid {pid})"));
                    bail!(
                        "weft is already running{pid}: end it with `weft stop`, or name another --run-dir"
                    );
                }
                Err(TryLockError::Error(error)) => {
                    return Err(anyhow::Error::from(error)
                        .context(format!("lock pid file {}", path.display())));
                }
            }
            if !is_at(&file, path) {
                continue; // its owner removed it between our open and our lock
            }
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
                .with_context(|| format!("write pid file {}", path.display()))?;
            return Ok(Self {
                file,
                path: path.to_owned(),
            });
        }
        bail!(
            "pid file {} changes all the time: are several daemons being started?",
            path.display()
        )
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Removed while the lock is held: nobody can have taken it in between.
        if is_at(&self.file, &self.path) {
            let _gone_already = fs::remove_file(&self.path);
        }
    }
}

/// A daemon that may be running, remembered before it is asked to end.
#[derive(Debug)]
pub(crate) struct Watched {
    file: Option<File>,
}

impl Watched {
    /// Remembers the daemon of this pid file, if there is one.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            file: File::open(path).ok(),
        }
    }

    /// Waits until the daemon has ended.
    ///
    /// # Errors
    ///
    /// When it still runs after `timeout`.
    pub(crate) fn wait_end(mut self, timeout: Duration) -> anyhow::Result<()> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let (sender, receiver) = mpsc::channel();
        let mut copy = file.try_clone().context("watch the daemon")?;
        // The lock comes free with the daemon's end; a thread left behind ends with this process.
        thread::spawn(move || sender.send(file.lock()));
        match receiver.recv_timeout(timeout) {
            Ok(locked) => locked.context("watch the daemon"),
            Err(_) => {
                let pid =
                    read_pid(&mut copy).map_or_else(String::new, |pid| format!(" (pid {pid})"));
                bail!(
                    "the daemon{pid} has not ended after {} s: see its log",
                    timeout.as_secs()
                )
            }
        }
    }
}

/// Locks the file, at once or as soon as a daemon that is just ending lets go of it.
fn lock_soon(file: &File) -> Result<(), TryLockError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {}
        outcome => return outcome,
    }
    let copy = file.try_clone().map_err(TryLockError::Error)?;
    let (sender, receiver) = mpsc::channel();
    // A thread left behind ends with this process, which has nothing more to do then.
    thread::spawn(move || sender.send(copy.lock()));
    match receiver.recv_timeout(ENDING_TIMEOUT) {
        Ok(locked) => locked.map_err(TryLockError::Error),
        Err(_) => Err(TryLockError::WouldBlock),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(PID_LEN_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weft.pid");
        let _first = RunLock::take(&path).unwrap();

        let error = RunLock::take(&path).unwrap_err().to_string();

        assert!(
            error.contains(&format!("already running (pid {})", std::process::id())),
            "{error}"
        );
    }

    #[test]
    fn a_daemon_that_is_ending_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weft.pid");
        let ending = RunLock::take(&path).unwrap();
        let (started, start) = mpsc::channel();

        let second = thread::spawn({
            let path = path.clone();
            move || {
                started.send(()).unwrap();
                RunLock::take(&path)
            }
        });
        start.recv().unwrap();
        drop(ending);

        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_pid_file_left_behind_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weft.pid");
        fs::write(&path, "999999999999\n").unwrap();

        let lock = RunLock::take(&path).unwrap();

        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn the_end_of_the_daemon_is_seen_and_its_absence_is_no_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weft.pid");
        Watched::new(&path)
            .wait_end(Duration::from_millis(1))
            .unwrap();
        let lock = RunLock::take(&path).unwrap();
        let watched = Watched::new(&path);

        let waiter = thread::spawn(move || watched.wait_end(Duration::from_secs(20)));
        drop(lock);

        waiter.join().unwrap().unwrap();
    }

    #[test]
    fn a_daemon_that_does_not_end_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weft.pid");
        let _lock = RunLock::take(&path).unwrap();

        let error = Watched::new(&path)
            .wait_end(Duration::from_millis(20))
            .unwrap_err()
            .to_string();

        assert!(
            error.contains(&format!("pid {}", std::process::id())),
            "{error}"
        );
    }
}
