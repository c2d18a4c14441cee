//! The starting side of a launch in the background: starts the daemon and waits for its word.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::launch::handover::{self, Handover, Mode, News};
use crate::output::{self, Format};
use crate::settings::Settings;

/// A daemon is ready within two seconds; one that needs this long will never be.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// As much of the log's end as is searched for a daemon's last words.
const LAST_WORDS_MAX: u64 = 4096;

/// Starts the daemon, waits until it is ready and prints its name.
///
/// # Errors
///
/// The daemon's own reason for giving up, or that it died or said nothing.
pub(crate) fn run(settings: Settings, format: Format) -> anyhow::Result<()> {
    let log_path = settings.log_file();
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(&log_path)
        .with_context(|| format!("open log {}", log_path.display()))?;
    let log_start = log.metadata()?.len();
    for warning in settings.warnings() {
        output::talk(&format!("weft: {warning}"));
    }
    let handover = Handover {
        mode: Mode::Background,
        settings,
    };
    let mut child = handover::prepare(&handover)?
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("start the daemon")?;
    match news_of(&mut child) {
        Some(News::Ready { name, notes }) => {
            for note in notes {
                output::talk(&format!("weft: {note}"));
            }
            match format {
                Format::Json => output::json(&serde_json::json!({ "name": name })),
                Format::Text => output::line(&name),
            }
        }
        Some(News::Failed(line)) => {
            child.wait().context("wait for the daemon's end")?;
            bail!("{line}")
        }
        None => {
            let _dead_already = child.kill();
            let status = child.wait().context("wait for the daemon's end")?;
            let words = last_words(&log_path, log_start);
            bail!(
                "the daemon did not become ready ({status}){words}; its log is {}",
                log_path.display()
            )
        }
    }
}

/// Waits for the daemon's word; `None` if it ends or stays silent.
fn news_of(child: &mut Child) -> Option<News> {
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _silence = BufReader::new(stdout).read_line(&mut line);
        sender.send(line)
    });
    let line = receiver.recv_timeout(READY_TIMEOUT).ok()?;
    serde_json::from_str(&line).ok()
}

/// Returns the last line that the daemon wrote into its log, for the end of a sentence.
fn last_words(log: &Path, start: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(
            start.max(end.saturating_sub(LAST_WORDS_MAX)),
        ))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("; its last words: {}", line.trim()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_words_are_the_last_line_of_this_run() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("weft.log");
        fs::write(&log, "old run\n").unwrap();
        let start = fs::metadata(&log).unwrap().len();
        assert_eq!(last_words(&log, start), "");

        fs::write(&log, "old run\nstarting\npanicked at a wall\n\n").unwrap();

        assert_eq!(
            last_words(&log, start),
            "; its last words: panicked at a wall"
        );
    }
}
