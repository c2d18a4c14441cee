//! What attach and expose do to containers and hosts beyond the address: multicast, IPv6, translation.
//!
//! ```text
//!  m1 10.2.1.1 ── weft a ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ weft b ── m2 10.2.1.2, m3 10.2.2.3
//! ```

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};
use std::time::Duration;

use weft_netns_tests::{Host, Lab, Outcome, Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// A frame that another container of the same host has got already.
const LATE: Duration = Duration::from_millis(300);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const PORT: u16 = 5353;

fn two_hosts(lab: &Lab, flags: &[&str]) -> [Weft; 2] {
    let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
    launch(&a, flags);
    a.ok(&["prime"]);
    launch(&b, &[flags, &["192.0.2.1"]].concat());
    [a, b]
}

fn launch(weft: &Weft, words: &[&str]) {
    weft.ok(&[&["launch", "--password", "secret"], words].concat());
}

/// A socket that hears the group by the interface with this address.
fn listener(container: &Host, own: [u8; 4]) -> UdpSocket {
    container.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("the port is free");
        let joined = socket.join_multicast_v4(&GROUP, &own.into());
        joined.expect("the container has the address");
        let limited = socket.set_read_timeout(Some(LATE));
        limited.expect("a socket has a timeout");
        socket
    })
}

fn say(container: &Host, own: [u8; 4], word: &[u8]) {
    container.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::from(own), 0));
        let socket = socket.expect("the container has the address");
        let sent = socket.send_to(word, (GROUP, PORT));
        sent.expect("the container has a route for multicast");
    });
}

fn hears(socket: &UdpSocket, word: &[u8]) -> bool {
    let mut heard = [0; 16];
    while let Ok(len) = socket.recv(&mut heard) {
        if &heard[..len] == word {
            return true;
        }
    }
    false
}

/// Only the subnet of the sender hears it, the sender too, on whichever host.
#[test]
fn multicast_reaches_the_containers_of_its_subnet_and_no_others() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab, &["--ipalloc-range", "10.2.0.0/16"]);
        let [m1, m2, m3, both] = ["m1", "m2", "m3", "both"].map(|name| lab.host(name));
        a.attach(&m1, &["10.2.1.1/24"]);
        b.attach(&m2, &["10.2.1.2/24"]);
        b.attach(&m3, &["10.2.2.3/24"]);
        b.attach(&both, &["10.2.1.4/24", "10.2.2.4/24"]);
        assert!(m1.run(&["ip", "route"]).contains("224.0.0.0/4 dev ethwe "));
        for (key, value) in [
            ("base_reachable_time_ms", "5000"),
            ("delay_first_probe_time", "2"),
            ("ucast_solicit", "1"),
        ] {
            let set = m1.run(&["sysctl", "-n", &format!("net.ipv4.neigh.ethwe.{key}")]);
            assert_eq!(set.trim(), value, "{key}");
        }
        within("the other host", CONNECT_LIMIT, || {
            m1.reaches([10, 2, 1, 2].into())
        });

        let ears = [
            listener(&m2, [10, 2, 1, 2]),
            listener(&m3, [10, 2, 2, 3]),
            listener(&both, [10, 2, 1, 4]),
        ];
        let heard = |from: &Host, own: [u8; 4], word: &[u8]| {
            say(from, own, word);
            [0, 1, 2].map(|ear| hears(&ears[ear], word))
        };
        assert_eq!(heard(&m1, [10, 2, 1, 1], b"from m1"), [true, false, true]);
        assert_eq!(heard(&both, [10, 2, 2, 4], b"both"), [false, true, true]);
        assert_eq!(heard(&m3, [10, 2, 2, 3], b"m3"), [false, true, true]);
        b.detach(&both, &["10.2.2.4/24"]);
        assert_eq!(heard(&m3, [10, 2, 2, 3], b"again"), [false, true, false]);
        assert_eq!(heard(&m1, [10, 2, 1, 1], b"m1 again"), [true, false, true]);

        b.detach(&both, &["10.2.1.4/24"]);
        assert_eq!(both.run(&["nft", "list", "ruleset"]), "", "nothing is left");
        b.attach(&both, &["--no-multicast-route", "10.2.1.4/24"]);
        assert_eq!(both.run(&["ip", "route", "show", "224.0.0.0/4"]), "");
        b.ok(&["reset", "--force"]);
        for container in [&m2, &m3, &both] {
            assert!(!container.has_device("ethwe"));
            assert_eq!(container.run(&["nft", "list", "ruleset"]), "", "nor then");
        }
    });
}

