//! One attachment, step by step: survey, carry out, and undo if a step fails; and the way back.
//!
//! Works on two netlink sockets, the host's and the guest's (the container's).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::multicast::{self, Table};
use super::{ADDRESSES_MAX, AttachError, AttachOptions, Attached, CONTAINER_INTERFACE, Detached};
use crate::driver::address::check_prefix;
use crate::driver::announce::announce;
use crate::driver::identity::{Alias, HOST_PREFIX};
use crate::driver::netlink::{GsoLimits, Interface, Netlink};
use crate::driver::netns::NetNs;
use crate::driver::sysctl;

/// Longest wait for the bridge to pass frames from a new port; it takes a millisecond.
const FORWARDING_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two looks at that.
const FORWARDING_POLL: Duration = Duration::from_millis(1);

/// What one call works on; owned, since it goes to another thread.
pub(super) struct Plan {
    pub(super) bridge: String,
    pub(super) alias: Alias,
    pub(super) guest: NetNs,
    pub(super) host_name: String,
    pub(super) mac: [u8; 6],
    pub(super) addresses: Vec<IpNet>,
    pub(super) options: AttachOptions,
}

/// The two ends of a container's veth.
pub(super) struct Pair {
    inner: Interface,
    pub(super) outer: Interface,
}

impl Pair {
    /// What the host end says of whose it is, if it is of this bridge.
    pub(super) fn alias(&self, bridge: &str) -> Option<Alias> {
        Alias::from_text(&self.outer.alias).filter(|alias| alias.bridge == bridge)
    }
}

/// What was found before anything is changed.
struct Survey {
    bridge: Interface,
    pair: Option<Pair>,
    missing: Vec<IpNet>,
}

/// What this call changed, in order.
enum Undo {
    Interface(Interface),
    Address(u32, IpNet),
    /// The rules for multicast, which were for these addresses.
    Isolation(u32, Vec<IpNet>),
    MulticastRoute(u32),
}

impl Plan {
    pub(super) async fn apply(
        &self,
        host: &Netlink,
        guest: &Netlink,
    ) -> Result<Attached, AttachError> {
        let survey = self.survey(host, guest).await?;
        let mut undo = Vec::new();
        match self.carry_out(host, guest, survey, &mut undo).await {
            Ok(attached) => Ok(attached),
            Err(error) => {
                roll_back(host, guest, undo).await;
                Err(error)
            }
        }
    }

    async fn survey(&self, host: &Netlink, guest: &Netlink) -> Result<Survey, AttachError> {
        let bridge = host
            .interface(&self.bridge)
            .await?
            .filter(|device| device.kind == Some(InfoKind::Bridge));
        let bridge = bridge.ok_or_else(|| AttachError::NoBridge(self.bridge.clone()))?;
        let pair = find_pair(host, guest, &self.alias).await?;
        let before = pair.as_ref().and_then(|pair| pair.alias(&self.bridge));
        if let Some(before) = before.filter(|before| before.id != self.alias.id) {
            return Err(AttachError::OtherName(before.id));
        }
        let inner = pair.as_ref().map(|pair| pair.inner.index);
        let present = guest.addresses().await?;
        let own = present.iter().filter(|(index, _)| Some(*index) == inner);
        let own: Vec<IpNet> = own.map(|(_, address)| *address).collect();
        let mut missing = Vec::new();
        for &asked in &self.addresses {
            match present
                .iter()
                .find(|(_, address)| address.addr() == asked.addr())
            {
                None => missing.push(asked),
                Some((index, _)) if Some(*index) != inner => {
                    let interface = guest.interface_at(*index).await?.map(|device| device.name);
                    let interface = interface.unwrap_or_else(|| format!("number {index}"));
                    return Err(AttachError::AddressElsewhere {
                        address: asked.addr(),
                        interface,
                    });
                }
                Some(_) => check_prefix(asked, &own)?,
            }
        }
        if own.len() + missing.len() > ADDRESSES_MAX {
            return Err(AttachError::TooManyAddresses);
        }
        Ok(Survey {
            bridge,
            pair,
            missing,
        })
    }

