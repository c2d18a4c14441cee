//! Two hosts on one underlay, and behind each a container.
//!
//! ```text
//!  netns endA            netns hostA                        netns hostB            netns endB
//!  eth0 10.99.0.1 ─ veth ─ br0 ─ TAP ─ peer ─ eth0 ═ veth ═ eth0 ─ peer ─ TAP ─ br0 ─ veth ─ eth0 10.99.0.2
//!                                 192.168.77.1            192.168.77.2
//! ```
//!
//! Layer-2 peers stand behind bridge and veth as weft does. Layer-3 peers have no bridge: there the ends are the
//! hosts themselves, on the peer's own device.

use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::{program, wait};

/// MTU of the underlay in bytes.
pub(crate) const UNDERLAY_MTU: u32 = 1500;
/// Underlay addresses of the two hosts.
pub(crate) const OUTER: [&str; 2] = ["192.168.77.1", "192.168.77.2"];
/// Overlay addresses of the two ends.
pub(crate) const INNER: [&str; 2] = ["10.99.0.1", "10.99.0.2"];

/// Longest time from a peer's start to its first answered ping; tinc's discovery is the slowest.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// How the underlay treats what the peers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// As a veth pair is: a segmented send crosses as one large buffer.
    Whole,
    /// UDP segmentation is done before the underlay: each datagram crosses singly, as on a wire.
    Segmented,
    /// Segmentation of every kind done before, and one packet in a hundred lost, both ways.
    Loss,
    /// As `Loss`, with nothing lost.
    Wire,
}

impl Mode {
    pub(crate) const DEFAULT: [Self; 3] = [Self::Whole, Self::Segmented, Self::Loss];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Segmented => "segmented",
            Self::Loss => "loss",
            Self::Wire => "wire",
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Whole => "underlay as it is",
            Self::Segmented => {
                "underlay with tx-udp-segmentation off (VXLAN keeps an offload of its own)"
            }
            Self::Loss => "underlay with segmentation off and 1 % loss each way",
            Self::Wire => "underlay with segmentation off",
        }
    }

    fn features_off(self) -> &'static [&'static str] {
        match self {
            Self::Whole => &[],
            Self::Segmented => &["tx-udp-segmentation"],
            Self::Loss | Self::Wire => &[
                "tx-udp-segmentation",
                "tx-udp_tnl-segmentation",
                "tx-udp_tnl-csum-segmentation",
                "tso",
            ],
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Whole, Self::Segmented, Self::Loss, Self::Wire]
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| format!("{name} is none of whole, segmented, loss, wire"))
    }
}

/// A network namespace by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Netns(String);

impl Netns {
    fn add(name: &str) -> Result<Self> {
        program::run(Command::new("ip").args(["netns", "add", name]))?;
        let netns = Self(name.to_owned());
        netns.run("ip", &["link", "set", "lo", "up"])?;
        // Neighbour and router discovery would only be noise between the numbers.
        netns.run("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
        Ok(netns)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// A program that will run here; `ip netns exec` becomes the program, so its pid is the program's.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        program::run(self.command(program).args(arguments))
    }

    /// Whether a device of this name exists.
    pub(crate) fn has_device(&self, device: &str) -> bool {
        self.run("ip", &["link", "show", "dev", device]).is_ok()
    }

    /// A counter of `/proc/net/snmp`, such as `Ip` `FragCreates`; 0 if the kernel has none.
    pub(crate) fn snmp(&self, protocol: &str, counter: &str) -> u64 {
        let text = self.run("cat", &["/proc/net/snmp"]).unwrap_or_default();
        let prefix = format!("{protocol}: ");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        let (names, values) = (
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
        );
        let mut pairs = names.split(' ').zip(values.split(' '));
        pairs
            .find(|(name, _)| *name == counter)
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(0)
    }
}

/// The two hosts; dropped, they are gone.
pub(crate) struct Pair {
    pub(crate) hosts: [Netns; 2],
}

impl Pair {
    pub(crate) fn new(mode: Mode) -> Result<Self> {
        let hosts = [Netns::add("hostA")?, Netns::add("hostB")?];
        let pair = Self { hosts };
        let mtu = UNDERLAY_MTU.to_string();
        let [a, b] = [pair.hosts[0].name(), pair.hosts[1].name()];
        let mut link = Command::new("ip");
        link.args(["-n", a, "link", "add", "eth0", "mtu", &mtu, "type", "veth"]);
        link.args(["peer", "name", "eth0", "mtu", &mtu, "netns", b]);
        program::run(&mut link)?;
        for (host, address) in pair.hosts.iter().zip(OUTER) {
            host.run(
                "ip",
                &["address", "add", &format!("{address}/24"), "dev", "eth0"],
            )?;
            host.run("ip", &["link", "set", "eth0", "up"])?;
            for feature in mode.features_off() {
                host.run("ethtool", &["-K", "eth0", feature, "off"])?;
            }
            if mode == Mode::Loss {
                lose_one_in_a_hundred(host)?;
            }
        }
        Ok(pair)
    }

