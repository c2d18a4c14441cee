//! Writes the node's notices into the log; addresses go to `debug` and below, or where they are the point.

use weft_engine::wire::ethernet::MacAddr;

use crate::node::notice::Notice;
use crate::peer::{Nickname, PeerId, PeerName};

/// Writes one notice.
pub(crate) fn write(notice: &Notice) {
    match notice {
        Notice::LinkUp {
            name,
            nickname,
            address,
            outbound,
        } => {
            tracing::info!(%name, %nickname, outbound, "link up");
            tracing::debug!(%name, %address, "link address");
        }
        Notice::LinkDown {
            name,
            nickname,
            reason,
        } => {
            tracing::info!(%name, %nickname, reason, "link down");
        }
        Notice::LinkFailed {
            address,
            outbound,
            reason,
        } => {
            tracing::info!(%address, outbound, reason, "no link");
        }
        Notice::LinksFailedUnsaid { count } => {
            tracing::info!(count, "more connections came to nothing than are shown");
        }
        Notice::SelfConnection { address } => {
            tracing::debug!(%address, "target is this host itself")
        }
        Notice::ClonedIdentity {
            peer_id,
            address,
            ours,
        } => {
            let what = clone_words(*ours);
            tracing::warn!(%peer_id, %address, "{what}");
        }
        Notice::CloneHeard {
            peer_id,
            name,
            nickname,
            ours,
        } => {
            let what = clone_words(*ours);
            tracing::warn!(%peer_id, %name, %nickname, "{what}");
        }
        Notice::Namesakes {
            name,
            nickname,
            peers,
        } => namesakes(name.as_ref(), nickname, peers),
        Notice::OtherMtu {
            name,
            nickname,
            theirs,
            ours,
        } => other_mtu(name, nickname, *theirs, *ours),
        Notice::SessionUp { name, cipher } => tracing::info!(%name, cipher, "session up"),
        Notice::SessionDown { name } => tracing::info!(%name, "session down"),
        Notice::PeerRestarted { name } => tracing::info!(%name, "peer restarted"),
        Notice::LoopSuspected { name, mac } => loop_suspected(name, *mac),
        Notice::BadTarget { target, reason } => {
            tracing::warn!(target_given = target, reason, "target left out")
        }
        Notice::StoreFailed => {
            tracing::error!("targets are not on disk; they hold until the next start")
        }
    }
}

fn other_mtu(name: &PeerName, nickname: &Nickname, theirs: u16, ours: u16) {
    tracing::warn!(
        %name,
        %nickname,
        theirs,
        ours,
        "peer has another MTU, larger frames will be lost: launch every host with the same --mtu"
    );
}

fn loop_suspected(name: &PeerName, mac: MacAddr) {
    tracing::warn!(
        %name,
        %mac,
        "loop: a LAN joins this host's bridge with that peer's; take one of them off it"
    );
}

fn namesakes(name: Option<&PeerName>, nickname: &Nickname, [newcomer, other]: &[PeerId; 2]) {
    match name {
        Some(name) => {
            tracing::warn!(%name, %nickname, %newcomer, %other, "two peers share a name");
        }
        None => tracing::info!(%nickname, %newcomer, %other, "two peers share a nickname"),
    }
}

fn clone_words(ours: bool) -> &'static str {
    if ours {
        "another host runs with our identity key; run `weft reset` on the copy"
    } else {
        "two hosts run with one identity key; run `weft reset` on the copy"
    }
}
