//! From trains to the TAP: `udp_rx`, `open`, `deliver`.

use std::io::IoSlice;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use crate::bridge::Port;
use crate::command::{Event, PeerSlot};
use crate::config::{COALESCE_SEGMENTS_MAX, FORGED_SOFT_MAX};
use crate::datapath::{Datapath, Place, Store, counters, peer_mut};
use crate::io::{Io, Received};
use crate::packet::Packet;
use crate::path::Arrival;
use crate::session::OpenError;
use crate::shared::Handoff;
use crate::verdict::{DropReason, Station};
use crate::wire::ethernet::EthernetView;
use crate::wire::meta::Meta;
use crate::wire::{
    ControlClass, HEADER_LEN, Header, INNER_LEN, Kind, LENGTH_LEN, PIECE_LEN, TAG_LEN,
};

/// Opened bytes that may wait for their neighbours: what the second-level cache holds beside the rest.
const HELD_BYTES_MAX: usize = 256 << 10;

impl Datapath {
    /// Opens every datagram of a train; frames for the TAP wait until [`Datapath::deliver`].
    pub fn receive(&mut self, received: Received, now: Instant) {
        let Received {
            mut packet,
            start,
            len,
            segment,
            from,
            local,
        } = received;
        let from = Arrival {
            address: from,
            local,
        };
        self.count(Station::UdpRx, 1);
        self.count(Station::UdpRxBytes, len as u64);
        let place = Place {
            store: Store::Held,
            index: self.held.len(),
            start,
        };
        if len == 0 {
            self.count_drop(DropReason::BadHeader);
        }
        let end = (start + len).min(packet.bytes().len());
        let mut at = start;
        let mut peer = None;
        while at < end {
            let next = (at + segment.max(1)).min(end);
            if let Some(datagram) = packet.bytes_mut().get_mut(at..next) {
                match self.open(datagram, Place { start: at, ..place }, from, now) {
                    Ok(slot) => peer = slot.or(peer),
                    Err(reason) => self.count_drop(reason),
                }
            }
            at = next;
        }
        if let Some(slot) = peer {
            self.heard(slot, from.address, now);
        }
        self.held_bytes += len;
        self.held.push(packet);
    }

    /// True when what was opened should be delivered before more is received.
    pub fn should_deliver(&self) -> bool {
        self.held_bytes >= HELD_BYTES_MAX || self.held.len() >= crate::config::RECEIVE_BATCH_MAX * 2
    }

    /// Takes the datagrams that other workers received for a lane of ours.
    pub fn take_handoffs(&mut self, now: Instant) {
        let shared = std::sync::Arc::clone(&self.shared);
        let Some(mine) = shared.workers.get(usize::from(self.worker)) else {
            return;
        };
        while let Some(handoff) = mine.handoffs.pop() {
            let Handoff { bytes, len, from } = handoff;
            if let Some(mut packet) = self.pool.take() {
                if let (Some(to), Some(from)) =
                    (packet.bytes_mut().get_mut(..len), bytes.get(..len))
                {
                    to.copy_from_slice(from);
                }
                self.receive(
                    Received {
                        packet,
                        start: 0,
                        len,
                        segment: len,
                        from: from.address,
                        local: from.local,
                    },
                    now,
                );
            } else {
                self.count_drop(DropReason::PoolEmpty);
            }
            let _ = mine.handoffs_free.push(bytes);
        }
    }

