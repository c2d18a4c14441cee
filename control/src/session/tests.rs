//! Two ends of a session over a channel that loses, repeats and reorders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_engine::command::{Event, SessionKeys};

use super::*;
use crate::config::{EPOCHS_MAX, SESSIONS_PENDING_MAX};
use crate::node::tests::first_instant;

struct End {
    identity: Identity,
    session: Session,
    random: Randomness,
    indices: BTreeSet<u32>,
    secrets: Secrets,
    boot_id: BootId,
    installed: BTreeMap<u32, Arc<SessionKeys>>,
    active: Option<u32>,
    events: Vec<Event>,
    outbox: Vec<SessionMessage>,
    ignored: usize,
}

struct Pair {
    ends: [End; 2],
    random: Randomness,
    now: Instant,
    wire: BTreeMap<(Instant, u64), (usize, SessionMessage)>,
    count: u64,
    loss_percent: u32,
    repeat_percent: u32,
}

impl Pair {
    fn new(seed: u64, secrets: [Secrets; 2]) -> Self {
        let now = first_instant();
        let mut random = Randomness::seeded(seed);
        let identities = [
            Identity::generate(&mut random),
            Identity::generate(&mut random),
        ];
        let boots = [BootId([1; 8]), BootId([2; 8])];
        let [first, second] = secrets;
        let mut end = |ours: usize, secrets: Secrets| {
            let (identity, theirs) = (identities[ours].clone(), &identities[1 - ours]);
            let peer = SessionPeer {
                slot: PeerSlot(3),
                peer_id: theirs.peer_id(),
                exchange: theirs.keys().exchange,
                boot_id: boots[1 - ours],
            };
            End {
                session: Session::new(identity.peer_id(), peer, now),
                identity,
                random: random.fork(),
                indices: BTreeSet::new(),
                secrets,
                boot_id: boots[ours],
                installed: BTreeMap::new(),
                active: None,
                events: Vec::new(),
                outbox: Vec::new(),
                ignored: 0,
            }
        };
        let ends = [end(0, first), end(1, second)];
        Self {
            ends,
            random,
            now,
            wire: BTreeMap::new(),
            count: 0,
            loss_percent: 0,
            repeat_percent: 0,
        }
    }

