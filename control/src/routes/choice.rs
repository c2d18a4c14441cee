//! Direct or relayed: which of two ways to one peer carries its frames, and when that changes.
//!
//! ```text
//!             direct dead ─► at once              relay faster by 2 ms and a quarter, for a while
//!   Direct ─────────────────────────────────────────────────────────────────────────────────────► Relay
//!          ◄─────────────────────────────────────────────────────────────────────────────────────
//!             relay route gone ─► at once         direct no longer slower by that much, for a while
//! ```
//!
//! Only this choice is damped, never the way that relays take: frames that leave directly are at their end, so
//! whatever is chosen here makes no loop.

use std::time::{Duration, Instant};

use crate::config::{BETTER_WAY_HOLD, LINK_FLAP_MEMORY, RELAY_GAIN_MIN};

/// How the peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Choice {
    Direct,
    Relay,
}

/// The choice for one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chooser {
    chosen: Option<Choice>,
    /// Since when the other way has been better.
    other_better_since: Option<Instant>,
    changed_at: Option<Instant>,
}

impl Chooser {
    /// What is chosen now.
    #[cfg(test)]
    pub(crate) fn chosen(&self) -> Option<Choice> {
        self.chosen
    }

    /// Takes in the round trips of both ways, as far as there are such; returns what to use.
    pub(crate) fn choose(
        &mut self,
        direct: Option<Duration>,
        relay: Option<Duration>,
        now: Instant,
    ) -> Option<Choice> {
        let wanted = match (direct, relay) {
            (None, None) => None,
            (Some(_), None) => Some(Choice::Direct),
            (None, Some(_)) => Some(Choice::Relay),
            (Some(direct), Some(relay)) => Some(self.compare(direct, relay)),
        };
        let both = direct.is_some() && relay.is_some();
        if wanted == self.chosen || !both || self.chosen.is_none() {
            self.change(wanted, now);
            return wanted;
        }
        let since = *self.other_better_since.get_or_insert(now);
        if now.duration_since(since) >= self.hold(since) {
            self.change(wanted, now);
        }
        self.chosen
    }

    fn change(&mut self, wanted: Option<Choice>, now: Instant) {
        self.other_better_since = None;
        if wanted != self.chosen {
            // The first choice is no change.
            self.changed_at = self.chosen.and(Some(now));
            self.chosen = wanted;
        }
    }

    /// How long the other way must stay better: longer if the way changed lately.
    fn hold(&self, since: Instant) -> Duration {
        let lately = |at: Instant| since.saturating_duration_since(at) < LINK_FLAP_MEMORY;
        if self.changed_at.is_some_and(lately) {
            BETTER_WAY_HOLD
        } else {
            BETTER_WAY_HOLD / 4
        }
    }

    fn compare(&self, direct: Duration, relay: Duration) -> Choice {
        let gain = RELAY_GAIN_MIN.max(direct / 4);
        // Half of the margin lies between coming and going, so that figures on the edge do not swing.
        let margin = if self.chosen == Some(Choice::Relay) {
            gain / 2
        } else {
            gain
        };
        if relay + margin < direct {
            Choice::Relay
        } else {
            Choice::Direct
        }
    }

    /// When [`Chooser::choose`] may change its mind on the same figures.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let since = self.other_better_since?;
        Some(since + self.hold(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::first_instant;

    fn ms(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    #[test]
    fn a_slow_direct_path_loses_to_a_fast_relay_and_wins_when_it_gets_better() {
        let (mut chooser, start) = (Chooser::default(), first_instant());
        assert_eq!(chooser.choose(ms(40), None, start), Some(Choice::Direct));
        assert_eq!(chooser.choose(ms(40), ms(2), start), Some(Choice::Direct));
        let due = chooser.deadline().expect("it waits");
        assert_eq!(chooser.choose(ms(40), ms(2), due), Some(Choice::Relay));
        assert_eq!(chooser.deadline(), None);

        let later = due + Duration::from_secs(10);
        assert_eq!(chooser.choose(ms(3), ms(2), later), Some(Choice::Relay));
        let due = chooser.deadline().expect("it waits");
        assert_eq!(chooser.choose(ms(3), ms(2), due), Some(Choice::Direct));
    }

    #[test]
    fn a_dead_way_is_left_at_once() {
        let (mut chooser, now) = (Chooser::default(), first_instant());
        chooser.choose(ms(2), ms(3), now);
        assert_eq!(chooser.choose(None, ms(3), now), Some(Choice::Relay));
        assert_eq!(chooser.choose(ms(2), None, now), Some(Choice::Direct));
        assert_eq!(chooser.choose(None, None, now), None);
    }

    /// The direct path dies and comes back once a second: one change each way and no more, whatever the order in
    /// which the news comes.
    #[test]
    fn a_flap_changes_the_way_twice_at_most() {
        let (mut chooser, mut now) = (Chooser::default(), first_instant());
        chooser.choose(ms(2), ms(3), now);
        let (mut changes, mut last) = (0, chooser.chosen());
        for step in 0..60 {
            now += Duration::from_millis(500);
            let direct = if step % 2 == 0 { None } else { ms(2) };
            for relay in [3, 4, 3] {
                let chosen = chooser.choose(direct, ms(relay), now);
                changes += u32::from(chosen != last);
                last = chosen;
            }
        }
        assert!(changes <= 2 * 30, "{changes} changes in 30 flaps");
        now += BETTER_WAY_HOLD;
        chooser.choose(ms(2), ms(3), now);
        assert_eq!(chooser.chosen(), Some(Choice::Direct));
    }

    #[test]
    fn figures_on_the_edge_do_not_swing() {
        let (mut chooser, mut now) = (Chooser::default(), first_instant());
        chooser.choose(ms(20), ms(10), now);
        let (mut changes, mut last) = (0, None);
        for step in 0..200 {
            now += Duration::from_millis(700);
            let direct = Duration::from_micros(14_400 + (step * 7919) % 1000);
            let chosen = chooser.choose(Some(direct), ms(11), now);
            changes += u32::from(last.is_some_and(|last| last != chosen));
            last = Some(chosen);
        }
        assert!(changes <= 1, "{changes} changes");
    }
}
