//! The network around weft: its port, the underlay's MTU, what firewalls do to bridged frames.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use weft_control::api::Status;
use weft_control::driver::dns::DOCKER_BRIDGE_DEFAULT;

use crate::args::Places;
use crate::client::Client;
use crate::doctor::Check;
use crate::doctor::host::read;

/// The overlay's MTU if nobody says otherwise.
const MTU_DEFAULT: u16 = 1376;
/// The largest that `--mtu` takes: more would not fit the engine's largest datagram.
const MTU_MAX: u16 = 8924;
/// IP and UDP header around a datagram.
const IPV4_UDP: u16 = 28;
/// As [`IPV4_UDP`], for IPv6.
const IPV6_UDP: u16 = 48;
/// Outer header and tag of a datagram, its two bytes of kind and meta, and the frame's Ethernet header.
const SEALED: u16 = 32 + 2 + 14;
/// Header and tag that a relayed datagram has besides.
const RELAYED: u16 = 48;

/// Judges whether the daemon's port is free, or ours already.
pub(super) fn port(places: &Places, port: u16) -> Check {
    let Err(error) = try_port(port) else {
        return Check::ok("port", format!("{port} is free, TCP and UDP"));
    };
    let ours = Client::new(places.socket())
        .get::<Status>("/status")
        .is_ok_and(|status| status.port == port);
    if ours {
        return Check::ok(
            "port",
            format!("{port} is in use by the weft that runs here"),
        );
    }
    Check::fail(
        "port",
        format!("{port}: {error}"),
        format!("see who has it with `ss -lntup 'sport = :{port}'`, or take another with --port"),
    )
}

fn try_port(port: u16) -> io::Result<()> {
    let everywhere = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ];
    for address in everywhere {
        let outcome = TcpListener::bind(address)
            .map(drop)
            .and_then(|()| UdpSocket::bind(address).map(drop));
        match outcome {
            // A host without IPv6 has nothing to share.
            Err(error) if address.is_ipv6() && error.kind() != ErrorKind::AddrInUse => {}
            other => other?,
        }
    }
    Ok(())
}

/// Judges the MTU of the interface that leads out, and says which overlay MTU suits it.
pub(super) fn mtu() -> Check {
    let interface = default_interface_v4(&read("/proc/net/route"))
        .map(|name| (name, false))
        .or_else(|| default_interface_v6(&read("/proc/net/ipv6_route")).map(|name| (name, true)));
    let Some((interface, v6)) = interface else {
        return Check::ok(
            "mtu",
            "no default route: --mtu should be the underlay's MTU - 124 (- 144 over IPv6)",
        );
    };
    match read(&format!("/sys/class/net/{interface}/mtu"))
        .trim()
        .parse()
    {
        Ok(underlay) => judge_mtu(&interface, underlay, v6),
        Err(_) => Check::warn(
            "mtu",
            format!("the MTU of {interface} cannot be read"),
            "mount /sys",
        ),
    }
}

fn judge_mtu(interface: &str, underlay: u16, v6: bool) -> Check {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let (direct, relayed) = (
        overlay_mtu(underlay, v6, false),
        overlay_mtu(underlay, v6, true),
    );
    let found = format!("{interface} has {underlay} ({family})");
    if relayed > MTU_DEFAULT {
        return Check::ok(
            "mtu",
            format!(
                "{found}: best is --mtu {relayed} on all hosts, --mtu {direct} where no relay is ever used"
            ),
        );
    }
    if relayed == MTU_DEFAULT {
        return Check::ok(
            "mtu",
            format!(
                "{found}: the default {MTU_DEFAULT} is best, --mtu {direct} where no relay is ever used"
            ),
        );
    }
    let how = if direct >= MTU_DEFAULT {
        "through a relay"
    } else {
        "this way"
    };
    Check::warn(
        "mtu",
        format!("{found}: a frame of the default {MTU_DEFAULT} bytes crosses {how} in two pieces"),
        format!("--mtu {relayed} on all hosts"),
    )
}

/// Returns the overlay MTU whose frames cross the underlay in one datagram.
fn overlay_mtu(underlay: u16, v6: bool, relayed: bool) -> u16 {
    let headers = if v6 { IPV6_UDP } else { IPV4_UDP } + SEALED + if relayed { RELAYED } else { 0 };
    underlay.saturating_sub(headers).min(MTU_MAX)
}

/// Returns the interface of the default route with the lowest metric (`/proc/net/route`).
fn default_interface_v4(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let default = *fields.get(1)? == "00000000" && *fields.get(7)? == "00000000";
        let metric: u32 = fields.get(6)?.parse().ok()?;
        default.then(|| (metric, (*fields.first().unwrap_or(&"")).to_owned()))
    });
    routes.min().map(|(_, name)| name)
}

/// Returns the interface of the IPv6 default route with the lowest metric (`/proc/net/ipv6_route`).
fn default_interface_v6(table: &str) -> Option<String> {
    let routes = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let default = *fields.get(1)? == "00" && fields.first()?.bytes().all(|byte| byte == b'0');
        let metric = u32::from_str_radix(fields.get(5)?, 16).ok()?;
        let name = *fields.get(9)?;
        // The kernel keeps a route to nowhere on the loopback interface.
        (default && name != "lo").then(|| (metric, name.to_owned()))
    });
    routes.min().map(|(_, name)| name)
}

/// Judges whether iptables sees bridged frames.
pub(super) fn bridge_filter() -> Check {
    let calls =
        |family: &str| read(&format!("/proc/sys/net/bridge/bridge-nf-call-{family}")).trim() == "1";
    let has_docker = Path::new("/sys/class/net")
        .join(DOCKER_BRIDGE_DEFAULT)
        .exists();
    judge_bridge_filter(calls("iptables"), calls("ip6tables"), has_docker)
}

fn judge_bridge_filter(v4: bool, v6: bool, has_docker: bool) -> Check {
    if !v4 && !v6 {
        return Check::ok("br_netfilter", "bridged frames do not pass iptables");
    }
    if has_docker {
        return Check::ok(
            "br_netfilter",
            "bridged frames pass iptables, as Docker has it; launch lets those of weft's bridge through",
        );
    }
    Check::warn(
        "br_netfilter",
        "bridged frames pass iptables' FORWARD chain, which costs speed and may drop them",
        "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, \
         unless Kubernetes or Docker's isolation needs it",
    )
}

#[cfg(test)]
mod tests;
