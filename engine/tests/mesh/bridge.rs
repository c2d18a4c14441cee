//! Questions answered at home, storms, loops through a LAN, and moves.
//!
//! ```text
//!   0 ═══ 1
//!    ╲   ╱        containers have MAC 02:00:00:00:00:NN and address 10.32.0.NN
//!      2
//! ```

use std::sync::Arc;
use std::time::Duration;

use weft_engine::bridge::{Neighbour, NeighbourTable};
use weft_engine::command::{Command, Event, Flow};
use weft_engine::verdict::{DropReason, Station};
use weft_engine::wire::ethernet::MacAddr;

use crate::hosts::{Mesh, frame, slot};

const STEP: Duration = Duration::from_millis(1);

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn triangle() -> Mesh {
    let mut mesh = Mesh::new(3, 1, |_, _| true);
    mesh.publish();
    mesh.rekey();
    mesh.settle();
    mesh
}

/// Tells every host which container is where.
fn attach(mesh: &mut Mesh, places: &[(u8, usize, u64)]) {
    let now = mesh.now;
    for host in 0..mesh.hosts.len() {
        let table = NeighbourTable::new(places.iter().map(|(last, at, moves)| Neighbour {
            mac: mac(*last),
            slot: (*at != host).then(|| slot(*at)),
            moves: *moves,
            addresses: vec![[10, 32, 0, *last].into()],
        }));
        mesh.hosts[host].command(Command::SetNeighbours(Arc::new(table)), now);
    }
}

fn arp(from: u8, target: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac(from).0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac(from).0);
    frame.extend([10, 32, 0, from]);
    frame.extend([0; 6]);
    frame.extend([10, 32, 0, target]);
    frame.resize(60, 0);
    frame
}

fn broadcast(from: u8, fill: u8) -> Vec<u8> {
    let mut frame = frame(0, from, 100, fill);
    frame[..6].fill(0xff);
    frame
}

fn noticed(mesh: &Mesh, host: usize) -> Vec<(usize, MacAddr)> {
    let events = mesh.hosts[host].events.iter();
    events
        .filter_map(|event| {
            let Event::LoopSuspected { slot, mac } = event else {
                return None;
            };
            Some((usize::from(slot.0), *mac))
        })
        .collect()
}

#[test]
fn a_question_about_a_known_attachment_never_leaves_the_host() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0), (3, 0, 0)]);
    mesh.hosts[0].send(&arp(1, 2));
    mesh.exchange();
    let answers = mesh.hosts[0].delivered();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0][..12], [mac(1).0, mac(2).0].concat());
    assert_eq!(answers[0][20..32], [0, 2, 2, 0, 0, 0, 0, 2, 10, 32, 0, 2]);
    assert!(mesh.hosts[1].delivered().is_empty());
    assert_eq!(mesh.hosts[0].passed(Station::BridgeAnswers), 1);
    // One of our own: it answers for itself, over the bridge.
    mesh.hosts[0].send(&arp(1, 3));
    mesh.exchange();
    assert!(mesh.hosts[0].delivered().is_empty() && mesh.hosts[1].delivered().is_empty());
    // Nobody knows this one.
    mesh.hosts[0].send(&arp(1, 9));
    mesh.exchange();
    assert_eq!(mesh.hosts[1].delivered(), [arp(1, 9)]);
    mesh.hosts.iter_mut().for_each(|host| host.check_pools());
}

#[test]
fn nothing_is_answered_for_a_peer_that_cannot_be_reached() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0)]);
    mesh.links = |from, to| from != 1 && to != 1;
    for _ in 0..40 {
        mesh.step(Duration::from_millis(100), |_, _, train| vec![train]);
    }
    mesh.hosts[0].send(&arp(1, 2));
    mesh.exchange();
    assert!(mesh.hosts[0].delivered().is_empty());
    assert_eq!(mesh.hosts[2].delivered(), [arp(1, 2)]);
}

fn ipv4(from: u8, to: u8) -> Vec<u8> {
    let mut frame = frame(to, from, 100, 7);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[26..30].copy_from_slice(&[10, 32, 0, from]);
    frame
}

