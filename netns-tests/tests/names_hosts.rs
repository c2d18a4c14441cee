//! Names across hosts: what one host says, all answer, and what is gone is gone everywhere.
//!
//! ```text
//!  h0 ─┐
//!  h1 ─┼─ switch        each runs weft, and has containers
//!  h2 ─┘
//! ```

use std::time::Duration;

use serde_json::{Value, json};
use weft_netns_tests::{
    Host, Lab, Mesh, NameServer, Weft, addresses_in_answer, dig, in_lab, is_long, now, record,
    resolved, within,
};

/// From a change to the answer on every host.
const CHANGE_LIMIT: Duration = Duration::from_secs(1);
/// From the end of a container to the last answer for it.
const GONE_LIMIT: Duration = Duration::from_secs(2);
/// The same for a peer that is found, linked and heard out.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// Until a path that fell silent is down.
const DETECTION_LIMIT: Duration = Duration::from_secs(4);
/// From there to the last answer for a name of the lost host.
const LOSS_LIMIT: Duration = Duration::from_secs(2);
/// From the end of a cut to the first answer.
const HEAL_LIMIT: Duration = Duration::from_secs(2);

/// Three hosts that know each other, with daemons and without containers.
fn three_hosts(lab: &Lab) -> Mesh {
    let mesh = Mesh::new(lab, 3);
    for index in 0..3 {
        mesh.launch(index, &[], &[0, 1, 2]);
    }
    mesh
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
        let mesh = three_hosts(lab);
        for (index, weft) in mesh.weft.iter().enumerate() {
            let container = mesh.containers[index].as_container();
            let (name, address) = (format!("c{index}"), format!("{}/24", Mesh::overlay(index)));
            weft.ok(&[
                "attach", "--name", &name, "--name", "foo", &address, &container,
            ]);
        }
        let all = ["10.2.1.1", "10.2.1.2", "10.2.1.3"];
        let clients = &mesh.containers;
        for client in clients {
            within("all addresses of foo", JOIN_LIMIT, || {
                answers(client, &["foo.weave.local"]) == all
            });
            within("a name of another host", CHANGE_LIMIT, || {
                answers(client, &["c1.weave.local"]) == ["10.2.1.2"]
                    && answers(client, &["-x", "10.2.1.2"]) == ["c1.weave.local."]
            });
        }
        clients[0].run(&["ping", "-c", "1", "-W", "5", "c2"]);
        ask_as_programs_do(clients);

        mesh.weft[2].ok(&["dns-add", "192.0.2.80", "192.0.2.81", "-h", "foo"]);
        within("two more, added by hand", CHANGE_LIMIT, || {
            answers(&clients[0], &["foo.weave.local"]).len() == 5
        });
        mesh.weft[1].ok(&["detach", "10.2.1.2/24", &clients[1].as_container()]);
        within("one less", CHANGE_LIMIT, || {
            answers(&clients[0], &["foo.weave.local"]).len() == 4
                && answers(&clients[2], &["c1.weave.local"]).is_empty()
        });
        let listed = mesh.weft[0].ok(&["status", "dns"]);
        assert_eq!(listed.lines().count(), 6, "{listed}");
    });
}

/// With the containers' own files, from each host to each other one.
fn ask_as_programs_do(clients: &[Host]) {
    for client in clients {
        for (index, other) in clients.iter().enumerate() {
            let (name, address) = (other.name(), Mesh::overlay(index).to_string());
            assert_eq!(resolved(client, name), address, "{}", client.name());
            let back = client.run(&["getent", "hosts", &address]);
            assert!(back.contains(&format!("{name}.weave.local")), "{back}");
            let said = client.run(&["busybox", "nslookup", &format!("{name}.weave.local")]);
            assert!(said.contains(&address), "{said}");
            let said = client.run(&["busybox", "nslookup", &address]);
            assert!(said.contains(&format!("{name}.weave.local")), "{said}");
        }
    }
}

