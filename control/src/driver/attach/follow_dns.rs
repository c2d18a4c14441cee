//! Gives attached containers the present server and domain, after a launch with others or without DNS.
//!
//! Which containers are to have DNS is seen from what they have: a route to a server of ours, files of ours.

use std::net::Ipv4Addr;

use super::apply::inner_of;
use super::{Alias, AttachError, Interface, NetNs, Netlink};
use crate::driver::dns::guest::Guest;

/// Changes what attached containers have for the sake of names; without DNS (`is_on`) all of it goes. One that cannot
/// be changed is told in the log.
///
/// # Errors
/// [`AttachError`] if the host's interfaces cannot be listed.
pub async fn follow_dns(
    host: &NetNs,
    bridge: &str,
    guest: &Guest,
    is_on: bool,
) -> Result<(), AttachError> {
    let (bridge, guest) = (bridge.to_owned(), guest.clone());
    let server = is_on.then(|| guest.server());
    host.run(move |host| async move {
        for outer in host.interfaces().await? {
            let alias = Alias::from_text(&outer.alias).filter(|alias| alias.bridge == bridge);
            let Some(alias) = alias else { continue };
            if is_on {
                guest.follow(&alias.id);
            } else {
                guest.forget(&alias.id);
            }
            if let Err(error) = move_route(&outer, &alias, server).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    container = alias.id,
                    "container keeps its route to another DNS server"
                );
            }
        }
        guest.sweep();
        Ok(())
    })
    .await
}

async fn move_route(
    outer: &Interface,
    alias: &Alias,
    server: Option<Ipv4Addr>,
) -> Result<(), AttachError> {
    let Some(netns) = NetNs::find(alias.inode, &alias.path) else {
        return Ok(());
    };
    let guest = Netlink::open(netns)?;
    let Some(inner) = inner_of(&guest, outer).await? else {
        return Ok(());
    };
    let present = guest.neighbour_routes(inner.index).await?;
    if let Some(server) = server.filter(|server| !present.is_empty() && !present.contains(server)) {
        guest.add_neighbour_route(inner.index, server).await?;
    }
    for other in present.into_iter().filter(|other| Some(*other) != server) {
        guest.remove_neighbour_route(inner.index, other).await?;
    }
    Ok(())
}
