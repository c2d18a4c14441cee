//! Addresses that weft gives: the walkthrough's parts about them, on the built binary.
//!
//! ```text
//!  c1, c2 … ── weft a ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ weft b ── d1, d2 …
//! ```

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use weft_netns_tests::{Host, Lab, Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// A process that is killed is missed at once; its host would be within ten seconds.
const MISSED_LIMIT: Duration = Duration::from_secs(5);
const RANGE: [&str; 4] = [
    "--ipalloc-range",
    "10.2.0.0/16",
    "--ipalloc-default-subnet",
    "10.2.1.0/24",
];

fn two_hosts(lab: &Lab) -> [Weft; 2] {
    lab.two_hosts().map(|host| lab.weft(&host))
}

fn launch(weft: &Weft, flags: &[&str], peers: &[&str]) {
    weft.ok(&[&["launch", "--password", "secret"], flags, peers].concat());
}

/// Attaches a new container with these arguments; returns it and what was printed.
fn attached(lab: &Lab, weft: &Weft, name: &str, arguments: &[&str]) -> (Host, String) {
    let container = lab.host(name);
    let printed = weft.attach(&container, arguments);
    (container, printed)
}

fn owned(weft: &Weft) -> u64 {
    let status = weft.json(&["status"]);
    let own = status["peer_id"].clone();
    let owners = status["ipam"]["owners"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mine = owners.iter().find(|owner| owner["peer_id"] == own);
    mine.and_then(|owner| owner["addresses"].as_u64())
        .unwrap_or(0)
}

#[test]
fn the_first_addresses_are_those_that_users_of_weave_know() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        launch(&a, &[], &[]);
        let (one, first) = attached(lab, &a, "c1", &[]);
        assert_eq!(first, "10.32.0.1");
        assert!(
            one.run(&["ip", "-4", "-o", "addr", "show", "ethwe"])
                .contains("10.32.0.1/12")
        );
        launch(&b, &[], &["192.0.2.1"]);
        let (_two, second) = attached(lab, &b, "d1", &[]);
        assert_eq!(second, "10.44.0.0");
        within("the containers to reach each other", CONNECT_LIMIT, || {
            one.reaches([10, 44, 0, 0].into())
        });
        assert_eq!(one.device_file("ethwe", "mtu"), "1376");
        within("its name on the other host", CONNECT_LIMIT, || {
            a.ok(&["dns-lookup", "d1"]).trim() == second
        });
        one.run(&["ping", "-c", "1", "-W", "2", "d1"]);
        let listed = b.ok(&["ps"]);
        let lines: Vec<Vec<&str>> = listed
            .lines()
            .map(|line| line.split(' ').collect())
            .collect();
        assert_eq!(
            (lines[0][0], lines[0].len()),
            ("weave:expose", 2),
            "{listed}"
        );
        assert_eq!(
            (lines[1][0], lines[1][2]),
            ("d1", "10.44.0.0/12"),
            "{listed}"
        );

        let shares = a.ok(&["status", "ipam"]);
        assert!(
            shares.contains("786432 IPs (75.0% of total) (1 active)"),
            "{shares}"
        );
        assert!(shares.contains("262144 IPs (25.0% of total)"), "{shares}");
        assert!(b.ok(&["status"]).contains("Status: ready"));
    });
}