    async fn carry_out(
        &self,
        host: &Netlink,
        guest: &Netlink,
        survey: Survey,
        undo: &mut Vec<Undo>,
    ) -> Result<Attached, AttachError> {
        let pair = match survey.pair {
            Some(pair) => pair,
            None => self.create(host, guest, survey.bridge.index, undo).await?,
        };
        self.settle_outer(host, &pair.outer, survey.bridge.index)
            .await?;
        let (index, name) = (pair.inner.index, &pair.inner.name);
        let has_ipv6 = self
            .addresses
            .iter()
            .any(|address| address.addr().is_ipv6());
        guest.inside(|| {
            sysctl::tune_container_interface(name);
            if has_ipv6 {
                sysctl::allow_ipv6(name);
            }
        })?;
        if !pair.inner.is_up || !self.options.gso.hold_for(&pair.inner) {
            let message = with_gso(LinkUnspec::new_with_index(index), self.options.gso).up();
            guest.change(message.build(), name).await?;
        }
        let before = guest.addresses_of(index).await?;
        for &address in &survey.missing {
            guest.add_address(index, address).await?;
            undo.push(Undo::Address(index, address));
        }
        let addresses = guest.addresses_of(index).await?;
        guest.inside(|| multicast::isolate(&Table::own(), index, &addresses))?;
        undo.push(Undo::Isolation(index, before));
        wait_until_forwarding(host, &pair.outer).await?;
        let mac = pair.inner.mac.unwrap_or(self.mac);
        let announced =
            guest.inside(|| announce(name, mac, self.addresses.iter().map(IpNet::addr)))?;
        note_announcement(announced);
        if let Some(server) = self.options.dns {
            guest.add_neighbour_route(index, server).await?;
        }
        // Last: programs in the container may wait for this route as the sign that the network is ready.
        if self.options.multicast_route && guest.add_multicast_route(index).await? {
            undo.push(Undo::MulticastRoute(index));
        }
        Ok(Attached { mac, addresses })
    }

    /// Makes the pair with its inner end born in the container's namespace, so that it never shows on the host.
    async fn create(
        &self,
        host: &Netlink,
        guest: &Netlink,
        bridge: u32,
        undo: &mut Vec<Undo>,
    ) -> Result<Pair, AttachError> {
        let Self {
            host_name, options, ..
        } = self;
        let inner = with_gso(LinkMessageBuilder::<LinkUnspec>::new(), options.gso)
            .name(CONTAINER_INTERFACE)
            .mtu(options.mtu)
            .address(self.mac.to_vec())
            .setns_by_fd(self.guest.as_fd().as_raw_fd());
        let outer = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner.build())))
            .name(host_name.clone())
            .mtu(options.mtu)
            .controller(bridge);
        host.create(with_gso(outer, options.gso).build(), host_name)
            .await?;
        let outer = host
            .interface(host_name)
            .await?
            .ok_or_else(|| AttachError::Vanished(host_name.clone()))?;
        undo.push(Undo::Interface(outer.clone()));
        let inner = guest.interface(CONTAINER_INTERFACE).await?;
        let inner = inner.ok_or_else(|| AttachError::Vanished(CONTAINER_INTERFACE.to_owned()))?;
        Ok(Pair { inner, outer })
    }

    async fn settle_outer(
        &self,
        host: &Netlink,
        outer: &Interface,
        bridge: u32,
    ) -> Result<(), AttachError> {
        let Self { options, .. } = self;
        host.stop_ipv6_addresses(outer).await?;
        host.inside(|| sysctl::tune_port(&outer.name))?;
        let alias = Alias::from_text(&outer.alias).filter(|alias| alias.bridge == self.bridge);
        let is_right =
            outer.is_up && outer.controller == Some(bridge) && options.gso.hold_for(outer);
        if !is_right || alias.is_none() {
            let alias = alias.unwrap_or_else(|| self.alias.clone());
            let message = with_gso(LinkUnspec::new_with_index(outer.index), options.gso);
            let message = message.controller(bridge).alias(alias.to_text()).up();
            host.change(message.build(), &outer.name).await?;
        }
        if outer.hairpin != Some(options.hairpin) {
            let message = LinkBridgePort::new(outer.index)
                .hairpin(options.hairpin)
                .build();
            host.change(message, &outer.name).await?;
        }
        Ok(())
    }
}

pub(super) fn with_gso<T>(
    mut message: LinkMessageBuilder<T>,
    gso: GsoLimits,
) -> LinkMessageBuilder<T> {
    for attribute in gso.attributes() {
        message = message.append_extra_attribute(attribute);
    }
    message
}

/// Finds the container's interface and its host end: by the name `ethwe`, or by the host end's alias if somebody in
/// the container has renamed it. An `ethwe` without one of ours behind it is somebody else's.
pub(super) async fn find_pair(
    host: &Netlink,
    guest: &Netlink,
    alias: &Alias,
) -> Result<Option<Pair>, AttachError> {
    let named = guest.interface(CONTAINER_INTERFACE).await?;
    let is_named = named.is_some();
    if let Some(inner) = named
        && let Some(peer) = inner.peer
        && let Some(outer) = host.interface_at(peer).await?
        && outer.name.starts_with(HOST_PREFIX)
        && outer.peer == Some(inner.index)
        && may_lead_into(&outer, alias)
    {
        return Ok(Some(Pair { inner, outer }));
    }
    for outer in host.interfaces().await? {
        let is_it = Alias::from_text(&outer.alias)
            .is_some_and(|found| found.bridge == alias.bridge && found.inode == alias.inode);
        if is_it && let Some(inner) = inner_of(guest, &outer).await? {
            return Ok(Some(Pair { inner, outer }));
        }
    }
    if is_named {
        return Err(AttachError::ForeignInterface);
    }
    Ok(None)
}

