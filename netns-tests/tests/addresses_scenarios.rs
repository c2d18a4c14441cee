//! Weave's own scenarios about addresses, numbered as there: 100, 130 with 135, and 500.
//!
//! ```text
//!  c1, c3, c5 ── weft a ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ weft b ── c2, c4, c6
//! ```

use std::net::IpAddr;
use std::time::Duration;

use weft_netns_tests::{Host, Lab, Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// A dead container's address is free after 30 s, and a look at the host comes every 5 s.
const FREE_LIMIT: Duration = Duration::from_secs(60);
/// Rules that somebody flushed are back in this time; Weave allowed itself 12 s.
const MEND_LIMIT: Duration = Duration::from_secs(2);

fn two_hosts(lab: &Lab) -> [Weft; 2] {
    lab.two_hosts().map(|host| lab.weft(&host))
}

fn launch(weft: &Weft, flags: &[&str], peers: &[&str]) {
    weft.ok(&[&["launch", "--password", "secret"], flags, peers].concat());
}

/// Attaches a new container with these arguments; returns it and its first address.
fn attached(lab: &Lab, weft: &Weft, name: &str, arguments: &[&str]) -> (Host, IpAddr) {
    let container = lab.host(name);
    let printed = weft.attach(&container, arguments);
    let first = printed.split(' ').next().and_then(|ip| ip.parse().ok());
    (container, first.unwrap_or_else(|| panic!("{printed}")))
}

fn active(weft: &Weft) -> u64 {
    let active = &weft.json(&["status"])["ipam"]["active"];
    active.as_u64().expect("a number")
}

fn names(weft: &Weft) -> usize {
    weft.ok(&["status", "dns"]).lines().count()
}

/// The restart keeps the address within the grace; what does not come back loses it after.
#[test]
fn scenario_100_all_forms_of_addresses_across_hosts_and_a_restart() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        let range = [
            "--ipalloc-range",
            "10.2.0.0/16",
            "--ipalloc-default-subnet",
            "10.2.2.0/24",
        ];
        launch(&a, &range, &[]);
        a.ok(&["prime"]);
        launch(&b, &range, &["192.0.2.1"]);
        let (c1, _) = attached(lab, &a, "c1", &["10.2.1.4/24"]);
        let (_c2, second) = attached(lab, &b, "c2", &["ip:10.2.1.7/24"]);
        let (c3, _) = attached(lab, &a, "c3", &[]);
        let (_c4, fourth) = attached(lab, &b, "c4", &["net:default"]);
        let (c5, _) = attached(lab, &a, "c5", &["net:10.2.3.0/24"]);
        let (c6, sixth) = attached(lab, &b, "c6", &["net:10.2.3.0/24"]);
        let pairs = [(&c1, second), (&c3, fourth), (&c5, sixth)];
        for (from, to) in pairs {
            within("each pair", CONNECT_LIMIT, || from.reaches(to));
        }
        within("six names", CONNECT_LIMIT, || {
            names(&a) == 6 && names(&b) == 6
        });

        c6.remove();
        let (_c6, again) = attached(lab, &b, "c6", &["net:10.2.3.0/24"]);
        assert_eq!(again, sixth, "within the grace");
        within("the one that was restarted", CONNECT_LIMIT, || {
            c5.reaches(sixth)
        });
        let (gone, freed) = attached(lab, &b, "gone", &["net:10.2.3.0/24", "192.168.9.1/24"]);
        gone.remove();
        within("six names again", CONNECT_LIMIT, || {
            names(&a) == 6 && names(&b) == 6
        });

        assert_eq!(active(&b), 4, "{freed} may come back");
        let other = lab.host("other").as_container();
        let held = b.run(&["attach", &format!("{freed}/24"), &other]);
        assert!(held.stderr.contains("already owned by gone"), "{held:?}");
        within(
            "a dead one's address outside the range",
            CONNECT_LIMIT,
            || b.run(&["attach", "192.168.9.1/24", &other]).code == 0,
        );
        within("the address to be free", FREE_LIMIT, || active(&b) == 3);
        within("word of it in the log", CONNECT_LIMIT, || {
            b.log().contains("addresses of a dead container are free")
        });
        let (_c7, seventh) = attached(lab, &b, "c7", &["net:10.2.3.0/24"]);
        assert_eq!(seventh, freed, "c6 keeps {sixth}");
    });
}

