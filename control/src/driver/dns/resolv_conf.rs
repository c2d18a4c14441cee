//! Reads the name servers of a `resolv.conf`, and writes one for a container.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::DNS_UPSTREAMS_MAX;
use crate::dns::name::{DnsName, Domain};

/// First line of files that are ours.
pub const MARK: &str = "# Written by weft attach.\n";
/// Before domains that were asked for.
const SEARCH_MARK: &str = "# --dns-search";

/// The name servers, in their order, without those of `own`. Lines that are none are left out, as resolvers do.
#[must_use]
pub fn name_servers(text: &str, own: &[IpAddr]) -> Vec<IpAddr> {
    named(text)
        .filter_map(|server| server.parse().ok())
        .filter(|server| !own.contains(server))
        .take(DNS_UPSTREAMS_MAX)
        .collect()
}

/// What is named as a server and is none that can be asked, such as `fe80::1%eth0`: what is asked has no zone.
#[must_use]
pub fn unusable(text: &str) -> Vec<&str> {
    named(text)
        .filter(|server| server.parse::<IpAddr>().is_err())
        .take(DNS_UPSTREAMS_MAX)
        .collect()
}

fn named(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()
    })
}

/// What a container is given: our server, and where short names are looked for: in `search`, or else in the sub-domain of
/// its own name and in our domain.
#[must_use]
pub fn for_container(
    server: Ipv4Addr,
    name: Option<&DnsName>,
    domain: &Domain,
    search: &[String],
) -> String {
    let above = name.and_then(|name| name.as_str().split_once('.'));
    let own = above.and_then(|(_, above)| domain.qualify(above).ok());
    let own = own.map(|own| format!("{own} ")).unwrap_or_default();
    let (mark, search) = if search.is_empty() {
        (String::new(), format!("{own}{}", domain.name()))
    } else {
        (format!("{SEARCH_MARK}\n"), search.join(" "))
    };
    format!("{MARK}nameserver {server}\n{mark}search {search}\noptions ndots:1\n")
}

/// The domains that were asked for when a file of ours was written, if any were.
#[must_use]
pub fn asked_search(text: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| *line != SEARCH_MARK);
    let words = lines.nth(1).unwrap_or_default().split_whitespace();
    words.skip(1).map(str::to_owned).collect()
}

/// A file of ours as it is to be for another server, or another domain.
#[must_use]
pub fn moved(before: &str, server: Ipv4Addr, domain: &Domain) -> String {
    let mut lines = before.lines().rev();
    let search = lines.find_map(|line| line.strip_prefix("search "));
    let mut searched = search.unwrap_or_default().split(' ').rev();
    let (old, own) = (searched.next().unwrap_or_default(), searched.next());
    let own = own.and_then(|own| own.strip_suffix(old)?.strip_suffix('.'));
    // Its own label is of no account here.
    let name = own.and_then(|own| DnsName::parse(&format!("c.{own}.{}", domain.name())).ok());
    for_container(server, name.as_ref(), domain, &asked_search(before))
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
        assert_eq!(unusable(text), ["fe80::1%eth0", "x"]);
        let many = "nameserver 192.0.2.1\n".repeat(100);
        assert_eq!(name_servers(&many, &[]).len(), DNS_UPSTREAMS_MAX);
    }

    #[test]
    fn a_container_asks_our_server_only() {
        let domain = Domain::parse("foo.bar").unwrap();
        let server = Ipv4Addr::new(169, 254, 53, 1);
        for (name, search) in [
            (None, "foo.bar"),
            (Some("c1.foo.bar"), "foo.bar"),
            (Some("c1.sub1.Foo.bar"), "sub1.Foo.bar foo.bar"),
            (Some("c1.a.b.foo.bar"), "a.b.foo.bar foo.bar"),
        ] {
            let name = name.map(|name| DnsName::parse(name).unwrap());
            let text = for_container(server, name.as_ref(), &domain, &[]);
            assert_eq!(name_servers(&text, &[]), [IpAddr::from(server)]);
            assert!(text.contains(&format!("\nsearch {search}\n")), "{text}");
            assert!(asked_search(&text).is_empty());
        }
        let search = ["a.foo.bar".to_owned(), "example.org".to_owned()];
        let text = for_container(server, None, &domain, &search);
        assert!(text.contains("\nsearch a.foo.bar example.org\n"), "{text}");
        assert_eq!(asked_search(&text), search);
    }

    #[test]
    fn a_file_moves_to_another_server_and_domain() {
        let (old, new) = ("foo.bar", "example.internal");
        let [old, new] = [old, new].map(|text| Domain::parse(text).unwrap());
        let servers = [1, 2].map(|last| Ipv4Addr::new(169, 254, 53, last));
        let asked = ["example.org".to_owned()];
        for (name, search) in [
            (None, &[][..]),
            (Some("c1.{}"), &[]),
            (Some("c1.a.b.{}"), &[]),
            (None, &asked),
        ] {
            let [before, after] =
                [(&old, servers[0]), (&new, servers[1])].map(|(domain, server)| {
                    let name = name.map(|name| name.replace("{}", domain.name().as_str()));
                    let name = name.map(|name| DnsName::parse(&name).unwrap());
                    for_container(server, name.as_ref(), domain, search)
                });
            assert_eq!(moved(&before, servers[1], &new), after);
            assert_eq!(moved(&after, servers[1], &new), after);
        }
    }
}
