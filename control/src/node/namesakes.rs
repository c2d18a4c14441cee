//! Peers that share a name, a nickname or a label: noticed, and named in words. Those that share a key: [`crate::node::clones`].
//!
//! Nothing of it hurts anybody: peers are told apart by their PeerIds, and who asks for an ambiguous name is refused.
//! One that nothing leads to any more shares nothing: its host was reset, say, and came back under another identity.
//! Bound: `config::NAMESAKES_SHOWN` lines in status, and newcomers whose namesake may yet come.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::config::NAMESAKES_SHOWN;
use crate::link::handshake::Hello;
use crate::node::Node;
use crate::node::notice::Notice;
use crate::peer::{PeerId, PeerName};

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
            names.entry(name).or_insert_with(Vec::new).push(id);
            nicknames.entry(nickname).or_insert_with(Vec::new).push(id);
        }
        let shared = |ids: &Vec<PeerId>| ids.len() > 1;
        let of_names = names.iter().filter(|(_, ids)| shared(ids));
        let of_nicknames = nicknames.iter().filter(|(_, ids)| shared(ids));
        of_names
            .map(|(name, ids)| shown("name", name, ids))
            .chain(of_nicknames.map(|(name, ids)| shown("nickname", name, ids)))
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

fn shown(what: &str, name: &dyn std::fmt::Display, ids: &[PeerId]) -> String {
    let ids: Vec<_> = ids.iter().take(4).map(ToString::to_string).collect();
    format!("peers share the {what} {name}: {}", ids.join(", "))
}
