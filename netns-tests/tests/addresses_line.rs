//! Addresses along a line of hosts whose middle gives none (scenario 120, without discovery).
//!
//! ```text
//!  c0, x0 ─ h0 ══ h1 without addresses ══ h2 ─ c2, x2        h0 and h2 know of each other through h1 alone
//! ```

use std::net::IpAddr;
use std::time::Duration;

use weft_netns_tests::{Host, Mesh, in_lab, pause, within};

/// From launch to reachability through the middle.
const REACH_LIMIT: Duration = Duration::from_secs(10);
/// Weave's gossip had an interval of 30 s, and the scenario a margin of ten.
const ADDRESS_LIMIT: Duration = Duration::from_secs(40);
/// Long enough that a direct path would have been found.
const DISCOVERY: Duration = Duration::from_secs(5);
/// The middle, as the hosts call it.
const MIDDLE: usize = 1;

/// Of both ends: the ring, and what is owned by whom.
fn rings(mesh: &Mesh) -> [(String, Vec<String>); 2] {
    [0, 2].map(|end| {
        let ipam = mesh.weft[end].json(&["status"])["ipam"].clone();
        let owners = ipam["owners"].as_array().into_iter().flatten();
        let mut shares: Vec<String> = owners
            .map(|owner| format!("{} {}", owner["nickname"], owner["addresses"]))
            .collect();
        shares.sort();
        (ipam["ring"].to_string(), shares)
    })
}

/// Attaches a container with words that ask for an address; tries again as a user would.
fn given(mesh: &Mesh, at: usize, container: &Host, words: &[&str]) -> IpAddr {
    let named = container.as_container();
    let words = [&["attach"], words, &[named.as_str()]].concat();
    let mut printed = String::new();
    within("an address", ADDRESS_LIMIT, || {
        let outcome = mesh.weft[at].run(&words);
        printed = outcome.stdout.trim().to_owned();
        outcome.code == 0
    });
    printed.parse().expect("one address")
}

#[test]
fn scenario_120_addresses_are_given_behind_a_host_that_has_none() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        mesh.launch(0, &["--no-discovery"], &[]);
        mesh.launch(MIDDLE, &["--no-discovery", "--ipalloc-range", ""], &[0]);
        mesh.launch(2, &["--no-discovery"], &[MIDDLE]);
        mesh.attach(0);
        mesh.attach(2);
        pause(DISCOVERY);
        mesh.wait_until_reachable(0, 2, REACH_LIMIT);
        assert!(mesh.way(0, 2).contains("h1"), "{}", mesh.route(0, 2));

        let [near, far, third] = ["x0", "x2", "y2"].map(|name| lab.host(name));
        let first = given(&mesh, 0, &near, &["net:default"]);
        let second = given(&mesh, 2, &far, &["net:default"]);
        let last = given(&mesh, 2, &third, &[]);
        assert!(first != second && second != last && first != last);
        within("one ring at both ends", ADDRESS_LIMIT, || {
            let [one, other] = rings(&mesh);
            one == other && one.1.len() == 2
        });
        within("the containers to reach each other", REACH_LIMIT, || {
            near.reaches(second) && far.reaches(first) && near.reaches(last)
        });
        let middle = mesh.weft[MIDDLE].run(&["attach", &lab.host("m").as_container()]);
        assert_ne!(middle.code, 0, "the middle gives none: {middle:?}");
        assert!(mesh.way(0, 2).contains("h1"), "{}", mesh.route(0, 2));

        mesh.weft[MIDDLE].ok(&["stop"]);
        within("silence", REACH_LIMIT, || !near.reaches(second));
        pause(DISCOVERY);
        assert!(!near.reaches(second) && !far.reaches(first));
        // Each end goes on with what it owns.
        let alone = [0, 2].map(|end| given(&mesh, end, &lab.host(&format!("z{end}")), &[]));
        assert!(
            alone
                .iter()
                .all(|address| ![first, second, last].contains(address))
        );
        assert_ne!(alone[0], alone[1]);
    });
}
