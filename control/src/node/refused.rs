//! Hosts that are kept out, by us or by themselves, in words for `weft status`: only a person can mend that.
//!
//! `status connections` has them, too, among many others. Bound: `config::REFUSALS_SHOWN` lines.

use std::time::Instant;

use crate::config::REFUSALS_SHOWN;
use crate::link::dialer::{TargetFailure, TargetPhase};
use crate::link::error::LinkError;
use crate::link::message::{ByeReason, Refusal};
use crate::node::Node;

impl Node {
    /// One line for each target that refuses us or is refused, and for each source that we sent away lately.
    pub(super) fn refusal_notes(&self, now: Instant) -> Vec<String> {
        let targets = self.dialer.targets().iter().filter_map(|target| {
            let is_out = target.is_refused() && target.phase != TargetPhase::Connected;
            let Some(TargetFailure::Link(error)) = target.failure.filter(|_| is_out) else {
                return None;
            };
            Some(("to", target.address.to_string(), error))
        });
        let sources = self
            .admission
            .recent(now)
            .map(|failure| ("from", failure.address.ip().to_string(), failure.error));
        let (mut apart, mut notes) = (Vec::new(), Vec::new());
        for (direction, address, error) in targets.chain(sources) {
            let to = if is_of_another_ring(error) {
                &mut apart
            } else {
                &mut notes
            };
            to.push(note(direction, &address, error));
        }
        let mut whys = self.peers_apart().peekable();
        // We know in which way their addresses are others', unless they sent us away first.
        if !apart.is_empty() && whys.peek().is_some() {
            apart = whys
                .map(|(peer, why)| format!("no link with {}: {why}", self.shown(peer)))
                .collect();
        }
        notes.extend(apart);
        if notes.len() > REFUSALS_SHOWN {
            let rest = notes.split_off(REFUSALS_SHOWN - 1).len();
            notes.push(format!(
                "{rest} more hosts are kept out: see `weft status connections`"
            ));
        }
        notes
    }
}

fn is_of_another_ring(error: LinkError) -> bool {
    matches!(
        error,
        LinkError::ByPeer(ByeReason::OtherRing) | LinkError::ByUs(ByeReason::OtherRing)
    )
}

fn note(direction: &str, address: &str, error: LinkError) -> String {
    let is_for = |wanted: Refusal| {
        error == LinkError::RefusedByPeer(wanted) || error == LinkError::RefusedByUs(wanted)
    };
    let mend = if is_for(Refusal::WrongSecret) {
        ": launch both hosts with the same --password or --password-file"
    } else if is_for(Refusal::OtherNetwork) || error == LinkError::Handshake {
        ": launch both hosts with the same --network"
    } else {
        ""
    };
    format!("no link {direction} {address}: {error}{mend}")
}
