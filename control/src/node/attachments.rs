//! Attachments: which MACs and addresses are on which host, said in records and handed to the engine as one table.
//!
//! ```text
//!  driver ── what is attached here ──► record ATTACHMENTS, in parts ──► gossip
//!  gossip ── everybody's records ────► NeighbourTable ────────────────► engine
//!
//!  part   fields of type 1, one an attachment:
//!         0-5 MAC | 6-13 move counter | then for each address 4 or 6, and its 4 or 16 bytes
//! ```
//!
//! The move counter of a MAC that comes here is one more than the highest that anybody says; a MAC that stays keeps
//! it. Fields of other types are left alone. Two containers with one address, or one MAC on two hosts, are said in
//! status. Bounds: `config::RECORD_BODY_MAX`, `ATTACHMENT_PARTS_MAX`, `DUPLICATES_SHOWN`; the table is made anew at
//! most once in `NEIGHBOURS_PAUSE`, but at once for what changes here.

mod there;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use weft_engine::bridge::{Neighbour, NeighbourTable};
use weft_engine::command::Command;
use weft_engine::wire::ethernet::MacAddr;

use crate::api::ApiError;
use crate::config::{ATTACHMENT_PARTS_MAX, DUPLICATES_SHOWN, NEIGHBOURS_PAUSE, RECORD_BODY_MAX};
use crate::fields::FieldWriter;
use crate::node::Node;
use crate::node::exchange::LocalAttachment;
use crate::peer::PeerId;
use crate::record::RecordKind;

const ATTACHMENT: u8 = 1;
/// Type and length before a field's value.
const FIELD_HEAD_LEN: usize = 3;

/// What is said of one MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    moves: u64,
    addresses: Vec<IpAddr>,
}

/// What is attached here, and what the engine has been told.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    own: BTreeMap<MacAddr, Said>,
    parts: u16,
    /// When the table is to be made anew.
    due: Option<Instant>,
    made_at: Option<Instant>,
    /// Other hosts whose records counted when we last looked.
    there: BTreeSet<PeerId>,
}

fn encode(mac: MacAddr, said: &Said) -> Vec<u8> {
    let mut value = mac.0.to_vec();
    value.extend(said.moves.to_be_bytes());
    for address in &said.addresses {
        match address {
            IpAddr::V4(address) => {
                value.push(4);
                value.extend(address.octets());
            }
            IpAddr::V6(address) => {
                value.push(6);
                value.extend(address.octets());
            }
        }
    }
    value
}

fn decode(value: &[u8]) -> Option<(MacAddr, Said)> {
    let (mac, rest) = value.split_first_chunk::<6>()?;
    let (moves, mut rest) = rest.split_first_chunk::<8>()?;
    let mut addresses = Vec::new();
    while let Some((family, bytes)) = rest.split_first() {
        rest = match family {
            4 => {
                let (address, rest) = bytes.split_first_chunk::<4>()?;
                addresses.push(IpAddr::from(*address));
                rest
            }
            6 => {
                let (address, rest) = bytes.split_first_chunk::<16>()?;
                addresses.push(IpAddr::from(*address));
                rest
            }
            _ => return None,
        };
    }
    let moves = u64::from_be_bytes(*moves);
    Some((MacAddr(*mac), Said { moves, addresses }))
}

/// The attachments in one part; a malformed one is left out.
fn read(body: &[u8]) -> impl Iterator<Item = (MacAddr, Said)> + '_ {
    let mut rest = body;
    std::iter::from_fn(move || {
        loop {
            let ([kind, high, low], after) = rest.split_first_chunk()?;
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let (value, after) = after.split_at_checked(len)?;
            rest = after;
            if *kind == ATTACHMENT
                && let Some(said) = decode(value)
            {
                return Some(said);
            }
        }
    })
}

/// The bodies of our record; what is beyond the last part is left out, and its frames are flooded.
fn parts(own: &BTreeMap<MacAddr, Said>) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut writer = FieldWriter::default();
    let mut len = 0;
    for (mac, said) in own {
        let value = encode(*mac, said);
        if len + FIELD_HEAD_LEN + value.len() > RECORD_BODY_MAX {
            bodies.push(std::mem::take(&mut writer).finish());
            len = 0;
        }
        len += FIELD_HEAD_LEN + value.len();
        writer = writer.put(ATTACHMENT, &value);
    }
    if len > 0 {
        bodies.push(writer.finish());
    }
    bodies.truncate(usize::from(ATTACHMENT_PARTS_MAX));
    bodies
}

