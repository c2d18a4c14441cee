//! Containers on one host, in real namespaces: veths, bridge and TAP as the kernel shows them.
//!
//! ```text
//!   a ── ethwe ─┐
//!   b ── ethwe ─┤ bridge `weft` ── weft-tap0        (all inside a namespace that plays the host)
//!   c ── ethwe ─┘
//! ```
//!
//! Needs root and `/dev/net/tun`.
#![expect(
    clippy::unwrap_used,
    reason = "a laboratory that cannot be set up fails its test"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use serde_json::Value;
use weft_control::driver::attach::{
    AttachError, AttachOptions, Attached, Detached, Host, follow_mtu, mac_text,
};
use weft_control::driver::bridge::{self, BridgeConfig, BridgeError, Keeper, TAP, bridge_mac};
use weft_control::driver::container::{Container, ContainerRef};
use weft_control::driver::docker::Docker;
use weft_control::driver::netlink::GsoLimits;
use weft_control::driver::netns::NetNs;

const PEER: [u8; 6] = [0xda, 0xfa, 0xeb, 0xdc, 0x28, 0x27];
const MTU: u32 = 1376;
const OPTIONS: AttachOptions = AttachOptions {
    mtu: MTU,
    multicast_route: true,
    hairpin: true,
    gso: GsoLimits {
        max_size: Some(60_000),
        max_segs: Some(40),
    },
    dns: None,
};
/// Looks at a condition that takes the kernel a moment; each look runs a command, so this is seconds.
const LOOKS_MAX: u32 = 1000;

/// A host and its containers; everything goes when it is dropped.
struct Lab {
    prefix: String,
}

impl Lab {
    /// None where it cannot be: said aloud, and a failure where the machine is supposed to be able.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "needs root and /dev/net/tun"
            );
            skipped("needs root and /dev/net/tun");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            prefix: format!("attach-{}-{count}", std::process::id()),
        };
        lab.add("host");
        lab.ip("host", "tuntap add dev weft-tap0 mode tap");
        Some(lab)
    }

    fn name(&self, space: &str) -> String {
        format!("{}-{space}", self.prefix)
    }

    fn add(&self, space: &str) {
        run(&format!("ip netns add {}", self.name(space)));
        self.ip(space, "link set lo up");
    }

    fn ip(&self, space: &str, command: &str) -> String {
        run(&format!("ip -n {} {command}", self.name(space)))
    }

    fn json(&self, space: &str, command: &str) -> Value {
        serde_json::from_str(&self.ip(space, &format!("-j -d {command}"))).unwrap()
    }

    fn exec(&self, space: &str, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.name(space)))
    }

    fn interfaces(&self, space: &str) -> Vec<String> {
        let all = self.json(space, "link show");
        let names = all
            .as_array()
            .unwrap()
            .iter()
            .map(|link| link["ifname"].as_str().unwrap().to_owned());
        names.filter(|name| name != "lo").collect()
    }

    fn addresses(&self, space: &str, interface: &str) -> Vec<String> {
        let shown = self.json(space, &format!("addr show dev {interface}"));
        let all = shown[0]["addr_info"].as_array().unwrap().iter();
        let global = all.filter(|address| address["scope"] == "global");
        global
            .map(|address| {
                format!(
                    "{}/{}",
                    address["local"].as_str().unwrap(),
                    address["prefixlen"]
                )
            })
            .collect()
    }

    fn netns(&self, space: &str) -> NetNs {
        NetNs::from_name(&self.name(space)).unwrap()
    }

    fn bridge(&self) -> BridgeConfig {
        BridgeConfig {
            name: "weft".to_owned(),
            tap: Some(TAP.to_owned()),
            mac: bridge_mac(PEER),
            mtu: MTU,
            gso: GsoLimits::default(),
            dns: None,
        }
    }

    async fn ensure(&self) -> Result<bool, BridgeError> {
        bridge::ensure(&self.netns("host"), &self.bridge()).await
    }

    /// The host as a daemon has it that has just started.
    fn host(&self) -> Host {
        Host::new(self.netns("host"), "weft", PEER)
    }

    async fn container(&self, space: &str) -> Container {
        self.resolve(&format!("netns:{}", self.name(space))).await
    }

    async fn resolve(&self, text: &str) -> Container {
        let named: ContainerRef = text.parse().unwrap();
        named
            .resolve(&self.netns("host"), &Docker::new(None).unwrap())
            .await
            .unwrap()
    }

    async fn attach(&self, space: &str, addresses: &[&str]) -> Result<Attached, AttachError> {
        self.host()
            .attach(&self.container(space).await, &nets(addresses), OPTIONS)
            .await
    }

    async fn remove(&self, space: &str) {
        let container = self.container(space).await;
        self.host().remove(&container).await.unwrap();
    }

    async fn detach(
        &self,
        space: &str,
        addresses: &[&str],
    ) -> Result<Option<Attached>, AttachError> {
        let detached = self
            .host()
            .detach(&self.container(space).await, &nets(addresses))
            .await?;
        Ok(detached.left)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let spaces = std::fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten();
        for space in spaces.filter_map(|entry| entry.file_name().into_string().ok()) {
            if space.starts_with(&format!("{}-", self.prefix)) {
                let _ = output(&format!("ip netns del {space}"));
            }
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the reader of the test's output is to know that nothing was tested"
)]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

