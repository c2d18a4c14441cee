//! `TrainBuilder`: fills one packet with sealed datagrams for one peer (stations 3 to 5).
//!
//! ```text
//!  packet  | datagram | datagram | … | open datagram: frame, frame, …    |
//!          └─ all `segment` bytes ───┘ └ sealed when full or at the flush ┘
//! ```
//!
//! The first datagram sets the size; a shorter one ends the train. Small frames that wait anyway
//! share a datagram; nothing waits for company. Towards a relay each datagram is wrapped as it is sealed:
//! room for RELAY's front is left before it, for the hop tag behind it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::config::{TRAIN_DATAGRAMS_MAX, TRAIN_LEN_MAX};
use crate::io::Train;
use crate::io::offload::Splitter;
use crate::packet::{Packet, Pool};
use crate::session::{HopSeal, SealLane};
use crate::verdict::{Counters, DropReason, Station};
use crate::wire::meta::Meta;
use crate::wire::relay::{HOP_LIMIT_MAX, RELAY_FRONT_LEN, RELAY_OVERHEAD};
use crate::wire::{FRAME_OVERHEAD, HEADER_LEN, INNER_LEN, Kind, LENGTH_LEN, PIECE_LEN, TAG_LEN};

/// What a builder needs from its surroundings while it fills.
#[derive(Debug)]
pub struct Sink<'a> {
    /// Where empty packets come from.
    pub pool: &'a mut Pool,
    /// Where full trains go.
    pub trains: &'a mut VecDeque<Train>,
    /// Our lane of the active epoch.
    pub lane: &'a mut SealLane,
    /// Counts.
    pub counters: &'a Counters,
    /// The path's address.
    pub to: SocketAddr,
    /// Our address that it is left from, if it matters.
    pub local: Option<IpAddr>,
    /// Largest datagram of the path, what a relay adds not counted.
    pub datagram_max: usize,
    /// How to wrap datagrams for a relay; `None` on a path of our own.
    pub wrap: Option<Wrap<'a>>,
}

/// What goes round a datagram for a relay.
#[derive(Debug)]
pub struct Wrap<'a> {
    /// Our hop lane of the session with the relay.
    pub hop: &'a mut HopSeal,
    /// The label of the peer that the datagram is for.
    pub destination: u64,
    /// Our own.
    pub source: u64,
}

