//! The host's own place on the network: addresses on the bridge, and the translation that goes with them.
//!
//! The bridge's addresses are the state; which of their subnets are translated stands in the firewall's table. While
//! the daemon runs both stand here, too: flushed rules and addresses are put back as soon as the kernel tells of a
//! change, also on a bridge that was made anew.
//! The table is there as long as any address is, so that a subnet without rules is known to be one without translation.

pub(super) mod changes;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::sync::Mutex;

use self::changes::Changes;
use super::address::{OtherPrefix, check_prefix};
use super::announce::announce;
use super::bridge::{self, BridgeError};
use super::firewall::{self, FirewallError, Gate};
use super::netns::NetNs;

/// How often the rules are looked at, whatever the kernel tells.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// Shortest time from one look to the next: with a tool that insists on its own rules, this is how often we differ.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// Why the host was not put on the network.
#[derive(Debug, thiserror::Error)]
pub enum ExposeError {
    /// It is there with another prefix.
    #[error(transparent)]
    OtherPrefix(#[from] OtherPrefix),
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
    /// On a host with Docker.
    gate: Option<Gate>,
    /// `None` until it was looked up. Held while either is changed.
    wanted: Mutex<Option<Wanted>>,
}

/// What the bridge and the firewall's table are to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    /// On the bridge; without any there is to be no table.
    addresses: BTreeSet<IpNet>,
    /// Subnets that are translated.
    translated: BTreeSet<Ipv4Net>,
}

impl Exposure {
    /// `docker_bridge` is Docker's own on a host that has Docker.
    pub(crate) fn new(netns: NetNs, bridge: &str, docker_bridge: Option<&str>) -> Self {
        let gate = docker_bridge.map(|docker_bridge| Gate {
            bridge: bridge.to_owned(),
            docker_bridge: docker_bridge.to_owned(),
        });
        Self {
            netns,
            bridge: bridge.to_owned(),
            gate,
            wanted: Mutex::new(None),
        }
    }

    /// Puts addresses on the bridge; with `masquerade` their subnets are translated, else not any more.
    pub(crate) async fn add(
        &self,
        addresses: &[IpNet],
        masquerade: bool,
    ) -> Result<(), ExposeError> {
        let mut known = self.wanted.lock().await;
        let known = self.known(&mut known).await?;
        self.check_prefixes(addresses, known).await?;
        self.put(addresses).await?;
        let mut wanted = known.clone();
        wanted.addresses.extend(addresses);
        for subnet in addresses.iter().filter_map(subnet_of) {
            if masquerade {
                wanted.translated.insert(subnet);
            } else {
                wanted.translated.remove(&subnet);
            }
        }
        self.write(&wanted).await?;
        *known = wanted;
        Ok(())
    }

    /// Puts addresses on the bridge, those that are missing, and tells the network where they are.
    async fn put(&self, addresses: &[IpNet]) -> Result<(), BridgeError> {
        let mac = bridge::add_addresses(&self.netns, &self.bridge, addresses).await?;
        let (name, ips) = (self.bridge.clone(), addresses.to_vec());
        self.netns
            .run(move |netlink| async move {
                let told = netlink.inside(|| announce(&name, mac, ips.iter().map(IpNet::addr)))?;
                if let Err(error) = told {
                    tracing::debug!(%error, "the host's addresses were not announced");
                }
                Ok(())
            })
            .await
    }

    /// Nothing is put on or taken off that is there with another prefix: its number is the same one.
    async fn check_prefixes(&self, asked: &[IpNet], wanted: &Wanted) -> Result<(), ExposeError> {
        let mut present = self.present().await?.unwrap_or_default();
        present.extend(&wanted.addresses);
        for asked in asked {
            check_prefix(*asked, &present)?;
        }
        Ok(())
    }

    /// Takes addresses off the bridge; those that are not there are fine. Returns what is left.
    pub(crate) async fn remove(&self, addresses: &[IpNet]) -> Result<BTreeSet<IpNet>, ExposeError> {
        let mut known = self.wanted.lock().await;
        let wanted = self.known(&mut known).await?;
        self.check_prefixes(addresses, wanted).await?;
        bridge::remove_addresses(&self.netns, &self.bridge, addresses).await?;
        wanted
            .addresses
            .retain(|address| !addresses.contains(address));
        let mut left = wanted.addresses.clone();
        left.extend(self.present().await?.unwrap_or_default());
        let still: BTreeSet<Ipv4Net> = left.iter().filter_map(subnet_of).collect();
        wanted.translated.retain(|subnet| still.contains(subnet));
        self.write(wanted).await?;
        Ok(left)
    }

