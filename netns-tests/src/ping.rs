//! Pings in the background and says which echoes came back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;

/// A running `ping`; dropped without [`Ping::finish`], it is killed.
#[derive(Debug)]
pub struct Ping {
    child: Option<Child>,
    interval: Duration,
}

/// Which echoes came back.
#[derive(Debug, Clone)]
pub struct PingReport {
    /// Requests sent.
    pub sent: usize,
    /// Requests answered.
    pub received: usize,
    /// Most requests in a row without an answer; the last one sent does not count.
    pub longest_gap: usize,
    /// The same as time, and at least the longest time between two answers: `ping` falls behind its interval.
    pub longest_silence: Duration,
}

impl Ping {
    /// Starts to ping `address` every `interval`.
    ///
    /// # Panics
    ///
    /// If ping cannot be started.
    #[must_use]
    pub fn start(host: &Host, address: IpAddr, interval: Duration) -> Self {
        let mut command = host.command("ping");
        command.args([
            "-n",
            "-D",
            "-i",
            &interval.as_secs_f64().to_string(),
            &address.to_string(),
        ]);
        let child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("ping can be started");
        Self {
            child: Some(child),
            interval,
        }
    }

    /// Ends it and says what came of it.
    ///
    /// # Panics
    ///
    /// If ping ended early or said something unexpected.
    #[must_use]
    pub fn finish(mut self) -> PingReport {
        let child = self.child.take().expect("a ping is finished once");
        let pid = i32::try_from(child.id()).expect("process ids fit");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("a test may signal its own child");
        let output = child.wait_with_output().expect("ping ends on SIGINT");
        let text = String::from_utf8_lossy(&output.stdout);
        let summary = text
            .lines()
            .find(|line| line.contains("packets transmitted"));
        let summary = summary.unwrap_or_else(|| panic!("ping ended early: {text}"));
        let sent: usize = summary
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .expect("ping counts what it sent");
        let replies = text.lines().filter(|line| line.contains("time="));
        let sequence = |line: &str| {
            line.split_once("icmp_seq=")?
                .1
                .split(' ')
                .next()?
                .parse::<usize>()
                .ok()
        };
        let answered: BTreeSet<usize> = replies.filter_map(sequence).collect();
        // The last request may still be on its way.
        let end = sent.max(1);
        let before = std::iter::once(&0).chain(&answered);
        let after = answered.iter().chain([&end]);
        let gaps = before
            .zip(after)
            .map(|(before, after)| (after - before).saturating_sub(1));
        let longest_gap = gaps.max().unwrap_or(sent);
        let counted = self.interval * u32::try_from(longest_gap).expect("a test sends fewer pings");
        let times: Vec<f64> = text.lines().filter_map(answered_at).collect();
        let between = times
            .iter()
            .zip(times.iter().skip(1))
            .map(|(before, after)| after - before);
        let seen = Duration::from_secs_f64(between.fold(0.0, f64::max));
        let silence = counted.max(seen.saturating_sub(self.interval));
        PingReport {
            sent,
            received: answered.len(),
            longest_gap,
            longest_silence: silence,
        }
    }
}

/// When an answer came, in seconds: `[1732530000.123456] 64 bytes from …`.
fn answered_at(line: &str) -> Option<f64> {
    let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
    rest.contains("time=").then(|| time.parse().ok())?
}

impl Drop for Ping {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
