//! Anti-replay window of one lane (RFC 6479).
//!
//! A ring of bitmap blocks; moving forward clears whole blocks instead of shifting bits.
//! `check` changes nothing, so that a datagram is marked only once it has opened.

use crate::config::REPLAY_WINDOW;

const BLOCK_BITS: u64 = 64;
/// One block more than the window, so that the block being cleared is never inside it.
const BLOCKS: usize = (REPLAY_WINDOW / BLOCK_BITS) as usize;

/// Remembers which of the last [`REPLAY_WINDOW`] counters were seen.
#[derive(Debug)]
pub struct ReplayWindow {
    blocks: Box<[u64; BLOCKS]>,
    /// One more than the highest counter seen.
    next: u64,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            blocks: Box::new([0; BLOCKS]),
            next: 0,
        }
    }
}

impl ReplayWindow {
    /// True if `counter` was not seen and is not too old.
    #[inline]
    pub fn check(&self, counter: u64) -> bool {
        if counter >= self.next {
            return counter != u64::MAX;
        }
        // The block of the newest counter reaches back over the oldest ones: they don't count.
        if counter / BLOCK_BITS + BLOCKS as u64 <= (self.next - 1) / BLOCK_BITS {
            return false;
        }
        let (block, bit) = place(counter);
        self.blocks.get(block).is_some_and(|bits| bits & bit == 0)
    }

    /// Marks `counter` as seen; true if it was new.
    #[inline]
    pub fn mark(&mut self, counter: u64) -> bool {
        if !self.check(counter) {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        let (block, bit) = place(counter);
        if let Some(bits) = self.blocks.get_mut(block) {
            *bits |= bit;
        }
        true
    }

    fn advance(&mut self, counter: u64) {
        let newest = counter / BLOCK_BITS;
        let was = self.next.checked_sub(1).map_or(0, |last| last / BLOCK_BITS);
        if newest - was >= BLOCKS as u64 {
            self.blocks.fill(0);
        } else {
            for block in was + 1..=newest {
                if let Some(bits) = self.blocks.get_mut(place(block * BLOCK_BITS).0) {
                    *bits = 0;
                }
            }
        }
        self.next = counter + 1;
    }
}

fn place(counter: u64) -> (usize, u64) {
    (
        usize::try_from((counter / BLOCK_BITS) % BLOCKS as u64).unwrap_or(0),
        1 << (counter % BLOCK_BITS),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_edges_give_these_verdicts() {
        let mut window = ReplayWindow::default();
        let far = 1 << 40;
        for (counter, fresh) in [
            (0, true),
            (0, false),
            (1, true),
            (9, true),
            (8, true),
            (7, true),
            (7, false),
            (REPLAY_WINDOW, true),
            (REPLAY_WINDOW - 1, true),
            (REPLAY_WINDOW - 1, false),
            (2, false),
            (far, true),
            (far, false),
            (far - REPLAY_WINDOW + BLOCK_BITS, true),
            (far - REPLAY_WINDOW + BLOCK_BITS, false),
            (far - REPLAY_WINDOW - BLOCK_BITS, false),
            (REPLAY_WINDOW, false),
            (u64::MAX, false),
            (u64::MAX - 1, true),
            (u64::MAX - 1, false),
            (0, false),
        ] {
            assert_eq!(window.mark(counter), fresh, "counter {counter}");
        }
    }

    #[test]
    fn checking_changes_nothing() {
        let mut window = ReplayWindow::default();
        assert!(window.check(5));
        assert!(window.check(5));
        assert!(window.mark(5));
        assert!(!window.check(5));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(steps in prop::collection::vec((any::<bool>(), 0..3 * REPLAY_WINDOW), 1..400)) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut base = 0_u64;
            for (forward, distance) in steps {
                let counter = if forward { base + distance % 700 } else { base.saturating_sub(distance) };
                let fresh = window.mark(counter);
                let newest = seen.last().copied().unwrap_or(0);
                if counter + REPLAY_WINDOW - BLOCK_BITS > newest {
                    prop_assert_eq!(fresh, !seen.contains(&counter), "inside the window");
                } else if fresh {
                    prop_assert!(!seen.contains(&counter), "never twice");
                }
                if fresh { seen.insert(counter); }
                base = base.max(counter);
            }
        }
    }
}