    fn with(&mut self, end: usize, run: impl FnOnce(&mut Session, &mut SessionContext<'_>)) {
        let mut actions = Vec::new();
        let End {
            identity,
            session,
            random,
            indices,
            secrets,
            boot_id,
            ..
        } = &mut self.ends[end];
        let mut context = SessionContext {
            identity,
            network: &NetworkId::of("weft"),
            secrets,
            boot_id: *boot_id,
            lanes: 1,
            ciphers: &[CipherCost {
                suite: CipherSuite::ChaCha20Poly1305,
                ns_per_kib: 1,
            }],
            rekey: RekeyConfig {
                starts_per_second_max: 1000,
                ..RekeyConfig::default()
            },
            random,
            indices,
            reachable: true,
            may_begin: true,
            in_use: true,
            now: self.now,
            actions: &mut actions,
        };
        run(session, &mut context);
        for action in actions {
            self.carry_out(end, action);
        }
    }

    fn carry_out(&mut self, end: usize, action: SessionAction) {
        let entry = &mut self.ends[end];
        match action {
            SessionAction::Send { message, .. } => {
                entry.outbox.push(message.clone());
                let copies = u32::from(self.random.u32() % 100 >= self.loss_percent)
                    + u32::from(self.random.u32() % 100 < self.repeat_percent);
                for _ in 0..copies {
                    self.count += 1;
                    let at = self.now + self.random.around(Duration::from_millis(100), 99);
                    self.wire
                        .insert((at, self.count), (1 - end, message.clone()));
                }
            }
            SessionAction::Engine(Command::InstallSession(keys)) => {
                let local_index = keys.local_index;
                entry.installed.insert(local_index, keys);
                entry.events.push(Event::SessionInstalled {
                    slot: PeerSlot(3),
                    local_index,
                });
            }
            SessionAction::Engine(Command::ActivateSession { local_index, .. }) => {
                entry.active = Some(local_index)
            }
            SessionAction::Engine(Command::RemoveSession { local_index, .. }) => {
                entry
                    .installed
                    .remove(&local_index)
                    .expect("removed once, after it was installed");
                entry.active.take_if(|active| *active == local_index);
            }
            SessionAction::Ignored => entry.ignored += 1,
            SessionAction::Engine(_) | SessionAction::Up(_) | SessionAction::Down => {}
        }
    }

    fn step(&mut self) {
        for end in 0..2 {
            for event in std::mem::take(&mut self.ends[end].events) {
                if let Event::SessionInstalled { local_index, .. } = event {
                    self.with(end, |session, context| {
                        session.installed(local_index, context)
                    });
                }
            }
        }
        let deadlines = self.ends.iter().filter_map(|end| end.session.deadline());
        let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = deadlines.chain(wire).min() else {
            return;
        };
        self.now = self.now.max(next);
        if wire.is_some_and(|at| at <= self.now)
            && let Some((_, (end, message))) = self.wire.pop_first()
        {
            self.with(end, |session, context| session.receive(&message, context));
        }
        for end in 0..2 {
            self.with(end, |session, context| session.tick(context));
        }
    }

    fn agree(&self) -> bool {
        let active = |end: usize| {
            self.ends[end]
                .active
                .and_then(|index| self.ends[end].installed.get(&index))
        };
        match (active(0), active(1)) {
            (Some(left), Some(right)) => self.opens(1, left) && self.opens(0, right),
            _ => false,
        }
    }

    /// Whether `end` would open a datagram sealed with these keys of the other end.
    fn opens(&self, end: usize, keys: &SessionKeys) -> bool {
        self.ends[end]
            .installed
            .get(&keys.remote_index)
            .is_some_and(|ours| {
                ours.recv_key == keys.send_key
                    && ours.send_key == keys.recv_key
                    && ours.remote_index == keys.local_index
            })
    }

    fn run_until_agreed(&mut self, limit: Duration) -> Duration {
        let start = self.now;
        while !self.agree() {
            self.step();
            assert!(self.now - start < limit, "no session within {limit:?}");
        }
        self.now - start
    }
}

fn secret(n: u8) -> Secrets {
    crate::sim::host::tokens(&[n])
}

#[test]
fn both_ends_have_the_same_keys_the_other_way_round() {
    let mut pair = Pair::new(1, [secret(1), secret(1)]);
    let now = pair.now;
    pair.with(0, |session, _| session.wanted(now));

    let took = pair.run_until_agreed(Duration::from_secs(1));

    assert!(took < Duration::from_millis(700), "{took:?}");
    assert_eq!(pair.ends[0].ignored + pair.ends[1].ignored, 0);
}

#[test]
fn both_may_begin_at_once() {
    for seed in 0..50 {
        let mut pair = Pair::new(seed, [secret(1), secret(1)]);
        let now = pair.now;
        pair.with(0, |session, _| session.wanted(now));
        pair.with(1, |session, _| session.wanted(now));
        pair.run_until_agreed(Duration::from_secs(2));
    }
}

/// A third of the messages lost, a third repeated, all of them reordered.
#[test]
fn a_bad_channel_only_delays() {
    for seed in 0..100 {
        let mut pair = Pair::new(seed, [secret(1), secret(1)]);
        (pair.loss_percent, pair.repeat_percent) = (33, 33);
        let now = pair.now;
        pair.with(0, |session, _| session.wanted(now));
        pair.with(1, |session, _| session.wanted(now));
        pair.run_until_agreed(Duration::from_secs(40));
        let end = pair.now + Duration::from_secs(600);
        while pair.now < end {
            pair.step();
            // Whatever either end seals under, the other opens: made before broken.
            for from in 0..2 {
                let End {
                    active, installed, ..
                } = &pair.ends[from];
                if let Some(keys) = active.and_then(|index| installed.get(&index)) {
                    assert!(pair.opens(1 - from, keys), "seed {seed}");
                }
            }
        }
        assert!(
            pair.ends[0].session.rekeys() >= 3,
            "seed {seed}: {}",
            pair.ends[0].session.rekeys()
        );
        for end in &pair.ends {
            assert!(end.installed.len() <= EPOCHS_MAX);
            assert!(end.indices.len() <= EPOCHS_MAX + SESSIONS_PENDING_MAX);
        }
    }
}

#[test]
fn a_wrong_secret_makes_no_session() {
    let mut pair = Pair::new(1, [secret(1), secret(2)]);
    let now = pair.now;
    pair.with(0, |session, _| session.wanted(now));
    for _ in 0..200 {
        pair.step();
    }
    assert!(pair.ends.iter().all(|end| end.active.is_none()));
    assert!(pair.ends[1].installed.is_empty());
    assert_eq!(
        pair.ends[0].session.failure(),
        Some(SessionFailure::WrongSecret)
    );
}

#[test]
fn another_process_than_the_known_one_is_not_believed() {
    let mut pair = Pair::new(1, [secret(1), secret(1)]);
    pair.ends[1].boot_id = BootId([9; 8]);
    let now = pair.now;
    pair.with(0, |session, _| session.wanted(now));
    for _ in 0..200 {
        pair.step();
    }
    assert!(!pair.agree());
    assert!(pair.ends[0].installed.is_empty());
}

/// Each message spoilt at each byte: no epoch comes of it, and the right message is still taken.
#[test]
fn spoilt_messages_make_no_session() {
    let mut pair = Pair::new(1, [secret(1), secret(1)]);
    let now = pair.now;
    pair.with(0, |session, _| session.wanted(now));
    while !pair.agree() {
        let spoilt: Vec<_> = pair.wire.values().cloned().collect();
        for (end, message) in spoilt {
            if message.step == SessionStep::First {
                continue;
            }
            for at in 0..message.body.len() {
                let mut body = message.body.clone();
                body[at] ^= 0x20;
                let cut = SessionMessage {
                    body: message.body[..at].to_vec(),
                    ..message.clone()
                };
                let before = pair.ends[end].installed.len();
                pair.with(end, |session, context| {
                    session.receive(
                        &SessionMessage {
                            body,
                            ..message.clone()
                        },
                        context,
                    )
                });
                pair.with(end, |session, context| session.receive(&cut, context));
                assert_eq!(
                    pair.ends[end].installed.len(),
                    before,
                    "{:?} at {at}",
                    message.step
                );
                assert!(pair.ends[end].active.is_none());
            }
        }
        // What the responder says to spoilt messages must not reach the initiator in this test.
        pair.wire
            .retain(|_, (_, message)| message.step != SessionStep::Refused);
        pair.step();
    }
}

#[test]
fn a_flood_of_first_messages_stays_bounded() {
    let mut pair = Pair::new(1, [secret(1), secret(1)]);
    let now = pair.now;
    for _ in 0..50 {
        pair.with(0, |session, context| {
            session.initiating = None;
            session.wanted(now);
            session.tick(context);
        });
    }
    let messages: Vec<_> = pair.wire.values().cloned().collect();
    assert_eq!(messages.len(), 50);
    for (end, message) in messages {
        pair.with(end, |session, context| session.receive(&message, context));
    }
    assert_eq!(pair.ends[1].session.responding.len(), SESSIONS_PENDING_MAX);
    assert_eq!(pair.ends[1].indices.len(), SESSIONS_PENDING_MAX);
}

#[test]
fn a_restart_drops_everything_of_the_old_process() {
    let mut pair = Pair::new(1, [secret(1), secret(1)]);
    let now = pair.now;
    pair.with(0, |session, _| session.wanted(now));
    pair.run_until_agreed(Duration::from_secs(1));

    pair.with(0, |session, context| {
        session.restarted(BootId([7; 8]), context)
    });

    assert!(pair.ends[0].installed.is_empty());
    assert!(pair.ends[0].indices.is_empty());
    assert!(!pair.ends[0].session.is_live());
}
