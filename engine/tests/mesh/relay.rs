//! RELAY datagrams: lines of hosts whose ends have no path to each other.
//!
//! ```text
//!   frames ─► 0 ═══ 1 ═══ 2 … ─► frames      no datagram crosses between hosts that are not neighbours
//! ```

use std::time::Duration;

use weft_engine::bridge::NextHop;
use weft_engine::command::{Command, Event, Limits};
use weft_engine::io::memory::MemoryTrain;
use weft_engine::session::{Implementation, SealLane};
use weft_engine::verdict::{DropReason, Station};
use weft_engine::wire::relay::{HOP_LIMIT_MAX, RELAY_FRONT_LEN, RELAY_OVERHEAD};
use weft_engine::wire::{HEADER_LEN, TAG_LEN};

use crate::hosts::{Mesh, address, frame, keys, label, slot, super_frame};

const STEP: Duration = Duration::from_millis(1);

/// Lets host 0 send to host 2 and returns the trains that it gave to the relay, which did not get them.
fn captured(mesh: &mut Mesh, frames: &[Vec<u8>]) -> Vec<MemoryTrain> {
    frames.iter().for_each(|frame| mesh.hosts[0].send(frame));
    let mut captured = Vec::new();
    mesh.step(STEP, |from, to, train| {
        if (from, to) == (0, 1) && train.bytes[0] >> 4 == 2 {
            captured.push(train);
            return Vec::new();
        }
        vec![train]
    });
    assert!(!captured.is_empty());
    captured
}

/// Makes host 2's container known at host 0, so that frames for it are not flooded.
fn introduce(mesh: &mut Mesh) {
    mesh.hosts[2].send(&frame(1, 2, 60, 0));
    mesh.exchange();
    for host in &mut mesh.hosts {
        host.delivered();
    }
}

#[test]
fn a_line_carries_frames_both_ways_and_the_relay_delivers_and_reads_none() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    let canary = frame(2, 1, 700, 0xc5);
    let mut seen = Vec::new();
    mesh.hosts[0].send(&canary);
    for _ in 0..4 {
        mesh.step(STEP, |_, _, train| {
            seen.push(train.bytes.clone());
            vec![train]
        });
    }
    assert_eq!(mesh.hosts[2].delivered(), [canary]);
    mesh.hosts[2].send(&frame(1, 2, 700, 9));
    mesh.exchange();
    assert_eq!(mesh.hosts[0].delivered(), [frame(1, 2, 700, 9)]);
    assert!(mesh.hosts[1].delivered().is_empty());
    assert!(
        seen.iter()
            .all(|bytes| !bytes.windows(16).any(|part| part == [0xc5; 16])),
        "the frame shows on a wire"
    );
    assert!(mesh.hosts[1].passed(Station::Relay) >= 2);
    assert_eq!(mesh.hosts[2].dropped_in_all(), 0);
    mesh.hosts.iter_mut().for_each(|host| host.check_pools());
}

#[test]
fn five_hosts_in_a_row_pass_a_super_frame_on_as_one_train() {
    let mut mesh = Mesh::line(5, 1);
    mesh.hosts[4].send(&frame(1, 2, 60, 0));
    mesh.exchange();
    mesh.hosts.iter_mut().for_each(|host| {
        host.delivered();
    });
    mesh.hosts[0].workers[0]
        .1
        .frames_in
        .push_back(super_frame(40_000));
    let mut trains = [0; 4];
    for _ in 0..10 {
        mesh.step(STEP, |from, to, train| {
            if to == from + 1 && train.bytes.len() > 10_000 {
                assert_eq!(train.datagrams().count(), 40);
                trains[from] += 1;
            }
            vec![train]
        });
    }
    assert_eq!(trains, [1; 4], "one train a hop");
    let delivered = mesh.hosts[4].delivered();
    assert_eq!(
        delivered
            .iter()
            .map(|frame| frame.len() - 54)
            .sum::<usize>(),
        40_000
    );
    assert_eq!(delivered.len(), 1, "put together again");
}

#[test]
fn datagrams_that_arrive_singly_leave_the_relay_as_a_train() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    mesh.hosts[0].workers[0]
        .1
        .frames_in
        .push_back(super_frame(40_000));
    let mut trains = 0;
    for _ in 0..4 {
        mesh.step(STEP, |from, _, train| {
            if from == 1 && train.bytes.len() > 1000 {
                trains += 1;
            }
            train.datagrams().collect()
        });
    }
    assert_eq!(trains, 1);
    let delivered = mesh.hosts[2].delivered();
    assert_eq!(
        delivered
            .iter()
            .map(|frame| frame.len() - 54)
            .sum::<usize>(),
        40_000
    );
}

