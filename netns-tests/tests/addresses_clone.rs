//! A host's disk is copied: two daemons run with one identity key, and own the same ranges.

use std::process::Command;
use std::time::Duration;

use weft_netns_tests::{Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const TWICE: &str = "two hosts run with the identity key of ";

fn launch(weft: &Weft, peers: &[&str]) {
    weft.ok(&[&["launch"], peers].concat());
}

fn copy_disk(from: &Weft, to: &Weft) {
    let copied = Command::new("cp")
        .arg("-a")
        .arg("--")
        .args([from.data_dir(), to.data_dir()])
        .status()
        .expect("cp runs");
    assert!(copied.success());
}

fn owner_of(weft: &Weft, peer_id: &str) -> u64 {
    let ipam = weft.json(&["status"])["ipam"].clone();
    let owners = ipam["owners"].as_array().cloned().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner["peer_id"] == peer_id);
    owner.map_or(0, |owner| owner["addresses"].as_u64().unwrap_or(0))
}

#[test]
fn the_copy_of_a_host_gives_no_addresses_and_its_reset_takes_none_away() {
    in_lab(|lab| {
        let hosts = ["a", "copy", "m"].map(|name| lab.host(name));
        let switch = lab.switch("s");
        for (at, host) in hosts.iter().enumerate() {
            lab.plug(&switch, host, "eth0", &format!("192.0.2.{}/24", at + 1));
        }
        let [a, copy, m] = hosts.each_ref().map(|host| lab.weft(host));
        launch(&a, &[]);
        a.ok(&["prime"]);
        launch(&m, &["192.0.2.1"]);
        let [c1, c2, c3, c4] = ["c1", "c2", "c3", "c4"].map(|name| lab.host(name));
        assert_eq!(a.attach(&c1, &[]), "10.32.0.1");
        let at_m: std::net::Ipv4Addr = m.attach(&c2, &[]).parse().expect("an address");
        a.ok(&["stop"]);
        copy_disk(&a, &copy);
        launch(&a, &["192.0.2.3"]);
        a.wait_for_path(CONNECT_LIMIT);
        let id = a.report()["peer_id"].as_str().unwrap().to_owned();
        let owned = owner_of(&m, &id);
        assert!(owned > 0);

        launch(&copy, &["192.0.2.3"]);
        within("the copy to know that it is one", CONNECT_LIMIT, || {
            copy.ok(&["status"]).contains(TWICE)
        });
        let refused = copy.run(&["attach", &c3.as_container()]);
        assert_eq!(refused.code, 1, "{refused:?}");
        let why = "another host runs with this host's identity";
        assert!(refused.stderr.contains(why), "{refused:?}");
        assert_eq!(a.attach(&c3, &[]), "10.32.0.2", "the one that was let in");

        copy.ok(&["reset"]);
        assert_eq!(
            owner_of(&m, &id),
            owned,
            "the host that stays owns what it did"
        );
        assert_eq!(owner_of(&a, &id), owned);
        launch(&copy, &["192.0.2.3"]);
        let fresh: std::net::Ipv4Addr = copy.attach(&c4, &[]).parse().expect("an address");
        assert!(fresh != at_m && !["10.32.0.1", "10.32.0.2"].contains(&&*fresh.to_string()));
        within("no note of the copy any more", CONNECT_LIMIT, || {
            !copy.ok(&["status"]).contains(TWICE)
        });
    });
}

/// The two never meet, and the peers between them let each of them in: what they sign tells them of each other.
#[test]
fn two_copies_at_the_ends_of_a_line_hear_of_each_other_and_both_give_nothing() {
    in_lab(|lab| {
        let hosts = ["a", "m", "n", "copy"].map(|name| lab.host(name));
        for (at, pair) in hosts.windows(2).enumerate() {
            let (left, right) = (at * 4 + 1, at * 4 + 2);
            lab.link(
                (&pair[0], "right", &format!("192.0.2.{left}/30")),
                (&pair[1], "left", &format!("192.0.2.{right}/30")),
            );
        }
        let [a, m, n, copy] = hosts.each_ref().map(|host| lab.weft(host));
        launch(&a, &[]);
        a.ok(&["prime"]);
        a.ok(&["stop"]);
        copy_disk(&a, &copy);
        launch(&a, &[]);
        launch(&m, &["192.0.2.1"]);
        launch(&n, &["192.0.2.5"]);
        launch(&copy, &["192.0.2.9"]);
        for weft in [&a, &copy] {
            within("each to hear of the other", CONNECT_LIMIT, || {
                weft.ok(&["status"]).contains(TWICE)
            });
        }
        let containers = ["c1", "c2"].map(|name| lab.host(name));
        for (weft, container) in [&a, &copy].into_iter().zip(&containers) {
            let refused = weft.run(&["attach", &container.as_container()]);
            assert_eq!(refused.code, 1, "{refused:?}");
        }
    });
}
