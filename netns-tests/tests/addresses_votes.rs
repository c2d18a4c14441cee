//! Whose votes count for ranges, on the built binary: of a first ring, of a ring of names.
//!
//! ```text
//!  h0 192.0.2.1 ─┐
//!  h1 192.0.2.2 ─┼─ switch
//!  h2 192.0.2.3 ─┘
//! ```

use std::time::Duration;

use weft_netns_tests::{Mesh, Weft, in_lab, pause, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

fn sees_peers(weft: &Weft, count: usize) -> bool {
    weft.ok(&["status"]).contains(&format!("Peers: {count}"))
}

/// Nobody named the newcomers to it, so it waits for none of them: neither for one that has died, nor for one that
/// gives no addresses.
#[test]
fn newcomers_do_not_keep_the_first_host_from_its_addresses() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        mesh.launch(0, &[], &[]);
        mesh.launch(1, &["--ipalloc-range", ""], &[0]);
        mesh.launch(2, &[], &[0]);
        within("both to be peers", CONNECT_LIMIT, || {
            sees_peers(&mesh.weft[0], 3)
        });
        mesh.weft[2].crash();
        // Its own vote is all it needs; whether the one that died is given a share depends on who knows of its death.
        let given = mesh.weft[0].attach(&mesh.containers[0], &[]);
        let first_of_a_share = ["10.32.0.1", "10.40.0.0"];
        assert!(first_of_a_share.contains(&given.as_str()), "{given}");
    });
}

fn voters(weft: &Weft) -> usize {
    let voters = weft.json(&["status"])["ipam"]["voters"].clone();
    voters.as_array().map_or(0, Vec::len)
}

fn owned(weft: &Weft) -> Vec<(String, u64)> {
    let owners = weft.json(&["status"])["ipam"]["owners"].clone();
    let owners = owners.as_array().cloned().unwrap_or_default();
    let shown = owners.iter().map(|owner| {
        let name = owner["nickname"].as_str().unwrap_or_default().to_owned();
        (name, owner["addresses"].as_u64().unwrap_or(0))
    });
    shown.collect()
}

/// Hosts go by the names they were given, which are not made of their keys.
#[test]
fn hosts_of_a_ring_of_names_leave_and_are_removed_with_their_votes() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        let name = |index: usize| format!("00:00:00:00:00:0{}", index + 1);
        let seeds = format!("seed={},{},{}", name(0), name(1), name(2));
        for index in 0..3 {
            let flags = ["--name", &name(index), "--ipalloc-init", &seeds];
            mesh.launch(index, &flags, if index == 0 { &[] } else { &[0] });
        }
        let [a, b, c] = [0, 1, 2].map(|index| &mesh.weft[index]);
        let ids: Vec<String> = mesh
            .weft
            .iter()
            .map(|weft| weft.report()["peer_id"].as_str().unwrap().to_owned())
            .collect();
        within("each to vote as itself", CONNECT_LIMIT, || {
            mesh.weft.iter().all(|weft| {
                let voters = weft.json(&["status"])["ipam"]["voters"].clone();
                ids.iter().all(|id| {
                    voters
                        .as_array()
                        .is_some_and(|all| all.contains(&id.as_str().into()))
                })
            })
        });

        c.crash();
        pause(Duration::from_millis(300));
        within("it to count as gone", CONNECT_LIMIT, || {
            let removal = a.run(&["rmpeer", "h2"]);
            let is_patient = removal.stderr.contains("does not answer at the moment");
            assert!(removal.code == 0 || is_patient, "{removal:?}");
            removal.code == 0
        });
        within("its vote to be gone", CONNECT_LIMIT, || {
            voters(a) == 2 && voters(b) == 2
        });
        a.ok(&["reset"]);
        within("all to be the last one's", CONNECT_LIMIT, || {
            voters(b) == 1 && owned(b) == [("h1".to_owned(), 1 << 20)]
        });
    });
}