#[test]
fn a_frame_of_the_default_mtu_fits_and_a_tagged_one_crosses_in_two_pieces() {
    let mut mesh = Mesh::line(4, 1);
    introduce(&mut mesh);
    mesh.hosts[3].send(&frame(1, 4, 60, 0));
    mesh.exchange();
    let full = frame(4, 1, 1376 + 14, 7);
    mesh.hosts[0].send(&full);
    mesh.hosts[3].delivered();
    mesh.exchange();
    assert_eq!(mesh.hosts[3].delivered(), [full]);
    assert_eq!(mesh.hosts[0].passed(Station::SealPieces), 0);
    let tagged = frame(4, 1, 1376 + 18, 8);
    mesh.hosts[0].send(&tagged);
    mesh.exchange();
    assert_eq!(mesh.hosts[3].delivered(), [tagged]);
    assert_eq!(mesh.hosts[0].passed(Station::SealPieces), 1);
}

#[test]
fn a_route_that_is_known_to_be_narrow_behind_the_relay_is_cut_to_fit() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    mesh.hosts[0].fib.route_max.insert(slot(2), 1300);
    mesh.publish();
    let full = frame(2, 1, 1390, 7);
    mesh.hosts[0].send(&full);
    let mut longest = 0;
    for _ in 0..4 {
        mesh.step(STEP, |from, to, train| {
            if (from, to) == (1, 2) {
                longest = longest.max(train.segment);
            }
            vec![train]
        });
    }
    assert_eq!(mesh.hosts[2].delivered(), [full]);
    assert!(longest <= 1300, "{longest}");
}

/// Every bit of what a hop vouches for, and every byte of the rest.
#[test]
fn whatever_is_changed_on_the_way_is_dropped_with_a_reason() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    let train = captured(&mut mesh, &[frame(2, 1, 200, 5)]).remove(0);
    let covered = RELAY_FRONT_LEN + HEADER_LEN;
    let tags = train.bytes.len() - 2 * TAG_LEN;
    let before = mesh.hosts[1].passed(Station::Relay);
    for bit in (0..8 * covered).chain(8 * tags..8 * train.bytes.len()) {
        let mut bad = train.clone();
        bad.bytes[bit / 8] ^= 1 << (bit % 8);
        bad.address = address(0);
        let dropped = mesh.hosts[1].dropped_in_all();
        mesh.hosts[1].workers[0].1.trains_in.push_back(bad);
        mesh.hosts[1].turn(mesh.now);
        assert_eq!(
            mesh.hosts[1].dropped_in_all(),
            dropped + 1,
            "bit {bit} of byte {}",
            bit / 8
        );
    }
    assert_eq!(mesh.hosts[1].passed(Station::Relay), before);
    for reason in [
        DropReason::BadHeader,
        DropReason::UnknownSession,
        DropReason::Forged,
    ] {
        assert!(mesh.hosts[1].dropped(reason) > 0, "{reason:?}");
    }
    // What no hop can check is checked at the end.
    let mut bad = train.clone();
    bad.bytes[covered + 20] ^= 1;
    bad.address = address(0);
    mesh.hosts[1].arrive(bad);
    mesh.exchange();
    assert_eq!(mesh.hosts[1].passed(Station::Relay), before + 1);
    assert_eq!(mesh.hosts[2].dropped(DropReason::Forged), 1);
    assert!(mesh.hosts[2].delivered().is_empty());
}

#[test]
fn a_replay_is_dropped_at_the_relay_and_at_the_end() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    let frames: Vec<_> = (0..30).map(|fill| frame(2, 1, 1000, fill)).collect();
    frames.iter().for_each(|frame| mesh.hosts[0].send(frame));
    for _ in 0..4 {
        mesh.step(STEP, |from, to, train| {
            if train.bytes[0] >> 4 != 2 || from > to {
                return vec![train];
            }
            let mut twice: Vec<_> = train.datagrams().collect();
            twice.extend(train.datagrams().collect::<Vec<_>>().into_iter().rev());
            twice
        });
    }
    let mut delivered = mesh.hosts[2].delivered();
    delivered.sort();
    assert_eq!(delivered, frames);
    assert_eq!(mesh.hosts[1].dropped(DropReason::Replayed), 30);
    assert_eq!(mesh.hosts[2].dropped(DropReason::Replayed), 30);
}

