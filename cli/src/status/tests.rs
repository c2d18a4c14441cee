//! Golden texts: scripts parse these shapes.

use std::collections::BTreeMap;

use weft_control::api::PathReport;

use super::*;

fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        name: "da:fa:eb:dc:28:27".into(),
        nickname: "host1".into(),
        peer_id: "00112233445566778899aabbccddeeff".into(),
        network: "weft".into(),
        port: 6783,
        membership: "password".into(),
        discovery: true,
        mtu: 1376,
        ipam: None,
        proxy: None,
        plugin: None,
        uptime_s: 3_725,
        targets: vec![
            Target {
                address: "192.0.2.7".into(),
                state: "connected".into(),
                detail: String::new(),
            },
            Target {
                address: "host3:7000".into(),
                state: "waiting".into(),
                detail: "no such name".into(),
            },
        ],
        connections: vec![established(), failed()],
        dns: None,
        engine: EngineStatus {
            backend: "epoll".into(),
            backend_reason: "io_uring is disabled by kernel.io_uring_disabled=2".into(),
            workers: 2,
            offloads: vec!["vnet_hdr".into(), "tso4".into(), "udp_segment".into()],
            notes: vec!["uso4 is missing: the kernel is older than 6.2".into()],
            ciphers: vec![
                ("aes-256-gcm".into(), 2101.4),
                ("chacha20-poly1305".into(), 1188.0),
            ],
            counters: BTreeMap::from([
                ("drop_forged".into(), 2),
                ("drop_replayed".into(), 10),
                ("drop_too_big".into(), 0),
                ("open_datagrams".into(), 5_000),
            ]),
        },
    }
}

fn established() -> Connection {
    Connection {
        outbound: true,
        address: "192.0.2.7:6783".into(),
        state: "established".into(),
        name: "da:fa:eb:dc:28:28".into(),
        nickname: "host2".into(),
        peer_id: "ff112233445566778899aabbccddeeff".into(),
        cipher: Some("chacha20-poly1305".into()),
        path: Some(PathReport {
            address: "192.0.2.7:6783".into(),
            kind: "direct".into(),
            rtt_ms: 0.312,
            mtu: 1424,
            loss: 0.0,
        }),
        detail: String::new(),
        rekeys: 3,
    }
}

fn failed() -> Connection {
    Connection {
        outbound: true,
        address: "192.0.2.9:7000".into(),
        state: "failed".into(),
        name: String::new(),
        nickname: String::new(),
        peer_id: String::new(),
        cipher: None,
        path: None,
        detail: "connection refused, retry: in 4s".into(),
        rekeys: 0,
    }
}

#[test]
fn the_overview_keeps_weaves_shape() {
    let expected = "
        Version: 0.1.0

        Service: router
           Name: da:fa:eb:dc:28:27(host1)
        Network: weft
     Encryption: enabled
  PeerDiscovery: enabled
        Targets: 2
    Connections: 2 (1 established, 1 failed)
          Peers: 2 (with 2 established connections)
 TrustedSubnets: none
         Uptime: 1h2m

        Service: engine
        Backend: epoll (io_uring is disabled by kernel.io_uring_disabled=2)
        Workers: 2
       Offloads: vnet_hdr tso4 udp_segment
        Ciphers: aes-256-gcm 2101 MB/s, chacha20-poly1305 1188 MB/s
            MTU: 1376
        Dropped: 12 (10 replayed, 2 forged)
           Note: uso4 is missing: the kernel is older than 6.2

";
    assert_eq!(overview(&status()), expected);
}

#[test]
fn a_lonely_open_peer_shows_bare_totals() {
    let lonely = Status {
        membership: "open".into(),
        discovery: false,
        targets: vec![],
        connections: vec![],
        ..status()
    };

    let text = overview(&lonely);

    assert!(
        text.contains("\n     Encryption: enabled, open membership\n"),
        "{text}"
    );
    assert!(text.contains("\n  PeerDiscovery: disabled\n"), "{text}");
    assert!(text.contains("\n        Targets: 0\n"), "{text}");
    assert!(text.contains("\n    Connections: 0\n"), "{text}");
    assert!(text.contains("\n          Peers: 1\n"), "{text}");
}

