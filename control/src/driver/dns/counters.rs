//! What the DNS server counts since it was started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// One for each way a question can end, and for what is not a question.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) answered: Counter,
    pub(super) no_data: Counter,
    pub(super) no_name: Counter,
    pub(super) forwarded: Counter,
    pub(super) forward_failed: Counter,
    pub(super) refused: Counter,
    pub(super) malformed: Counter,
    pub(super) over_rate: Counter,
    pub(super) over_forwards: Counter,
    pub(super) over_connections: Counter,
    /// Not a question: taken from clients, and then hung up on for those of others.
    pub(super) connections: Counter,
    pub(super) evicted_connections: Counter,
    pub(super) not_sent: Counter,
}

/// A number that only rises.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counters {
    pub(super) fn by_name(&self) -> BTreeMap<String, u64> {
        [
            ("dns_answered", &self.answered),
            ("dns_no_data", &self.no_data),
            ("dns_no_name", &self.no_name),
            ("dns_forwarded", &self.forwarded),
            ("dns_forward_failed", &self.forward_failed),
            ("dns_refused", &self.refused),
            ("dns_malformed", &self.malformed),
            ("dns_drop_over_rate", &self.over_rate),
            ("dns_drop_over_forwards", &self.over_forwards),
            ("dns_drop_over_connections", &self.over_connections),
            ("dns_connections", &self.connections),
            ("dns_connections_evicted", &self.evicted_connections),
            ("dns_drop_not_sent", &self.not_sent),
        ]
        .into_iter()
        .map(|(name, counter)| (name.to_owned(), counter.0.load(Ordering::Relaxed)))
        .collect()
    }
}
