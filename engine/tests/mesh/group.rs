//! GROUP datagrams: floods sealed once and copied along the source's tree.
//!
//! ```text
//!   source 0 ─► 1 ─┬─► 2
//!                  └─► 3 ─► 4       no datagram crosses but between 0-1, 1-2, 1-3, 3-4 (and 2-4, which no tree uses)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weft_engine::bridge::{Branch, GroupFib, NextHop};
use weft_engine::command::{Command, Event, GroupKey, Limits, SecretKey};
use weft_engine::io::memory::MemoryTrain;
use weft_engine::session::CipherSuite;
use weft_engine::verdict::{DropReason, Station};
use weft_engine::wire::TAG_LEN;

use crate::hosts::{Mesh, frame, slot};

const STEP: Duration = Duration::from_millis(1);
const LINKS: [(usize, usize); 5] = [(0, 1), (1, 2), (1, 3), (3, 4), (2, 4)];
/// Who copies for whom in the tree of source 0.
const TREE: [(usize, usize); 4] = [(0, 1), (1, 2), (1, 3), (3, 4)];

fn linked(from: usize, to: usize) -> bool {
    LINKS.contains(&(from, to)) || LINKS.contains(&(to, from))
}

fn children(host: usize) -> Vec<weft_engine::command::PeerSlot> {
    let below = TREE.iter().filter(|(parent, _)| *parent == host);
    below.map(|(_, child)| slot(*child)).collect()
}

fn give_key(mesh: &mut Mesh, epoch: u32, to: &[usize]) {
    let now = mesh.now;
    for host in to {
        let key = GroupKey {
            slot: (*host != 0).then(|| slot(0)),
            epoch,
            suite: CipherSuite::ChaCha20Poly1305,
            key: SecretKey([u8::try_from(epoch).unwrap(); 32]),
            lanes: 16,
        };
        mesh.hosts[*host].command(Command::SetGroupKey(Arc::new(key)), now);
    }
}

/// Everybody has keys, paths, source 0's tree, and no other flood set.
fn grown(workers: u16) -> Mesh {
    let mut mesh = Mesh::new(5, workers, linked);
    for host in 0..5 {
        let mut group = GroupFib {
            sources: BTreeMap::new(),
            ..GroupFib::default()
        };
        if host == 0 {
            group.children = children(0);
        } else if let Some((parent, _)) = TREE.iter().find(|(_, child)| *child == host) {
            let branch = Branch {
                parent: slot(*parent),
                children: children(host),
            };
            group.sources.insert(slot(0), branch);
        }
        mesh.hosts[host].fib.group = Some(Arc::new(group));
    }
    mesh.publish();
    mesh.rekey();
    mesh.settle();
    give_key(&mut mesh, 1, &[0, 1, 2, 3, 4]);
    mesh
}

/// A host's place in source 0's tree.
fn branch_of(mesh: &mut Mesh, host: usize) -> &mut Branch {
    let group = mesh.hosts[host].fib.group.as_mut().unwrap();
    Arc::make_mut(group).sources.get_mut(&slot(0)).unwrap()
}

fn broadcast(len: usize, fill: u8) -> Vec<u8> {
    let mut frame = frame(0, 1, len, fill);
    frame[..6].fill(0xff);
    frame
}

fn is_group(train: &MemoryTrain) -> bool {
    train.bytes[0] >> 4 == 3
}

#[test]
fn a_flood_without_a_key_asks_for_one_now_and_then() {
    let mut mesh = grown(1);
    let now = mesh.now;
    let (slot, epoch) = (None, 1);
    mesh.hosts[0].command(Command::RemoveGroupKey { slot, epoch }, now);
    mesh.hosts[0].fib.flood = vec![crate::hosts::slot(1)];
    mesh.publish();
    let asked = |mesh: &Mesh| {
        let events = mesh.hosts[0].events.iter();
        events
            .filter(|event| **event == Event::GroupKeyWanted)
            .count()
    };
    for (passed, wanted) in [(0, 1), (10, 1), (1100, 2)] {
        for _ in 0..passed {
            mesh.step(STEP, |_, _, train| vec![train]);
        }
        mesh.hosts[0].send(&broadcast(100, 7));
        mesh.exchange();
        assert_eq!(asked(&mesh), wanted, "after {passed} ms more");
    }
    assert!(
        !mesh.hosts[1].delivered().is_empty(),
        "sealed for each until then"
    );
    give_key(&mut mesh, 2, &[0, 1]);
    for _ in 0..1100 {
        mesh.step(STEP, |_, _, train| vec![train]);
    }
    mesh.hosts[0].send(&broadcast(100, 8));
    mesh.exchange();
    assert_eq!(asked(&mesh), 2);
}

