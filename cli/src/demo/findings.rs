//! What the demo did and measured, as a short table.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use weft_control::api::Status;

use crate::demo::measure::RoundTrips;
use crate::output::{self, Format};

/// One host of the demo and its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Member {
    pub(crate) host: String,
    pub(crate) peer_name: String,
    pub(crate) underlay: Ipv4Addr,
    pub(crate) container: Ipv4Addr,
}

/// Round trips from the first container to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct RoundTrip {
    to: Ipv4Addr,
    median_ms: f64,
    p99_ms: f64,
}

/// Everything that the demo has to say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Findings {
    hosts: Vec<Member>,
    round_trips: Vec<RoundTrip>,
    tcp_gbit_per_s: f64,
    tcp_seconds: u8,
    cipher: String,
    backend: String,
    workers: u16,
    mtu: u16,
}

impl Findings {
    /// Puts the measurements together with what the first host's daemon says.
    ///
    /// # Errors
    ///
    /// When the daemon names no cipher: then nothing was encrypted, and the demo proved the wrong thing.
    pub(crate) fn new(
        hosts: Vec<Member>,
        round_trips: &[RoundTrips],
        tcp_gbit_per_s: f64,
        tcp_seconds: u8,
        status: &Status,
    ) -> anyhow::Result<Self> {
        let cipher = status
            .connections
            .iter()
            .find_map(|link| link.cipher.clone())
            .context("the daemon shows no session although frames crossed")?;
        let others = hosts.iter().skip(1).map(|member| member.container);
        let round_trips = others
            .zip(round_trips)
            .map(|(to, measured)| RoundTrip {
                to,
                median_ms: milliseconds(measured.median),
                p99_ms: milliseconds(measured.p99),
            })
            .collect();
        Ok(Self {
            hosts,
            round_trips,
            tcp_gbit_per_s,
            tcp_seconds,
            cipher,
            backend: status.engine.backend.clone(),
            workers: status.engine.workers,
            mtu: status.mtu,
        })
    }

    /// Prints the table, or everything as JSON.
    ///
    /// # Errors
    ///
    /// When stdout cannot be written.
    pub(crate) fn print(&self, format: Format) -> anyhow::Result<()> {
        match format {
            Format::Json => output::json(self),
            Format::Text => output::data(&self.table()),
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |label: &str, value: String| {
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "{label:<12} {value}");
        };
        for member in &self.hosts {
            let Member {
                host,
                peer_name,
                underlay,
                container,
            } = member;
            row(
                host,
                format!("{peer_name} at {underlay}, container at {container}"),
            );
        }
        for trip in &self.round_trips {
            row(
                "round trip",
                format!(
                    "{:.2} ms median, {:.2} ms p99 to {}",
                    trip.median_ms, trip.p99_ms, trip.to
                ),
            );
        }
        row(
            "TCP",
            format!(
                "{:.2} Gbit/s over {} s, one connection",
                self.tcp_gbit_per_s, self.tcp_seconds
            ),
        );
        row("encryption", self.cipher.clone());
        row(
            "engine",
            format!(
                "{}, {} workers a host, MTU {}",
                self.backend, self.workers, self.mtu
            ),
        );
        text
    }
}

/// Returns milliseconds to the microsecond, which is all that was measured.
fn milliseconds(time: Duration) -> f64 {
    let whole_us = Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    whole_us.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_short_and_has_units() {
        let member = |number: u8| Member {
            host: format!("host{number}"),
            peer_name: format!("da:fa:eb:dc:28:0{number}"),
            underlay: Ipv4Addr::new(192, 0, 2, number),
            container: Ipv4Addr::new(10, 2, 1, number),
        };
        let findings = Findings {
            hosts: vec![member(1), member(2)],
            round_trips: vec![RoundTrip {
                to: Ipv4Addr::new(10, 2, 1, 2),
                median_ms: 0.081,
                p99_ms: 0.24,
            }],
            tcp_gbit_per_s: 6.543,
            tcp_seconds: 5,
            cipher: "aes-256-gcm".into(),
            backend: "io_uring".into(),
            workers: 2,
            mtu: 1376,
        };

        assert_eq!(
            findings.table(),
            "host1        da:fa:eb:dc:28:01 at 192.0.2.1, container at 10.2.1.1\n\
             host2        da:fa:eb:dc:28:02 at 192.0.2.2, container at 10.2.1.2\n\
             round trip   0.08 ms median, 0.24 ms p99 to 10.2.1.2\n\
             TCP          6.54 Gbit/s over 5 s, one connection\n\
             encryption   aes-256-gcm\n\
             engine       io_uring, 2 workers a host, MTU 1376\n"
        );
    }
}
