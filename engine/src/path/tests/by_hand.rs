//! One machine, fed message by message.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use proptest::prelude::*;

use super::sim::{SEAL_LEN, address, epoch, ms, secs};
use crate::config::{CANDIDATES_MAX, PATH_SENDS_MAX};
use crate::path::message::{Message, Probe, Reply};
use crate::path::{Arrival, PathConfig, PathError, PathMessage, PathOutput, Paths, SendFailure};

const PEER: &str = "198.51.100.2:6783";
const OTHER: &str = "198.51.100.3:6783";

fn drain(paths: &mut Paths) -> Vec<PathOutput> {
    std::iter::from_fn(|| paths.poll_output()).collect()
}

/// The probes among these outputs: where to, and which.
fn probes(outputs: &[PathOutput]) -> Vec<(SocketAddr, Probe)> {
    let probe = |output: &PathOutput| match output {
        PathOutput::Send { to, message, .. } => match Message::decode(message.as_bytes()) {
            Ok(Message::Probe(probe)) => Some((*to, probe)),
            Ok(Message::Reply(_)) | Err(_) => None,
        },
        PathOutput::Up(_) | PathOutput::Changed(_) | PathOutput::Down | PathOutput::Observed(_) => {
            None
        }
    };
    outputs.iter().filter_map(probe).collect()
}

fn answer(paths: &mut Paths, from: &str, id: u64, now: Instant) -> Result<(), PathError> {
    let reply = Reply {
        id,
        datagram_len: 1500,
        observed: address("192.0.2.1:6783"),
    };
    let message = Message::Reply(reply).encode();
    paths.handle_message(address(from), SEAL_LEN + 30, message.as_bytes(), now)
}

/// A machine with a session and these addresses; its first probes.
fn ready(addresses: &[&str], now: Instant) -> (Paths, Vec<(SocketAddr, Probe)>) {
    let mut paths = Paths::new(PathConfig::default(), 1, now);
    let addresses: Vec<_> = addresses.iter().map(|text| address(text)).collect();
    paths.set_candidates(&addresses, now);
    paths.session_ready(now);
    let first = probes(&drain(&mut paths));
    (paths, first)
}

#[test]
fn impossible_addresses_are_never_probed() {
    let impossible = [
        "0.0.0.0:6783",
        "[::]:6783",
        "224.0.0.1:6783",
        "[ff02::1]:6783",
        "255.255.255.255:6783",
        "198.51.100.2:0",
        "[::ffff:0.0.0.0]:6783",
        "[::ffff:224.0.0.1]:6783",
    ];
    let now = epoch();
    let (mut paths, first) = ready(&impossible, now);
    assert_eq!(first, []);
    for from in impossible {
        paths.heard(address(from), now);
        let probe = Probe {
            id: 1,
            heard: 0,
            unanswered: false,
            in_use: true,
            narrower: false,
        };
        let message = Message::Probe(probe).encode();
        let verdict = paths.handle_message(address(from), 52, message.as_bytes(), now);
        assert_eq!(verdict, Err(PathError::ImpossibleSource));
    }
    assert_eq!(drain(&mut paths), []);
    assert_eq!(paths.deadline(), None);
}

#[test]
fn mapped_addresses_and_flow_labels_are_the_same_address() {
    let now = epoch();
    let (mut paths, first) = ready(&["[::ffff:198.51.100.2]:6783", PEER], now);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].0, address(PEER));
    answer(&mut paths, "[::ffff:198.51.100.2]:6783", first[0].1.id, now).expect("an answer");
    assert!(matches!(drain(&mut paths)[0], PathOutput::Up(path) if path.address == address(PEER)));
}

#[test]
fn all_addresses_are_probed_at_once_but_no_more_than_the_bound() {
    let now = epoch();
    let many: Vec<_> = (1..=20)
        .map(|host| format!("203.0.113.{host}:6783"))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let (_, first) = ready(&many, now);
    let probed: Vec<_> = first.iter().map(|(to, _)| *to).collect();
    let wanted: Vec<_> = many[..CANDIDATES_MAX]
        .iter()
        .map(|text| address(text))
        .collect();
    assert_eq!(probed, wanted);
}

#[test]
fn changing_lists_do_not_make_us_spray() {
    let start = epoch();
    let (mut paths, _) = ready(&[], start);
    let mut sent = 0;
    for second in 0..100_u8 {
        let now = start + secs(u64::from(second));
        let list: Vec<_> = (0..8)
            .map(|n| SocketAddr::from(([203, 0, second, n], 6783)))
            .collect();
        paths.set_candidates(&list, now);
        sent += probes(&drain(&mut paths)).len();
    }
    // Eight new addresses each 5 s.
    assert!(sent <= 8 * 21, "{sent} probes in 100 s");
}

