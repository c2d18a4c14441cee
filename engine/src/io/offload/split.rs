//! Cuts a super-frame into frames that each stand alone.
//!
//! Station 1 of 8 (`tap_rx`). The frame stays where the TAP read put it; each segment is written once, straight to its
//! datagram slot.
//!
//! ```text
//!  super-frame   | headers | payload .......................................... |
//!  segment 0     | headers | payload 0 |      id,     seq,            CWR
//!  segment 1     | headers | payload 1 |      id + 1, seq + size
//!  segment last  | headers | rest |           id + n, seq + n * size, PSH, FIN
//! ```
//!
//! What does not differ between segments is found out once; a segment costs two copies and a few patched fields.
//! Transport checksums stay partial, but for a place where the receiver would not look for one (inside a tunnel, SCTP,
//! a fragment, too far into the frame): there the checksum is filled in and the frame goes as complete.
//!
//! Bound: `config::SPLIT_SEGMENTS_MAX`.

use super::checksum::{finish, finish_anywhere, fold, sum, word};
use super::field::{be16, be32, low16, low32, put};
use super::headers::{Headers, IPV6_HEADER_LEN, NotTransport, Transport, UDP_HEADER_LEN};
use super::vnet::VnetHeader;
use crate::config::{COALESCE_HEADER_LEN_MAX, SPLIT_SEGMENTS_MAX};
use crate::wire::ethernet::HEADER_LEN;
use crate::wire::meta::Meta;

pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const CWR: u8 = 0x80;
/// From the start of the TCP header to its flags.
pub(super) const TCP_FLAGS_OFFSET: usize = 13;

/// Why a frame cannot be split; it is dropped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitError {
    /// Shorter than an Ethernet header.
    FrameTooShort,
    /// A segmentation kind that was never asked for.
    UnsupportedKind,
    /// The frame is not of the protocol that the virtio header names.
    KindMismatch,
    /// A super-frame whose headers contradict each other or its length.
    Malformed,
    /// A segment size of zero.
    ZeroSegment,
    /// More than `config::SPLIT_SEGMENTS_MAX` segments.
    TooManySegments,
    /// The checksum's place lies outside the frame, or is not that of the super-frame's transport header.
    ChecksumPlace,
}

/// One frame from the TAP, ready to be written out segment by segment.
#[derive(Debug, Clone, Copy)]
pub struct Splitter<'a> {
    frame: &'a [u8],
    plan: Plan,
    meta: Meta,
}

#[derive(Debug, Clone, Copy)]
enum Plan {
    /// As it is.
    Whole,
    /// One frame whose checksum is completed on the way.
    Finish { start: usize, at: usize },
    /// A super-frame.
    Segments(Template),
}

/// What all segments of a super-frame share.
#[derive(Debug, Clone, Copy)]
struct Template {
    headers: Headers,
    count: usize,
    /// Payload bytes of a segment but the last.
    size: usize,
    /// IPv4: sum of the header without length, identification and checksum.
    header_sum: u64,
    /// IPv4 identification of segment 0.
    id: u16,
    /// TCP sequence number of segment 0.
    sequence: u32,
    /// TCP flags of the super-frame.
    flags: u8,
    /// Transport checksums are filled in here.
    finish: bool,
}

impl<'a> Splitter<'a> {
    /// Looks at one frame as a TAP queue yields it.
    ///
    /// # Errors
    /// [`SplitError`] if the virtio header and the frame do not agree.
    #[inline]
    pub fn new(vnet: &VnetHeader, frame: &'a [u8]) -> Result<Self, SplitError> {
        if frame.len() < HEADER_LEN {
            return Err(SplitError::FrameTooShort);
        }
        let (plan, meta) = match vnet.gso_type {
            VnetHeader::GSO_NONE if !vnet.needs_checksum() => (Plan::Whole, Meta::COMPLETE),
            VnetHeader::GSO_NONE => single(vnet, frame)?,
            kind => segments(vnet, kind & !VnetHeader::GSO_ECN, frame)?,
        };
        Ok(Self { frame, plan, meta })
    }

