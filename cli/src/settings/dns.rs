//! What the DNS server is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use weft_control::dns::name::Domain;
use weft_control::driver::bridge;
use weft_control::driver::dns::guest::Guest;
use weft_control::driver::dns::parked::Parked;
use weft_control::driver::dns::{ADDRESS_DEFAULT, DOMAIN_DEFAULT, DnsConfig};

use super::Settings;
use crate::args::DnsLaunchArgs;

/// Longest time that an answer may be said to hold (RFC 2181, section 8).
const TTL_MAX: u32 = i32::MAX as u32;
/// The server's port.
const PORT: u16 = 53;
/// Domains that cannot be ours: reverse names, the host itself, and what multicast DNS answers, though domains below
/// that are nobody's.
const TAKEN: [&str; 3] = ["*.arpa", "*.localhost", "local"];

/// The arguments of `launch` about DNS.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DnsSettings {
    pub(crate) domain: String,
    pub(crate) ttl: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) upstreams: Vec<SocketAddr>,
    pub(crate) resolv_conf: PathBuf,
    pub(crate) client_rate: u32,
    pub(crate) docker_bridge: String,
    pub(crate) netns_files: PathBuf,
}

impl DnsSettings {
    pub(super) fn new(args: &DnsLaunchArgs) -> Self {
        Self {
            domain: args.dns_domain.clone(),
            ttl: args.dns_ttl,
            address: args.dns_address,
            upstreams: args.dns_upstream.clone(),
            resolv_conf: args.resolv_conf.clone(),
            client_rate: args.dns_client_rate,
            docker_bridge: args.docker_bridge.clone(),
            netns_files: args.netns_files.clone(),
        }
    }

    /// Refuses what the daemon could not use.
    pub(super) fn judge(&self) -> anyhow::Result<()> {
        self.domain()?;
        if !self.address.is_link_local() {
            bail!(
                "--dns-address {}: accepted is a link-local address, 169.254.0.1 to 169.254.255.254",
                self.address
            );
        }
        if self.ttl > TTL_MAX {
            bail!(
                "--dns-ttl {}: accepted are 0 to {TTL_MAX} seconds",
                self.ttl
            );
        }
        for upstream in &self.upstreams {
            self.judge_upstream(*upstream)?;
        }
        bridge::check_name(&self.docker_bridge).context("--docker-bridge")?;
        Ok(())
    }

    fn judge_upstream(&self, upstream: SocketAddr) -> anyhow::Result<()> {
        let ip = upstream.ip();
        let is_single = !(ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST);
        if upstream.port() == 0 || !is_single {
            bail!(
                "--dns-upstream {upstream}: accepted is a server's address, and a port from 1 on"
            );
        }
        if ip == self.address && upstream.port() == PORT {
            bail!("--dns-upstream {upstream}: that is our own server, see --dns-address");
        }
        Ok(())
    }

    fn domain(&self) -> anyhow::Result<Domain> {
        let domain = Domain::parse(&self.domain).context("--dns-domain")?;
        let text = domain.name().as_str().to_ascii_lowercase();
        let taken = TAKEN.iter().find(|taken| {
            let (taken, tree) = taken
                .strip_prefix("*.")
                .map_or((**taken, false), |t| (t, true));
            text == taken || tree && text.ends_with(&format!(".{taken}"))
        });
        if taken.is_some() {
            bail!(
                "--dns-domain {domain}: that is in use for something else; accepted is one such as weave.local. or example.internal."
            );
        }
        Ok(domain)
    }

    /// What the server wants.
    pub(crate) fn config(&self, bridge: &str) -> anyhow::Result<DnsConfig> {
        Ok(DnsConfig {
            domain: self.domain()?,
            ttl: self.ttl,
            address: self.address,
            bridge: bridge.to_owned(),
            docker_bridge: self.docker_bridge.clone(),
            upstreams: self.upstreams.clone(),
            resolv_conf: self.resolv_conf.clone(),
            client_rate: self.client_rate,
        })
    }

    /// What containers get.
    pub(super) fn guest(&self, parked: Parked) -> anyhow::Result<Guest> {
        let domain = self.domain()?;
        Ok(Guest::new(domain, self.address, &self.netns_files, parked))
    }
}

impl Settings {
    /// Where files of containers wait for DNS.
    pub(crate) fn parked(&self) -> Parked {
        Parked::below(&self.data_dir)
    }

    /// What containers get. Without DNS what they had, if they had it: enough to take it away.
    pub(crate) fn guest(&self) -> anyhow::Result<Guest> {
        if let Some(dns) = &self.dns {
            return dns.guest(self.parked());
        }
        let domain = Domain::parse(DOMAIN_DEFAULT).context("the default domain")?;
        let files = &self.netns_files;
        Ok(Guest::new(domain, ADDRESS_DEFAULT, files, self.parked()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut DnsSettings)) -> Result<(), String> {
        let mut settings = DnsSettings {
            domain: DOMAIN_DEFAULT.to_owned(),
            ttl: 1,
            address: ADDRESS_DEFAULT,
            upstreams: vec!["192.0.2.1:53".parse().unwrap()],
            resolv_conf: "/etc/resolv.conf".into(),
            client_rate: 0,
            docker_bridge: "docker0".to_owned(),
            netns_files: "/etc/netns".into(),
        };
        change(&mut settings);
        settings.judge().map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_server_could_not_use_is_refused() {
        judged(|_| ()).unwrap();
        judged(|settings| settings.ttl = TTL_MAX).unwrap();
        assert!(judged(|settings| settings.ttl = TTL_MAX + 1).is_err());
        for domain in ["in-addr.arpa", "IP6.ARPA.", "arpa", "local.", "a.localhost"] {
            let refused = judged(|settings| settings.domain = domain.to_owned()).unwrap_err();
            assert!(refused.contains("in use for something else"), "{refused}");
        }
        for domain in ["arpa.example.org", "mylocal", "example.internal"] {
            judged(|settings| settings.domain = domain.to_owned()).unwrap();
        }
        for (upstream, accepted) in [
            ("192.0.2.1:0", false),
            ("0.0.0.0:53", false),
            ("224.0.0.251:5353", false),
            ("255.255.255.255:53", false),
            ("[::]:53", false),
            ("169.254.53.1:53", false),
            ("169.254.53.1:5353", true),
            ("127.0.0.1:53", true),
        ] {
            let upstream = vec![upstream.parse().unwrap()];
            let outcome = judged(|settings| settings.upstreams = upstream.clone());
            assert_eq!(outcome.is_ok(), accepted, "{upstream:?}");
        }
    }
}
