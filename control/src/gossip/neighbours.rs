//! All links that gossip goes over: which of them have something to send, and when one is next due.
//!
//! With a thousand peers a record comes hundreds of times a second, and a hub has hundreds of links: what a message
//! does not concern is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::time::Instant;

use super::neighbour::{Neighbour, Push};
use super::store::Store;
use crate::config::OWN_PUSHED_MIN;
use crate::node::exchange::LinkId;
use crate::record::RecordKey;

/// By link.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    all: BTreeMap<LinkId, Neighbour>,
    /// Those that may have records to be sent and room for them.
    ready: BTreeSet<LinkId>,
    /// None is due before this.
    due: Option<Instant>,
}

impl Neighbours {
    pub(super) fn insert(&mut self, link: LinkId, neighbour: Neighbour) {
        self.is_due_at(neighbour.deadline());
        self.all.insert(link, neighbour);
        self.ready.insert(link);
    }

    pub(super) fn remove(&mut self, link: LinkId) {
        self.all.remove(&link);
        self.ready.remove(&link);
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn contains(&self, link: LinkId) -> bool {
        self.all.contains_key(&link)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &Neighbour)> {
        self.all.iter().map(|(link, neighbour)| (*link, neighbour))
    }

    /// For what neither makes records wait nor sets a time.
    pub(super) fn get_mut(&mut self, link: LinkId) -> Option<&mut Neighbour> {
        self.all.get_mut(&link)
    }

    /// Has a fresh record sent or named on all links but those whose other ends have it: it came by one of them,
    /// others have named it.
    pub(super) fn tell(&mut self, have: &[LinkId], key: RecordKey, id: u64, now: Instant) {
        let mut due = self.due;
        for (link, neighbour) in &mut self.all {
            if have.contains(link) {
                neighbour.has(key);
            } else if neighbour.tell(key, id, now) {
                self.ready.insert(*link);
            }
            due = [due, neighbour.have_at].into_iter().flatten().min();
        }
        self.due = due;
    }

    /// The same for a record of our own, but that it is sent on [`OWN_PUSHED_MIN`] links at least: nobody else can.
    pub(super) fn tell_own(&mut self, key: RecordKey, id: u64, now: Instant) {
        let lack = OWN_PUSHED_MIN.saturating_sub(self.eager());
        let lazy = self.all.iter().filter(|(_, one)| !one.is_eager);
        let more: Vec<LinkId> = lazy.map(|(link, _)| *link).take(lack).collect();
        self.tell(&more, key, id, now);
        for link in more {
            self.owe(link, iter::once(key));
        }
    }

    /// The other end wants what is new, or only to hear of it.
    pub(super) fn set_eager(&mut self, link: LinkId, is_eager: bool) {
        if let Some(neighbour) = self.all.get_mut(&link) {
            neighbour.is_eager = is_eager;
        }
    }

    /// We have asked the other end to push to us, or not to.
    pub(super) fn set_push(&mut self, link: LinkId, push: Push) {
        if let Some(neighbour) = self.all.get_mut(&link) {
            neighbour.push = push;
        }
    }

    /// Links that fresh records are pushed on.
    pub(super) fn eager(&self) -> usize {
        self.all.values().filter(|one| one.is_eager).count()
    }

    /// Links by which records are pushed to us.
    pub(super) fn pushing(&self) -> usize {
        let pushing = self.all.values();
        pushing.filter(|one| one.push == Push::Comes).count()
    }

    /// The other end lacks these.
    pub(super) fn owe(&mut self, link: LinkId, keys: impl Iterator<Item = RecordKey>) {
        if let Some(neighbour) = self.all.get_mut(&link) {
            neighbour.owed.extend(keys);
            self.ready.insert(link);
        }
    }

    /// The other end has taken a message: there is room for the next.
    pub(super) fn acknowledged(&mut self, link: LinkId) {
        if let Some(neighbour) = self.all.get_mut(&link) {
            neighbour.acknowledged();
            self.ready.insert(link);
        }
    }

    /// The next message with records, on any link.
    pub(super) fn next_records(&mut self, store: &Store) -> Option<(LinkId, Vec<u8>)> {
        while let Some(link) = self.ready.first().copied() {
            let neighbour = self.all.get_mut(&link);
            if let Some(message) = neighbour.and_then(|neighbour| neighbour.next_records(store)) {
                return Some((link, message));
            }
            self.ready.remove(&link);
        }
        None
    }

    fn is_due_at(&mut self, at: Option<Instant>) {
        self.due = [self.due, at].into_iter().flatten().min();
    }

    /// When one may be due; not too late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Does what is due on each link; then it must say when it is due again.
    pub(super) fn each_due(&mut self, now: Instant, mut run: impl FnMut(LinkId, &mut Neighbour)) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        for (link, neighbour) in &mut self.all {
            if neighbour.deadline().is_some_and(|due| due <= now) {
                run(*link, neighbour);
            }
        }
        self.due = self.all.values().filter_map(Neighbour::deadline).min();
    }
}
