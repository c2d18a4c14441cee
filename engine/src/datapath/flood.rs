//! Group frames: answered here where that is certain, held where they loop or storm, else flooded.
//!
//! ```text
//!  TAP ─► echo of a peer's? ─► learn ─► a question about a known address? ─► answer to the TAP
//!                                                 └─► storm limits ─► one copy to each member, or a tree
//!  peer ─► echo of ours? ─► learn ─► deliver
//! ```
//!
//! Part of station 2. A MAC that control knows as an attachment is learned where control has it and nowhere else,
//! but for an announcement (gratuitous ARP, unsolicited advertisement): it says that the container has moved, or has
//! another MAC, and counts at once. Bounds: `config::ANSWERS_MAX`; storm limits, echoes and announced addresses in
//! `bridge/storm.rs`, `bridge/echo.rs` and `bridge/announced.rs`.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::bridge::{NeighbourTable, Port, Storm, Wish};
use crate::command::{Event, Limits, PeerSlot};
use crate::config::{ANSWERS_MAX, HOLD_TIME, LOOP_NOTICE_INTERVAL};
use crate::datapath::{Datapath, counters};
use crate::io::Io;
use crate::io::offload::VnetHeader;
use crate::packet::Packet;
use crate::verdict::{DropReason, Station};
use crate::wire::ethernet::{EthernetView, MacAddr};
use crate::wire::resolution::{ANSWER_LEN_MAX, Question, Resolution, answer};

/// Group addresses that stay on their link (IEEE 802.1D §7.12.6): STP, pause, LLDP, 802.1X.
const LINK_LOCAL_PREFIX: [u8; 5] = [0x01, 0x80, 0xc2, 0x00, 0x00];
/// A virtio header and an answer.
const ANSWER_PLACE: usize = VnetHeader::LEN + ANSWER_LEN_MAX;

/// Answers that wait for the TAP, one behind the other in a packet.
#[derive(Debug, Default)]
pub(super) struct Answers {
    packet: Option<Packet>,
    lens: Vec<usize>,
}

impl Datapath {
    /// A frame from the TAP for a group, or for a MAC that nobody knows.
    pub(super) fn transmit_group(&mut self, bytes: &[u8], frame: &[u8], now: Instant) {
        let Some(view) = EthernetView::parse(frame) else {
            return self.count_drop(DropReason::BadFrame);
        };
        let destination = view.destination();
        if destination.0[..5] == LINK_LOCAL_PREFIX && destination.0[5] < 0x10 {
            return self.count_drop(DropReason::LinkLocal);
        }
        let said = Resolution::parse(&view);
        let (mac, port) = (view.source(), Port::Local);
        if let Err(reason) = self.meet(mac, port, (frame, said), now) {
            return self.count_drop(reason);
        }
        if let Some(Resolution::Question(question)) = said
            && self.answer(&question, now)
        {
            return;
        }
        let wish = said.map_or(Wish::Flood, |_| Wish::FloodAddress);
        self.flood(mac, wish, bytes, now);
    }

    /// A group frame from a peer; an echo goes no further.
    pub(super) fn arrived_group(
        &mut self,
        slot: PeerSlot,
        frame: &[u8],
        view: &EthernetView<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let said = Resolution::parse(view);
        self.meet(view.source(), Port::Peer(slot), (frame, said), now)?;
        if self.rests(slot, self.since_start(now)) {
            return Err(DropReason::FloodRest);
        }
        Ok(())
    }

    /// Whether floods to and from a peer rest.
    fn rests(&self, slot: PeerSlot, since: Duration) -> bool {
        let until =
            |peer: &crate::datapath::Peer| peer.shared.flood_rests_ms.load(Ordering::Relaxed);
        self.peer(slot)
            .is_some_and(|peer| u128::from(until(peer)) > since.as_millis())
    }