/// Given on h0, asked for on the others.
#[test]
fn many_addresses_of_another_host_are_cut_over_udp_and_whole_over_tcp() {
    in_lab(|lab| {
        let mesh = three_hosts(lab);
        (0..3).for_each(|index| mesh.attach(index));
        let many: Vec<String> = (1..=50).map(|n| format!("10.9.0.{n}")).collect();
        let words: Vec<&str> = many.iter().map(String::as_str).collect();
        mesh.weft[0].ok(&[&["dns-add"], words.as_slice(), &["-h", "many"]].concat());
        for client in &mesh.containers[1..] {
            let count = |words: &[&str]| {
                addresses_in_answer(client, &[words, &["many.weave.local"]].concat())
            };
            within("all addresses", JOIN_LIMIT, || {
                count(&["+tcp"]) == (50, false)
            });
            let (plain, is_cut) = count(&["+noedns", "+ignore"]);
            assert!(is_cut && (25..35).contains(&plain), "{plain}");
            assert_eq!(count(&["+noedns"]), (50, false), "asked again over TCP");
            let (more, is_cut) = count(&["+bufsize=700", "+ignore"]);
            assert!(is_cut && more > plain && more < 50, "{more}");
            assert_eq!(count(&["+bufsize=700"]), (50, false), "asked again, too");
            let listed = client.run(&["getent", "ahostsv4", "many"]);
            let found = many
                .iter()
                .filter(|one| listed.contains(&format!("{one} ")));
            assert_eq!(found.count(), 50, "{listed}");
        }
    });
}

#[test]
fn names_of_hosts_with_another_domain_are_counted_in_the_status() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        mesh.launch(0, &[], &[0, 1, 2]);
        mesh.launch(1, &[], &[0, 1, 2]);
        let other = ["--dns-domain", "example.internal"];
        mesh.launch(2, &other, &[0, 1, 2]);
        for name in ["x", "y"] {
            mesh.weft[2].ok(&["dns-add", "192.0.2.80", "-h", name]);
        }
        mesh.weft[0].ok(&["dns-add", "192.0.2.81", "-h", "z"]);
        let name_of = |weft: &Weft| weft.report()["name"].as_str().unwrap().to_owned();
        for (weft, count, host) in [
            (&mesh.weft[0], 2, &mesh.weft[2]),
            (&mesh.weft[1], 2, &mesh.weft[2]),
            (&mesh.weft[2], 1, &mesh.weft[0]),
        ] {
            let notes = [
                format!("names not answered here: {count} of {}", name_of(host)),
                ", which has another --dns-domain".to_owned(),
            ];
            within("the note", JOIN_LIMIT, || {
                let status = weft.ok(&["status"]);
                notes.iter().all(|note| status.contains(note))
            });
        }
    });
}

/// The same with addresses that the hosts agree on.
#[test]
fn addresses_that_weft_gave_are_balanced_too() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        for index in 0..3 {
            mesh.launch(index, &["--ipalloc-range", "10.2.0.0/16"], &[0, 1, 2]);
        }
        let mut given = Vec::new();
        for (weft, container) in mesh.weft.iter().zip(&mesh.containers) {
            let printed = weft.ok(&["attach", "--name", "foo", &container.as_container()]);
            given.push(printed.trim().to_owned());
        }
        given.sort();
        for client in &mesh.containers {
            within("all addresses of foo", JOIN_LIMIT, || {
                answers(client, &["foo.weave.local"]) == given
            });
        }
        for address in &given {
            let back = answers(&mesh.containers[0], &["-x", address]);
            assert_eq!(back, ["foo.weave.local."]);
        }
    });
}

#[test]
fn names_follow_containers_that_end_and_begin_anew() {
    in_lab(|lab| {
        let mesh = three_hosts(lab);
        mesh.attach(0);
        let client = &mesh.containers[0];
        for round in 0..5 {
            let mut running = Vec::new();
            let mut wanted = [Vec::new(), Vec::new()];
            for (index, weft) in mesh.weft.iter().enumerate() {
                for (kind, name) in ["foo", "bar"].into_iter().enumerate() {
                    let address = format!("10.2.{}.{}", 10 + round, 10 * (index + 1) + kind);
                    let words = ["--name", name, &format!("{address}/16")];
                    running.push(attach(lab, weft, &format!("{name}{index}r{round}"), &words));
                    wanted[kind].push(address);
                }
            }
            let limit = if round == 0 { JOIN_LIMIT } else { CHANGE_LIMIT };
            for (name, wanted) in ["foo", "bar"].into_iter().zip(&wanted) {
                within("all addresses of the round", limit, || {
                    answers(client, &[&format!("{name}.weave.local")]) == *wanted
                });
            }
            running.iter().for_each(Host::remove);
            within("no name of the round", GONE_LIMIT, || {
                ["foo.weave.local", "bar.weave.local"]
                    .iter()
                    .all(|name| answers(client, &[name]).is_empty())
            });
        }
    });
}

