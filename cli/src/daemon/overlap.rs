//! Whether the range of addresses overlaps a route of this host: refused if nobody chose it, else only said.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::bail;
use ipnet::Ipv4Net;

/// Ranges to propose, Weave's first.
const PROPOSALS: [&str; 6] = [
    "10.32.0.0/12",
    "10.128.0.0/12",
    "10.208.0.0/12",
    "172.24.0.0/14",
    "192.168.128.0/17",
    "100.64.0.0/12",
];

/// Looks at the routes of this process's namespace, without those through `bridge`.
///
/// # Errors
///
/// If the range overlaps one and was not chosen: names the route and a range that is free.
pub(super) fn check(range: Ipv4Net, is_given: bool, bridge: &str) -> anyhow::Result<()> {
    // A host without the file has no IPv4.
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    judge(range, is_given, &routes(&table, bridge))
}

fn judge(range: Ipv4Net, is_given: bool, routes: &[(String, Ipv4Net)]) -> anyhow::Result<()> {
    let clashes = |range: &Ipv4Net| {
        let overlap = |route: &Ipv4Net| range.contains(route) || route.contains(range);
        routes.iter().find(|(_, route)| overlap(route)).cloned()
    };
    let Some((interface, route)) = clashes(&range) else {
        return Ok(());
    };
    if is_given {
        tracing::warn!(%range, %route, interface, "the range overlaps an existing route on this host");
        return Ok(());
    }
    let free = PROPOSALS
        .iter()
        .filter_map(|text| text.parse::<Ipv4Net>().ok())
        .find(|proposal| clashes(proposal).is_none());
    let advice = free.map_or_else(
        || "give a free range with --ipalloc-range".to_owned(),
        |free| {
            format!("pick another range and set it on all hosts, such as --ipalloc-range {free}")
        },
    );
    bail!(
        "default --ipalloc-range {range} overlaps with existing route {route} on host ({interface}): {advice}"
    )
}

/// Reads `/proc/net/route`; the default route leads everywhere and counts as none.
fn routes(table: &str, bridge: &str) -> Vec<(String, Ipv4Net)> {
    let lines = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| {
            u32::from_str_radix(fields.get(at)?, 16)
                .ok()
                .map(u32::swap_bytes)
        };
        let (destination, mask) = (number(1)?, number(7)?);
        let network = Ipv4Net::with_netmask(destination.into(), Ipv4Addr::from(mask)).ok()?;
        Some(((*fields.first()?).to_owned(), network))
    });
    lines
        .filter(|(interface, route)| route.prefix_len() > 0 && interface != bridge)
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
        let found = routes(TABLE, "weft");
        assert_eq!(found, [("eth0".to_owned(), "10.0.0.0/8".parse().unwrap())]);
    }

    #[test]
    fn an_overlap_names_the_route_and_a_free_range() {
        let range = "10.32.0.0/12".parse().unwrap();
        let line = judge(range, false, &routes(TABLE, "weft"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            line,
            "default --ipalloc-range 10.32.0.0/12 overlaps with existing route 10.0.0.0/8 on host (eth0): \
             pick another range and set it on all hosts, such as --ipalloc-range 172.24.0.0/14"
        );
        assert!(
            judge(range, true, &routes(TABLE, "weft")).is_ok(),
            "chosen: only said"
        );
        assert!(
            judge(
                "172.24.0.0/14".parse().unwrap(),
                false,
                &routes(TABLE, "weft")
            )
            .is_ok()
        );
    }
}
