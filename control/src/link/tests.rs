//! The transition table of a link, end against end and end against garbage.

use std::time::Duration;

use super::*;
use crate::config::{LINK_DEAD_AFTER, LINK_PING_AFTER, LINK_SILENT_AFTER, LINK_SUSPECT_AFTER};
use crate::link::handshake::tests::config;
use crate::link::preamble::PreambleError;
use crate::node::tests::first_instant;
use crate::sim::host::tokens;

struct End {
    link: Link,
    identity: Identity,
    secrets: Secrets,
    hello: Vec<u8>,
    random: Randomness,
    up: Option<Hello>,
    down: Option<LinkError>,
    messages: Vec<Message>,
    out: Vec<Vec<u8>>,
}

impl End {
    fn new(seed: u64, secret: u8, dials: bool, now: Instant) -> Self {
        let mut random = Randomness::seeded(seed);
        let identity = Identity::generate(&mut random);
        let secrets = tokens(&[secret]);
        let (link, out) = if dials {
            let mut link = Link::dialled(secrets.keys()[0].clone(), true, now);
            let first = link.take_outbox();
            (link, first)
        } else {
            (Link::accepted(true, now), Vec::new())
        };
        let hello = Hello::encode_ours(&config("host"), &identity);
        Self {
            link,
            identity,
            secrets,
            hello,
            random,
            up: None,
            down: None,
            messages: Vec::new(),
            out,
        }
    }

