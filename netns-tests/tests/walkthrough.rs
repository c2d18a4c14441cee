//! The walkthrough as a user enters it, with real Docker daemons; `transcripts/walkthrough.md` is its transcript.
//!
//! ```text
//!  outside ─┬─ 192.0.2.0/24 ─┬─ host1: dockerd, weft ─ 198.51.100.0/24 ─ host3, or host4, which have no weft
//!           │                ├─ host2: dockerd, weft
//!           │                └─ host3: dockerd, weft (on the first day)
//! ```

use std::process::{Child, Stdio};
use std::time::Duration;

use weft_netns_tests::{Host, IMAGE, Lab, Terminal, Transcript, eventually, in_docker_lab};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// What a container on host2 gets of the imported service.
const GET: &str = "docker exec a2 wget -qO- http://host1:3322/";
const HOSTS: [(&str, &str); 4] = [
    ("HOST1", "192.0.2.1"),
    ("HOST2", "192.0.2.2"),
    ("HOST3", "198.51.100.3"),
    ("HOST4", "198.51.100.4"),
];

fn begin(title: &str) -> Transcript {
    Transcript::begin("walkthrough", title)
}

/// Waits until a command says what is looked for; the network may still be about to agree.
fn until(terminal: &mut Terminal, line: &str, is_so: impl Fn(i32, &str) -> bool) -> String {
    let what = format!("{} {line}", terminal.prompt());
    let come = || {
        let (code, said) = terminal.enter(line);
        is_so(code, &said).then_some(said)
    };
    eventually(&what, CONNECT_LIMIT, come).0
}

fn until_it_succeeds(terminal: &mut Terminal, line: &str) {
    until(terminal, line, |code, _| code == 0);
}

/// The address after `inet`, with its prefix length.
fn inet(shown: &str) -> &str {
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "inet");
    words.next().unwrap_or_default()
}

#[test]
fn the_first_day() {
    in_docker_lab(|lab| {
        let switch = lab.switch("switch");
        let hosts = ["host1", "host2", "host3"].map(|name| lab.host(name));
        for (host, last) in hosts.iter().zip(1..) {
            lab.plug(&switch, host, "eth0", &format!("192.0.2.{last}/24"));
        }
        let dockers = lab.dockerds(hosts.each_ref(), &[]);
        for docker in &dockers {
            docker.ok(&["tag", IMAGE, "app"]);
        }
        let open = || {
            dockers
                .each_ref()
                .map(|docker| lab.terminal(docker.host(), &HOSTS))
        };
        let (mut terminals, mut second) = (open(), open());
        start_and_join(&mut terminals);
        see_what_is_attached(&mut terminals, &mut second);
        choose_addresses(&mut second);
    });
}

fn start_and_join([host1, host2, host3]: &mut [Terminal; 3]) {
    let mut day = begin("Start, and join containers");
    day.note("On the first host:");
    day.enter(host1, "weft launch");
    day.enter(host1, "eval $(weft env)");
    day.go_into(host1, "a2", "docker run --name a2 -ti app");
    let eth0 = day.enter(host1, "ip link show dev eth0");
    assert!(eth0.contains("mtu 1500"), "{eth0}");
    let ethwe = day.enter(host1, "ip addr show dev ethwe");
    assert!(ethwe.contains("mtu 1376"), "{ethwe}");
    assert_eq!(inet(&ethwe), "10.32.0.1/12");

    day.note("On the second, which is told of the first:");
    day.enter(host2, "weft launch $HOST1");
    day.enter(host2, "eval $(weft env)");
    day.go_into(host2, "a3", "docker run --name a3 -ti app");
    let ethwe = day.enter(host2, "ip addr show dev ethwe");
    assert!(ethwe.contains("mtu 1376"), "{ethwe}");
    assert_eq!(inet(&ethwe), "10.44.0.0/12");

    day.note("They reach each other by name:");
    until_it_succeeds(host2, "ping -c 1 -W 1 a2");
    let said = day.enter(host2, "ping -c 1 a2");
    assert!(said.contains("PING a2 (10.32.0.1)"), "{said}");
    until_it_succeeds(host1, "ping -c 1 -W 1 a3");
    let said = day.enter(host1, "ping -c 1 a3");
    assert!(said.contains("PING a3 (10.44.0.0)"), "{said}");

    day.note("A third host may be told of several:");
    day.enter(host3, "weft launch $HOST1 $HOST2");
    day.enter(host3, "eval $(weft env)");
    day.enter(host3, "docker run --name a4 -dti app");
    for name in ["a2", "a3"] {
        until_it_succeeds(host3, &format!("docker exec a4 ping -c 1 -W 1 {name}"));
        day.enter(host3, &format!("docker exec a4 ping -c 1 {name}"));
    }
    day.end();
}