    /// Looks whether a group frame is an echo, and learns its source if not.
    fn meet(
        &mut self,
        mac: MacAddr,
        port: Port,
        (frame, said): (&[u8], Option<Resolution>),
        now: Instant,
    ) -> Result<(), DropReason> {
        let since = self.since_start(now);
        let home = self.neighbours.home_of(mac).map(|home| home.port);
        let announced = match said {
            Some(Resolution::Announcement(address)) => Some(address),
            _ => None,
        };
        let earlier = self.shared.echoes.note(frame, port, since);
        // An announcement that comes from where control has the MAC is a move back and no echo.
        if let Some(earlier) = earlier
            && !(announced.is_some() && home == Some(port))
        {
            self.echoed(mac, earlier, port, since);
            return Err(DropReason::Loop);
        }
        if let Some(address) = announced {
            self.shared.announced.note(address, mac, since);
            if home == Some(port) || !self.shared.echoes.is_held(mac, port, since) {
                self.shared.echoes.release(mac);
                self.shared.fdb.learn(mac, port, since);
                self.learned = None;
            }
            return Ok(());
        }
        // Who has announced itself here since control looked has moved here.
        let came = self.shared.fdb.lookup(mac, since) == Some(Port::Local);
        if port == Port::Local
            && !came
            && let Some(Port::Peer(slot)) = home
        {
            // Another host's container on our side: it came by a LAN, or is an impostor's.
            self.report_loop(slot, mac, since);
            return Err(DropReason::Loop);
        }
        self.learn(mac, port, now);
        Ok(())
    }

    /// What came in on `earlier` came in on `port`, too.
    fn echoed(&mut self, mac: MacAddr, earlier: Port, port: Port, since: Duration) {
        self.shared.echoes.hold(mac, port, since);
        match (earlier, port) {
            // Whichever way round it goes, it goes through that peer's LAN and ours.
            (Port::Local, Port::Peer(slot)) | (Port::Peer(slot), Port::Local) => {
                if let Some(peer) = self.peer(slot) {
                    let until = since.saturating_add(HOLD_TIME).as_millis();
                    let until = u64::try_from(until).unwrap_or(u64::MAX);
                    peer.shared.flood_rests_ms.store(until, Ordering::Relaxed);
                }
                self.report_loop(slot, mac, since);
            }
            (Port::Peer(_), Port::Peer(slot)) => self.report_loop(slot, mac, since),
            (Port::Local, Port::Local) => {}
        }
    }

    fn report_loop(&self, slot: PeerSlot, mac: MacAddr, since: Duration) {
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        let pause = u64::try_from(LOOP_NOTICE_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let noticed = &self.shared.loop_noticed_ms;
        let last = noticed.load(Ordering::Relaxed);
        if (last == 0 || now.saturating_sub(last) >= pause)
            && noticed
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let event = Event::LoopSuspected { slot, mac };
            self.shared
                .report(event, counters(&self.shared, self.worker));
        }
    }

    /// Whether a MAC that the FDB does not have on `port` may be learned there.
    pub(super) fn may_learn(&self, mac: MacAddr, port: Port, since: Duration) -> bool {
        match (self.neighbours.home_of(mac).map(|home| home.port), port) {
            (Some(home), port) if home == port => true,
            (Some(Port::Local), Port::Peer(slot)) => {
                self.report_loop(slot, mac, since);
                false
            }
            (Some(_), _) => false,
            (None, port) => !self.shared.echoes.is_held(mac, port, since),
        }
    }

    /// Floods a frame as far as the storm limits allow.
    pub(super) fn flood(&mut self, mac: MacAddr, wish: Wish, bytes: &[u8], now: Instant) {
        let since = self.since_start(now);
        let home = self.neighbours.home_of(mac);
        let is_known = home.is_some_and(|home| home.port == Port::Local);
        if let Err(reason) = self.storm.admit(mac, wish, is_known, since) {
            return self.count_drop(reason);
        }
        self.count(Station::Bridge, 1);
        if self.flood_tree(bytes, now) {
            return;
        }
        let fib = Arc::clone(&self.fib);
        let mut copy = None;
        for slot in &fib.flood {
            if self.rests(*slot, since) {
                self.count_drop(DropReason::FloodRest);
                continue;
            }
            self.stage(*slot, bytes, &mut copy, now);
        }
    }