#[test]
fn a_datagram_is_worth_nothing_on_another_hop() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    let train = captured(&mut mesh, &[frame(2, 1, 200, 5)]).remove(0);
    // Past the relay, straight to the end; and back to where it came from.
    for host in [2, 0] {
        let mut stray = train.clone();
        stray.address = address(1);
        mesh.hosts[host].arrive(stray);
    }
    mesh.exchange();
    assert!(mesh.hosts[2].delivered().is_empty());
    assert_eq!(mesh.hosts[2].dropped(DropReason::UnknownSession), 1);
    assert_eq!(mesh.hosts[0].dropped(DropReason::UnknownSession), 1);
}

/// Host 1 has sessions of its own with 2 and 3, and names 0 as the source of what it sealed itself.
#[test]
fn a_member_cannot_pass_its_frames_off_as_another_members() {
    let mut mesh = Mesh::line(4, 1);
    let mut data = SealLane::new(&keys(1, 1, 3), Implementation::RustCrypto, 9).unwrap();
    let mut hop = SealLane::new(&keys(1, 1, 2), Implementation::RustCrypto, 9).unwrap();
    let mut datagram = vec![0; RELAY_OVERHEAD + 200];
    let inner = RELAY_FRONT_LEN..RELAY_FRONT_LEN + 200;
    datagram[RELAY_FRONT_LEN + HEADER_LEN..][..62]
        .copy_from_slice(&[&[1, 0][..], &frame(4, 1, 60, 3)].concat());
    assert!(data.seal(&mut datagram[inner]));
    let number = |host| u64::from_be_bytes(label(host));
    assert!(
        hop.hop()
            .seal(&mut datagram, HOP_LIMIT_MAX, number(3), number(0))
    );
    mesh.hosts[2].arrive(MemoryTrain {
        segment: datagram.len(),
        bytes: datagram,
        address: address(1),
    });
    mesh.exchange();
    assert_eq!(mesh.hosts[3].dropped(DropReason::WrongSource), 1);
    assert!(mesh.hosts[3].delivered().is_empty());
}

#[test]
fn labels_that_nobody_has_and_ways_back_are_refused() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    let mut hop = SealLane::new(&keys(1, 0, 1), Implementation::RustCrypto, 9).unwrap();
    let number = |host| u64::from_be_bytes(label(host));
    let cases = [
        (77, number(0), DropReason::UnknownLabel),
        (number(2), 77, DropReason::UnknownLabel),
        (number(0), number(2), DropReason::SplitHorizon),
        (number(2), number(1), DropReason::SplitHorizon),
    ];
    for (destination, source, reason) in cases {
        let before = mesh.hosts[1].dropped(reason);
        let mut datagram = vec![0; RELAY_OVERHEAD + 200];
        assert!(
            hop.hop()
                .seal(&mut datagram, HOP_LIMIT_MAX, destination, source)
        );
        mesh.hosts[1].arrive(MemoryTrain {
            segment: datagram.len(),
            bytes: datagram,
            address: address(0),
        });
        mesh.exchange();
        assert_eq!(mesh.hosts[1].dropped(reason), before + 1, "{reason:?}");
    }
    // The relay's own table leads back.
    mesh.hosts[1].routes.insert(slot(2), NextHop::Via(slot(0)));
    mesh.publish();
    let before = mesh.hosts[1].dropped(DropReason::SplitHorizon);
    mesh.hosts[0].send(&frame(2, 1, 200, 5));
    mesh.exchange();
    assert_eq!(mesh.hosts[1].dropped(DropReason::SplitHorizon), before + 1);
}

/// Hosts 1, 2 and 3 send what is for host 4 round in a circle.
#[test]
fn a_circle_of_routes_ends_at_the_hop_limit() {
    let mut mesh = Mesh::new(5, 1, |from, to| from != 4 && to != 4);
    let circle = [(0, 1), (1, 2), (2, 3), (3, 1)];
    for (host, next) in circle {
        mesh.hosts[host]
            .routes
            .insert(slot(4), NextHop::Via(slot(next)));
    }
    mesh.publish();
    mesh.rekey();
    mesh.settle();
    let index = keys(1, 0, 4).local_index;
    mesh.hosts[0].command(
        Command::ActivateSession {
            slot: slot(4),
            local_index: index,
        },
        mesh.now,
    );
    mesh.exchange();
    let relayed = |mesh: &Mesh| -> u64 {
        let hosts = mesh.hosts.iter();
        hosts.map(|host| host.passed(Station::Relay)).sum()
    };
    let limited = |mesh: &Mesh| -> u64 {
        let hosts = mesh.hosts.iter();
        hosts.map(|host| host.dropped(DropReason::HopLimit)).sum()
    };
    let (before, limited_before) = (relayed(&mesh), limited(&mesh));
    mesh.hosts[0].command(
        Command::SendMessage {
            slot: slot(4),
            message: b"round and round"[..].into(),
        },
        mesh.now,
    );
    for _ in 0..20 {
        mesh.exchange();
    }
    assert_eq!(
        relayed(&mesh) - before,
        u64::from(HOP_LIMIT_MAX) - 1,
        "with the source's own, eight transmissions"
    );
    assert_eq!(limited(&mesh) - limited_before, 1);
}

