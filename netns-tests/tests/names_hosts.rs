//! Names across hosts: what one host says, all answer, and what is gone is gone everywhere.
//!
//! ```text
//!  a ─┐
//!  b ─┼─ switch        each runs weft, and has containers
//!  c ─┘
//! ```

use std::time::Duration;

use weft_netns_tests::{Host, Lab, Weft, in_lab, is_long, within};

/// From a change to the answer on every host.
const CHANGE_LIMIT: Duration = Duration::from_secs(2);
/// The same for a peer that is found, linked and heard out.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// A silent link is given up after 20 seconds; two more are allowed.
const LOSS_LIMIT: Duration = Duration::from_secs(23);
/// Dialling again takes up to a second's pause; then the names are there within two.
const HEAL_LIMIT: Duration = Duration::from_secs(8);
const NAMES: [&str; 3] = ["a", "b", "c"];

fn three_hosts(lab: &Lab) -> Vec<Weft> {
    let switch = lab.switch("switch");
    let hosts = NAMES.map(|name| lab.host(name));
    for (host, last) in hosts.iter().zip(1..) {
        lab.plug(&switch, host, "eth0", &format!("192.0.2.{last}/24"));
    }
    let wefts: Vec<Weft> = hosts.iter().map(|host| lab.weft(host)).collect();
    for weft in &wefts {
        weft.ok(&[
            "launch",
            "--password",
            "secret",
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
        ]);
    }
    wefts
}