/// A body that says these MACs, each with its address, for a simulation.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn attachments_body(attached: &[([u8; 6], IpAddr)]) -> Vec<u8> {
    let said = |(mac, address): &([u8; 6], IpAddr)| {
        let addresses = vec![*address];
        (
            MacAddr(*mac),
            Said {
                moves: 0,
                addresses,
            },
        )
    };
    let own = attached.iter().map(said).collect();
    parts(&own).into_iter().next().unwrap_or_default()
}

impl Node {
    /// What is attached to this host now.
    pub(super) fn attached(&mut self, list: Vec<LocalAttachment>, now: Instant) {
        let mut own = BTreeMap::new();
        for LocalAttachment { mac, mut addresses } in list {
            addresses.sort_unstable();
            let moves = match self.attachments.own.get(&mac) {
                Some(known) => known.moves,
                None => self.highest_moves(mac).map_or(0, |highest| highest + 1),
            };
            own.insert(mac, Said { moves, addresses });
        }
        if own == self.attachments.own {
            return;
        }
        self.attachments.own = own;
        let bodies = parts(&self.attachments.own);
        let count = u16::try_from(bodies.len()).unwrap_or(ATTACHMENT_PARTS_MAX);
        for (part, body) in (0..).zip(bodies) {
            self.gossip
                .publish(RecordKind::Attachments, part, body, now);
        }
        for part in count..self.attachments.parts {
            self.gossip.withdraw(RecordKind::Attachments, part, now);
        }
        self.attachments.parts = count;
        self.make_neighbours(now);
    }

    fn highest_moves(&self, mac: MacAddr) -> Option<u64> {
        let bodies = self.gossip.bodies(RecordKind::Attachments);
        bodies
            .flat_map(|(_, _, body)| read(body))
            .filter(|(said, _)| *said == mac)
            .map(|(_, said)| said.moves)
            .max()
    }

    /// Somebody's record has changed.
    pub(super) fn attachments_changed(&mut self, now: Instant) {
        let earliest = self.attachments.made_at.map(|at| at + NEIGHBOURS_PAUSE);
        let due = earliest.map_or(now, |earliest| earliest.max(now));
        self.attachments.due.get_or_insert(due);
    }

    /// Makes the table anew if that is due.
    pub(super) fn renew_neighbours(&mut self, now: Instant) {
        match self.attachments.due {
            Some(due) if due <= now => self.make_neighbours(now),
            due => self.wake(due),
        }
    }

    fn make_neighbours(&mut self, now: Instant) {
        self.attachments.due = None;
        self.attachments.made_at = Some(now);
        let ours = self.identity.peer_id();
        let neighbour = |(origin, mac, said): (PeerId, MacAddr, Said)| {
            let slot = if origin == ours {
                None
            } else {
                // A peer that we make no place for has none in the table, either.
                Some(self.peers.find(origin)?.slot)
            };
            Some(Neighbour {
                mac,
                slot,
                moves: said.moves,
                addresses: said.addresses,
            })
        };
        let table = NeighbourTable::new(self.all_attachments().filter_map(neighbour));
        self.engine(Command::SetNeighbours(Arc::new(table)));
    }

    /// Ours, then everybody's to whom something leads.
    fn all_attachments(&self) -> impl Iterator<Item = (PeerId, MacAddr, Said)> {
        let ours = self.identity.peer_id();
        let own = self.attachments.own.iter();
        let own = own.map(move |(mac, said)| (ours, *mac, said.clone()));
        let others = self
            .gossip
            .bodies(RecordKind::Attachments)
            .filter(move |(origin, ..)| *origin != ours && self.is_reachable(*origin));
        let others = others
            .flat_map(|(origin, _, body)| read(body).map(move |(mac, said)| (origin, mac, said)));
        own.chain(others)
    }

    /// The containers that have this address, with their hosts.
    fn who_has(&self, address: IpAddr) -> Vec<(PeerId, MacAddr)> {
        self.all_attachments()
            .filter(|(_, _, said)| said.addresses.contains(&address))
            .map(|(host, mac, _)| (host, mac))
            .collect()
    }

