//! Looks at the interfaces that datagrams leave on: how large one can be at all, and which addresses they have.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::bridge::{BridgeError, TAP};
use super::netlink::Interface;
use super::netns::NetNs;

/// What is assumed of a host that shows no interface yet: Ethernet.
const MTU_USUAL: u16 = 1500;
/// The kernel's name for the interface that leads nowhere.
const LOOPBACK: &str = "lo";

/// Returns the largest MTU of the interfaces that an underlay path can take; `bridge` is ours and none of them.
///
/// # Errors
///
/// If the kernel does not list its interfaces.
pub async fn largest_mtu(host: &NetNs, bridge: &str) -> Result<u16, BridgeError> {
    let bridge = bridge.to_owned();
    host.run(|netlink| async move { Ok(largest(&netlink.interfaces().await?, &bridge)) })
        .await
}

fn largest(interfaces: &[Interface], bridge: &str) -> u16 {
    let leads_out = |interface: &&Interface| {
        let is_ours = interface.name == bridge || interface.name == TAP;
        interface.is_up && interface.controller.is_none() && !is_ours && interface.name != LOOPBACK
    };
    let largest = interfaces
        .iter()
        .filter(leads_out)
        .map(|interface| interface.mtu)
        .max();
    largest.map_or(MTU_USUAL, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Interfaces of container runtimes and hypervisors: every host has the same addresses there.
const PRIVATE_PREFIXES: [&str; 4] = ["docker", "br-", "veth", "virbr"];

/// Returns the addresses at which other hosts may reach this one; `bridge` is ours and none of them.
pub(super) fn local_addresses(bridge: &str) -> Vec<IpAddr> {
    // Without a list there is nothing to tell; what others observe is told all the same.
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter(|entry| {
            entry.flags.contains(InterfaceFlags::IFF_UP)
                && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK)
                && is_underlay(&entry.interface_name, bridge)
        })
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}

fn is_underlay(name: &str, bridge: &str) -> bool {
    name != bridge
        && name != TAP
        && !PRIVATE_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, mtu: u32) -> Interface {
        Interface {
            name: name.to_owned(),
            mtu,
            is_up: true,
            ..Interface::default()
        }
    }

    #[test]
    fn overlay_and_runtime_interfaces_name_no_address() {
        for name in ["weft", TAP, "docker0", "br-0123456789ab", "veth1"] {
            assert!(!is_underlay(name, "weft"), "{name}");
        }
        assert!(is_underlay("eth0", "weft") && is_underlay("wlan0", "weft"));
    }

    #[test]
    fn only_interfaces_that_lead_out_count() {
        let down = Interface {
            is_up: false,
            ..interface("eth9", 9000)
        };
        let port = Interface {
            controller: Some(7),
            ..interface("vethwe1", 9000)
        };
        let others = [
            interface("lo", 65_536),
            interface("weft", 9000),
            interface(TAP, 9000),
            down,
            port,
        ];
        assert_eq!(largest(&others, "weft"), 1500);

        let with_two = [
            &others[..],
            &[interface("eth0", 1400), interface("eth1", 1460)],
        ]
        .concat();
        assert_eq!(largest(&with_two, "weft"), 1460);
    }
}