fn see_what_is_attached(first: &mut [Terminal; 3], second: &mut [Terminal; 3]) {
    let [_, inside, _] = first;
    let [_, host2, _] = second;
    host2.quietly("eval $(weft env)");
    let mut day = begin("See what is attached");
    let listed = day.enter(host2, "weft ps");
    let id = host2.quietly("docker ps -q --filter name=a3");
    let mac = host2.quietly("docker exec a3 cat /sys/class/net/ethwe/address");
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    let first: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!((first[0], first.len()), ("weave:expose", 2), "{listed}");
    assert_eq!(lines[1], format!("{id} {mac} 10.44.0.0/12"));

    day.note(
        "A container that exits is gone, and its name with it. Its address waits 30 s for it to be started again; a \
         container that is removed gives it back at once:",
    );
    day.leave(inside);
    until(host2, "weft ps", |_, said| said.lines().count() == 1);
    day.enter(host2, "weft ps");
    day.enter(host2, "docker rm a3");
    let next = "docker run --rm app hostname -i";
    until(host2, next, |_, said| said.starts_with("10.44.0.0"));
    day.enter(host2, next);
    day.end();
}

fn choose_addresses([host1, host2, _]: &mut [Terminal; 3]) {
    host1.quietly("eval $(weft env)");
    let mut day = begin("Choose addresses");
    let run = |last: u8, name: &str| {
        format!("docker run -e WEAVE_CIDR=10.2.1.{last}/24 --name {name} -dti app")
    };
    day.enter(host1, &run(1, "c1"));
    day.enter(host2, &run(2, "c2"));
    until_it_succeeds(host1, "docker exec c1 ping -c 1 -W 1 10.2.1.2");
    day.enter(host1, "docker exec c1 ping -c 1 10.2.1.2");
    day.enter(host2, "docker exec c2 ping -c 1 10.2.1.1");
    day.end();
}

