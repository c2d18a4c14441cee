//! `weft bench`: throughput, packets and latency towards one peer, one after the other.
//!
//! The engine makes the load and the peer counts it; this only starts, watches and reports.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use weft_engine::command::{BenchLoad, Command, PeerSlot};
use weft_engine::engine::BenchCounts;

use crate::api::{ApiError, BenchProgress, BenchResult};
use crate::driver::engine::EngineHandle;

/// Pause between two lines of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);
/// What the peer's last count may take to come back.
const COUNT_TIMEOUT: Duration = Duration::from_millis(500);
/// Round trips kept; at one in 20 µs this is ten seconds, and more change no percentile.
const ROUND_TRIPS_MAX: usize = 500_000;
/// Frame length of the packet test.
const SMALL_FRAME_LEN: u16 = 64;
/// Bytes of an Ethernet header.
const ETHERNET_HEADER_LEN: u16 = 14;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench {
    pub(crate) slot: PeerSlot,
    pub(crate) phase: Duration,
    /// Overlay MTU in bytes.
    pub(crate) mtu: u16,
}

/// Where the lines go.
pub(crate) type Progress = mpsc::Sender<Result<BenchProgress, ApiError>>;

/// Stops the load whatever happens: the client may hang up and the task be dropped.
struct Load<'a, E: EngineHandle> {
    engine: &'a E,
    slot: PeerSlot,
}

impl<'a, E: EngineHandle> Load<'a, E> {
    fn start(engine: &'a E, slot: PeerSlot, load: BenchLoad) -> Self {
        engine.command(Command::Bench {
            slot,
            load: Some(load),
        });
        Self { engine, slot }
    }
}

impl<E: EngineHandle> Drop for Load<'_, E> {
    fn drop(&mut self) {
        self.engine.command(Command::Bench {
            slot: self.slot,
            load: None,
        });
    }
}

/// Measures the three phases; ends early when nobody listens.
pub(crate) async fn run<E: EngineHandle>(engine: Arc<E>, bench: Bench, progress: Progress) {
    let large = bench.mtu.saturating_add(ETHERNET_HEADER_LEN);
    let Some((throughput, seconds)) = flood(&*engine, bench, large, "throughput", &progress).await
    else {
        return;
    };
    let Some((packets, packet_seconds)) =
        flood(&*engine, bench, SMALL_FRAME_LEN, "packets", &progress).await
    else {
        return;
    };
    let Some(mut round_trips) = ping_pong(&*engine, bench, &progress).await else {
        return;
    };
    round_trips.sort_unstable();
    let result = BenchResult {
        throughput_gbps: as_f64(throughput.arrived_bytes) * 8.0 / seconds / 1e9,
        throughput_loss: loss(throughput),
        packets_per_s: as_f64(packets.arrived) / packet_seconds,
        packets_loss: loss(packets),
        latency_us: [500, 900, 990, 999, 1000]
            .map(|per_mille| percentile_us(&round_trips, per_mille)),
        latency_count: round_trips.len() as u64,
    };
    let phase_s = bench.phase.as_secs_f64();
    let line = BenchProgress {
        phase: "latency".to_owned(),
        elapsed_s: phase_s,
        phase_s,
        done: Some(result),
    };
    let _ = progress.send(Ok(line)).await;
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count above 2^53 would take years"
)]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn loss(counts: BenchCounts) -> f64 {
    if counts.sent == 0 {
        0.0
    } else {
        1.0 - as_f64(counts.arrived.min(counts.sent)) / as_f64(counts.sent)
    }
}

/// The smallest round trip that `per_mille` of them do not exceed, in microseconds; 0 if there are none.
fn percentile_us(sorted: &[Duration], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted
        .get(rank - 1)
        .map_or(0.0, |round_trip| round_trip.as_secs_f64() * 1e6)
}

async fn flood<E: EngineHandle>(
    engine: &E,
    bench: Bench,
    frame_len: u16,
    phase: &str,
    progress: &Progress,
) -> Option<(BenchCounts, f64)> {
    let before = engine.bench_counts(bench.slot);
    let start = Instant::now();
    let load = Load::start(engine, bench.slot, BenchLoad::Flood { frame_len });
    watch(bench, phase, progress, || {}).await?;
    drop(load);
    let seconds = start.elapsed().as_secs_f64();
    sleep(COUNT_TIMEOUT).await;
    let after = engine.bench_counts(bench.slot);
    let counts = BenchCounts {
        sent: after.sent.saturating_sub(before.sent),
        arrived: after.arrived.saturating_sub(before.arrived),
        arrived_bytes: after.arrived_bytes.saturating_sub(before.arrived_bytes),
    };
    Some((counts, seconds))
}

async fn ping_pong<E: EngineHandle>(
    engine: &E,
    bench: Bench,
    progress: &Progress,
) -> Option<Vec<Duration>> {
    while engine.take_bench_round_trip().is_some() {}
    let mut round_trips = Vec::new();
    let load = Load::start(engine, bench.slot, BenchLoad::PingPong);
    watch(bench, "latency", progress, || {
        while let Some(round_trip) = engine.take_bench_round_trip() {
            if round_trips.len() < ROUND_TRIPS_MAX {
                round_trips.push(round_trip);
            }
        }
    })
    .await?;
    drop(load);
    Some(round_trips)
}

/// Reports progress until the phase is over; `None` when nobody listens.
async fn watch(
    bench: Bench,
    phase: &str,
    progress: &Progress,
    mut poll: impl FnMut(),
) -> Option<()> {
    let start = Instant::now();
    loop {
        let elapsed = start.elapsed();
        poll();
        if elapsed >= bench.phase {
            return Some(());
        }
        let line = BenchProgress {
            phase: phase.to_owned(),
            elapsed_s: elapsed.as_secs_f64(),
            phase_s: bench.phase.as_secs_f64(),
            done: None,
        };
        progress.send(Ok(line)).await.ok()?;
        sleep(PROGRESS_PERIOD.min(bench.phase - elapsed)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let round_trips: Vec<_> = (1..=1000).map(Duration::from_micros).collect();
        assert!((percentile_us(&round_trips, 500) - 500.0).abs() < 1e-6);
        assert!((percentile_us(&round_trips, 999) - 999.0).abs() < 1e-6);
        assert!((percentile_us(&round_trips, 1000) - 1000.0).abs() < 1e-6);
        assert!(percentile_us(&[], 500).abs() < 1e-6);
        assert!((percentile_us(&round_trips[..1], 500) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn loss_is_a_share() {
        let counts = |sent, arrived| BenchCounts {
            sent,
            arrived,
            arrived_bytes: 0,
        };
        assert!(loss(counts(0, 0)).abs() < 1e-9);
        assert!((loss(counts(100, 75)) - 0.25).abs() < 1e-9);
        assert!(loss(counts(100, 101)).abs() < 1e-9);
    }
}
