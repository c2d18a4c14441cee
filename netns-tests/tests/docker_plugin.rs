//! Docker's network plugin on real Docker daemons: `docker run --net=weft`, as a user types it.
//!
//! ```text
//!  a: dockerd, weft 192.0.2.1 ══ 192.0.2.2 b: dockerd, weft
//!     c1 ethwe0 ─┘                          └─ c2 ethwe0
//! ```

use std::time::Duration;

use nix::sys::signal::Signal;
use weft_netns_tests::{Dockerd, IMAGE, Lab, Outcome, Weft, in_docker_lab, pause, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// A name of a container that is gone must be gone after this.
const NAME_LIMIT: Duration = Duration::from_secs(2);
/// Containers must be whole again this long after Docker and weft are both back.
const BACK_LIMIT: Duration = Duration::from_secs(5);
/// Beside our sockets, whatever the folder is.
const SOCKETS: [&str; 2] = ["weft.sock", "weftmesh.sock"];

/// A container that stays; returns its id.
fn run(dockerd: &Dockerd, name: &str, flags: &[&str]) -> String {
    let started = dockerd.client().stay(name, flags);
    assert_eq!(started.code, 0, "{name}: {started:?}");
    started.stdout.trim().to_owned()
}

/// The IPv4 address of an interface in a container, with its prefix length.
fn address(dockerd: &Dockerd, name: &str, interface: &str) -> String {
    let shown = dockerd.docker(&["exec", name, "ip", "-4", "addr", "show", "dev", interface]);
    let mut words = shown.stdout.split_whitespace();
    words.find(|word| *word == "inet");
    words.next().unwrap_or_default().to_owned()
}

fn bare(address: &str) -> &str {
    address.split('/').next().unwrap_or_default()
}

fn pings(dockerd: &Dockerd, from: &str, to: &str) -> bool {
    let words = ["exec", from, "ping", "-c", "1", "-W", "1", to];
    dockerd.docker(&words).code == 0
}

/// What `weft ps` says of a container: its line, or nothing.
fn line_of(weft: &Weft, id: &str) -> String {
    let listed = weft.ok(&["ps"]);
    let line = listed.lines().find(|line| line.starts_with(&id[..12]));
    line.unwrap_or_default().to_owned()
}

fn has_sockets(dockerd: &Dockerd) -> [bool; 2] {
    SOCKETS.map(|socket| {
        let path = format!("/run/docker/plugins/{socket}");
        dockerd
            .host()
            .output(&["test", "-S", &path])
            .status
            .success()
    })
}

fn two_hosts(lab: &Lab) -> ([Dockerd; 2], [Weft; 2]) {
    let hosts = lab.two_hosts();
    let dockers = hosts.each_ref().map(|host| lab.dockerd(host, &[]));
    let wefts = dockers.each_ref().map(|docker| lab.weft(docker.host()));
    let launch = ["launch", "--password", "secret"];
    wefts[0].ok(&launch);
    wefts[0].ok(&["prime"]);
    wefts[1].ok(&[&launch[..], &["192.0.2.1"]].concat());
    (dockers, wefts)
}

#[test]
fn containers_of_two_hosts_meet_on_the_network_weft() {
    in_docker_lab(|lab| {
        let (dockers, wefts) = two_hosts(lab);
        let [a, b] = &dockers;
        wefts[1].wait_for_path(CONNECT_LIMIT);
        for docker in &dockers {
            let shown = docker.ok(&["network", "inspect", "-f", "{{.Driver}}", "weft"]);
            assert_eq!(shown, "weftmesh");
        }
        let dns = ["--dns=169.254.53.1", "--dns-search=weave.local"];
        let named = |name: &'static str| [&["--net=weft", "-h", name], &dns[..]].concat();
        let first = run(a, "c1", &named("c1.weave.local"));
        let second = run(b, "c2", &named("c2.weave.local"));
        let ours = [address(a, "c1", "ethwe0"), address(b, "c2", "ethwe0")];
        assert!(
            ours.iter().all(|address| address.ends_with("/12")),
            "{ours:?}"
        );

        within("the way across", CONNECT_LIMIT, || {
            pings(a, "c1", bare(&ours[1]))
        });
        within("the name", CONNECT_LIMIT, || {
            pings(a, "c1", "c2.weave.local")
        });
        let shown = a.ok(&["exec", "c1", "ip", "addr", "show", "dev", "ethwe0"]);
        assert!(shown.contains("mtu 1376"), "{shown}");
        let routes = a.ok(&["exec", "c1", "ip", "route"]);
        assert!(routes.contains("224.0.0.0/4 dev ethwe0"), "{routes}");
        within("the container in the list", CONNECT_LIMIT, || {
            line_of(&wefts[0], &first).contains(&ours[0])
        });
        assert_eq!(wefts[0].ok(&["ipam", "check"]), "");
        assert!(routes.contains("default via 172."), "the way out: {routes}");
        restarted_weft_knows_them(&dockers, &wefts, &first, &ours);

        // What ends is gone: its name at once, its address for the next one.
        let found = || wefts[0].run(&["dns-lookup", "c2"]).stdout;
        assert_eq!(found().trim(), bare(&ours[1]));
        b.ok(&["rm", "-f", &second]);
        within("the end of the name", NAME_LIMIT, || found().is_empty());
        run(b, "c3", &["--net=weft"]);
        assert_eq!(address(b, "c3", "ethwe0"), ours[1]);
    });
}

fn restarted_weft_knows_them(
    [a, b]: &[Dockerd; 2],
    wefts: &[Weft; 2],
    first: &str,
    ours: &[String; 2],
) {
    wefts[0].crash();
    assert!(pings(a, "c1", "127.0.0.1"), "containers do without");
    wefts[0].ok(&["launch", "--password", "secret"]);
    within("the container, known again", BACK_LIMIT, || {
        line_of(&wefts[0], first).contains(&ours[0])
            && wefts[0].run(&["dns-lookup", "c1"]).stdout.trim() == bare(&ours[0])
    });
    within("the way across", CONNECT_LIMIT, || {
        pings(b, "c2", bare(&ours[0]))
    });
    run(a, "next", &["--net=weft"]);
    assert_ne!(address(a, "next", "ethwe0"), ours[0], "given twice");
    a.ok(&["rm", "-f", "next"]);
}

#[test]
fn who_takes_over_an_address_is_answered_from_the_first_instruction_on() {
    in_docker_lab(|lab| {
        let ([a, b], wefts) = two_hosts(lab);
        wefts[1].wait_for_path(CONNECT_LIMIT);
        run(&b, "c1", &["--net=weft"]);
        let there = address(&b, "c1", "ethwe0");
        let there = bare(&there);
        let look =
            format!("cat /sys/class/net/ethwe0/address; hostname -i; ping -c 1 -W 1 {there}");
        let once = || {
            let said = a.docker(&["run", "--rm", "--net=weft", IMAGE, "sh", "-c", &look]);
            let lines = said.stdout.lines().map(str::to_owned);
            let [mac, own] = Vec::from_iter(lines.take(2))
                .try_into()
                .expect("it says two things of itself");
            (said.code, own, mac)
        };
        let mut before = once();
        // More than once: the first time nobody knows another place of the address.
        for _ in 0..3 {
            let now = once();
            assert_eq!((now.0, &now.1), (0, &before.1), "answered");
            assert_ne!(now.2, before.2, "another container");
            before = now;
        }
    });
}

#[test]
fn own_networks_have_their_subnets_and_fixed_addresses() {
    in_docker_lab(|lab| {
        let (dockers, wefts) = two_hosts(lab);
        wefts[1].wait_for_path(CONNECT_LIMIT);
        let [a, b] = &dockers;
        let subnet = ["--subnet", "10.40.0.0/16"];
        for docker in &dockers {
            let made = create(docker, "forty", &subnet);
            assert_eq!(made.code, 0, "{made:?}");
        }
        let fixed = ["--net=forty", "--ip", "10.40.0.1"];
        let first = run(a, "c1", &fixed);
        run(a, "c2", &["--net=forty"]);
        assert_eq!(address(a, "c1", "ethwe0"), "10.40.0.1/16");
        assert_eq!(address(a, "c2", "ethwe0"), "10.40.0.2/16");
        assert!(
            !a.ok(&["exec", "c1", "ip", "route"]).contains("224.0.0.0"),
            "no multicast"
        );
        let dns = ["--dns=169.254.53.1", "--dns-search=weave.local"];
        run(b, "c3", &[&["--net=forty"], &dns[..]].concat());
        for other in ["10.40.0.1", "c1"] {
            within("the way across", CONNECT_LIMIT, || pings(b, "c3", other));
        }

        let again = [&["run", "--rm"], &fixed[..], &[IMAGE, "true"]].concat();
        for docker in &dockers {
            let refused = docker.docker(&again);
            assert!(
                refused.stderr.contains("is already owned by")
                    || refused.stderr.contains("is owned by"),
                "{refused:?}"
            );
        }
        let refused = a.docker(&again);
        assert!(refused.stderr.contains(&first[..12]), "{refused:?}");
        a.ok(&["rm", "-f", "c1"]);
        let free = a.docker(&again);
        assert_eq!(free.code, 0, "free again at once: {free:?}");
        parts_and_options(a);
        a_network_that_goes_frees_nobody(a);
    });
}

/// Has Docker make a network on weft's drivers.
fn create(docker: &Dockerd, name: &str, flags: &[&str]) -> Outcome {
    let drivers = ["--driver", "weftmesh", "--ipam-driver", "weftmesh"];
    docker.docker(&[&["network", "create"], &drivers[..], flags, &[name]].concat())
}

fn parts_and_options(a: &Dockerd) {
    let subnet = ["--subnet", "10.40.0.0/16"];
    let part = [
        &subnet[..],
        &[
            "--ip-range",
            "10.40.9.0/24",
            "--opt",
            "works.weave.multicast",
        ],
    ]
    .concat();
    let made = create(a, "part", &part);
    assert_eq!(made.code, 0, "{made:?}");
    run(a, "c4", &["--net=part"]);
    let given = address(a, "c4", "ethwe0");
    assert!(
        given.starts_with("10.40.9.") && given.ends_with("/16"),
        "{given}"
    );
    assert!(
        a.ok(&["exec", "c4", "ip", "route"])
            .contains("224.0.0.0/4 dev ethwe0")
    );
    for (flags, why) in [
        (&["--subnet", "192.168.7.0/24"][..], "out of bounds"),
        (&["--opt", "weft.multicast=maybe"], "neither true nor false"),
        (
            &["--subnet", "10.42.0.0/16", "--gateway", "10.42.0.1"],
            "leave --gateway out",
        ),
        (
            &["--subnet", "10.42.0.0/16", "--aux-address", "r=10.42.0.1"],
            "leave --aux-address out",
        ),
    ] {
        let refused = create(a, "refused", flags);
        assert!(
            refused.code != 0 && refused.stderr.contains(why),
            "{refused:?}"
        );
    }
}

/// Docker releases a gateway with each network; in a larger network that address may be a container's.
fn a_network_that_goes_frees_nobody(a: &Dockerd) {
    let fixed = ["--net=weft", "--ip", "10.44.0.0"];
    run(a, "c5", &fixed);
    let made = create(a, "inner", &["--subnet", "10.44.0.0/16"]);
    assert_eq!(made.code, 0, "{made:?}");
    a.ok(&["network", "rm", "inner"]);
    let refused = a.docker(&[&["run", "--rm"], &fixed[..], &[IMAGE, "true"]].concat());
    assert!(refused.stderr.contains("owned by"), "{refused:?}");
}

#[test]
fn docker_is_never_held_up_by_a_weft_that_is_not_there() {
    in_docker_lab(|lab| {
        let [host, _] = lab.two_hosts();
        let mut dockerd = lab.dockerd(&host, &[]);
        let weft = lab.weft(dockerd.host());
        weft.ok(&["launch", "--no-plugin"]);
        assert_eq!(has_sockets(&dockerd), [false; 2]);
        weft.ok(&["stop"]);

        weft.ok(&["launch"]);
        weft.ok(&["prime"]);
        assert_eq!(has_sockets(&dockerd), [true; 2]);
        run(&dockerd, "c1", &["--net=weft"]);
        dockerd.ok(&["rm", "-f", "c1"]);
        weft.ok(&["stop"]);
        assert_eq!(has_sockets(&dockerd), [false; 2]);
        assert!(!dockerd.ok(&["network", "ls"]).contains("weft"));
        dockerd.stop(Signal::SIGTERM);
        let before = dockerd.log().len();
        dockerd.begin();
        dockerd.wait_until_it_serves();
        let said = dockerd.log().split_off(before);
        assert!(!said.contains("weftmesh"), "Docker looks for it: {said}");

        // After a crash somebody stands in, as Docker has the network; the next start puts others in their place.
        weft.ok(&["launch"]);
        weft.crash();
        weft.ok(&["launch"]);
        run(&dockerd, "c2", &["--net=weft"]);

        // Docker comes after weft: it gets the network all the same.
        dockerd.ok(&["rm", "-f", "c2"]);
        dockerd.ok(&["network", "rm", "weft"]);
        dockerd.stop(Signal::SIGTERM);
        dockerd.begin();
        dockerd.wait_until_it_serves();
        within("the network", BACK_LIMIT, || {
            dockerd.docker(&["network", "inspect", "weft"]).code == 0
        });
    });
}

#[test]
fn the_network_outlives_a_clean_up_and_goes_when_it_is_removed_by_name() {
    in_docker_lab(|lab| {
        let (dockerd, weft) = lab.docker_and_weft(&[], &[]);
        let id = || {
            let words = ["network", "inspect", "-f", "{{.Id}}", "weft"];
            let said = dockerd.docker(&words);
            (said.code == 0).then(|| said.stdout.trim().to_owned())
        };
        let first = id().expect("launch makes it");
        let pruned = dockerd.ok(&["network", "prune", "--force"]);
        assert!(pruned.contains("weft"), "{pruned}");
        within("another network", BACK_LIMIT, || {
            id().is_some_and(|now| now != first)
        });
        run(&dockerd, "c1", &["--net=weft"]);
        let own = address(&dockerd, "c1", "ethwe0");
        assert!(own.ends_with("/12"), "{own}");
        dockerd.ok(&["rm", "-f", "c1"]);

        // As long as it takes weft to look at everything once more.
        dockerd.ok(&["network", "rm", "weft"]);
        pause(BACK_LIMIT + BACK_LIMIT / 2);
        assert_eq!(id(), None, "somebody wanted it gone");
        weft.ok(&["stop"]);
        weft.ok(&["launch"]);
        assert!(id().is_some(), "launch makes it");
    });
}

/// How often Docker's filter has the rule that lets our bridge pass.
fn rules(dockerd: &Dockerd) -> usize {
    let listed = dockerd.host().output(&["iptables", "-S", "DOCKER-USER"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let is_ours = |line: &&str| line.contains("-i weft -o weft -j ACCEPT");
    listed.lines().filter(is_ours).count()
}

#[test]
fn a_reset_leaves_no_rule_in_dockers_filter() {
    in_docker_lab(|lab| {
        let [host, _] = lab.two_hosts();
        let dockerd = lab.dockerd(&host, &[]);
        let weft = lab.weft(dockerd.host());
        weft.ok(&["launch"]);
        within("the rule", BACK_LIMIT, || rules(&dockerd) > 0);
        assert_eq!(rules(&dockerd), 1);
        // As two of an older weft's parts may have done.
        let twice = "iptables -I DOCKER-USER -i weft -o weft -j ACCEPT";
        let again = dockerd.host().output(&["sh", "-c", twice]);
        assert!(again.status.success(), "{again:?}");
        assert_eq!(rules(&dockerd), 2);
        weft.ok(&["reset"]);
        assert_eq!(rules(&dockerd), 0);
        leaves_docker_alone(&dockerd, &weft);
    });
}

fn leaves_docker_alone(dockerd: &Dockerd, weft: &Weft) {
    weft.ok(&["launch", "--docker-host", ""]);
    assert_eq!(has_sockets(dockerd), [false; 2]);
    weft.ok(&["stop"]);
    // Whatever the daemon had begun has ended with it.
    assert!(!dockerd.ok(&["network", "ls"]).contains("weft"));
    assert_eq!(rules(dockerd), 0);
}

#[test]
fn a_running_container_comes_and_goes() {
    in_docker_lab(|lab| {
        let (dockerd, weft) = lab.docker_and_weft(&[], &[]);
        let id = run(&dockerd, "c1", &[]);
        assert_eq!(line_of(&weft, &id), "");

        dockerd.ok(&["network", "connect", "weft", "c1"]);
        let own = address(&dockerd, "c1", "ethwe0");
        assert!(own.ends_with("/12"), "{own}");
        let found = || weft.run(&["dns-lookup", "c1"]).stdout;
        within("the name and the container in the list", BACK_LIMIT, || {
            found().trim() == bare(&own) && line_of(&weft, &id).contains(&own)
        });

        // On the network twice.
        weft.ok(&["attach", "c1"]);
        let inside = dockerd.container("c1");
        let tables = || {
            let listed = inside.output(&["nft", "list", "tables", "ip"]);
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            listed.matches("table ip weft").count()
        };
        assert_eq!(tables(), 2, "multicast of others is kept from both");
        weft.ok(&["detach", "c1"]);
        assert_eq!(tables(), 1);

        dockerd.ok(&["network", "disconnect", "weft", "c1"]);
        assert_eq!(tables(), 0, "rules go with their interface");
        within("the end of the name", NAME_LIMIT, || found().is_empty());
        let fixed = ["run", "--rm", "--net=weft", "--ip", bare(&own)];
        let free = dockerd.docker(&[&fixed[..], &[IMAGE, "true"]].concat());
        assert_eq!(free.code, 0, "free again at once: {free:?}");
    });
}

#[test]
fn what_docker_could_not_start_without_weft_is_started_when_weft_is_back() {
    in_docker_lab(|lab| {
        let (mut dockerd, weft) = lab.docker_and_weft(&[], &[]);
        run(&dockerd, "c1", &["--net=weft", "--restart=always"]);
        run(&dockerd, "c2", &["--net=weft"]);
        // Docker waits 15 s for the network, and for each container of it that it starts or finds dead.
        dockerd.stop(Signal::SIGTERM);
        weft.crash();
        dockerd.begin();
        dockerd.wait_until_it_serves();
        let names = || dockerd.ok(&["ps", "--format", "{{.Names}}"]);
        assert_eq!(names(), "", "it waited for weft in vain");
        weft.ok(&["launch"]);
        within("the container that is always to be up", BACK_LIMIT, || {
            names() == "c1" && address(&dockerd, "c1", "ethwe0").ends_with("/12")
        });
    });
}

#[test]
fn containers_are_whole_again_after_any_crash() {
    in_docker_lab(|lab| {
        let (mut dockerd, weft) = lab.docker_and_weft(&["--live-restore"], &[]);
        let id = run(&dockerd, "c1", &["--net=weft", "-h", "c1.weave.local"]);
        run(&dockerd, "c2", &["--net=weft"]);
        let own = ["c1", "c2"].map(|name| address(&dockerd, name, "ethwe0"));

        for what in ["weft", "docker", "docker, then weft", "weft, then docker"] {
            for part in what.split(", then ") {
                if part == "weft" {
                    weft.crash();
                } else {
                    dockerd.stop(Signal::SIGKILL);
                }
            }
            for part in what.split(", then ") {
                if part == "weft" {
                    weft.ok(&["launch"]);
                } else {
                    dockerd.begin();
                    dockerd.wait_until_it_serves();
                }
            }
            within(
                &format!("all is as before {what} crashed"),
                BACK_LIMIT,
                || {
                    line_of(&weft, &id).contains(&own[0])
                        && weft.run(&["dns-lookup", "c1"]).stdout.trim() == bare(&own[0])
                        && pings(&dockerd, "c1", bare(&own[1]))
                        && address(&dockerd, "c1", "ethwe0") == own[0]
                },
            );
            // What was given before is not given again, and what is new is.
            run(&dockerd, "new", &["--net=weft"]);
            let new = address(&dockerd, "new", "ethwe0");
            assert!(!new.is_empty() && !own.contains(&new), "{what}: {new:?}");
            dockerd.ok(&["rm", "-f", "new"]);
        }
    });
}

#[test]
fn a_docker_that_is_told_once_whom_to_ask_for_names_needs_no_flags() {
    in_docker_lab(|lab| {
        let flags = ["--dns", "169.254.53.1", "--dns-search", "weave.local"];
        let (dockerd, _weft) = lab.docker_and_weft(&flags, &[]);
        run(&dockerd, "c1", &["--net=weft"]);
        run(&dockerd, "c2", &["--net=weft"]);
        within("c2 finds c1 by its name", BACK_LIMIT, || {
            pings(&dockerd, "c2", "c1") && pings(&dockerd, "c2", "c1.weave.local")
        });
    });
}