    /// The hosts whose containers have this address.
    pub(super) fn hosts_of(&self, address: IpAddr) -> Vec<PeerId> {
        let mut hosts: Vec<_> = (self.who_has(address).into_iter())
            .map(|(host, _)| host)
            .collect();
        hosts.dedup();
        hosts
    }

    /// What `weft status` says of addresses and MACs that are there twice.
    pub(super) fn duplicate_notes(&self) -> Vec<String> {
        let mut addresses = BTreeMap::<_, Vec<_>>::new();
        let mut macs = BTreeMap::<_, Vec<_>>::new();
        for (host, mac, said) in self.all_attachments() {
            macs.entry(mac).or_default().push(host);
            for address in said.addresses {
                addresses.entry(address).or_default().push((host, mac));
            }
        }
        let addresses = addresses.iter().filter(|(_, who)| who.len() > 1);
        let macs = macs.iter().filter(|(_, hosts)| hosts.len() > 1);
        let of_addresses = addresses.map(|(address, who)| self.shared_address(*address, who));
        let of_macs = macs.map(|(mac, hosts)| {
            let hosts: Vec<_> = hosts.iter().map(|host| self.shown(*host)).collect();
            format!("MAC {mac} is attached on {}", hosts.join(" and on "))
        });
        of_addresses.chain(of_macs).take(DUPLICATES_SHOWN).collect()
    }

    fn shared_address(&self, address: IpAddr, who: &[(PeerId, MacAddr)]) -> String {
        let show = |(host, mac): &(PeerId, MacAddr)| format!("{mac} on {}", self.shown(*host));
        let who: Vec<_> = who.iter().map(show).collect();
        format!(
            "{address} is the address of {} containers: {}; detach it from all but one",
            who.len(),
            who.join(", ")
        )
    }

    /// Says which of these addresses another container has, too.
    #[must_use]
    pub fn duplicates_among(&self, addresses: &[IpAddr]) -> Vec<String> {
        let shared = addresses.iter().take(DUPLICATES_SHOWN);
        let shared = shared.map(|address| (*address, self.who_has(*address)));
        shared
            .filter(|(_, who)| who.len() > 1)
            .map(|(address, who)| self.shared_address(address, &who))
            .collect()
    }

    /// The host of a container that has this address; an error in words if there is none, or more than one.
    pub(super) fn host_of_address(&self, address: IpAddr) -> Option<Result<PeerId, ApiError>> {
        let ours = self.identity.peer_id();
        let error = match *self.hosts_of(address) {
            [] => return None,
            [host] if host != ours => return Some(Ok(host)),
            [_] => format!("{address} is the address of a container on this host"),
            [..] => format!("{address} is attached on several hosts; see weft status"),
        };
        Some(Err(ApiError { error }))
    }