#[test]
fn targets_are_one_a_line_as_given() {
    assert_eq!(targets(&status().targets), "192.0.2.7\nhost3:7000\n");
    assert_eq!(targets(&[]), "");
}

#[test]
fn a_link_line_ends_in_readable_words() {
    let expected = "\
-> 192.0.2.7:6783        established encrypted chacha20-poly1305 direct rtt=0.3ms mtu=1424 da:fa:eb:dc:28:28(host2)
-> 192.0.2.9:7000        failed      connection refused, retry: in 4s
";
    assert_eq!(connections(&status()), expected);
}

#[test]
fn a_relayed_peer_says_via_whom_and_how_much_is_lost() {
    let path = PathReport {
        kind: "via host3".into(),
        rtt_ms: 123.6,
        loss: 0.0149,
        mtu: 1376,
        ..established().path.unwrap()
    };
    let link = Connection {
        outbound: false,
        path: Some(path),
        ..established()
    };

    assert_eq!(
        link_line(&link, false),
        "<- 192.0.2.7:6783        established encrypted chacha20-poly1305 via host3 rtt=124ms mtu=1376 loss=1.5% \
         da:fa:eb:dc:28:28(host2)"
    );
}

#[test]
fn an_open_network_says_so_on_the_link() {
    let line = link_line(&established(), true);

    assert!(
        line.ends_with("mtu=1424 open membership da:fa:eb:dc:28:28(host2)"),
        "{line}"
    );
}

#[test]
fn a_pending_link_without_session_has_no_empty_words() {
    let link = Connection {
        state: "pending".into(),
        cipher: None,
        path: None,
        ..established()
    };

    assert_eq!(
        link_line(&link, false),
        "-> 192.0.2.7:6783        pending     encrypted da:fa:eb:dc:28:28(host2)"
    );
}

#[test]
fn a_first_attempt_is_a_line_without_trailing_blanks() {
    let link = Connection {
        state: "connecting".into(),
        detail: String::new(),
        ..failed()
    };

    assert_eq!(
        link_line(&link, false),
        "-> 192.0.2.9:7000        connecting"
    );
}

#[test]
fn times_have_as_many_digits_as_say_something() {
    assert_eq!(milliseconds(0.0421), "0.04ms");
    assert_eq!(milliseconds(0.31), "0.3ms");
    assert_eq!(milliseconds(180.4), "180ms");
    assert_eq!(duration(59), "59s");
    assert_eq!(duration(61), "1m1s");
    assert_eq!(duration(90_061), "1d1h");
}

#[test]
fn the_plugin_is_told_with_its_drivers_its_network_and_docker() {
    let mut status = status();
    assert!(!overview(&status).contains("Service: plugin"));
    status.plugin = Some(PluginStatus {
        drivers: vec!["weftmesh".into(), "weft".into()],
        network: Some("weft".into()),
        network_fault: None,
        docker: "unix:///d.sock".into(),
        trouble: None,
    });
    let block = "
        Service: plugin
        Drivers: weftmesh weft
        Network: weft
         Docker: unix:///d.sock

";
    let text = overview(&status);
    assert!(text.contains(block), "{text}");

    let mut plugin = status.plugin.take().unwrap();
    plugin.network_fault = Some("which Docker does not have".into());
    let mut told = String::new();
    super::plugin(&mut told, &plugin);
    assert!(
        told.contains("Network: weft, which Docker does not have\n"),
        "{told}"
    );
    // Nobody can tell then.
    plugin.trouble = Some("gone".into());
    told.clear();
    super::plugin(&mut told, &plugin);
    assert!(
        told.contains("Network: weft\n") && told.contains("d.sock, not there"),
        "{told}"
    );
}