    /// `open` for one datagram: who sealed it, or why it goes no further.
    fn open(
        &mut self,
        datagram: &mut [u8],
        place: Place,
        from: Arrival,
        now: Instant,
    ) -> Result<Option<PeerSlot>, DropReason> {
        let (header, bytes) = Header::parse(datagram).ok_or(DropReason::BadHeader)?;
        let bytes = *bytes;
        let epoch = self
            .epochs
            .get_mut(&header.receiver)
            .ok_or(DropReason::UnknownSession)?;
        let workers = u16::try_from(self.shared.workers.len()).unwrap_or(1);
        let owner = u16::from(header.lane) % workers;
        if owner != self.worker {
            return self.hand_off(owner, datagram, from).map(|()| None);
        }
        let slot = epoch.slot();
        let lane = epoch.lane(header.lane).ok_or(DropReason::BadHeader)?;
        let text = datagram.get_mut(HEADER_LEN..).unwrap_or_default();
        match lane.open(header.counter, &bytes, text) {
            Ok(()) => {}
            Err(OpenError::Replayed) => return Err(DropReason::Replayed),
            Err(OpenError::Forged) => {
                if epoch.count_forged() == FORGED_SOFT_MAX {
                    let event = Event::RekeyDue {
                        slot,
                        local_index: header.receiver,
                    };
                    self.shared
                        .report(event, counters(&self.shared, self.worker));
                }
                return Err(DropReason::Forged);
            }
        }
        if epoch.confirm() {
            let event = Event::SessionConfirmed {
                slot,
                local_index: header.receiver,
            };
            self.shared
                .report(event, counters(&self.shared, self.worker));
            // The peer proved that it has the keys, so an answer may leave at once.
            self.activate(slot, header.receiver, now);
        }
        self.count(Station::Open, 1);
        let len = datagram.len();
        let text = text_of(datagram);
        let (kind, meta, body) = match text {
            [kind, meta, body @ ..] => (*kind, *meta, body),
            _ => return Err(DropReason::BadPayload),
        };
        let start = place.start + HEADER_LEN + INNER_LEN;
        let place = Place { start, ..place };
        match Kind::parse(kind).ok_or(DropReason::BadPayload)? {
            Kind::Frame => self.frame(slot, meta, body, place, now)?,
            Kind::Frames => self.frames(slot, meta, body, place, now)?,
            Kind::Piece => self.piece(slot, &header, meta, body, now)?,
            Kind::Control => {
                // The path machine judges by its own messages where they came from.
                self.control(slot, meta, body, (from, len), now)?;
                return Ok(None);
            }
            Kind::Bench => self.bench_datagram(slot, meta, body, len, now)?,
        }
        Ok(Some(slot))
    }

    fn hand_off(&mut self, owner: u16, datagram: &[u8], from: Arrival) -> Result<(), DropReason> {
        let worker = self
            .shared
            .workers
            .get(usize::from(owner))
            .ok_or(DropReason::BadHeader)?;
        let mut bytes = worker.handoffs_free.pop().ok_or(DropReason::HandoffFull)?;
        let len = datagram.len();
        let Some(to) = bytes.get_mut(..len) else {
            let _ = worker.handoffs_free.push(bytes);
            return Err(DropReason::BadHeader);
        };
        to.copy_from_slice(datagram);
        worker
            .handoffs
            .push(Handoff { bytes, len, from })
            .map_err(|_| DropReason::HandoffFull)?;
        self.shared.wake(owner);
        self.count(Station::UdpRxHandoff, 1);
        Ok(())
    }

    /// One frame for the TAP.
    fn frame(
        &mut self,
        slot: PeerSlot,
        meta: u8,
        frame: &[u8],
        place: Place,
        now: Instant,
    ) -> Result<(), DropReason> {
        let meta = Meta::from_wire(meta).ok_or(DropReason::BadPayload)?;
        let view = EthernetView::parse(frame).ok_or(DropReason::BadPayload)?;
        self.learn(view.source(), Port::Peer(slot), now);
        if let Some(peer) = peer_mut(&mut self.peers, slot) {
            peer.shared
                .rx_bytes
                .fetch_add(frame.len() as u64, Ordering::Relaxed);
        }
        self.coalescer
            .push(meta, frame, place)
            .map_err(|_| DropReason::BadHint)
    }

    fn frames(
        &mut self,
        slot: PeerSlot,
        meta: u8,
        body: &[u8],
        place: Place,
        now: Instant,
    ) -> Result<(), DropReason> {
        let mut at = 0;
        while at < body.len() {
            let rest = body.get(at..).unwrap_or_default();
            let (len, rest) = rest
                .split_first_chunk::<LENGTH_LEN>()
                .ok_or(DropReason::BadPayload)?;
            let len = usize::from(u16::from_be_bytes(*len));
            let frame = rest.get(..len).ok_or(DropReason::BadPayload)?;
            let place = Place {
                start: place.start + at + LENGTH_LEN,
                ..place
            };
            self.frame(slot, meta, frame, place, now)?;
            at += LENGTH_LEN + len;
        }
        Ok(())
    }

