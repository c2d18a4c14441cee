//! The cases: what is sent through a tunnel, and what is read off.

use std::str::FromStr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::load;
use crate::pair::Pair;
use crate::peers::Tunnel;
use crate::record::Figures;
use crate::usage::Usage;
use crate::wait;

/// UDP payload that fits every peer's MTU, bytes.
const LARGE_DATAGRAM: u32 = 1300;
/// Datagrams a second of the paced case.
const PACED_DATAGRAMS_PER_S: u32 = 40_000;

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Case {
    /// TCP with one stream.
    Tcp1,
    /// TCP with four streams.
    Tcp4,
    /// TCP with eight streams.
    Tcp8,
    /// UDP with 64 bytes of payload, as fast as the sender can.
    Udp64,
    /// UDP with 1300 bytes of payload, 40 000 a second.
    Udp1300Paced,
    /// UDP with 1300 bytes of payload, as fast as the sender can.
    Udp1300,
    /// Echo requests every 5 ms on the idle tunnel.
    Ping,
}

impl Case {
    pub(crate) const ALL: [Self; 7] = [
        Self::Ping,
        Self::Tcp1,
        Self::Tcp4,
        Self::Tcp8,
        Self::Udp64,
        Self::Udp1300Paced,
        Self::Udp1300,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp1 => "tcp1",
            Self::Tcp4 => "tcp4",
            Self::Tcp8 => "tcp8",
            Self::Udp64 => "udp64",
            Self::Udp1300Paced => "udp1300-40k",
            Self::Udp1300 => "udp1300",
            Self::Ping => "ping",
        }
    }

    /// Whether it says anything on a lossy underlay.
    pub(crate) fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp1 | Self::Tcp4 | Self::Tcp8)
    }

    /// Runs the case and reads off the figures.
    pub(crate) fn measure(self, pair: &Pair, tunnel: &Tunnel, seconds: u32) -> Result<Figures> {
        let fragments = || {
            pair.hosts
                .iter()
                .map(|host| host.snmp("Ip", "FragCreates"))
                .sum::<u64>()
        };
        let pids = tunnel.pids();
        // Reading this takes processor time itself, so it comes before the first look at the clock.
        let fragments_before = fragments();
        let before = Usage::now(&pids);
        let (result, elapsed_s) = wait::timed(|| self.load(tunnel, seconds));
        let used = Usage::now(&pids).since(before);
        let mut figures = result?;
        figures.mtu = tunnel.mtu;
        let processors = std::thread::available_parallelism()
            .context("count processors")?
            .get();
        let processor_s =
            elapsed_s * f64::from(u32::try_from(processors).context("count processors")?);
        figures.steal_percent = used.steal_s / processor_s * 100.0;
        figures.fragments = fragments() - fragments_before;
        if let Some(rate) = figures.gbit_per_s {
            let gigabytes = rate / 8.0 * self.seconds_sent(seconds);
            figures.machine_s_per_gb = Some(used.busy_s / gigabytes);
            figures.daemons_s_per_gb = Some(used.daemons_s / gigabytes);
        }
        if let Some(rate) = figures.kilo_datagrams_per_s {
            let datagrams = rate * 1e3 * f64::from(seconds);
            figures.daemons_us_per_datagram = Some(used.daemons_s / datagrams * 1e6);
        }
        Ok(figures)
    }

    /// TCP runs a second longer than it counts.
    fn seconds_sent(self, seconds: u32) -> f64 {
        f64::from(if self.is_tcp() { seconds + 1 } else { seconds })
    }

    fn load(self, tunnel: &Tunnel, seconds: u32) -> Result<Figures> {
        match self {
            Self::Tcp1 => tcp(tunnel, seconds, 1),
            Self::Tcp4 => tcp(tunnel, seconds, 4),
            Self::Tcp8 => tcp(tunnel, seconds, 8),
            Self::Udp64 => udp(tunnel, seconds, 64, 0),
            Self::Udp1300Paced => udp(tunnel, seconds, LARGE_DATAGRAM, PACED_DATAGRAMS_PER_S),
            Self::Udp1300 => udp(tunnel, seconds, LARGE_DATAGRAM, 0),
            Self::Ping => ping(tunnel),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|case| case.name() == name)
            .ok_or(format!("{name} is none of {known}"))
    }
}

fn tcp(tunnel: &Tunnel, seconds: u32, streams: u32) -> Result<Figures> {
    // The system's default may be BBR, which has its own idea of how fast to go.
    let streams = streams.to_string();
    let arguments = [
        "--congestion",
        "cubic",
        "--omit",
        "1",
        "--parallel",
        &streams,
    ];
    let end = load::iperf(&tunnel.ends, tunnel.address, seconds, &arguments)?;
    Ok(Figures {
        gbit_per_s: Some(number(&end, &["sum_received", "bits_per_second"])? / 1e9),
        retransmits: Some(number(&end, &["sum_sent", "retransmits"])?),
        ..Figures::default()
    })
}

/// `rate` in datagrams a second, 0 for no limit.
fn udp(tunnel: &Tunnel, seconds: u32, payload: u32, rate: u32) -> Result<Figures> {
    let (length, bits_per_s) = (
        payload.to_string(),
        (u64::from(rate) * u64::from(payload) * 8).to_string(),
    );
    let arguments = ["--udp", "--length", &length, "--bitrate", &bits_per_s];
    let end = load::iperf(&tunnel.ends, tunnel.address, seconds, &arguments)?;
    let sent = number(&end, &["sum", "packets"])?;
    let delivered = sent - number(&end, &["sum", "lost_packets"])?;
    let per_s = delivered / f64::from(seconds);
    Ok(Figures {
        gbit_per_s: Some(per_s * f64::from(payload) * 8.0 / 1e9),
        kilo_datagrams_per_s: Some(per_s / 1e3),
        loss_percent: Some((sent - delivered) / sent * 100.0),
        ..Figures::default()
    })
}

fn ping(tunnel: &Tunnel) -> Result<Figures> {
    let times_us = load::ping(&tunnel.ends[0], tunnel.address)?;
    let at = |percent: usize| times_us[(times_us.len() * percent / 100).min(times_us.len() - 1)];
    Ok(Figures {
        ping_p50_us: Some(at(50)),
        ping_p99_us: Some(at(99)),
        ..Figures::default()
    })
}

fn number(value: &Value, keys: &[&str]) -> Result<f64> {
    let found = keys.iter().fold(value, |value, key| &value[key]);
    found
        .as_f64()
        .with_context(|| format!("iperf3 reported no {}", keys.join(".")))
}
