//! The underlay breaks, moves and shrinks, and the overlay lives with it.

use std::net::IpAddr;
use std::time::Duration;

use weft_netns_tests::{
    Capture, Host, Lab, Overlay, Ping, Stream, Weft, alone_in_lab, in_lab, is_long, now, pause,
    transfer, udp_datagram, within,
};

/// A path that swallows everything is called dead in this time.
const NOTICE_LIMIT: Duration = Duration::from_millis(3500);
/// A path that works again is used again in this time.
const RECOVERY_LIMIT: Duration = Duration::from_secs(2);
/// Between two echo requests where single losses count.
const PING_INTERVAL: Duration = Duration::from_millis(20);
/// Echo requests that may go unanswered while an endpoint moves: those on their way, and those that follow before the
/// challenge to the new address is answered, which is one round trip (below a millisecond here).
const MOVE_LOSS_MAX: usize = 2;

/// ```text
///  one 10.2.1.1 ─ weft a 192.0.2.1 ══ 198.51.100.1 .. 192.0.2.254 router 198.51.100.254 ══ 198.51.100.1 weft b ─ two 10.2.1.2
/// ```
struct Routed {
    router: Host,
    overlay: Overlay,
}

impl Routed {
    fn new(lab: &Lab, flags: &[&str], prepare: impl Fn(&[Host; 2], &Host)) -> Self {
        let (hosts, router) = ([lab.host("a"), lab.host("b")], lab.host("router"));
        lab.link(
            (&hosts[0], "eth0", "192.0.2.1/24"),
            (&router, "left", "192.0.2.254/24"),
        );
        lab.link(
            (&hosts[1], "eth0", "198.51.100.1/24"),
            (&router, "right", "198.51.100.254/24"),
        );
        hosts[0].route_all_via("192.0.2.254");
        hosts[1].route_all_via("198.51.100.254");
        router.be_a_router();
        prepare(&hosts, &router);
        // The first host dials, so that it may stand behind a translation.
        let overlay = Overlay::on(
            lab,
            &[hosts[1].clone(), hosts[0].clone()],
            "198.51.100.1",
            flags,
        );
        Self { router, overlay }
    }
}

/// Both sides must have seen it in the time promised.
fn notice_dead_path(overlay: &Overlay) {
    within("the dead path to be noticed", NOTICE_LIMIT, || {
        overlay.weft.iter().all(|weft| !weft.has_path())
    });
}

/// ```text
///  one ─ weft a 192.0.2.1 ══╳══ 192.0.2.2 weft b ─ two
/// ```
#[test]
fn a_dead_path_is_noticed_and_a_healed_one_used_again() {
    alone_in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &[]);
        let hosts = [overlay.weft[0].host(), overlay.weft[1].host()];
        for _ in 0..2 {
            for host in hosts {
                host.black_hole("eth0");
            }
            notice_dead_path(&overlay);
            for host in hosts {
                host.heal();
            }
            overlay.wait_until_reachable(RECOVERY_LIMIT);
            for weft in &overlay.weft {
                within("the path in the report", RECOVERY_LIMIT, || weft.has_path());
            }
        }
    });
}

/// Only one direction is lost: both sides must call the path dead, for frames go both ways or not at all.
#[test]
fn a_path_that_works_one_way_only_is_dead() {
    alone_in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &[]);

        overlay.weft[1].host().black_hole("eth0");

        notice_dead_path(&overlay);
        overlay.weft[1].host().heal();
        overlay.wait_until_reachable(RECOVERY_LIMIT);
    });
}

/// The host has two addresses on its underlay device; the kernel would send from the first. Its peer stands behind a
/// filter that lets only the second one in, as a NAT would.
///
/// ```text
///  one ─ weft a 192.0.2.1 + 192.0.2.5 ══ filter: only 192.0.2.5 ══ 192.0.2.2 weft b ─ two        b dials 192.0.2.5
/// ```
#[test]
fn answers_leave_from_the_address_that_was_hit() {
    in_lab(|lab| {
        let hosts = lab.two_hosts();
        hosts[0].add_address("eth0", "192.0.2.5/24");
        hosts[1].add_rules("strict", "udp dport 6783 ip saddr != 192.0.2.5 drop;");
        let wire = Capture::start(&hosts[1], "eth0");

        let overlay = Overlay::on(lab, &hosts, "192.0.2.5", &[]);

        let used = |side: usize| overlay.weft[side].connection()["path"]["address"].clone();
        assert_eq!(used(1), "192.0.2.5:6783");
        let [one, two] = &overlay.containers;
        transfer(one, two, overlay.addresses[1], 5_000_000);
        transfer(two, one, overlay.addresses[0], 5_000_000);
        let from = |ip: &str| {
            let ip: IpAddr = ip.parse().expect("an address");
            wire.count(|frame| {
                udp_datagram(frame).is_some_and(|datagram| datagram.source.ip() == ip)
            })
        };
        // The first words to a peer that has not spoken yet leave from where the kernel likes.
        let (strange, right) = (from("192.0.2.1"), from("192.0.2.5"));
        assert!(
            right > 50 && strange * 10 < right,
            "{strange} strange, {right} right"
        );
    });
}

