//! Gives attached containers the present server and domain, after a launch with others or without DNS.
//!
//! ```text
//!  with DNS      parked files put back, files and route brought to this domain and this server
//!  without DNS   files parked; the route stays: it leads nowhere, and says who is to have DNS again
//! ```

use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::apply::inner_of;
use super::{Alias, AttachError, Interface, NetNs, Netlink};
use crate::driver::dns::guest::Guest;

/// Changes what attached containers have for the sake of names; without DNS (`is_on`) their files wait. One that cannot
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
    host.run(move |host| async move {
        for outer in host.interfaces().await? {
            let alias = Alias::from_text(&outer.alias).filter(|alias| alias.bridge == bridge);
            let Some(alias) = alias else { continue };
            if !is_on {
                guest.park(&alias.id);
                continue;
            }
            match move_route(&outer, &alias, guest.server()).await {
                Ok(Some(Found { present, had_route })) => {
                    guest.unpark(&alias.id, &present, had_route);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    container = alias.id,
                    "container keeps its route to another DNS server"
                ),
            }
            guest.follow(&alias.id);
        }
        guest.sweep();
        Ok(())
    })
    .await
}

/// What a container's interface has.
struct Found {
    present: Vec<IpNet>,
    /// A route to a server of ours, of whatever launch: such a container is to have DNS.
    had_route: bool,
}

/// Leads a container that is to have DNS to this server; `None` if its interface is not found.
async fn move_route(
    outer: &Interface,
    alias: &Alias,
    server: Ipv4Addr,
) -> Result<Option<Found>, AttachError> {
    let Some(netns) = NetNs::find(alias.inode, &alias.path) else {
        return Ok(None);
    };
    let guest = Netlink::open(netns)?;
    let Some(inner) = inner_of(&guest, outer).await? else {
        return Ok(None);
    };
    let routes = guest.neighbour_routes(inner.index).await?;
    let had_route = !routes.is_empty();
    if had_route && !routes.contains(&server) {
        guest.add_neighbour_route(inner.index, server).await?;
    }
    for other in routes.into_iter().filter(|other| *other != server) {
        guest.remove_neighbour_route(inner.index, other).await?;
    }
    let present = guest.addresses_of(inner.index).await?;
    Ok(Some(Found { present, had_route }))
}