#[test]
fn a_flood_is_sealed_once_and_reaches_everybody_once() {
    for workers in [1, 2] {
        let mut mesh = grown(workers);
        let sealed = mesh.hosts[0].passed(Station::Seal);
        let frames: Vec<_> = (0..20).map(|fill| broadcast(300, fill)).collect();
        for (number, frame) in frames.iter().enumerate() {
            mesh.hosts[0].send_on(number % usize::from(workers), frame);
        }
        let mut seen = Vec::new();
        for _ in 0..8 {
            mesh.step(STEP, |_, _, train| {
                if is_group(&train) {
                    seen.push(train.bytes.clone());
                }
                vec![train]
            });
        }
        assert!(
            mesh.hosts[0].passed(Station::Seal) - sealed < 30,
            "probes aside"
        );
        for host in 1..5 {
            let mut delivered = mesh.hosts[host].delivered();
            delivered.sort();
            assert_eq!(delivered, frames, "host {host}, {workers} workers");
        }
        assert!(mesh.hosts[0].delivered().is_empty());
        let copies: u64 = mesh
            .hosts
            .iter()
            .map(|host| host.passed(Station::GroupCopies))
            .sum();
        assert_eq!(copies, 4 * 20);
        assert!(
            seen.iter()
                .all(|bytes| !bytes.windows(16).any(|part| part == [7; 16]))
        );
        mesh.hosts.iter_mut().for_each(|host| host.check_pools());
    }
}

#[test]
fn a_frame_of_the_default_mtu_fits_and_a_tagged_one_crosses_in_two_pieces() {
    let mut mesh = grown(1);
    let (full, tagged) = (broadcast(1376 + 14, 7), broadcast(1376 + 18, 8));
    mesh.hosts[0].send(&full);
    mesh.exchange();
    assert_eq!(mesh.hosts[0].passed(Station::SealPieces), 0);
    mesh.hosts[0].send(&tagged);
    mesh.exchange();
    assert_eq!(mesh.hosts[0].passed(Station::SealPieces), 1);
    for host in 1..5 {
        assert_eq!(mesh.hosts[host].delivered(), [full.clone(), tagged.clone()]);
    }
}

#[test]
fn a_flood_from_anybody_but_the_parent_is_refused() {
    let mut mesh = grown(1);
    // Host 2 believes that 4 is its child; 4 listens to 3.
    branch_of(&mut mesh, 2).children = vec![slot(4)];
    mesh.publish();
    mesh.hosts[0].send(&broadcast(300, 1));
    mesh.exchange();
    assert_eq!(mesh.hosts[4].delivered(), [broadcast(300, 1)]);
    assert_eq!(mesh.hosts[4].dropped(DropReason::NotParent), 1);
}

#[test]
fn a_change_of_the_tree_brings_no_frame_twice() {
    let mut mesh = grown(1);
    mesh.hosts[0].send(&broadcast(300, 1));
    // Host 4 gets its copy from 3; then 2 becomes its parent and brings a late one.
    let mut late = Vec::new();
    branch_of(&mut mesh, 2).children = vec![slot(4)];
    mesh.publish();
    for _ in 0..6 {
        mesh.step(STEP, |from, to, train| {
            if (from, to) == (2, 4) && is_group(&train) {
                late.push(train);
                return Vec::new();
            }
            vec![train]
        });
    }
    assert_eq!(mesh.hosts[4].delivered().len(), 1);
    branch_of(&mut mesh, 4).parent = slot(2);
    mesh.publish();
    let mut train = late.remove(0);
    train.address = crate::hosts::address(2);
    mesh.hosts[4].arrive(train);
    mesh.exchange();
    assert!(mesh.hosts[4].delivered().is_empty());
    assert_eq!(mesh.hosts[4].dropped(DropReason::Replayed), 1);
}

