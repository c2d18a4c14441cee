//! A container moves from host to host and keeps its addresses.
//!
//! ```text
//!  moving 10.2.1.50 ─ h0, then h1, then h0 …        c2 on h2 talks to it all the time
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::json;
use weft_netns_tests::{
    ETHERTYPE_ARP, Host, Lab, Mac, Mesh, Ping, RawSocket, alone_in_lab, ethernet, is_long, pause,
    record, within,
};

const MOVING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 1, 50));
const MOVING_MAC: Mac = [2, 0, 0, 0, 0, 0x50];
const REACH_LIMIT: Duration = Duration::from_secs(10);
/// The longest time in which nobody reaches a container that moves.
const GAP_MAX: Duration = Duration::from_secs(1);

#[test]
fn a_container_that_moves_with_its_mac_is_reached_at_its_new_place_at_once() {
    alone_in_lab(|lab| moves(lab, true));
}

#[test]
fn a_container_that_gets_another_mac_at_its_new_place_is_reached_at_once_too() {
    alone_in_lab(|lab| moves(lab, false));
}

/// Until somebody who asks anew hears the answer: a look of control at the MAC would take ten.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

#[test]
fn a_container_that_changes_its_mac_is_reached_by_those_who_ask_at_once() {
    alone_in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        mesh.start(&[], |index| (0..index).collect());
        mesh.wait_until_all_reachable(REACH_LIMIT);
        let changing = lab.host("changing");
        mesh.weft[0].ok(&["attach", "10.2.1.50/24", &changing.as_container()]);
        let forgets = || {
            mesh.containers[2].run(&["ip", "neigh", "flush", "dev", "ethwe"]);
        };
        let reaches = || mesh.containers[2].reaches_within(MOVING, Duration::from_millis(500));
        within("its host answers for it", REACH_LIMIT, || {
            forgets();
            let before = mesh.weft[2].count(&["bridge_answers"]);
            reaches() && mesh.weft[2].count(&["bridge_answers"]) > before
        });
        forgets();
        let mac = "02:00:00:00:00:50";
        changing.run(&["ip", "link", "set", "ethwe", "address", mac]);
        within("the first echo", ANSWER_LIMIT, reaches);
    });
}

/// Says that the address is at this MAC, as a machine does that was moved.
fn announce(moving: &Host) {
    let says = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &MOVING_MAC,
        &[10, 2, 1, 50],
        &[0; 6],
        &[10, 2, 1, 50],
    ]
    .concat();
    RawSocket::open(moving, "ethwe").send(&ethernet([0xff; 6], MOVING_MAC, ETHERTYPE_ARP, &says));
}

fn moves(lab: &Lab, with_mac: bool) {
    let mesh = Mesh::new(lab, 3);
    mesh.start(&[], |index| (0..index).collect());
    mesh.wait_until_all_reachable(REACH_LIMIT);
    let moving = lab.host("moving");
    let attach = |place: usize| {
        mesh.weft[place].ok(&["attach", "10.2.1.50/24", &moving.as_container()]);
        if with_mac {
            let mac = "02:00:00:00:00:50";
            moving.run(&["ip", "link", "set", "ethwe", "address", mac]);
            announce(&moving);
        }
    };
    let detach = |place: usize| {
        mesh.weft[place].ok(&["detach", "10.2.1.50/24", &moving.as_container()]);
    };
    attach(0);
    within("the first echo", REACH_LIMIT, || {
        mesh.containers[2].reaches(MOVING)
    });
    let moves = if is_long() { 100 } else { 10 };

    let mut gaps = Vec::new();
    for number in 0..moves {
        let (from, to) = (number % 2, (number + 1) % 2);
        let ping = Ping::start(&mesh.containers[2], MOVING, Duration::from_millis(1));
        pause(Duration::from_millis(200));
        detach(from);
        attach(to);
        within("an echo from the new place", REACH_LIMIT, || {
            mesh.containers[2].reaches_within(MOVING, Duration::from_millis(100))
        });
        pause(Duration::from_millis(200));
        gaps.push(ping.finish().longest_silence);
    }

    gaps.sort();
    let worst = gaps.last().copied().unwrap_or_default();
    record(
        if with_mac { "moves" } else { "moves-other-mac" },
        &json!({
            "moves": moves,
            "median_gap_ms": gaps[gaps.len() / 2].as_millis(),
            "worst_gap_ms": worst.as_millis(),
        }),
    );
    assert!(worst <= GAP_MAX, "{gaps:?}");
}
