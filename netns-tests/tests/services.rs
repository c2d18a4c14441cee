//! Services of the walkthrough: imported, bound anew, routed on and moved, with ordinary rules of the user's own.
//!
//! ```text
//!  client 203.0.113.2 ── eth1 a eth0 ══ eth0 b eth1 ── 198.51.100.2 outside: services
//!                        weft a, c1     weft b, d1 eth2 ── 198.18.0.2 elsewhere
//! ```

use std::process::Child;
use std::time::Duration;

use weft_netns_tests::{Host, Lab, Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const RANGE: [&str; 4] = [
    "--ipalloc-range",
    "10.2.0.0/16",
    "--ipalloc-default-subnet",
    "10.2.1.0/24",
];

/// Two hosts with weft, what lies beside each of them, and the host's own address in the network.
struct Place {
    wefts: [Weft; 2],
    client: Host,
    outside: Host,
    exposed: [String; 2],
}

fn place(lab: &Lab) -> Place {
    let hosts = [lab.host("a"), lab.host("b")];
    let (client, outside) = (lab.host("client"), lab.host("outside"));
    lab.link(
        (&hosts[0], "eth0", "192.0.2.1/24"),
        (&hosts[1], "eth0", "192.0.2.2/24"),
    );
    lab.link(
        (&hosts[0], "eth1", "203.0.113.1/24"),
        (&client, "eth0", "203.0.113.2/24"),
    );
    lab.link(
        (&hosts[1], "eth1", "198.51.100.1/24"),
        (&outside, "eth0", "198.51.100.2/24"),
    );
    hosts.iter().for_each(Host::be_a_router);
    let wefts = [lab.weft(&hosts[0]), lab.weft(&hosts[1])];
    let launch = |weft: &Weft, peers: &[&str]| {
        weft.ok(&[&["launch", "--password", "secret"], &RANGE[..], peers].concat());
    };
    launch(&wefts[0], &[]);
    wefts[0].ok(&["prime"]);
    launch(&wefts[1], &["192.0.2.1"]);
    let expose = |weft: &Weft, name: &str| weft.ok(&["expose", "-h", name]).trim().to_owned();
    let exposed = [expose(&wefts[0], "a-side"), expose(&wefts[1], "service")];
    Place {
        wefts,
        client,
        outside,
        exposed,
    }
}

/// Replaces the user's rule: what comes to `address` (all, if there is none) and `port` goes to `target`.
fn point(host: &Host, address: Option<&str>, port: u16, target: &str) {
    let to = address.map_or_else(String::new, |address| format!("ip daddr {address} "));
    let _absent_at_first = host.output(&["nft", "delete", "table", "ip", "user"]);
    host.run(&["nft", "add", "table", "ip", "user"]);
    let chain = "{ type nat hook prerouting priority dstnat; }";
    host.run(&["nft", "add", "chain", "ip", "user", "prerouting", chain]);
    let rule = format!("{to}tcp dport {port} dnat to {target}");
    host.run(&["nft", "add", "rule", "ip", "user", "prerouting", &rule]);
}

/// Serves one client.
fn serve(host: &Host, port: u16) -> Child {
    let port = port.to_string();
    let mut command = host.command("iperf3");
    let command = command.args(["-s", "-1", "-p", &port]);
    command.spawn().expect("iperf3 can be started")
}

/// Whether a service answers; and it was this one.
fn is_served(client: &Host, address: &str, port: u16, server: &mut Child) {
    let port = port.to_string();
    within("the service", CONNECT_LIMIT, || {
        let words = ["iperf3", "-c", address, "-p", &port, "-n", "64K"];
        client.output(&words).status.success()
    });
    assert!(server.wait().expect("it ends").success(), "another one did");
}

#[test]
fn a_service_is_imported_under_a_name_and_bound_anew_and_moved_behind_it() {
    in_lab(|lab| {
        let place = place(lab);
        let [a, b] = &place.wefts;
        let (container, service) = (lab.host("c1"), &place.exposed[1]);
        a.ok(&["attach", &container.as_container()]);
        within("the name", CONNECT_LIMIT, || {
            a.ok(&["dns-lookup", "service"]).trim() == service
        });

        point(b.host(), Some(service), 3322, "198.51.100.2:4433");
        let mut first = serve(&place.outside, 4433);
        is_served(&container, service, 3322, &mut first);

        point(b.host(), Some(service), 3322, "198.51.100.2:4434");
        let mut second = serve(&place.outside, 4434);
        is_served(&container, service, 3322, &mut second);

        // It moves to another machine, and its clients go on as before.
        let elsewhere = lab.host("elsewhere");
        lab.link(
            (b.host(), "eth2", "198.18.0.1/24"),
            (&elsewhere, "eth0", "198.18.0.2/24"),
        );
        point(b.host(), Some(service), 3322, "198.18.0.2:2211");
        let mut third = serve(&elsewhere, 2211);
        is_served(&container, service, 3322, &mut third);
    });
}

#[test]
fn an_imported_service_is_exported_by_another_host() {
    in_lab(|lab| {
        let place = place(lab);
        let [a, b] = &place.wefts;
        let service = &place.exposed[1];
        point(b.host(), Some(service), 3322, "198.51.100.2:4433");
        point(
            a.host(),
            Some("203.0.113.1"),
            4422,
            &format!("{service}:3322"),
        );
        let mut server = serve(&place.outside, 4433);
        is_served(&place.client, "203.0.113.1", 4422, &mut server);
    });
}

#[test]
fn a_service_moves_between_containers_and_its_clients_do_not_notice() {
    in_lab(|lab| {
        let place = place(lab);
        let [a, b] = &place.wefts;
        let (here, there) = (lab.host("c1"), lab.host("d1"));
        let attach = |weft: &Weft, container: &Host| {
            let printed = weft.ok(&["attach", &container.as_container()]);
            printed.trim().to_owned()
        };
        let (first, second) = (attach(a, &here), attach(b, &there));
        point(a.host(), Some("203.0.113.1"), 4422, &format!("{first}:80"));
        let mut server = serve(&here, 80);
        is_served(&place.client, "203.0.113.1", 4422, &mut server);

        a.ok(&["detach", &here.as_container()]);
        point(a.host(), Some("203.0.113.1"), 4422, &format!("{second}:80"));
        let mut server = serve(&there, 80);
        is_served(&place.client, "203.0.113.1", 4422, &mut server);
    });
}
