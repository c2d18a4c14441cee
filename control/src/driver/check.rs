//! `weft ipam check`: what really exists on the host, for the core to compare; also when no daemon runs.

use std::path::Path;

use super::attach::{AttachError, Host};
use super::bridge::{self, BridgeError};
use super::container::shown_id;
use super::netns::NetNs;
use super::store::{self, Store};
use crate::api::{Attachment, IpamFinding};
use crate::dns::registry::EXPOSE;
use crate::error::ControlError;
use crate::ipam::check::{Believed, believed_by_store};

/// Why a host without a daemon cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is nothing to compare with.
    #[error(transparent)]
    Store(#[from] ControlError),
    /// What exists cannot be listed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Nor what the bridge has.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

pub(super) fn against(believed: Believed, list: Vec<Attachment>) -> Vec<IpamFinding> {
    let exists = list.into_iter().map(|line| (line.id, line.addresses));
    believed.against(&exists.collect::<Vec<_>>(), shown_id)
}

/// Holds the store of a daemon that does not run against what exists on this host; `None` where none has run, or all
/// was reset. Changes nothing.
///
/// # Errors
/// [`CheckError`] if either cannot be read.
pub async fn check_stopped(
    data_dir: &Path,
    netns: NetNs,
    bridge: &str,
) -> Result<Option<Vec<IpamFinding>>, CheckError> {
    if store::is_blank(data_dir) {
        return Ok(None);
    }
    let me = store::known_identity(data_dir)?;
    let content = match Store::peek(data_dir) {
        Ok(content) => content,
        Err(error) if store::is_damage(&error) => return Ok(Some(vec![damaged(&error)])),
        Err(error) => return Err(error.into()),
    };
    let believed = match believed_by_store(&content, me.peer_id()) {
        Ok(believed) => believed,
        Err(error) => return Ok(Some(vec![damaged(&error)])),
    };
    let host = Host::new(netns, bridge, me.peer_id().name().0);
    let mut list = host.list().await?;
    if let Some((_, addresses)) = bridge::exposed(host.netns(), host.bridge()).await? {
        list.push(Attachment {
            id: EXPOSE.to_owned(),
            mac: String::new(),
            addresses,
        });
    }
    Ok(Some(against(believed, list)))
}

fn damaged(error: &dyn std::error::Error) -> IpamFinding {
    IpamFinding {
        what: format!("the store cannot be used: {error}"),
        remedy: "`weft launch` sets it aside and learns from peers what this host owns".to_owned(),
    }
}
