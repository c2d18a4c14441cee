//! `weft ipam check`: ring, what is noted and what really exists, held against each other.
//!
//! ```text
//!  ring ──────┐
//!  noted ─────┼─► findings: what is wrong, and what to do about it
//!  interfaces ┘
//! ```
//!
//! What is on its way, such as an address given a moment ago, looks wrong for that moment; whoever asks looks twice.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::api::IpamFinding;
use crate::dns::registry::EXPOSE;
use crate::ipam::durable::{StoreContent, StoreDamage, restore};
use crate::ipam::holdings::{ANONYMOUS, HOST, Holdings};
use crate::ipam::ring::Ring;
use crate::ipam::span::Span;
use crate::ipam::{Ipam, relearn};
use crate::peer::PeerId;

/// What IPAM believes of this host.
#[derive(Debug, Clone, Default)]
pub struct Believed {
    /// What is wrong whatever exists.
    findings: Vec<IpamFinding>,
    range: Option<Span>,
    /// Address to owner, and whether the owner is dead and in its grace.
    held: BTreeMap<IpAddr, (String, bool)>,
}

/// What lets an owner have another address than the one that another peer owns.
#[must_use]
pub fn readdress(holder: &str) -> &'static str {
    if holder == EXPOSE {
        "`weft hide`, then `weft expose`"
    } else {
        "detach it, then attach it again"
    }
}

fn finding(what: String, remedy: &str) -> IpamFinding {
    let remedy = remedy.to_owned();
    IpamFinding { what, remedy }
}

impl Ipam {
    /// What is believed now.
    #[must_use]
    pub fn believed(&self) -> Believed {
        let mut believed = Believed::of(
            self.ring.as_ref(),
            &self.holdings,
            self.config.me,
            &|peer| self.label(peer),
        );
        if self.is_relearning() {
            believed.findings.push(lost());
        }
        if self.store_failed {
            believed.findings.push(finding(
                "the store takes no writes".to_owned(),
                "see the reason in `weft status`: free space, or mend the disk",
            ));
        }
        if self.cloned {
            believed.findings.push(finding(
                "another host runs with this host's identity".to_owned(),
                "`weft reset` on one of the two; if a store was put back from a backup, wait",
            ));
        }
        believed
    }
}

fn lost() -> IpamFinding {
    finding(
        "the store was damaged or gone, and what this host owns is not known".to_owned(),
        "connect it to a peer that is up; if there is none, `weft reset --force` begins anew",
    )
}

/// What the store of a daemon that does not run believes.
///
/// # Errors
/// [`StoreDamage`] if it is not what was written.
pub fn believed_by_store(content: &StoreContent, me: PeerId) -> Result<Believed, StoreDamage> {
    let restored = restore(content)?;
    let label = |peer: PeerId| peer.name().to_string();
    let mut believed = Believed::of(restored.ring.as_ref(), &restored.holdings, me, &label);
    if relearn::is_lost(content) {
        believed.findings.push(lost());
    }
    Ok(believed)
}

impl Believed {
    fn of(
        ring: Option<&Ring>,
        holdings: &Holdings,
        me: PeerId,
        label: &dyn Fn(PeerId) -> String,
    ) -> Self {
        let mut believed = Self {
            range: ring.map(|ring| ring.range),
            ..Self::default()
        };
        for (holder, holding) in holdings.all().filter(|(holder, _)| *holder != HOST) {
            let is_dead = holding.died_at.is_some();
            let held = holding.addresses.iter();
            let held = held.map(|address| (address.addr(), (holder.to_owned(), is_dead)));
            believed.held.extend(held);
        }
        let Some(ring) = ring else {
            return believed;
        };
        believed.findings.extend(ring_findings(ring, label));
        for (address, holder) in holdings.in_span(ring.range) {
            let owner = ring.at(address.into()).map(|claim| claim.owner());
            if let Some(owner) = owner.filter(|owner| *owner != me) {
                believed.findings.push(finding(
                    format!("{address} of {holder} belongs to {}", label(owner)),
                    &format!("it is asked for; if this stays, {}", readdress(holder)),
                ));
            }
        }
        believed
    }

    /// What is wrong, given what really exists: shown ids and the addresses on their interfaces.
    #[must_use]
    pub fn against(
        self,
        exists: &[(String, Vec<IpNet>)],
        shown: impl Fn(&str) -> &str,
    ) -> Vec<IpamFinding> {
        let mut findings = self.findings;
        let mut on: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (id, addresses) in exists {
            for address in addresses {
                let ip = address.addr();
                if let Some(other) = on.insert(ip, id) {
                    findings.push(finding(
                        format!("{ip} is on {other} and on {id}"),
                        "detach one of them",
                    ));
                }
                match self.held.get(&ip) {
                    Some((holder, _)) if shown(holder) != id && holder != ANONYMOUS => {
                        findings.push(finding(
                            format!("{ip} is on {id} and noted for {}", shown(holder)),
                            "detach the one that should not have it",
                        ));
                    }
                    None if self.range.is_some_and(|range| contains(range, ip)) => {
                        findings.push(finding(
                            format!("{ip} is on {id} and noted for nobody"),
                            "a running daemon notes it within seconds: launch it",
                        ));
                    }
                    Some(_) | None => {}
                }
            }
        }
        for (ip, (holder, is_dead)) in &self.held {
            if *is_dead || holder == ANONYMOUS || on.contains_key(ip) {
                continue;
            }
            findings.push(finding(
                format!(
                    "{ip} is noted for {}, which does not have it",
                    shown(holder)
                ),
                "it is free 30 s after a running daemon sees that; `weft detach` frees it at once",
            ));
        }
        findings
    }
}