#[test]
fn a_probe_is_answered_where_it_came_from_with_what_was_seen() {
    let now = epoch();
    let (mut paths, _) = ready(&[], now);
    let probe = Message::Probe(Probe {
        id: 7,
        heard: 0,
        unanswered: false,
        in_use: false,
        narrower: false,
    })
    .encode();
    let mut padded = probe.as_bytes().to_vec();
    padded.resize(1400, 0);
    paths
        .handle_message(address(PEER), 1434, &padded, now)
        .expect("a probe");
    let reply = Message::Reply(Reply {
        id: 7,
        datagram_len: 1434,
        observed: address(PEER),
    })
    .encode();
    let wanted = PathOutput::Send {
        to: address(PEER),
        local: None,
        message: reply,
        datagram_len: None,
    };
    assert_eq!(drain(&mut paths)[0], wanted);
}

#[test]
fn only_an_answer_from_where_the_probe_went_proves_a_path() {
    let now = epoch();
    let (mut paths, first) = ready(&[PEER, OTHER], now);
    let id = first[0].1.id;
    assert_eq!(
        answer(&mut paths, PEER, id ^ 1, now),
        Err(PathError::UnexpectedReply)
    );
    assert_eq!(
        answer(&mut paths, OTHER, id, now),
        Err(PathError::UnexpectedReply)
    );
    assert_eq!(
        answer(&mut paths, "203.0.113.1:1", id, now),
        Err(PathError::UnexpectedReply)
    );
    assert!(paths.current().is_none());
    assert_eq!(answer(&mut paths, PEER, id, now), Ok(()));
    assert_eq!(
        paths.current().map(|path| path.address),
        Some(address(PEER))
    );
    assert_eq!(
        answer(&mut paths, PEER, id, now),
        Err(PathError::UnexpectedReply),
        "a second time"
    );
}

#[test]
fn an_acknowledgement_alone_proves_no_new_path() {
    let now = epoch();
    let (mut paths, first) = ready(&[PEER], now);
    let probe = Probe {
        id: 9,
        heard: first[0].1.id,
        unanswered: false,
        in_use: true,
        narrower: false,
    };
    let message = Message::Probe(probe).encode();
    paths
        .handle_message(address(PEER), 52, message.as_bytes(), now)
        .expect("a probe");
    assert!(paths.current().is_none());
}

/// Answers no probe, but acknowledges some of them in probes of the peer's own.
#[test]
fn acknowledgements_keep_a_path_alive_and_old_ones_do_not() {
    let start = epoch();
    let (mut paths, first) = ready(&[PEER], start);
    answer(&mut paths, PEER, first[0].1.id, start + ms(10)).expect("an answer");
    drain(&mut paths);
    let mut heard = 0;
    let mut step = |paths: &mut Paths, tenth: u64, fresh: bool| {
        let now = start + ms(100) * u32::try_from(tenth).expect("small");
        paths.tick(now);
        let sent = probes(&drain(paths))
            .into_iter()
            .map(|(_, probe)| probe.id)
            .next_back();
        heard = sent.filter(|_| fresh).unwrap_or(heard);
        let probe = Probe {
            id: tenth,
            heard,
            unanswered: false,
            in_use: true,
            narrower: false,
        };
        let message = Message::Probe(probe).encode();
        paths
            .handle_message(address(PEER), 52, message.as_bytes(), now)
            .expect("a probe");
        paths.current().is_some()
    };
    assert!((1..200).all(|tenth| step(&mut paths, tenth, true)));
    let down = (200..300)
        .find(|tenth| !step(&mut paths, *tenth, false))
        .expect("down");
    assert!(
        (225..=233).contains(&down),
        "after {down} tenths of a second"
    );
}

#[test]
fn an_unanswered_probe_is_met_with_one_of_ours() {
    let start = epoch();
    let (mut paths, first) = ready(&[PEER], start);
    answer(&mut paths, PEER, first[0].1.id, start).expect("an answer");
    let now = start + secs(2);
    paths.tick(now);
    drain(&mut paths);
    let now = now + ms(150);
    let message = Message::Probe(Probe {
        id: 5,
        heard: 0,
        unanswered: true,
        in_use: true,
        narrower: false,
    })
    .encode();
    paths
        .handle_message(address(PEER), 52, message.as_bytes(), now)
        .expect("a probe");
    let small = |output: &PathOutput| {
        matches!(
            output,
            PathOutput::Send {
                datagram_len: None,
                ..
            }
        )
    };
    let outputs: Vec<_> = drain(&mut paths).into_iter().filter(small).collect();
    let sent = probes(&outputs);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, sent[0].1.heard), (address(PEER), 5));
}

