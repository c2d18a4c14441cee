//! The programs that make the load: iperf3 and ping.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::pair::Netns;
use crate::program;

/// Between two echo requests, seconds. Below 0.01 ping does not sleep between them: it spins, and what is measured
/// is how everything else shares the other core with it.
const PING_INTERVAL_S: &str = "0.02";
/// How long every peer is left alone before it is pinged: while a tunnel is young its programs look for addresses,
/// path MTU and each other, and that is not what an idle tunnel does.
const PING_SETTLE: Duration = Duration::from_secs(5);
/// Echo requests in one case: the 99th percentile then stands on four of them.
const PING_COUNT: u32 = 400;

/// An iperf3 server for one test; dropped, it is killed.
struct Server(Child);

impl Server {
    /// Returns when it listens.
    fn start(netns: &Netns) -> Result<Self> {
        let mut command = netns.command("iperf3");
        command
            .args(["--server", "--one-off", "--forceflush"])
            .stdin(Stdio::null());
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start the iperf3 server")?;
        let mut server = Self(child);
        let output = server.0.stdout.take().context("the server's output")?;
        let mut lines = BufReader::new(output).lines();
        if !lines.any(|line| line.is_ok_and(|line| line.contains("Server listening"))) {
            bail!("the iperf3 server ended before it listened");
        }
        // What it says later must find a reader, or it blocks.
        std::thread::spawn(move || lines.count());
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one iperf3 test and returns the `end` part of its report.
pub(crate) fn iperf(
    ends: &[Netns; 2],
    address: &str,
    seconds: u32,
    arguments: &[&str],
) -> Result<Value> {
    let _server = Server::start(&ends[1])?;
    let mut client = ends[0].command("timeout");
    client.arg((seconds + 15).to_string());
    client.args([
        "iperf3",
        "--client",
        address,
        "--json",
        "--time",
        &seconds.to_string(),
    ]);
    let output = program::output(client.args(arguments))?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| anyhow!("iperf3 {}: no report, the tunnel stalls", output.status))?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    Ok(report["end"].clone())
}

/// Leaves the tunnel alone for a while, then pings; returns the round trips in microseconds, smallest first.
#[expect(
    clippy::disallowed_methods,
    reason = "no event says that nothing goes on any more"
)]
pub(crate) fn ping(from: &Netns, address: &str) -> Result<Vec<f64>> {
    std::thread::sleep(PING_SETTLE);
    let mut ping = from.command("ping");
    ping.args([
        "-n",
        "-i",
        PING_INTERVAL_S,
        "-c",
        &PING_COUNT.to_string(),
        address,
    ]);
    let text = program::run(&mut ping)?;
    let times = text.lines().filter_map(|line| {
        line.split_once("time=")?
            .1
            .split(' ')
            .next()?
            .parse::<f64>()
            .ok()
    });
    let mut times_us: Vec<f64> = times.map(|time_ms| time_ms * 1e3).collect();
    if times_us.is_empty() {
        bail!("no ping reply");
    }
    times_us.sort_by(f64::total_cmp);
    Ok(times_us)
}