    /// Gives each host a bridge with its device in it and a container behind it; returns the containers.
    pub(crate) fn containers_behind(&self, devices: [&str; 2], mtu: u32) -> Result<[Netns; 2]> {
        let mtu = mtu.to_string();
        let ends = self.containers()?;
        for (side, host) in self.hosts.iter().enumerate() {
            let end = &ends[side];
            host.run("ip", &["link", "add", "br0", "type", "bridge"])?;
            host.run(
                "ip",
                &[
                    "link",
                    "set",
                    devices[side],
                    "mtu",
                    &mtu,
                    "master",
                    "br0",
                    "up",
                ],
            )?;
            let veth = [
                "link", "add", "veth0", "mtu", &mtu, "type", "veth", "peer", "name", "eth0", "mtu",
                &mtu,
            ];
            host.run("ip", &[&veth[..], &["netns", end.name()]].concat())?;
            host.run("ip", &["link", "set", "veth0", "master", "br0", "up"])?;
            host.run("ip", &["link", "set", "br0", "up"])?;
            end.run(
                "ip",
                &[
                    "address",
                    "add",
                    &format!("{}/24", INNER[side]),
                    "dev",
                    "eth0",
                ],
            )?;
            end.run("ip", &["link", "set", "eth0", "up"])?;
        }
        Ok(ends)
    }

    /// Two containers without any device yet.
    pub(crate) fn containers(&self) -> Result<[Netns; 2]> {
        Ok([Netns::add("endA")?, Netns::add("endB")?])
    }

    /// Gives the peer's own devices their addresses; the ends are then the hosts.
    pub(crate) fn hosts_on(&self, devices: [&str; 2], mtu: u32) -> Result<[Netns; 2]> {
        for ((host, address), device) in self.hosts.iter().zip(INNER).zip(devices) {
            host.run(
                "ip",
                &[
                    "address",
                    "replace",
                    &format!("{address}/24"),
                    "dev",
                    device,
                ],
            )?;
            host.run(
                "ip",
                &["link", "set", device, "mtu", &mtu.to_string(), "up"],
            )?;
        }
        Ok(self.hosts.clone())
    }

    /// Waits until both hosts have the device.
    pub(crate) fn wait_for_device(&self, device: &str) -> Result<()> {
        wait::until(&format!("device {device}"), READY_LIMIT, || {
            self.hosts.iter().all(|host| host.has_device(device))
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in ["endA", "endB", "hostA", "hostB"] {
            // Not every peer has containers.
            let _ = program::output(Command::new("ip").args(["netns", "delete", name]));
        }
    }
}

/// Waits until the far end answers.
pub(crate) fn wait_for_ping(from: &Netns, address: &str) -> Result<()> {
    wait::until(&format!("a ping reply from {address}"), READY_LIMIT, || {
        from.run("ping", &["-n", "-q", "-c", "1", "-W", "1", address])
            .is_ok()
    })
}

fn lose_one_in_a_hundred(host: &Netns) -> Result<()> {
    let rules = "table inet bench { chain lossy { type filter hook prerouting priority -300; \
                 iifname eth0 numgen random mod 100 < 1 drop; }; }";
    let told = host.run("nft", &[rules]);
    if told.is_err() {
        bail!("nft with numgen is needed to lose packets: {told:?}");
    }
    Ok(())
}