/// The address that the peer uses goes away from its host: what is left takes over.
///
/// ```text
///  one ─ weft a 192.0.2.1 + 192.0.2.5 (goes) ══ 192.0.2.2 weft b ─ two        b dials 192.0.2.5
/// ```
#[test]
fn traffic_goes_on_when_the_address_that_was_hit_goes_away() {
    alone_in_lab(|lab| {
        let gap = lose_the_address_that_was_hit(lab, &["--no-discovery"]);
        assert!(gap <= MOVE_LOSS_MAX, "{gap} echoes lost in a row");
    });
}

/// As above, but `b` knows the other address already: it is no stranger whom a challenge brings at once, but takes
/// over when the first one does not answer as soon as it should.
#[test]
fn another_known_address_takes_over_from_one_that_goes_away() {
    alone_in_lab(|lab| {
        let gap = lose_the_address_that_was_hit(lab, &[]);
        assert!(gap <= MOVE_LOSS_MAX, "{gap} echoes lost in a row");
    });
}

/// Returns how many echoes were lost in a row.
fn lose_the_address_that_was_hit(lab: &Lab, flags: &[&str]) -> usize {
    let hosts = lab.two_hosts();
    hosts[0].add_address("eth0", "192.0.2.5/24");
    let overlay = Overlay::on(lab, &hosts, "192.0.2.5", flags);
    let ping = Ping::start(&overlay.containers[0], overlay.addresses[1], PING_INTERVAL);
    pause(Duration::from_secs(1));

    hosts[0].run(&["ip", "address", "del", "192.0.2.5/24", "dev", "eth0"]);
    within("a path to the other address", RECOVERY_LIMIT, || {
        overlay.weft[1].connection()["path"]["address"] == "192.0.2.1:6783"
    });
    pause(Duration::from_secs(1));

    ping.finish().longest_gap
}

/// ```text
///  one ─ weft a 192.0.2.1, then 192.0.2.9 ══ 192.0.2.2 weft b ─ two
/// ```
#[test]
fn traffic_goes_on_when_a_host_changes_its_address() {
    alone_in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &[]);
        let [one, _] = &overlay.containers;
        let host = overlay.weft[0].host();
        // Else the kernel takes the new address away with the old one, for they share a subnet.
        host.run(&["sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1"]);
        let ping = Ping::start(one, overlay.addresses[1], PING_INTERVAL);
        pause(Duration::from_secs(1));

        let batch = "address add 192.0.2.9/24 dev eth0\naddress delete 192.0.2.1/24 dev eth0\n";
        let file = lab.folder().join("move");
        std::fs::write(&file, batch).expect("the lab's folder is writable");
        host.run(&["ip", "-batch", &file.to_string_lossy()]);
        pause(Duration::from_secs(2));

        let report = ping.finish();
        assert!(report.longest_gap <= MOVE_LOSS_MAX, "{report:?}");
        assert!(report.received > 100, "{report:?}");
        within("the new address in the report", RECOVERY_LIMIT, || {
            overlay.weft[1].connection()["path"]["address"] == "192.0.2.9:6783"
        });
    });
}

/// Translates without state: what leaves `a` gets another address and `port`, and nothing else leads to `a`.
fn translate(router: &Host, port: u16) {
    let out = format!(
        "iifname right ip daddr 192.0.2.1 drop; \
         iifname left udp sport 6783 udp sport set {port}; \
         iifname left ip saddr 192.0.2.1 ip saddr set 203.0.113.7;"
    );
    let back = format!(
        "iifname right ip daddr 203.0.113.7 udp dport {port} udp dport set 6783; \
         iifname right udp dport 6783 ip daddr 203.0.113.7 ip daddr set 192.0.2.1; \
         iifname right meta l4proto tcp ip daddr 203.0.113.7 ip daddr set 192.0.2.1;"
    );
    router.replace_rules("translation", &format!("{out} {back}"));
}