#[test]
fn a_host_that_relays_for_nobody_says_so_in_a_counter_and_goes_on_with_its_own() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    let limits = Limits {
        relay: false,
        ..Limits::default()
    };
    let now = mesh.now;
    mesh.hosts[1].command(Command::SetLimits(limits), now);
    mesh.hosts[0].send(&frame(2, 1, 200, 5));
    mesh.exchange();
    assert!(mesh.hosts[2].delivered().is_empty());
    assert_eq!(mesh.hosts[1].dropped(DropReason::NoRelay), 1);
    mesh.hosts[1].send(&frame(9, 8, 200, 5));
    mesh.exchange();
    assert_eq!(mesh.hosts[2].delivered(), [frame(9, 8, 200, 5)]);
}

#[test]
fn sessions_are_confirmed_and_messages_cross_behind_a_relay() {
    let mut mesh = Mesh::line(3, 1);
    // Host 0 waits for a sign of host 2, which has nothing to send.
    let confirmed = |mesh: &Mesh, epoch| {
        mesh.hosts[0].events.contains(&Event::SessionConfirmed {
            slot: slot(2),
            local_index: keys(epoch, 0, 2).local_index,
        })
    };
    assert!(confirmed(&mesh, 1));
    mesh.rekey();
    mesh.exchange();
    assert!(confirmed(&mesh, 2));
    let message = bytes::Bytes::from_static(b"rekey, please");
    let now = mesh.now;
    mesh.hosts[2].command(
        Command::SendMessage {
            slot: slot(0),
            message: message.clone(),
        },
        now,
    );
    mesh.exchange();
    assert!(mesh.hosts[0].events.contains(&Event::Message {
        slot: slot(2),
        message
    }));
    assert!(
        !mesh.hosts[0]
            .events
            .iter()
            .any(|event| matches!(event, Event::PathUp { slot: up, .. } if *up == slot(2))),
        "what came through a relay is no path"
    );
}

#[test]
fn a_path_that_opens_takes_over_and_nothing_is_lost_on_either_side_of_the_change() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    let mut wanted = Vec::new();
    let send = |mesh: &mut Mesh, wanted: &mut Vec<_>, fills: std::ops::Range<u8>| {
        for fill in fills {
            wanted.push(frame(2, 1, 900, fill));
            mesh.hosts[0].send(wanted.last().unwrap());
        }
    };
    send(&mut mesh, &mut wanted, 0..10);
    mesh.step(STEP, |_, _, train| vec![train]);
    mesh.links = |_, _| true;
    mesh.settle();
    let relayed = mesh.hosts[1].passed(Station::Relay);
    for host in [0, 2] {
        mesh.hosts[host]
            .routes
            .insert(slot(2 - host), NextHop::Direct);
    }
    mesh.publish();
    send(&mut mesh, &mut wanted, 10..20);
    mesh.exchange();
    assert_eq!(mesh.hosts[2].delivered(), wanted);
    assert_eq!(mesh.hosts[1].passed(Station::Relay), relayed);
}

#[test]
fn frames_wait_until_the_relay_can_be_reached_and_leave_then() {
    let mut mesh = Mesh::strangers(&[1, 1, 1]);
    mesh.hosts[0].send(&frame(2, 1, 200, 5));
    mesh.exchange();
    assert!(mesh.hosts[0].passed(Station::Stage) > 0);
    mesh.rekey();
    mesh.settle();
    assert_eq!(mesh.hosts[2].delivered(), [frame(2, 1, 200, 5)]);
}

