//! Watches a device with tcpdump and keeps every frame.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::host::Host;
use crate::pcap::PcapReader;
use crate::wait;

/// A running capture; dropped, it ends.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Capture {
    /// Starts to capture what enters and leaves `device`, restricted by a tcpdump `filter` (empty for all).
    ///
    /// Returns when it has begun.
    ///
    /// # Panics
    ///
    /// If tcpdump cannot be started.
    #[must_use]
    pub fn start(host: &Host, device: &str, filter: &str) -> Self {
        let mut command = host.command("tcpdump");
        command.args([
            "-i",
            device,
            "-U",
            "--immediate-mode",
            "-s",
            "0",
            "-B",
            "65536",
            "-Z",
            "root",
            "-w",
            "-",
        ]);
        let mut tcpdump = command
            .arg(filter)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump can be started");
        let stderr = tcpdump.stderr.take().expect("stderr was asked for");
        let stdout = tcpdump.stdout.take().expect("stdout was asked for");
        let mut talk = BufReader::new(stderr).lines();
        let begun = talk.any(|line| line.is_ok_and(|line| line.contains("listening on")));
        assert!(
            begun,
            "tcpdump on {} {device} ended before it listened",
            host.name()
        );
        // What it says later must find a reader, or it blocks.
        thread::spawn(move || talk.count());
        let frames = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&frames);
        thread::spawn(move || collect(stdout, &sink));
        Self { tcpdump, frames }
    }

    /// What was captured so far.
    #[must_use]
    pub fn frames(&self) -> Vec<Vec<u8>> {
        lock(&self.frames).clone()
    }

    /// How many frames so far satisfy `wanted`.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        lock(&self.frames)
            .iter()
            .filter(|frame| wanted(frame))
            .count()
    }

    /// Waits until a frame satisfies `wanted`, and returns it.
    ///
    /// # Panics
    ///
    /// If none does within `limit`.
    pub fn wait_for(&self, what: &str, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let find = || {
            lock(&self.frames)
                .iter()
                .find(|frame| wanted(frame))
                .cloned()
        };
        wait::eventually(what, limit, find).0
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

fn collect(stdout: impl Read, sink: &Mutex<Vec<Vec<u8>>>) {
    // The stream ends, in whatever place, when the capture is dropped.
    let Ok(reader) = PcapReader::new(BufReader::new(stdout)) else {
        return;
    };
    for frame in reader {
        lock(sink).push(frame);
    }
}

fn lock(frames: &Mutex<Vec<Vec<u8>>>) -> MutexGuard<'_, Vec<Vec<u8>>> {
    frames.lock().unwrap_or_else(PoisonError::into_inner)
}
