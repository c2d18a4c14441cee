//! Puts a container on the network: a veth from the bridge into its namespace, addresses, routes; takes it off again.
//!
//! ```text
//!  host namespace                       │  container's namespace
//!  bridge `weft` ── vethwe3f0c81d2a ────┼──── ethwe  10.2.1.1/24, 224.0.0.0/4
//!                   alias: who it is    │
//! ```
//!
//! Everything is looked at before anything is changed, and what was changed is undone if a later step fails. Doing it
//! again does nothing, or mends what somebody else changed. No state is kept here: the kernel has it.
//! Calls on the same host must not overlap; [`Host`] queues them.

mod apply;
mod endpoint;
mod follow;
mod follow_dns;
mod multicast;
pub(super) mod watch;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use tokio::sync::Mutex;

use self::apply::{Plan, find_pair, take};
pub use self::endpoint::{Endpoint, Settled};
pub use self::follow::follow_mtu;
pub use self::follow_dns::follow_dns;
use self::multicast::Table;
use super::address::OtherPrefix;
use super::bridge::BridgeError;
use super::container::{Container, shown_id};
use super::identity::{Alias, HOST_PREFIX, container_mac, host_name};
use super::netlink::{GsoLimits, Interface, Netlink, NetlinkError};
use super::netns::{NetNs, NetNsError, run_between};
use crate::api::Attachment;

/// The interface's name in every container.
pub const CONTAINER_INTERFACE: &str = "ethwe";
/// Most addresses on one container interface: a dozen is much, and each one is announced and gossiped.
pub const ADDRESSES_MAX: usize = 256;
/// Why a container was not attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The host's side is not there.
    #[error("no bridge {0} to attach to")]
    NoBridge(String),
    /// Somebody else uses the name.
    #[error(
        "the container has an interface {CONTAINER_INTERFACE} that is not weft's: remove or rename it first"
    )]
    ForeignInterface,
    /// Another interface of the container has it.
    #[error("{address} is on interface {interface} of the container already")]
    AddressElsewhere {
        /// As asked.
        address: IpAddr,
        /// Who has it.
        interface: String,
    },
    /// It was attached by another name meanwhile.
    #[error("this namespace is attached as {0}: give that name")]
    OtherName(String),
    /// It is attached with another prefix.
    #[error(transparent)]
    OtherPrefix(#[from] OtherPrefix),
    /// Over the limit.
    #[error("a container can have at most {ADDRESSES_MAX} addresses")]
    TooManyAddresses,
    /// An interface was gone right after it was made.
    #[error("interface {0} vanished while it was set up")]
    Vanished(String),
    /// The host's side could not be looked at.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The namespace cannot be worked in.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

impl AttachError {
    /// True if another request would do better.
    pub fn is_request_fault(&self) -> bool {
        match self {
            Self::ForeignInterface
            | Self::AddressElsewhere { .. }
            | Self::OtherName(_)
            | Self::OtherPrefix(_)
            | Self::TooManyAddresses => true,
            Self::NoBridge(_)
            | Self::Bridge(_)
            | Self::Vanished(_)
            | Self::Netlink(_)
            | Self::NetNs(_) => false,
        }
    }
}

/// How to attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachOptions {
    /// Overlay MTU in bytes; an interface that exists keeps its own until the next launch.
    pub mtu: u32,
    /// Route 224.0.0.0/4 to the interface.
    pub multicast_route: bool,
    /// Let the container reach itself through the bridge, as service addresses need.
    pub hairpin: bool,
    /// Limits of the super-frames that the container may send.
    pub gso: GsoLimits,
    /// Route this address of the host to the interface: its DNS server.
    pub dns: Option<Ipv4Addr>,
}

/// A container on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// MAC of `ethwe`.
    pub mac: [u8; 6],
    /// All its addresses, in the order in which they came; link-local ones are the kernel's own and not counted.
    pub addresses: Vec<IpNet>,
}

/// What came of taking addresses away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    /// What the container still has; none means that it is off the network.
    pub left: Option<Attached>,
    /// What it did not have.
    pub absent: Vec<IpNet>,
}

/// The host's side of all attachments.
#[derive(Debug)]
pub struct Host {
    netns: NetNs,
    bridge: String,
    peer_name: [u8; 6],
    /// Docker's own bridge, if there is Docker.
    docker_bridge: Option<String>,
    /// One change at a time.
    turn: Mutex<()>,
}

