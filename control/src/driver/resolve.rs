//! Finds the addresses of a target: the hosts file first, then DNS; never the C library, so static binaries work.
//!
//! Nothing is remembered between attempts: a name that moved is found at its new place.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;

use crate::link::dialer::{TargetAddress, TargetHost};

const HOSTS_FILE: &str = "/etc/hosts";
/// One question to one name server; two fit into a dial.
const QUERY_TIMEOUT: Duration = Duration::from_millis(900);
/// Addresses tried for one target.
const ADDRESSES_MAX: usize = 8;

/// The addresses of a target, best first; empty if it has none.
pub(crate) async fn addresses(target: &TargetAddress) -> Vec<SocketAddr> {
    let name = match &target.host {
        TargetHost::Ip(ip) => return vec![SocketAddr::new(*ip, target.port)],
        TargetHost::Name(name) => name,
    };
    let mut found = from_hosts_file(Path::new(HOSTS_FILE), name).await;
    if found.is_empty() {
        found = from_dns(name).await;
    }
    found.truncate(ADDRESSES_MAX);
    found
        .into_iter()
        .map(|ip| SocketAddr::new(ip, target.port))
        .collect()
}

async fn from_hosts_file(path: &Path, name: &str) -> Vec<IpAddr> {
    let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
    parse_hosts(&text, name)
}

fn parse_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let address_if_named = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    };
    text.lines().filter_map(address_if_named).collect()
}

async fn from_dns(name: &str) -> Vec<IpAddr> {
    let Ok(mut builder) = TokioResolver::builder_tokio() else {
        return Vec::new();
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = QUERY_TIMEOUT;
    options.attempts = 1;
    options.cache_size = 0;
    let Ok(resolver) = builder.build() else {
        return Vec::new();
    };
    match resolver.lookup_ip(name).await {
        Ok(found) => found.iter().collect(),
        Err(error) => {
            tracing::debug!(name, %error, "name does not resolve");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_read_as_the_host_reads_it() {
        let text = "127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # not peer\n#192.0.2.9 peer\n192.0.2.1 a Peer b\nnonsense peer\n";
        let find = |name| {
            parse_hosts(text, name)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(find("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(find("PEER."), ["192.0.2.1"]);
        assert_eq!(find("not"), Vec::<String>::new());
        assert_eq!(find(""), Vec::<String>::new());
    }
}