#[test]
fn subnets_isolate_and_one_command_takes_several() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        launch(&a, &RANGE, &[]);
        a.ok(&["prime"]);
        launch(&b, &RANGE, &["192.0.2.1"]);
        let (a1, _) = attached(lab, &a, "a1", &[]);
        let (b1, _) = attached(lab, &b, "b1", &["net:10.2.2.0/24"]);
        let container = lab.host("c");

        assert_eq!(a.attach(&container, &[]), "10.2.1.2");
        assert_eq!(a.attach(&container, &[]), "10.2.1.2", "again: the same");
        assert_eq!(a.detach(&container, &[]), "10.2.1.2");
        assert_eq!(
            a.detach(&container, &[]),
            "",
            "nothing is attached: no error"
        );
        let several = ["net:default", "net:10.2.2.0/24", "net:10.2.3.0/24"];
        let printed = a.attach(&container, &several);
        let listed: Vec<&str> = printed.split(' ').collect();
        assert_eq!(listed.len(), 3, "{printed}");
        for (address, subnet) in listed.iter().zip(["10.2.1.", "10.2.2.", "10.2.3."]) {
            assert!(address.starts_with(subnet), "in order: {printed}");
        }
        let line = a.ok(&["ps"]);
        let places: Vec<usize> = listed
            .iter()
            .map(|address| line.find(address).unwrap())
            .collect();
        assert!(places.is_sorted(), "{line}");
        assert!(a1.reaches(listed[0].parse().unwrap()));
        assert!(!a1.reaches(listed[1].parse().unwrap()), "another subnet");
        within("the one in both, from afar", CONNECT_LIMIT, || {
            b1.reaches(listed[1].parse().unwrap())
        });
        within("the name of one in another subnet", CONNECT_LIMIT, || {
            b.ok(&["dns-lookup", "a1"]).trim() == "10.2.1.1"
        });
        assert!(!b1.reaches([10, 2, 1, 1].into()), "but not the container");
        assert_eq!(a.detach(&container, &several), printed);
        let (_next, printed) = attached(lab, &a, "next", &[]);
        assert_eq!(printed, "10.2.1.2", "what is detached is free");
    });
}

#[test]
fn an_explicit_address_is_claimed_against_the_whole_network() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        launch(&a, &RANGE, &[]);
        a.ok(&["prime"]);
        launch(&b, &RANGE, &["192.0.2.1"]);
        let (c, printed) = attached(lab, &a, "c", &["10.2.1.4/24", "ip:192.168.7.1/24"]);
        assert_eq!(printed, "10.2.1.4 192.168.7.1");
        assert_eq!(
            a.attach(&c, &["10.2.1.4/24"]),
            "10.2.1.4",
            "again: the same"
        );
        let (_d, printed) = attached(lab, &b, "d", &["10.2.1.7/24"]);
        assert_eq!(printed, "10.2.1.7", "fetched from its owner");
        let other = lab.host("e");
        let refused = b.run(&["attach", "10.2.1.4/24", &other.as_container()]);
        assert_eq!(refused.code, 1);
        assert!(
            refused
                .stderr
                .contains("address 10.2.1.4 is owned by other peer "),
            "{refused:?}"
        );
        for bad in ["net:10.2.3.2/30", "net:10.2.3.2/31", "net:192.168.0.0/24"] {
            assert_eq!(
                a.run(&["attach", bad, &other.as_container()]).code,
                1,
                "{bad}"
            );
        }
        for taken in ["10.2.1.4/24", "192.168.7.1/24"] {
            let refused = a.run(&["attach", taken, &other.as_container()]);
            assert!(
                refused.stderr.contains("is already owned by c"),
                "{refused:?}"
            );
        }
        // Its owner cannot give it any more.
        a.crash();
        let refused = b.run(&["attach", "10.2.1.9/24", &other.as_container()]);
        assert!(
            refused.stderr.contains("which cannot be reached"),
            "{refused:?}"
        );
        assert!(refused.took < Duration::from_secs(12), "{refused:?}");
        assert!(!other.has_device("ethwe"));
    });
}

#[test]
fn a_killed_daemon_comes_back_with_its_addresses() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        launch(&a, &[], &[]);
        let (one, _) = attached(lab, &a, "c1", &[]);
        let (_two, _) = attached(lab, &a, "c2", &[]);
        a.crash();
        launch(&a, &[], &[]);
        assert_eq!(a.attach(&one, &[]), "10.32.0.1");
        let (_three, printed) = attached(lab, &a, "c3", &[]);
        assert_eq!(printed, "10.32.0.3");
    });
}

