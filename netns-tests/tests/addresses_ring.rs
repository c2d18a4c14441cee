//! How ranges come about, go from host to host and outlast launches, on the built binary.
//!
//! ```text
//!  a 192.0.2.1 ─┐
//!  b 192.0.2.2 ─┼─ switch        launched apart, together, anew, with other flags
//!  c 192.0.2.3 ─┘
//! ```

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use weft_netns_tests::{Host, Lab, Mesh, Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Addresses of 10.32.0.0/12.
const ALL: u64 = 1 << 20;

fn attached(lab: &Lab, weft: &Weft, name: &str) -> String {
    weft.attach(&lab.host(name), &[])
}

fn start(weft: &Weft, words: &[&str]) -> Child {
    let mut command = weft.command(words);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("weft can be started")
}

fn ipam(weft: &Weft) -> Value {
    weft.json(&["status"])["ipam"].clone()
}

/// What each owner has, and whether it can be reached.
fn owners(weft: &Weft) -> Vec<(u64, bool)> {
    let report = ipam(weft);
    let owners = report["owners"].as_array().into_iter().flatten();
    let shown = owners.map(|owner| (owner["addresses"].as_u64(), owner["reachable"] == true));
    shown
        .map(|(count, reachable)| (count.unwrap_or(0), reachable))
        .collect()
}

fn voters(weft: &Weft) -> usize {
    ipam(weft)["voters"].as_array().map_or(0, Vec::len)
}

/// Both sides of a cut give addresses from the first moment; whoever was begun otherwise is refused politely.
#[test]
fn seeds_make_one_ring_on_both_sides_of_a_cut() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        let [a, b, c] = [0, 1, 2].map(|index| &mesh.weft[index]);
        let name = |number: usize| format!("00:00:00:00:00:0{number}");
        let seeds = [
            format!("seed={},{}", name(1), name(2)),
            format!("seed={},{},{}", name(2), name(1), name(2)),
        ];
        for (index, seed) in seeds.iter().enumerate() {
            let own = name(index + 1);
            mesh.launch(index, &["--name", &own, "--ipalloc-init", seed], &[]);
        }
        assert_eq!(attached(lab, a, "x1"), "10.32.0.1");
        assert_eq!(attached(lab, b, "y1"), "10.40.0.0");
        assert_eq!(owners(b), [(ALL / 2, true), (ALL / 2, false)]);
        b.ok(&["connect", "192.0.2.1"]);
        within("both halves to be within reach", CONNECT_LIMIT, || {
            owners(a) == [(ALL / 2, true); 2] && owners(b) == [(ALL / 2, true); 2]
        });
        mesh.keep_apart(0, 1);
        assert_eq!(attached(lab, a, "x2"), "10.32.0.2");
        assert_eq!(attached(lab, b, "y2"), "10.40.0.1");
        mesh.bring_together(0, 1);

        let refused = |flags: &[&str], why: &str| {
            mesh.launch(2, flags, &[0]);
            within(why, CONNECT_LIMIT, || {
                c.ok(&["status", "connections"])
                    .contains("another ring or range")
                    && [a, c].iter().all(|weft| weft.ok(&["status"]).contains(why))
            });
            c.ok(&["reset", "--force"]);
        };
        let other = format!("seed={},{}", name(1), name(3));
        refused(
            &["--ipalloc-init", &other],
            "two rings that were begun apart (received ",
        );
        refused(
            &["--ipalloc-range", "10.2.0.0/16"],
            "incompatible IP allocation ranges (received 10.",
        );
        within("both to be well", CONNECT_LIMIT, || {
            owners(a) == [(ALL / 2, true); 2] && owners(b) == [(ALL / 2, true); 2]
        });

        mesh.launch(2, &["--ipalloc-init", &seeds[0]], &[0]);
        let given = attached(lab, c, "z1");
        let known = ["10.32.0.1", "10.32.0.2", "10.40.0.0", "10.40.0.1"];
        assert!(
            given.starts_with("10.") && !known.contains(&given.as_str()),
            "{given}"
        );
        let all = || owners(c).iter().map(|(count, _)| count).sum::<u64>();
        assert_eq!(all(), ALL);
    });
}

/// Its need makes the others agree on a ring, of which it gets a share; it never votes.
#[test]
fn an_observer_has_others_make_the_ring() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 2);
        let [a, b] = [0, 1].map(|index| &mesh.weft[index]);
        mesh.launch(0, &["--ipalloc-init", "observer"], &[1]);
        let container = lab.host("x1").as_container();
        let waiting = start(a, &["attach", &container]);
        within("the attach to wait", CONNECT_LIMIT, || {
            a.ok(&["status"]).contains("Status: priming")
        });
        mesh.launch(1, &["--ipalloc-init", "consensus=1"], &[0]);
        let output = waiting.wait_with_output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "{output:?}");
        let [first, second] = [printed, attached(lab, b, "y1")];
        assert_ne!(first, second);
        for address in [&first, &second] {
            assert!(
                address.starts_with("10.32.") || address.starts_with("10.4"),
                "{address}"
            );
        }
        assert_eq!((voters(a), voters(b)), (1, 1), "the observer is none");
    });
}

