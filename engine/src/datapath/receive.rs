//! From trains to the TAP: `udp_rx`, `open`, `deliver`; what is for others goes to `relay`.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use crate::bridge::Port;
use crate::command::{Event, Flow, PeerSlot};
use crate::config::{COALESCE_SEGMENTS_MAX, FORGED_SOFT_MAX};
use crate::datapath::relay::Step;
use crate::datapath::{Datapath, Place, Store, counters, peer_mut};
use crate::io::{Io, Received};
use crate::packet::Packet;
use crate::path::Arrival;
use crate::session::OpenError;
use crate::shared::{Handoff, Origin, Shared};
use crate::verdict::{DropReason, Station};
use crate::wire::ethernet::EthernetView;
use crate::wire::meta::Meta;
use crate::wire::{ControlClass, HEADER_LEN, Header, INNER_LEN, Kind, LENGTH_LEN, TAG_LEN};

/// Opened bytes that may wait for their neighbours: what the second-level cache holds beside the rest.
const HELD_BYTES_MAX: usize = 256 << 10;
/// Frames that may wait for them: all at once they must fit a receiving socket's default buffer, which takes 277
/// small datagrams.
const HELD_FRAMES_MAX: usize = 128;

/// Under which keys a datagram opened.
#[derive(Debug, Clone, Copy)]
pub(super) enum EpochName {
    /// A session's, by our receiver index.
    Session(u32),
    /// A source's for its floods.
    Group(PeerSlot, u32),
}

/// What became of one datagram.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opened {
    /// It came straight from this peer, or this peer vouched for it.
    From(PeerSlot),
    /// It says nothing of where its sender is.
    Quiet,
    /// It is for somebody else.
    Pass(Step),
}

impl Datapath {
    /// Opens every datagram of a train; frames for the TAP wait until [`Datapath::deliver`].
    pub fn receive(&mut self, received: Received, now: Instant) {
        self.count(Station::UdpRx, 1);
        self.count(Station::UdpRxBytes, received.len as u64);
        let from = Arrival {
            address: received.from,
            local: received.local,
        };
        if let Some(slot) = self.take_in(received, Origin::Wire(from), now) {
            self.heard(slot, from.address, now);
        }
    }

    /// Opens the datagrams of one packet; returns the peer that was heard.
    fn take_in(&mut self, received: Received, from: Origin, now: Instant) -> Option<PeerSlot> {
        let Received {
            mut packet,
            start,
            len,
            segment,
            ..
        } = received;
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
        let mut kept = false;
        let mut run = None;
        while at < end {
            let next = (at + segment.max(1)).min(end);
            if let Some(datagram) = packet.bytes_mut().get_mut(at..next) {
                match self.open(datagram, Place { start: at, ..place }, from, now) {
                    Ok(Opened::From(slot)) => {
                        peer = Some(slot);
                        kept = true;
                    }
                    Ok(Opened::Quiet) => {}
                    Ok(Opened::Pass(step)) => {
                        peer = Some(step.ingress);
                        self.extend(&mut run, step, at..next, &packet);
                    }
                    Err(reason) => self.count_drop(reason),
                }
            }
            at = next;
        }
        match run {
            Some(run) if kept => self.relay_copy(&run, &packet),
            Some(run) => {
                self.relay(run, packet);
                return peer;
            }
            None => {}
        }
        self.held_bytes += len;
        self.held.push(packet);
        peer
    }

