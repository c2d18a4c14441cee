//! Hosts behind translators meet with the help of a public one.
//!
//! ```text
//!  c1 ─ h1 192.168.1.1 ─ nat1 ─┐
//!                              ├─ internet 198.51.100.0/24 ─ h0 198.51.100.3 ─ c0
//!  c2 ─ h2 192.168.2.1 ─ nat2 ─┘
//! ```

use std::net::UdpSocket;
use std::time::Duration;

use weft_netns_tests::{Host, Lab, Ping, SlowHub, Weft, alone_in_lab, in_lab, pause, within};

const PUBLIC: &str = "198.51.100.3";
/// Through the public host.
const RELAYED_LIMIT: Duration = Duration::from_secs(2);
/// Past it.
const DIRECT_LIMIT: Duration = Duration::from_secs(5);
/// As [`DIRECT_LIMIT`] where the translators must first forget what they saw: a few quick tries, and a long pause.
const FORGOTTEN_LIMIT: Duration = Duration::from_secs(90);
/// Of the wire between the translators; what two hosts do at the same moment differs by a few milliseconds.
const DELAY: Duration = Duration::from_millis(15);
const PING_INTERVAL: Duration = Duration::from_millis(20);

struct Internet {
    /// `h0` is public, `h1` and `h2` are not.
    switch: Host,
    weft: [Weft; 3],
    containers: [Host; 3],
    nats: [Host; 2],
}

impl Internet {
    fn new(lab: &Lab, translate: impl Fn(&Host, usize)) -> Self {
        let internet = lab.switch("internet");
        let hosts = [lab.host("h0"), lab.host("h1"), lab.host("h2")];
        lab.plug(&internet, &hosts[0], "eth0", "198.51.100.3/24");
        let nats = [lab.host("nat1"), lab.host("nat2")];
        for (index, nat) in (1..).zip(&nats) {
            lab.plug(
                &internet,
                nat,
                "out",
                &format!("198.51.100.{}/24", index * 10),
            );
            lab.link(
                (&hosts[index], "eth0", &format!("192.168.{index}.1/24")),
                (nat, "in", &format!("192.168.{index}.254/24")),
            );
            hosts[index].route_all_via(&format!("192.168.{index}.254"));
            nat.be_a_router();
            translate(nat, index);
        }
        let this = Self {
            switch: internet,
            weft: [0, 1, 2].map(|index: usize| lab.weft(&hosts[index])),
            containers: [lab.host("c0"), lab.host("c1"), lab.host("c2")],
            nats,
        };
        this.launch(0);
        this
    }

    fn launch(&self, index: usize) {
        let name = format!("h{index}");
        let mut words = vec!["launch", "--password", "secret", "--nickname", &name];
        if index > 0 {
            words.push(PUBLIC);
        }
        self.weft[index].ok(&words);
        let address = format!("10.2.1.{index}/24");
        let address = if index == 0 { "10.2.1.9/24" } else { &address };
        self.weft[index].ok(&["attach", address, &self.containers[index].as_container()]);
    }

    fn way(&self) -> String {
        let report = self.weft[1].report();
        let routes = report["routes"].as_array().cloned().unwrap_or_default();
        let route = routes.iter().find(|route| route["nickname"] == "h2");
        let kind = route.and_then(|route| route["kind"].as_str());
        kind.unwrap_or_default().to_owned()
    }

    fn wait_until_reachable(&self, limit: Duration) {
        within("a ping from c1 to c2", limit, || {
            let answer = Duration::from_millis(100);
            self.containers[1].reaches_within(second(), answer)
        });
    }
}

fn second() -> std::net::IpAddr {
    std::net::Ipv4Addr::new(10, 2, 1, 2).into()
}

#[test]
fn hosts_behind_two_translators_are_relayed_at_once_and_direct_soon() {
    alone_in_lab(|lab| {
        let internet = Internet::new(lab, |nat, _| nat.masquerade("out"));
        internet.launch(1);
        internet.launch(2);

        internet.wait_until_reachable(RELAYED_LIMIT);

        within("a direct path", DIRECT_LIMIT, || internet.way() == "direct");
        internet.wait_until_reachable(RELAYED_LIMIT);
    });
}

