//! Kernel settings of one interface, under `/proc/sys/net` of the namespace that the calling thread is in.

use std::fs;
use std::io;

/// Neighbour settings that forget a stale MAC within seconds, since containers move between hosts with their address.
const NEIGHBOUR: [(&str, &str); 3] = [
    ("base_reachable_time_ms", "5000"),
    ("delay_first_probe_time", "2"),
    ("ucast_solicit", "1"),
];

/// Settings of `ethwe`, made before it goes up.
pub(super) fn tune_container_interface(name: &str) {
    tune_neighbours(name);
    // Whoever gives it another MAC need not tell the others.
    write("ipv4/conf", name, "arp_notify", "1");
    write("ipv6/conf", name, "ndisc_notify", "1");
    // Deleting the first address of a subnet must not take the others with it.
    write("ipv4/conf", name, "promote_secondaries", "1");
    // Addresses are given by attach alone: another container is no router to believe.
    write("ipv6/conf", name, "accept_ra", "0");
}

/// Lets the interface carry IPv6, which Docker switches off by default.
pub(super) fn allow_ipv6(name: &str) {
    write("ipv6/conf", name, "disable_ipv6", "0");
}

/// Settings of the bridge.
pub(super) fn tune_bridge(name: &str) {
    tune_neighbours(name);
    write("ipv6/conf", name, "accept_ra", "0");
    // Containers ask our DNS server without the host having a route to them; the larger of the two values holds.
    let all = fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap_or_default();
    let loose = if all.trim() == "0" { "0" } else { "2" };
    write("ipv4/conf", name, "rp_filter", loose);
}

/// Settings of a port of the bridge, which has no addresses of its own.
pub(super) fn tune_port(name: &str) {
    write("ipv6/conf", name, "accept_ra", "0");
}

fn tune_neighbours(name: &str) {
    for family in ["ipv4/neigh", "ipv6/neigh"] {
        for (key, value) in NEIGHBOUR {
            write(family, name, key, value);
        }
    }
}

/// Writes one setting unless it is so already. Not fatal: a kernel without IPv6 has no such file, and in a container
/// `/proc/sys` may be read-only; the network works, a little less well.
fn write(folder: &str, interface: &str, key: &str, value: &str) {
    let path = format!("/proc/sys/net/{folder}/{interface}/{key}");
    match fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => return,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Ok(_) | Err(_) => {}
    }
    if let Err(error) = fs::write(&path, value) {
        tracing::warn!(path, value, %error, "kernel setting refused");
    }
}
