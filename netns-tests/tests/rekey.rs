//! Keys are renewed under full load, and nobody notices.
//!
//! ```text
//!  one 10.2.1.1 ═ TCP as fast as it goes ═► two 10.2.1.2       both daemons renew every 40 ms
//! ```

use std::time::Duration;

use serde_json::json;
use weft_netns_tests::{Overlay, Stream, alone_in_lab, eventually, is_long, record};

/// Between two renewals; the default is two minutes.
const INTERVAL_MS: &str = "40";
/// A stream that stands still for longer has lost its keys, not its turn on a busy processor.
const STALL: Duration = Duration::from_secs(1);
/// What counts as a frame lost to a renewal: a datagram whose keys are gone or not there yet.
const KEY_LOSSES: [&str; 4] = ["unknown", "no_session", "forged", "replayed"];

#[test]
fn renewals_under_load_lose_nothing_and_stop_nothing_with_io_uring() {
    alone_in_lab(|lab| {
        renewals(&Overlay::on_a_link(
            lab,
            &["--rekey-interval-ms", INTERVAL_MS, "--io", "uring"],
        ))
    });
}

#[test]
fn renewals_under_load_lose_nothing_and_stop_nothing_with_epoll() {
    alone_in_lab(|lab| {
        renewals(&Overlay::on_a_link(
            lab,
            &["--rekey-interval-ms", INTERVAL_MS, "--io", "epoll"],
        ))
    });
}

fn renewals(overlay: &Overlay) {
    let wanted: u64 = if is_long() { 10_000 } else { 200 };
    let limit = Duration::from_secs(if is_long() { 3000 } else { 120 });
    let [one, two] = &overlay.containers;
    let count = || overlay.weft[0].connection()["rekeys"].as_u64().unwrap_or(0);
    let losses = || {
        overlay
            .weft
            .iter()
            .map(|weft| weft.count(&KEY_LOSSES))
            .sum::<u64>()
    };
    let (first, lost_before) = (count(), losses());

    let stream = Stream::start(one, two, overlay.addresses[1]);
    eventually("renewals", limit, || {
        (count() >= first + wanted).then_some(())
    });
    let report = stream.finish();
    let (renewed, lost) = (count() - first, losses() - lost_before);
    let backend = overlay.weft[0].report()["engine"]["backend"].clone();
    record(
        &format!("rekeys-{}", backend.as_str().unwrap_or_default()),
        &json!({
            "backend": backend,
            "interval_ms": INTERVAL_MS,
            "rekeys": renewed,
            "datagrams_lost_to_keys": lost,
            "tcp_gbit_per_s": report.gbit_per_s(),
            "longest_silence_ms": report.longest_silence.as_millis(),
        }),
    );

    assert_eq!(
        lost,
        0,
        "datagrams lost to a renewal: {}",
        overlay.weft[1].report()
    );
    assert!(report.longest_silence < STALL, "{report:?}");
    // Debug builds move bytes too slowly for the promise of 1 Gbit/s.
    let least = if cfg!(debug_assertions) { 0.2 } else { 1.0 };
    assert!(
        report.gbit_per_s() >= least,
        "{} Gbit/s, {report:?}",
        report.gbit_per_s()
    );
}
