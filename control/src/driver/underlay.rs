//! Looks at the interfaces that datagrams leave on: how large one can be at all.

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
