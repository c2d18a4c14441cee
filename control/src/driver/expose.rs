//! The host's own place on the network: addresses on the bridge, and the translation that goes with them.
//!
//! The bridge's addresses are the state; which of their subnets are translated stands in the firewall's table and,
//! while the daemon runs, here. Flushed rules are put back as soon as the kernel tells of a change.
//! The table is there as long as any address is, so that a subnet without rules is known to be one without translation.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::sync::Mutex;

use super::announce::announce;
use super::bridge::{self, BridgeError};
use super::firewall::{self, FirewallChanges, FirewallError};
use super::netns::NetNs;

/// How often the rules are looked at, whatever the kernel tells.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// Shortest time from one look to the next: with a tool that insists on its own rules, this is how often we differ.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

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
    /// `None` until it was looked up.
    rules: Mutex<Option<Rules>>,
}

/// What the firewall's table is to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules {
    /// Whether the host is on the network at all; else there is to be no table.
    exposed: bool,
    /// Subnets that are translated.
    translated: BTreeSet<Ipv4Net>,
}

impl Exposure {
    pub(crate) fn new(netns: NetNs, bridge: &str) -> Self {
        Self {
            netns,
            bridge: bridge.to_owned(),
            rules: Mutex::new(None),
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
        let mut rules = self.rules.lock().await;
        let rules = self.known(&mut rules).await?;
        let mut wanted = rules.clone();
        wanted.exposed = true;
        for subnet in addresses.iter().filter_map(subnet_of) {
            if masquerade {
                wanted.translated.insert(subnet);
            } else {
                wanted.translated.remove(&subnet);
            }
        }
        wanted.write().await?;
        *rules = wanted;
        Ok(())
    }

    /// Takes addresses off the bridge; those that are not there are fine.
    pub(crate) async fn remove(&self, addresses: &[IpNet]) -> Result<(), ExposeError> {
        bridge::remove_addresses(&self.netns, &self.bridge, addresses).await?;
        let left = self.addresses().await?;
        let mut rules = self.rules.lock().await;
        let rules = self.known(&mut rules).await?;
        let still: BTreeSet<Ipv4Net> = left.iter().filter_map(subnet_of).collect();
        rules.exposed = !left.is_empty();
        rules.translated.retain(|subnet| still.contains(subnet));
        rules.write().await
    }

    async fn addresses(&self) -> Result<Vec<IpNet>, BridgeError> {
        let found = bridge::exposed(&self.netns, &self.bridge).await?;
        Ok(found.map(|(_, addresses)| addresses).unwrap_or_default())
    }

    /// The rules; at first what the table of an earlier daemon says, or all that is exposed if it is gone.
    async fn known<'a>(&self, rules: &'a mut Option<Rules>) -> Result<&'a mut Rules, ExposeError> {
        if rules.is_none() {
            let addresses = self.addresses().await?;
            let subnets: BTreeSet<Ipv4Net> = addresses.iter().filter_map(subnet_of).collect();
            let translated = if addresses.is_empty() {
                BTreeSet::new()
            } else {
                match firewall::translated().await {
                    Ok(Some(listed)) => listed
                        .into_iter()
                        .filter(|one| subnets.contains(one))
                        .collect(),
                    Ok(None) => subnets,
                    // Without the program nothing was ever translated.
                    Err(FirewallError::Start(_)) => BTreeSet::new(),
                    Err(error) => return Err(error.into()),
                }
            };
            *rules = Some(Rules {
                exposed: !addresses.is_empty(),
                translated,
            });
        }
        Ok(rules.get_or_insert_default())
    }

    /// Puts rules back that somebody flushed, for ever.
    pub(crate) async fn watch(&self) {
        let changes = FirewallChanges::open();
        if let Err(error) = &changes {
            tracing::debug!(%error, "changes of the firewall are not told");
        }
        loop {
            if let Err(error) = self.mend().await {
                tracing::debug!(%error, "the firewall's rules cannot be looked at");
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
            let told = async {
                match &changes {
                    Ok(changes) => changes.next().await,
                    Err(_) => std::future::pending().await,
                }
            };
            // A pause without news, or none that can be had: time for a look.
            let _ = tokio::time::timeout(LOOK_PAUSE, told).await;
        }
    }

    async fn mend(&self) -> Result<(), ExposeError> {
        let mut rules = self.rules.lock().await;
        let rules = self.known(&mut rules).await?;
        // A bridge that is gone, as after a reset, needs no rules.
        if !rules.exposed || self.addresses().await?.is_empty() {
            return Ok(());
        }
        let found: Option<BTreeSet<Ipv4Net>> = firewall::translated()
            .await?
            .map(|listed| listed.into_iter().collect());
        if found.as_ref() != Some(&rules.translated) {
            tracing::warn!("the rules for exposed subnets were gone, put back");
            rules.write().await?;
        }
        Ok(())
    }
}

impl Rules {
    async fn write(&self) -> Result<(), ExposeError> {
        let wanted: Vec<Ipv4Net> = self.translated.iter().copied().collect();
        match firewall::apply(self.exposed.then_some(wanted.as_slice())).await {
            // Nothing is wanted and nothing can be there.
            Err(FirewallError::Start(_)) if wanted.is_empty() => Ok(()),
            outcome => Ok(outcome?),
        }
    }
}

fn subnet_of(address: &IpNet) -> Option<Ipv4Net> {
    match address {
        IpNet::V4(address) if address.prefix_len() < 32 => Some(address.trunc()),
        IpNet::V4(_) | IpNet::V6(_) => None,
    }
}
