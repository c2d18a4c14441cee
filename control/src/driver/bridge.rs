//! Keeps the host's own devices as they should be: the bridge and the TAP that joins it to the engine.
//!
//! ```text
//!  containers' veths ── ports ── bridge `weft` ── port ── TAP `weft-tap0` ── engine
//! ```
//!
//! [`ensure`] makes, mends or merely looks, whichever is needed; a [`Keeper`] does so whenever interfaces change.

mod keeper;

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::link::{InfoKind, LinkAttribute};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};
use weft_engine::error::EngineError;

pub use self::keeper::Keeper;
use super::attach;
use super::identity::{Alias, HOST_PREFIX, local_mac};
use super::netlink::{GsoLimits, Interface, Netlink, NetlinkError};
use super::netns::{NetNs, NetNsError};
use super::sysctl;

/// The bridge's name unless `--bridge` says otherwise.
pub const DEFAULT_BRIDGE: &str = "weft";
/// The engine's device.
pub const TAP: &str = "weft-tap0";
/// The kernel's limit on a name, in bytes.
const NAME_MAX: usize = 15;
/// How often a TAP in use is looked at again: the kernel lets go of a killed daemon's files a moment after its locks.
const LOOKS_MAX: u32 = 60;
/// From one look to the next; all together leave a relaunch time to be ready within its two seconds.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Why the host's devices are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// Not a name that an interface can have.
    #[error("{0:?} is no interface name: at most {NAME_MAX} letters, digits, '-', '_' or '.'")]
    BadName(String),
    /// Another device has the name.
    #[error("interface {0} exists and is no bridge: give another name with --bridge")]
    NotABridge(String),
    /// There is none to put addresses on.
    #[error("no bridge {0}")]
    Missing(String),
    /// The engine has not made its device, or somebody deleted it.
    #[error("no device {0} to join to the bridge")]
    NoTap(String),
    /// The engine could not make it anew.
    #[error("make device {name} anew")]
    MakeTap {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: EngineError,
    },
    /// Another daemon works on the device: two would take each other's frames.
    #[error(
        "device {0} is in use by another weft in this network namespace: end that one first (`weft stop` with its --run-dir)"
    )]
    TapInUse(String),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The namespace cannot be worked in.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// How the bridge should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Interface name.
    pub name: String,
    /// The engine's device, if it is to be a port.
    pub tap: Option<String>,
    /// From [`bridge_mac`].
    pub mac: [u8; 6],
    /// Overlay MTU in bytes.
    pub mtu: u32,
    /// For frames that the host itself sends.
    pub gso: GsoLimits,
    /// Where the DNS server is, if there is one: an address of the bridge that is known on it only.
    pub dns: Option<Ipv4Addr>,
}

/// The bridge's MAC: the peer's name, which keeps it when ports come and go.
pub fn bridge_mac(peer_name: [u8; 6]) -> [u8; 6] {
    local_mac(peer_name)
}

/// Refuses what the kernel would refuse as a name, or take for something else.
pub fn check_name(name: &str) -> Result<(), BridgeError> {
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if name.is_empty() || name.len() > NAME_MAX || !is_plain || name == "." || name == ".." {
        return Err(BridgeError::BadName(name.to_owned()));
    }
    Ok(())
}

/// Brings bridge, TAP and container interfaces that lost their bridge or went down to where they should be. True if
/// anything was amiss.
pub async fn ensure(host: &NetNs, config: &BridgeConfig) -> Result<bool, BridgeError> {
    check_name(&config.name)?;
    let config = config.clone();
    host.run(|netlink| async move { ensure_all(&netlink, &config).await })
        .await
}

