//! Targets as people type them, and the transition table of the dialer.

use super::*;
use crate::config::{BACKOFF_FOUND_MAX, BACKOFF_MAX, BACKOFF_REFUSED, BACKOFF_YOUNG_MAX};
use crate::link::message::{ByeReason, Refusal};
use crate::node::tests::first_instant;

const WRONG: LinkError = LinkError::RefusedByPeer(Refusal::WrongSecret);

fn parse(text: &str) -> Result<String, TargetError> {
    TargetAddress::parse(text, 6783).map(|address| address.to_string())
}

fn dialer(targets: &[&str]) -> (Dialer, Randomness, Instant) {
    let (mut dialer, now) = (Dialer::new(6783), first_instant());
    for target in targets {
        dialer.add(target, now).unwrap();
    }
    (dialer, Randomness::seeded(1), now)
}

fn peer(n: u8) -> PeerId {
    PeerId([n; 16])
}

#[test]
fn targets_are_read_as_people_write_them() {
    for (text, wanted) in [
        ("192.0.2.1", "192.0.2.1:6783"),
        ("192.0.2.1:1000", "192.0.2.1:1000"),
        ("2001:db8::1", "[2001:db8::1]:6783"),
        ("[2001:db8::1]", "[2001:db8::1]:6783"),
        ("[2001:db8::1]:1000", "[2001:db8::1]:1000"),
        ("host-1.example", "host-1.example:6783"),
        ("host_1.example.:99", "host_1.example.:99"),
    ] {
        assert_eq!(parse(text).as_deref(), Ok(wanted));
    }
    for text in [
        "",
        ":1",
        "a b",
        "-a",
        "a-",
        "a..b",
        "10.0.0.256",
        "1.2.3",
        "[::1",
        "[::1]x",
        "[1.2.3.4]",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ü",
    ] {
        assert_eq!(parse(text), Err(TargetError::Host), "{text:?}");
    }
    for text in [
        "a:0",
        "a:",
        "a:65536",
        "a:+1",
        "a:x",
        "[2001:db8::1]:0",
        "a:1:2",
    ] {
        assert_eq!(parse(text), Err(TargetError::Port), "{text:?}");
    }
}

#[test]
fn whoever_was_named_counts_but_for_this_host_and_the_discovered() {
    let (mut dialer, _, now) = dialer(&["a", "b"]);
    dialer.discover(peer(1), &["192.0.2.1:6783".parse().unwrap()], now);
    assert_eq!(dialer.named_others(), 2);

    let (dial, _) = dialer.poll_dial(now).unwrap();
    dialer.opened(dial, LinkId(1)).unwrap();
    assert!(dialer.is_ourself(LinkId(1), now));
    assert_eq!(dialer.named_others(), 1);
}

#[test]
fn a_target_goes_from_waiting_to_connected() {
    let (mut dialer, mut random, now) = dialer(&["a"]);
    let (dial, address) = dialer.poll_dial(now).unwrap();
    assert_eq!(address.port, 6783);
    assert!(dialer.poll_dial(now).is_none());
    assert_eq!(dialer.deadline(), None);

    assert_eq!(dialer.opened(dial, LinkId(1)), Some(0));
    dialer.connected(LinkId(1), peer(1), now);

    assert_eq!(dialer.targets()[0].phase, TargetPhase::Connected);
    dialer.disconnected(peer(2), None, &mut random, now);
    assert_eq!(
        dialer.targets()[0].phase,
        TargetPhase::Connected,
        "another peer's loss is nothing to it"
    );
    dialer.disconnected(peer(1), Some(LinkError::Silent), &mut random, now);
    assert_eq!(
        dialer.targets()[0].phase,
        TargetPhase::Waiting { until: now }
    );
}

/// Fails for so long; when each attempt was, and the pause after it.
fn pauses(dialer: &mut Dialer, start: Instant, secs: u64) -> Vec<(Duration, Duration)> {
    let (mut now, mut pauses) = (start, Vec::new());
    let mut random = Randomness::seeded(1);
    while now < start + Duration::from_secs(secs) {
        let (dial, _) = dialer.poll_dial(now).unwrap();
        dialer.dial_failed(dial, DialFailure::Refused, &mut random, now);
        let due = dialer.deadline().unwrap();
        pauses.push((now - start, due - now));
        now = due;
    }
    pauses
}

fn longest(pauses: &[(Duration, Duration)], from: u64, to: u64) -> Duration {
    let within = |at: &&(Duration, Duration)| (from..to).contains(&at.0.as_secs());
    let pauses = pauses.iter().filter(within).map(|(_, pause)| *pause);
    pauses.max().unwrap()
}