/// Scenario 335.
#[test]
fn a_dead_host_is_removed_and_one_that_leaves_hands_over() {
    in_lab(|lab| {
        let hosts = ["a", "b", "c"].map(|name| lab.host(name));
        let switch = lab.switch("s");
        for (at, host) in hosts.iter().enumerate() {
            lab.plug(&switch, host, "eth0", &format!("192.0.2.{}/24", at + 1));
        }
        let [a, b, c] = hosts.each_ref().map(|host| lab.weft(host));
        launch(&a, &[], &[]);
        a.ok(&["prime"]);
        launch(&b, &[], &["192.0.2.1"]);
        b.ok(&["prime"]);
        launch(&c, &[], &["192.0.2.1", "192.0.2.2"]);
        c.ok(&["prime"]);
        let voters = |weft: &Weft| {
            weft.json(&["status"])["ipam"]["voters"]
                .as_array()
                .map_or(0, Vec::len)
        };
        within("all three to vote", CONNECT_LIMIT, || {
            voters(&b) == 3 && voters(&c) == 3
        });
        let dead = a.report()["name"].as_str().unwrap().to_owned();
        let alive = b.run(&["rmpeer", &dead]);
        assert!(alive.stderr.contains("is within reach"), "{alive:?}");

        a.crash();
        within("the dead host to be missed", MISSED_LIMIT, || {
            b.ok(&["status", "ipam"]).contains("unreachable!")
        });
        let taken = b.ok(&["rmpeer", &dead]);
        assert_eq!(taken, format!("1048576 IPs taken over from {dead}\n"));
        assert_eq!(
            b.ok(&["rmpeer", &dead]),
            format!("0 IPs taken over from {dead}\n")
        );
        let containers = [lab.host("c1"), lab.host("c2")];
        for (weft, container, address) in [
            (&b, &containers[0], "10.32.0.1"),
            (&c, &containers[1], "10.44.0.0"),
        ] {
            let attached = weft.run(&["attach", &container.as_container()]);
            assert_eq!(attached.stdout.trim(), address, "{attached:?}");
            assert!(attached.took < Duration::from_secs(5), "{attached:?}");
        }
        for nobody in ["no-such-host", b.report()["name"].as_str().unwrap()] {
            let none = format!("0 IPs taken over from {nobody}\n");
            assert_eq!(b.ok(&["rmpeer", nobody]), none);
        }

        let before = owned(&b) + owned(&c);
        b.ok(&["reset"]);
        within("the heir to own all", CONNECT_LIMIT, || owned(&c) == before);
    });
}

#[test]
fn two_networks_that_meet_refuse_each_other_and_go_on() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        launch(&a, &[], &[]);
        launch(&b, &[], &[]);
        for weft in [&a, &b] {
            weft.ok(&["prime"]);
        }
        b.ok(&["connect", "192.0.2.1"]);
        within("the refusal to be told", CONNECT_LIMIT, || {
            let why = "two rings that were begun apart (received ";
            [&a, &b]
                .iter()
                .all(|weft| weft.ok(&["status"]).contains(why))
                && b.ok(&["status", "connections"]).contains("another ring")
        });
        let printed: BTreeSet<String> =
            [attached(lab, &a, "c", &[]).1, attached(lab, &b, "d", &[]).1].into();
        assert_eq!(printed, BTreeSet::from(["10.32.0.1".to_owned()]));
    });
}

