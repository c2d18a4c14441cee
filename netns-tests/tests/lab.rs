//! The lab itself: what it breaks is broken, what it captures is there. No weft takes part.
//!
//! ```text
//!  a 192.0.2.1 ══ 192.0.2.2 b
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft_netns_tests::{
    Capture, Ping, RawSocket, alone_in_lab, ethernet, flood, in_lab, pace, pause, transfer,
    udp_datagram, vlan, within,
};

const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

#[test]
fn a_black_hole_swallows_everything_until_it_is_healed() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts();
        assert!(a.reaches(FAR));

        b.black_hole("eth0");
        assert!(!a.reaches(FAR));

        b.heal();
        assert!(a.reaches(FAR));
    });
}

#[test]
fn a_ping_report_names_the_longest_silence() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts();
        let ping = Ping::start(&a, FAR, Duration::from_millis(10));
        pause(Duration::from_millis(300));
        b.black_hole("eth0");
        pause(Duration::from_millis(500));
        b.heal();
        pause(Duration::from_millis(300));

        let report = ping.finish();

        assert!(report.received > 20, "{report:?}");
        assert!((10..=200).contains(&report.longest_gap), "{report:?}");
    });
}

#[test]
fn tagged_and_odd_frames_are_captured_as_they_were_sent() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts();
        let capture = Capture::start(&b, "eth0");
        let socket = RawSocket::open(&a, "eth0");
        let odd = ethernet([0xff; 6], [2, 0, 0, 0, 0, 9], 0x88b5, &[0x5a; 77]);
        let tagged = vlan(&odd, 42);

        socket.send(&odd);
        socket.send(&tagged);

        let limit = Duration::from_secs(2);
        capture.wait_for("the odd frame", limit, |frame| frame == odd);
        capture.wait_for("the tagged frame", limit, |frame| frame == tagged);
    });
}

#[test]
fn flows_count_what_arrives_and_loss_shows() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts();
        let report = transfer(&a, &b, FAR, 50_000_000);
        assert!(report.gbit_per_s() > 0.1, "{report:?}");

        let clean = pace(&a, &b, FAR, (1300, 5_000), Duration::from_secs(1), false);
        assert!(
            clean.sent > 4_000 && clean.received == clean.sent,
            "{clean:?}"
        );

        b.lose_percent("eth0", 20);
        let lossy = pace(&a, &b, FAR, (1300, 5_000), Duration::from_secs(1), false);
        assert!((0.7..0.9).contains(&lossy.share()), "{lossy:?}");
    });
}

#[test]
fn a_flood_reaches_its_rate() {
    alone_in_lab(|lab| {
        let [a, b] = lab.two_hosts();
        a.send_datagrams_singly("eth0");
        let capture = Capture::start(&b, "eth0");
        let stop = Arc::new(AtomicBool::new(false));
        let target = SocketAddr::new(FAR, 9);

        let flood = flood(
            &a,
            target,
            (200, 100_000),
            Arc::clone(&stop),
            |number, bytes| {
                bytes[..8].copy_from_slice(&number.to_be_bytes());
            },
        );
        pause(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);

        let sent = flood.join().unwrap();
        assert!(sent > 80_000, "{sent} sent");
        let single =
            |frame: &[u8]| udp_datagram(frame).is_some_and(|seen| seen.payload.len() == 200);
        within("the flood on the wire", Duration::from_secs(5), || {
            capture.count(single) > 50_000
        });
    });
}

#[test]
fn nothing_is_left_of_a_lab_that_panicked() {
    let before = std::fs::read_dir("/run/netns")
        .map(Iterator::count)
        .unwrap_or(0);
    let outcome = std::panic::catch_unwind(|| {
        in_lab(|lab| {
            let _ = lab.two_hosts();
            panic!("as planned");
        });
    });
    assert!(outcome.is_err());
    let after = std::fs::read_dir("/run/netns")
        .map(Iterator::count)
        .unwrap_or(0);
    assert_eq!(before, after);
}