#[test]
fn pauses_grow_with_the_outage_and_stay_short_while_it_is_young() {
    let (mut dialer, _, start) = dialer(&["a"]);

    let pauses = pauses(&mut dialer, start, 1200);

    assert!(pauses[0].1 <= BACKOFF_MIN.mul_f64(1.2));
    assert!(longest(&pauses, 0, 60) <= BACKOFF_YOUNG_MAX.mul_f64(1.2));
    assert!(longest(&pauses, 60, 120) <= 2 * BACKOFF_YOUNG_MAX.mul_f64(1.2));
    assert!(longest(&pauses, 240, 300) > Duration::from_secs(3));
    let last = longest(&pauses, 900, 1200);
    assert!(last > Duration::from_secs(8) && last <= BACKOFF_MAX.mul_f64(1.2));
}

/// Nobody named it, and it may never come back.
#[test]
fn a_peer_that_was_found_and_is_gone_is_dialled_ever_more_rarely() {
    let (mut dialer, _, start) = dialer(&[]);
    let addresses = ["192.0.2.1:6783".parse().unwrap()];
    dialer.seek(peer(1), &addresses, start, start);

    let first = pauses(&mut dialer, start, 3600);
    assert!(first.len() < 200, "{} dials in an hour", first.len());
    let last = longest(&first, 3000, 3600);
    assert!(last > BACKOFF_FOUND_MAX / 2 && last <= BACKOFF_FOUND_MAX.mul_f64(1.2));

    // Given up for another one in between, it is not as if it were lost just now.
    dialer.undiscover(peer(1));
    let now = start + Duration::from_secs(3600);
    dialer.seek(peer(1), &addresses, start, now);
    let again = pauses(&mut dialer, now, 300);
    assert!(again.len() < 10, "{again:?}");
}

#[test]
fn an_address_that_has_another_peer_now_is_asked_ever_more_rarely() {
    let (mut dialer, _, start) = dialer(&[]);
    dialer.seek(peer(1), &["192.0.2.1:6783".parse().unwrap()], start, start);
    let (mut now, mut calls) = (start, 0);
    while now < start + Duration::from_secs(300) {
        let (dial, _) = dialer.poll_dial(now).unwrap();
        dialer.opened(dial, LinkId(calls));
        dialer.connected(LinkId(calls), peer(2), now);
        (now, calls) = (dialer.deadline().unwrap(), calls + 1);
    }
    assert!(calls < 25, "{calls} calls in five minutes");
}

#[test]
fn an_attempt_that_took_long_is_repeated_at_once() {
    let (mut dialer, mut random, now) = dialer(&["a"]);
    let (dial, _) = dialer.poll_dial(now).unwrap();
    let later = now + Duration::from_secs(2);

    dialer.dial_failed(dial, DialFailure::TimedOut, &mut random, later);

    assert_eq!(dialer.deadline(), Some(later + BACKOFF_BREATH));
}

#[test]
fn a_sign_of_life_makes_an_attempt_anew_whose_first_packet_was_lost() {
    let (mut dialer, mut random, mut now) = dialer(&["192.0.2.1"]);
    let found = |dialer: &mut Dialer, now| {
        let (dial, _) = dialer.poll_dial(now)?;
        Some(dial)
    };
    let first = found(&mut dialer, now).unwrap();
    assert_eq!(dialer.opened(first, LinkId(1)), Some(0));
    dialer.connected(LinkId(1), peer(7), now);
    dialer.disconnected(peer(7), None, &mut random, now);
    let second = found(&mut dialer, now).unwrap();

    dialer.hurry(peer(7), now);
    assert_eq!(found(&mut dialer, now), None, "it has only begun");
    now += DIAL_STALE_AFTER;
    dialer.hurry(peer(8), now);
    assert_eq!(found(&mut dialer, now), None, "another peer");
    dialer.hurry(peer(7), now);
    let third = found(&mut dialer, now).unwrap();

    assert_eq!(dialer.opened(second, LinkId(2)), None, "too late");
    assert_eq!(dialer.opened(third, LinkId(3)), Some(0));
}

#[test]
fn a_refusal_tries_each_secret_and_then_waits_for_a_person() {
    let (mut dialer, mut random, now) = dialer(&["a"]);
    for attempt in 0..2 {
        let (dial, _) = dialer.poll_dial(dialer.deadline().unwrap()).unwrap();
        assert_eq!(
            dialer.opened(dial, LinkId(attempt)),
            Some(usize::try_from(attempt).unwrap())
        );
        dialer.handshake_failed(LinkId(attempt), WRONG, 2, &mut random, now);
    }
    assert!(dialer.targets()[0].is_refused());
    assert!(dialer.deadline().unwrap() >= now + BACKOFF_REFUSED.mul_f64(0.79));

    dialer.add("a", now).unwrap();
    assert_eq!(dialer.deadline(), Some(now), "connect dials again at once");
    assert_eq!(dialer.targets().len(), 1);
}

