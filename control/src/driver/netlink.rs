//! The few netlink requests that weft makes, as typed calls on one socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgePortState, In6AddrGenMode, InfoBridge, InfoBridgePort,
    InfoData, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope,
};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, RouteMessageBuilder};

use super::netns::{NetNs, NetNsError};

/// The kernel refused a request.
#[derive(Debug, thiserror::Error)]
#[error("{action} {subject}")]
pub struct NetlinkError {
    /// What was asked, as a verb.
    action: &'static str,
    /// Of what.
    subject: String,
    /// Why not.
    #[source]
    source: io::Error,
}

impl NetlinkError {
    fn new(action: &'static str, subject: impl Into<String>, cause: rtnetlink::Error) -> Self {
        let source = if let rtnetlink::Error::NetlinkError(message) = cause {
            message.to_io()
        } else {
            io::Error::other(cause.to_string())
        };
        Self {
            action,
            subject: subject.into(),
            source,
        }
    }

    fn is(&self, errno: nix::errno::Errno) -> bool {
        self.source.raw_os_error() == Some(errno as i32)
    }
}

/// Limits of the super-frames that the kernel hands to an interface; none leaves the kernel's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GsoLimits {
    /// Bytes.
    pub max_size: Option<u32>,
    /// Segments.
    pub max_segs: Option<u32>,
}

impl GsoLimits {
    /// As attributes of a request.
    pub(super) fn attributes(self) -> impl Iterator<Item = LinkAttribute> {
        let size = self.max_size.map(LinkAttribute::GsoMaxSize);
        size.into_iter()
            .chain(self.max_segs.map(LinkAttribute::GsoMaxSegs))
    }

    /// True if the interface keeps them.
    pub(super) fn hold_for(self, interface: &Interface) -> bool {
        self.max_size
            .is_none_or(|bytes| interface.gso_max_size == Some(bytes))
            && self
                .max_segs
                .is_none_or(|count| interface.gso_max_segs == Some(count))
    }
}

/// An interface as the kernel shows it, cut to what weft looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: Option<InfoKind>,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
    pub(super) is_up: bool,
    /// True for a TAP whose other end somebody holds open.
    pub(super) has_carrier: bool,
    /// Index of the bridge that it is a port of.
    pub(super) controller: Option<u32>,
    pub(super) alias: String,
    /// Index of a veth's other end, in that end's namespace.
    pub(super) peer: Option<u32>,
    pub(super) multicast_snooping: Option<bool>,
    pub(super) hairpin: Option<bool>,
    /// True for a port of a bridge that passes frames on.
    pub(super) is_forwarding: bool,
    pub(super) ipv6_addresses: Option<In6AddrGenMode>,
    pub(super) gso_max_size: Option<u32>,
    pub(super) gso_max_segs: Option<u32>,
}

/// A netlink socket in one namespace. Lives on the thread that made it.
pub(super) struct Netlink {
    handle: Handle,
    namespace: NetNs,
}