    /// Half of a frame; the whole gets a packet of its own.
    fn piece(
        &mut self,
        slot: PeerSlot,
        header: &Header,
        meta: u8,
        body: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let (head, bytes) = body
            .split_first_chunk::<PIECE_LEN>()
            .ok_or(DropReason::BadPayload)?;
        let [part @ 0..=1, high, low] = *head else {
            return Err(DropReason::BadPayload);
        };
        let total = usize::from(u16::from_be_bytes([high, low]));
        let lane = self
            .epochs
            .get_mut(&header.receiver)
            .and_then(|epoch| epoch.lane(header.lane));
        let Some(lane) = lane else { return Ok(()) };
        let mut frame = std::mem::take(&mut self.scratch);
        let mut lost = false;
        let whole = lane.join(header.counter, part, total, bytes, &mut frame, &mut lost);
        if lost {
            self.count_drop(DropReason::PieceLost);
        }
        let verdict = if whole {
            self.joined_frame(slot, meta, &frame, now)
        } else {
            Ok(())
        };
        self.scratch = frame;
        verdict
    }

    fn joined_frame(
        &mut self,
        slot: PeerSlot,
        meta: u8,
        frame: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let mut packet = self.pool.take().ok_or(DropReason::PoolEmpty)?;
        if let Some(to) = packet.bytes_mut().get_mut(..frame.len()) {
            to.copy_from_slice(frame);
        }
        let place = Place {
            store: Store::Joined,
            index: self.joined.len(),
            start: 0,
        };
        self.joined.push(packet);
        self.frame(slot, meta, frame, place, now)
    }

    fn control(
        &mut self,
        slot: PeerSlot,
        class: u8,
        body: &[u8],
        (from, len): (Arrival, usize),
        now: Instant,
    ) -> Result<(), DropReason> {
        let (body_len, rest) = body
            .split_first_chunk::<LENGTH_LEN>()
            .ok_or(DropReason::BadPayload)?;
        let body = rest
            .get(..usize::from(u16::from_be_bytes(*body_len)))
            .ok_or(DropReason::BadPayload)?;
        match ControlClass::parse(class).ok_or(DropReason::BadPayload)? {
            ControlClass::Path => self.probe(slot, from, len, body, now),
            ControlClass::Message => {
                let event = Event::Message {
                    slot,
                    message: Bytes::copy_from_slice(body),
                };
                self.shared
                    .report(event, counters(&self.shared, self.worker));
                Ok(())
            }
        }
    }

    /// `deliver`: writes what was opened to the TAP, runs put together, and frees the packets.
    pub fn deliver<I: Io>(&mut self, io: &mut I) {
        if self.held.is_empty() {
            return;
        }
        self.coalescer.flush();
        let counters = counters(&self.shared, self.worker);
        for ready in self.coalescer.ready() {
            let mut parts = [IoSlice::new(&[]); COALESCE_SEGMENTS_MAX + 2];
            let vnet = ready.vnet().encode();
            let mut count = 0;
            let mut len = 0;
            let head = [&vnet[..], ready.header()];
            let pieces = ready.pieces().map(|piece| {
                let Place {
                    store,
                    index,
                    start,
                } = piece.at;
                let store = match store {
                    Store::Held => &self.held,
                    Store::Joined => &self.joined,
                };
                let packet = store.get(index).map(Packet::bytes).unwrap_or_default();
                packet
                    .get(start + piece.offset..start + piece.offset + piece.len)
                    .unwrap_or_default()
            });
            for (part, bytes) in parts.iter_mut().zip(head.into_iter().chain(pieces)) {
                *part = IoSlice::new(bytes);
                count += 1;
                len += bytes.len();
            }
            counters.pass(Station::Deliver, 1);
            counters.pass(Station::DeliverBytes, (len - vnet.len()) as u64);
            if io.tap_send(&parts[..count]).is_err() {
                counters.drop(DropReason::TapRefused);
            }
        }
        self.coalescer.clear_ready();
        self.held_bytes = 0;
        while let Some(packet) = self.held.pop().or_else(|| self.joined.pop()) {
            self.pool.put(packet);
        }
    }
}

/// The opened text of a datagram, without its tag.
fn text_of(datagram: &[u8]) -> &[u8] {
    datagram
        .get(HEADER_LEN..datagram.len().saturating_sub(TAG_LEN))
        .unwrap_or_default()
}