#[test]
fn nothing_leaves_from_an_address_that_another_host_owns() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0), (3, 0, 0)]);
    let disputed = Command::SetDisputed([[10, 32, 0, 1], [10, 32, 0, 7]].into());
    let now = mesh.now;
    mesh.hosts[0].command(disputed, now);
    for frame in [ipv4(1, 2), arp(1, 9)] {
        mesh.hosts[0].send(&frame);
    }
    mesh.exchange();
    assert!(mesh.hosts[1].delivered().is_empty());
    assert_eq!(mesh.hosts[0].dropped(DropReason::AddressDisputed), 2);
    mesh.hosts[0].send(&ipv4(3, 2));
    mesh.exchange();
    assert_eq!(mesh.hosts[1].delivered(), [ipv4(3, 2)]);
    mesh.hosts[0].command(Command::SetDisputed([].into()), now);
    mesh.hosts[0].send(&ipv4(1, 2));
    mesh.exchange();
    assert_eq!(mesh.hosts[1].delivered(), [ipv4(1, 2)]);
    mesh.hosts.iter_mut().for_each(|host| host.check_pools());
}

fn set_flow(mesh: &mut Mesh, host: usize, peer: usize, flow: Flow) {
    let (now, slot) = (mesh.now, slot(peer));
    mesh.hosts[host].command(Command::SetFlow { slot, flow }, now);
}

/// What a peer sends is dropped, what is for it waits, each by its own side; others do not notice.
#[test]
fn frames_flow_with_a_peer_as_control_has_it() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0), (3, 2, 0)]);
    set_flow(&mut mesh, 0, 1, Flow::Shut);
    mesh.hosts[0].send(&ipv4(1, 2));
    mesh.hosts[0].send(&broadcast(1, 5));
    mesh.hosts[1].send(&ipv4(2, 1));
    mesh.exchange();
    assert!(mesh.hosts[0].delivered().is_empty() && mesh.hosts[1].delivered().is_empty());
    assert_eq!(mesh.hosts[2].delivered(), [broadcast(1, 5)]);
    assert_eq!(mesh.hosts[0].dropped(DropReason::FlowShut), 1);

    set_flow(&mut mesh, 0, 1, Flow::Heard);
    mesh.hosts[1].send(&ipv4(2, 1));
    mesh.exchange();
    assert_eq!(mesh.hosts[0].delivered(), [ipv4(2, 1)]);
    assert!(mesh.hosts[1].delivered().is_empty());

    set_flow(&mut mesh, 0, 1, Flow::Open);
    mesh.exchange();
    assert_eq!(mesh.hosts[1].delivered(), [ipv4(1, 2), broadcast(1, 5)]);
    mesh.hosts.iter_mut().for_each(|host| host.check_pools());
}

/// What waited for the peer while it was heard that its address is another host's never leaves.
#[test]
fn what_waits_does_not_leave_once_its_address_is_disputed() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0), (3, 0, 0)]);
    set_flow(&mut mesh, 0, 1, Flow::Shut);
    mesh.hosts[0].send(&ipv4(1, 2));
    mesh.hosts[0].send(&ipv4(3, 2));
    mesh.exchange();
    let now = mesh.now;
    mesh.hosts[0].command(Command::SetDisputed([[10, 32, 0, 1]].into()), now);
    set_flow(&mut mesh, 0, 1, Flow::Open);
    mesh.exchange();
    assert_eq!(mesh.hosts[1].delivered(), [ipv4(3, 2)]);
    assert_eq!(mesh.hosts[0].dropped(DropReason::AddressDisputed), 1);
    mesh.hosts.iter_mut().for_each(|host| host.check_pools());
}

#[test]
fn a_frame_for_a_known_attachment_is_not_flooded_before_it_was_heard() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0)]);
    mesh.hosts[0].send(&frame(2, 1, 100, 7));
    mesh.exchange();
    assert_eq!(mesh.hosts[1].delivered(), [frame(2, 1, 100, 7)]);
    assert!(mesh.hosts[2].delivered().is_empty());
    assert_eq!(mesh.hosts[0].passed(Station::Bridge), 0);
}