impl Host {
    /// `netns` is the namespace of the bridge called `bridge`; the MACs depend on `peer_name`.
    pub fn new(netns: NetNs, bridge: &str, peer_name: [u8; 6]) -> Self {
        Self {
            netns,
            bridge: bridge.to_owned(),
            peer_name,
            docker_bridge: None,
            turn: Mutex::new(()),
        }
    }

    /// The same on a host with Docker, whose own bridge has this name.
    #[must_use]
    pub fn beside_docker(mut self, docker_bridge: &str) -> Self {
        self.docker_bridge = Some(docker_bridge.to_owned());
        self
    }

    /// Docker's own bridge, if there is Docker.
    pub fn docker_bridge(&self) -> Option<&str> {
        self.docker_bridge.as_deref()
    }

    /// The namespace of the bridge.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// The bridge's name.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The container under the name by which its namespace is attached already, if it is: what it is counts, not what
    /// it is called.
    pub async fn known(&self, container: Container) -> Result<Container, AttachError> {
        let alias = Alias::new(&self.bridge, &container);
        let found = run_between(&self.netns, &container.netns, |host, guest| async move {
            match find_pair(&host, &guest, &alias).await {
                Ok(pair) => Ok(pair.and_then(|pair| pair.alias(&alias.bridge))),
                // Attaching says so.
                Err(AttachError::ForeignInterface) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await?;
        Ok(match found {
            Some(alias) if alias.id != container.id => container.attached_as(alias.id, &alias.path),
            Some(_) | None => container,
        })
    }

    /// Attaches a container, or adds addresses to an attached one.
    pub async fn attach(
        &self,
        container: &Container,
        addresses: &[IpNet],
        options: AttachOptions,
    ) -> Result<Attached, AttachError> {
        let _turn = self.turn.lock().await;
        let plan = Plan {
            bridge: self.bridge.clone(),
            alias: Alias::new(&self.bridge, container),
            guest: container.netns.clone(),
            host_name: host_name(container),
            mac: container_mac(self.peer_name, &container.id),
            addresses: addresses.to_vec(),
            options,
        };
        run_between(&self.netns, &container.netns, |host, guest| async move {
            plan.apply(&host, &guest).await
        })
        .await
    }

    /// Takes addresses from a container. One that has none left is to be [removed](Self::remove) once nothing else is
    /// left of it: until then [`Self::unfinished`] names it after a crash.
    pub async fn detach(
        &self,
        container: &Container,
        addresses: &[IpNet],
    ) -> Result<Detached, AttachError> {
        let _turn = self.turn.lock().await;
        let addresses = addresses.to_vec();
        let alias = Alias::new(&self.bridge, container);
        run_between(&self.netns, &container.netns, |host, guest| async move {
            let Some(pair) = find_pair(&host, &guest, &alias).await? else {
                return Ok(Detached {
                    left: None,
                    absent: addresses,
                });
            };
            take(&guest, &pair, &addresses).await
        })
        .await
    }

    /// Removes the interface of a container that has no addresses left.
    pub async fn remove(&self, container: &Container) -> Result<(), AttachError> {
        let _turn = self.turn.lock().await;
        let alias = Alias::new(&self.bridge, container);
        run_between(&self.netns, &container.netns, |host, guest| async move {
            if let Some(pair) = find_pair(&host, &guest, &alias).await? {
                host.delete(pair.outer.index, &pair.outer.name).await?;
            }
            Ok(())
        })
        .await
    }

    /// The whole ids of all attached containers, with their addresses; `None` if a namespace cannot be found.
    pub async fn holders(&self) -> Result<BTreeMap<String, Option<Vec<IpNet>>>, AttachError> {
        let bridge = self.bridge.clone();
        self.netns
            .run(move |host| async move {
                let mut holders = BTreeMap::new();
                for outer in host.interfaces().await? {
                    let alias = Alias::from_text(&outer.alias);
                    if let Some(alias) = alias.filter(|alias| alias.bridge == bridge) {
                        let addresses = match NetNs::find(alias.inode, &alias.path) {
                            Some(netns) => {
                                let found = look_into(netns, &outer).await?;
                                Some(found.map(|(_, addresses)| addresses).unwrap_or_default())
                            }
                            None => None,
                        };
                        holders.insert(alias.id, addresses);
                    }
                }
                Ok(holders)
            })
            .await
    }

    /// Whose attaching or detaching was cut off half way: whole ids of those whose interface [`Self::sweep`] removes.
    pub async fn unfinished(&self) -> Result<Vec<String>, AttachError> {
        let bridge = self.bridge.clone();
        self.netns
            .run(move |host| async move {
                let mut ids = Vec::new();
                for outer in host.interfaces().await? {
                    let alias = Alias::from_text(&outer.alias);
                    if let Some(alias) = alias.filter(|alias| alias.bridge == bridge)
                        && is_unfinished(&outer).await?
                    {
                        ids.push(alias.id);
                    }
                }
                Ok(ids)
            })
            .await
    }

    /// Removes what attachments left behind that were cut off half way: interfaces without an address, or without a
    /// word on whose they are, and their rules for multicast. For a host to which nobody attaches yet.
    pub async fn sweep(&self) -> Result<(), AttachError> {
        let _turn = self.turn.lock().await;
        let name = self.bridge.clone();
        self.netns
            .run(move |host| async move {
                let Some(bridge) = host.interface(&name).await? else {
                    return Ok(());
                };
                for outer in host.interfaces().await? {
                    let is_ours = outer.controller == Some(bridge.index)
                        && outer.name.starts_with(HOST_PREFIX);
                    if is_ours
                        && (endpoint::is_left_over(&host, &outer).await?
                            || is_unfinished(&outer).await?)
                    {
                        tracing::info!(interface = outer.name, "attachment cut off, removed");
                        forget_multicast_of(&outer);
                        host.delete(outer.index, &outer.name).await?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// All attached containers, by id. One whose namespace cannot be found is listed without addresses.
    pub async fn list(&self) -> Result<Vec<Attachment>, AttachError> {
        let listed = self.list_as_shown().await?;
        Ok(listed.into_iter().map(|(line, _)| line).collect())
    }

    /// The same, each with what users know it by if that is not its id.
    pub async fn list_as_shown(&self) -> Result<Vec<(Attachment, Option<String>)>, AttachError> {
        let (bridge, peer_name) = (self.bridge.clone(), self.peer_name);
        self.netns
            .run(move |host| async move {
                let mut attachments = Vec::new();
                for outer in host.interfaces().await? {
                    let Some(alias) =
                        Alias::from_text(&outer.alias).filter(|alias| alias.bridge == bridge)
                    else {
                        continue;
                    };
                    let found = look_inside(&alias, &outer).await?;
                    let (mac, addresses) =
                        found.unwrap_or_else(|| (container_mac(peer_name, &alias.id), Vec::new()));
                    let line = Attachment {
                        id: shown_id(&alias.id).to_owned(),
                        mac: mac_text(mac),
                        addresses,
                    };
                    attachments.push((line, alias.shown));
                }
                attachments.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
                Ok(attachments)
            })
            .await
    }
}

/// Takes the rules for multicast out of the namespace that a host end leads into, or led, if there still is one.
pub(super) fn forget_multicast_of(outer: &Interface) {
    let Some(alias) = Alias::from_text(&outer.alias) else {
        return;
    };
    let Some(guest) = NetNs::find(alias.inode, &alias.path) else {
        return;
    };
    let table = if alias.is_dockers() {
        Table::of_endpoint(&outer.name)
    } else {
        Table::own()
    };
    let forget = || multicast::forget(&table);
    if let Err(error) = Netlink::open(guest).and_then(|guest| guest.inside(forget)) {
        tracing::warn!(%error, container = alias.id, "rules for multicast stay in the container");
    }
}

/// A MAC as it is shown, `da:fa:eb:dc:28:27`.
pub fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

async fn is_unfinished(outer: &Interface) -> Result<bool, AttachError> {
    let Some(alias) = Alias::from_text(&outer.alias) else {
        return Ok(true);
    };
    let Some(netns) = NetNs::find(alias.inode, &alias.path) else {
        return Ok(false);
    };
    let found = look_into(netns, outer).await?;
    Ok(found.is_some_and(|(_, addresses)| addresses.is_empty()))
}

async fn look_inside(
    alias: &Alias,
    outer: &Interface,
) -> Result<Option<([u8; 6], Vec<IpNet>)>, AttachError> {
    match NetNs::find(alias.inode, &alias.path) {
        Some(netns) => look_into(netns, outer).await,
        None => Ok(None),
    }
}

/// The MAC of a container's end, whatever it is called by now, and its addresses.
async fn look_into(
    netns: NetNs,
    outer: &Interface,
) -> Result<Option<([u8; 6], Vec<IpNet>)>, AttachError> {
    let guest = Netlink::open(netns)?;
    let Some(inner) = apply::inner_of(&guest, outer).await? else {
        return Ok(None);
    };
    let addresses = guest.addresses_of(inner.index).await?;
    Ok(inner.mac.map(|mac| (mac, addresses)))
}