/// What the host reaches of c3 and c5.
fn reached(host: &Host) -> [bool; 2] {
    [[10, 2, 2, 1].into(), [10, 2, 3, 1].into()].map(|address| host.reaches(address))
}

fn rules(host: &Host) -> String {
    let listed = host.output(&["nft", "-s", "list", "table", "inet", "weft"]);
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

/// 135 asks for the rules of Weave back within 12 s of their canary's death.
#[test]
fn scenarios_130_and_135_the_host_comes_and_goes_and_its_rules_stay() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        launch(&a, &["--ipalloc-range", "10.2.3.0/24"], &[]);
        let host = a.host();
        let place = |name: &str, arguments: &[&str]| attached(lab, &a, name, arguments).0;
        let c1 = place("c1", &["10.2.1.1/24"]);
        let _c2 = place("c2", &["10.2.1.2/24"]);
        let c3 = place("c3", &["10.2.2.1/24"]);
        let _c4 = place("c4", &["10.2.2.2/24"]);
        let c5 = place("c5", &[]);
        let _c6 = place("c6", &[]);
        let isolated = || {
            let near = [
                (&c1, [10, 2, 1, 2]),
                (&c3, [10, 2, 2, 2]),
                (&c5, [10, 2, 3, 2]),
            ];
            assert!(near.into_iter().all(|(from, to)| from.reaches(to.into())));
            let far = [
                (&c1, [10, 2, 2, 1]),
                (&c3, [10, 2, 3, 1]),
                (&c5, [10, 2, 1, 1]),
            ];
            assert!(!far.into_iter().any(|(from, to)| from.reaches(to.into())));
        };
        isolated();
        assert_eq!(reached(host), [false, false]);
        assert_eq!(rules(host), "", "nothing is exposed, nothing is ruled");
        for _twice in 0..2 {
            assert_eq!(a.ok(&["expose", "10.2.2.101/24"]).trim(), "10.2.2.101");
        }
        assert_eq!(reached(host), [true, false]);
        for _twice in 0..2 {
            assert_eq!(a.ok(&["expose"]).trim(), "10.2.3.3");
        }
        assert_eq!(reached(host), [true, true]);
        isolated();

        let before = rules(host);
        assert!(before.contains("ip saddr 10.2.2.0/24 ip daddr != 10.2.2.0/24 masquerade"));
        for harm in [
            "delete table inet weft",
            "flush ruleset",
            "flush table inet weft",
        ] {
            host.run(&["nft", harm]);
            within(harm, MEND_LIMIT, || rules(host) == before);
        }

        for _twice in 0..2 {
            assert_eq!(a.ok(&["hide", "10.2.2.101/24"]).trim(), "10.2.2.101");
        }
        assert_eq!(reached(host), [false, true]);
        assert_eq!(a.ok(&["hide"]).trim(), "10.2.3.3");
        assert_eq!(a.ok(&["hide"]).trim(), "");
        assert_eq!(reached(host), [false, false]);
        assert_eq!(rules(host), "");
        isolated();

        a.ok(&["expose", "10.2.2.101/24"]);
        serve_on_the_hosts_port(host, &c3, b.host());
    });
}