#[test]
fn whatever_is_changed_in_a_flood_is_dropped_with_a_reason_and_not_passed_on() {
    let mut mesh = grown(1);
    mesh.hosts[0].send(&broadcast(100, 1));
    let mut captured = Vec::new();
    mesh.step(STEP, |from, _, train| {
        if from == 0 && is_group(&train) {
            captured.push(train);
            return Vec::new();
        }
        vec![train]
    });
    let train = captured.remove(0);
    let copies = mesh.hosts[1].passed(Station::GroupCopies);
    for at in 0..train.bytes.len() {
        let mut bad = train.clone();
        bad.bytes[at] ^= 0x10;
        bad.address = crate::hosts::address(0);
        let before = mesh.hosts[1].dropped_in_all();
        mesh.hosts[1].workers[0].1.trains_in.push_back(bad);
        mesh.hosts[1].turn(mesh.now);
        assert_eq!(mesh.hosts[1].dropped_in_all(), before + 1, "byte {at}");
        // What no hop tag covers uses up the hop's counter: take the next as it comes.
        if (48..train.bytes.len() - 2 * TAG_LEN).contains(&at) {
            break;
        }
    }
    assert_eq!(mesh.hosts[1].passed(Station::GroupCopies), copies);
    assert!(mesh.hosts[1].delivered().is_empty());
}

#[test]
fn keys_are_renewed_without_loss_and_an_old_one_opens_nothing_for_ever() {
    let mut mesh = grown(1);
    for epoch in 2..6 {
        give_key(&mut mesh, epoch, &[1, 2, 3, 4]);
        mesh.hosts[0].send(&broadcast(300, 1));
        give_key(&mut mesh, epoch, &[0]);
        mesh.hosts[0].send(&broadcast(300, 2));
        mesh.exchange();
        assert_eq!(mesh.hosts[4].delivered().len(), 2);
        assert_eq!(mesh.hosts[3].delivered().len(), 2);
    }
    // A member that left does not get the next key; it still copies for its children.
    give_key(&mut mesh, 9, &[0, 1, 2, 4]);
    mesh.hosts[0].send(&broadcast(300, 3));
    mesh.exchange();
    assert!(mesh.hosts[3].delivered().is_empty());
    assert_eq!(mesh.hosts[3].dropped(DropReason::NoGroupKey), 1);
    assert_eq!(mesh.hosts[4].delivered(), [broadcast(300, 3)]);
    let now = mesh.now;
    let remove = |slot| Command::RemoveGroupKey { slot, epoch: 9 };
    mesh.hosts[4].command(remove(Some(slot(0))), now);
    mesh.hosts[0].send(&broadcast(300, 4));
    mesh.exchange();
    assert!(mesh.hosts[4].delivered().is_empty());
    // A key that was used is not used again: its counters would be.
    mesh.hosts[0].command(remove(None), now);
    give_key(&mut mesh, 9, &[0]);
    let copies = mesh.hosts[0].passed(Station::GroupCopies);
    mesh.hosts[0].send(&broadcast(300, 5));
    mesh.exchange();
    assert_eq!(mesh.hosts[0].passed(Station::GroupCopies), copies);
}

#[test]
fn without_a_key_each_member_gets_a_copy_of_its_own() {
    let mut mesh = grown(1);
    let now = mesh.now;
    mesh.hosts[0].command(
        Command::RemoveGroupKey {
            slot: None,
            epoch: 1,
        },
        now,
    );
    mesh.hosts[0].routes.insert(slot(2), NextHop::Via(slot(1)));
    mesh.hosts[2].routes.insert(slot(0), NextHop::Via(slot(1)));
    mesh.hosts[0].fib.flood = vec![slot(1), slot(2)];
    mesh.publish();
    mesh.exchange();
    mesh.hosts[0].send(&broadcast(300, 1));
    mesh.exchange();
    for host in [1, 2] {
        assert_eq!(mesh.hosts[host].delivered(), [broadcast(300, 1)]);
    }
}

#[test]
fn a_host_that_relays_for_nobody_takes_floods_and_copies_none() {
    let mut mesh = grown(1);
    let limits = Limits {
        relay: false,
        ..Limits::default()
    };
    let now = mesh.now;
    mesh.hosts[3].command(Command::SetLimits(limits), now);
    mesh.hosts[0].send(&broadcast(300, 1));
    mesh.exchange();
    assert_eq!(mesh.hosts[3].delivered(), [broadcast(300, 1)]);
    assert!(mesh.hosts[4].delivered().is_empty());
    assert_eq!(mesh.hosts[3].dropped(DropReason::NoRelay), 1);
}