fn output(command: &str) -> Output {
    let mut words = command.split_whitespace();
    Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap()
}

fn run(command: &str) -> String {
    let output = output(command);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    assert!((0..LOOKS_MAX).any(|_| condition()), "{what} did not come");
}

/// As [`until`], with the test's runtime going on between two looks.
async fn until_async(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..LOOKS_MAX {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{what} did not come");
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn two_containers_on_one_bridge_reach_each_other() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.add("b");
    lab.ensure().await.unwrap();

    let a = lab
        .attach("a", &["10.2.1.1/24", "fd00:2::1/64"])
        .await
        .unwrap();
    let b = lab
        .attach("b", &["10.2.1.2/24", "fd00:2::2/64"])
        .await
        .unwrap();

    assert_ne!(a.mac, b.mac);
    assert_eq!(a.addresses, nets(&["10.2.1.1/24", "fd00:2::1/64"]));
    lab.exec("a", "ping -c 1 -W 5 10.2.1.2");
    lab.exec("b", "ping -c 1 -W 5 10.2.1.1");
    lab.exec("a", "ping -c 1 -W 5 fd00:2::2");
    // A frame of the full MTU passes, one byte more does not: 28 bytes are IPv4 and ICMP headers.
    lab.exec("a", "ping -c 1 -W 5 -M do -s 1348 10.2.1.2");
    let too_big = output(&format!(
        "ip netns exec {} ping -c 1 -W 1 -M do -s 1349 10.2.1.2",
        lab.name("a")
    ));
    assert!(!too_big.status.success());
}

#[tokio::test]
async fn the_interface_is_as_the_container_needs_it() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.ensure().await.unwrap();
    // What Docker does to containers without IPv6.
    lab.exec("a", "sysctl -q -w net.ipv6.conf.default.disable_ipv6=1");

    let attached = lab
        .attach("a", &["10.2.1.1/24", "fd00:2::1/64"])
        .await
        .unwrap();

    let inner = &lab.json("a", "link show dev ethwe")[0];
    assert_eq!(inner["mtu"], MTU);
    assert_eq!(inner["address"], mac_text(attached.mac));
    assert_eq!(inner["operstate"], "UP");
    assert_eq!(inner["gso_max_size"], 60_000);
    assert_eq!(inner["gso_max_segs"], 40);
    assert_eq!(lab.addresses("a", "ethwe"), ["10.2.1.1/24", "fd00:2::1/64"]);
    let routes = lab.json("a", "route show 224.0.0.0/4");
    assert_eq!(
        (&routes[0]["dev"], &routes[0]["scope"]),
        (&Value::from("ethwe"), &Value::from("link"))
    );
    for (key, value) in [
        ("ipv4.neigh.ethwe.base_reachable_time_ms", "5000"),
        ("ipv4.neigh.ethwe.delay_first_probe_time", "2"),
        ("ipv4.neigh.ethwe.ucast_solicit", "1"),
        ("ipv6.neigh.ethwe.ucast_solicit", "1"),
        ("ipv6.conf.ethwe.accept_ra", "0"),
        ("ipv6.conf.ethwe.disable_ipv6", "0"),
    ] {
        assert_eq!(
            lab.exec("a", &format!("sysctl -n net.{key}")).trim(),
            value,
            "{key}"
        );
    }

    let outer = lab
        .interfaces("host")
        .into_iter()
        .find(|name| name.starts_with("vethwe"))
        .unwrap();
    assert_eq!(outer.len(), 15);
    assert_eq!(
        lab.interfaces("host").len(),
        3,
        "the inner end never shows on the host"
    );
    let outer = &lab.json("host", &format!("link show dev {outer}"))[0];
    assert_eq!(outer["master"], "weft");
    assert_eq!(outer["mtu"], MTU);
    assert_eq!(outer["gso_max_size"], 60_000);
    assert_eq!(outer["linkinfo"]["info_slave_data"]["hairpin"], true);
    assert_eq!(outer["inet6_addr_gen_mode"], "none");
    assert!(
        outer["ifalias"]
            .as_str()
            .unwrap()
            .ends_with(&format!(" @ {}", lab.name("a")))
    );
    assert_eq!(lab.addresses("host", "weft"), [""; 0]);
}