    /// Returns the number of frames, at least one.
    #[must_use]
    pub const fn count(&self) -> usize {
        match &self.plan {
            Plan::Whole | Plan::Finish { .. } => 1,
            Plan::Segments(template) => template.count,
        }
    }

    /// Returns the length in bytes of frame `index`; zero if there is none.
    #[must_use]
    #[inline]
    pub fn len_of(&self, index: usize) -> usize {
        match &self.plan {
            _ if index >= self.count() => 0,
            Plan::Whole | Plan::Finish { .. } => self.frame.len(),
            Plan::Segments(template) => template.headers.payload + template.payload_len(index),
        }
    }

    /// Returns the byte that goes with every one of the frames.
    #[must_use]
    pub const fn meta(&self) -> Meta {
        self.meta
    }

    /// Writes frame `index` to the front of `out` and returns its length.
    ///
    /// Writes nothing and returns zero if there is no such frame or `out` is shorter than [`Self::len_of`] says.
    #[inline]
    pub fn write(&self, index: usize, out: &mut [u8]) -> usize {
        let Some(out) = out.get_mut(..self.len_of(index)) else {
            return 0;
        };
        if out.is_empty() {
            return 0;
        }
        match &self.plan {
            Plan::Whole => out.copy_from_slice(self.frame),
            Plan::Finish { start, at } => {
                out.copy_from_slice(self.frame);
                finish_anywhere(out, *start, *at);
            }
            Plan::Segments(template) => template.write(self.frame, index, out),
        }
        out.len()
    }
}

/// Plans a single frame whose checksum is partial.
fn single(vnet: &VnetHeader, frame: &[u8]) -> Result<(Plan, Meta), SplitError> {
    let start = usize::from(vnet.csum_start);
    let at = start + usize::from(vnet.csum_offset);
    if at + 2 > frame.len() {
        return Err(SplitError::ChecksumPlace);
    }
    match Headers::parse(frame) {
        Ok(headers)
            if receiver_can_finish(&headers)
                && headers.l4 == start
                && headers.checksum_at() == at =>
        {
            Ok((Plan::Whole, Meta::PARTIAL))
        }
        Ok(_) | Err(_) => Ok((Plan::Finish { start, at }, Meta::COMPLETE)),
    }
}

/// The receiver owns a copy of the bytes up to the checksum; it has to fit.
fn receiver_can_finish(headers: &Headers) -> bool {
    headers.checksum_at() + 2 <= COALESCE_HEADER_LEN_MAX
}

/// Plans a super-frame.
fn segments(vnet: &VnetHeader, kind: u8, frame: &[u8]) -> Result<(Plan, Meta), SplitError> {
    if !matches!(
        kind,
        VnetHeader::GSO_TCPV4 | VnetHeader::GSO_TCPV6 | VnetHeader::GSO_UDP_L4
    ) {
        return Err(SplitError::UnsupportedKind);
    }
    let headers = Headers::parse(frame).map_err(|reason| match reason {
        NotTransport::Malformed => SplitError::Malformed,
        NotTransport::Other | NotTransport::Fragment { .. } => SplitError::KindMismatch,
    })?;
    let meta = match (kind, headers.transport, headers.ipv6) {
        (VnetHeader::GSO_TCPV4, Transport::Tcp, false)
        | (VnetHeader::GSO_TCPV6, Transport::Tcp, true) => Meta::TCP_SEGMENT,
        (VnetHeader::GSO_UDP_L4, Transport::Udp, _) => Meta::UDP_SEGMENT,
        _ => return Err(SplitError::KindMismatch),
    };
    let place = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
    if vnet.needs_checksum() && place != (headers.l4, headers.transport.checksum_offset()) {
        return Err(SplitError::ChecksumPlace);
    }
    let finish = !vnet.needs_checksum() || !receiver_can_finish(&headers);
    let template = Template::new(headers, usize::from(vnet.gso_size), finish, frame)?;
    Ok((
        Plan::Segments(template),
        if finish { Meta::COMPLETE } else { meta },
    ))
}

