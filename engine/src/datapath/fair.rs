//! A bounded queue that is fair to those who fill it: deficit round robin (Shreedhar, Varghese 1995).
//!
//! ```text
//!  push(peer, len, item) ─► entries in order of arrival ─► pop: each peer in turn, QUANTUM bytes of credit
//!                              full: the newest of whoever has most waiting goes
//! ```
//!
//! Relayed trains wait here between their check and their departure. A peer that sends more than its share
//! drops its own; the others do not notice. Bounds: `config::RELAY_TRAINS_MAX`; nothing is allocated after
//! the start, and a search over so few entries costs less than a system call's entry.

use crate::command::PeerSlot;
use crate::config::{RELAY_TRAINS_MAX, TRAIN_LEN_MAX};

/// One turn's credit: no train is longer, so every peer moves in every round.
const QUANTUM: usize = TRAIN_LEN_MAX;

#[derive(Debug)]
struct Entry<T> {
    peer: PeerSlot,
    len: usize,
    item: T,
}

#[derive(Debug)]
struct Turn {
    peer: PeerSlot,
    credit: usize,
    waiting: usize,
}

/// The queue.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    entries: Vec<Entry<T>>,
    /// One for each peer with an entry; the first one is being served.
    turns: Vec<Turn>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            entries: Vec::with_capacity(RELAY_TRAINS_MAX),
            turns: Vec::with_capacity(RELAY_TRAINS_MAX),
        }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Peers whose items wait.
    pub(super) fn peers_count(&self) -> usize {
        self.turns.len()
    }

    /// Adds an item of `peer`; what had to give way comes back, which may be the item itself.
    pub(super) fn push(&mut self, peer: PeerSlot, len: usize, item: T) -> Option<T> {
        self.turn_of(peer).waiting += len;
        let victim = (self.entries.len() >= RELAY_TRAINS_MAX).then(|| {
            let greedy = self.turns.iter().max_by_key(|turn| turn.waiting);
            greedy.map_or(peer, |turn| turn.peer)
        });
        let mut gone = None;
        if let Some(victim) = victim {
            match self.entries.iter().rposition(|entry| entry.peer == victim) {
                Some(at) if victim != peer => gone = Some(self.take(at)),
                // The newest of the peer's own is the one that it brings.
                _ => {
                    self.settle(peer, len);
                    return Some(item);
                }
            }
        }
        self.entries.push(Entry { peer, len, item });
        gone
    }

    /// The newest item of `peer`.
    pub(super) fn newest_mut(&mut self, peer: PeerSlot) -> Option<&mut T> {
        let mut entries = self.entries.iter_mut().rev();
        entries
            .find(|entry| entry.peer == peer)
            .map(|entry| &mut entry.item)
    }

    /// The newest item of `peer` has become longer.
    pub(super) fn grown(&mut self, peer: PeerSlot, by: usize) {
        let mut entries = self.entries.iter_mut().rev();
        if let Some(entry) = entries.find(|entry| entry.peer == peer) {
            entry.len += by;
            self.turn_of(peer).waiting += by;
        }
    }

    /// Takes the next item: each peer in turn, its oldest first.
    pub(super) fn pop(&mut self) -> Option<T> {
        loop {
            let turn = self.turns.first_mut()?;
            let peer = turn.peer;
            let Some(at) = self.entries.iter().position(|entry| entry.peer == peer) else {
                self.turns.remove(0);
                continue;
            };
            let len = self.entries.get(at).map_or(0, |entry| entry.len);
            if turn.credit >= len {
                turn.credit -= len;
                return Some(self.take(at));
            }
            turn.credit += QUANTUM;
            self.turns.rotate_left(1);
        }
    }

    /// Takes any item, to clear the queue.
    pub(super) fn pop_any(&mut self) -> Option<T> {
        let last = self.entries.len().checked_sub(1)?;
        Some(self.take(last))
    }

    fn take(&mut self, at: usize) -> T {
        let Entry { peer, len, item } = self.entries.remove(at);
        self.settle(peer, len);
        item
    }

    /// `len` bytes of `peer` no longer wait; without any its turn is over and its credit gone.
    fn settle(&mut self, peer: PeerSlot, len: usize) {
        if let Some(at) = self.turns.iter().position(|turn| turn.peer == peer)
            && let Some(turn) = self.turns.get_mut(at)
        {
            turn.waiting = turn.waiting.saturating_sub(len);
            if turn.waiting == 0 {
                self.turns.remove(at);
            }
        }
    }

    fn turn_of(&mut self, peer: PeerSlot) -> &mut Turn {
        let at = match self.turns.iter().position(|turn| turn.peer == peer) {
            Some(at) => at,
            None => {
                self.turns.push(Turn {
                    peer,
                    credit: 0,
                    waiting: 0,
                });
                self.turns.len() - 1
            }
        };
        &mut self.turns[at]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: PeerSlot = PeerSlot(1);
    const B: PeerSlot = PeerSlot(2);

    #[test]
    fn one_peers_items_keep_their_order() {
        let mut queue = FairQueue::default();
        for number in 0..10 {
            assert_eq!(queue.push(A, 60_000, number), None);
        }
        assert_eq!(
            std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        assert!(queue.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn a_greedy_peer_gives_way_and_a_modest_one_waits_for_no_more_than_a_turn() {
        let mut queue = FairQueue::default();
        let mut lost = 0;
        for number in 0..3 * RELAY_TRAINS_MAX {
            lost += usize::from(queue.push(A, 60_000, (A, number)).is_some());
        }
        assert_eq!(lost, 2 * RELAY_TRAINS_MAX);
        assert_eq!(
            queue.push(B, 1500, (B, 0)),
            Some((A, RELAY_TRAINS_MAX - 1)),
            "the newest of the greedy one"
        );
        let first: Vec<_> = (0..3)
            .filter_map(|_| queue.pop())
            .map(|(peer, _)| peer)
            .collect();
        assert!(first.contains(&B), "{first:?}");
    }

    #[test]
    fn bytes_are_shared_not_items() {
        let mut queue = FairQueue::default();
        for _ in 0..RELAY_TRAINS_MAX / 2 {
            queue.push(A, 60_000, 60_000);
            queue.push(B, 6000, 6000);
        }
        let mut sums = [0_usize, 0];
        for len in (0..22).filter_map(|_| queue.pop()) {
            sums[usize::from(len == 6000)] += len;
        }
        assert!(sums[0].abs_diff(sums[1]) <= 2 * QUANTUM, "{sums:?}");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_unsaid_and_the_bound_holds(
            steps in prop::collection::vec((any::<bool>(), 0..5_u16, 1..TRAIN_LEN_MAX), 1..300)
        ) {
            let mut queue = FairQueue::default();
            let (mut pushed, mut out) = (0, 0);
            for (push, peer, len) in steps {
                if push {
                    pushed += 1;
                    out += usize::from(queue.push(PeerSlot(peer), len, ()).is_some());
                } else {
                    out += usize::from(queue.pop().is_some());
                }
                prop_assert!(queue.len() <= RELAY_TRAINS_MAX);
                prop_assert_eq!(queue.len() + out, pushed);
                let waiting: usize = queue.turns.iter().map(|turn| turn.waiting).sum();
                prop_assert_eq!(waiting, queue.entries.iter().map(|entry| entry.len).sum::<usize>());
            }
            while queue.pop().is_some() { out += 1 }
            prop_assert_eq!(out, pushed);
            prop_assert!(queue.turns.is_empty());
        }
    }
}