    /// A host as a person knows it.
    pub(super) fn shown(&self, host: PeerId) -> String {
        if host == self.identity.peer_id() {
            return "this host".to_owned();
        }
        let peer = self.peers.find(host);
        peer.map_or_else(
            || host.name().to_string(),
            |peer| format!("{}({})", peer.hello.name, peer.hello.nickname),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use weft_engine::bridge::Port;

    use super::*;
    use crate::node::exchange::Input;
    use crate::sim::Sim;
    use crate::sim::host::HostSpec;

    fn mac(number: u16) -> MacAddr {
        let [high, low] = number.to_be_bytes();
        MacAddr([2, 0, 0, 0, high, low])
    }

    #[test]
    fn a_thousand_attachments_take_several_parts_and_come_back() {
        let own: BTreeMap<_, _> = (0..1000)
            .map(|number| {
                let addresses = vec![IpAddr::from([10, 32, 0, 1]), "fd00::1".parse().unwrap()];
                let moves = u64::from(number);
                (mac(number), Said { moves, addresses })
            })
            .collect();

        let bodies = parts(&own);

        assert!(bodies.len() > 1 && bodies.iter().all(|body| body.len() <= RECORD_BODY_MAX));
        let back: BTreeMap<_, _> = bodies.iter().flat_map(|body| read(body)).collect();
        assert_eq!(back, own);
    }

    #[test]
    fn what_a_newer_peer_adds_is_left_alone() {
        let said = Said {
            moves: 3,
            addresses: vec![[10, 32, 0, 1].into()],
        };
        let body = FieldWriter::default()
            .put(9, b"unknown")
            .put(ATTACHMENT, b"short")
            .put(ATTACHMENT, &encode(mac(1), &said))
            .finish();

        assert_eq!(read(&body).collect::<Vec<_>>(), [(mac(1), said)]);
    }

    fn local(number: u16) -> LocalAttachment {
        LocalAttachment {
            mac: mac(number),
            addresses: vec![[10, 32, 0, 9].into()],
        }
    }

    /// A container is attached to b, then to a, then to nobody; both engines follow.
    #[test]
    fn everybody_knows_within_a_second_where_a_container_is() {
        let mut sim = Sim::new(3);
        sim.add(HostSpec::new("a").dialling(&["192.0.2.2"]));
        sim.add(HostSpec::new("b"));
        sim.run_for(Duration::from_secs(3));
        let place = |sim: &Sim, host| {
            let table = sim.neighbours(host);
            let home = table.home_of(mac(1))?;
            Some((
                home.port == Port::Local,
                home.moves,
                table.mac_of([10, 32, 0, 9].into()),
            ))
        };

        for (moves, (here, there)) in (0..).zip([(1, 0), (0, 1), (1, 0)]) {
            sim.input(there, Input::Attached(Vec::new()));
            sim.input(here, Input::Attached(vec![local(1), local(2)]));
            let own = place(&sim, here).map(|(is_local, ..)| is_local);
            assert_eq!(own, Some(true), "at once at home");
            sim.run_for(Duration::from_secs(1));
            let (is_local, said, owner) = place(&sim, there).expect("known");
            assert!(!is_local && owner.is_some());
            // The old host's record may have been withdrawn before the new one's counter was chosen.
            assert!(said <= moves);
        }

        sim.input(1, Input::Attached(Vec::new()));
        sim.run_for(Duration::from_secs(1));
        assert_eq!((place(&sim, 0), place(&sim, 1)), (None, None));
    }

    #[test]
    fn an_address_that_two_containers_have_is_said_on_both_hosts() {
        let mut sim = Sim::new(4);
        sim.add(HostSpec::new("a").dialling(&["192.0.2.2"]));
        sim.add(HostSpec::new("b"));
        sim.run_for(Duration::from_secs(3));
        sim.input(0, Input::Attached(vec![local(1)]));
        sim.run_for(Duration::from_secs(1));
        let notes = |sim: &Sim, host| sim.node(host).unwrap().duplicate_notes();
        assert_eq!(notes(&sim, 1), Vec::<String>::new());

        sim.input(1, Input::Attached(vec![local(2)]));

        let address = [10, 32, 0, 9].into();
        let told = sim.node(1).unwrap().duplicates_among(&[address]);
        assert_eq!(told, notes(&sim, 1), "known at once where it is attached");
        sim.run_for(Duration::from_secs(1));
        for (host, other) in [(0, "(b)"), (1, "(a)")] {
            let notes = notes(&sim, host);
            let said = notes.first().expect("a note");
            assert!(
                said.starts_with("10.32.0.9 is the address of 2 containers: "),
                "{said}"
            );
            assert!(
                said.contains("on this host") && said.contains(other),
                "{said}"
            );
        }
        sim.input(1, Input::Attached(Vec::new()));
        sim.run_for(Duration::from_secs(1));
        assert!(notes(&sim, 0).is_empty() && notes(&sim, 1).is_empty());
    }

    #[test]
    fn a_containers_address_leads_to_its_host() {
        let mut sim = Sim::new(5);
        sim.add(HostSpec::new("a").dialling(&["192.0.2.2"]));
        sim.add(HostSpec::new("b"));
        sim.run_for(Duration::from_secs(3));
        sim.input(1, Input::Attached(vec![local(1)]));
        sim.run_for(Duration::from_secs(1));

        let (a, b) = (sim.node(0).unwrap(), sim.node(1).unwrap());
        let route = a.path_report("10.32.0.9").expect("it leads to b");
        assert_eq!(route.nickname, "b");
        let error = b.path_report("10.32.0.9").unwrap_err().error;
        assert_eq!(
            error,
            "10.32.0.9 is the address of a container on this host"
        );
    }

    proptest! {
        #[test]
        fn any_body_is_read_to_its_end(body in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&body).count() <= body.len());
        }
    }
}
