//! Why there is no ring yet, in words: for whoever waits for one.

use crate::ipam::request::Failure;
use crate::ipam::{Ipam, IpamInit};
use crate::peer::PeerId;

impl Ipam {
    /// What a request is told that has waited for a ring in vain.
    pub(crate) fn no_ring(&self) -> Failure {
        if self.config.init == IpamInit::Observer {
            let known = self.known_electors();
            let voters = if known.is_empty() {
                "no peer within reach has a ring or votes".to_owned()
            } else {
                let known = self.labels(known);
                format!(
                    "no ring is agreed on by those that vote ({known}): ask there what is missing"
                )
            };
            return Failure::Observing { voters };
        }
        Failure::NoRing {
            quorum: self.first_quorum(),
            known: self.known_electors().len(),
            why: self.what_keeps_peers_from_it(),
        }
    }

    fn what_keeps_peers_from_it(&self) -> String {
        let others = self.election.other_counts.iter();
        let others = others.filter(|(peer, _)| self.contacts.contains_key(peer));
        let others: Vec<String> = others
            .map(|(peer, count)| format!("{} with {count}", self.label(*peer)))
            .collect();
        let mut why = String::new();
        if !others.is_empty() {
            why.push_str(&format!(
                "; this host was launched with --ipalloc-init consensus={}, {}: all must say the same",
                self.electors_told(),
                others.join(", ")
            ));
        }
        let contacts = self.contacts.keys().copied();
        let silent: Vec<PeerId> = contacts
            .filter(|peer| self.voting.get(peer) != Some(&true))
            .collect();
        if !silent.is_empty() {
            why.push_str(&format!(
                "; within reach and without a vote: {}",
                self.labels(silent)
            ));
        }
        why
    }

    fn labels(&self, peers: impl IntoIterator<Item = PeerId>) -> String {
        let labels: Vec<String> = peers.into_iter().map(|peer| self.label(peer)).collect();
        labels.join(", ")
    }
}
