//! When we say what is new of our links: the first news at once, and what follows gathered, for longer while it goes on.
//!
//! A host that starts has new links all the time, and each word of it crosses the whole mesh.

use std::time::{Duration, Instant};

use crate::config::{LINKS_PACE_MAX, LINKS_QUIET_AFTER, LINKS_SAID_AFTER};

/// What is to be said, and when something was said last.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    said_at: Option<Instant>,
    doublings: u32,
    due: Option<Instant>,
}

impl Announcer {
    /// There is something to say. What frames are lost for, it is urgent to say.
    pub(super) fn hear(&mut self, is_urgent: bool, now: Instant) {
        let pace = if self.goes_on(now) {
            LINKS_SAID_AFTER * (1 << self.doublings)
        } else {
            self.doublings = 0;
            Duration::ZERO
        };
        let due = *self.due.get_or_insert(now + pace);
        if is_urgent {
            self.due = Some(due.min(now + LINKS_SAID_AFTER));
        }
    }

    /// Whether to say it now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        if self.goes_on(now) {
            self.doublings = (self.doublings + 1).min(LINKS_PACE_MAX);
        }
        (self.due, self.said_at) = (None, Some(now));
        true
    }

    /// Whether something was said a moment ago.
    fn goes_on(&self, now: Instant) -> bool {
        let lately = |at: Instant| now.saturating_duration_since(at) < LINKS_QUIET_AFTER;
        self.said_at.is_some_and(lately)
    }

    /// When there is something to say next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::first_instant;

    /// When it is said that there are news at each of these, in milliseconds.
    fn said(news: impl IntoIterator<Item = (u64, bool)>) -> Vec<u64> {
        let (mut announcer, start) = (Announcer::default(), first_instant());
        let mut news = news.into_iter().peekable();
        let mut said = Vec::new();
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            if let Some((_, is_urgent)) = news.next_if(|(at, _)| *at == ms) {
                announcer.hear(is_urgent, now);
            }
            if announcer.is_due(now) {
                said.push(ms);
            }
        }
        said
    }

    #[test]
    fn what_comes_alone_is_said_at_once() {
        let quiet = u64::try_from(LINKS_QUIET_AFTER.as_millis()).unwrap();
        assert_eq!(said([(0, false), (quiet, false)]), [0, quiet]);
    }

    #[test]
    fn what_goes_on_is_gathered_for_longer_and_longer() {
        let twenty_links = (0..20).map(|n| (n * 100, false));
        let times = said(twenty_links);
        assert_eq!(times[0], 0);
        assert!(times.len() <= 6, "{times:?}");
        let last = *times.last().unwrap();
        assert!(
            (1900..=2700).contains(&last),
            "the last news too: {times:?}"
        );
    }

    #[test]
    fn what_frames_are_lost_for_waits_for_no_more_than_the_shortest_time() {
        let mut news: Vec<_> = (0..20).map(|n| (n * 100, false)).collect();
        news.push((1910, true));
        let times = said(news);
        assert!(
            times.iter().any(|at| (1910..=1960).contains(at)),
            "{times:?}"
        );
    }
}
