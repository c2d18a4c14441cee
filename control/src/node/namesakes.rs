//! Peers that share a name, a nickname or a label: noticed, and named in words. Those that share a key: [`crate::node::clones`].
//!
//! Nothing of it hurts anybody: peers are told apart by their PeerIds, and who asks for an ambiguous name is refused.
//! One that nothing leads to any more shares nothing: its host was reset, say, and came back under another identity.
//! Bound: `config::NAMESAKES_SHOWN` lines in status, and newcomers whose namesake may yet come.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Instant;

use crate::config::NAMESAKES_SHOWN;
use crate::link::handshake::Hello;
use crate::node::Node;
use crate::node::notice::Notice;
use crate::peer::{PeerId, PeerName};

/// Of those who share one name, in one line.
const PEERS_SHOWN: usize = 4;
/// Of an id: enough to tell peers apart.
const ID_DIGITS: usize = 12;

impl Node {
    /// Says so if somebody whom we know has a newcomer's name or nickname; if nothing leads to that one yet, as when
    /// both start at once, when something does.
    pub(super) fn notice_namesakes(&mut self, hello: &Hello) {
        let ours = (self.identity.peer_id(), self.name(), &self.config.nickname);
        let others = self
            .peers
            .all()
            .map(|(id, peer)| (id, peer.hello.name, &peer.hello.nickname));
        let namesakes: Vec<_> = others
            .chain([ours])
            .filter(|(id, ..)| *id != hello.peer_id)
            .filter(|(_, name, nickname)| *name == hello.name || **nickname == hello.nickname)
            .map(|(id, name, _)| (id, name))
            .collect();
        // Whether something leads to a peer takes longer to find than whether it has the name.
        let mut there = namesakes.iter();
        let there = there.find(|(id, _)| *id == ours.0 || self.is_reachable(*id));
        if let Some(&(other, name)) = there {
            self.notice(Notice::Namesakes {
                name: (name == hello.name).then_some(name),
                nickname: hello.nickname.clone(),
                peers: [hello.peer_id, other],
            });
        } else if !namesakes.is_empty() && self.namesakes_wait.len() < NAMESAKES_SHOWN {
            self.namesakes_wait.insert(hello.peer_id);
        }
    }

    /// The ways have changed: something may lead to those who share a name now.
    pub(super) fn notice_waiting_namesakes(&mut self) {
        for id in std::mem::take(&mut self.namesakes_wait) {
            let Some(hello) = self.peers.find(id).map(|peer| peer.hello.clone()) else {
                continue;
            };
            if self.is_reachable(id) {
                self.notice_namesakes(&hello);
            } else {
                self.namesakes_wait.insert(id);
            }
        }
    }

    /// What `weft status` says of them.
    pub(super) fn namesake_notes(&self, now: Instant) -> Vec<String> {
        let (mut names, mut nicknames) = (BTreeMap::new(), BTreeMap::new());
        let ours = (self.identity.peer_id(), self.name(), &self.config.nickname);
        let others = self
            .peers
            .all()
            .filter(|(id, _)| self.is_reachable(*id))
            .map(|(id, peer)| (id, peer.hello.name, &peer.hello.nickname));
        for (id, name, nickname) in others.chain([ours]) {
            let peer = (id, format!("{name}({nickname})"));
            names
                .entry(name)
                .or_insert_with(Vec::new)
                .push(peer.clone());
            nicknames
                .entry(nickname)
                .or_insert_with(Vec::new)
                .push(peer);
        }
        let of_names = names
            .iter()
            .filter_map(|(name, peers)| shared("name", name, peers));
        let of_nicknames = nicknames
            .iter()
            .filter_map(|(name, peers)| shared("nickname", name, peers));
        of_names
            .chain(of_nicknames)
            .chain(self.clone_notes(now))
            .take(NAMESAKES_SHOWN)
            .collect()
    }

    fn name(&self) -> PeerName {
        self.config
            .name
            .unwrap_or_else(|| self.identity.peer_id().name())
    }
}

/// What is said of those who share a name; `None` of one who has it alone. Peers are shown as everywhere, and with the
/// beginnings of their ids where they look the same.
fn shared(what: &str, name: &dyn Display, peers: &[(PeerId, String)]) -> Option<String> {
    if peers.len() < 2 {
        return None;
    }
    let is_alone = |shown: &String| peers.iter().filter(|(_, other)| other == shown).count() == 1;
    let shown = peers.iter().take(PEERS_SHOWN).map(|(id, shown)| {
        if is_alone(shown) {
            return shown.clone();
        }
        let id: String = id.to_string().chars().take(ID_DIGITS).collect();
        format!("{shown} with id {id}…")
    });
    let shown: Vec<_> = shown.collect();
    let more = if peers.len() > PEERS_SHOWN {
        ", …"
    } else {
        ""
    };
    Some(format!(
        "peers share the {what} {name}: {}{more}; launch each with a --{what} of its own",
        shown.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_look_the_same_are_told_apart_by_their_ids() {
        let peer = |byte, shown: &str| (PeerId([byte; 16]), shown.to_owned());
        let alone = [peer(1, "a(h1)")];
        assert_eq!(shared("nickname", &"h1", &alone), None);
        let two = [peer(1, "a(h1)"), peer(2, "b(h1)")];
        assert_eq!(
            shared("nickname", &"h1", &two).unwrap(),
            "peers share the nickname h1: a(h1), b(h1); launch each with a --nickname of its own"
        );
        let same = [peer(1, "a(h1)"), peer(2, "a(h1)"), peer(3, "a(h2)")];
        assert_eq!(
            shared("name", &"a", &same).unwrap(),
            "peers share the name a: a(h1) with id 010101010101…, a(h1) with id 020202020202…, a(h2); launch each with a \
             --name of its own"
        );
        let many: Vec<_> = (0..6)
            .map(|byte| peer(byte, &format!("p{byte}(h1)")))
            .collect();
        let said = shared("nickname", &"h1", &many).unwrap();
        assert!(
            said.contains("p3(h1), …;") && !said.contains("p4"),
            "{said}"
        );
    }
}