#[test]
fn our_probes_say_whether_they_are_answered_and_whether_data_goes_there() {
    let start = epoch();
    let (mut paths, first) = ready(&[PEER], start);
    assert!(!first[0].1.unanswered && !first[0].1.in_use);
    answer(&mut paths, PEER, first[0].1.id, start).expect("an answer");
    let mut seen = Vec::new();
    for tenth in 1..30 {
        paths.tick(start + ms(100) * tenth);
        seen.extend(probes(&drain(&mut paths)));
    }
    assert!(seen.iter().all(|(_, probe)| probe.in_use));
    assert!(!seen[0].1.unanswered && seen.last().is_some_and(|(_, probe)| probe.unanswered));
}

#[test]
fn a_hint_about_another_address_or_before_there_is_a_path_changes_nothing() {
    let now = epoch();
    let (mut paths, first) = ready(&[PEER, OTHER], now);
    for to in [PEER, OTHER, "203.0.113.1:1"] {
        paths.sent_failed(address(to), 1400, SendFailure::Unreachable, now);
        paths.sent_failed(address(to), 1400, SendFailure::TooBig, now);
    }
    assert_eq!(drain(&mut paths), []);
    answer(&mut paths, PEER, first[0].1.id, now).expect("an answer");
    drain(&mut paths);
    paths.sent_failed(
        address(OTHER),
        1400,
        SendFailure::Unreachable,
        now + ms(150),
    );
    assert!(
        probes(&drain(&mut paths))
            .iter()
            .all(|(to, _)| *to == address(OTHER))
    );
}

#[test]
fn the_path_in_use_survives_a_list_without_it() {
    let now = epoch();
    let (mut paths, first) = ready(&[PEER], now);
    answer(&mut paths, PEER, first[0].1.id, now).expect("an answer");
    paths.set_candidates(&[address(OTHER)], now);
    assert_eq!(
        paths.current().map(|path| path.address),
        Some(address(PEER))
    );
}

#[test]
fn a_late_answer_does_not_bring_back_doubts_that_a_newer_one_ended() {
    let start = epoch();
    let (mut paths, first) = ready(&[PEER], start);
    answer(&mut paths, PEER, first[0].1.id, start).expect("an answer");
    let mut ids = Vec::new();
    let mut run = |paths: &mut Paths, tenths: std::ops::Range<u32>| {
        for tenth in tenths {
            paths.tick(start + ms(100) * tenth);
            ids.extend(
                probes(&drain(paths))
                    .into_iter()
                    .filter(|(_, probe)| probe.unanswered),
            );
        }
        ids.clone()
    };
    let doubtful = run(&mut paths, 1..25);
    let (early, late) = (doubtful[0].1.id, doubtful[doubtful.len() - 1].1.id);
    assert!(doubtful.len() > 6);
    answer(&mut paths, PEER, late, start + ms(2400)).expect("an answer");
    answer(&mut paths, PEER, early, start + ms(2400)).expect("a late answer");
    drain(&mut paths);
    // What was sent before the newest answered one does not count any more: the next is a second off.
    let after = run(&mut paths, 25..33);
    assert_eq!(after.len(), doubtful.len(), "no probe in doubt for 0.8 s");
}

#[test]
fn an_address_first_seen_by_a_probe_is_challenged_in_full_when_data_comes_from_it() {
    let start = epoch();
    let (mut paths, first) = ready(&[PEER], start);
    answer(&mut paths, PEER, first[0].1.id, start).expect("an answer");
    drain(&mut paths);
    let probe = Message::Probe(Probe {
        id: 5,
        heard: 0,
        unanswered: false,
        in_use: false,
        narrower: false,
    })
    .encode();
    paths
        .handle_message(address(OTHER), 52, probe.as_bytes(), start)
        .expect("a probe");
    let to_other = |paths: &mut Paths| {
        let sent = probes(&drain(paths)).into_iter();
        sent.filter(|(to, _)| *to == address(OTHER))
            .map(|(_, probe)| probe.id)
            .collect::<Vec<_>>()
    };
    let mut sent = to_other(&mut paths);
    assert_eq!(sent.len(), 1);
    for tenth in 2..20 {
        paths.heard(address(OTHER), start + ms(100) * tenth);
        paths.tick(start + ms(100) * tenth);
        sent.extend(to_other(&mut paths));
    }
    assert_eq!(sent.len(), 3);
    answer(&mut paths, OTHER, sent[2], start + secs(2)).expect("an answer");
    assert_eq!(
        paths.current().map(|path| path.address),
        Some(address(OTHER))
    );
}