#[test]
fn names_of_a_host_that_is_cut_off_vanish_everywhere_and_return() {
    in_lab(|lab| {
        let mesh = three_hosts(lab);
        (0..3).for_each(|index| mesh.attach(index));
        let both = [0, 1];
        cut_and_heal(
            (&mesh, "names_cut"),
            |mesh| both.iter().for_each(|near| mesh.keep_apart(*near, 2)),
            |mesh| both.iter().for_each(|near| mesh.bring_together(*near, 2)),
        );
        mesh.weft[2].ok(&["stop"]);
        within("no name of a host that has stopped", CHANGE_LIMIT, || {
            answers(&mesh.containers[0], &["c2.weave.local"]).is_empty()
        });
    });
}

/// h0 knows of h2 through h1 alone, and learns of the loss from it.
#[test]
fn names_of_a_host_behind_a_relay_vanish_and_return() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        mesh.keep_apart(0, 2);
        mesh.start(&["--no-discovery"], |index| {
            index.checked_sub(1).into_iter().collect()
        });
        cut_and_heal(
            (&mesh, "names_cut_relay"),
            |mesh| mesh.keep_apart(1, 2),
            |mesh| mesh.bring_together(1, 2),
        );
    });
}

/// Cuts h2 off for a while; the containers of the others must not find its container then.
fn cut_and_heal((mesh, what): (&Mesh, &str), cut: impl Fn(&Mesh), heal: impl Fn(&Mesh)) {
    let find = |index: usize, name: &str| {
        !answers(&mesh.containers[index], &[&format!("{name}.weave.local")]).is_empty()
    };
    within("all names on all hosts", JOIN_LIMIT, || {
        (0..3).all(|at| ["c0", "c1", "c2"].iter().all(|name| find(at, name)))
    });
    mesh.wait_until_all_reachable(JOIN_LIMIT);
    let begin = now();
    cut(mesh);
    // h1 is next to h2, and nothing is known before it knows.
    within("the end of the path", DETECTION_LIMIT, || {
        mesh.way(1, 2) == "none"
    });
    let detected = begin.elapsed();
    within("no name of the lost host", LOSS_LIMIT, || {
        !find(0, "c2") && !find(1, "c2")
    });
    let gone = begin.elapsed();
    within("no name of the others", LOSS_LIMIT, || {
        !find(2, "c0") && !find(2, "c1")
    });
    // It still has its own, and the others have theirs.
    assert!(find(2, "c2") && find(0, "c1") && find(1, "c0"));
    let begin = now();
    heal(mesh);
    // Names come back with the way, also where that is another's to tell.
    within("the way", HEAL_LIMIT, || {
        mesh.way(0, 2) != "none" && mesh.way(1, 2) == "direct"
    });
    let healed = begin.elapsed();
    within(
        "the names again",
        HEAL_LIMIT.saturating_sub(healed).max(CHANGE_LIMIT),
        || find(0, "c2") && find(1, "c2") && find(2, "c0") && find(2, "c1"),
    );
    let seconds = |time: Duration| (time.as_secs_f64() * 100.0).round() / 100.0;
    let figures = json!({
        "path_found_dead_s": seconds(detected),
        "names_gone_s": seconds(gone),
        "way_back_s": seconds(healed),
        "names_back_s": seconds(begin.elapsed()),
    });
    record(what, &figures);
}

/// Old information must not come back: h2 hears nothing of h1 while h0 restarts without its container.
#[test]
fn what_was_removed_while_a_host_was_away_does_not_come_back() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        let flags = ["--no-discovery"];
        mesh.start(&flags, |index| index.checked_sub(1).into_iter().collect());
        let stays = attach(lab, &mesh.weft[0], "stays", &["10.2.1.11/24"]);
        let client = &mesh.containers[2];
        within("both names", JOIN_LIMIT, || {
            answers(client, &["c0.weave.local"]) == ["10.2.1.1"]
                && answers(client, &["stays.weave.local"]) == ["10.2.1.11"]
        });

        mesh.deafen(2, 1);
        mesh.weft[0].ok(&["stop"]);
        mesh.containers[0].remove();
        mesh.launch(0, &flags, &[2]);
        mesh.undeafen(2, 1);

        within("what is still there", JOIN_LIMIT, || {
            answers(client, &["stays.weave.local"]) == ["10.2.1.11"]
        });
        within("nothing of what is gone", GONE_LIMIT, || {
            answers(client, &["c0.weave.local"]).is_empty()
        });
        drop(stays);
    });
}

/// The long version has 201 containers.
const CONTAINERS_PER_HOST: [usize; 2] = [22, 67];
/// Of the order in which they come and go.
const SEED: u64 = 20_261_125;
/// How often each comes or goes, on average.
const CHANGES_PER_CONTAINER: usize = 3;