impl Template {
    fn new(headers: Headers, size: usize, finish: bool, frame: &[u8]) -> Result<Self, SplitError> {
        if size == 0 {
            return Err(SplitError::ZeroSegment);
        }
        let count = (headers.end - headers.payload).div_ceil(size).max(1);
        if count > SPLIT_SEGMENTS_MAX {
            return Err(SplitError::TooManySegments);
        }
        let Headers { l3, l4, .. } = headers;
        let (mut header_sum, mut id) = (0, 0);
        if !headers.ipv6 {
            // Sums are modulo ffff, where the inverse adds what it takes away.
            let field = |at| be16(frame, at).ok_or(SplitError::Malformed);
            id = field(l3 + 4)?;
            header_sum = sum(frame.get(l3..l4).ok_or(SplitError::Malformed)?)
                + word(!field(l3 + 2)?)
                + word(!id)
                + word(!field(l3 + 10)?);
        }
        let (mut sequence, mut flags) = (0, 0);
        if headers.transport == Transport::Tcp {
            sequence = be32(frame, l4 + 4).ok_or(SplitError::Malformed)?;
            flags = *frame
                .get(l4 + TCP_FLAGS_OFFSET)
                .ok_or(SplitError::Malformed)?;
        }
        Ok(Self {
            headers,
            count,
            size,
            header_sum,
            id,
            sequence,
            flags,
            finish,
        })
    }

    #[inline]
    fn payload_len(&self, index: usize) -> usize {
        (self.headers.end - self.headers.payload)
            .saturating_sub(index * self.size)
            .min(self.size)
    }

    /// Writes segment `index`, which exists, to `out`, which has its length.
    #[inline]
    fn write(&self, frame: &[u8], index: usize, out: &mut [u8]) {
        let headers = &self.headers;
        let from = headers.payload + index * self.size;
        let Some((head, body)) = out.split_at_mut_checked(headers.payload) else {
            return;
        };
        let Some(template) = frame.get(..headers.payload) else {
            return;
        };
        let Some(payload) = frame.get(from..from + body.len()) else {
            return;
        };
        head.copy_from_slice(template);
        body.copy_from_slice(payload);
        self.patch_internet(index, head, body.len());
        self.patch_transport(index, head, body.len());
        if self.finish {
            finish(
                out,
                &Headers {
                    end: out.len(),
                    ..*headers
                },
            );
        }
    }

    #[inline]
    fn patch_internet(&self, index: usize, head: &mut [u8], payload_len: usize) {
        let l3 = self.headers.l3;
        if self.headers.ipv6 {
            let after = self.headers.payload - l3 - IPV6_HEADER_LEN + payload_len;
            put(head, l3 + 4, low16(after).to_be_bytes());
        } else {
            let total_len = low16(self.headers.payload - l3 + payload_len);
            // Also where DF makes the identification meaningless: some middle boxes look at it.
            let id = self.id.wrapping_add(low16(index));
            put(head, l3 + 2, total_len.to_be_bytes());
            put(head, l3 + 4, id.to_be_bytes());
            let checksum = !fold(self.header_sum + word(total_len) + word(id));
            put(head, l3 + 10, checksum.to_be_bytes());
        }
    }

    #[inline]
    fn patch_transport(&self, index: usize, head: &mut [u8], payload_len: usize) {
        let l4 = self.headers.l4;
        match self.headers.transport {
            Transport::Tcp => {
                let mut flags = self.flags;
                if index > 0 {
                    flags &= !CWR;
                }
                if index + 1 < self.count {
                    flags &= !(FIN | PSH);
                }
                put(
                    head,
                    l4 + 4,
                    self.sequence
                        .wrapping_add(low32(index * self.size))
                        .to_be_bytes(),
                );
                put(head, l4 + TCP_FLAGS_OFFSET, [flags]);
            }
            Transport::Udp => put(
                head,
                l4 + 4,
                low16(UDP_HEADER_LEN + payload_len).to_be_bytes(),
            ),
        }
        // The kernel's sum covers the super-frame's length: it means nothing here.
        put(head, self.headers.checksum_at(), [0, 0]);
    }
}
