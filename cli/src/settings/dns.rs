//! What the DNS server is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use weft_control::dns::name::Domain;
use weft_control::driver::bridge;
use weft_control::driver::dns::DnsConfig;
use weft_control::driver::dns::guest::Guest;

use crate::args::DnsLaunchArgs;

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
        bridge::check_name(&self.docker_bridge).context("--docker-bridge")?;
        Ok(())
    }

    fn domain(&self) -> anyhow::Result<Domain> {
        Domain::parse(&self.domain).context("--dns-domain")
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
    pub(crate) fn guest(&self) -> anyhow::Result<Guest> {
        Ok(Guest::new(self.domain()?, self.address, &self.netns_files))
    }
}
