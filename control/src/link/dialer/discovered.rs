//! Targets that nobody named: peers that the mesh wants a link to.

use std::net::SocketAddr;
use std::time::Instant;

use super::target::Target;
use super::{Dialer, TargetAddress, TargetHost, TargetPhase};
use crate::peer::PeerId;

/// A peer that the mesh had us look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Discovered {
    pub(crate) peer: PeerId,
    /// Attempts in a row that came to nothing.
    pub(crate) failures: u32,
    pub(crate) is_connected: bool,
}

impl Dialer {
    /// Dials the peer at these addresses, one after the other, from `at` on and until it has a link; does nothing more
    /// than take over the addresses if that is under way.
    pub(crate) fn discover(&mut self, peer: PeerId, addresses: &[SocketAddr], at: Instant) {
        let mut addresses = addresses.iter().map(|address| TargetAddress {
            host: TargetHost::Ip(address.ip()),
            port: address.port(),
        });
        let known = self
            .targets
            .iter_mut()
            .find(|target| !target.is_named() && target.peer == Some(peer));
        if let Some(target) = known {
            let current = target.address.clone();
            target.others = Some(addresses.filter(|address| *address != current).collect());
        } else if let Some(first) = addresses.next() {
            let mut target = Target::new(first.to_string(), first, at);
            target.peer = Some(peer);
            target.others = Some(addresses.collect());
            self.targets.push(target);
        }
    }

    /// The same at once, for one that has been out of reach since then: the longer, the rarer it is dialled.
    pub(crate) fn seek(
        &mut self,
        peer: PeerId,
        addresses: &[SocketAddr],
        since: Instant,
        now: Instant,
    ) {
        let is_new = self.discovered().all(|found| found.peer != peer);
        self.discover(peer, addresses, now);
        let is_it = |target: &&mut Target| !target.is_named() && target.peer == Some(peer);
        if is_new && let Some(target) = self.targets.iter_mut().find(is_it) {
            target.is_out_since(since, now);
        }
    }

    /// The peer already has a link: its target waits for that to end.
    pub(crate) fn discover_connected(
        &mut self,
        peer: PeerId,
        addresses: &[SocketAddr],
        now: Instant,
    ) {
        self.discover(peer, addresses, now);
        let waiting = |target: &&mut Target| {
            !target.is_named()
                && target.peer == Some(peer)
                && matches!(target.phase, TargetPhase::Waiting { .. })
        };
        if let Some(target) = self.targets.iter_mut().find(waiting) {
            target.phase = TargetPhase::Connected;
            target.connected_at = now;
        }
    }

    /// Looks for the peer no longer; its link stays.
    pub(crate) fn undiscover(&mut self, peer: PeerId) {
        self.targets
            .retain(|target| target.is_named() || target.peer != Some(peer));
    }

    /// The peers that we were told to look for.
    pub(crate) fn discovered(&self) -> impl Iterator<Item = Discovered> {
        let discovered = self.targets.iter().filter(|target| !target.is_named());
        discovered.filter_map(|target| {
            Some(Discovered {
                peer: target.peer?,
                failures: target.failures,
                is_connected: target.phase == TargetPhase::Connected,
            })
        })
    }
}