#[test]
fn the_default_range_must_not_overlap_a_route() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        a.host()
            .run(&["ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.2"]);
        let refused = a.run(&["launch"]);
        assert_eq!(refused.code, 1);
        let left = a.host().run(&["ip", "-o", "link"]);
        assert!(!left.contains("weft"), "{left}");
        assert!(
            refused
                .stderr
                .contains("overlaps with existing route 10.0.0.0/8"),
            "{refused:?}"
        );
        assert!(
            refused.stderr.contains("--ipalloc-range 172.24.0.0/14"),
            "{refused:?}"
        );
        assert_eq!(a.pid(), None, "nothing is left running");
        assert!(!a.host().has_device("weft"));
        let chosen = a.run(&["launch", "--ipalloc-range", "10.2.0.0/16"]);
        assert_eq!(chosen.code, 0, "{chosen:?}");
        assert!(
            chosen
                .stderr
                .contains("10.2.0.0/16 overlaps with existing route 10.0.0.0/8 on host (eth0)"),
            "only said: {chosen:?}"
        );
        let container = lab.host("c").as_container();
        let outside = a.run(&["attach", "10.9.0.1/24", &container]);
        assert_eq!(outside.stdout.trim(), "10.9.0.1", "{outside:?}");
        assert!(
            outside
                .stderr
                .contains("address 10.9.0.1 overlaps with existing route 10.0.0.0/8"),
            "{outside:?}"
        );
    });
}

#[test]
fn without_a_quorum_attach_says_who_is_missing() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        launch(&a, &["--ipalloc-init", "consensus=3"], &[]);
        let container = lab.host("c");
        let refused = a.run(&["attach", &container.as_container()]);
        assert_eq!(refused.code, 1);
        assert!(
            refused
                .stderr
                .contains("awaiting consensus (quorum: 2, known: 1)"),
            "{refused:?}"
        );
        assert!(refused.took < Duration::from_secs(12));
        assert_eq!(a.ok(&["status", "ipam"]), "", "no ring, no line");
        assert_eq!(a.attach(&container, &["192.168.1.1/24"]), "192.168.1.1");
        assert_eq!(a.detach(&container, &["192.168.1.1/24"]), "192.168.1.1");
    });
}

fn start(weft: &Weft, words: &[&str]) -> Child {
    let mut command = weft.command(words);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("weft can be started")
}

/// Detaching waits for nobody: whoever waits for an address of that container is told so.
#[test]
fn a_detach_ends_the_wait_of_an_attach() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        launch(&a, &["--ipalloc-init", "consensus=3"], &[]);
        let container = lab.host("c").as_container();
        let waiting = start(&a, &["attach", &container]);
        within("the attach to wait", CONNECT_LIMIT, || {
            a.json(&["status"])["ipam"]["waiting"] == 1
        });
        let detached = a.run(&["detach", &container]);
        assert_eq!((detached.code, detached.stdout.trim()), (0, ""));
        assert!(detached.took < Duration::from_secs(5), "{detached:?}");
        let refused = waiting.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("was taken off the network"), "{told}");
    });
}

/// Whichever is last, what is on the interface is what is noted.
#[test]
fn attach_and_detach_of_one_container_at_once_leave_no_address_behind() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        launch(&a, &[], &[]);
        a.ok(&["prime"]);
        let container = lab.host("c");
        let named = container.as_container();
        for round in 0..15 {
            let verbs = ["attach", "detach", "attach", "detach"];
            let started = verbs.map(|verb| start(&a, &[verb, &named]));
            for command in started {
                command.wait_with_output().unwrap();
            }
            let active = &a.json(&["status"])["ipam"]["active"];
            let attached = u64::from(container.has_device("ethwe"));
            assert_eq!(active, attached, "round {round}: {}", a.ok(&["ps"]));
        }
    });
}