impl Netlink {
    /// Moves the thread into `namespace` and opens a socket there. Needs a current-thread runtime.
    pub(super) fn open(namespace: NetNs) -> Result<Self, NetNsError> {
        namespace.enter()?;
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| NetNsError::Socket { source })?;
        tokio::spawn(connection);
        Ok(Self { handle, namespace })
    }

    /// Does `work` with the thread in this socket's namespace: for `/proc/sys` and for further sockets.
    pub(super) fn inside<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetNsError> {
        self.namespace.enter()?;
        Ok(work())
    }

    /// Looks one interface up by name.
    pub(super) async fn interface(&self, name: &str) -> Result<Option<Interface>, NetlinkError> {
        self.one(self.handle.link().get().match_name(name), name)
            .await
    }

    /// Looks one interface up by index.
    pub(super) async fn interface_at(&self, index: u32) -> Result<Option<Interface>, NetlinkError> {
        self.one(
            self.handle.link().get().match_index(index),
            &format!("number {index}"),
        )
        .await
    }

    async fn one(
        &self,
        request: rtnetlink::LinkGetRequest,
        name: &str,
    ) -> Result<Option<Interface>, NetlinkError> {
        let found = std::pin::pin!(request.execute()).try_next().await;
        match found.map_err(|cause| NetlinkError::new("look up interface", name, cause)) {
            Ok(message) => Ok(message.map(Interface::from)),
            Err(error) if error.is(nix::errno::Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists all interfaces.
    pub(super) async fn interfaces(&self) -> Result<Vec<Interface>, NetlinkError> {
        let all: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|cause| NetlinkError::new("list", "interfaces", cause))?;
        Ok(all.into_iter().map(Interface::from).collect())
    }

    /// Creates an interface; fails if the name is taken.
    pub(super) async fn create(
        &self,
        message: LinkMessage,
        name: &str,
    ) -> Result<(), NetlinkError> {
        let done = self.handle.link().add(message).execute().await;
        done.map_err(|cause| NetlinkError::new("create interface", name, cause))
    }

    /// Changes an interface.
    pub(super) async fn change(
        &self,
        message: LinkMessage,
        name: &str,
    ) -> Result<(), NetlinkError> {
        let done = self.handle.link().change(message).execute().await;
        done.map_err(|cause| NetlinkError::new("set up interface", name, cause))
    }

    /// Keeps the kernel from giving the interface an IPv6 address of its own making.
    pub(super) async fn stop_ipv6_addresses(
        &self,
        interface: &Interface,
    ) -> Result<(), NetlinkError> {
        if interface
            .ipv6_addresses
            .as_ref()
            .is_none_or(|mode| *mode == In6AddrGenMode::None)
        {
            return Ok(());
        }
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = LinkUnspec::new_with_index(interface.index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]))
            .build();
        self.change(message, &interface.name).await
    }

    /// Deletes an interface; fine if it is gone.
    pub(super) async fn delete(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let done = self.handle.link().del(index).execute().await;
        match done.map_err(|cause| NetlinkError::new("delete interface", name, cause)) {
            Err(error) if !error.is(nix::errno::Errno::ENODEV) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Lists the namespace's addresses as (interface index, address), in the order in which the kernel has them.
    pub(super) async fn addresses(&self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let all: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|cause| NetlinkError::new("list", "addresses", cause))?;
        Ok(all
            .iter()
            .filter_map(|message| Some((message.header.index, address_of(message)?)))
            .collect())
    }

    /// Lists an interface's addresses without the link-local ones: the kernel makes the one kind for itself, and the
    /// other is our DNS server's.
    pub(super) async fn addresses_of(&self, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let is_own = |address: &IpNet| match address.addr() {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let all = self.addresses().await?;
        let ours = all
            .into_iter()
            .filter(|(at, _)| *at == index)
            .map(|(_, address)| address);
        Ok(ours.filter(|address| !is_own(address)).collect())
    }

    /// Adds an address; fails if it is there.
    pub(super) async fn add_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = self
            .handle
            .address()
            .add(index, address.addr(), address.prefix_len());
        // The network knows who has which address; waiting a second for a doubtful test would only delay the first packet.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        let done = request.execute().await;
        done.map_err(|cause| NetlinkError::new("add address", address.to_string(), cause))
    }

    /// Removes an address; fine if it is gone.
    pub(super) async fn remove_address(
        &self,
        index: u32,
        address: IpNet,
    ) -> Result<(), NetlinkError> {
        let prefix_len = address.prefix_len();
        let message = match address.addr() {
            IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(index)
                .address(ip, prefix_len)
                .build(),
            IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(ip, prefix_len)
                .build(),
        };
        let done = self.handle.address().del(message).execute().await;
        match done.map_err(|cause| NetlinkError::new("remove address", address.to_string(), cause))
        {
            Err(error) if !error.is(nix::errno::Errno::EADDRNOTAVAIL) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Gives the host an address that is known on this interface only; false if it has it.
    pub(super) async fn add_link_address(
        &self,
        index: u32,
        address: Ipv4Addr,
    ) -> Result<bool, NetlinkError> {
        let mut request = self.handle.address().add(index, address.into(), 32);
        // Never the source of what the host sends elsewhere.
        request.message_mut().header.scope = AddressScope::Link;
        let done = request.execute().await;
        match done.map_err(|cause| NetlinkError::new("add address", address.to_string(), cause)) {
            Err(error) if error.is(nix::errno::Errno::EEXIST) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }

    /// Reaches one neighbour through the interface; false if there was such a route.
    pub(super) async fn add_neighbour_route(
        &self,
        index: u32,
        address: Ipv4Addr,
    ) -> Result<bool, NetlinkError> {
        let route = neighbour_route(index, address);
        let done = self.handle.route().add(route).execute().await;
        match done.map_err(|cause| NetlinkError::new("add route", address.to_string(), cause)) {
            Err(error) if error.is(nix::errno::Errno::EEXIST) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }

    /// The neighbours of the link-local range that routes of their own lead to through the interface.
    pub(super) async fn neighbour_routes(&self, index: u32) -> Result<Vec<Ipv4Addr>, NetlinkError> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = self.handle.route().get(all).execute();
        let mut found = Vec::new();
        while let Some(route) = routes
            .try_next()
            .await
            .map_err(|cause| NetlinkError::new("list", "routes", cause))?
        {
            found.extend(neighbour_of(&route, index));
        }
        Ok(found)
    }

    /// Takes a route to a neighbour away.
    pub(super) async fn remove_neighbour_route(
        &self,
        index: u32,
        address: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        let route = neighbour_route(index, address);
        let done = self.handle.route().del(route).execute().await;
        done.map_err(|cause| NetlinkError::new("remove route", address.to_string(), cause))
    }

    /// Sends all IPv4 multicast through the interface; false if there was such a route, through whichever interface.
    pub(super) async fn add_multicast_route(&self, index: u32) -> Result<bool, NetlinkError> {
        let done = self
            .handle
            .route()
            .add(multicast_route(index))
            .execute()
            .await;
        match done.map_err(|cause| NetlinkError::new("add route", "224.0.0.0/4", cause)) {
            Err(error) if error.is(nix::errno::Errno::EEXIST) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }

    /// Takes that route away.
    pub(super) async fn remove_multicast_route(&self, index: u32) -> Result<(), NetlinkError> {
        let done = self
            .handle
            .route()
            .del(multicast_route(index))
            .execute()
            .await;
        done.map_err(|cause| NetlinkError::new("remove route", "224.0.0.0/4", cause))
    }
}

fn neighbour_route(index: u32, address: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build()
}

/// Where such a route leads, if it is one.
fn neighbour_of(route: &RouteMessage, index: u32) -> Option<Ipv4Addr> {
    let header = &route.header;
    let is_such = header.table == RouteHeader::RT_TABLE_MAIN
        && header.destination_prefix_length == 32
        && header.scope == RouteScope::Link
        && route.attributes.contains(&RouteAttribute::Oif(index));
    let mut attributes = route.attributes.iter().filter(|_| is_such);
    attributes.find_map(|attribute| {
        let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute else {
            return None;
        };
        Some(*address).filter(Ipv4Addr::is_link_local)
    })
}

fn multicast_route(index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::new(224, 0, 0, 0), 4)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build()
}

/// The interface's own address: of a point-to-point address `Local`, which is absent in plain IPv6 ones.
fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let mut ip = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(local) = attribute {
            ip = Some(*local);
        } else if let AddressAttribute::Address(address) = attribute {
            ip = ip.or(Some(*address));
        }
    }
    IpNet::new(ip?, message.header.prefix_len).ok()
}

impl From<LinkMessage> for Interface {
    fn from(message: LinkMessage) -> Self {
        let mut interface = Self {
            index: message.header.index,
            is_up: message.header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        for attribute in message.attributes {
            interface.note(attribute);
        }
        interface
    }
}

impl Interface {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the kernel has dozens of attributes, most of no interest here"
    )]
    fn note(&mut self, attribute: LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name = name,
            LinkAttribute::Address(mac) => self.mac = mac.try_into().ok(),
            LinkAttribute::Mtu(mtu) => self.mtu = mtu,
            LinkAttribute::Carrier(state) => self.has_carrier = state != 0,
            LinkAttribute::Controller(index) => self.controller = Some(index),
            LinkAttribute::IfAlias(alias) => self.alias = alias,
            LinkAttribute::Link(index) => self.peer = Some(index),
            LinkAttribute::GsoMaxSize(bytes) => self.gso_max_size = Some(bytes),
            LinkAttribute::GsoMaxSegs(count) => self.gso_max_segs = Some(count),
            LinkAttribute::LinkInfo(infos) => {
                infos.into_iter().for_each(|info| self.note_info(info))
            }
            LinkAttribute::AfSpecUnspec(families) => {
                for family in families {
                    if let AfSpecUnspec::Inet6(settings) = family {
                        self.ipv6_addresses =
                            settings.into_iter().find_map(|setting| match setting {
                                AfSpecInet6::AddrGenMode(mode) => Some(mode),
                                _ => None,
                            });
                    }
                }
            }
            _ => {}
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the kernel has dozens of attributes, most of no interest here"
    )]
    fn note_info(&mut self, info: LinkInfo) {
        match info {
            LinkInfo::Kind(kind) => self.kind = Some(kind),
            LinkInfo::Data(InfoData::Bridge(settings)) => {
                self.multicast_snooping = settings.into_iter().find_map(|setting| match setting {
                    InfoBridge::MulticastSnooping(on) => Some(on),
                    _ => None,
                });
            }
            LinkInfo::PortData(InfoPortData::BridgePort(settings)) => {
                self.is_forwarding =
                    settings.contains(&InfoBridgePort::State(BridgePortState::Forwarding));
                self.hairpin = settings.into_iter().find_map(|setting| match setting {
                    InfoBridgePort::HairpinMode(on) => Some(on),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}
