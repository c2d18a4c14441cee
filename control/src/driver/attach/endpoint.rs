//! Pairs for Docker's network plugin: made on the host, taken into the container by Docker itself.
//!
//! ```text
//!  CreateEndpoint   bridge ── vethwe0f3c81d2a ── vethwg0f3c81d2a          alias: holder, no path; announced
//!  Join             bridge ── vethwe0f3c81d2a ── vethwg0f3c81d2a          alias: holder, path
//!  Docker           bridge ── vethwe0f3c81d2a ─┼── ethwe0  10.32.0.1/12   addresses and routes are Docker's work
//!  settle           … settings, multicast of other subnets kept away, announced
//! ```
//!
//! The names follow from Docker's id of the endpoint, so nothing is remembered elsewhere.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::apply::{inner_of, note_announcement, wait_until_forwarding, with_gso};
use super::multicast::{self, Table};
use super::{AttachError, AttachOptions, Host, look_into};
use crate::driver::announce::announce;
use crate::driver::container::shown_id;
use crate::driver::identity::{Alias, GUEST_PREFIX, container_mac, endpoint_names, shown_endpoint};
use crate::driver::netlink::{Interface, Netlink};
use crate::driver::netns::{NetNs, run_between};
use crate::driver::sysctl;

/// What Docker wants an interface for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Docker's id of it.
    pub id: String,
    /// Who has its address.
    pub holder: String,
    /// That address, if Docker has one for it.
    pub address: Option<IpAddr>,
    /// Its MAC, if Docker chose one.
    pub mac: Option<[u8; 6]>,
}

/// An interface that Docker put into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Who has its addresses.
    pub holder: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

