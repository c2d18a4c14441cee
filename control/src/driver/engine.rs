//! What the driver needs of an engine, and how the real one is shown in status.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use weft_engine::command::{Command, Event, PeerSlot};
use weft_engine::engine::{BenchCounts, Engine};
use weft_engine::session::CipherSuite;

use crate::api;
use crate::config::CipherCost;
use crate::driver::bridge::TAP;
use crate::session::keys::suite_name;

/// An engine as the driver sees it; tests have a stand-in.
pub trait EngineHandle: Send + Sync + 'static {
    /// Gives an order to every worker.
    fn command(&self, command: Command);
    /// Takes the next report.
    fn poll_event(&self) -> Option<Event>;
    /// Readable while reports wait.
    fn event_fd(&self) -> BorrowedFd<'_>;
    /// Workers that send, 1 to 16.
    fn workers(&self) -> u16;
    /// The measured ciphers, one entry a suite.
    fn ciphers(&self) -> Vec<CipherCost>;
    /// For `weft status`.
    fn status(&self) -> api::EngineStatus;
    /// Frame bytes to and from each peer since it is known.
    fn traffic(&self) -> Vec<(PeerSlot, u64)>;
    /// What a measurement towards a peer sent, and what of it arrived.
    fn bench_counts(&self, slot: PeerSlot) -> BenchCounts;
    /// Takes one measured round trip.
    fn take_bench_round_trip(&self) -> Option<Duration>;
}

/// Bytes of the datagram that a cipher is measured with.
const MEASURED_LEN: u64 = 1400;

impl EngineHandle for Engine {
    fn command(&self, command: Command) {
        Self::command(self, command);
    }

    fn poll_event(&self) -> Option<Event> {
        Self::poll_event(self)
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        Self::event_fd(self)
    }

    fn workers(&self) -> u16 {
        Self::status(self).workers
    }

    fn ciphers(&self) -> Vec<CipherCost> {
        let measured = &Self::status(self).ciphers;
        let cost_of = |suite: CipherSuite| {
            let nanos = measured
                .iter()
                .filter(|speed| speed.suite == suite)
                .map(|speed| speed.nanos)
                .min()?;
            let ns_per_kib =
                u32::try_from(u64::from(nanos) * 1024 / MEASURED_LEN).unwrap_or(u32::MAX);
            Some(CipherCost { suite, ns_per_kib })
        };
        CipherSuite::ALL.into_iter().filter_map(cost_of).collect()
    }

    fn status(&self) -> api::EngineStatus {
        let status = Self::status(self);
        let offloads = [
            ("tap_checksum", status.tap.checksum),
            ("tap_tso", status.tap.tcp),
            ("tap_uso", status.tap.udp),
            ("udp_segment", status.udp.segment),
            ("udp_gro", status.udp.receive),
            ("lane_steering", status.udp.steering),
        ];
        let named = |wanted: bool| {
            offloads
                .iter()
                .filter(move |(_, on)| *on == wanted)
                .map(|(name, _)| *name)
        };
        let missing = named(false).map(|name| format!("the kernel does not offer {name}"));
        let dead = self
            .dead_workers()
            .into_iter()
            .map(|worker| format!("worker {worker} has ended; see the log"));
        api::EngineStatus {
            backend: status.backend.to_owned(),
            backend_reason: status.backend_reason.clone(),
            workers: status.workers,
            offloads: named(true).map(str::to_owned).collect(),
            notes: missing.chain(dead).chain(lost_tap()).collect(),
            ciphers: status
                .ciphers
                .iter()
                .map(|speed| {
                    let name = format!(
                        "{} ({})",
                        suite_name(speed.suite),
                        speed.implementation.name()
                    );
                    (name, speed.megabytes_per_second())
                })
                .collect(),
            counters: self.counters(),
        }
    }

    fn traffic(&self) -> Vec<(PeerSlot, u64)> {
        Self::traffic(self)
            .into_iter()
            .map(|(slot, traffic)| (slot, traffic.tx_bytes.wrapping_add(traffic.rx_bytes)))
            .collect()
    }

    fn bench_counts(&self, slot: PeerSlot) -> BenchCounts {
        Self::bench_counts(self, slot)
    }

    fn take_bench_round_trip(&self) -> Option<Duration> {
        Self::take_bench_round_trip(self)
    }
}

/// Says so if somebody deleted the device and the engine has not made it anew: a moment later it has, or never will.
fn lost_tap() -> Option<String> {
    let is_there = if_nametoindex(TAP).is_ok();
    (!is_there).then(|| {
        format!("device {TAP} was deleted, no frame passes: if this stays, see the log, then `weft stop` and `weft launch`")
    })
}
