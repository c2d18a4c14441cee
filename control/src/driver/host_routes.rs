//! The host's own IPv4 routes, against which ranges and addresses of the network are held.

use std::fs;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::address::AddressArgument;

/// One route, the default one excepted: it leads everywhere and overlaps nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// Where it leads.
    pub network: Ipv4Net,
    /// By which interface.
    pub interface: String,
}

/// The routes of this process's namespace, without those through `bridge`.
#[must_use]
pub fn host_routes(bridge: &str) -> Vec<HostRoute> {
    // A host without the file has no IPv4.
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    read(&table, bridge)
}

/// Says which explicit addresses lie where a route of the host leads already: the host would not find them on `bridge`.
/// In the log, too, for containers that nobody attaches by hand.
pub(super) fn overlaps(arguments: &[AddressArgument], bridge: &str, owner: &str) -> Vec<String> {
    let explicit: Vec<Ipv4Addr> = arguments
        .iter()
        .filter_map(|argument| match argument {
            AddressArgument::Explicit(IpNet::V4(address)) => Some(address.addr()),
            AddressArgument::Explicit(IpNet::V6(_))
            | AddressArgument::Subnet(_)
            | AddressArgument::DefaultSubnet => None,
        })
        .collect();
    if explicit.is_empty() {
        return Vec::new();
    }
    let routes = host_routes(bridge);
    let explicit = explicit.into_iter();
    let told: Vec<String> = explicit
        .filter_map(|address| overlap(address, &routes))
        .collect();
    for overlap in &told {
        tracing::warn!(container = owner, "{overlap}");
    }
    told
}

fn overlap(address: Ipv4Addr, routes: &[HostRoute]) -> Option<String> {
    let route = routes
        .iter()
        .find(|route| route.network.contains(&address))?;
    let HostRoute { network, interface } = route;
    Some(format!(
        "address {address} overlaps with existing route {network} on host ({interface})"
    ))
}

/// Reads `/proc/net/route`.
fn read(table: &str, bridge: &str) -> Vec<HostRoute> {
    let lines = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| {
            u32::from_str_radix(fields.get(at)?, 16)
                .ok()
                .map(u32::swap_bytes)
        };
        let (destination, mask) = (number(1)?, number(7)?);
        let network = Ipv4Net::with_netmask(destination.into(), Ipv4Addr::from(mask)).ok()?;
        let interface = (*fields.first()?).to_owned();
        Some(HostRoute { network, interface })
    });
    lines
        .filter(|route| route.network.prefix_len() > 0 && route.interface != bridge)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000000A\t0100A8C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0
weft\t0000200A\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0
";

    #[test]
    fn routes_are_read_without_the_default_and_the_bridge() {
        let found = read(TABLE, "weft");
        let expected = HostRoute {
            network: "10.0.0.0/8".parse().unwrap(),
            interface: "eth0".to_owned(),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn an_address_that_a_route_covers_is_told_with_the_route() {
        let routes = read(TABLE, "weft");
        assert_eq!(
            overlap([10, 2, 1, 1].into(), &routes).unwrap(),
            "address 10.2.1.1 overlaps with existing route 10.0.0.0/8 on host (eth0)"
        );
        assert_eq!(overlap([192, 168, 1, 1].into(), &routes), None);
    }
}