    /// Answers a question about a known address; false if it must be flooded.
    fn answer(&mut self, question: &Question, now: Instant) -> bool {
        let Some(mac) = self.neighbours.mac_of(question.target) else {
            return false;
        };
        let since = self.since_start(now);
        let known = self.neighbours.mac_of(question.asker_address);
        if known.is_some_and(|known| known != question.asker)
            || self
                .shared
                .announced
                .contradicts(question.target, mac, since)
        {
            // One of them has another MAC since control looked: that is to be heard from itself.
            return false;
        }
        let home = self.neighbours.home_of(mac).map(|home| home.port);
        let slot = match home {
            // Who asks for itself asks whether there is another.
            _ if mac == question.asker => return false,
            Some(Port::Peer(slot)) => slot,
            Some(Port::Local) => {
                self.count_drop(DropReason::SamePort);
                return true;
            }
            None => return false,
        };
        // With a session but no path the peer may be gone: let whoever has the address now answer.
        let certain = self
            .peer(slot)
            .is_some_and(|peer| peer.way.is_some() && peer.active.is_none())
            || self.is_in_reach(slot);
        if !certain {
            return false;
        }
        if let Err(reason) = self.storm.admit(question.asker, Wish::Answer, true, since) {
            self.count_drop(reason);
        } else {
            self.put_answer(question, mac);
        }
        true
    }

    fn put_answer(&mut self, question: &Question, mac: MacAddr) {
        if self.answers.lens.len() >= ANSWERS_MAX {
            return self.count_drop(DropReason::FloodTap);
        }
        if self.answers.packet.is_none() {
            self.answers.packet = self.pool.take();
        }
        let at = self.answers.lens.len() * ANSWER_PLACE;
        let place = self
            .answers
            .packet
            .as_mut()
            .and_then(|packet| packet.bytes_mut().get_mut(at..at + ANSWER_PLACE))
            .and_then(|place| place.split_first_chunk_mut::<{ VnetHeader::LEN }>());
        let Some((vnet, frame)) = place else {
            return self.count_drop(DropReason::PoolEmpty);
        };
        *vnet = VnetHeader::default().encode();
        if let Some(len) = answer(question, mac, frame) {
            self.answers.lens.push(VnetHeader::LEN + len);
            self.count(Station::BridgeAnswers, 1);
        }
    }

    /// Writes the answers to the TAP.
    pub(super) fn deliver_answers<I: Io>(&mut self, io: &mut I) {
        let Some(packet) = self.answers.packet.take() else {
            return;
        };
        for (number, len) in self.answers.lens.drain(..).enumerate() {
            let at = number * ANSWER_PLACE;
            let bytes = packet.bytes().get(at..at + len).unwrap_or_default();
            if io.tap_send(&[IoSlice::new(bytes)]).is_err() {
                counters(&self.shared, self.worker).drop(DropReason::TapRefused);
            }
        }
        self.pool.put(packet);
    }

    pub(super) fn set_neighbours(&mut self, table: Arc<NeighbourTable>, now: Instant) {
        let since = self.since_start(now);
        if self.worker == 0 {
            // What was learned elsewhere is out of date, and so is what was held.
            for (mac, port) in table.moved_since(&self.neighbours) {
                self.shared.echoes.release(mac);
                self.shared.fdb.relocate(mac, port, since);
            }
        }
        self.neighbours = table;
        self.learned = None;
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        let Limits {
            flood_per_mac,
            flood_per_tap,
            ..
        } = limits;
        if (flood_per_mac, flood_per_tap) != (self.limits.flood_per_mac, self.limits.flood_per_tap)
        {
            self.storm = Storm::new(flood_per_mac, flood_per_tap, self.shared.workers.len());
        }
        self.limits = limits;
    }
}