#[test]
fn a_hint_on_a_lossy_path_needs_twice_the_losses() {
    for lossy in [false, true] {
        let start = epoch();
        let (mut paths, first) = ready(&[PEER], start);
        answer(&mut paths, PEER, first[0].1.id, start).expect("an answer");
        drain(&mut paths);
        let mut lost = 0;
        for tenth in 1..200_u32 {
            let now = start + ms(100) * tenth;
            paths.tick(now);
            for (_, probe) in probes(&drain(&mut paths)) {
                lost += 1;
                if !lossy || lost % 3 == 0 {
                    let _ = answer(&mut paths, PEER, probe.id, now);
                }
            }
        }
        drain(&mut paths);
        let now = start + secs(20);
        paths.sent_failed(address(PEER), 1200, SendFailure::Unreachable, now);
        let mut count = 0;
        for tenth in 0..20_u32 {
            paths.tick(now + ms(100) * tenth);
            let small = |output: &PathOutput| {
                matches!(
                    output,
                    PathOutput::Send {
                        datagram_len: None,
                        ..
                    }
                )
            };
            let up = paths.current().is_some();
            count += usize::from(up)
                * drain(&mut paths)
                    .iter()
                    .filter(|output| small(output))
                    .count();
        }
        assert!(paths.current().is_none());
        // Those lost, and two that were still waited for.
        let needed = if lossy { 6 } else { 3 };
        assert!(
            (needed..=needed + 2).contains(&count),
            "lossy {lossy}: {count}"
        );
    }
}

#[derive(Debug, Clone)]
enum Step {
    Bytes(u8, Vec<u8>),
    Reply(u8, usize),
    Probe(u8, Probe),
    Heard(u8),
    Failed(u8, u16, bool),
    Candidates(Vec<u8>),
    Session(bool),
    Mtu(u16),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let probe = (any::<u64>(), any::<u64>(), any::<bool>(), any::<bool>()).prop_map(
        |(id, heard, unanswered, in_use)| Probe {
            id,
            heard,
            unanswered,
            in_use,
            narrower: false,
        },
    );
    prop_oneof![
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(a, b)| Step::Bytes(a, b)),
        6 => (any::<u8>(), 0..64_usize).prop_map(|(a, n)| Step::Reply(a, n)),
        2 => (any::<u8>(), probe).prop_map(|(a, p)| Step::Probe(a, p)),
        2 => any::<u8>().prop_map(Step::Heard),
        1 => (any::<u8>(), any::<u16>(), any::<bool>()).prop_map(|(a, l, b)| Step::Failed(a, l, b)),
        1 => prop::collection::vec(any::<u8>(), 0..12).prop_map(Step::Candidates),
        1 => prop::bool::weighted(0.9).prop_map(Step::Session),
        1 => any::<u16>().prop_map(Step::Mtu),
        6 => (0..4000_u64).prop_map(Step::Wait),
    ]
}

fn place(which: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, which % 24], 6783))
}

/// Applies one step; returns the time after it.
fn apply(paths: &mut Paths, known: &[(SocketAddr, Probe)], step: Step, now: Instant) -> Instant {
    match step {
        Step::Bytes(from, bytes) => {
            let _ = paths.handle_message(place(from), 100, &bytes, now);
        }
        Step::Reply(len, back) => {
            if let Some((to, probe)) = known.iter().rev().nth(back) {
                let datagram_len = u16::from(len) * 257;
                let message = Message::Reply(Reply {
                    id: probe.id,
                    datagram_len,
                    observed: *to,
                })
                .encode();
                let _ = paths.handle_message(*to, 64, message.as_bytes(), now);
            }
        }
        Step::Probe(from, probe) => {
            let message = Message::Probe(probe).encode();
            let _ = paths.handle_message(place(from), 52, message.as_bytes(), now);
        }
        Step::Heard(from) => paths.heard(place(from), now),
        Step::Failed(to, len, true) => paths.sent_failed(place(to), len, SendFailure::TooBig, now),
        Step::Failed(to, len, false) => {
            paths.sent_failed(place(to), len, SendFailure::Unreachable, now)
        }
        Step::Candidates(all) => {
            let all: Vec<_> = all.into_iter().map(place).collect();
            paths.set_candidates(&all, now);
        }
        Step::Session(true) => paths.session_ready(now),
        Step::Session(false) => paths.session_lost(),
        Step::Mtu(mtu) => paths.set_underlay_mtu(mtu, now),
        Step::Wait(millis) => {
            paths.tick(now + ms(millis));
            return now + ms(millis);
        }
    }
    now
}