#[tokio::test]
async fn attaching_again_changes_nothing_and_adds_what_is_new() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.add("b");
    lab.ensure().await.unwrap();
    lab.attach("b", &["10.2.1.9/24"]).await.unwrap();
    let other = lab.json("b", "addr show dev ethwe");
    let first = lab.attach("a", &["10.2.1.1/24"]).await.unwrap();
    let before = lab.json("a", "link show dev ethwe");

    let second = lab.attach("a", &["10.2.1.1/24"]).await.unwrap();
    let third = lab
        .attach("a", &["10.2.2.1/24", "10.2.1.1/24"])
        .await
        .unwrap();

    assert_eq!(first, second);
    assert_eq!(third.addresses, nets(&["10.2.1.1/24", "10.2.2.1/24"]));
    assert_eq!(
        before[0]["ifindex"],
        lab.json("a", "link show dev ethwe")[0]["ifindex"]
    );
    assert_eq!(
        other[0]["addr_info"],
        lab.json("b", "addr show dev ethwe")[0]["addr_info"]
    );

    // A container that comes back is the same to its neighbours.
    lab.detach("a", &["10.2.1.1/24", "10.2.2.1/24"])
        .await
        .unwrap();
    assert_eq!(
        lab.attach("a", &["10.2.1.1/24"]).await.unwrap().mac,
        first.mac
    );
}

#[tokio::test]
async fn without_the_multicast_route_there_is_none() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.ensure().await.unwrap();
    let options = AttachOptions {
        multicast_route: false,
        hairpin: false,
        ..OPTIONS
    };

    lab.host()
        .attach(&lab.container("a").await, &nets(&["10.2.1.1/24"]), options)
        .await
        .unwrap();

    assert_eq!(lab.ip("a", "route show 224.0.0.0/4"), "");
}