/// A rule of the user's own leads from a port of the host to the container at 10.2.2.1, and a client uses it.
fn serve_on_the_hosts_port(host: &Host, container: &Host, client: &Host) {
    host.be_a_router();
    let chain = "chain to { type nat hook prerouting priority dstnat; iifname eth0 tcp dport 2211";
    let rule = format!("table ip user {{ {chain} dnat to 10.2.2.1:4422; }}; }}");
    host.run(&["nft", &rule]);
    let mut server = container
        .command("iperf3")
        .args(["-s", "-1", "-p", "4422"])
        .spawn()
        .expect("iperf3 can be started");
    within("the service on the host's port", CONNECT_LIMIT, || {
        let words = ["iperf3", "-c", "192.0.2.1", "-p", "2211", "-n", "64K"];
        client.output(&words).status.success()
    });
    assert!(server.wait().expect("it ends").success());
}

/// Addresses in `weft ps`, of one container or of the host.
fn listed(weft: &Weft, id: &str) -> Vec<String> {
    let printed = weft.ok(&["ps", id]);
    printed
        .split_whitespace()
        .skip(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn scenario_500_several_addresses_in_one_command() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        launch(&a, &["--ipalloc-range", "10.2.3.0/24"], &[]);
        let c1 = lab.host("c1");
        let named = || {
            let mut found: Vec<String> = a
                .ok(&["dns-lookup", "c1"])
                .lines()
                .map(str::to_owned)
                .collect();
            found.sort();
            found
        };
        let three = ["10.2.1.1/24", "ip:10.2.2.1/24", "net:10.2.3.0/24"];
        assert_eq!(a.attach(&c1, &three), "10.2.1.1 10.2.2.1 10.2.3.1");
        let all = ["10.2.1.1/24", "10.2.2.1/24", "10.2.3.1/24"];
        assert_eq!(listed(&a, "c1"), all);
        assert_eq!(named(), ["10.2.1.1", "10.2.2.1", "10.2.3.1"]);
        assert_eq!(a.detach(&c1, &three[1..]), "10.2.2.1 10.2.3.1");
        assert_eq!(listed(&a, "c1"), all[..1]);
        assert_eq!(named(), ["10.2.1.1"]);
        assert_eq!(a.detach(&c1, &three[..1]), "10.2.1.1");
        assert_eq!(a.ok(&["ps", "c1"]), "");
        assert_eq!(named(), [""; 0]);
        a.attach(&c1, &three[..1]);
        a.attach(&c1, &three[1..]);
        assert_eq!(listed(&a, "c1"), all);

        let hosts = ["10.2.1.2/24", "ip:10.2.2.2/24", "net:10.2.3.0/24"];
        let expose = |verb: &str, which: &[&str]| {
            let printed = a.ok(&[&[verb], which].concat());
            printed.trim().to_owned()
        };
        assert_eq!(expose("expose", &hosts), "10.2.1.2 10.2.2.2 10.2.3.2");
        let own = ["10.2.1.2/24", "10.2.2.2/24", "10.2.3.2/24"];
        assert_eq!(listed(&a, "weave:expose"), own);
        let shown = a.host().run(&["ip", "-4", "-o", "addr", "show", "weft"]);
        let places: Vec<_> = own.iter().map(|address| shown.find(address)).collect();
        assert!(places.is_sorted() && places[0].is_some(), "{shown}");
        assert_eq!(expose("hide", &hosts[..2]), "10.2.1.2 10.2.2.2");
        assert_eq!(listed(&a, "weave:expose"), own[2..]);
        assert_eq!(expose("hide", &hosts[2..]), "10.2.3.2");
        assert_eq!(listed(&a, "weave:expose"), [""; 0]);

        assert_eq!(a.detach(&c1, &["net:default"]), "10.2.3.1");
        let (c2, printed) = attached(lab, &a, "c2", &[]);
        assert_eq!(printed.to_string(), "10.2.3.1", "what is detached is free");
        for bad in ["net:10.2.3.2/30", "net:10.2.3.2/31", "10.2.3.2/31"] {
            let refused = a.run(&["attach", bad, &c2.as_container()]);
            assert_eq!(refused.code, 1, "{bad}: {refused:?}");
        }
    });
}