/// 50 000 questions a second about an address that nobody has, while another container floods and sends.
#[test]
fn a_storm_hardly_leaves_and_others_do_not_notice() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0), (3, 0, 0)]);
    let (mut unicast, mut floods) = (0, 0);
    for round in 0..1000_u16 {
        for _ in 0..50 {
            mesh.hosts[0].send(&arp(1, 99));
        }
        let [_, fill] = round.to_be_bytes();
        mesh.hosts[0].send(&frame(2, 3, 200, fill));
        if round % 10 == 0 {
            mesh.hosts[0].send(&broadcast(3, fill));
        }
        mesh.step(STEP, |_, _, train| vec![train]);
        for frame in mesh.hosts[1].delivered() {
            unicast += usize::from(frame.len() == 200);
            floods += usize::from(frame.len() == 100);
        }
    }
    assert!(unicast >= 999, "{unicast}");
    assert!(floods >= 99, "{floods}");
    let out = mesh.hosts[0].passed(Station::Bridge);
    assert!(out < 800, "{out} of 50 000 left");
    assert!(mesh.hosts[0].dropped(DropReason::FloodMac) > 49_000);
}

/// What container 1 of host 0 floods comes back by host 1, whose bridge stands on the same LAN.
#[test]
fn our_own_flood_that_a_peer_brings_back_is_stopped_and_said_once() {
    for managed in [true, false] {
        let mut mesh = triangle();
        if managed {
            attach(&mut mesh, &[(1, 0, 0), (2, 1, 0)]);
        }
        for fill in 0..20 {
            let frame = broadcast(1, fill);
            mesh.hosts[0].send(&frame);
            // The LAN brings it to host 1's bridge.
            mesh.hosts[1].send(&frame);
            mesh.step(STEP, |_, _, train| vec![train]);
            for back in mesh.hosts[1].delivered() {
                mesh.hosts[0].send(&back);
            }
            for back in mesh.hosts[0].delivered() {
                mesh.hosts[1].send(&back);
            }
        }
        mesh.exchange();
        // Nothing goes round for long; host 2 sees most frames once or twice.
        let seen = mesh.hosts[2].delivered();
        assert!((20..=60).contains(&seen.len()), "{}", seen.len());
        assert!(
            mesh.hosts[0].passed(Station::Bridge) <= 60,
            "floods of host 0, managed {managed}"
        );
        let loops: u64 = mesh
            .hosts
            .iter()
            .map(|host| host.dropped(DropReason::Loop))
            .sum();
        assert!(loops >= 1, "{loops}");
        let said: Vec<_> = [noticed(&mesh, 0), noticed(&mesh, 1)].concat();
        assert!(!said.is_empty() && said.len() <= 2, "{said:?}");
        assert!(said.iter().all(|(_, whose)| *whose == mac(1)));
        // Host 0 still knows its container.
        mesh.hosts[2].delivered();
        mesh.hosts[0].delivered();
        mesh.hosts[2].send(&frame(1, 7, 100, 1));
        mesh.exchange();
        assert!(mesh.hosts[0].delivered().contains(&frame(1, 7, 100, 1)));
    }
}

#[test]
fn a_peer_is_spared_floods_for_a_while_after_a_loop_and_no_longer() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (4, 0, 0)]);
    let frame = broadcast(1, 7);
    let now = mesh.now;
    // Host 1 knows of no attachments, and its LAN is faster than the underlay.
    mesh.hosts[1].command(Command::SetNeighbours(Arc::default()), now);
    mesh.hosts[0].send(&frame);
    mesh.hosts[1].send(&frame);
    mesh.step(STEP, |from, to, train| {
        if (from, to) == (0, 1) {
            return Vec::new();
        }
        vec![train]
    });
    mesh.exchange();
    assert!(mesh.hosts[0].dropped(DropReason::Loop) >= 1);
    mesh.hosts[1].delivered();
    mesh.hosts[0].send(&broadcast(4, 1));
    mesh.exchange();
    assert!(mesh.hosts[1].delivered().is_empty());
    assert!(mesh.hosts[2].delivered().contains(&broadcast(4, 1)));
    assert!(mesh.hosts[0].dropped(DropReason::FloodRest) >= 1);
    for _ in 0..110 {
        mesh.step(Duration::from_millis(100), |_, _, train| vec![train]);
    }
    mesh.hosts[0].send(&broadcast(4, 2));
    mesh.exchange();
    assert!(mesh.hosts[1].delivered().contains(&broadcast(4, 2)));
}