/// An IPv6 address on an interface with an MTU below 1280 is refused by the kernel, after an IPv4 address went in.
#[tokio::test]
async fn a_failure_half_way_leaves_nothing_behind() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.ensure().await.unwrap();
    let small = AttachOptions {
        mtu: 1200,
        ..OPTIONS
    };
    let host = lab.host();
    let container = lab.container("a").await;

    let refused = host
        .attach(&container, &nets(&["10.2.1.1/24", "fd00:2::1/64"]), small)
        .await;
    assert!(
        matches!(refused, Err(AttachError::Netlink(_))),
        "{refused:?}"
    );
    assert_eq!(lab.interfaces("a"), [""; 0]);
    assert_eq!(lab.interfaces("host"), ["weft-tap0", "weft"]);

    host.attach(&container, &nets(&["10.2.1.1/24"]), small)
        .await
        .unwrap();
    let refused = host
        .attach(&container, &nets(&["10.2.1.2/24", "fd00:2::1/64"]), small)
        .await;
    assert!(
        matches!(refused, Err(AttachError::Netlink(_))),
        "{refused:?}"
    );
    assert_eq!(lab.addresses("a", "ethwe"), ["10.2.1.1/24"]);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_anything_changes() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    let refused = lab.attach("a", &["10.2.1.1/24"]).await;
    assert!(
        matches!(refused, Err(AttachError::NoBridge(_))),
        "{refused:?}"
    );
    lab.ensure().await.unwrap();

    lab.ip("a", "link add eth0 type bridge");
    lab.ip("a", "addr add 10.2.1.1/16 dev eth0");
    let refused = lab
        .attach("a", &["10.2.2.1/24", "10.2.1.1/24"])
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "10.2.1.1 is on interface eth0 of the container already"
    );
    assert!(refused.is_request_fault());
    assert_eq!(lab.interfaces("a"), ["eth0"]);

    lab.attach("a", &["10.2.2.1/24"]).await.unwrap();
    let refused = lab
        .attach("a", &["10.2.3.1/24", "10.2.2.1/16"])
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "10.2.2.1 has the prefix length /24 here, not /16: give 10.2.2.1/24, or take that off first"
    );
    assert_eq!(lab.addresses("a", "ethwe"), ["10.2.2.1/24"]);

    lab.add("foreign");
    lab.ip("foreign", "link add ethwe type veth peer name other");
    for refused in [
        lab.attach("foreign", &["10.2.1.5/24"]).await.map(drop),
        lab.detach("foreign", &[]).await.map(drop),
    ] {
        assert!(
            matches!(refused, Err(AttachError::ForeignInterface)),
            "{refused:?}"
        );
    }
    assert_eq!(lab.interfaces("foreign"), ["other", "ethwe"]);
}

#[tokio::test]
async fn detaching_takes_addresses_and_with_the_last_the_interface() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.ensure().await.unwrap();
    lab.attach("a", &["10.2.1.1/24", "10.2.1.2/24", "fd00:2::1/64"])
        .await
        .unwrap();

    // The first address of a subnet goes, the second stays.
    let left = lab
        .detach("a", &["10.2.1.1/24", "10.9.9.9/24"])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(left.addresses, nets(&["10.2.1.2/24", "fd00:2::1/64"]));
    assert_eq!(lab.addresses("a", "ethwe"), ["10.2.1.2/24", "fd00:2::1/64"]);

    let refused = lab.detach("a", &["10.2.1.2/16"]).await;
    assert!(
        matches!(refused, Err(AttachError::OtherPrefix(_))),
        "{refused:?}"
    );

    assert_eq!(
        lab.detach("a", &["10.2.1.2/24", "fd00:2::1/64"])
            .await
            .unwrap(),
        None
    );
    let listed = lab.host().list().await.unwrap();
    assert_eq!(listed[0].addresses, [], "until the rest is gone, too");
    lab.remove("a").await;
    assert_eq!(lab.interfaces("a"), [""; 0]);
    assert_eq!(lab.interfaces("host"), ["weft-tap0", "weft"]);
    assert_eq!(lab.host().list().await.unwrap(), []);
    assert_eq!(
        lab.detach("a", &["10.2.1.2/24"]).await.unwrap(),
        None,
        "not attached is no error"
    );
}

