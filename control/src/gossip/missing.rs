//! Records that others have named and that have not come yet.
//!
//! A record is named on lazy links and pushed on eager ones, so most arrive a moment after their name. What does
//! not is asked for, from one link after the other. That alone makes nobody push: a lost segment holds any link up now
//! and then, and a way that changes costs what is under way. Bounds: `config::MISSING_MAX`, `SEEN_MAX`, `PUSH_EVERY`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::Gossip;
use super::neighbour::Push;
use super::wire::GossipMessage;
use crate::config::{
    MISSING_AFTER, MISSING_MAX, PUSH_EVERY, PUSHES_MIN, SEEN_MAX, WANT_AGAIN_AFTER,
};
use crate::node::exchange::LinkId;

/// Links that are asked for one record before the next comparison has to find it.
const ASKED_MAX: usize = 4;

#[derive(Debug)]
struct Wanted {
    due: Instant,
    from: VecDeque<LinkId>,
}

/// What is missing, and what was seen lately and not kept.
#[derive(Debug, Default)]
pub(super) struct Missing {
    wanted: BTreeMap<u64, Wanted>,
    due: BTreeSet<(Instant, u64)>,
    seen: BTreeSet<u64>,
    seen_in_order: VecDeque<u64>,
}

impl Missing {
    /// The record has come.
    pub(super) fn seen(&mut self, id: u64) {
        if let Some(wanted) = self.wanted.remove(&id) {
            self.due.remove(&(wanted.due, id));
        }
        if self.seen.insert(id) {
            self.seen_in_order.push_back(id);
            if self.seen_in_order.len() > SEEN_MAX
                && let Some(oldest) = self.seen_in_order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
    }

    /// Those links whose other ends have named the record and were not asked for it yet.
    pub(super) fn who_named(&self, id: u64) -> Vec<LinkId> {
        let wanted = self.wanted.get(&id);
        wanted.map_or_else(Vec::new, |wanted| wanted.from.iter().copied().collect())
    }

    fn named(&mut self, id: u64, link: LinkId, due: Instant) {
        if self.seen.contains(&id) {
            return;
        }
        if let Some(wanted) = self.wanted.get_mut(&id) {
            if wanted.from.len() < ASKED_MAX {
                wanted.from.push_back(link);
            }
        } else if self.wanted.len() < MISSING_MAX {
            let from = VecDeque::from([link]);
            self.wanted.insert(id, Wanted { due, from });
            self.due.insert((due, id));
        }
    }

    /// The next record that is due, and whom to ask for it.
    fn next_due(&mut self, now: Instant) -> Option<(u64, LinkId)> {
        loop {
            let (due, id) = *self.due.first().filter(|(due, _)| *due <= now)?;
            self.due.remove(&(due, id));
            let wanted = self.wanted.get_mut(&id)?;
            let Some(link) = wanted.from.pop_front() else {
                self.wanted.remove(&id);
                continue;
            };
            wanted.due = now + WANT_AGAIN_AFTER;
            self.due.insert((wanted.due, id));
            return Some((id, link));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }
}

impl Gossip {
    /// The other end has these.
    pub(super) fn heard_of(&mut self, link: LinkId, ids: &[u64], now: Instant) {
        // Where there is one link only, nothing else can bring it.
        let due = if self.neighbours.len() > 1 {
            now + MISSING_AFTER
        } else {
            now
        };
        let Some(neighbour) = self.neighbours.get_mut(link) else {
            return;
        };
        neighbour.need_not_name(ids);
        for id in ids {
            match self.store.with_id(*id) {
                Some(key) => neighbour.has(key),
                None => self.missing.named(*id, link, due),
            }
        }
        self.ask_for_missing(now);
    }

    /// The other end asks for these.
    pub(super) fn wanted(&mut self, link: LinkId, ids: &[u64]) {
        let keys = ids.iter().filter_map(|id| self.store.with_id(*id));
        self.neighbours.owe(link, keys);
    }

    pub(super) fn ask_for_missing(&mut self, now: Instant) {
        let mut asks: BTreeMap<LinkId, Vec<u64>> = BTreeMap::new();
        while let Some((id, link)) = self.missing.next_due(now) {
            asks.entry(link).or_default().push(id);
        }
        for (link, ids) in asks {
            self.send(link, &GossipMessage::Want(ids));
            self.ask_to_push(link, now);
        }
    }

    /// What this link has named came by no other: it is to push, if too few do or this is rare.
    fn ask_to_push(&mut self, link: LinkId, now: Instant) {
        let neighbour = self.neighbours.get_mut(link);
        if neighbour.is_none_or(|neighbour| neighbour.push == Push::Comes) {
            return;
        }
        if self.neighbours.pushing() >= PUSHES_MIN {
            if self.push_at.is_some_and(|at| now < at) {
                return;
            }
            self.push_at = Some(now + PUSH_EVERY);
        }
        self.neighbours.set_push(link, Push::Comes);
        self.send(link, &GossipMessage::Push);
    }
}
