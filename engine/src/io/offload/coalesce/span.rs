//! Which segments may stand beside each other in one super-frame.
//!
//! A span is one segment or a row of them. There is one rule, [`Span::joined`]; appending, prepending and closing a gap
//! are all the same question.
//!
//! ```text
//!   self                         next
//!   | size | size | size |   +   | size | size | rest |      joined: | size × 5 | rest |
//!   start               end  =  start                 end
//! ```

use crate::config::COALESCE_SEGMENTS_MAX;
use crate::io::offload::split::{CWR, FIN, PSH};

/// One segment, or several in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// TCP sequence number of the first payload byte; zero for UDP, where arrival is the order.
    pub start: u32,
    /// TCP sequence number after the last payload byte; zero for UDP.
    pub end: u32,
    /// Payload bytes.
    pub bytes: usize,
    /// Payload bytes of every segment but the last.
    pub size: usize,
    /// Number of segments.
    pub count: usize,
    /// IPv4 identification of the first segment.
    pub id: u16,
    /// CWR of the first segment, FIN and PSH of the last.
    pub flags: u8,
    /// Nothing may follow: the last segment was shorter, or ends a burst (FIN, PSH).
    pub sealed: bool,
}

/// What the headers that a flow's segments share have to say about joining them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// Payload bytes that one IP packet has room for.
    pub room: usize,
    /// The IPv4 identification matters (RFC 6864: DF is not set), so it must count up.
    pub counted: bool,
}

impl Span {
    /// Describes one segment of `bytes` payload bytes; for UDP `sequence` is `None`.
    #[inline]
    pub(super) fn one(sequence: Option<u32>, bytes: usize, id: u16, flags: u8) -> Self {
        let start = sequence.unwrap_or(0);
        let end = sequence.map_or(0, |start| start.wrapping_add(super::low32(bytes)));
        let flags = flags & (CWR | FIN | PSH);
        Self {
            start,
            end,
            bytes,
            size: bytes,
            count: 1,
            id,
            flags,
            sealed: flags & (FIN | PSH) != 0,
        }
    }

    /// Returns the span of both, `next` after `self`, if a kernel would cut it into the same segments again.
    #[inline]
    pub(super) fn joined(&self, next: &Self, terms: Terms) -> Option<Self> {
        let sizes_agree = if next.count == 1 {
            next.size <= self.size
        } else {
            next.size == self.size
        };
        let ids_agree = !terms.counted || self.id.wrapping_add(super::low16(self.count)) == next.id;
        let fits = self.bytes + next.bytes <= terms.room
            && self.count + next.count <= COALESCE_SEGMENTS_MAX;
        // CWR may stand on the first segment only (RFC 3168 as TSO does it).
        let flags_agree = next.flags & CWR == 0;
        if self.sealed
            || self.end != next.start
            || !(sizes_agree && ids_agree && fits && flags_agree)
        {
            return None;
        }
        Some(Self {
            start: self.start,
            end: next.end,
            bytes: self.bytes + next.bytes,
            size: self.size,
            count: self.count + next.count,
            id: self.id,
            flags: self.flags | next.flags,
            sealed: next.sealed || next.size < self.size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        room: 65_000,
        counted: false,
    };

    fn segment(start: u32, bytes: usize) -> Span {
        Span::one(Some(start), bytes, 0, 0)
    }

    #[test]
    fn a_row_of_equal_segments_takes_one_shorter_at_its_end() {
        let row = segment(0, 100)
            .joined(&segment(100, 100), TERMS)
            .expect("equal sizes follow each other");
        let whole = row
            .joined(&segment(200, 40), TERMS)
            .expect("a shorter one may end the row");

        assert_eq!(
            (whole.start, whole.end, whole.bytes, whole.count, whole.size),
            (0, 240, 240, 3, 100)
        );
        assert!(whole.sealed && !row.sealed);
        assert_eq!(whole.joined(&segment(240, 40), TERMS), None);
    }

    #[test]
    fn what_a_kernel_would_cut_otherwise_is_not_joined() {
        let row = segment(0, 100)
            .joined(&segment(100, 100), TERMS)
            .expect("equal sizes follow each other");
        let cwr = Span::one(Some(100), 100, 0, CWR);
        let push = Span::one(Some(0), 100, 0, PSH);
        let fin = Span::one(Some(0), 100, 0, FIN);

        assert_eq!(
            segment(0, 100).joined(&segment(100, 101), TERMS),
            None,
            "a longer one follows"
        );
        assert_eq!(
            segment(0, 100).joined(&segment(101, 100), TERMS),
            None,
            "a gap"
        );
        assert_eq!(
            segment(0, 100).joined(&segment(99, 100), TERMS),
            None,
            "an overlap"
        );
        assert_eq!(
            segment(200, 50).joined(&row, TERMS),
            None,
            "a row of another size, elsewhere"
        );
        assert_eq!(
            Span::one(Some(u32::MAX - 49), 50, 0, 0).joined(&row, TERMS),
            None,
            "a row of a larger size"
        );
        assert_eq!(segment(0, 100).joined(&cwr, TERMS), None, "CWR inside");
        assert_eq!(push.joined(&segment(100, 100), TERMS), None, "PSH inside");
        assert_eq!(fin.joined(&segment(100, 100), TERMS), None, "FIN inside");
    }

    #[test]
    fn flags_at_the_ends_are_kept() {
        let first = Span::one(Some(0), 100, 0, CWR);
        let last = Span::one(Some(100), 100, 0, PSH | FIN);
        let whole = first
            .joined(&last, TERMS)
            .expect("CWR first, PSH and FIN last");

        assert_eq!(whole.flags, CWR | PSH | FIN);
        assert!(whole.sealed);
    }

    #[test]
    fn identifications_count_up_where_they_matter() {
        let counted = Terms {
            counted: true,
            ..TERMS
        };
        let at = |start, id| Span::one(Some(start), 100, id, 0);
        let row = at(0, 0xffff)
            .joined(&at(100, 0), counted)
            .expect("the identification wraps");

        assert!(row.joined(&at(200, 1), counted).is_some());
        assert_eq!(row.joined(&at(200, 2), counted), None);
        assert!(row.joined(&at(200, 2), TERMS).is_some());
    }

    #[test]
    fn room_and_number_are_bounded() {
        let tight = Terms { room: 200, ..TERMS };
        let pair = segment(0, 100)
            .joined(&segment(100, 100), tight)
            .expect("just fits");
        assert_eq!(pair.joined(&segment(200, 1), tight), None);

        let full = Span {
            count: COALESCE_SEGMENTS_MAX,
            ..segment(0, 100)
        };
        assert_eq!(full.joined(&segment(100, 100), TERMS), None);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let whole = segment(u32::MAX - 99, 100).joined(&segment(0, 100), TERMS);

        assert_eq!(
            whole.map(|span| (span.start, span.end)),
            Some((u32::MAX - 99, 100))
        );
    }

    #[test]
    fn datagrams_are_joined_in_the_order_they_come() {
        let datagram = |bytes| Span::one(None, bytes, 0, 0);
        let pair = datagram(100)
            .joined(&datagram(100), TERMS)
            .expect("equal sizes");

        assert!(
            pair.joined(&datagram(1), TERMS)
                .is_some_and(|span| span.sealed && span.count == 3)
        );
        assert_eq!(pair.joined(&datagram(101), TERMS), None);
    }
}
