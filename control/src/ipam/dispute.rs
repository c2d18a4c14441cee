//! Disputes: two histories that claim one range. Nobody gives an address of it until it is settled.
//!
//! ```text
//!  the largest of the owners asks the others ─► IN USE addresses ─► each of these is its user's, the rest its own
//! ```
//!
//! An owner answers only when it knows of the dispute, and so gives nothing of the range any more. One that cannot be
//! reached leaves the range disputed until it can, or until it is removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::ipam::claim::Claim;
use crate::ipam::message::{ADDRESSES_MAX, IpamMessage};
use crate::ipam::ring::{Change, Ring, Run};
use crate::ipam::span::Span;
use crate::ipam::{Ipam, IpamNotice};
use crate::peer::PeerId;

/// How often the other owners are asked.
const ASK_PAUSE: Duration = Duration::from_millis(400);

/// What the other owners have said.
#[derive(Debug, Default)]
pub(crate) struct Testimony {
    in_use: BTreeMap<Span, BTreeMap<PeerId, Vec<u32>>>,
    asked_at: Option<Instant>,
}

impl Ipam {
    pub(crate) fn has_disputes(&self, ring: &Ring) -> bool {
        ring.runs()
            .any(|run| run.claim.is_disputed() && run.claim.owner() == self.config.me)
    }

    /// Asks about disputes that are ours to settle, and settles those about which all is said.
    pub(crate) fn step_disputes(&mut self, now: Instant) {
        let Some(ring) = self.ring.as_ref().filter(|_| !self.is_relearning()) else {
            return;
        };
        let disputes: Vec<Run> = ring
            .runs()
            .filter(|run| run.claim.is_disputed() && run.claim.owner() == self.config.me)
            .collect();
        self.testimony
            .in_use
            .retain(|span, _| disputes.iter().any(|run| run.span == *span));
        let asks = self
            .testimony
            .asked_at
            .is_none_or(|at| now >= at + ASK_PAUSE);
        if disputes.is_empty() || !asks {
            return;
        }
        self.testimony.asked_at = Some(now);
        for run in disputes {
            let said = self
                .testimony
                .in_use
                .get(&run.span)
                .cloned()
                .unwrap_or_default();
            let silent: Vec<PeerId> = run
                .claim
                .owners()
                .iter()
                .filter(|owner| **owner != self.config.me && !said.contains_key(owner))
                .copied()
                .collect();
            if silent.is_empty() {
                self.settle_dispute(&run, &said, now);
                continue;
            }
            let message = IpamMessage::Disputed { runs: vec![run] };
            for owner in silent {
                if self.contacts.contains_key(&owner) {
                    self.send(owner, &message);
                }
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`Ipam::message` hands over only the kinds that are read here"
    )]
    pub(crate) fn dispute_message(&mut self, from: PeerId, message: IpamMessage, now: Instant) {
        match message {
            IpamMessage::Disputed { runs } => {
                self.merge_runs(&runs, Some(from), now);
                for run in runs {
                    self.testify(from, &run, now);
                }
            }
            IpamMessage::InUse { span, addresses } => {
                let said = self.testimony.in_use.entry(span).or_default();
                said.insert(from, addresses);
                if self.testimony.in_use.len() > ADDRESSES_MAX {
                    self.testimony.in_use.pop_first();
                }
            }
            _ => {}
        }
    }

    /// Says what is in use here of a disputed range; what the other knows must not be older than what we know.
    fn testify(&mut self, to: PeerId, asked: &Run, now: Instant) {
        // Until what is in use here was seen nothing can be said of it.
        let Some(ring) = self.ring.as_ref().filter(|_| !self.is_relearning()) else {
            return;
        };
        if ring.runs_in(asked.span).any(|run| run.claim != asked.claim) {
            self.send_ring(to, now);
            return;
        }
        let addresses: Vec<u32> = self
            .holdings
            .in_span(asked.span)
            .map(|(address, _)| u32::from(address))
            .take(ADDRESSES_MAX)
            .collect();
        let span = asked.span;
        self.send(to, &IpamMessage::InUse { span, addresses });
    }

    fn settle_dispute(&mut self, run: &Run, said: &BTreeMap<PeerId, Vec<u32>>, now: Instant) {
        let version = run.claim.version.next_step();
        let mut parts = vec![(run.span, self.config.me)];
        for (peer, addresses) in said {
            for address in addresses {
                let is_free = !self.holdings.taken().contains_key(address);
                if is_free && run.span.contains(*address) {
                    parts.retain(|(span, _)| *span != Span::single((*address).into()));
                    parts.push((Span::single((*address).into()), *peer));
                }
            }
        }
        let Some(ring) = &mut self.ring else {
            return;
        };
        let mut changes: Vec<Change> = Vec::new();
        // Single addresses first: the rest must not stand at the same version where they lie.
        let mut rest = vec![run.span];
        for (span, owner) in parts.iter().skip(1) {
            changes.extend(ring.join(*span, &Claim::new(version, *owner), None));
            rest = rest
                .into_iter()
                .flat_map(|left| super::allocate::without(left, *span))
                .flatten()
                .collect();
        }
        for span in rest {
            changes.extend(ring.join(span, &Claim::new(version, self.config.me), None));
        }
        let given: Vec<Run> = changes
            .iter()
            .filter(|change| change.after.owner() != self.config.me)
            .map(|change| Run {
                span: change.span,
                claim: change.after.clone(),
            })
            .collect();
        self.published.given(&given);
        self.ring_changes(&changes, None, now);
        self.notice(IpamNotice::Settled { span: run.span });
        for peer in said.keys().copied().collect::<Vec<_>>() {
            self.send_ring(peer, now);
        }
    }
}