/// Numbers of interfaces are those of their namespaces: ours may be the number of another daemon's, in another
/// namespace. A host end that says another container's number does not lead into this one.
fn may_lead_into(outer: &Interface, container: &Alias) -> bool {
    Alias::from_text(&outer.alias)
        .is_none_or(|said| said.is_dockers() || said.inode == container.inode)
}

/// The other end of a host end, if it lies in this namespace.
pub(super) async fn inner_of(
    guest: &Netlink,
    outer: &Interface,
) -> Result<Option<Interface>, AttachError> {
    let Some(index) = outer.peer else {
        return Ok(None);
    };
    let inner = guest.interface_at(index).await?;
    Ok(inner.filter(|inner| inner.peer == Some(outer.index)))
}

/// Takes addresses away. With the last one go the rules for multicast; the interface stays, for
/// [`Host::remove`](super::Host::remove).
pub(super) async fn take(
    guest: &Netlink,
    pair: &Pair,
    asked: &[IpNet],
) -> Result<Detached, AttachError> {
    let index = pair.inner.index;
    let present = guest.addresses_of(index).await?;
    for &asked in asked {
        check_prefix(asked, &present)?;
    }
    let absent = asked.iter().copied();
    let absent = absent
        .filter(|address| !present.contains(address))
        .collect();
    let remaining: Vec<_> = present
        .iter()
        .copied()
        .filter(|address| !asked.contains(address))
        .collect();
    for &address in asked {
        guest.remove_address(index, address).await?;
    }
    if remaining.is_empty() {
        guest.inside(|| multicast::forget(&Table::own()))?;
        return Ok(Detached { left: None, absent });
    }
    // Where `promote_secondaries` could not be set, a subnet's later addresses went with its first one.
    let left = guest.addresses_of(index).await?;
    for &address in remaining.iter().filter(|address| !left.contains(address)) {
        guest.add_address(index, address).await?;
    }
    guest.inside(|| multicast::isolate(&Table::own(), index, &remaining))?;
    let left = Some(Attached {
        mac: pair.inner.mac.unwrap_or_default(),
        addresses: remaining,
    });
    Ok(Detached { left, absent })
}

/// Undoes, last first. A failure here is told and the rest still done: the caller gets the first failure.
async fn roll_back(host: &Netlink, guest: &Netlink, undo: Vec<Undo>) {
    for step in undo.into_iter().rev() {
        let done = match step {
            Undo::Interface(device) => host.delete(device.index, &device.name).await,
            Undo::Address(index, address) => guest.remove_address(index, address).await,
            Undo::Isolation(index, before) => {
                put_back(guest, index, &before);
                Ok(())
            }
            Undo::MulticastRoute(index) => guest.remove_multicast_route(index).await,
        };
        if let Err(error) = done {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "attach not wholly undone"
            );
        }
    }
}

/// The rules for multicast as they were; an interface without addresses has none.
fn put_back(guest: &Netlink, index: u32, before: &[IpNet]) {
    let entered = guest.inside(|| {
        if before.is_empty() {
            multicast::forget(&Table::own());
        } else {
            multicast::isolate(&Table::own(), index, before);
        }
    });
    if let Err(error) = entered {
        tracing::warn!(%error, "attach not wholly undone");
    }
}

/// Frames that come before the bridge passes them on are lost, the announcement among them.
pub(super) async fn wait_until_forwarding(
    host: &Netlink,
    outer: &Interface,
) -> Result<(), AttachError> {
    let wait = async {
        loop {
            let now = host.interface_at(outer.index).await?;
            if now
                .ok_or_else(|| AttachError::Vanished(outer.name.clone()))?
                .is_forwarding
            {
                return Ok(());
            }
            tokio::time::sleep(FORWARDING_POLL).await;
        }
    };
    // A bridge that is down passes nothing on; the container is attached all the same.
    tokio::time::timeout(FORWARDING_TIMEOUT, wait)
        .await
        .unwrap_or(Ok(()))
}

pub(super) fn note_announcement(announced: io::Result<()>) {
    if let Err(error) = announced {
        tracing::warn!(%error, "addresses not announced; neighbours notice on their own, later");
    }
}