#[test]
fn the_range_is_chosen() {
    in_docker_lab(|lab| {
        let host = lab.host("host1");
        lab.plug(&lab.switch("switch"), &host, "eth0", "192.0.2.1/24");
        let docker = lab.dockerd(&host, &[]);
        docker.ok(&["tag", IMAGE, "app"]);
        let mut host1 = lab.terminal(docker.host(), &HOSTS);
        let mut day = begin("Choose the range");
        day.note(
            "Where the host has a route that overlaps the range, weft says so and does not start:",
        );
        day.enter(&mut host1, "ip route add 10.0.0.0/8 via $HOST2");
        let said = day.refused(&mut host1, "weft launch");
        for word in ["10.32.0.0/12", "10.0.0.0/8", "--ipalloc-range"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let (code, said) = host1.enter("weft status");
        assert_ne!(code, 0, "nothing runs: {said}");
        day.note("Another range, the same one on all hosts:");
        day.enter(&mut host1, "weft launch --ipalloc-range 172.30.0.0/16");
        day.enter(&mut host1, "eval $(weft env)");
        let said = day.enter(&mut host1, "docker run --rm app hostname -i");
        assert!(said.starts_with("172.30.0.1"), "{said}");
        day.end();
    });
}

/// What the second day has: the shells, and what serves outside.
struct Day {
    host1: Terminal,
    host2: Terminal,
    outside: Terminal,
    beside: [Terminal; 2],
}

#[test]
fn the_second_day() {
    in_docker_lab(|lab| {
        let (mut day, _servers) = second_day(lab);
        isolate(&mut day);
        attach_and_detach(&mut day);
        join_the_host(&mut day);
        export(&mut day);
        import_and_bind(&mut day);
        route(&mut day);
        move_on(&mut day);
    });
}

fn second_day(lab: &Lab) -> (Day, Vec<Child>) {
    let (switch, inner) = (lab.switch("switch"), lab.switch("inner"));
    let hosts = ["host1", "host2"].map(|name| lab.host(name));
    let others = ["host3", "host4", "outside"].map(|name| lab.host(name));
    let [host3, host4, outside] = &others;
    lab.plug(&switch, &hosts[0], "eth0", "192.0.2.1/24");
    lab.plug(&switch, &hosts[1], "eth0", "192.0.2.2/24");
    lab.plug(&switch, outside, "eth0", "192.0.2.9/24");
    lab.plug(&inner, &hosts[0], "eth1", "198.51.100.1/24");
    lab.plug(&inner, host3, "eth0", "198.51.100.3/24");
    lab.plug(&inner, host4, "eth0", "198.51.100.4/24");
    let dockers = lab.dockerds(hosts.each_ref(), &[]);
    for docker in &dockers {
        docker.ok(&["tag", IMAGE, "app"]);
    }
    let servers = [(host3, 2211), (host3, 2212), (host4, 2211)];
    let servers = servers.map(|(host, port)| serve(lab, host, port)).into();
    let on = |host: &Host| lab.terminal(host, &HOSTS);
    let day = Day {
        host1: on(dockers[0].host()),
        host2: on(dockers[1].host()),
        outside: on(outside),
        beside: [on(host3), on(host4)],
    };
    // They serve until the lab ends.
    std::mem::forget(dockers);
    (day, servers)
}

/// A program that says over HTTP where it runs.
fn serve(lab: &Lab, host: &Host, port: u16) -> Child {
    let folder = lab.folder().join(format!("www-{}-{port}", host.name()));
    std::fs::create_dir(&folder).expect("the lab's folder is writable");
    let text = format!("{} at port {port}\n", host.name());
    std::fs::write(folder.join("index.html"), text).expect("the lab's folder is writable");
    let mut server = host.command("busybox");
    let port = port.to_string();
    server.args(["httpd", "-f", "-p", &port, "-h"]).arg(folder);
    let server = server.stdout(Stdio::null()).spawn();
    server.expect("busybox is installed")
}

fn isolate(Day { host1, host2, .. }: &mut Day) {
    let mut day = begin("Isolate applications");
    let launch = "weft launch --ipalloc-range 10.2.0.0/16 --ipalloc-default-subnet 10.2.1.0/24";
    let (plain, other) = (
        "docker run -dti --name",
        "docker run -e WEAVE_CIDR=net:10.2.2.0/24 -dti --name",
    );
    for (host, launch, [a, b]) in [
        (&mut *host1, launch.to_owned(), ["a1", "b1"]),
        (&mut *host2, format!("{launch} $HOST1"), ["a2", "b2"]),
    ] {
        day.enter(host, &launch);
        day.enter(host, "eval $(weft env)");
        day.enter(host, &format!("{plain} {a} app"));
        day.enter(host, &format!("{other} {b} app"));
    }
    day.note("Those of one subnet reach each other by name:");
    for (from, to) in [("a1", "a2"), ("b1", "b2")] {
        until_it_succeeds(host1, &format!("docker exec {from} ping -c 1 -W 1 {to}"));
        day.enter(host1, &format!("docker exec {from} ping -c 1 {to}"));
    }
    for (from, to) in [("a2", "a1"), ("b2", "b1")] {
        until_it_succeeds(host2, &format!("docker exec {from} ping -c 1 -W 1 {to}"));
        day.enter(host2, &format!("docker exec {from} ping -c 1 {to}"));
    }
    day.note("Those of two subnets find each other's names, and no way:");
    for (from, to, address) in [
        ("b1", "a1", "10.2.1."),
        ("b1", "a2", "10.2.1."),
        ("a1", "b1", "10.2.2."),
    ] {
        let said = day.refused(host1, &format!("docker exec {from} ping -c 1 -W 1 {to}"));
        assert!(said.contains(&format!("PING {to} ({address}")), "{said}");
    }
    let said = day.refused(host2, "docker exec b2 ping -c 1 -W 1 a1");
    assert!(said.contains("PING a1 (10.2.1."), "{said}");
    day.note("A container may be in both:");
    let both = "docker run -e WEAVE_CIDR=\"net:default net:10.2.2.0/24\" -dti --name both app";
    day.enter(host1, both);
    for to in ["a1", "a2", "b1", "b2"] {
        until_it_succeeds(host1, &format!("docker exec both ping -c 1 -W 1 {to}"));
        day.enter(host1, &format!("docker exec both ping -c 1 {to}"));
    }
    day.end();
}

fn attach_and_detach(Day { host1, .. }: &mut Day) {
    let mut day = begin("Attach and detach while running");
    day.enter(host1, "C=$(docker run -e WEAVE_CIDR=none -dti app)");
    let several = "net:default net:10.2.2.0/24 net:10.2.3.0/24";
    for (subnets, starts) in [
        ("", &["10.2.1."][..]),
        ("net:10.2.2.0/24 ", &["10.2.2."]),
        (
            &format!("{several} ") as &str,
            &["10.2.1.", "10.2.2.", "10.2.3."],
        ),
    ] {
        let given = day.enter(host1, &format!("weft attach {subnets}$C"));
        let addresses: Vec<&str> = given.split(' ').collect();
        assert_eq!(addresses.len(), starts.len(), "{given}");
        for (address, start) in addresses.iter().zip(starts) {
            assert!(address.starts_with(start), "{given}");
            host1.quietly(&format!(
                "docker exec $C ip addr show dev ethwe | grep {address}"
            ));
        }
        let taken = day.enter(host1, &format!("weft detach {subnets}$C"));
        assert_eq!(taken, given);
    }
    day.note("What attach gave is gone when the container is started again:");
    day.enter(host1, "weft attach $C");
    day.enter(host1, "docker restart -t 0 $C");
    day.refused(host1, "docker exec $C ip addr show dev ethwe");
    let line = "weft ps $C";
    let said = until(host1, line, |_, said| !said.contains("10.2."));
    assert!(!said.contains("10.2."), "{said}");
    day.end();
}

fn join_the_host(
    Day {
        host1,
        host2,
        outside,
        ..
    }: &mut Day,
) {
    let mut day = begin("Join the host");
    day.note("The host itself is put on the network, and reaches all containers of the subnet:");
    let own = day.enter(host2, "weft expose");
    assert!(own.starts_with("10.2.1."), "{own}");
    for name in ["a1", "a2"] {
        until_it_succeeds(host2, &format!("ping -c 1 -W 1 $(weft dns-lookup {name})"));
        day.enter(host2, &format!("ping -c 1 $(weft dns-lookup {name})"));
    }
    let b1 = host2.quietly("weft dns-lookup b1");
    let (code, said) = host2.enter(&format!("ping -c 1 -W 1 {b1}"));
    assert_ne!(code, 0, "of another subnet: {said}");
    // Who is on Docker's own bridge only gets no further by way of the host.
    let (code, said) = host2.enter("docker exec b2 ping -c 1 -W 1 a2");
    assert_ne!(code, 0, "from another subnet: {said}");

    day.note("In several subnets, and out of them:");
    let both = "net:default net:10.2.2.0/24";
    let two = day.enter(host2, &format!("weft expose {both}"));
    assert!(two.starts_with(&format!("{own} 10.2.2.")), "{two}");
    until_it_succeeds(host2, &format!("ping -c 1 -W 1 {b1}"));
    assert_eq!(day.enter(host2, &format!("weft hide {both}")), two);

    day.note("With a name:");
    day.enter(host2, "weft expose -h exposed.weave.local");
    until_it_succeeds(host1, "docker exec a1 ping -c 1 -W 1 exposed.weave.local");
    day.enter(host1, "docker exec a1 ping -c 1 exposed.weave.local");

    day.note("A machine without weft has a route over this host:");
    let a1 = host1.quietly("weft dns-lookup a1");
    outside.quietly(&format!("A1={a1}"));
    day.enter(outside, "ip route add 10.2.1.0/24 via $HOST2");
    until_it_succeeds(outside, "ping -c 1 -W 1 $A1");
    day.enter(outside, "ping -c 1 $A1");
    outside.quietly("ip route del 10.2.1.0/24");
    day.end();
}

fn dnat(rule: &str) -> String {
    format!("iptables -t nat -A PREROUTING -p tcp {rule}")
}

fn export(
    Day {
        host1,
        host2,
        outside,
        ..
    }: &mut Day,
) {
    let mut day = begin("Export a service");
    day.note("A container on host1 serves, and host2 has its port:");
    let serve = "docker exec a1 sh -c 'echo a1 > /tmp/index.html; httpd -p 4422 -h /tmp'";
    day.enter(host1, serve);
    let address = day.enter(host2, "weft expose");
    assert!(address.starts_with("10.2.1."), "{address}");
    let to = "-i eth0 --dport 2211 -j DNAT --to-destination $(weft dns-lookup a1):4422";
    day.enter(host2, &dnat(to));
    let said = day.enter(outside, "curl -s -m 5 http://$HOST2:2211/");
    assert_eq!(said, "a1");
    day.end();
}

fn import_and_bind(
    Day {
        host1,
        host2,
        outside,
        beside,
    }: &mut Day,
) {
    let mut day = begin("Import a service");
    day.note("host3 has no weft, and only host1 reaches it:");
    day.enter(&mut beside[0], "curl -s http://localhost:2211/");
    let (code, _) = outside.enter("curl -s -m 1 http://$HOST3:2211/");
    assert_ne!(code, 0, "only host1 reaches it");
    day.enter(host1, "weft expose -h host1.weave.local");
    let to = "-d $(weft dns-lookup host1) --dport 3322 -j DNAT --to-destination $HOST3:2211";
    day.enter(host1, &dnat(to));
    until_it_succeeds(host2, "docker exec a2 nslookup host1.weave.local");
    assert_eq!(day.enter(host2, GET), "host3 at port 2211");
    day.end();

    let mut day = begin("Bind it anew");
    day.note("Another target for the same rule:");
    point(&mut day, host1, "$HOST3:2211", "$HOST3:2212");
    assert_eq!(day.enter(host2, GET), "host3 at port 2212");
    day.end();
}

/// Replaces the rule for the imported service.
fn point(day: &mut Transcript, host1: &mut Terminal, from: &str, to: &str) {
    let rule = |target: &str| {
        dnat(&format!(
            "-d $(weft dns-lookup host1) --dport 3322 -j DNAT --to-destination {target}"
        ))
    };
    day.enter(host1, &rule(from).replace(" -A ", " -D "));
    day.enter(host1, &rule(to));
}

fn route(Day { host2, outside, .. }: &mut Day) {
    let mut day = begin("Route");
    day.note("A machine beside host2 uses the service on host3 through the network:");
    day.enter(host2, "weft expose");
    let to = "-i eth0 --dport 4433 -j DNAT --to-destination $(weft dns-lookup host1):3322";
    day.enter(host2, &dnat(to));
    let said = day.enter(outside, "curl -s -m 5 http://$HOST2:4433/");
    assert_eq!(said, "host3 at port 2212");
    day.end();
}

fn move_on(
    Day {
        host1,
        host2,
        outside,
        beside,
    }: &mut Day,
) {
    let mut day = begin("Move");
    day.note("The service goes to host4; only host1's rule changes:");
    day.enter(&mut beside[1], "curl -s http://localhost:2211/");
    point(&mut day, host1, "$HOST3:2212", "$HOST4:2211");
    assert_eq!(day.enter(host2, GET), "host4 at port 2211");
    let get = "curl -s -m 5 http://$HOST2:4433/";
    assert_eq!(day.enter(outside, get), "host4 at port 2211");
    day.end();
}
