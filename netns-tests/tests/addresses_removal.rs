//! Removing dead hosts: two users at once, and what the user of a host that returns sees and does.
//!
//! ```text
//!  h0 dead ─┐
//!  h1 ──────┼─ switch        `weft rmpeer h0` on h1 and h2 in the same moment
//!  h2, h3 ──┘
//! ```

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use weft_netns_tests::{Host, Lab, Mesh, Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Addresses of 10.32.0.0/12.
const ALL: u64 = 1 << 20;
/// Another's 10.32.0.1 is taken before the host that had it returns.
const LOST: &str = "10.32.0.1";

fn ipam(weft: &Weft) -> Value {
    weft.json(&["status"])["ipam"].clone()
}

/// What each owner has, by nickname.
fn owned(weft: &Weft) -> BTreeMap<String, u64> {
    let owners = ipam(weft)["owners"].clone();
    let owners = owners.as_array().into_iter().flatten();
    let pair = |owner: &Value| {
        let name = owner["nickname"].as_str().expect("text").to_owned();
        (name, owner["addresses"].as_u64().expect("a number"))
    };
    owners.map(pair).collect()
}

fn voters(weft: &Weft) -> usize {
    ipam(weft)["voters"].as_array().map_or(0, Vec::len)
}

/// Hosts that own shares and vote, of which the first has given an address.
fn hosts_with_shares(lab: &Lab, count: usize) -> Mesh {
    let mesh = Mesh::new(lab, count);
    for index in 0..count {
        let before: Vec<usize> = (0..index).collect();
        mesh.launch(index, &[], &before);
        mesh.weft[index].attach(&mesh.containers[index], &[]);
    }
    within("all to vote and to agree", CONNECT_LIMIT, || {
        let known = owned(&mesh.weft[0]);
        known.len() == count
            && mesh
                .weft
                .iter()
                .all(|weft| voters(weft) == count && owned(weft) == known)
    });
    mesh
}

fn start(weft: &Weft, words: &[&str]) -> Child {
    let mut command = weft.command(words);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("weft can be started")
}

/// The number that `weft rmpeer` printed, to the letter.
fn taken(command: Child, peer: &str) -> u64 {
    let output = command.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = printed.strip_suffix(&format!(" IPs taken over from {peer}\n"));
    let count = count.and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("{output:?}"))
}

/// Kills a host and has two others remove it in the same moment; those who live agree on what became of its ranges.
fn remove_at_once(mesh: &Mesh, dead: usize, removers: [usize; 2], alive: &[usize]) {
    let peer = format!("h{dead}");
    let before = owned(&mesh.weft[alive[0]]);
    mesh.weft[dead].crash();
    within("it to be missed everywhere", CONNECT_LIMIT, || {
        alive.iter().all(|at| {
            let listed = mesh.weft[*at].ok(&["status", "ipam"]);
            let mut lines = listed.lines();
            lines.any(|line| line.contains(&peer) && line.contains("unreachable!"))
        })
    });
    let commands = removers.map(|at| start(&mesh.weft[at], &["rmpeer", &peer]));
    let counts = commands.map(|command| taken(command, &peer));
    assert_eq!(counts.iter().sum::<u64>(), before[&peer], "{counts:?}");
    within("the rest to agree", CONNECT_LIMIT, || {
        let after = owned(&mesh.weft[alive[0]]);
        alive.iter().all(|at| owned(&mesh.weft[*at]) == after) && after.len() == alive.len()
    });
    let after = owned(&mesh.weft[alive[0]]);
    assert_eq!(after.values().sum::<u64>(), ALL, "{after:?}");
    for (at, count) in removers.iter().zip(counts) {
        let name = format!("h{at}");
        assert_eq!(after[&name], before[&name] + count, "{counts:?}: {after:?}");
    }
    for at in alive {
        let listed = mesh.weft[*at].ok(&["status", "ipam"]);
        assert_eq!(listed.lines().count(), alive.len(), "{listed}");
        assert!(!listed.contains("unreachable!") && !listed.contains("disputed"));
    }
}