#[test]
fn lanes_keep_to_their_workers_through_a_relay() {
    let mut mesh = Mesh::line(3, 2);
    introduce(&mut mesh);
    let handoffs = |mesh: &Mesh| -> u64 {
        let hosts = mesh.hosts.iter();
        hosts.map(|host| host.passed(Station::UdpRxHandoff)).sum()
    };
    let before = handoffs(&mesh);
    let frames: Vec<_> = (0..40).map(|fill| frame(2, 1, 300, fill)).collect();
    for (number, frame) in frames.iter().enumerate() {
        mesh.hosts[0].send_on(number % 2, frame);
    }
    mesh.exchange();
    let mut delivered = mesh.hosts[2].delivered();
    delivered.sort();
    assert_eq!(delivered, frames);
    assert_eq!(handoffs(&mesh), before);
    for worker in 0..2 {
        let counters = mesh.hosts[1].workers[worker].0.counters();
        assert!(counters.passed(Station::Relay) > 0, "worker {worker}");
    }
}

#[test]
fn an_inner_lane_of_another_worker_reaches_its_owner() {
    // The relay has one worker, so all that it passes on has hop lane 0.
    let mut mesh = Mesh::line_of(&[2, 1, 2]);
    introduce(&mut mesh);
    let before = mesh.hosts[2].passed(Station::UdpRxHandoff);
    mesh.hosts[0].send_on(1, &frame(2, 1, 300, 4));
    mesh.exchange();
    assert_eq!(mesh.hosts[2].delivered(), [frame(2, 1, 300, 4)]);
    assert_eq!(mesh.hosts[2].passed(Station::UdpRxHandoff), before + 1);
    let counters = mesh.hosts[2].workers[1].0.counters();
    assert!(counters.passed(Station::Open) > 0);
}

/// Hosts 0 and 3 both send through 1 to 2; host 0 sends forty times what a turn passes on.
#[test]
fn a_greedy_sender_loses_its_own_and_a_modest_one_nothing() {
    let mut mesh = Mesh::new(4, 1, |from, to| from == 1 || to == 1);
    for (host, other) in [(0, 2), (3, 2), (2, 0), (2, 3)] {
        mesh.hosts[host]
            .routes
            .insert(slot(other), NextHop::Via(slot(1)));
    }
    mesh.publish();
    mesh.rekey();
    mesh.settle();
    introduce(&mut mesh);
    let modest: Vec<_> = (0..60).map(|fill| frame(2, 7, 1000, fill)).collect();
    for frame in &modest {
        for _ in 0..24 {
            mesh.hosts[0].workers[0]
                .1
                .frames_in
                .push_back(super_frame(40_000));
        }
        mesh.hosts[3].send(frame);
        mesh.step(STEP, |_, _, train| vec![train]);
    }
    for _ in 0..60 {
        mesh.exchange();
    }
    let delivered = mesh.hosts[2].delivered();
    let got: Vec<_> = delivered
        .into_iter()
        .filter(|frame| frame[11] == 7)
        .collect();
    assert_eq!(got, modest);
    assert!(mesh.hosts[1].dropped(DropReason::RelayFull) > 0);
    mesh.hosts.iter_mut().for_each(|host| host.check_pools());
}

/// Host 0 sends far more in a moment than a turn passes on, and nobody else wants to pass: that is no reason to drop.
#[test]
fn a_sender_alone_loses_nothing_at_a_relay_that_is_slower() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    let (steps, each) = (20, 24);
    for _ in 0..steps {
        for _ in 0..each {
            mesh.hosts[0].workers[0]
                .1
                .frames_in
                .push_back(super_frame(40_000));
        }
        mesh.step(STEP, |_, _, train| vec![train]);
    }
    for _ in 0..30 {
        mesh.exchange();
    }
    let delivered: usize = mesh.hosts[2].delivered().iter().map(Vec::len).sum();
    assert!(delivered >= steps * each * 40_000, "{delivered} bytes");
    assert_eq!(mesh.hosts[1].dropped(DropReason::RelayFull), 0);
    mesh.hosts.iter_mut().for_each(|host| host.check_pools());
}

/// Host 1 relays what host 0 sends without end, and has a frame of its own.
#[test]
fn a_busy_relay_serves_its_own_containers_too() {
    let mut mesh = Mesh::line(3, 1);
    introduce(&mut mesh);
    for _ in 0..50 {
        mesh.hosts[0].workers[0]
            .1
            .frames_in
            .push_back(super_frame(40_000));
        mesh.hosts[1].send(&frame(2, 6, 500, 1));
        mesh.step(STEP, |_, _, train| vec![train]);
    }
    mesh.exchange();
    let delivered = mesh.hosts[2].delivered();
    let own = delivered.iter().filter(|frame| frame[11] == 6).count();
    let relayed: usize = delivered
        .iter()
        .filter(|frame| frame[11] == 1)
        .map(|frame| frame.len() - 54)
        .sum();
    assert_eq!(own, 50);
    assert_eq!(relayed, 50 * 40_000);
}
