//! Ways: where a peer's datagrams leave, and how they are wrapped on a way that leads through a relay.
//!
//! ```text
//!  Direct      seal ─► the peer's own path
//!  Via(relay)  seal ─► RELAY front and hop tag ─► the relay's path       48 bytes less for the datagram
//! ```
//!
//! Probes always go to the address they are for: a peer behind a relay is looked for directly all the same.

use std::sync::Arc;
use std::time::Instant;

use crate::bridge::{Fib, NextHop};
use crate::command::{Flow, PeerSlot};
use crate::datapath::{Datapath, Peer, Sink, TrainBuilder, Wrap, counters, peer_mut};
use crate::path::Arrival;
use crate::shared::PeerShared;
use crate::wire::ControlClass;
use crate::wire::relay::RELAY_OVERHEAD;

impl Datapath {
    pub(super) fn set_fib(&mut self, fib: Arc<Fib>, now: Instant) {
        // What was sealed for the old ways leaves by them.
        self.flush();
        for (slot, peer) in (0..).zip(&mut self.peers) {
            let Some(peer) = peer else { continue };
            let slot = PeerSlot(slot);
            peer.way = fib.routes.get(&slot).copied();
            peer.way_max = fib.route_max.get(&slot).copied().map_or(0, usize::from);
        }
        self.fib = fib;
        self.relays.forget_routes();
        self.drain_all(now);
    }

    pub(super) fn set_flow(&mut self, slot: PeerSlot, flow: Flow, now: Instant) {
        // What was let out before leaves.
        self.flush_peer(slot);
        if let Some(peer) = peer_mut(&mut self.peers, slot) {
            peer.flow = flow;
        }
        self.drain(slot, now);
    }

    /// Seals what waited for peers that can be reached now.
    pub(super) fn drain_all(&mut self, now: Instant) {
        for slot in 0..self.peers.len() {
            let Ok(slot) = u16::try_from(slot) else { break };
            let slot = PeerSlot(slot);
            let waits = |peer: &mut Peer| !peer.shared.queue.is_empty();
            if peer_mut(&mut self.peers, slot).is_some_and(waits) {
                self.drain(slot, now);
            }
            self.confirm(slot);
        }
    }

    /// Shows a peer behind a relay that we have the keys; on a path of our own the probes do.
    pub(super) fn confirm(&mut self, slot: PeerSlot) {
        let due = self.worker == 0
            && self
                .peer(slot)
                .is_some_and(|peer| !peer.confirmed && matches!(peer.way, Some(NextHop::Via(_))));
        if due
            && self.send_on_way(slot, ControlClass::Confirm, &[])
            && let Some(peer) = peer_mut(&mut self.peers, slot)
        {
            peer.confirmed = true;
        }
    }

    /// Whether a frame for this peer may be sealed and sent now.
    #[inline]
    pub(super) fn is_ready(&self, slot: PeerSlot) -> bool {
        let is_open = |peer: &Peer| peer.flow == Flow::Open;
        self.peer(slot).is_some_and(is_open) && self.is_in_reach(slot)
    }

    /// Whether there is a session with the peer, and a path.
    #[inline]
    pub(super) fn is_in_reach(&self, slot: PeerSlot) -> bool {
        let Some(peer) = self.peer(slot) else {
            return false;
        };
        let carrier = match peer.way {
            Some(NextHop::Direct) => Some(peer),
            Some(NextHop::Via(relay)) => self.peer(relay),
            None => None,
        };
        peer.active.is_some()
            && carrier.is_some_and(|carrier| {
                carrier.active.is_some() && carrier.shared.endpoint.load().is_some()
            })
    }

    pub(super) fn peer(&self, slot: PeerSlot) -> Option<&Peer> {
        self.peers.get(usize::from(slot.0))?.as_deref()
    }

    /// Lets `act` fill the peer's train on its way; `None` while it has no session or its way does not carry.
    #[inline]
    pub(super) fn with_sink<T>(
        &mut self,
        slot: PeerSlot,
        act: impl FnOnce(&mut TrainBuilder, &mut Sink<'_>, &PeerShared) -> T,
    ) -> Option<T> {
        let peer = peer_mut(&mut self.peers, slot)?;
        if let Some(NextHop::Via(relay)) = peer.way {
            return self.with_relay(slot, relay, act);
        }
        peer.way?;
        let lane = peer.active.as_mut()?;
        let endpoint = peer.shared.endpoint.load();
        let endpoint = endpoint.as_deref()?;
        let mut sink = Sink {
            pool: &mut self.pool,
            trains: &mut self.trains,
            lane,
            counters: counters(&self.shared, self.worker),
            to: endpoint.address,
            local: endpoint.local,
            datagram_max: endpoint.datagram_max,
            wrap: None,
        };
        Some(act(&mut peer.builder, &mut sink, &peer.shared))
    }

    fn with_relay<T>(
        &mut self,
        slot: PeerSlot,
        relay: PeerSlot,
        act: impl FnOnce(&mut TrainBuilder, &mut Sink<'_>, &PeerShared) -> T,
    ) -> Option<T> {
        let places = [usize::from(slot.0), usize::from(relay.0)];
        let [peer, relay] = self.peers.get_disjoint_mut(places).ok()?;
        let (peer, relay) = (peer.as_deref_mut()?, relay.as_deref_mut()?);
        let lane = peer.active.as_mut()?;
        let endpoint = relay.shared.endpoint.load();
        let endpoint = endpoint.as_deref()?;
        let way_max = match peer.way_max {
            0 => endpoint.datagram_max,
            known => known.min(endpoint.datagram_max),
        };
        let mut sink = Sink {
            pool: &mut self.pool,
            trains: &mut self.trains,
            lane,
            counters: counters(&self.shared, self.worker),
            to: endpoint.address,
            local: endpoint.local,
            datagram_max: way_max.saturating_sub(RELAY_OVERHEAD),
            wrap: Some(Wrap {
                hop: relay.active.as_mut()?.hop(),
                destination: peer.shared.label,
                source: self.label,
            }),
        };
        Some(act(&mut peer.builder, &mut sink, &peer.shared))
    }

    /// As [`Datapath::with_sink`], but to an address of the peer itself, whatever its way is.
    pub(super) fn with_address(
        &mut self,
        slot: PeerSlot,
        to: Arrival,
        datagram_max: usize,
        act: impl FnOnce(&mut Sink<'_>),
    ) {
        let lane = peer_mut(&mut self.peers, slot).and_then(|peer| peer.active.as_mut());
        let Some(lane) = lane else { return };
        act(&mut Sink {
            pool: &mut self.pool,
            trains: &mut self.trains,
            lane,
            counters: counters(&self.shared, self.worker),
            to: to.address,
            local: to.local,
            datagram_max,
            wrap: None,
        });
    }
}