#[test]
fn a_local_attachments_mac_is_not_learned_from_a_peer_that_merely_uses_it() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0)]);
    mesh.hosts[0].send(&frame(2, 1, 100, 1));
    mesh.exchange();
    mesh.hosts[2].send(&frame(1, 1, 100, 2));
    mesh.hosts[2].send(&frame(2, 1, 100, 2));
    mesh.exchange();
    assert_eq!(noticed(&mesh, 0), [(2, mac(1))]);
    mesh.hosts[1].delivered();
    mesh.hosts[0].delivered();
    mesh.hosts[1].send(&frame(1, 2, 100, 3));
    mesh.exchange();
    assert_eq!(mesh.hosts[0].delivered(), [frame(1, 2, 100, 3)]);
    assert!(mesh.hosts[2].delivered().is_empty());
}

#[test]
fn a_container_that_moves_is_found_at_once_by_its_announcement_or_by_controls() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0)]);
    mesh.hosts[1].send(&frame(1, 2, 100, 1));
    mesh.exchange();
    assert_eq!(mesh.hosts[0].delivered(), [frame(1, 2, 100, 1)]);
    for round in 0..10_u8 {
        // By gratuitous ARP: control has not heard of it yet.
        let (to, back) = if round % 2 == 0 { (2, 0) } else { (0, 2) };
        mesh.step(Duration::from_millis(300), |_, _, train| vec![train]);
        mesh.hosts[to].send(&arp(1, 1));
        mesh.exchange();
        mesh.hosts.iter_mut().for_each(|host| {
            host.delivered();
        });
        mesh.hosts[1].send(&frame(1, 2, 100, round));
        mesh.exchange();
        assert_eq!(
            mesh.hosts[to].delivered(),
            [frame(1, 2, 100, round)],
            "round {round}"
        );
        assert!(mesh.hosts[back].delivered().is_empty());
        attach(&mut mesh, &[(1, to, u64::from(round) + 1), (2, 1, 0)]);
    }
    // By control's word alone.
    attach(&mut mesh, &[(1, 2, 50), (2, 1, 0)]);
    mesh.hosts[1].send(&frame(1, 2, 100, 77));
    mesh.exchange();
    assert_eq!(mesh.hosts[2].delivered(), [frame(1, 2, 100, 77)]);
    assert!(noticed(&mesh, 1).is_empty());
}

#[test]
fn an_address_that_was_announced_with_another_mac_is_not_answered_for_with_the_old_one() {
    let mut mesh = triangle();
    attach(&mut mesh, &[(1, 0, 0), (2, 1, 0)]);
    let question = arp(2, 1);
    mesh.hosts[1].send(&question);
    mesh.exchange();
    assert_eq!(mesh.hosts[1].passed(Station::BridgeAnswers), 1);
    // The container of host 0 gets the MAC of 9 and says so.
    let mut says = arp(1, 1);
    for at in [6, 22] {
        says[at..at + 6].copy_from_slice(&mac(9).0);
    }
    mesh.hosts[0].send(&says);
    mesh.exchange();
    mesh.hosts[0].delivered();
    mesh.hosts[1].send(&question);
    mesh.exchange();
    assert_eq!(mesh.hosts[1].passed(Station::BridgeAnswers), 1);
    assert!(mesh.hosts[0].delivered().contains(&question));
    // The old MAC again, in its own words.
    mesh.hosts[0].send(&arp(1, 1));
    mesh.exchange();
    mesh.hosts[1].send(&question);
    mesh.exchange();
    assert_eq!(mesh.hosts[1].passed(Station::BridgeAnswers), 2);
}
