//! What is ready for the TAP: headers, and references to payloads that stay where they are.
//!
//! ```text
//!  entries   | vnet, header range, chain | vnet, … |          in the order of emission
//!  headers   | bytes of entry 0 | bytes of entry 2 | …
//!  pieces    | at, offset, len, next | …                      chains, open runs' too
//! ```
//!
//! All three keep their capacity. A chain grows at either end and two chains are linked in one step.

use super::Piece;
use crate::config::{COALESCE_FRAMES_MAX, COALESCE_HEADER_LEN_MAX};
use crate::io::offload::vnet::VnetHeader;

/// No piece.
const NONE: usize = usize::MAX;

/// Pieces in a row, as indices into the arena.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    first: usize,
    last: usize,
}

impl Chain {
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
    };
}

#[derive(Debug, Clone, Copy)]
struct Link<T> {
    piece: Piece<T>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    vnet: VnetHeader,
    header_at: usize,
    header_len: usize,
    first: usize,
    count: usize,
    payload_len: usize,
}

/// The storage behind a coalescer.
#[derive(Debug)]
pub(super) struct Store<T> {
    entries: Vec<Entry>,
    headers: Vec<u8>,
    links: Vec<Link<T>>,
}

impl<T: Copy> Store<T> {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::with_capacity(COALESCE_FRAMES_MAX),
            headers: Vec::with_capacity(COALESCE_FRAMES_MAX / 8 * COALESCE_HEADER_LEN_MAX),
            links: Vec::with_capacity(COALESCE_FRAMES_MAX),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.links.len() >= COALESCE_FRAMES_MAX
    }

    /// Stores one piece as a chain of its own.
    #[inline]
    pub(super) fn chain(&mut self, piece: Piece<T>) -> Chain {
        let index = self.links.len();
        self.links.push(Link { piece, next: NONE });
        Chain {
            first: index,
            last: index,
        }
    }

    /// Links `next` behind `chain`.
    #[inline]
    pub(super) fn link(&mut self, chain: Chain, next: Chain) -> Chain {
        if let Some(last) = self.links.get_mut(chain.last) {
            last.next = next.first;
        }
        Chain {
            first: chain.first,
            last: next.last,
        }
    }

    /// Emits a frame as it is.
    #[inline]
    pub(super) fn emit_whole(&mut self, piece: Piece<T>) {
        let chain = self.chain(piece);
        self.entries.push(Entry {
            vnet: VnetHeader::default(),
            header_at: 0,
            header_len: 0,
            first: chain.first,
            count: 1,
            payload_len: piece.len,
        });
    }

    /// Emits a header and the `count` pieces of `chain`, `payload_len` bytes together.
    #[inline]
    pub(super) fn emit(
        &mut self,
        vnet: VnetHeader,
        header: &[u8],
        chain: Chain,
        count: usize,
        payload_len: usize,
    ) {
        let header_at = self.headers.len();
        self.headers.extend_from_slice(header);
        let header_len = header.len();
        self.entries.push(Entry {
            vnet,
            header_at,
            header_len,
            first: chain.first,
            count,
            payload_len,
        });
    }

    pub(super) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = Ready<'_, T>> {
        self.entries
            .iter()
            .map(|entry| Ready { store: self, entry })
    }

    /// Forgets the entries; the pieces too if no open run refers to any.
    pub(super) fn clear(&mut self, no_run_open: bool) {
        self.entries.clear();
        self.headers.clear();
        if no_run_open {
            self.links.clear();
        }
    }
}

/// One frame or super-frame for the TAP: one `writev` of the virtio header, [`Ready::header`] and the pieces.
#[derive(Debug, Clone, Copy)]
pub struct Ready<'a, T> {
    store: &'a Store<T>,
    entry: &'a Entry,
}

impl<'a, T: Copy> Ready<'a, T> {
    /// Returns the virtio header.
    #[must_use]
    pub const fn vnet(&self) -> VnetHeader {
        self.entry.vnet
    }

    /// Returns the rewritten header bytes, at most `config::COALESCE_HEADER_LEN_MAX`; empty if the frame goes as it is.
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        let Entry {
            header_at,
            header_len,
            ..
        } = *self.entry;
        self.store
            .headers
            .get(header_at..header_at + header_len)
            .unwrap_or_default()
    }

    /// Returns what follows the header: for every frame the part of it that is used, in order.
    #[must_use]
    pub const fn pieces(&self) -> Pieces<'a, T> {
        Pieces {
            store: self.store,
            next: self.entry.first,
            left: self.entry.count,
        }
    }

    /// Returns the length in bytes of header and pieces together.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        self.entry.header_len + self.entry.payload_len
    }
}

/// The pieces of one [`Ready`], in order.
#[derive(Debug, Clone)]
pub struct Pieces<'a, T> {
    store: &'a Store<T>,
    next: usize,
    left: usize,
}

impl<T: Copy> Iterator for Pieces<'_, T> {
    type Item = Piece<T>;

    #[inline]
    fn next(&mut self) -> Option<Piece<T>> {
        self.left = self.left.checked_sub(1)?;
        let link = self.store.links.get(self.next)?;
        self.next = link.next;
        Some(link.piece)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Copy> ExactSizeIterator for Pieces<'_, T> {}