#[tokio::test]
async fn a_restarted_daemon_finds_all_containers_again() {
    let Some(lab) = Lab::new() else { return };
    for space in ["a", "b", "c"] {
        lab.add(space);
    }
    lab.ensure().await.unwrap();
    let (name, path) = (lab.name("a"), format!("/run/netns/{}", lab.name("b")));
    let mut process = Command::new("ip")
        .args(["netns", "exec", &lab.name("c"), "sleep", "1000"])
        .spawn()
        .unwrap();
    let inside = lab.netns("c");
    until("the process in its namespace", || {
        NetNs::from_pid(process.id()).is_ok_and(|netns| netns == inside)
    });
    drop(inside);
    let pid = process.id().to_string();
    let before = lab.host();
    let mut macs = Vec::new();
    for (text, addresses) in [
        (format!("netns:{name}"), ["10.2.1.1/24", "10.2.2.1/24"]),
        (format!("netns:{path}"), ["10.2.1.2/24", "fd00:2::2/64"]),
        (format!("pid:{pid}"), ["10.2.1.3/24", "10.2.2.3/24"]),
    ] {
        let container = lab.resolve(&text).await;
        let attached = before
            .attach(&container, &nets(&addresses), OPTIONS)
            .await
            .unwrap();
        macs.push((container.id, mac_text(attached.mac), nets(&addresses)));
    }
    drop(before);
    // The name goes, the namespace lives on with its process.
    run(&format!("ip netns del {}", lab.name("c")));

    let mut found: Vec<_> = lab
        .host()
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|a| (a.id, a.mac, a.addresses))
        .collect();

    found.sort();
    macs.sort();
    assert_eq!(found, macs);
    process.kill().unwrap();
    process.wait().unwrap();
    until("the end of the last one's interface", || {
        lab.interfaces("host").len() == 4
    });
    assert_eq!(lab.host().list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn one_container_under_two_names_has_one_interface() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.ensure().await.unwrap();
    let path = lab
        .resolve(&format!("netns:/run/netns/{}", lab.name("a")))
        .await;

    let first = lab.attach("a", &["10.2.1.1/24"]).await.unwrap();
    let host = lab.host();
    let asked = nets(&["10.2.1.2/24"]);
    let refused = host.attach(&path, &asked, OPTIONS).await.unwrap_err();
    assert!(matches!(refused, AttachError::OtherName(id) if id == lab.name("a")));
    let known = host.known(path).await.unwrap();
    assert_eq!(known.id, lab.name("a"));
    let second = host.attach(&known, &asked, OPTIONS).await.unwrap();

    assert_eq!(first.mac, second.mac);
    let listed = lab.host().list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, lab.name("a"));
    assert_eq!(listed[0].addresses, nets(&["10.2.1.1/24", "10.2.1.2/24"]));
}

#[tokio::test]
async fn an_interface_renamed_in_the_container_is_known_all_the_same() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.ensure().await.unwrap();
    let before = lab.attach("a", &["10.2.1.1/24"]).await.unwrap();
    for command in [
        "link set ethwe down",
        "link set ethwe name lan0",
        "link set lan0 up",
    ] {
        lab.ip("a", command);
    }

    let after = lab.attach("a", &["10.2.1.2/24"]).await.unwrap();

    assert_eq!(after.mac, before.mac);
    let both = ["10.2.1.1/24", "10.2.1.2/24"];
    assert_eq!(lab.addresses("a", "lan0"), both);
    assert_eq!(lab.host().list().await.unwrap()[0].addresses, nets(&both));
    let two = nets(&["10.2.1.2/24", "10.2.1.9/24"]);
    let found = lab.host().detach(&lab.container("a").await, &two).await;
    let Detached { left, absent } = found.unwrap();
    assert_eq!(left.unwrap().addresses, nets(&["10.2.1.1/24"]));
    assert_eq!(absent, nets(&["10.2.1.9/24"]), "never attached, and said");
    assert_eq!(lab.detach("a", &["10.2.1.1/24"]).await.unwrap(), None);
    lab.remove("a").await;
    assert_eq!(lab.interfaces("a"), [""; 0]);
}