impl Host {
    /// Makes a pair on the bridge, with its other end here, down; in place of one for the same endpoint, if there is
    /// one. Returns the MAC.
    pub async fn make_endpoint(
        &self,
        endpoint: &Endpoint,
        options: AttachOptions,
    ) -> Result<[u8; 6], AttachError> {
        let _turn = self.turn.lock().await;
        let (outer_name, inner_name) = endpoint_names(&endpoint.id);
        let mac = endpoint
            .mac
            .unwrap_or_else(|| container_mac(self.peer_name, &endpoint.id));
        let shown = Some(shown_endpoint(&endpoint.id));
        let alias = Alias::of_docker(&self.bridge, &endpoint.holder, None, shown);
        let (bridge_name, address) = (self.bridge.clone(), endpoint.address);
        let work = move |host: Netlink| async move {
            let bridge = host.interface(&bridge_name).await?;
            let bridge = bridge.filter(|device| device.kind == Some(InfoKind::Bridge));
            let bridge = bridge.ok_or(AttachError::NoBridge(bridge_name))?.index;
            if let Some(old) = host.interface(&outer_name).await? {
                host.delete(old.index, &old.name).await?;
            }
            let inner = with_gso(LinkMessageBuilder::<LinkUnspec>::new(), options.gso)
                .name(inner_name.clone())
                .mtu(options.mtu)
                .address(mac.to_vec());
            let outer = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(inner.build())))
                .name(outer_name.clone())
                .mtu(options.mtu)
                .controller(bridge);
            host.create(with_gso(outer, options.gso).build(), &outer_name)
                .await?;
            let made = settle_port(&host, &outer_name, &alias, options).await;
            if made.is_err()
                && let Some(outer) = host.interface(&outer_name).await?
            {
                host.delete(outer.index, &outer.name).await?;
            }
            made?;
            if let Some(address) = address
                && let Err(error) = introduce(&host, &inner_name, mac, address).await
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a container's address is announced after its start only"
                );
            }
            Ok(mac)
        };
        self.netns.run(work).await
    }

    /// The addresses on our own interface in the namespace at `sandbox`, if it is attached.
    pub async fn attached_in(&self, sandbox: &Path) -> Result<Vec<IpNet>, AttachError> {
        let Ok(netns) = NetNs::from_path(sandbox) else {
            return Ok(Vec::new());
        };
        let bridge = self.bridge.clone();
        let work = move |host: Netlink| async move {
            for outer in host.interfaces().await? {
                let alias = Alias::from_text(&outer.alias).filter(|alias| {
                    alias.bridge == bridge && !alias.is_dockers() && alias.inode == netns.inode()
                });
                if alias.is_some() {
                    let found = look_into(netns, &outer).await?;
                    return Ok(found.map(|(_, addresses)| addresses).unwrap_or_default());
                }
            }
            Ok::<_, AttachError>(Vec::new())
        };
        self.netns.run(work).await
    }

    /// Notes where Docker will put the endpoint's interface; returns what the interface is called here.
    pub async fn lead_endpoint(&self, id: &str, sandbox: &Path) -> Result<String, AttachError> {
        let _turn = self.turn.lock().await;
        let (outer_name, inner_name) = endpoint_names(id);
        let (bridge, sandbox) = (self.bridge.clone(), sandbox.to_owned());
        let work = move |host: Netlink| async move {
            let outer = host.interface(&outer_name).await?;
            let outer = outer.ok_or_else(|| AttachError::Vanished(outer_name.clone()))?;
            let known = Alias::from_text(&outer.alias);
            let known = known.ok_or_else(|| AttachError::Vanished(outer_name.clone()))?;
            let alias = Alias::of_docker(&bridge, &known.id, Some(&sandbox), known.shown);
            let message = LinkUnspec::new_with_index(outer.index).alias(alias.to_text());
            host.change(message.build(), &outer.name).await?;
            Ok::<_, AttachError>(inner_name)
        };
        self.netns.run(work).await
    }

    /// Notes whose an endpoint is; says who has its address. None if it has no pair here.
    pub async fn own_endpoint(
        &self,
        id: &str,
        container: &str,
    ) -> Result<Option<String>, AttachError> {
        let _turn = self.turn.lock().await;
        let (outer_name, _) = endpoint_names(id);
        let owner = shown_id(container).to_owned();
        let work = move |host: Netlink| async move {
            let Some(outer) = host.interface(&outer_name).await? else {
                return Ok(None);
            };
            let Some(alias) = Alias::from_text(&outer.alias) else {
                return Ok(None);
            };
            let holder = note_owner(&host, &outer, alias, owner).await?;
            Ok::<_, AttachError>(Some(holder))
        };
        self.netns.run(work).await
    }

    /// Removes an endpoint's pair, wherever Docker has left the other end; says who had its address, and what the pair
    /// was known by. None if it is gone already.
    pub(in crate::driver) async fn remove_endpoint(
        &self,
        id: &str,
    ) -> Result<Option<Alias>, AttachError> {
        let _turn = self.turn.lock().await;
        let (outer_name, _) = endpoint_names(id);
        let work = move |host: Netlink| async move {
            let Some(outer) = host.interface(&outer_name).await? else {
                return Ok(None);
            };
            host.delete(outer.index, &outer.name).await?;
            Ok::<_, AttachError>(Alias::from_text(&outer.alias))
        };
        let Some(alias) = self.netns.run(work).await? else {
            return Ok(None);
        };
        // A container that runs on keeps its namespace, and rules do not go with their interface.
        if let Some(container) = NetNs::find(alias.inode, &alias.path)
            && container != self.netns
        {
            let table = Table::of_endpoint(&endpoint_names(id).0);
            let work = |guest: Netlink| async move {
                Ok::<_, AttachError>(guest.inside(|| multicast::forget(&table))?)
            };
            if let Err(error) = container.run(work).await {
                tracing::debug!(%error, "rules for multicast stay in a container");
            }
        }
        Ok(Some(alias))
    }

    /// Finishes what Docker has put into this namespace, notes whose it is, and says what that is. Doing it again does
    /// no harm.
    pub async fn settle_endpoints(
        &self,
        container: &NetNs,
        id: &str,
    ) -> Result<Vec<Settled>, AttachError> {
        // A container on the host's own network has nothing of ours; what is there Docker has not taken yet.
        if *container == self.netns {
            return Ok(Vec::new());
        }
        let _turn = self.turn.lock().await;
        let bridge = self.bridge.clone();
        let owner = shown_id(id).to_owned();
        let work = move |host: Netlink, guest: Netlink| async move {
            let mut settled = Vec::new();
            for outer in host.interfaces().await? {
                let alias = Alias::from_text(&outer.alias)
                    .filter(|alias| alias.bridge == bridge && alias.is_dockers());
                if let Some(alias) = alias
                    && let Some(inner) = inner_of(&guest, &outer).await?
                {
                    let table = Table::of_endpoint(&outer.name);
                    let addresses = settle(&guest, &inner, &table).await?;
                    let holder = note_owner(&host, &outer, alias, owner.clone()).await?;
                    settled.push(Settled { holder, addresses });
                }
            }
            Ok::<_, AttachError>(settled)
        };
        run_between(&self.netns, container, work).await
    }
}