proptest! {
    /// Whatever happens in whatever order: no panic, a deadline ahead, bounded output, sane figures.
    #[test]
    fn any_sequence_of_events_leaves_a_sane_machine(steps in prop::collection::vec(step(), 1..200)) {
        let mut now = epoch();
        let mut paths = Paths::new(PathConfig::default(), 3, now);
        paths.set_candidates(&[place(1), place(2)], now);
        paths.session_ready(now);
        let mut known = Vec::new();
        let mut up = false;
        for step in steps {
            now = apply(&mut paths, &known, step, now);
            let outputs = drain(&mut paths);
            prop_assert!(outputs.len() <= PATH_SENDS_MAX + 2);
            known.extend(probes(&outputs));
            for output in &outputs {
                match output {
                    PathOutput::Up(_) => { prop_assert!(!up); up = true; }
                    PathOutput::Changed(_) => prop_assert!(up),
                    PathOutput::Down => { prop_assert!(up); up = false; }
                    PathOutput::Observed(_) | PathOutput::Send { .. } => {}
                }
            }
            prop_assert_eq!(up, paths.current().is_some());
            if let Some(path) = paths.current() {
                prop_assert!(path.datagram_max >= 1200 && (0.0..=1.0).contains(&path.loss));
            }
            paths.tick(now);
            drain(&mut paths);
            prop_assert!(paths.deadline().is_none_or(|at| at > now), "something is due for ever");
        }
    }
}

/// What the machine sends: where to, where from, and whether it is a probe.
fn routes(paths: &mut Paths) -> Vec<(Option<IpAddr>, bool)> {
    let route = |output: PathOutput| match output {
        PathOutput::Send { local, message, .. } => {
            let probe = matches!(Message::decode(message.as_bytes()), Ok(Message::Probe(_)));
            Some((local, probe))
        }
        PathOutput::Up(_) | PathOutput::Changed(_) | PathOutput::Down | PathOutput::Observed(_) => {
            None
        }
    };
    drain(paths).into_iter().filter_map(route).collect()
}

fn hit(local: IpAddr) -> Arrival {
    Arrival {
        address: address(PEER),
        local: Some(local),
    }
}

fn probe_of_the_peer(id: u64, in_use: bool) -> PathMessage {
    let probe = Probe {
        id,
        heard: 0,
        unanswered: false,
        in_use,
        narrower: false,
    };
    Message::Probe(probe).encode()
}

/// We have two addresses. The peer tries both and uses the second.
#[test]
fn answers_and_data_leave_from_the_address_of_ours_that_the_peer_uses() {
    let start = epoch();
    let (mut paths, first) = ready(&[PEER], start);
    let [tried, used] = ["192.0.2.1", "192.0.2.9"].map(|text| text.parse::<IpAddr>().unwrap());
    answer(&mut paths, PEER, first[0].1.id, start).unwrap();
    drain(&mut paths);
    assert_eq!(paths.local(), None);

    let message = probe_of_the_peer(7, true);
    paths
        .handle_message(hit(used), 52, message.as_bytes(), start)
        .unwrap();
    assert_eq!(routes(&mut paths)[0], (Some(used), false));
    let message = probe_of_the_peer(8, false);
    paths
        .handle_message(hit(tried), 52, message.as_bytes(), start)
        .unwrap();
    assert_eq!(routes(&mut paths)[0], (Some(tried), false), "its answer");

    assert_eq!(paths.local(), Some(used));
    paths.tick(start + secs(2));
    assert!(routes(&mut paths).contains(&(Some(used), true)));
}

#[test]
fn an_address_of_ours_that_gets_no_answers_any_more_is_not_insisted_on() {
    let start = epoch();
    let (mut paths, first) = ready(&[PEER], start);
    let local = "192.0.2.9".parse().unwrap();
    answer(&mut paths, PEER, first[0].1.id, start).unwrap();
    let message = probe_of_the_peer(7, true);
    paths
        .handle_message(hit(local), 52, message.as_bytes(), start)
        .unwrap();
    assert_eq!(paths.local(), Some(local));

    let mut now = start;
    while paths.local().is_some() {
        assert!(now < start + secs(3), "the path dies first");
        now = paths.deadline().unwrap();
        paths.tick(now);
        drain(&mut paths);
    }

    assert!(paths.current().is_some());
    paths.tick(now + ms(200));
    assert!(routes(&mut paths).contains(&(None, true)));
}