#[tokio::test]
async fn a_launch_with_another_mtu_changes_the_containers() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.add("b");
    lab.ensure().await.unwrap();
    lab.attach("a", &["10.2.1.1/24"]).await.unwrap();
    lab.attach("b", &["10.2.1.2/24"]).await.unwrap();
    let host = lab.netns("host");
    let config = |mtu| BridgeConfig {
        mtu,
        gso: OPTIONS.gso,
        ..lab.bridge()
    };
    let mtu = |space: &str| lab.json(space, "link show dev ethwe")[0]["mtu"].clone();
    assert_eq!(follow_mtu(&host, &config(MTU)).await.unwrap(), 0);

    for other in [1200, 1400] {
        bridge::ensure(&host, &config(other)).await.unwrap();
        assert_eq!(follow_mtu(&host, &config(other)).await.unwrap(), 2);

        assert_eq!((mtu("a"), mtu("b")), (other.into(), other.into()));
        let ports = lab.json("host", "link show master weft");
        let ports = ports.as_array().unwrap().iter();
        assert!(ports.clone().count() == 3 && ports.clone().all(|port| port["mtu"] == other));
    }
    // Somebody knows better in one of them.
    lab.ip("b", "link set ethwe mtu 1000");
    assert_eq!(follow_mtu(&host, &config(1400)).await.unwrap(), 0);
    assert_eq!(mtu("b"), 1000);
}

#[tokio::test]
async fn a_namespace_that_goes_takes_its_interface_along() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.ensure().await.unwrap();
    let container = lab.container("a").await;
    run(&format!("ip netns del {}", lab.name("a")));

    lab.host()
        .attach(&container, &nets(&["10.2.1.1/24"]), OPTIONS)
        .await
        .unwrap();
    drop(container);

    until("the end of the interface", || {
        lab.interfaces("host").len() == 2
    });
}

#[tokio::test]
async fn neighbours_learn_a_new_address_unasked() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.add("b");
    lab.ensure().await.unwrap();
    lab.attach("b", &["10.2.1.2/24", "fd00:2::2/64"])
        .await
        .unwrap();
    // By default a neighbour only corrects an entry that it has; so it also makes one.
    lab.exec("b", "sysctl -q -w net.ipv4.conf.ethwe.arp_accept=1");
    lab.exec(
        "b",
        "sysctl -q -w net.ipv6.conf.ethwe.accept_untracked_na=1",
    );
    lab.exec("b", "sysctl -q -w net.ipv6.conf.ethwe.forwarding=1");

    let attached = lab
        .attach("a", &["10.2.1.1/24", "fd00:2::1/64"])
        .await
        .unwrap();

    for ip in ["10.2.1.1", "fd00:2::1"] {
        let entry = format!("lladdr {}", mac_text(attached.mac));
        until(ip, || {
            lab.ip("b", &format!("neigh show {ip} dev ethwe"))
                .contains(&entry)
        });
    }
}

