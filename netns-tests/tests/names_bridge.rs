//! DNS on Docker's own bridge, for containers that are on no network of weft's; and for nobody beyond it.
//!
//! ```text
//!  c1 ─ ethwe ─ bridge `weft` of a ┐
//!  d 172.17.0.2 ─── `docker0` of a ┴ 172.17.0.1 ─ DNS ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ b, 172.17.0.0/16 via a
//! ```

use std::time::Duration;

use weft_netns_tests::{Host, Lab, attached, in_lab, launch_with, within};

/// For what is there at once on an idle machine; a bridge is found at the next look.
const SOON: Duration = Duration::from_secs(10);
const BRIDGE: &str = "172.17.0.1";

/// A bridge as Docker makes it, with one container.
fn add_bridge(host: &Host, container: &Host) {
    let named = container.name();
    for words in [
        "ip link add docker0 type bridge",
        "ip address add 172.17.0.1/16 dev docker0",
        "ip link set docker0 up",
        &format!("ip link add name vethd type veth peer name eth0 netns {named}"),
        "ip link set vethd master docker0 up",
    ] {
        host.run(&words.split(' ').collect::<Vec<_>>());
    }
    container.add_address("eth0", "172.17.0.2/16");
    container.run(&["ip", "link", "set", "eth0", "up"]);
    container.route_all_via(BRIDGE);
}

fn remove_bridge(host: &Host) {
    for device in ["vethd", "docker0"] {
        host.run(&["ip", "link", "del", device]);
    }
}

/// What dig says of the server on the bridge, comments included.
fn dig(from: &Host, words: &[&str]) -> String {
    let server = format!("@{BRIDGE}");
    let output = from.output(&[&["dig", "+tries=1", "+time=2", &server], words].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn answers(from: &Host, words: &[&str]) -> Vec<String> {
    let said = dig(from, &[words, &["+short"]].concat());
    said.lines().map(str::to_owned).collect()
}

/// Over UDP and over TCP, forward and backward.
fn finds_c1(from: &Host) -> bool {
    ["+notcp", "+tcp"].iter().all(|transport| {
        answers(from, &[transport, "c1.weave.local"]) == ["10.2.1.1"]
            && answers(from, &[transport, "-x", "10.2.1.1"]) == ["c1.weave.local."]
    })
}

fn is_answered(from: &Host) -> bool {
    ["+notcp", "+tcp"]
        .iter()
        .any(|transport| dig(from, &[transport, "c1.weave.local"]).contains("status:"))
}

/// The host named `a`, its container on Docker's bridge, and the host beside it, which has a route there.
fn place(lab: &Lab) -> [Host; 3] {
    let [a, b] = lab.two_hosts();
    let docker = lab.host("d");
    b.run(&["ip", "route", "add", "172.17.0.0/16", "via", "192.0.2.1"]);
    a.be_a_router();
    [a, docker, b]
}

#[test]
fn containers_on_dockers_bridge_are_answered_and_nobody_outside() {
    in_lab(|lab| {
        let [a, docker, outside] = place(lab);
        add_bridge(&a, &docker);
        let weft = lab.weft(&a);
        launch_with(&weft, &[]);
        attached(lab, &weft, "c1", &["10.2.1.1/24"]);

        assert!(finds_c1(&docker), "{}", dig(&docker, &["c1.weave.local"]));
        let unknown = dig(&docker, &["nobody.weave.local"]);
        assert!(unknown.contains("status: NXDOMAIN"), "{unknown}");
        assert!(finds_c1(&a), "the host itself may ask, too");
        let status = weft.ok(&["status"]);
        let both = ["169.254.53.1:53", "172.17.0.1:53"];
        let shown = status.lines().find(|line| line.contains(both[1]));
        assert!(
            shown.is_some_and(|line| line.contains("Address: ") && line.contains(both[0])),
            "{status}"
        );
        let said = weft.ok(&["dns-args"]);
        assert_eq!(said, "--dns=172.17.0.1 --dns-search=weave.local.\n");

        // What comes in elsewhere gets to the address, but not to the server.
        let bridge = BRIDGE.parse().expect("an address");
        assert!(outside.reaches(bridge), "there is a way");
        assert!(!is_answered(&outside), "from outside");
    });
}

#[test]
fn dockers_bridge_may_come_later_and_be_made_anew() {
    in_lab(|lab| {
        let [a, docker, outside] = place(lab);
        let weft = lab.weft(&a);
        launch_with(&weft, &[]);
        attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        assert!(!weft.ok(&["status"]).contains("172.17."));

        let listed = || weft.ok(&["status"]).contains("172.17.0.1:53");
        for _twice in 0..2 {
            add_bridge(&a, &docker);
            within("answers on the bridge", SOON, || finds_c1(&docker));
            assert!(listed());
            assert!(!is_answered(&outside), "from outside");
            remove_bridge(&a);
            within("the bridge to be gone", SOON, || !listed());
        }
        launch_elsewhere(lab, &docker);
    });
}

/// A bridge of another name, as a flag says.
fn launch_elsewhere(lab: &Lab, docker: &Host) {
    let other = lab.host("other");
    add_bridge(&other, docker);
    let weft = lab.weft(&other);
    launch_with(&weft, &["--docker-bridge", "br-docker"]);
    attached(lab, &weft, "x1", &["10.2.1.9/24"]);
    assert!(!dig(docker, &["x1.weave.local"]).contains("status:"));
    for words in ["down", "name br-docker", "up"] {
        let device = if words == "up" {
            "br-docker"
        } else {
            "docker0"
        };
        let line = format!("ip link set {device} {words}");
        other.run(&line.split(' ').collect::<Vec<_>>());
    }
    within("answers on the bridge of this name", SOON, || {
        answers(docker, &["x1.weave.local"]) == ["10.2.1.9"]
    });
}