fn answers(from: &Host, words: &[&str]) -> Vec<String> {
    let server = ["dig", "+tries=1", "+time=2", "+short", "@169.254.53.1"];
    let output = from.output(&[&server, words].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn attach(lab: &Lab, weft: &Weft, container: &str, words: &[&str]) -> Host {
    let host = lab.host(container);
    weft.ok(&[&["attach"], words, &[host.as_container().as_str()]].concat());
    host
}

#[test]
fn containers_of_all_hosts_are_found_on_each_and_balanced() {
    in_lab(|lab| {
        let wefts = three_hosts(lab);
        let containers: Vec<Host> = wefts
            .iter()
            .zip(1..)
            .map(|(weft, last)| {
                let (name, address) = (format!("c{last}"), format!("10.2.1.{last}/24"));
                let words = ["--name", &name, "--name", "foo", &address];
                attach(lab, weft, &name, &words)
            })
            .collect();
        let all = ["10.2.1.1", "10.2.1.2", "10.2.1.3"];
        for client in &containers {
            within("all addresses of foo", JOIN_LIMIT, || {
                answers(client, &["foo.weave.local"]) == all
            });
            within("a name of another host", CHANGE_LIMIT, || {
                answers(client, &["c2.weave.local"]) == ["10.2.1.2"]
                    && answers(client, &["-x", "10.2.1.2"]) == ["c2.weave.local."]
            });
        }
        containers[0].run(&["ping", "-c", "1", "-W", "5", "c3"]);

        wefts[2].ok(&["dns-add", "192.0.2.80", "192.0.2.81", "-h", "foo"]);
        within("two more, added by hand", CHANGE_LIMIT, || {
            answers(&containers[0], &["foo.weave.local"]).len() == 5
        });
        wefts[1].ok(&["detach", "10.2.1.2/24", &containers[1].as_container()]);
        within("one less", CHANGE_LIMIT, || {
            answers(&containers[0], &["foo.weave.local"]).len() == 4
                && answers(&containers[2], &["c2.weave.local"]).is_empty()
        });
        let listed = wefts[0].ok(&["status", "dns"]);
        assert_eq!(listed.lines().count(), 6, "{listed}");
    });
}

#[test]
fn names_of_a_host_that_is_cut_off_vanish_and_return() {
    in_lab(|lab| {
        let wefts = three_hosts(lab);
        let client = attach(lab, &wefts[0], "client", &["10.2.1.1/24"]);
        attach(lab, &wefts[2], "far", &["10.2.1.3/24"]);
        let finds = || answers(&client, &["far.weave.local"]) == ["10.2.1.3"];
        within("the far name", JOIN_LIMIT, finds);

        wefts[2].host().black_hole("eth0");
        within("no far name", LOSS_LIMIT, || {
            answers(&client, &["far.weave.local"]).is_empty()
        });
        // It still has its own.
        assert!(wefts[2].ok(&["dns-lookup", "far"]).starts_with("10.2.1.3"));
        wefts[2].host().heal();
        within("the far name again", HEAL_LIMIT, finds);

        wefts[2].ok(&["stop"]);
        within("no name of a host that has stopped", CHANGE_LIMIT, || {
            answers(&client, &["far.weave.local"]).is_empty()
        });
    });
}

/// Old information must not come back: c's view is cut off while a restarts without its container.
#[test]
fn what_was_removed_while_a_host_was_away_does_not_come_back() {
    in_lab(|lab| {
        let wefts = three_hosts(lab);
        let client = attach(lab, &wefts[2], "client", &["10.2.1.3/24"]);
        let gone = attach(lab, &wefts[0], "gone", &["10.2.1.1/24"]);
        let stays = attach(lab, &wefts[0], "stays", &["10.2.1.11/24"]);
        within("the name", JOIN_LIMIT, || {
            answers(&client, &["gone.weave.local"]) == ["10.2.1.1"]
        });

        wefts[2].host().black_hole("eth0");
        wefts[0].ok(&["stop"]);
        let removed = std::process::Command::new("ip")
            .args(["netns", "del", gone.name()])
            .status();
        assert!(removed.is_ok_and(|status| status.success()));
        wefts[0].ok(&["launch", "--password", "secret"]);
        wefts[2].host().heal();

        within("what is still there", JOIN_LIMIT, || {
            answers(&client, &["stays.weave.local"]) == ["10.2.1.11"]
        });
        within("nothing of what is gone", CHANGE_LIMIT, || {
            answers(&client, &["gone.weave.local"]).is_empty()
        });
        drop(stays);
    });
}

/// Changes in the churn; at 200 containers the long version makes as many as it has.
const CHANGES: usize = 200;
const CONTAINERS_PER_HOST: usize = 22;

/// Containers come and go in random order on three hosts; soon after the last change every server answers the truth.
#[test]
fn after_churn_every_server_knows_exactly_what_is_there() {
    in_lab(|lab| {
        let wefts = three_hosts(lab);
        let client = attach(lab, &wefts[0], "client", &["10.2.0.1/24"]);
        let per_host = if is_long() { 67 } else { CONTAINERS_PER_HOST };
        let mut there = vec![false; 3 * per_host];
        let spaces: Vec<Host> = (0..there.len())
            .map(|at| lab.host(&format!("n{at}")))
            .collect();
        let address = |at: usize| format!("10.2.{}.{}", 1 + at / per_host, 1 + at % per_host);
        let seed = u64::from(std::process::id());
        println!("seed {seed}");
        let mut random = seed;
        for _ in 0..CHANGES.max(there.len()) {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(random >> 33).expect("31 bits") % there.len();
            let verb = if there[at] { "detach" } else { "attach" };
            let net = format!("{}/16", address(at));
            wefts[at / per_host].ok(&[verb, &net, &spaces[at].as_container()]);
            there[at] = !there[at];
        }

        let mut truth: Vec<(String, String)> = (0..there.len())
            .filter(|at| there[*at])
            .map(|at| (format!("n{at}.weave.local"), address(at)))
            .collect();
        truth.push(("client.weave.local".to_owned(), "10.2.0.1".to_owned()));
        truth.sort();
        let known = |weft: &Weft| {
            let listed = weft.json(&["status", "dns"]);
            let entries = listed["entries"].as_array().cloned().unwrap_or_default();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let pair =
                |entry: &serde_json::Value| (text(&entry["hostname"]), text(&entry["address"]));
            let mut pairs: Vec<_> = entries.iter().map(pair).collect();
            pairs.sort();
            pairs
        };
        for weft in &wefts {
            within("the truth on every host", CHANGE_LIMIT, || {
                known(weft) == truth
            });
        }
        // Forward and reverse, with a real client.
        for at in 0..there.len() {
            let name = format!("n{at}.weave.local");
            let forward = answers(&client, &[&name]);
            if there[at] {
                let backward = answers(&client, &["-x", &address(at)]);
                assert_eq!(
                    (forward, backward),
                    (vec![address(at)], vec![format!("{name}.")])
                );
            } else {
                assert!(forward.is_empty(), "{name}");
            }
        }
    });
}
