//! From the TAP to sealed trains: `tap_rx`, `bridge`, `stage`, `seal`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::bridge::{Port, Wish};
use crate::command::{Event, Flow, PeerSlot};
use crate::datapath::{Datapath, counters, peer_mut};
use crate::io::offload::{Splitter, VnetHeader};
use crate::shared::Staged;
use crate::verdict::{DropReason, Station};
use crate::wire::ethernet::{EthernetView, MacAddr};

/// A frame that waited longer for its session has been sent again by its owner.
const STAGED_AGE_MAX: Duration = Duration::from_secs(3);
/// A session is asked for once in this time and peer.
const WANTED_INTERVAL_MS: u64 = 1000;

impl Datapath {
    /// Takes one frame from the TAP, virtio header first, as far as its peers' trains.
    pub fn transmit(&mut self, bytes: &[u8], now: Instant) {
        self.count(Station::TapRx, 1);
        self.relays.count_own(bytes.len());
        self.count(
            Station::TapRxBytes,
            bytes.len().saturating_sub(VnetHeader::LEN) as u64,
        );
        let Some((_, frame)) = VnetHeader::parse(bytes) else {
            return self.count_drop(DropReason::BadFrame);
        };
        let Some(view) = EthernetView::parse(frame) else {
            return self.count_drop(DropReason::BadFrame);
        };
        if self.shared.is_host_only(&view) {
            return self.count_drop(DropReason::LinkLocal);
        }
        if !self.disputed.is_empty() && self.is_disputed(&view) {
            return self.count_drop(DropReason::AddressDisputed);
        }
        let destination = view.destination();
        if destination.is_multicast() {
            return self.transmit_group(bytes, frame, now);
        }
        let source = view.source();
        self.learn(source, Port::Local, now);
        let known = self.shared.fdb.lookup(destination, self.since_start(now));
        let port = known.or_else(|| {
            let home = self.neighbours.home_of(destination);
            home.map(|home| home.port)
        });
        match port {
            Some(Port::Peer(slot)) => self.stage(slot, bytes, &mut None, now),
            Some(Port::Local) => self.count_drop(DropReason::SamePort),
            None => self.flood(source, Wish::Flood, bytes, now),
        }
    }

    /// Whether what waited may not leave any more.
    fn has_become_disputed(&self, staged: &Staged) -> bool {
        if self.disputed.is_empty() {
            return false;
        }
        let view =
            VnetHeader::parse(&staged.bytes).and_then(|(_, frame)| EthernetView::parse(frame));
        view.is_some_and(|view| self.is_disputed(&view))
    }

    fn is_disputed(&self, view: &EthernetView<'_>) -> bool {
        let source = view.ipv4_source();
        source.is_some_and(|source| self.disputed.binary_search(&source).is_ok())
    }

    /// Puts the frame in the peer's train, or aside while there is no session or path, or none may be sent.
    pub(super) fn stage(
        &mut self,
        slot: PeerSlot,
        bytes: &[u8],
        copy: &mut Option<Bytes>,
        now: Instant,
    ) {
        let Some(peer) = self.peer(slot).filter(|peer| peer.way.is_some()) else {
            return self.count_drop(DropReason::NoRoute);
        };
        let waiting = !peer.shared.queue.is_empty();
        if !self.is_ready(slot) {
            let bytes = copy
                .get_or_insert_with(|| Bytes::copy_from_slice(bytes))
                .clone();
            return self.put_aside(slot, Staged { bytes, at: now }, now);
        }
        if waiting {
            self.drain(slot, now);
        }
        self.seal(slot, bytes);
    }

    fn put_aside(&mut self, slot: PeerSlot, staged: Staged, now: Instant) {
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        let counters = counters(&self.shared, self.worker);
        counters.pass(Station::Stage, 1);
        let has_session = peer.active.is_some();
        let now_ms = u64::try_from(now.saturating_duration_since(self.shared.start).as_millis())
            .unwrap_or(u64::MAX);
        if !self.shared.stage(&peer.shared, staged) {
            counters.drop(match (has_session, peer.flow) {
                (false, _) => DropReason::QueueFull,
                (true, Flow::Open) => DropReason::PathDown,
                (true, Flow::Shut | Flow::Heard) => DropReason::FlowShut,
            });
        }
        let wanted = peer.shared.wanted_ms.load(Ordering::Relaxed);
        if !has_session && (wanted == 0 || now_ms.saturating_sub(wanted) >= WANTED_INTERVAL_MS) {
            peer.shared
                .wanted_ms
                .store(now_ms.max(1), Ordering::Relaxed);
            self.shared.report(Event::SessionWanted { slot }, counters);
        }
    }

    /// Seals what waited for this peer, oldest first; what is too old goes.
    pub(super) fn drain(&mut self, slot: PeerSlot, now: Instant) {
        loop {
            if !self.is_ready(slot) {
                return;
            }
            let Some(staged) = self
                .peer(slot)
                .and_then(|peer| self.shared.unstage(&peer.shared))
            else {
                return;
            };
            if now.saturating_duration_since(staged.at) > STAGED_AGE_MAX {
                self.count_drop(DropReason::PathDown);
            } else if self.has_become_disputed(&staged) {
                self.count_drop(DropReason::AddressDisputed);
            } else {
                self.seal(slot, &staged.bytes);
            }
        }
    }

    fn seal(&mut self, slot: PeerSlot, bytes: &[u8]) {
        let Some((vnet, frame)) = VnetHeader::parse(bytes) else {
            return;
        };
        let Ok(mut splitter) = Splitter::new(&vnet, frame) else {
            return self.count_drop(DropReason::BadFrame);
        };
        let begun = self.with_sink(slot, |builder, sink, peer| {
            let begun = builder.is_empty();
            peer.tx_bytes
                .fetch_add(frame.len() as u64, Ordering::Relaxed);
            builder.append(&mut splitter, sink);
            begun
        });
        if begun == Some(true) {
            self.dirty.push(slot);
        }
    }

    /// Remembers where a MAC was heard; a repetition within the second costs a comparison.
    pub(super) fn learn(&mut self, mac: MacAddr, port: Port, now: Instant) {
        let since = self.since_start(now);
        if mac.is_multicast() || mac.is_zero() || self.learned == Some((mac, port, since.as_secs()))
        {
            return;
        }
        if !self.shared.fdb.refresh(mac, port, since) {
            if !self.may_learn(mac, port, since) {
                return;
            }
            self.shared.fdb.learn(mac, port, since);
        }
        self.learned = Some((mac, port, since.as_secs()));
    }
}
