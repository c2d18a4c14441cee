//! Gives the interfaces of attached containers the overlay's MTU, after a launch with another one.
//!
//! What was made for another MTU would lose larger frames, or send smaller ones than it could. The host end says for
//! which one a pair was made, so an MTU that somebody set inside the container afterwards stays as it is.

use netlink_packet_route::link::LinkAttribute;
use rtnetlink::LinkUnspec;

use super::apply::{inner_of, with_gso};
use super::{Alias, AttachError, Interface, NetNs, Netlink};
use crate::driver::bridge::BridgeConfig;

/// Changes those that were made for another MTU; how many it were. One that cannot be changed is told in the log.
///
/// # Errors
/// [`AttachError`] if the host's interfaces cannot be listed.
pub async fn follow_mtu(host: &NetNs, config: &BridgeConfig) -> Result<usize, AttachError> {
    let config = config.clone();
    host.run(|host| async move {
        let mut count = 0;
        for outer in host.interfaces().await? {
            let alias = Alias::from_text(&outer.alias)
                .filter(|alias| alias.bridge == config.name && outer.mtu != config.mtu);
            let Some(alias) = alias else { continue };
            match follow(&host, &outer, &alias, &config).await {
                Ok(()) => count += 1,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    container = alias.id,
                    mtu = config.mtu,
                    "container keeps its MTU"
                ),
            }
        }
        if count > 0 {
            tracing::info!(count, mtu = config.mtu, "containers have another MTU now");
        }
        Ok(count)
    })
    .await
}

/// The container's end first: the host's end remembers that it is to be done.
async fn follow(
    host: &Netlink,
    outer: &Interface,
    alias: &Alias,
    config: &BridgeConfig,
) -> Result<(), AttachError> {
    if let Some(netns) = NetNs::find(alias.inode, &alias.path) {
        let guest = Netlink::open(netns)?;
        if let Some(inner) = inner_of(&guest, outer).await? {
            change(&guest, &inner, config).await?;
        }
    }
    change(host, outer, config).await
}

async fn change(
    netlink: &Netlink,
    interface: &Interface,
    config: &BridgeConfig,
) -> Result<(), AttachError> {
    let message = with_gso(LinkUnspec::new_with_index(interface.index), config.gso);
    let message = message.append_extra_attribute(LinkAttribute::Mtu(config.mtu));
    Ok(netlink.change(message.build(), &interface.name).await?)
}