    async fn write(&self, wanted: &Wanted) -> Result<(), ExposeError> {
        wanted.write(self.gate.as_ref()).await?;
        self.pass_docker(wanted).await;
        Ok(())
    }

    /// Docker's filter lets pass what the host passes on while it is exposed.
    async fn pass_docker(&self, wanted: &Wanted) {
        if self.gate.is_none() {
            return;
        }
        match firewall::docker::pass_on(&self.bridge, !wanted.addresses.is_empty()).await {
            Ok(true) => tracing::info!("Docker's filter has other rules for exposed subnets now"),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "no iptables, so Docker does not filter"),
        }
    }

    /// What is on the bridge; `None` if there is no bridge.
    async fn present(&self) -> Result<Option<Vec<IpNet>>, BridgeError> {
        let found = bridge::exposed(&self.netns, &self.bridge).await?;
        Ok(found.map(|(_, addresses)| addresses))
    }

    /// What is wanted; at first what is on the bridge, and what the table of an earlier daemon says, or all that is
    /// exposed if it is gone.
    async fn known<'a>(
        &self,
        wanted: &'a mut Option<Wanted>,
    ) -> Result<&'a mut Wanted, ExposeError> {
        if wanted.is_none() {
            let addresses = self.present().await?.unwrap_or_default();
            let subnets: BTreeSet<Ipv4Net> = addresses.iter().filter_map(subnet_of).collect();
            let translated = if addresses.is_empty() {
                BTreeSet::new()
            } else {
                match firewall::standing().await {
                    Ok(Some(listed)) => listed
                        .translated
                        .into_iter()
                        .filter(|one| subnets.contains(one))
                        .collect(),
                    Ok(None) => subnets,
                    // Without the program nothing was ever translated.
                    Err(FirewallError::Start(_)) => BTreeSet::new(),
                    Err(error) => return Err(error.into()),
                }
            };
            *wanted = Some(Wanted {
                addresses: addresses.into_iter().collect(),
                translated,
            });
        }
        Ok(wanted.get_or_insert_default())
    }

    /// Puts addresses and rules back that somebody flushed, for ever.
    pub(crate) async fn watch(&self) {
        let sources = [Changes::of_firewall(), Changes::of_addresses()];
        for error in sources.iter().filter_map(|source| source.as_ref().err()) {
            tracing::debug!(%error, "changes of firewall or addresses are not told");
        }
        loop {
            if let Err(error) = self.mend().await {
                tracing::debug!(%error, "exposed addresses or their rules cannot be looked at");
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
            let [rules, addresses] = &sources;
            // A pause without news, or none that can be had: time for a look.
            tokio::select! {
                () = told(rules) => {}
                () = told(addresses) => {}
                () = tokio::time::sleep(LOOK_PAUSE) => {}
            }
        }
    }

    async fn mend(&self) -> Result<(), ExposeError> {
        let mut known = self.wanted.lock().await;
        let wanted = self.known(&mut known).await?;
        if wanted.addresses.is_empty() {
            return Ok(());
        }
        // A bridge that is gone its keeper makes anew; after a reset there is none for ever.
        let Some(present) = self.present().await? else {
            return Ok(());
        };
        let missing: Vec<IpNet> = wanted
            .addresses
            .iter()
            .copied()
            .filter(|address| !present.contains(address))
            .collect();
        if !missing.is_empty() {
            tracing::warn!(?missing, "exposed addresses were gone, put back");
            self.put(&missing).await?;
        }
        let is_as_wanted = firewall::standing().await?.is_some_and(|found| {
            found.translated.iter().eq(&wanted.translated) && found.is_gated == self.gate.is_some()
        });
        if !is_as_wanted {
            tracing::warn!("the rules for exposed subnets were gone, put back");
            wanted.write(self.gate.as_ref()).await?;
        }
        // Docker may have come, or may have been set up anew.
        self.pass_docker(wanted).await;
        Ok(())
    }
}

/// Waits for news; for ever if none can be had.
async fn told(source: &io::Result<Changes>) {
    let is_told = match source {
        Ok(changes) => changes.next().await.is_ok(),
        Err(_) => false,
    };
    if !is_told {
        std::future::pending().await
    }
}

impl Wanted {
    async fn write(&self, gate: Option<&Gate>) -> Result<(), ExposeError> {
        let wanted: Vec<Ipv4Net> = self.translated.iter().copied().collect();
        let is_exposed = !self.addresses.is_empty();
        match firewall::apply(is_exposed.then_some(wanted.as_slice()), gate).await {
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
