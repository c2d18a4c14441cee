//! The network between the hosts: who hears whom, messages that are lost, late or doubled, and gossip.

use std::collections::BTreeMap;

use super::{Event, World};
use crate::ipam::message::IpamMessage;
use crate::ipam::{Contact, IpamInput};
use crate::peer::PeerId;

impl World {
    /// Whether two processes can talk: up, in one part of the network, and the older of two with one identity.
    pub(super) fn connected(&self, a: usize, b: usize) -> bool {
        a != b
            && self.hosts[a].group == self.hosts[b].group
            && self.is_admitted(a)
            && self.is_admitted(b)
    }

    pub(super) fn is_admitted(&self, at: usize) -> bool {
        let host = &self.hosts[at];
        host.is_up()
            && !self.hosts.iter().any(|other| {
                other.id == host.id
                    && other.is_up()
                    && other.group == host.group
                    && other.boot < host.boot
            })
    }

    pub(super) fn find(&self, from: usize, to: PeerId) -> Option<usize> {
        (0..self.hosts.len()).find(|at| self.hosts[*at].id == to && self.connected(from, *at))
    }

    /// Everybody finds out about a change of the network, each in its time.
    pub(in crate::ipam::sim) fn network_changed(&mut self) {
        for host in 0..self.hosts.len() {
            let after = self.up_to(if self.is_calm { 50 } else { 400 });
            self.schedule(after, Event::See { host });
        }
    }

    pub(super) fn see(&mut self, at: usize) {
        if !self.hosts[at].is_up() {
            return;
        }
        let contacts =
            |world: &Self, only: &dyn Fn(usize) -> bool| -> BTreeMap<PeerId, (Contact, u64)> {
                (0..world.hosts.len())
                    .filter(|other| world.connected(at, *other) && only(*other))
                    .map(|other| {
                        let host = &world.hosts[other];
                        let contact = Contact {
                            label: format!("host{other}"),
                            name: host.id.name(),
                            nickname: String::new(),
                            incarnation: host.boot,
                            meets: true,
                        };
                        (host.id, (contact, host.boot))
                    })
                    .collect()
            };
        let known = self.hosts[at].told.clone();
        // A new process is a new session: the old one ends first.
        let same = contacts(self, &|other| {
            known
                .get(&self.hosts[other].id)
                .is_none_or(|(_, boot)| *boot == self.hosts[other].boot)
        });
        let all = contacts(self, &|_| true);
        if same != all {
            self.tell(at, same);
        }
        if self.hosts[at].told != all {
            self.tell(at, all);
        }
    }

    pub(super) fn tell(&mut self, at: usize, contacts: BTreeMap<PeerId, (Contact, u64)>) {
        self.hosts[at]
            .flows
            .retain(|peer, _| contacts.contains_key(peer));
        self.hosts[at].told.clone_from(&contacts);
        let contacts = contacts
            .into_iter()
            .map(|(peer, (contact, _))| (peer, contact))
            .collect();
        self.feed(at, IpamInput::Reachable(contacts));
    }

    pub(super) fn send(&mut self, from: usize, to: PeerId, body: &[u8]) {
        if let Ok(message) = IpamMessage::decode(body)
            && !matches!(
                message,
                IpamMessage::Digest { .. } | IpamMessage::Ring { .. }
            )
        {
            self.note(format!("host{from} to {to}: {message:?}"));
        }
        let loss = if self.is_calm {
            0
        } else {
            self.plan.loss_percent
        };
        let Some(target) = self.find(from, to) else {
            return;
        };
        let copies = 1 + usize::from(self.chance(self.plan.repeat_percent));
        for _ in 0..copies {
            if self.chance(loss) {
                continue;
            }
            let slow = self.chance(2) && !self.is_calm;
            let after = self.delay(if slow { 2000 } else { self.plan.delay_ms_max });
            let event = Event::Message {
                from: self.hosts[from].id,
                to: target,
                boot: self.hosts[target].boot,
                body: body.to_vec(),
            };
            self.schedule(after, event);
        }
    }

    pub(super) fn take_record(
        &mut self,
        to: usize,
        origin: PeerId,
        part: u16,
        stamp: (u64, u64),
        body: Vec<u8>,
    ) {
        let host = &mut self.hosts[to];
        if !host.is_up()
            || host
                .records
                .get(&(origin, part))
                .is_some_and(|(known, _)| *known >= stamp)
        {
            return;
        }
        if origin == host.id {
            if stamp.0 > host.speaks_as {
                self.jump(to, part);
            }
            return;
        }
        host.records.insert((origin, part), (stamp, body.clone()));
        if !body.is_empty() {
            self.feed(to, IpamInput::Record { origin, body });
        }
    }

    /// A copy of the host, or the host before its disk was put back, has said what outranks it: as gossip does, it says
    /// everything again so that it is newer, and that there is nothing where it has nothing to say.
    fn jump(&mut self, at: usize, seen: u16) {
        self.boots += 1;
        let host = &mut self.hosts[at];
        host.speaks_as = self.boots;
        let own = host
            .records
            .iter()
            .filter(|((origin, _), _)| *origin == host.id);
        let mut bodies: BTreeMap<u16, Vec<u8>> = own
            .map(|((_, part), (_, body))| (*part, body.clone()))
            .collect();
        bodies.entry(seen).or_default();
        for (part, body) in bodies {
            self.publish(at, part, body);
        }
    }

    pub(super) fn publish(&mut self, at: usize, part: u16, body: Vec<u8>) {
        let host = &mut self.hosts[at];
        host.published += 1;
        let (origin, stamp) = (host.id, (host.speaks_as, host.published));
        host.records.insert((origin, part), (stamp, body.clone()));
        for to in 0..self.hosts.len() {
            let loss = if self.is_calm {
                0
            } else {
                self.plan.loss_percent
            };
            if self.connected(at, to) && !self.chance(loss) {
                let after = self.delay(2 * self.plan.delay_ms_max);
                let body = body.clone();
                self.schedule(
                    after,
                    Event::Record {
                        to,
                        origin,
                        part,
                        stamp,
                        body,
                    },
                );
            }
        }
    }

    /// Every host compares its records with one other.
    pub(super) fn gossip(&mut self) {
        for at in 0..self.hosts.len() {
            let others: Vec<usize> = (0..self.hosts.len())
                .filter(|to| self.connected(at, *to))
                .collect();
            if others.is_empty() {
                continue;
            }
            let to = others[self.pick(others.len())];
            for (a, b) in [(at, to), (to, at)] {
                let missing: Vec<_> = self.hosts[a]
                    .records
                    .iter()
                    .filter(|(key, (stamp, _))| {
                        self.hosts[b]
                            .records
                            .get(key)
                            .is_none_or(|(known, _)| known < stamp)
                    })
                    .map(|(key, value)| (*key, value.clone()))
                    .collect();
                for ((origin, part), (stamp, body)) in missing {
                    let after = self.delay(self.plan.delay_ms_max);
                    self.schedule(
                        after,
                        Event::Record {
                            to: b,
                            origin,
                            part,
                            stamp,
                            body,
                        },
                    );
                }
            }
        }
    }
}