/// A port unreachable, but remembered: the router itself took the datagram.
fn send_from_router(nat: &Host, to: &str) {
    nat.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:6783").expect("the router runs no weft");
        socket
            .send_to(b"who is there?", to)
            .expect("a route leads there");
    });
}

/// The routers let strangers in, and keep the port for them: whoever of the two hosts speaks first has the other's router
/// choose another port for the answer, which nobody knows of. They must begin at the same moment; and here each router
/// knows the other as a stranger already, which both hosts must leave alone until that is forgotten.
#[test]
fn hosts_behind_routers_that_remember_strangers_meet_when_those_are_forgotten() {
    in_lab(|lab| {
        let internet = Internet::new(lab, |nat, _| {
            nat.masquerade_openly("out");
            nat.send_as_on_a_wire("out");
        });
        internet.weft[0].host().send_as_on_a_wire("eth0");
        let _wire = SlowHub::replace(&internet.switch, &["h0", "nat1", "nat2"], DELAY);
        send_from_router(&internet.nats[0], "198.51.100.20:6783");
        send_from_router(&internet.nats[1], "198.51.100.10:6783");
        internet.launch(1);
        internet.launch(2);
        internet.wait_until_reachable(RELAYED_LIMIT * 5);
        let ping = Ping::start(&internet.containers[1], second(), 5 * PING_INTERVAL);

        within("a direct path", FORGOTTEN_LIMIT, || {
            internet.way() == "direct"
        });
        pause(DIRECT_LIMIT);

        assert_eq!(internet.way(), "direct");
        let report = ping.finish();
        assert!(report.longest_silence <= RELAYED_LIMIT, "{report:?}");
    });
}

#[test]
fn hosts_behind_symmetric_translators_stay_relayed_and_say_so() {
    in_lab(|lab| {
        let internet = Internet::new(lab, |nat, _| nat.masquerade_randomly("out"));
        internet.launch(1);
        internet.launch(2);
        internet.wait_until_reachable(RELAYED_LIMIT * 5);

        pause(DIRECT_LIMIT * 2);

        assert!(internet.way().contains("h0"), "{}", internet.way());
        let path = internet.weft[1].ok(&["path", "h2"]);
        assert!(path.contains("h0"), "{path}");
        assert!(internet.containers[1].reaches(second()));
    });
}

/// A translator without memory, so that its port can change under a living flow.
fn translate(nat: &Host, index: usize, port: u16) {
    let (inside, outside) = (
        format!("192.168.{index}.1"),
        format!("198.51.100.{}", index * 10),
    );
    let rules = format!(
        "iifname in udp sport 6783 udp sport set {port}; iifname in ip saddr {inside} ip saddr set {outside}; \
         iifname out ip daddr {outside} udp dport {port} udp dport set 6783; \
         iifname out ip daddr {outside} meta l4proto {{ tcp, udp }} ip daddr set {inside};"
    );
    // What comes from inside seems to come from the translator itself.
    nat.run(&["sysctl", "-qw", "net.ipv4.conf.in.accept_local=1"]);
    nat.add_rules("translation", &rules);
}

#[test]
fn traffic_goes_on_while_a_translator_changes_its_port_every_five_seconds() {
    alone_in_lab(|lab| {
        let internet = Internet::new(lab, |nat, index| match index {
            1 => translate(nat, 1, 20_000),
            _ => nat.masquerade("out"),
        });
        internet.launch(1);
        internet.launch(2);
        internet.wait_until_reachable(RELAYED_LIMIT * 5);
        let ping = Ping::start(&internet.containers[1], second(), PING_INTERVAL);

        for port in 20_001..20_004 {
            pause(Duration::from_secs(5));
            internet.nats[0].remove_rules("translation");
            translate(&internet.nats[0], 1, port);
        }
        pause(Duration::from_secs(5));

        // What the other translator does not know it does not let in: until the relay has carried the news.
        let report = ping.finish();
        assert!(
            report.longest_silence <= Duration::from_secs(4),
            "{report:?}"
        );
        assert!(report.received * 10 >= report.sent * 8, "{report:?}");
    });
}