fn words(printed: &str) -> Vec<IpAddr> {
    let parsed = printed.split_whitespace().map(str::parse);
    parsed.collect::<Result<_, _>>().expect("addresses")
}

#[test]
fn containers_have_addresses_of_both_families() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab, &["--ipalloc-range6", "fd57:6566:7400::/64"]);
        assert!(a.ok(&["status"]).contains("Range6: fd57:6566:7400::/64"));
        let [one, two, four] = ["c1", "d1", "d2"].map(|name| lab.host(name));
        let [first, second] = [words(&a.attach(&one, &[])), words(&b.attach(&two, &[]))];
        for addresses in [&first, &second] {
            assert_eq!(addresses.len(), 2, "{addresses:?}");
            assert!(
                addresses[0].is_ipv4() && addresses[1].to_string().starts_with("fd57:6566:7400:")
            );
        }
        assert_eq!(
            words(&b.attach(&four, &["net:10.32.0.0/24"])).len(),
            1,
            "no default subnet"
        );
        for address in &second {
            within("both families", CONNECT_LIMIT, || one.reaches(*address));
        }
        assert!(two.reaches(first[1]));
        let line = a.ok(&["ps", "c1"]);
        assert!(line.trim().ends_with(&format!("{}/64", first[1])), "{line}");
        let found = |kind: &str| {
            let words = [
                "dig",
                "+short",
                "+tries=1",
                "@169.254.53.1",
                "d1.weave.local",
                kind,
            ];
            String::from_utf8_lossy(&one.output(&words).stdout)
                .trim()
                .to_owned()
        };
        within("the name", CONNECT_LIMIT, || {
            found("A") == second[0].to_string()
        });
        assert_eq!(found("AAAA"), second[1].to_string());
        let looked_up = |flags: &[&str]| words(&a.ok(&[&["dns-lookup", "d1"], flags].concat()));
        assert_eq!(
            looked_up(&[]),
            second[..1],
            "for `ping $(weft dns-lookup d1)`"
        );
        assert_eq!(looked_up(&["--all"]), second);
        assert!(a.ok(&["status", "dns"]).contains(&second[1].to_string()));

        a.crash();
        launch(&a, &["--ipalloc-range6", "fd57:6566:7400::/64"]);
        assert_eq!(words(&a.attach(&one, &[])), first, "the same after a crash");
        let host = words(&a.ok(&["expose"]));
        assert_eq!(host.len(), 2, "{host:?}");
        for address in first.iter().chain(&second) {
            within("containers from the host", CONNECT_LIMIT, || {
                a.host().reaches(*address)
            });
        }
        assert!(two.reaches(host[1]));
        assert_eq!(words(&a.ok(&["hide"])), host);
        assert!(!a.host().reaches(second[1]));
        assert_eq!(words(&a.detach(&one, &[])), first);
        assert!(!one.has_device("ethwe"));

        b.ok(&["stop"]);
        let refused = b.run(&["launch", "--ipalloc-range6", "2001:db8::/64"]);
        assert_ne!(refused.code, 0);
        assert!(
            refused.stderr.contains("not a unique local prefix"),
            "{refused:?}"
        );
    });
}

fn table(host: &Host) -> Option<String> {
    let listed = host.output(&["nft", "-s", "list", "table", "inet", "weft"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.status.success().then_some(text)
}

/// Restarts and flushes give no subnet a translation that it was exposed without; reset leaves nothing.
#[test]
fn a_subnet_exposed_without_translation_stays_so() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab, &[]);
        let host = a.host();
        a.ok(&[
            "expose",
            "--without-masquerade",
            "-h",
            "plain",
            "10.9.1.1/24",
        ]);
        assert!(!table(host).unwrap().contains("masquerade"));
        a.crash();
        launch(&a, &[]);
        a.ok(&["expose", "10.9.2.1/24"]);
        let as_asked = || {
            let rules = table(host).unwrap_or_default();
            rules.contains("10.9.2.0/24") && !rules.contains("10.9.1.0/24")
        };
        assert!(as_asked(), "{:?}", table(host));
        host.run(&["nft", "flush", "ruleset"]);
        within("the rules to be back", CONNECT_LIMIT, || {
            table(host).is_some()
        });
        assert!(as_asked(), "{:?}", table(host));
        within("the host's name elsewhere", CONNECT_LIMIT, || {
            b.ok(&["dns-lookup", "plain"]).trim() == "10.9.1.1"
        });
        a.ok(&["expose", "10.9.1.1/24"]);
        assert!(table(host).unwrap().contains("10.9.1.0/24"), "asked anew");
        a.ok(&["reset", "--force"]);
        assert_eq!(table(host), None);
    });
}