#[test]
fn a_link_of_the_peer_ends_the_dialling_of_its_targets() {
    let (mut dialer, mut random, now) = dialer(&["a", "b"]);
    let (first, _) = dialer.poll_dial(now).unwrap();
    dialer.opened(first, LinkId(1));
    dialer.connected(LinkId(1), peer(1), now);
    dialer.disconnected(peer(1), None, &mut random, now);
    let (again, _) = dialer.poll_dial(now).unwrap();

    dialer.connected(LinkId(9), peer(1), now);

    assert_eq!(dialer.targets()[0].phase, TargetPhase::Connected);
    assert_eq!(
        dialer.opened(again, LinkId(2)),
        None,
        "the dial in flight is not wanted any more"
    );
    dialer.dial_failed(again, DialFailure::Refused, &mut random, now);
    assert_eq!(dialer.targets()[0].phase, TargetPhase::Connected);
}

#[test]
fn a_link_that_ends_at_once_again_and_again_is_dialled_less_often() {
    let (mut dialer, mut random, start) = dialer(&["a"]);
    let (mut now, mut dials) = (start, 0);
    while now < start + Duration::from_secs(60) {
        let (dial, _) = dialer.poll_dial(now).unwrap();
        dialer.opened(dial, LinkId(dial.0));
        dialer.connected(LinkId(dial.0), peer(1), now);
        dialer.disconnected(peer(1), Some(LinkError::Broken), &mut random, now);
        (now, dials) = (dialer.deadline().unwrap(), dials + 1);
    }
    assert!((30..70).contains(&dials), "{dials} in a minute");

    let (dial, _) = dialer.poll_dial(now).unwrap();
    dialer.opened(dial, LinkId(dial.0));
    dialer.connected(LinkId(dial.0), peer(1), now);
    let later = now + LINK_PROVED_AFTER;
    dialer.disconnected(peer(1), Some(LinkError::Broken), &mut random, later);
    assert_eq!(
        dialer.deadline(),
        Some(later),
        "one that lived is dialled again at once"
    );
}

#[test]
fn a_peer_that_sends_us_away_is_left_alone_for_a_while() {
    let (mut dialer, mut random, now) = dialer(&["a"]);
    let (dial, _) = dialer.poll_dial(now).unwrap();
    dialer.opened(dial, LinkId(1));
    dialer.connected(LinkId(1), peer(1), now);
    dialer.disconnected(
        peer(1),
        Some(LinkError::ByPeer(ByeReason::ClonedIdentity)),
        &mut random,
        now,
    );
    assert!(dialer.deadline().unwrap() >= now + BACKOFF_REFUSED.mul_f64(0.79));
}

#[test]
fn ourself_is_never_dialled_again_unless_told() {
    let (mut dialer, mut random, now) = dialer(&["a"]);
    let (dial, _) = dialer.poll_dial(now).unwrap();
    dialer.opened(dial, LinkId(1));
    assert!(dialer.is_ourself(LinkId(1), now));
    assert!(!dialer.is_ourself(LinkId(2), now));
    dialer.handshake_failed(
        LinkId(1),
        LinkError::ByUs(ByeReason::SelfConnection),
        1,
        &mut random,
        now,
    );
    assert_eq!(dialer.deadline(), None);

    dialer.add("a", now).unwrap();
    assert_eq!(dialer.deadline(), Some(now));
}

#[test]
fn targets_are_removed_as_they_were_given() {
    let (mut dialer, _, now) = dialer(&["a", "a:6783"]);
    assert_eq!(dialer.remove("A"), Err(TargetError::Unknown));
    assert_eq!(dialer.remove("a"), Ok(()));
    assert_eq!(dialer.texts(), ["a:6783"]);
    for n in 0..TARGETS_MAX - 1 {
        dialer.add(&format!("h{n}"), now).unwrap();
    }
    assert_eq!(dialer.add("one-more", now), Err(TargetError::TooMany));
    let dials = std::iter::from_fn(|| dialer.poll_dial(now)).count();
    assert_eq!(dials, DIALS_MAX);
    assert_eq!(
        dialer.deadline(),
        None,
        "a free place wakes us, not the clock"
    );
}