    /// True when what was received should go on before more is received.
    pub fn should_deliver(&self) -> bool {
        self.held_bytes >= HELD_BYTES_MAX
            || self.held_frames >= HELD_FRAMES_MAX
            || self.held.len() >= crate::config::RECEIVE_BATCH_MAX * 2
            || self.relays.is_turn_full()
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
                self.take_handoff(packet, len, from, now);
            } else {
                self.count_drop(DropReason::PoolEmpty);
            }
            let _ = mine.handoffs_free.push(bytes);
        }
    }

    fn take_handoff(&mut self, packet: Packet, len: usize, from: Origin, now: Instant) {
        let arrival = match from {
            Origin::Wire(arrival) => arrival,
            // Nobody asks where it arrived: the peer that vouched for it was heard already.
            Origin::Hop(_) => Arrival {
                address: SocketAddr::from(([0; 4], 0)),
                local: None,
            },
        };
        let received = Received {
            packet,
            start: 0,
            len,
            segment: len,
            from: arrival.address,
            local: arrival.local,
        };
        match from {
            Origin::Wire(_) => self.receive(received, now),
            Origin::Hop(_) => {
                self.take_in(received, from, now);
            }
        }
    }

    /// `open` for one datagram: who sealed it, or why it goes no further.
    pub(super) fn open(
        &mut self,
        datagram: &mut [u8],
        place: Place,
        from: Origin,
        now: Instant,
    ) -> Result<Opened, DropReason> {
        let Some((header, bytes)) = Header::parse(datagram) else {
            return self.open_wrapped(datagram, place, from, now);
        };
        let bytes = *bytes;
        let epoch = self
            .epochs
            .get_mut(&header.receiver)
            .ok_or(DropReason::UnknownSession)?;
        let owner = owner_of(header.lane, &self.shared);
        if owner != self.worker {
            return self.hand_off(owner, datagram, from);
        }
        let slot = epoch.slot();
        let lane = epoch.lane(header.lane).ok_or(DropReason::BadHeader)?;
        let text = datagram.get_mut(HEADER_LEN..).unwrap_or_default();
        let opened = lane.open(header.counter, &bytes, text);
        let first = opened.is_ok() && epoch.confirm();
        self.judge(opened, first, (slot, header.receiver), now)?;
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
            Kind::Piece => {
                let name = EpochName::Session(header.receiver);
                self.piece(slot, (name, header), (meta, body), now)?;
            }
            Kind::Control => {
                // The path machine judges by its own messages where they came from.
                self.control(slot, meta, body, (from, len), now)?;
                return Ok(Opened::Quiet);
            }
            Kind::Bench => self.bench_datagram(slot, meta, body, len, now)?,
        }
        Ok(Opened::From(slot))
    }

    /// What follows from a datagram that was checked under an epoch: the `first` authentic one confirms it.
    #[inline]
    pub(super) fn judge(
        &mut self,
        opened: Result<(), OpenError>,
        first: bool,
        (slot, local_index): (PeerSlot, u32),
        now: Instant,
    ) -> Result<(), DropReason> {
        match opened {
            Ok(()) if first => {
                let event = Event::SessionConfirmed { slot, local_index };
                self.shared
                    .report(event, counters(&self.shared, self.worker));
                // The peer proved that it has the keys, so an answer may leave at once.
                self.activate(slot, local_index, now);
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(OpenError::Replayed) => Err(DropReason::Replayed),
            Err(OpenError::Forged) => {
                let epoch = self.epochs.get(&local_index);
                if epoch.is_some_and(|epoch| epoch.count_forged() == FORGED_SOFT_MAX) {
                    let event = Event::RekeyDue { slot, local_index };
                    self.shared
                        .report(event, counters(&self.shared, self.worker));
                }
                Err(DropReason::Forged)
            }
        }
    }

    pub(super) fn hand_off(
        &mut self,
        owner: u16,
        datagram: &[u8],
        from: Origin,
    ) -> Result<Opened, DropReason> {
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
        Ok(Opened::Quiet)
    }

    /// One frame for the TAP.
    pub(super) fn frame(
        &mut self,
        slot: PeerSlot,
        meta: u8,
        frame: &[u8],
        place: Place,
        now: Instant,
    ) -> Result<(), DropReason> {
        let meta = Meta::from_wire(meta).ok_or(DropReason::BadPayload)?;
        let view = EthernetView::parse(frame).ok_or(DropReason::BadPayload)?;
        if self.shared.is_host_only(&view) {
            // The others of its datagram are not to blame.
            self.count_drop(DropReason::LinkLocal);
            return Ok(());
        }
        if self.peer(slot).is_some_and(|peer| peer.flow == Flow::Shut) {
            self.count_drop(DropReason::FlowShut);
            return Ok(());
        }
        if view.destination().is_multicast() {
            self.arrived_group(slot, frame, &view, now)?;
        } else {
            self.learn(view.source(), Port::Peer(slot), now);
        }
        self.held_frames += 1;
        if let Some(peer) = peer_mut(&mut self.peers, slot) {
            peer.shared
                .rx_bytes
                .fetch_add(frame.len() as u64, Ordering::Relaxed);
        }
        self.coalescer
            .push(meta, frame, place)
            .map_err(|_| DropReason::BadHint)
    }

    pub(super) fn frames(
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

    fn control(
        &mut self,
        slot: PeerSlot,
        class: u8,
        body: &[u8],
        (from, len): (Origin, usize),
        now: Instant,
    ) -> Result<(), DropReason> {
        let (body_len, rest) = body
            .split_first_chunk::<LENGTH_LEN>()
            .ok_or(DropReason::BadPayload)?;
        let body = rest
            .get(..usize::from(u16::from_be_bytes(*body_len)))
            .ok_or(DropReason::BadPayload)?;
        match ControlClass::parse(class).ok_or(DropReason::BadPayload)? {
            ControlClass::Path => match from {
                Origin::Wire(arrival) => self.probe(slot, arrival, len, body, now),
                // A probe asks after a path, and this is none.
                Origin::Hop(_) => Err(DropReason::BadPayload),
            },
            ControlClass::Confirm => Ok(()),
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

    /// `deliver`: writes answers and what was opened to the TAP, runs put together, and frees the packets.
    pub fn deliver<I: Io>(&mut self, io: &mut I) {
        self.deliver_answers(io);
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
        self.held_frames = 0;
        while let Some(packet) = self.held.pop().or_else(|| self.joined.pop()) {
            self.pool.put(packet);
        }
    }
}

/// The worker that owns a lane.
pub(super) fn owner_of(lane: u8, shared: &Shared) -> u16 {
    let workers = u16::try_from(shared.workers.len()).unwrap_or(1).max(1);
    u16::from(lane) % workers
}

/// The opened text of a datagram, without its tag.
pub(super) fn text_of(datagram: &[u8]) -> &[u8] {
    datagram
        .get(HEADER_LEN..datagram.len().saturating_sub(TAG_LEN))
        .unwrap_or_default()
}
