//! Whether the range of addresses overlaps a route of this host: refused if nobody chose it, else only said.

use anyhow::bail;
use ipnet::Ipv4Net;
use weft_control::driver::host_routes::{HostRoute, host_routes};

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
    if is_given {
        return Ok(());
    }
    judge(range, &host_routes(bridge))
}

/// What the user should know of a range that was chosen.
pub(crate) fn warning(range: Ipv4Net, bridge: &str) -> Option<String> {
    let routes = host_routes(bridge);
    let HostRoute { network, interface } = clash(range, &routes)?;
    Some(format!(
        "warning: --ipalloc-range {range} overlaps with existing route {network} on host ({interface}); this host's own addresses in it are given to nobody"
    ))
}

fn clash(range: Ipv4Net, routes: &[HostRoute]) -> Option<&HostRoute> {
    let overlap = |route: &Ipv4Net| range.contains(route) || route.contains(&range);
    routes.iter().find(|route| overlap(&route.network))
}

fn judge(range: Ipv4Net, routes: &[HostRoute]) -> anyhow::Result<()> {
    let Some(HostRoute { network, interface }) = clash(range, routes) else {
        return Ok(());
    };
    let free = PROPOSALS
        .iter()
        .filter_map(|text| text.parse::<Ipv4Net>().ok())
        .find(|proposal| clash(*proposal, routes).is_none());
    let advice = free.map_or_else(
        || "give a free range with --ipalloc-range".to_owned(),
        |free| {
            format!("pick another range and set it on all hosts, such as --ipalloc-range {free}")
        },
    );
    bail!(
        "default --ipalloc-range {range} overlaps with existing route {network} on host ({interface}): {advice}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_names_the_route_and_a_free_range() {
        let routes = [HostRoute {
            network: "10.0.0.0/8".parse().unwrap(),
            interface: "eth0".to_owned(),
        }];
        let range = "10.32.0.0/12".parse().unwrap();
        let line = judge(range, &routes).unwrap_err().to_string();
        assert_eq!(
            line,
            "default --ipalloc-range 10.32.0.0/12 overlaps with existing route 10.0.0.0/8 on host (eth0): \
             pick another range and set it on all hosts, such as --ipalloc-range 172.24.0.0/14"
        );
        assert!(judge("172.24.0.0/14".parse().unwrap(), &routes).is_ok());
    }
}
