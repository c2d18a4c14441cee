//! Whether the overlay's MTU suits the paths and is that of the others, in words for `weft status`.
//!
//! ```text
//!  --mtu (1376)  >  smallest path      frames are cut in two: works, costs a datagram more
//!  smallest path - relay's headers  >  --mtu      larger frames would fit, relays included
//! ```
//!
//! A path begins with the size that every path has, and what it can carry is found in the seconds after; how much
//! crosses a relay is heard a moment later still. Until then nothing is said of it.
//!
//! The MTU itself is one for the whole network and never changes by itself: a host whose containers took another one,
//! from paths that it alone knows, would lose what the others send: a bridge drops what is larger than its port's MTU
//! and tells nobody. That a person has given two hosts different ones is said on both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::api::{Connection, Status};
use crate::config::{OTHER_MTUS_SHOWN, SIZE_SETTLES_IN};
use crate::link::handshake::Hello;
use crate::node::Node;
use crate::node::notice::Notice;
use crate::node::peers::Peer;
use crate::node::status::named_peer;

/// What a relay's headers take of a datagram.
const RELAY_OVERHEAD: u16 = 48;
/// Peers named in one line.
const NAMED_MAX: usize = 3;

impl Node {
    /// Says so if a newcomer's containers have another MTU than ours.
    pub(super) fn notice_other_mtu(&mut self, hello: &Hello) {
        let ours = self.config.mtu;
        if let Some(theirs) = hello.mtu.filter(|theirs| *theirs != ours) {
            self.notice(Notice::OtherMtu {
                name: hello.name,
                nickname: hello.nickname.clone(),
                theirs,
                ours,
            });
        }
    }

    /// What `weft status` says of peers with another MTU, as long as something leads to them.
    pub(super) fn other_mtu_notes(&self) -> Vec<String> {
        let mut others: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for (id, peer) in self.peers.all() {
            let other = peer.hello.mtu.filter(|mtu| *mtu != self.config.mtu);
            if let Some(mtu) = other.filter(|_| self.is_reachable(id)) {
                others.entry(mtu).or_default().push(named_peer(peer));
            }
        }
        let others = others.iter().take(OTHER_MTUS_SHOWN);
        others
            .map(|(mtu, peers)| other_mtu(self.config.mtu, *mtu, peers))
            .collect()
    }
}

fn other_mtu(ours: u16, theirs: u16, peers: &[String]) -> String {
    let named = peers.len().min(NAMED_MAX);
    let rest = match peers.len() - named {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    format!(
        "the MTU is {theirs} at {}{rest} and {ours} here: frames of more than {} bytes between their containers and \
         ours are lost; launch every host with the same --mtu",
        peers[..named].join(", "),
        ours.min(theirs)
    )
}

impl Node {
    /// What somebody should know of the MTU, if anything.
    pub(super) fn mtu_note(&self, status: &Status, now: Instant) -> Option<String> {
        let settles = |(_, peer): &(_, &Peer)| {
            let since = peer.reach.size.map(|(_, since)| since);
            since.is_some_and(|since| now < since + SIZE_SETTLES_IN)
        };
        let open = self.peers.all().filter(settles);
        let open = open.map(|(id, _)| id.to_string()).collect();
        advice(status, &open)
    }
}

/// `open` are the PeerIds of those whose way may yet turn out to carry more.
fn advice(status: &Status, open: &BTreeSet<String>) -> Option<String> {
    let is_sure = |connection: &&Connection| !open.contains(&connection.peer_id);
    let paths = status.connections.iter().filter(is_sure);
    let paths = paths.filter_map(|connection| {
        let path = connection.path.as_ref()?;
        Some((path.mtu, connection))
    });
    let (smallest, connection) = paths.min_by_key(|(mtu, _)| *mtu)?;
    let mtu = status.mtu;
    if smallest < mtu {
        let cut = status.engine.counters.get("seal_pieces").copied();
        return Some(format!(
            "the path to {} carries {smallest} bytes at once, so frames of the MTU {mtu} cross in two pieces \
             ({} so far): --mtu {smallest} on all hosts avoids that",
            shown(connection),
            cut.unwrap_or(0),
        ));
    }
    let larger = smallest.saturating_sub(RELAY_OVERHEAD);
    (larger > mtu).then(|| {
        format!(
            "every path carries more than the MTU {mtu}: --mtu {larger} on all hosts moves more with less work, through \
             relays, too"
        )
    })
}

fn shown(connection: &Connection) -> &str {
    [&connection.nickname, &connection.name]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or(&connection.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon with the default MTU and paths that carry so much.
    fn advised(paths: &[u16], pieces: u64) -> Option<String> {
        advice(&status(paths, pieces), &BTreeSet::new())
    }

    fn status(paths: &[u16], pieces: u64) -> Status {
        let connections: Vec<serde_json::Value> = paths
            .iter()
            .map(|mtu| {
                serde_json::json!({
                    "outbound": true, "address": "192.0.2.7:6783", "state": "established", "name": "da:00:00:00:00:01",
                    "nickname": format!("host{mtu}"), "peer_id": format!("of {mtu}"),
                    "path": {"address": "192.0.2.7:6783", "kind": "direct", "rtt_ms": 0.1, "mtu": mtu, "loss": 0.0},
                })
            })
            .collect();
        let status = serde_json::json!({
            "version": "", "name": "", "nickname": "", "peer_id": "", "network": "", "port": 6783, "membership": "open",
            "discovery": true, "mtu": 1376, "uptime_s": 1, "targets": [], "connections": connections,
            "engine": {
                "backend": "epoll", "workers": 1, "offloads": [], "notes": [], "ciphers": [],
                "counters": {"seal_pieces": pieces},
            },
        });
        serde_json::from_value(status).expect("a status as the daemon writes it")
    }

    #[test]
    fn frames_that_are_cut_are_said_with_the_path_and_what_helps() {
        let said = advised(&[1424, 1300], 12).unwrap();
        for word in ["host1300", "--mtu 1300", "two pieces (12 so far)"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }

    #[test]
    fn a_path_whose_size_is_still_searched_is_not_spoken_of() {
        let status = status(&[1424, 1152], 12);
        let open = |mtu: u16| BTreeSet::from([format!("of {mtu}")]);
        assert_eq!(advice(&status, &open(1152)), None);
        assert!(advice(&status, &open(1424)).is_some());
    }

    #[test]
    fn a_larger_mtu_is_recommended_when_it_fits_every_path_with_relays() {
        let said = advised(&[8924, 8000], 0).unwrap();
        assert!(said.contains("--mtu 7952 on all hosts"), "{said}");
    }

    #[test]
    fn another_mtu_is_said_with_the_peers_and_what_is_lost() {
        let peers: Vec<_> = (1..=5).map(|n| format!("p{n}(host{n})")).collect();
        let said = other_mtu(1376, 1200, &peers);
        for word in [
            "is 1200 at p1(host1), p2(host2), p3(host3) and 2 more and 1376 here",
            "more than 1200 bytes",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(!other_mtu(1200, 1376, &peers[..1]).contains("more and"));
    }

    #[test]
    fn the_default_on_ethernet_needs_no_word() {
        assert_eq!(advised(&[1424], 3), None);
        assert_eq!(advised(&[], 0), None);
    }
}
