//! What people call peers that own ranges or vote: kept on disk, so that one that is gone has its name after a restart.

use std::collections::BTreeMap;

use crate::ipam::durable::StoreContent;
use crate::ipam::{Contact, Ipam};
use crate::peer::{NICKNAME_LEN_MAX, PeerId, PeerName};

/// Where the store keeps them: the key is this and the peer's id, the value its name (6 bytes) and nickname.
pub(crate) const CALLED: u8 = b'n';

impl Ipam {
    /// All that matter and have been heard of, as the store keeps them.
    pub(crate) fn called(&self) -> StoreContent {
        let heard = |peer: &PeerId| self.contacts.get(peer).or_else(|| self.gone.get(peer));
        let all = self.owners().into_iter();
        all.filter_map(|peer| Some((key_of(peer), value_of(heard(&peer)?))))
            .collect()
    }

    /// Takes up what others were called when this was written.
    pub(crate) fn take_up_called(&mut self, called: BTreeMap<PeerId, Contact>) {
        let contacts = &self.contacts;
        let gone = called.into_iter();
        self.gone
            .extend(gone.filter(|(peer, _)| !contacts.contains_key(peer)));
        self.called_changed = true;
    }
}

fn key_of(peer: PeerId) -> Vec<u8> {
    [[CALLED].as_slice(), &peer.0].concat()
}

fn value_of(contact: &Contact) -> Vec<u8> {
    [contact.name.0.as_slice(), contact.nickname.as_bytes()].concat()
}

/// Reads an entry; `None` if it is not what was written.
pub(crate) fn take_called(key: &[u8], value: &[u8]) -> Option<(PeerId, Contact)> {
    let peer = PeerId(key.strip_prefix(&[CALLED])?.try_into().ok()?);
    let (name, nickname) = value.split_first_chunk::<6>()?;
    let (name, nickname) = (PeerName(*name), std::str::from_utf8(nickname).ok()?);
    let contact = Contact {
        label: format!("{name}({nickname})"),
        name,
        nickname: nickname.to_owned(),
        incarnation: 0,
        meets: false,
    };
    (nickname.len() <= NICKNAME_LEN_MAX).then_some((peer, contact))
}
