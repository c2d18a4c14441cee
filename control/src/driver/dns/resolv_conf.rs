//! Reads the name servers of a `resolv.conf`, and writes one for a container.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::DNS_UPSTREAMS_MAX;
use crate::dns::name::Domain;

/// First line of files that are ours.
pub const MARK: &str = "# Written by weft attach.\n";

/// The name servers, in their order, without those of `own`. Lines that are none are left out, as resolvers do.
#[must_use]
pub fn name_servers(text: &str, own: &[IpAddr]) -> Vec<IpAddr> {
    let server = |line: &str| -> Option<IpAddr> {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()?.parse().ok()
    };
    text.lines()
        .filter_map(server)
        .filter(|server| !own.contains(server))
        .take(DNS_UPSTREAMS_MAX)
        .collect()
}

/// What a container is given: our server, and our domain for short names.
#[must_use]
pub fn for_container(server: Ipv4Addr, domain: &Domain) -> String {
    format!(
        "{MARK}nameserver {server}\nsearch {}\noptions ndots:1\n",
        domain.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_as_resolvers_find_them() {
        let text = "# nameserver 192.0.2.1\nnameserver 192.0.2.2\n\tnameserver\t2001:db8::1 # v6\nnameserver fe80::1%eth0\nnameserver 169.254.53.1\nsearch example.org\nnameservers 192.0.2.3\nnameserver x\nnameserver";
        let own = ["169.254.53.1".parse().unwrap()];
        let wanted: [IpAddr; 2] = ["192.0.2.2".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(name_servers(text, &own), wanted);
        let many = "nameserver 192.0.2.1\n".repeat(100);
        assert_eq!(name_servers(&many, &[]).len(), DNS_UPSTREAMS_MAX);
    }

    #[test]
    fn a_container_asks_our_server_only() {
        let domain = Domain::parse("foo.bar").unwrap();
        let text = for_container(Ipv4Addr::new(169, 254, 53, 1), &domain);
        assert_eq!(name_servers(&text, &[]), [IpAddr::from([169, 254, 53, 1])]);
        assert!(text.contains("\nsearch foo.bar\n"), "{text}");
    }
}
