//! Puts received frames together as super-frames.
//!
//! Station 8 of 8 (`deliver`), for frames that go to the TAP. Works like a kernel's receive offload, with two
//! differences: it holds several runs of one flow, so that loss and reordering leave gaps and not single frames, and it
//! sees only frames that the sender's kernel vouched for (checksum partial), for those need no verification.
//!
//! ```text
//!  push ─┬─ not TCP or UDP, checksum complete ──────────────────────────────► ready, as it is
//!        ├─ TCP or UDP that must go alone (ACK, SYN, fragment …) ─ flow's runs first ─► ready
//!        └─ segment ─► matching run? ─ append │ prepend │ close a gap │ open a run
//!                                         └── PSH, FIN, shorter segment, full ──► ready
//!  flush ─ every open run, oldest first ────────────────────────────────────► ready
//! ```
//!
//! Order. Frames of one flow leave in the order they came, but for a TCP segment that is put before, or between, open
//! runs where its sequence number says it belongs. To that end a finished run waits for older runs of its flow, and
//! what cannot be coalesced closes the flow's runs first. Between flows there is no order.
//!
//! A "flow" in these rules is a 32-bit hash of the five-tuple. Two flows that collide close each other's runs too early,
//! which costs speed and nothing else: what is joined is decided by [`Run::matches`], on the whole header.
//!
//! Bounds: `config::COALESCE_RUNS_MAX` open runs (the one longest without a new segment makes room),
//! `config::COALESCE_SEGMENTS_MAX` segments and 65 535 bytes a run, `config::COALESCE_FRAMES_MAX` frames between flushes.

mod ready;
mod run;
mod span;

use ready::{Chain, Store};
pub use ready::{Pieces, Ready};
use run::{Run, Segment, leave_partial};

use super::field::{low16, low32};
use super::headers::{Headers, NotTransport, Transport};
use crate::config::{COALESCE_HEADER_LEN_MAX, COALESCE_RUNS_MAX};
use crate::wire::ethernet::HEADER_LEN;
use crate::wire::meta::{Meta, Segmentation};

/// What may be coalesced; the TAP's kernel has to know the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoalesceConfig {
    /// TCP over IPv4.
    pub tcp4: bool,
    /// TCP over IPv6.
    pub tcp6: bool,
    /// UDP over either; kernels before 6.2 refuse it.
    pub udp: bool,
}

/// Why a frame was not taken; it is dropped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoalesceError {
    /// Shorter than an Ethernet header.
    FrameTooShort,
    /// Said to have a partial checksum, but is neither TCP nor UDP.
    NotTransport,
    /// Said to have a partial checksum, but is a fragment.
    Fragment,
    /// Said to have a partial checksum, but its headers contradict each other.
    Malformed,
    /// Said to be cut from a super-frame of the other protocol.
    KindMismatch,
    /// Said to have a partial checksum, but further into the frame than any sender leaves one.
    HeaderTooLong,
    /// `config::COALESCE_FRAMES_MAX` frames are held: flush, write, clear, and push again.
    Full,
}

/// A part of a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<T> {
    /// Where the caller said that the frame is.
    pub at: T,
    /// Where in the frame the piece starts, in bytes.
    pub offset: usize,
    /// Length of the piece in bytes; may be zero.
    pub len: usize,
}

/// Collects frames and hands out super-frames. `T` says where a frame's bytes are; they stay there until after the flush.
#[derive(Debug)]
pub struct Coalescer<T> {
    config: CoalesceConfig,
    runs: Box<[Run; COALESCE_RUNS_MAX]>,
    /// The flow hash of each run, live or not.
    flows: [u32; COALESCE_RUNS_MAX],
    /// A bit for each open run.
    live: u32,
    /// Number of pushes so far.
    now: u64,
    store: Store<T>,
}

impl<T: Copy> Coalescer<T> {
    /// Makes an empty coalescer; everything it will need is allocated here.
    #[must_use]
    pub fn new(config: CoalesceConfig) -> Self {
        Self {
            config,
            runs: Box::new([const { Run::vacant() }; COALESCE_RUNS_MAX]),
            flows: [0; COALESCE_RUNS_MAX],
            live: 0,
            now: 0,
            store: Store::new(),
        }
    }