#[test]
fn two_removals_of_one_host_at_once_print_what_it_owned_between_them() {
    in_lab(|lab| {
        let mesh = hosts_with_shares(lab, 4);
        // First the one with most, then one with little.
        remove_at_once(&mesh, 0, [1, 2], &[1, 2, 3]);
        remove_at_once(&mesh, 3, [2, 1], &[1, 2]);
        let free = lab.host("free");
        let address = mesh.weft[1].attach(&free, &[]);
        let target = address.parse().expect("an address");
        within("a container of the other", CONNECT_LIMIT, || {
            mesh.containers[2].reaches(target)
        });
    });
}

fn stands(container: &Host, device: &str) -> String {
    container.run(&["ip", "-4", "-o", "addr", "show", "dev", device])
}

/// h0 is removed while it is dead, its addresses go to h1, and it returns with a container and an exposed host.
fn returned(lab: &Lab) -> Mesh {
    let mesh = hosts_with_shares(lab, 3);
    let [a, b] = [0, 1].map(|at| &mesh.weft[at]);
    assert_eq!(a.ok(&["expose"]).trim(), "10.32.0.2");
    a.crash();
    within("it to be missed", CONNECT_LIMIT, || {
        b.ok(&["status", "ipam"]).contains("unreachable!")
    });
    b.ok(&["rmpeer", "h0"]);
    for (name, address) in [("n1", LOST), ("n2", "10.32.0.2")] {
        let other = lab.host(name);
        assert_eq!(b.attach(&other, &[&format!("{address}/12")]), address);
    }
    mesh.launch(0, &[], &[1, 2]);
    mesh
}

#[test]
fn the_user_of_a_removed_host_is_told_what_to_attach_anew_and_that_cures_it() {
    in_lab(|lab| {
        let mesh = returned(lab);
        let [a, b] = [0, 1].map(|at| &mesh.weft[at]);
        let container = &mesh.containers[0];
        let lines = [
            "blocked: 10.32.0.1 of c0 belongs to another peer: detach it, then attach it again\n",
            "blocked: 10.32.0.2 of weave:expose belongs to another peer: `weft hide`, then `weft expose`\n",
        ];
        within("both to be told", CONNECT_LIMIT, || {
            let listed = a.ok(&["status", "ipam"]);
            lines.iter().all(|line| listed.contains(line))
        });
        within("word of both in the log", CONNECT_LIMIT, || {
            let log = a.log();
            ["c0", "weave:expose"].iter().all(|holder| {
                let told = format!("needs a new address holder=\"{holder}\"");
                log.contains(&told)
            })
        });
        assert!(!b.ok(&["status", "ipam"]).contains("blocked"));
        let new = |printed: String| {
            let address = printed.trim().to_owned();
            assert!(
                ![LOST, "10.32.0.2", ""].contains(&address.as_str()),
                "{address}"
            );
            address
        };

        assert_eq!(a.detach(container, &[]), LOST);
        let address = new(a.attach(container, &[]));
        let shown = stands(container, "ethwe");
        assert!(shown.contains(&format!(" {address}/")) && !shown.contains(&format!(" {LOST}/")));
        let listed = a.ok(&["status", "ipam"]);
        assert!(
            !listed.contains(lines[0]) && listed.contains(lines[1]),
            "{listed}"
        );

        assert_eq!(a.ok(&["hide"]).trim(), "10.32.0.2");
        let exposed = new(a.ok(&["expose"]));
        assert!(stands(a.host(), "weft").contains(&format!(" {exposed}/")));
        assert!(!a.ok(&["status", "ipam"]).contains("blocked"));
        let far = &mesh.containers[2];
        for target in [&address, &exposed] {
            let target = target.parse().expect("an address");
            within("them from another host", CONNECT_LIMIT, || {
                far.reaches(target)
            });
        }
        let named = || mesh.weft[2].ok(&["dns-lookup", "c0"]).trim().to_owned();
        within("its name there", CONNECT_LIMIT, || named() == address);
        within("all to agree", CONNECT_LIMIT, || {
            let known = owned(a);
            mesh.weft.iter().all(|weft| owned(weft) == known) && known.values().sum::<u64>() == ALL
        });
    });
}