/// The host has a place on the network for each exposed subnet, and for no other.
#[test]
fn an_exposed_host_reaches_containers_until_it_hides() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        launch(&a, &RANGE, &[]);
        a.ok(&["prime"]);
        launch(&b, &RANGE, &["192.0.2.1"]);
        let (near, near_address) = attached(lab, &a, "near", &[]);
        let (_far, far_address) = attached(lab, &b, "far", &[]);
        let (_other, other_address) = attached(lab, &a, "other", &["10.2.2.4/24"]);
        let host = a.host();
        assert!(!host.reaches(near_address.parse().unwrap()));

        let exposed = a.ok(&["expose", "-h", "gateway"]).trim().to_owned();
        assert!(exposed.starts_with("10.2.1."), "{exposed}");
        assert_eq!(a.ok(&["expose"]).trim(), exposed, "twice is once");
        assert!(host.reaches(near_address.parse().unwrap()));
        within("the container of the other host", CONNECT_LIMIT, || {
            host.reaches(far_address.parse().unwrap())
        });
        assert!(near.reaches(exposed.parse().unwrap()));
        let called = || b.ok(&["dns-lookup", "gateway"]).trim().to_owned();
        within("the host's name elsewhere", CONNECT_LIMIT, || {
            called() == exposed
        });
        assert!(
            !host.reaches(other_address.parse().unwrap()),
            "another subnet"
        );
        let rules = host.run(&["nft", "list", "table", "inet", "weft"]);
        assert!(
            rules.contains("ip saddr 10.2.1.0/24 ip daddr != 10.2.1.0/24 masquerade"),
            "{rules}"
        );
        host.run(&["nft", "flush", "ruleset"]);
        within("the rules to be back", CONNECT_LIMIT, || {
            host.output(&["nft", "list", "table", "inet", "weft"])
                .status
                .success()
        });

        a.crash();
        launch(&a, &RANGE, &[]);
        let several = a.ok(&["expose", "net:default", "net:10.2.2.0/24"]);
        assert!(
            several.starts_with(&exposed),
            "the same after a crash: {several}"
        );
        assert!(host.reaches(other_address.parse().unwrap()));
        assert_eq!(a.ok(&["hide", "net:default", "net:10.2.2.0/24"]), several);
        assert_eq!(a.ok(&["hide"]).trim(), "", "twice is once");
        within("the name to be gone", CONNECT_LIMIT, || called().is_empty());
        assert!(!host.reaches(near_address.parse().unwrap()));
        let (_next, printed) = attached(lab, &a, "next", &[]);
        assert_eq!(printed, exposed, "what is hidden is free");
    });
}

/// A machine without weft reaches containers, and a container's service is reached through the host.
#[test]
fn a_service_is_exported_with_an_ordinary_rule() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        let outside = lab.host("outside");
        lab.link(
            (b.host(), "eth1", "198.51.100.1/24"),
            (&outside, "eth0", "198.51.100.2/24"),
        );
        b.host().be_a_router();
        launch(&a, &RANGE, &[]);
        a.ok(&["prime"]);
        launch(&b, &RANGE, &["192.0.2.1"]);
        let (container, address) = attached(lab, &a, "a1", &[]);
        b.ok(&["expose"]);
        outside.run(&["ip", "route", "add", "10.2.1.0/24", "via", "198.51.100.1"]);
        within("the container over a route", CONNECT_LIMIT, || {
            outside.reaches(address.parse().unwrap())
        });

        let rule = format!(
            "table ip user {{ chain prerouting {{ type nat hook prerouting priority dstnat; \
             iifname eth1 tcp dport 2211 dnat to {address}:4422; }}; }}"
        );
        std::fs::write(lab.folder().join("dnat"), rule).unwrap();
        let file = lab.folder().join("dnat");
        b.host().run(&["nft", "-f", &file.to_string_lossy()]);
        let mut server = container
            .command("iperf3")
            .args(["-s", "-1", "-p", "4422"])
            .spawn()
            .unwrap();
        within("the service on the host's port", CONNECT_LIMIT, || {
            let words = ["iperf3", "-c", "198.51.100.1", "-p", "2211", "-n", "64K"];
            outside.output(&words).status.success()
        });
        assert!(server.wait().unwrap().success());
    });
}