/// ```text
///  one ─ weft a 192.0.2.1 ══ router, which translates to 203.0.113.7:20000, then :30000 ══ 198.51.100.1 weft b ─ two
/// ```
#[test]
fn traffic_goes_on_when_a_translator_changes_the_port() {
    alone_in_lab(|lab| {
        let routed = Routed::new(lab, &[], |_, router| {
            // Where it leads does not matter: it only makes the address a likely one on that side.
            router.run(&["ip", "route", "add", "203.0.113.7", "via", "192.0.2.1"]);
            translate(router, 20000);
        });
        let (overlay, router) = (&routed.overlay, &routed.router);
        let far = overlay.weft[0].connection()["path"]["address"].clone();
        assert_eq!(far, "203.0.113.7:20000");
        // The container behind the translation speaks first.
        let ping = Ping::start(&overlay.containers[1], overlay.addresses[0], PING_INTERVAL);
        pause(Duration::from_secs(1));

        translate(router, 30000);
        pause(Duration::from_secs(2));

        let report = ping.finish();
        assert!(report.longest_gap <= MOVE_LOSS_MAX, "{report:?}");
        within("the new port in the report", RECOVERY_LIMIT, || {
            overlay.weft[0].connection()["path"]["address"] == "203.0.113.7:30000"
        });
    });
}

/// ```text
///  one ─ weft a 192.0.2.1 ══ UDP only ══ 192.0.2.2 weft b ─ two
/// ```
#[test]
fn data_goes_on_without_the_control_link_and_is_rekeyed() {
    alone_in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &["--rekey-interval-ms", "1000"]);
        let [one, two] = &overlay.containers;
        let ping = Ping::start(one, overlay.addresses[1], PING_INTERVAL);
        let stream = Stream::start(one, two, overlay.addresses[1]);
        let rekeys = |weft: &Weft| weft.connection()["rekeys"].as_u64().unwrap_or(0);

        for weft in &overlay.weft {
            weft.host().add_rules(
                "no_link",
                "tcp dport 6783 reject with tcp reset; tcp sport 6783 drop;",
            );
        }
        let before = rekeys(&overlay.weft[0]);
        // A link that swallows everything is given up after some 20 s; sessions must live before and after that.
        within(
            "the control link to be given up",
            Duration::from_secs(60),
            || {
                overlay.weft[0].connection()["detail"]
                    .as_str()
                    .is_some_and(|text| text.contains("control link lost"))
            },
        );
        let lost = rekeys(&overlay.weft[0]);
        assert!(
            lost > before,
            "sessions are rekeyed while the link does not answer"
        );
        within("rekeys without a link", Duration::from_secs(60), || {
            rekeys(&overlay.weft[0]) >= lost + 3
        });
        if is_long() {
            pause(Duration::from_secs(300));
        }

        let report = ping.finish();
        assert!(
            report.longest_silence <= Duration::from_millis(200),
            "{report:?}"
        );
        let report = stream.finish();
        assert!(
            report.longest_silence <= Duration::from_millis(500),
            "{report:?}"
        );
    });
}

/// ```text
///  one ─ weft a 192.0.2.1 ══ router, which swallows what is longer than 1300 bytes ══ 198.51.100.1 weft b ─ two
/// ```
#[test]
fn traffic_goes_on_when_the_path_silently_shrinks() {
    alone_in_lab(|lab| {
        let routed = Routed::new(lab, &[], |hosts, _| {
            for host in hosts {
                host.send_datagrams_singly("eth0");
            }
        });
        let overlay = &routed.overlay;
        let [one, two] = &overlay.containers;
        let stream = Stream::start(one, two, overlay.addresses[1]);
        stream.wait_for_more(RECOVERY_LIMIT);

        routed
            .router
            .add_rules("narrow", "meta l4proto udp meta length > 1300 drop;");
        let start = now();
        pause(Duration::from_millis(200));
        let silence = stream.wait_for_more(Duration::from_secs(15));

        within("the smaller MTU in the report", RECOVERY_LIMIT, || {
            let mtu = overlay.weft[0].connection()["path"]["mtu"]
                .as_u64()
                .unwrap_or(0);
            (1000..=1300 - 28 - 34).contains(&mtu)
        });
        let full = overlay.addresses[1].to_string();
        one.run(&[
            "ping", "-n", "-c", "3", "-W", "2", "-M", "do", "-s", "1348", &full,
        ]);
        assert!(
            silence < Duration::from_secs(10),
            "{silence:?} of {:?}",
            start.elapsed()
        );
        let report = stream.finish();
        assert!(report.bytes > 0, "{report:?}");
    });
}

#[test]
fn a_container_interface_set_down_comes_back() {
    in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &[]);
        let weft = &overlay.weft[0];
        let host_end = weft.host().other_end_of(&overlay.containers[0], "ethwe");

        weft.host()
            .run(&["ip", "link", "set", "dev", &host_end, "down"]);
        overlay.wait_until_reachable(RECOVERY_LIMIT);
    });
}
