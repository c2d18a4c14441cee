//! The daemon's own port: peers reach it, containers do not, by whatever address of the host they try.
//!
//! ```text
//!  c1 ── weft ┐
//!  c2 ─ docker0 ┴ a ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ b
//! ```

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use weft_netns_tests::{Host, in_lab, within};

const PORT: u16 = 6783;
/// An answer comes in microseconds here; a dropped one never.
const SILENCE: Duration = Duration::from_millis(700);
const MEND_LIMIT: Duration = Duration::from_secs(10);

/// Whether somebody answers there; a refusal would be an answer, too.
fn is_answered(from: &Host, address: [u8; 4]) -> bool {
    let to = SocketAddr::from((address, PORT));
    match from.inside(|| TcpStream::connect_timeout(&to, SILENCE)) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{to}: {error}");
            false
        }
    }
}

#[test]
fn containers_do_not_reach_the_port_and_peers_do() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
        let [c1, c2] = ["c1", "c2"].map(|name| lab.host(name));
        let host = a.host();
        host.run(&["ip", "link", "add", "docker0", "type", "bridge"]);
        host.add_address("docker0", "172.17.0.1/16");
        host.run(&["ip", "link", "set", "docker0", "up"]);
        let end = ["ip", "link", "add", "c2", "type", "veth", "peer", "name"];
        host.run(&[&end[..], &["eth0", "netns", c2.name()]].concat());
        host.run(&["ip", "link", "set", "c2", "master", "docker0", "up"]);
        c2.add_address("eth0", "172.17.0.2/16");
        c2.run(&["ip", "link", "set", "eth0", "up"]);
        c2.route_all_via("172.17.0.1");

        a.ok(&["launch", "--password", "secret"]);
        a.attach(&c1, &["10.2.1.1/24"]);
        a.ok(&["expose", "10.2.1.9/24"]);
        c1.route_all_via("10.2.1.9");
        within("the bridges", MEND_LIMIT, || {
            c1.reaches([10, 2, 1, 9].into()) && c2.reaches([172, 17, 0, 1].into())
        });
        let tries = [
            (&c1, [10, 2, 1, 9]),
            (&c1, [169, 254, 53, 1]),
            (&c1, [192, 0, 2, 1]),
            (&c2, [172, 17, 0, 1]),
            (&c2, [192, 0, 2, 1]),
        ];
        let none_answered = || tries.iter().all(|(from, to)| !is_answered(from, *to));
        assert!(none_answered());
        assert!(is_answered(b.host(), [192, 0, 2, 1]), "the peer's host");
        b.ok(&["launch", "--password", "secret", "192.0.2.1"]);
        b.wait_for_path(MEND_LIMIT);
        let rules = host.run(&["nft", "list", "table", "inet", "weft_port"]);
        assert!(rules.contains("{ tcp, udp } th dport 6783 drop"), "{rules}");

        host.run(&["nft", "flush", "ruleset"]);
        let again = ["nft", "list", "table", "inet", "weft_port"];
        within("the rules", MEND_LIMIT, || {
            host.output(&again).status.success()
        });
        assert!(none_answered());

        a.ok(&["stop"]);
        assert!(!host.output(&again).status.success(), "it goes with us");
        a.ok(&["launch", "--password", "secret"]);
        a.crash();
        a.ok(&["reset", "--force"]);
        assert!(!host.run(&["nft", "list", "ruleset"]).contains("weft"));
    });
}