    /// Takes the next frame in order of arrival.
    ///
    /// # Errors
    /// [`CoalesceError`] if the frame is not taken; nothing else is changed by it.
    #[inline]
    pub fn push(&mut self, meta: Meta, frame: &[u8], at: T) -> Result<(), CoalesceError> {
        if self.store.is_full() {
            return Err(CoalesceError::Full);
        }
        if frame.len() < HEADER_LEN {
            return Err(CoalesceError::FrameTooShort);
        }
        self.now += 1;
        if meta.is_partial() {
            return self.push_partial(meta, frame, at);
        }
        if self.live != 0 {
            self.close_before(frame);
        }
        self.store.emit_whole(Piece {
            at,
            offset: 0,
            len: frame.len(),
        });
        Ok(())
    }

    /// Closes every open run: all that was pushed is then ready.
    pub fn flush(&mut self) {
        self.close(self.live);
    }

    /// Returns what is ready, in the order in which it has to be written.
    pub fn ready(&self) -> impl Iterator<Item = Ready<'_, T>> {
        self.store.ready()
    }

    /// Returns how many frames and super-frames are ready.
    #[must_use]
    pub fn ready_count(&self) -> usize {
        self.store.entry_count()
    }

    /// Forgets what was ready and keeps the memory. Room for more frames comes back once no run is open, so flush first.
    pub fn clear_ready(&mut self) {
        self.store.clear(self.live == 0);
    }

    #[inline]
    fn push_partial(&mut self, meta: Meta, frame: &[u8], at: T) -> Result<(), CoalesceError> {
        let headers = Headers::parse(frame).map_err(|reason| match reason {
            NotTransport::Other => CoalesceError::NotTransport,
            NotTransport::Fragment { .. } => CoalesceError::Fragment,
            NotTransport::Malformed => CoalesceError::Malformed,
        })?;
        match (meta.segmentation(), headers.transport) {
            (Segmentation::None, _)
            | (Segmentation::Tcp, Transport::Tcp)
            | (Segmentation::Udp, Transport::Udp) => {}
            _ => return Err(CoalesceError::KindMismatch),
        }
        if headers.checksum_at() + 2 > COALESCE_HEADER_LEN_MAX {
            return Err(CoalesceError::HeaderTooLong);
        }
        let flow = headers.flow_hash(frame);
        match Segment::new(self.config, &headers, frame) {
            Some(segment) => {
                let piece = Piece {
                    at,
                    offset: headers.payload,
                    len: headers.end - headers.payload,
                };
                let chain = self.store.chain(piece);
                self.place(flow, &headers, frame, &segment, chain);
            }
            None => {
                self.close(self.runs_of(flow));
                self.emit_alone(&headers, frame, at);
            }
        }
        Ok(())
    }

    /// Finds the segment's place among the open runs of its flow.
    #[inline]
    fn place(
        &mut self,
        flow: u32,
        headers: &Headers,
        frame: &[u8],
        segment: &Segment,
        chain: Chain,
    ) {
        let mates = self.runs_of(flow);
        // INVARIANT: all open runs of one flow share one header. So one answers for all, and a segment with another
        // header closes them.
        if slots(mates)
            .next()
            .is_some_and(|slot| !self.runs[slot].matches(headers, frame))
        {
            self.close(mates);
            return self.open(flow, headers, frame, segment, chain);
        }
        let (mut before, mut after) = (None, None);
        for slot in slots(mates) {
            let span = &self.runs[slot].span;
            if span.end == segment.span.start {
                before = Some(slot);
            }
            if span.start == segment.span.end && headers.transport == Transport::Tcp {
                after = Some(slot);
            }
        }
        if let Some(slot) = before {
            if let Some(span) = self.runs[slot].span.joined(&segment.span, segment.terms) {
                return self.append(slot, span, chain, after, mates);
            }
            // The run's continuation is here and does not fit: nothing else will.
            self.runs[slot].span.sealed = true;
            self.release(mates);
        }
        // Sealing the run before may have let the run behind go.
        if let Some(slot) = after.filter(|&slot| self.live & (1 << slot) != 0)
            && let Some(span) = segment.span.joined(&self.runs[slot].span, segment.terms)
        {
            let run = &mut self.runs[slot];
            run.chain = self.store.link(chain, run.chain);
            run.span = span;
            run.touched = self.now;
            return self.release(mates);
        }
        self.open(flow, headers, frame, segment, chain);
    }

    /// Adds the chain to a run, and the run behind it if the gap between them is now closed.
    #[inline]
    fn append(
        &mut self,
        slot: usize,
        span: span::Span,
        chain: Chain,
        after: Option<usize>,
        mates: u32,
    ) {
        let run = &mut self.runs[slot];
        run.chain = self.store.link(run.chain, chain);
        run.span = span;
        run.touched = self.now;
        if let Some(behind) = after
            && let Some(whole) = span.joined(&self.runs[behind].span, self.runs[slot].terms())
        {
            let (chain, opened) = (self.runs[behind].chain, self.runs[behind].opened);
            let run = &mut self.runs[slot];
            run.chain = self.store.link(run.chain, chain);
            run.span = whole;
            run.opened = run.opened.min(opened);
            self.live &= !(1 << behind);
        }
        if self.runs[slot].span.sealed {
            self.release(mates);
        }
    }

    /// Opens a run with one segment.
    #[inline]
    fn open(
        &mut self,
        flow: u32,
        headers: &Headers,
        frame: &[u8],
        segment: &Segment,
        chain: Chain,
    ) {
        if self.live == u32::MAX {
            self.make_room();
        }
        let slot = self.live.trailing_ones() as usize;
        self.runs[slot].open(headers, frame, segment, chain, self.now);
        self.flows[slot] = flow;
        self.live |= 1 << slot;
        if segment.span.sealed {
            self.release(self.runs_of(flow));
        }
    }

    /// Closes the run that has gone longest without a segment, and what of its flow has to leave before it.
    #[cold]
    fn make_room(&mut self) {
        if let Some(slot) = slots(self.live).min_by_key(|&slot| self.runs[slot].touched) {
            let opened = self.runs[slot].opened;
            let mates = self.runs_of(self.flows[slot]);
            let older = slots(mates).filter(|&mate| self.runs[mate].opened <= opened);
            self.close(older.fold(0, |set, mate| set | 1 << mate));
        }
    }

    /// Emits the finished runs of one flow, up to the oldest that is not.
    fn release(&mut self, mates: u32) {
        while let Some(slot) = self.oldest(mates & self.live) {
            if !self.runs[slot].span.sealed {
                break;
            }
            self.emit(slot);
        }
    }

    /// Emits these runs, oldest first.
    fn close(&mut self, set: u32) {
        while let Some(slot) = self.oldest(set & self.live) {
            self.emit(slot);
        }
    }

    /// Closes what must not be overtaken by a frame that was not left partial.
    fn close_before(&mut self, frame: &[u8]) {
        match Headers::parse(frame) {
            Ok(headers) => self.close(self.runs_of(headers.flow_hash(frame))),
            // A fragment does not tell its ports: everything between the two addresses goes first.
            Err(NotTransport::Fragment {
                addresses,
                addresses_len,
            }) => {
                let addresses = frame
                    .get(addresses..addresses + addresses_len)
                    .unwrap_or_default();
                let between =
                    slots(self.live).filter(|&slot| self.runs[slot].is_between(addresses));
                self.close(between.fold(0, |set, slot| set | 1 << slot));
            }
            Err(NotTransport::Other | NotTransport::Malformed) => {}
        }
    }

    /// Emits one frame with a partial checksum: its header is owned up to the checksum, the rest stays where it is.
    fn emit_alone(&mut self, headers: &Headers, frame: &[u8], at: T) {
        let owned = headers.checksum_at() + 2;
        let mut header = [0; COALESCE_HEADER_LEN_MAX];
        let Some((header, bytes)) = header.get_mut(..owned).zip(frame.get(..owned)) else {
            return;
        };
        header.copy_from_slice(bytes);
        let vnet = leave_partial(headers, headers.end, header);
        let piece = Piece {
            at,
            offset: owned,
            len: headers.end - owned,
        };
        let chain = self.store.chain(piece);
        self.store.emit(vnet, header, chain, 1, piece.len);
    }

    fn emit(&mut self, slot: usize) {
        let run = &mut self.runs[slot];
        let (chain, span) = (run.chain, run.span);
        let (vnet, header) = run.finish();
        self.store.emit(vnet, header, chain, span.count, span.bytes);
        self.live &= !(1 << slot);
    }

    /// Returns the open runs of a flow.
    #[inline]
    fn runs_of(&self, flow: u32) -> u32 {
        let mut set = 0;
        for (slot, hash) in self.flows.iter().enumerate() {
            set |= u32::from(*hash == flow) << slot;
        }
        set & self.live
    }

    #[inline]
    fn oldest(&self, set: u32) -> Option<usize> {
        slots(set).min_by_key(|&slot| self.runs[slot].opened)
    }
}

/// Names the bits of a set, lowest first; each is below `COALESCE_RUNS_MAX`.
#[inline]
fn slots(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let slot = set.trailing_zeros() as usize;
        (set != 0).then(|| {
            set &= set - 1;
            slot
        })
    })
}