#[tokio::test]
async fn the_bridge_is_made_once_and_mended_whenever_it_was_changed() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    assert!(lab.ensure().await.unwrap());
    assert!(!lab.ensure().await.unwrap(), "nothing is amiss");
    lab.attach("a", &["10.2.1.1/24"]).await.unwrap();
    assert!(!lab.ensure().await.unwrap(), "a port changes nothing");
    let right = |what: &str| {
        let bridge = &lab.json("host", "link show dev weft")[0];
        assert_eq!(bridge["address"], "da:fa:eb:dc:28:27", "{what}");
        assert_eq!(bridge["mtu"], MTU, "{what}");
        assert_eq!(
            bridge["linkinfo"]["info_data"]["mcast_snooping"], 0,
            "{what}"
        );
        assert_eq!(bridge["inet6_addr_gen_mode"], "none", "{what}");
        assert!(
            bridge["flags"].as_array().unwrap().contains(&"UP".into()),
            "{what}"
        );
        let ports = lab.json("host", "link show master weft");
        assert_eq!(ports.as_array().unwrap().len(), 2, "{what}");
        for port in ports.as_array().unwrap() {
            assert_eq!(port["mtu"], MTU, "{what}");
            assert!(
                port["flags"].as_array().unwrap().contains(&"UP".into()),
                "{what}"
            );
        }
    };
    right("made");

    for change in [
        "link set weft address 02:00:00:00:00:05",
        "link set weft mtu 1500",
        "link set weft down",
        "link set weft type bridge mcast_snooping 1",
        "link set weft-tap0 nomaster",
        "link set weft-tap0 mtu 1500",
        "link set weft-tap0 down",
        "link del weft",
    ] {
        lab.ip("host", change);
        assert!(lab.ensure().await.unwrap(), "{change}");
        right(change);
    }

    lab.ip("host", "link del weft-tap0");
    assert!(matches!(lab.ensure().await, Err(BridgeError::NoTap(_))));
}

#[tokio::test]
async fn a_kept_bridge_comes_back_by_itself() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    let tap = format!("ip -n {} tuntap add dev {TAP} mode tap", lab.name("host"));
    let keeper = Keeper::start(lab.netns("host"), lab.bridge(), move || {
        run(&tap);
        Ok(())
    });
    let ports = || {
        let shown = output(&format!(
            "ip -n {} -j link show master weft up",
            lab.name("host")
        ));
        serde_json::from_slice(&shown.stdout)
            .map_or(0, |ports: Value| ports.as_array().unwrap().len())
    };
    until_async("the bridge", || ports() == 1).await;
    lab.attach("a", &["10.2.1.1/24"]).await.unwrap();

    lab.ip("host", "link del weft");
    until_async("the bridge with its two ports", || ports() == 2).await;
    lab.ip("host", "link set weft-tap0 down");
    until_async("the TAP", || ports() == 2).await;
    lab.ip("host", "link del weft-tap0");
    until_async("a new TAP", || ports() == 2).await;

    keeper.stop().await;
    bridge::remove(&lab.netns("host"), &lab.bridge())
        .await
        .unwrap();
    assert_eq!(lab.interfaces("host"), [""; 0]);
}

#[tokio::test]
async fn a_device_of_another_kind_is_not_taken_for_the_bridge() {
    let Some(lab) = Lab::new() else { return };
    lab.ip("host", "tuntap add dev weft mode tap");

    assert!(matches!(
        lab.ensure().await,
        Err(BridgeError::NotABridge(_))
    ));

    bridge::remove(&lab.netns("host"), &lab.bridge())
        .await
        .unwrap();
    assert_eq!(
        lab.interfaces("host"),
        ["weft"],
        "the TAP is weft's, the other device is not"
    );
}

#[tokio::test]
async fn reset_removes_all_and_nothing_else() {
    let Some(lab) = Lab::new() else { return };
    lab.add("a");
    lab.ip("host", "link add other type bridge");
    lab.ip("host", "link add veth0 type veth peer name veth1");
    lab.ip("host", "link set veth0 master other");
    lab.ensure().await.unwrap();
    lab.attach("a", &["10.2.1.1/24"]).await.unwrap();
    lab.ip("host", "addr add 10.2.1.250/24 dev weft");
    let exposed = bridge::exposed(&lab.netns("host"), "weft").await.unwrap();
    assert_eq!(exposed, Some((PEER, nets(&["10.2.1.250/24"]))));

    for _ in 0..2 {
        bridge::remove(&lab.netns("host"), &lab.bridge())
            .await
            .unwrap();
        assert_eq!(lab.interfaces("host"), ["other", "veth1", "veth0"]);
        assert_eq!(lab.interfaces("a"), [""; 0]);
    }
    assert_eq!(
        bridge::exposed(&lab.netns("host"), "weft").await.unwrap(),
        None
    );
}