/// Each host in turn is reset and joins anew, as in a rolling upgrade.
#[test]
fn hosts_that_are_reset_one_after_the_other_lose_no_address() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        let others =
            |index: usize| -> Vec<usize> { (0..3).filter(|peer| *peer != index).collect() };
        for index in 0..3 {
            mesh.launch(index, &[], if index == 0 { &[] } else { &[0] });
            mesh.weft[index].ok(&["prime"]);
        }
        let mut addresses: Vec<String> = (0..3)
            .map(|index| mesh.weft[index].attach(&mesh.containers[index], &[]))
            .collect();
        for index in 0..3 {
            let weft = &mesh.weft[index];
            within("all three to vote", CONNECT_LIMIT, || {
                mesh.weft.iter().all(|weft| voters(weft) == 3)
            });
            weft.ok(&["reset"]);
            assert!(!mesh.containers[index].has_device("ethwe"));
            mesh.launch(index, &[], &others(index));
            addresses[index] = weft.attach(&mesh.containers[index], &[]);
            let distinct: BTreeSet<&String> = addresses.iter().collect();
            assert_eq!(distinct.len(), 3, "{addresses:?}");
            within(
                "all addresses to have a living owner",
                CONNECT_LIMIT,
                || {
                    mesh.weft.iter().all(|weft| {
                        let owners = owners(weft);
                        owners.iter().all(|(_, reachable)| *reachable)
                            && owners.iter().map(|(count, _)| count).sum::<u64>() == ALL
                    })
                },
            );
        }
    });
}

fn launch(weft: &Weft, flags: &[&str]) {
    weft.ok(&[&["launch", "--password", "secret"], flags].concat());
}

fn stands(container: &Host, address: &str) -> bool {
    let shown = container.run(&["ip", "-4", "-o", "addr", "show", "dev", "ethwe"]);
    shown.contains(&format!(" {address}/"))
}

/// Whatever the store says or does not say, what stands on an interface is not given to anybody else.
#[test]
fn ranges_change_between_launches_and_addresses_in_use_are_never_given() {
    in_lab(|lab| {
        let host = lab.host("a");
        let weft = lab.weft(&host);
        launch(&weft, &[]);
        let one = lab.host("c1");
        assert_eq!(weft.attach(&one, &[]), "10.32.0.1");
        assert_eq!(weft.ok(&["expose"]).trim(), "10.32.0.2");
        assert_eq!(attached(lab, &weft, "c2"), "10.32.0.3");

        // Another range: the old addresses are noted as they are, and what is given is of the new one.
        weft.ok(&["stop"]);
        launch(&weft, &["--ipalloc-range", "10.2.0.0/16"]);
        let told = "launched with --ipalloc-range 10.32.0.0/12 before";
        assert!(weft.ok(&["status"]).contains(told));
        assert_eq!(weft.attach(&one, &[]), "10.2.0.1");
        assert_eq!(ipam(&weft)["active"], 1);
        assert!(stands(&one, "10.32.0.1") && stands(&one, "10.2.0.1"));
        assert_eq!(weft.detach(&one, &[]), "10.2.0.1");

        // Back again, and one more by hand, of which the store knows nothing.
        weft.ok(&["stop"]);
        one.run(&["ip", "addr", "add", "10.32.0.4/12", "dev", "ethwe"]);
        launch(&weft, &[]);
        assert_eq!(attached(lab, &weft, "c3"), "10.32.0.5");
        assert_eq!(weft.attach(&one, &[]), "10.32.0.1", "its own");
        assert_eq!(weft.ok(&["expose"]).trim(), "10.32.0.2", "its own");
        assert_eq!(ipam(&weft)["active"], 5);

        // The store is lost altogether: a new identity, a new ring.
        weft.ok(&["stop"]);
        std::fs::remove_dir_all(weft.data_dir()).expect("the lab's own folder");
        launch(&weft, &[]);
        assert_eq!(attached(lab, &weft, "c4"), "10.32.0.6");
        assert_eq!(weft.ok(&["hide"]).trim(), "10.32.0.2");
        assert_eq!(
            attached(lab, &weft, "c5"),
            "10.32.0.2",
            "what is hidden is free"
        );
        assert_eq!(owners(&weft), [(ALL, true)]);
    });
}