/// Has a pair known by its container; says who has its address.
async fn note_owner(
    host: &Netlink,
    outer: &Interface,
    mut alias: Alias,
    owner: String,
) -> Result<String, AttachError> {
    let owner = Some(owner);
    if alias.shown != owner {
        alias.shown = owner;
        let message = LinkUnspec::new_with_index(outer.index);
        let message = message.alias(alias.to_text()).build();
        host.change(message, &outer.name).await?;
    }
    Ok(alias.id)
}

async fn settle_port(
    host: &Netlink,
    name: &str,
    alias: &Alias,
    options: AttachOptions,
) -> Result<(), AttachError> {
    let outer = host.interface(name).await?;
    let outer = outer.ok_or_else(|| AttachError::Vanished(name.to_owned()))?;
    host.stop_ipv6_addresses(&outer).await?;
    host.inside(|| sysctl::tune_port(name))?;
    let message = LinkUnspec::new_with_index(outer.index).alias(alias.to_text());
    host.change(message.up().build(), name).await?;
    let port = LinkBridgePort::new(outer.index).hairpin(options.hairpin);
    Ok(host.change(port.build(), name).await?)
}

/// Announces an address from the end that the container will have, while that is still here: Docker starts the program
/// before it tells anybody, and whoever knew the address elsewhere would send the first answers there.
async fn introduce(
    host: &Netlink,
    name: &str,
    mac: [u8; 6],
    address: IpAddr,
) -> Result<(), AttachError> {
    let vanished = || AttachError::Vanished(name.to_owned());
    let inner = host.interface(name).await?.ok_or_else(vanished)?;
    let outer = inner.peer.ok_or_else(vanished)?;
    let outer = host.interface_at(outer).await?.ok_or_else(vanished)?;
    host.stop_ipv6_addresses(&inner).await?;
    let set = LinkUnspec::new_with_index;
    host.change(set(inner.index).up().build(), name).await?;
    let waited = wait_until_forwarding(host, &outer).await;
    let announced = host.inside(|| announce(name, mac, std::iter::once(address)));
    // Down again, as Docker has it from other drivers, whatever became of it.
    host.change(set(inner.index).down().build(), name).await?;
    waited?;
    note_announcement(announced?);
    Ok(())
}

async fn settle(
    guest: &Netlink,
    inner: &Interface,
    table: &Table,
) -> Result<Vec<IpNet>, AttachError> {
    let addresses = guest.addresses_of(inner.index).await?;
    let name = &inner.name;
    let announced = guest.inside(|| {
        sysctl::tune_container_interface(name);
        multicast::isolate(table, inner.index, &addresses);
        let mac = inner.mac.unwrap_or_default();
        announce(name, mac, addresses.iter().map(IpNet::addr))
    })?;
    note_announcement(announced);
    Ok(addresses)
}

/// True for a pair that Docker asked for and never took, or gave back and never had removed: its other end is here.
/// For a time when Docker asks for nothing.
pub(super) async fn is_left_over(host: &Netlink, outer: &Interface) -> Result<bool, AttachError> {
    let is_dockers = Alias::from_text(&outer.alias).is_some_and(|alias| alias.is_dockers());
    if !is_dockers {
        return Ok(false);
    }
    let inner = inner_of(host, outer).await?;
    Ok(inner.is_some_and(|inner| inner.name.starts_with(GUEST_PREFIX)))
}
