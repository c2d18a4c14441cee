//! The one event queue: ordered by time and then by age, with a hash over all that left it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::SimEvent;

struct Entry {
    at: Instant,
    sequence: u64,
    event: SimEvent,
}

impl Entry {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.sequence)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap gives out the largest first: the earliest is to be that.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// What is still to happen.
#[derive(Default)]
pub(super) struct EventQueue {
    heap: BinaryHeap<Entry>,
    sequence: u64,
}

impl EventQueue {
    pub(super) fn push(&mut self, at: Instant, event: SimEvent) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.heap.push(Entry {
            at,
            sequence,
            event,
        });
    }

    /// The next event, if it happens no later than `end`.
    pub(super) fn pop(&mut self, end: Instant) -> Option<(Instant, SimEvent)> {
        if self.heap.peek()?.at > end {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

/// A running hash over everything that happened: equal for equal seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) events: u64,
}

impl Trace {
    /// Takes one event in: when it was, what, and the bytes of it.
    pub(super) fn note(&mut self, at_ns: u64, what: [u64; 2], bytes: &[u8]) {
        self.events += 1;
        self.mix(at_ns);
        self.mix(what[0]);
        self.mix(what[1]);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
