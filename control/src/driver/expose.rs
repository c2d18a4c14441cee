//! The host's own place on the network: addresses on the bridge, and the translation that goes with them.
//!
//! The bridge's addresses are the state; which of their subnets are translated stands in the firewall's table and,
//! while the daemon runs, here. A pause of `LOOK_PAUSE` is the longest that flushed rules are missing.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::sync::Mutex;

use super::announce::announce;
use super::bridge::{self, BridgeError};
use super::firewall::{self, FirewallError};
use super::netns::NetNs;

/// How often the rules are looked at.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// Why the host was not put on the network.
#[derive(Debug, thiserror::Error)]
pub enum ExposeError {
    /// The bridge.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The rules.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

/// The host's addresses on one bridge.
#[derive(Debug)]
pub(crate) struct Exposure {
    netns: NetNs,
    bridge: String,
    /// Subnets that are translated; `None` until they were looked up.
    translated: Mutex<Option<BTreeSet<Ipv4Net>>>,
}

impl Exposure {
    pub(crate) fn new(netns: NetNs, bridge: &str) -> Self {
        Self {
            netns,
            bridge: bridge.to_owned(),
            translated: Mutex::new(None),
        }
    }

    /// Puts addresses on the bridge; with `masquerade` their subnets are translated, else not any more.
    pub(crate) async fn add(
        &self,
        addresses: &[IpNet],
        masquerade: bool,
    ) -> Result<(), ExposeError> {
        let mac = bridge::add_addresses(&self.netns, &self.bridge, addresses).await?;
        let (name, ips) = (self.bridge.clone(), addresses.to_vec());
        let announced = self
            .netns
            .run(move |netlink| async move {
                let told = netlink.inside(|| announce(&name, mac, ips.iter().map(IpNet::addr)))?;
                if let Err(error) = told {
                    tracing::debug!(%error, "the host's addresses were not announced");
                }
                Ok::<_, BridgeError>(())
            })
            .await;
        announced?;
        let mut translated = self.translated.lock().await;
        let known = self.known(&mut translated).await?;
        for subnet in addresses.iter().filter_map(subnet_of) {
            if masquerade {
                known.insert(subnet);
            } else {
                known.remove(&subnet);
            }
        }
        write(known).await
    }

    /// Takes addresses off the bridge; those that are not there are fine.
    pub(crate) async fn remove(&self, addresses: &[IpNet]) -> Result<(), ExposeError> {
        bridge::remove_addresses(&self.netns, &self.bridge, addresses).await?;
        let left = self.addresses().await?;
        let mut translated = self.translated.lock().await;
        let known = self.known(&mut translated).await?;
        let still: BTreeSet<Ipv4Net> = left.iter().filter_map(subnet_of).collect();
        known.retain(|subnet| still.contains(subnet));
        write(known).await
    }

    async fn addresses(&self) -> Result<Vec<IpNet>, BridgeError> {
        let found = bridge::exposed(&self.netns, &self.bridge).await?;
        Ok(found.map(|(_, addresses)| addresses).unwrap_or_default())
    }

    /// What is translated; at first what the table of an earlier daemon says, or all that is exposed if it is gone.
    async fn known<'a>(
        &self,
        translated: &'a mut Option<BTreeSet<Ipv4Net>>,
    ) -> Result<&'a mut BTreeSet<Ipv4Net>, ExposeError> {
        if translated.is_none() {
            let addresses = self.addresses().await?;
            let exposed: BTreeSet<Ipv4Net> = addresses.iter().filter_map(subnet_of).collect();
            let found = if exposed.is_empty() {
                BTreeSet::new()
            } else {
                match firewall::translated().await? {
                    Some(listed) => listed
                        .into_iter()
                        .filter(|one| exposed.contains(one))
                        .collect(),
                    None => exposed,
                }
            };
            *translated = Some(found);
        }
        Ok(translated.get_or_insert_default())
    }

    /// Puts rules back that somebody flushed, for ever.
    pub(crate) async fn watch(&self) {
        loop {
            if let Err(error) = self.mend().await {
                tracing::debug!(%error, "the firewall's rules cannot be looked at");
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn mend(&self) -> Result<(), ExposeError> {
        let mut translated = self.translated.lock().await;
        let known = self.known(&mut translated).await?;
        if known.is_empty() {
            return Ok(());
        }
        let found: Option<BTreeSet<Ipv4Net>> = firewall::translated()
            .await?
            .map(|listed| listed.into_iter().collect());
        if found.as_ref() != Some(known) {
            tracing::warn!("the rules for exposed subnets were gone, put back");
            write(known).await?;
        }
        Ok(())
    }
}

async fn write(subnets: &BTreeSet<Ipv4Net>) -> Result<(), ExposeError> {
    let wanted: Vec<Ipv4Net> = subnets.iter().copied().collect();
    match firewall::apply(&wanted).await {
        // Nothing is wanted and nothing can be there.
        Err(FirewallError::Start(_)) if wanted.is_empty() => Ok(()),
        outcome => Ok(outcome?),
    }
}

fn subnet_of(address: &IpNet) -> Option<Ipv4Net> {
    match address {
        IpNet::V4(address) if address.prefix_len() < 32 => Some(address.trunc()),
        IpNet::V4(_) | IpNet::V6(_) => None,
    }
}