/// What others take off the bridge, or delete with it, comes back; what was hidden does not.
#[test]
fn exposed_addresses_are_put_back() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab, &["--ipalloc-range6", "fd57:6566:7400::/64"]);
        let (host, container) = (a.host(), lab.host("c"));
        let [four, six] = words(&a.ok(&["expose"]))[..] else {
            panic!("one of each family");
        };
        a.ok(&["expose", "10.9.1.1/24"]);
        a.attach(&container, &["10.9.1.2/24", "net:default"]);
        let all = [four, six, [10, 9, 1, 1].into()];
        let are_back = || all.iter().all(|address| container.reaches(*address));
        let deeds: [&[&str]; 3] = [
            &["ip", "addr", "flush", "dev", "weft"],
            &["ip", "link", "set", "weft", "down"],
            &["ip", "link", "del", "weft"],
        ];
        for deed in deeds {
            host.run(deed);
            within("the addresses to be back", CONNECT_LIMIT, are_back);
            within("the DNS server's address", CONNECT_LIMIT, || {
                host.run(&["ip", "addr", "show", "dev", "weft"])
                    .contains("169.254.53.1")
            });
            assert!(table(host).unwrap().contains("10.9.1.0/24"));
        }
        a.ok(&["hide", "10.9.1.1/24"]);
        host.run(&["ip", "addr", "flush", "dev", "weft"]);
        within("the other addresses", CONNECT_LIMIT, || {
            container.reaches(four) && container.reaches(six)
        });
        let shown = host.run(&["ip", "addr", "show", "dev", "weft"]);
        assert!(!shown.contains("10.9.1.1"), "{shown}");
        assert!(!table(host).unwrap().contains("10.9.1.0/24"));
    });
}

fn ended(child: Child) -> Outcome {
    let output = child.wait_with_output().expect("it ends");
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: Duration::ZERO,
    }
}

/// Whoever waits for an address of the host is told, too; and a host without nftables does what it can.
#[test]
fn hide_waits_for_nobody_and_a_host_without_nftables_is_exposed_plainly() {
    in_lab(|lab| {
        let host = lab.host("a");
        let weft = lab.weft(&host);
        let programs = lab.folder().join("programs");
        std::fs::create_dir(&programs).expect("the lab's folder is writable");
        let ip = ["/sbin/ip", "/usr/sbin/ip", "/bin/ip"].map(std::path::Path::new);
        let ip = ip.into_iter().find(|path| path.exists()).expect("iproute2");
        symlink(ip, programs.join("ip")).expect("the lab's folder is writable");
        let mut poor =
            weft.command(&["launch", "--password", "x", "--ipalloc-init", "consensus=3"]);
        let launched = poor.env("PATH", &programs).output().expect("it runs");
        assert!(launched.status.success(), "{launched:?}");

        let mut exposing = weft.command(&["expose"]);
        let exposing = exposing
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        within("the expose to wait", CONNECT_LIMIT, || {
            weft.json(&["status"])["ipam"]["waiting"] == 1
        });
        let hidden = weft.run(&["hide"]);
        assert_eq!((hidden.code, hidden.stdout.trim()), (0, ""), "{hidden:?}");
        assert!(hidden.took < Duration::from_secs(5), "{hidden:?}");
        let refused = ended(exposing.expect("weft can be started"));
        assert_eq!(refused.code, 1);
        assert!(
            refused.stderr.contains("was taken off the network"),
            "{refused:?}"
        );

        let refused = weft.run(&["expose", "10.9.1.1/24"]);
        assert_eq!(refused.code, 1);
        assert!(
            refused
                .stderr
                .contains("install nftables, or use --without-masquerade"),
            "{refused:?}"
        );
        assert!(
            !weft.ok(&["ps"]).contains("10.9.1.1"),
            "nothing is half done"
        );
        let plain = weft.ok(&["expose", "--without-masquerade", "10.9.1.1/24"]);
        assert_eq!(plain.trim(), "10.9.1.1");
        let container = lab.host("c");
        assert_eq!(weft.attach(&container, &["10.9.1.2/24"]), "10.9.1.2");
        assert!(
            weft.log().contains("is nftables installed?"),
            "{}",
            weft.log()
        );
        assert!(host.reaches([10, 9, 1, 2].into()));
        assert_eq!(weft.ok(&["hide", "10.9.1.1/24"]).trim(), "10.9.1.1");
    });
}