impl Sink<'_> {
    /// Bytes that stand before each datagram, and those before and behind it together.
    #[inline]
    fn margins(&self) -> (usize, usize) {
        if self.wrap.is_some() {
            (RELAY_FRONT_LEN, RELAY_OVERHEAD)
        } else {
            (0, 0)
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct OpenDatagram {
    len: usize,
    capacity: usize,
    meta: Meta,
}

/// The train being filled for one peer.
#[derive(Debug, Default)]
pub struct TrainBuilder {
    packet: Option<Packet>,
    len: usize,
    segment: usize,
    count: usize,
    ended: bool,
    open: Option<OpenDatagram>,
}

impl TrainBuilder {
    /// True if nothing waits in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.open.is_none()
    }

    /// Adds what `splitter` makes of one frame from the TAP.
    pub fn append(&mut self, splitter: &mut Splitter<'_>, sink: &mut Sink<'_>) {
        let meta = splitter.meta();
        if splitter.count() == 1 {
            let len = splitter.len_of(0);
            if HEADER_LEN + INNER_LEN + LENGTH_LEN + len + TAG_LEN <= sink.datagram_max {
                return self.append_small(splitter, meta, len, sink);
            }
        }
        for index in 0..splitter.count() {
            let len = splitter.len_of(index);
            if FRAME_OVERHEAD + len > sink.datagram_max {
                self.append_pieces(splitter, index, meta, sink);
                continue;
            }
            let Some(text) = self.place(FRAME_OVERHEAD + len, sink) else {
                return;
            };
            text[0] = Kind::Frame as u8;
            text[1] = meta.to_wire();
            splitter.write(index, &mut text[INNER_LEN..]);
            if !self.commit(FRAME_OVERHEAD + len, sink) {
                return;
            }
        }
    }

    /// Adds one CONTROL or BENCH datagram of exactly `len` bytes: `body` behind its length, zeroes behind that.
    pub fn append_body(
        &mut self,
        kind: Kind,
        class: u8,
        body: &[u8],
        len: usize,
        sink: &mut Sink<'_>,
    ) {
        let need = FRAME_OVERHEAD + LENGTH_LEN + body.len();
        let len = len.max(need);
        let Ok(body_len) = u16::try_from(body.len()) else {
            return;
        };
        let Some(text) = self.place(len, sink) else {
            return;
        };
        text[0] = kind as u8;
        text[1] = class;
        let (head, rest) = text[INNER_LEN..].split_at_mut(LENGTH_LEN);
        head.copy_from_slice(&body_len.to_be_bytes());
        let (to, padding) = rest.split_at_mut(body.len());
        to.copy_from_slice(body);
        padding.fill(0);
        self.commit(len, sink);
    }

    /// Adds a copy of a datagram that `source` sealed for everybody, under a hop tag of our own; false if
    /// it did not fit or there was no room.
    pub fn append_group(
        &mut self,
        inner: &[u8],
        hop_limit: u8,
        source: u64,
        sink: &mut Sink<'_>,
    ) -> bool {
        let len = RELAY_OVERHEAD + inner.len();
        if len > sink.datagram_max {
            sink.counters.drop(DropReason::RelayTooBig);
            return false;
        }
        let place = self
            .place(len, sink)
            .and_then(|text| text.get_mut(RELAY_FRONT_LEN - HEADER_LEN..));
        let Some(place) = place else {
            return false;
        };
        place.copy_from_slice(inner);
        let packet = self.packet.as_mut();
        let whole = packet.and_then(|packet| packet.bytes_mut().get_mut(self.len..self.len + len));
        let hop = sink.lane.hop();
        if !whole.is_some_and(|whole| hop.seal_group(whole, hop_limit, source)) {
            sink.counters.drop(DropReason::KeyExhausted);
            return false;
        }
        self.account(len);
        true
    }

    /// Ends the train, if there is one: it goes to the sink.
    pub fn flush(&mut self, sink: &mut Sink<'_>) {
        self.close(sink);
        self.rotate(sink);
    }

    /// Forgets what waits.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Some(packet) = self.packet.take() {
            pool.put(packet);
        }
        *self = Self::default();
    }

    fn append_small(
        &mut self,
        splitter: &mut Splitter<'_>,
        meta: Meta,
        len: usize,
        sink: &mut Sink<'_>,
    ) {
        let need = LENGTH_LEN + len;
        let fits =
            |open: &OpenDatagram| open.meta == meta && open.len + need + TAG_LEN <= open.capacity;
        if !self.open.as_ref().is_some_and(fits) {
            let first = HEADER_LEN + INNER_LEN + need + TAG_LEN;
            let Some(text) = self.place(first, sink) else {
                return;
            };
            text[0] = Kind::Frames as u8;
            text[1] = meta.to_wire();
            let (_, margin) = sink.margins();
            let room = TRAIN_LEN_MAX - self.len - margin;
            let capacity = if self.count == 0 {
                sink.datagram_max
            } else {
                self.segment - margin
            };
            self.open = Some(OpenDatagram {
                len: HEADER_LEN + INNER_LEN,
                capacity: capacity.min(room),
                meta,
            });
        }
        let (Some(open), Some(packet)) = (&mut self.open, &mut self.packet) else {
            return;
        };
        let (front, _) = sink.margins();
        let at = self.len + front + open.len;
        let Some(place) = packet.bytes_mut().get_mut(at..at + need) else {
            return;
        };
        let (prefix, frame) = place.split_at_mut(LENGTH_LEN);
        prefix.copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        splitter.write(0, frame);
        open.len += need;
    }

    /// Cuts one frame in two datagrams with consecutive counters.
    fn append_pieces(
        &mut self,
        splitter: &mut Splitter<'_>,
        index: usize,
        meta: Meta,
        sink: &mut Sink<'_>,
    ) {
        let total = splitter.len_of(index);
        let overhead = FRAME_OVERHEAD + PIECE_LEN;
        let part_max = sink.datagram_max.saturating_sub(overhead);
        let Some(mut whole) = sink.pool.take() else {
            return sink.counters.drop(DropReason::PoolEmpty);
        };
        splitter.write(index, whole.bytes_mut());
        let halves = whole
            .bytes()
            .get(..total)
            .and_then(|frame| frame.split_at_checked(total.div_ceil(2)));
        match halves {
            Some((head, tail)) if head.len() <= part_max => {
                sink.counters.pass(Station::SealPieces, 1);
                for (part, bytes) in [(0, head), (1, tail)] {
                    let Some(text) = self.place(overhead + bytes.len(), sink) else {
                        break;
                    };
                    let [high, low] = u16::try_from(total).unwrap_or(u16::MAX).to_be_bytes();
                    text[..INNER_LEN + PIECE_LEN].copy_from_slice(&[
                        Kind::Piece as u8,
                        meta.to_wire(),
                        part,
                        high,
                        low,
                    ]);
                    text[INNER_LEN + PIECE_LEN..].copy_from_slice(bytes);
                    if !self.commit(overhead + bytes.len(), sink) {
                        break;
                    }
                }
            }
            _ => sink.counters.drop(DropReason::TooBig),
        }
        sink.pool.put(whole);
    }

    /// The plaintext's place in a new datagram of `len` bytes.
    fn place(&mut self, len: usize, sink: &mut Sink<'_>) -> Option<&mut [u8]> {
        self.close(sink);
        let (front, margin) = sink.margins();
        let fits = !self.ended
            && len + margin <= self.segment
            && self.count < TRAIN_DATAGRAMS_MAX
            && self.len + len + margin <= TRAIN_LEN_MAX;
        if self.count > 0 && !fits {
            self.rotate(sink);
        }
        if self.packet.is_none() {
            self.packet = sink.pool.take();
        }
        let at = self.len + front;
        let text = self.packet.as_mut().and_then(|packet| {
            packet
                .bytes_mut()
                .get_mut(at + HEADER_LEN..at + len - TAG_LEN)
        });
        if text.is_none() {
            sink.counters.drop(DropReason::PoolEmpty);
        }
        text
    }

    /// Seals the datagram of `len` bytes whose plaintext is in place.
    fn commit(&mut self, len: usize, sink: &mut Sink<'_>) -> bool {
        let Some(packet) = &mut self.packet else {
            return false;
        };
        let (front, margin) = sink.margins();
        let at = self.len + front;
        let Some(datagram) = packet.bytes_mut().get_mut(at..at + len) else {
            return false;
        };
        if !sink.lane.seal(datagram) {
            sink.counters.drop(DropReason::KeyExhausted);
            return false;
        }
        sink.counters.pass(Station::Seal, 1);
        let len = len + margin;
        if let Some(wrap) = &mut sink.wrap {
            let whole = packet.bytes_mut().get_mut(self.len..self.len + len);
            let (destination, source) = (wrap.destination, wrap.source);
            if !whole.is_some_and(|whole| wrap.hop.seal(whole, HOP_LIMIT_MAX, destination, source))
            {
                sink.counters.drop(DropReason::KeyExhausted);
                return false;
            }
        }
        self.account(len);
        true
    }

    /// One datagram more, of `len` bytes.
    fn account(&mut self, len: usize) {
        if self.count == 0 {
            self.segment = len;
        }
        self.ended = len < self.segment;
        self.count += 1;
        self.len += len;
    }

    /// Seals the open datagram.
    fn close(&mut self, sink: &mut Sink<'_>) {
        if let Some(open) = self.open.take() {
            self.commit(open.len + TAG_LEN, sink);
        }
    }

    /// Hands the train over.
    fn rotate(&mut self, sink: &mut Sink<'_>) {
        if self.len == 0 {
            return;
        }
        if let Some(packet) = self.packet.take() {
            sink.trains.push_back(Train {
                packet,
                start: 0,
                len: self.len,
                segment: self.segment,
                to: sink.to,
                local: sink.local,
            });
        }
        *self = Self::default();
    }
}