    fn run(
        &mut self,
        now: Instant,
        run: impl FnOnce(&mut Link, &mut LinkContext<'_>, &mut Vec<LinkAction>),
    ) {
        let mut actions = Vec::new();
        let network = NetworkId::of("weft");
        let mut context = LinkContext {
            identity: &self.identity,
            network: &network,
            secrets: &self.secrets,
            hello: &self.hello,
            random: &mut self.random,
            now,
        };
        run(&mut self.link, &mut context, &mut actions);
        self.out.extend(self.link.take_outbox());
        for action in actions {
            match action {
                LinkAction::Up(hello) => self.up = Some(*hello),
                LinkAction::Message(message) => self.messages.push(message),
                LinkAction::Malformed => self.messages.push(Message::Unknown(0)),
                LinkAction::Down(error) => {
                    assert_eq!(self.down.replace(error), None, "a link ends once")
                }
            }
        }
    }

    fn take(&mut self, data: &[u8], now: Instant) {
        self.run(now, |link, context, actions| {
            link.receive(data, context, actions)
        });
    }
}

fn pair(secrets: (u8, u8)) -> (End, End, Instant) {
    let now = first_instant();
    (
        End::new(1, secrets.0, true, now),
        End::new(2, secrets.1, false, now),
        now,
    )
}

/// Carries bytes between the ends in chunks of `chunk` until nothing moves.
fn talk(a: &mut End, b: &mut End, chunk: usize, now: Instant) {
    while !a.out.is_empty() || !b.out.is_empty() {
        for bytes in std::mem::take(&mut a.out) {
            bytes.chunks(chunk).for_each(|part| b.take(part, now));
        }
        for bytes in std::mem::take(&mut b.out) {
            bytes.chunks(chunk).for_each(|part| a.take(part, now));
        }
    }
}

#[test]
fn a_link_comes_up_however_the_bytes_are_cut() {
    for chunk in [1, 2, 3, 7, 64, 100_000] {
        let (mut a, mut b, now) = pair((1, 1));
        talk(&mut a, &mut b, chunk, now);

        assert_eq!(a.up.as_ref().unwrap().peer_id, b.identity.peer_id());
        assert_eq!(b.up.as_ref().unwrap().peer_id, a.identity.peer_id());
        assert_eq!(a.link.hash(), b.link.hash());
        assert!(a.link.hash().is_some() && a.link.up_at() == Some(now));
        assert_eq!((a.down, b.down), (None, None));
    }
}

#[test]
fn the_dialler_is_not_up_before_the_acceptor_has_proved_the_secret() {
    let (mut a, mut b, now) = pair((1, 2));
    talk(&mut a, &mut b, 1000, now);

    assert_eq!((a.up.is_none(), b.up.is_none()), (true, true));
    assert_eq!(b.down, Some(LinkError::RefusedByUs(Refusal::WrongSecret)));
    assert_eq!(a.down, Some(LinkError::RefusedByPeer(Refusal::WrongSecret)));
}

#[test]
fn the_acceptor_says_nothing_to_who_is_no_weft() {
    for garbage in [
        b"GET / HTTP/1.1\r\n".as_slice(),
        b"\x16\x03\x01",
        b"we",
        b"weft\x01",
    ] {
        let (_, mut b, now) = pair((1, 1));
        b.take(garbage, now);
        assert!(b.out.is_empty());
        let whole = garbage.starts_with(b"we");
        assert_eq!(
            b.down,
            (!whole).then_some(LinkError::Preamble(PreambleError::NotWeft))
        );
        b.run(now + PREAMBLE_TIMEOUT, |link, context, actions| {
            link.tick(context, actions)
        });
        assert!(b.down.is_some(), "a slow one is closed");
    }
}

#[test]
fn a_handshake_that_stops_is_given_up() {
    let (mut a, mut b, now) = pair((1, 1));
    for bytes in std::mem::take(&mut a.out) {
        b.take(&bytes, now);
    }
    assert_eq!(b.link.deadline(), Some(now + HANDSHAKE_TIMEOUT));
    b.run(now + HANDSHAKE_TIMEOUT, |link, context, actions| {
        link.tick(context, actions)
    });
    assert_eq!(b.down, Some(LinkError::HandshakeTimeout));
    assert_eq!(b.link.deadline(), None);
}

#[test]
fn silence_is_asked_about_and_then_ends_the_link() {
    let (mut a, mut b, now) = pair((1, 1));
    talk(&mut a, &mut b, 1000, now);
    let due = a.link.deadline().unwrap();
    assert_eq!(due, now + LINK_PING_AFTER);
    a.run(due, |link, context, actions| link.tick(context, actions));
    assert_eq!(a.out.len(), 1);
    assert!(!a.link.is_suspect(due) && a.link.is_suspect(due + LINK_SUSPECT_AFTER));

    let mut answered = a.out.clone();
    b.take(&answered.remove(0), due);
    let pong = b.out.remove(0);
    a.take(&pong, due + Duration::from_millis(7));
    assert!(!a.link.is_suspect(due + LINK_SUSPECT_AFTER));

    let due = a.link.deadline().unwrap();
    a.run(due, |link, context, actions| link.tick(context, actions));
    let dead = a.link.deadline().unwrap();
    a.run(dead, |link, context, actions| link.tick(context, actions));
    assert_eq!(a.down, Some(LinkError::Silent));
    assert!(dead - now <= LINK_DEAD_AFTER + LINK_PING_AFTER + Duration::from_secs(1));
}

#[test]
fn a_link_in_doubt_must_answer_sooner_until_it_has() {
    let (mut a, mut b, now) = pair((1, 1));
    talk(&mut a, &mut b, 1000, now);
    a.run(now, |link, context, _| link.ping(context));
    let ping = a.out.remove(0);
    let soon = now + LINK_SILENT_AFTER;
    assert!(!a.link.is_suspect(soon));
    a.run(soon, |link, context, _| {
        link.doubt(LINK_SILENT_AFTER, context)
    });
    assert!(a.out.is_empty(), "it is asked already");
    assert!(a.link.is_suspect(soon), "and has waited long enough");

    b.take(&ping, soon);
    a.take(&b.out.remove(0), soon);
    assert!(!a.link.is_suspect(soon));
    a.run(soon, |link, context, _| link.ping(context));
    assert!(!a.link.is_suspect(soon + LINK_SILENT_AFTER));
}

#[test]
fn messages_pass_and_unknown_ones_do_no_harm() {
    let (mut a, mut b, now) = pair((1, 1));
    talk(&mut a, &mut b, 1000, now);

    a.run(now, |link, _, _| link.send(&Message::Unknown(0x77)));
    a.run(now, |link, _, actions| {
        link.close(ByeReason::Duplicate, actions)
    });
    talk(&mut a, &mut b, 1000, now);

    assert_eq!(b.messages, [Message::Unknown(0x77)]);
    assert_eq!(b.down, Some(LinkError::ByPeer(ByeReason::Duplicate)));
    assert_eq!(a.down, Some(LinkError::ByUs(ByeReason::Duplicate)));
}

#[test]
fn handshake_frames_and_refusals_have_their_time() {
    let late = [
        frame(FrameKind::Handshake, b"again"),
        frame(FrameKind::Refusal, &[2]),
    ];
    for bytes in late {
        let (mut a, mut b, now) = pair((1, 1));
        talk(&mut a, &mut b, 1000, now);
        a.take(&bytes, now);
        assert_eq!(
            a.down,
            Some(LinkError::Frame),
            "a clear frame cannot end an established link with its own words"
        );
    }
    let (_, mut b, now) = pair((1, 1));
    b.take(Preamble::ours(true).as_bytes(), now);
    b.take(&frame(FrameKind::Record, &[0; 40]), now);
    assert_eq!(b.down, Some(LinkError::Frame));
}

#[test]
fn a_replayed_record_ends_the_link() {
    let (mut a, mut b, now) = pair((1, 1));
    talk(&mut a, &mut b, 1000, now);
    a.run(now, |link, _, _| link.send(&Message::Ping([1; 8])));
    let record = a.out.remove(0);
    b.take(&record, now);
    assert_eq!(b.down, None);
    b.take(&record, now);
    assert_eq!(b.down, Some(LinkError::Record));
}

/// Each byte that is exchanged spoilt in turn, both ways: the link never comes up at both ends, and nothing panics.
#[test]
fn no_spoilt_handshake_comes_up() {
    for at in 0.. {
        let (mut a, mut b, now) = pair((1, 1));
        let mut passed = 0;
        let mut spoilt = false;
        while a.down.is_none() && b.down.is_none() && !(a.out.is_empty() && b.out.is_empty()) {
            for from_a in [true, false] {
                let (from, to) = if from_a {
                    (&mut a, &mut b)
                } else {
                    (&mut b, &mut a)
                };
                for mut bytes in std::mem::take(&mut from.out) {
                    if let Some(byte) = (at as usize)
                        .checked_sub(passed)
                        .and_then(|at| bytes.get_mut(at))
                    {
                        *byte ^= 0x10;
                        spoilt = true;
                    }
                    passed += bytes.len();
                    to.take(&bytes, now);
                }
            }
        }
        if !spoilt {
            assert!(a.up.is_some() && b.up.is_some());
            return;
        }
        assert!(a.up.is_none(), "spoilt at {at}");
    }
}