fn contains(range: Span, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => range.contains(ip.into()),
        IpAddr::V6(_) => false,
    }
}

/// Parts of the range that nobody owns, or several do.
fn ring_findings(ring: &Ring, label: &dyn Fn(PeerId) -> String) -> Vec<IpamFinding> {
    let mut findings = Vec::new();
    let mut next = Some(ring.range.first());
    for run in ring.runs() {
        let before = run.span.first().checked_sub(1);
        let gap = next
            .zip(before)
            .and_then(|(next, last)| Span::new(next, last));
        findings.extend(gap.map(unowned));
        next = run.span.last().checked_add(1);
        if run.claim.is_disputed() {
            let owners: Vec<String> = run.claim.owners().iter().map(|peer| label(*peer)).collect();
            findings.push(finding(
                format!("{} is claimed by {}", run.span, owners.join(" and ")),
                "connect them, and it is settled; `weft rmpeer` one that is gone for good",
            ));
        }
    }
    let rest = next.and_then(|next| Span::new(next, ring.range.last()));
    findings.extend(rest.map(unowned));
    findings
}

fn unowned(span: Span) -> IpamFinding {
    finding(
        format!("{span} belongs to nobody here"),
        "connect this host to others, which know its owner",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::claim::{Claim, Version};
    use crate::ipam::council::Council;
    use crate::ipam::ring::GenesisId;

    fn span(first: u32, last: u32) -> Span {
        Span::new(first, last).unwrap()
    }

    fn on(id: &str, addresses: &[&str]) -> (String, Vec<IpNet>) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        (id.to_owned(), addresses.collect())
    }

    fn lines(believed: Believed, exists: &[(String, Vec<IpNet>)]) -> Vec<String> {
        let found = believed.against(exists, |id| id);
        assert!(found.iter().all(|finding| !finding.remedy.is_empty()));
        found.into_iter().map(|finding| finding.what).collect()
    }

    fn ring(parts: &[(Span, &[u8])]) -> Ring {
        let council = Council::first(&[PeerId([1; 16])]);
        let mut ring = Ring::blank(GenesisId([3; 16]), span(0, 255), council);
        for (part, owners) in parts {
            let owners = owners.iter().map(|n| PeerId([*n; 16])).collect();
            let claim = Claim::with_owners(Version::default(), owners).unwrap();
            ring.join(*part, &claim, None);
        }
        ring
    }

    fn holdings(all: &[(&str, &str)]) -> Holdings {
        let mut holdings = Holdings::default();
        for (holder, address) in all {
            holdings.add(holder, address.parse().unwrap());
        }
        holdings
    }

    fn believed(ring: &Ring, held: &Holdings) -> Believed {
        let label = |peer: PeerId| format!("host{}", peer.0[0]);
        Believed::of(Some(ring), held, PeerId([1; 16]), &label)
    }

    #[test]
    fn nothing_is_said_where_all_agree() {
        let ring = ring(&[(span(0, 127), &[1]), (span(128, 255), &[2])]);
        let held = holdings(&[
            ("a", "0.0.0.1/24"),
            ("a", "10.2.1.1/24"),
            ("b", "0.0.0.2/24"),
        ]);
        let exists = [
            on("a", &["0.0.0.1/24", "10.2.1.1/24"]),
            on("b", &["0.0.0.2/24"]),
        ];
        assert_eq!(lines(believed(&ring, &held), &exists), Vec::<String>::new());
        assert_eq!(lines(Believed::default(), &[]), Vec::<String>::new());
    }

    #[test]
    fn each_discrepancy_is_one_line() {
        let ring = ring(&[
            (span(0, 99), &[1]),
            (span(120, 127), &[1, 2]),
            (span(128, 254), &[2]),
        ]);
        let held = holdings(&[
            ("a", "0.0.0.1/24"),
            ("b", "0.0.0.2/24"),
            ("b", "0.0.0.200/24"),
            ("gone", "0.0.0.3/24"),
            ("b", "0.0.0.4/24"),
        ]);
        let exists = [
            on("a", &["0.0.0.1/24", "0.0.0.2/24", "0.0.0.9/24"]),
            on("b", &["0.0.0.2/24", "0.0.0.200/24"]),
        ];
        assert_eq!(
            lines(believed(&ring, &held), &exists),
            [
                "0.0.0.100-0.0.0.119 belongs to nobody here",
                "0.0.0.120/29 is claimed by host2 and host1",
                "0.0.0.255 belongs to nobody here",
                "0.0.0.200 of b belongs to host2",
                "0.0.0.2 is on a and noted for b",
                "0.0.0.9 is on a and noted for nobody",
                "0.0.0.2 is on a and on b",
                "0.0.0.3 is noted for gone, which does not have it",
                "0.0.0.4 is noted for b, which does not have it",
            ]
        );
    }

    #[test]
    fn the_host_gets_another_address_in_another_way_than_a_container() {
        let ring = ring(&[(span(0, 255), &[2])]);
        let held = holdings(&[("c", "0.0.0.1/24"), (EXPOSE, "0.0.0.2/24")]);
        let found = believed(&ring, &held).findings;
        let remedies: Vec<&str> = found.iter().map(|one| &*one.remedy).collect();
        assert_eq!(
            remedies,
            [
                "it is asked for; if this stays, detach it, then attach it again",
                "it is asked for; if this stays, `weft hide`, then `weft expose`",
            ]
        );
    }

    #[test]
    fn the_dead_are_left_their_grace() {
        let ring = ring(&[(span(0, 255), &[1])]);
        let mut held = holdings(&[("a", "0.0.0.1/24")]);
        held.died("a", crate::ipam::sim::first_instant());
        assert_eq!(lines(believed(&ring, &held), &[]), Vec::<String>::new());
    }
}