/// The names and addresses that a host lists, in order.
fn known(weft: &Weft) -> Vec<(String, String)> {
    let listed = weft.json(&["status", "dns"]);
    let entries = listed["entries"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pair = |entry: &Value| (text(&entry["hostname"]), text(&entry["address"]));
    let mut pairs: Vec<_> = entries.iter().map(pair).collect();
    pairs.sort();
    pairs
}

/// The names and addresses that a client gets for the names of a file, in order; all are asked for.
fn told(client: &Host, file: &str) -> Vec<(String, String)> {
    let said = dig(client, &["+noall", "+answer", "-f", file]);
    let pair = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.trim_end_matches('.').to_owned();
        Some((name, words.next_back()?.to_owned()))
    };
    let lines = said.lines().filter(|line| !line.starts_with(';'));
    let mut pairs: Vec<_> = lines.filter_map(pair).collect();
    pairs.sort();
    pairs
}

/// The same of several at once: what one is asked late would say nothing of the limit.
fn told_to_all(clients: &[Host], file: &str) -> Vec<Vec<(String, String)>> {
    std::thread::scope(|scope| {
        let ask = |client| scope.spawn(move || told(client, file));
        let asked: Vec<_> = clients.iter().map(ask).collect();
        let heard = asked.into_iter().map(|asked| asked.join());
        heard.map(|told| told.expect("dig runs")).collect()
    })
}

/// Three hosts with a name server each behind weft's, which knows of no reverse name.
fn three_hosts_with_servers(lab: &Lab) -> (Mesh, Vec<NameServer>) {
    let mesh = Mesh::new(lab, 3);
    let servers = (0..3).map(|index| {
        let address = Mesh::underlay(index).to_string();
        let server = NameServer::start(mesh.host(index), &address, &["--bogus-priv"]);
        mesh.launch(index, &["--dns-upstream", &address], &[0, 1, 2]);
        server
    });
    let servers = servers.collect();
    (mesh, servers)
}

/// Containers come and go in random order on three hosts; soon after the last change every server answers the truth.
#[test]
fn after_churn_every_server_knows_exactly_what_is_there() {
    in_lab(|lab| {
        let (mesh, _servers) = three_hosts_with_servers(lab);
        let wefts = &mesh.weft;
        let clients: Vec<Host> = (0..3)
            .map(|at| {
                attach(
                    lab,
                    &wefts[at],
                    &format!("x{at}"),
                    &[&format!("10.2.0.1{at}/16")],
                )
            })
            .collect();
        let per_host = CONTAINERS_PER_HOST[usize::from(is_long())];
        let mut there = vec![false; 3 * per_host];
        let spaces: Vec<Host> = (0..there.len())
            .map(|at| lab.host(&format!("n{at}")))
            .collect();
        let address = |at: usize| format!("10.2.{}.{}", 1 + at / per_host, 1 + at % per_host);
        let file = lab.folder().join("questions");
        let questions = spaces
            .iter()
            .chain(&clients)
            .map(|space| format!("{}.weave.local\n", space.name()));
        std::fs::write(&file, questions.collect::<String>()).expect("the lab's folder is writable");
        let file = file.to_string_lossy().into_owned();
        let file = file.as_str();
        let mut random = SEED;
        for _ in 0..CHANGES_PER_CONTAINER * there.len() {
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
        truth.extend((0..3).map(|at| (format!("x{at}.weave.local"), format!("10.2.0.1{at}"))));
        truth.sort();
        let took = within("the truth from every server", CHANGE_LIMIT, || {
            told_to_all(&clients, file)
                .iter()
                .all(|told| *told == truth)
        });
        assert!(took <= CHANGE_LIMIT, "the last answer: {took:?}");
        assert!(wefts.iter().all(|weft| known(weft) == truth));
        let took_ms = (took.as_secs_f64() * 1000.0).round();
        let figures = json!({
            "containers": there.len(),
            "changes": CHANGES_PER_CONTAINER * there.len(),
            "names_at_the_end": truth.len(),
            "all_known_after_ms": took_ms,
        });
        record("names_churn", &figures);
        for (at, is_there) in there.iter().enumerate() {
            for client in &clients {
                finds_both_ways(client, &spaces[at], &address(at), *is_there);
            }
        }
    });
}

/// Forward and reverse, or neither.
fn finds_both_ways(client: &Host, container: &Host, address: &str, is_there: bool) {
    let name = format!("{}.weave.local", container.name());
    let backward = dig(client, &["-x", address]);
    if is_there {
        assert_eq!(answers(client, &[&name]), [address]);
        let found = format!("PTR\t{name}.\n");
        assert!(backward.contains(&found), "{backward}");
        return;
    }
    for said in [dig(client, &[&name]), backward] {
        assert!(said.contains("status: NXDOMAIN"), "{said}");
    }
}