/// Makes sure that no daemon works on the TAP. Its queues can be shared, so the kernel would let a second one in.
///
/// # Errors
///
/// [`BridgeError::TapInUse`], or what the kernel refused.
pub async fn check_tap_free(host: &NetNs, tap: &str) -> Result<(), BridgeError> {
    let tap = tap.to_owned();
    host.run(|netlink| async move {
        for _ in 0..LOOKS_MAX {
            let device = netlink.interface(&tap).await?;
            if device.is_none_or(|device| !device.has_carrier) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Err(BridgeError::TapInUse(tap))
    })
    .await
}

/// Whether there is an interface of that name.
pub async fn is_there(host: &NetNs, name: &str) -> Result<bool, BridgeError> {
    let name = name.to_owned();
    host.run(|netlink| async move { Ok(netlink.interface(&name).await?.is_some()) })
        .await
}

/// Removes the container interfaces with the rules in their namespaces, the TAP and the bridge; what is gone already is
/// fine.
pub async fn remove(host: &NetNs, config: &BridgeConfig) -> Result<(), BridgeError> {
    let config = config.clone();
    host.run(|netlink| async move {
        let bridge = netlink.interface(&config.name).await?.filter(is_bridge);
        for device in netlink.interfaces().await? {
            let is_port = bridge
                .as_ref()
                .is_some_and(|bridge| device.controller == Some(bridge.index));
            let is_unmarked_port = is_port && device.name.starts_with(HOST_PREFIX);
            let is_tap = config.tap.as_ref() == Some(&device.name);
            if is_unmarked_port || is_tap || belongs_to(&device, &config.name) {
                netlink.delete(device.index, &device.name).await?;
                attach::forget_multicast_of(&device);
            }
        }
        if let Some(bridge) = bridge {
            netlink.delete(bridge.index, &bridge.name).await?;
        }
        Ok(())
    })
    .await
}

/// The bridge's MAC and the addresses that `expose` gave it; none if there is no bridge.
pub async fn exposed(
    host: &NetNs,
    name: &str,
) -> Result<Option<([u8; 6], Vec<IpNet>)>, BridgeError> {
    let name = name.to_owned();
    host.run(|netlink| async move {
        let Some(bridge) = netlink.interface(&name).await?.filter(is_bridge) else {
            return Ok(None);
        };
        let addresses = netlink.addresses_of(bridge.index).await?;
        Ok(Some((bridge.mac.unwrap_or_default(), addresses)))
    })
    .await
}

/// Puts addresses on the bridge, those that are missing; returns its MAC.
pub(super) async fn add_addresses(
    host: &NetNs,
    name: &str,
    addresses: &[IpNet],
) -> Result<[u8; 6], BridgeError> {
    let (name, addresses) = (name.to_owned(), addresses.to_vec());
    host.run(|netlink| async move {
        let found = netlink.interface(&name).await?.filter(is_bridge);
        let bridge = found.ok_or(BridgeError::Missing(name))?;
        let present = netlink.addresses_of(bridge.index).await?;
        for address in addresses
            .into_iter()
            .filter(|address| !present.contains(address))
        {
            netlink.add_address(bridge.index, address).await?;
        }
        Ok(bridge.mac.unwrap_or_default())
    })
    .await
}

/// Takes addresses off the bridge.
pub(super) async fn remove_addresses(
    host: &NetNs,
    name: &str,
    addresses: &[IpNet],
) -> Result<(), BridgeError> {
    let (name, addresses) = (name.to_owned(), addresses.to_vec());
    host.run(|netlink| async move {
        if let Some(bridge) = netlink.interface(&name).await?.filter(is_bridge) {
            for address in addresses {
                netlink.remove_address(bridge.index, address).await?;
            }
        }
        Ok(())
    })
    .await
}

fn is_bridge(device: &Interface) -> bool {
    device.kind == Some(InfoKind::Bridge)
}

/// True for the host end of a container interface made for this bridge.
pub(super) fn belongs_to(device: &Interface, bridge: &str) -> bool {
    device.kind == Some(InfoKind::Veth)
        && Alias::from_text(&device.alias).is_some_and(|alias| alias.bridge == bridge)
}

async fn ensure_all(netlink: &Netlink, config: &BridgeConfig) -> Result<bool, BridgeError> {
    let (bridge, mut changed) = ensure_bridge(netlink, config).await?;
    if let Some(tap) = &config.tap {
        let device = netlink
            .interface(tap)
            .await?
            .ok_or_else(|| BridgeError::NoTap(tap.clone()))?;
        changed |= ensure_tap(netlink, &device, bridge, config.mtu).await?;
    }
    for device in netlink.interfaces().await? {
        let is_amiss = device.controller.is_none() || !device.is_up;
        if is_amiss && belongs_to(&device, &config.name) {
            let message = LinkUnspec::new_with_index(device.index)
                .controller(bridge)
                .up()
                .build();
            netlink.change(message, &device.name).await?;
            changed = true;
        }
    }
    Ok(changed)
}

async fn ensure_bridge(
    netlink: &Netlink,
    config: &BridgeConfig,
) -> Result<(u32, bool), BridgeError> {
    let name = &config.name;
    let mut changed = false;
    let bridge = match netlink.interface(name).await? {
        Some(device) if is_bridge(&device) => device,
        Some(_) => return Err(BridgeError::NotABridge(name.clone())),
        None => {
            changed = true;
            // An address given at birth is never replaced by that of a port.
            let message = LinkMessageBuilder::<LinkBridge>::new(name).address(config.mac.to_vec());
            netlink
                .create(message.mcast_snooping(false).build(), name)
                .await?;
            let made = netlink.interface(name).await?;
            made.ok_or_else(|| BridgeError::NotABridge(name.clone()))?
        }
    };
    netlink.stop_ipv6_addresses(&bridge).await?;
    netlink.inside(|| sysctl::tune_bridge(name))?;
    let is_right = bridge.is_up
        && bridge.mac == Some(config.mac)
        && bridge.mtu == config.mtu
        && bridge.multicast_snooping == Some(false)
        && config.gso.hold_for(&bridge);
    if !is_right {
        changed = true;
        // The MTU is set apart from the birth: only then does the kernel stop fitting it to the ports.
        let mut message = LinkMessageBuilder::<LinkBridge>::new(name).index(bridge.index);
        for attribute in config.gso.attributes() {
            message = message.append_extra_attribute(attribute);
        }
        let message = message
            .address(config.mac.to_vec())
            .mtu(config.mtu)
            .mcast_snooping(false)
            .up();
        netlink.change(message.build(), name).await?;
    }
    if let Some(address) = config.dns {
        changed |= netlink.add_link_address(bridge.index, address).await?;
    }
    Ok((bridge.index, changed))
}

async fn ensure_tap(
    netlink: &Netlink,
    tap: &Interface,
    bridge: u32,
    mtu: u32,
) -> Result<bool, BridgeError> {
    netlink.stop_ipv6_addresses(tap).await?;
    netlink.inside(|| sysctl::tune_port(&tap.name))?;
    if tap.is_up && tap.mtu == mtu && tap.controller == Some(bridge) {
        return Ok(false);
    }
    let message = LinkUnspec::new_with_index(tap.index)
        .append_extra_attribute(LinkAttribute::Mtu(mtu))
        .controller(bridge)
        .up();
    netlink.change(message.build(), &tap.name).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_the_kernel_sees_them() {
        for name in ["weft", "weft-1", "br0.7", "fifteen-letters"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "sixteen-letters-", "a/b", "a b", "a:1", "ü"] {
            assert!(
                matches!(check_name(name), Err(BridgeError::BadName(_))),
                "{name}"
            );
        }
    }
}
