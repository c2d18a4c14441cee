//! What is sent to all reaches everybody once, and a storm stays where it is.
//!
//! ```text
//!  ring:  h0 ═ h1 ═ h2 ═ h3 ═ h4 ═ (h0), nobody else hears each other        mesh: all hear all
//! ```

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use weft_netns_tests::{
    Capture, ETHERTYPE_ARP, Host, Lab, Mac, Mesh, Paced, RawSocket, alone_in_lab, ethernet, in_lab,
    is_long, now, pace, pause, record, within,
};

const REACH_LIMIT: Duration = Duration::from_secs(20);
const ARRIVE_LIMIT: Duration = Duration::from_secs(5);
/// Datagrams that each container sends to all.
const COPIES: usize = 20;
const PORT: u16 = 9999;

/// Each container speaks to a group and to everybody; each other one must hear each word once.
fn everybody_hears_everything_once(mesh: &Mesh) {
    let count = mesh.weft.len();
    let targets = [Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::new(10, 2, 1, 255)];
    for (round, target) in targets.into_iter().enumerate() {
        let word = |from: usize, number: usize| format!("word {round} of {from:02}, {number:04}.");
        let ears: Vec<Capture> = mesh
            .containers
            .iter()
            .map(|container| Capture::start(container, "ethwe"))
            .collect();
        for from in 0..count {
            mesh.containers[from].inside(|| {
                let socket = UdpSocket::bind((Mesh::overlay(from), 0)).expect("it is our address");
                socket.set_broadcast(true).expect("UDP may broadcast");
                for number in 0..COPIES {
                    let target = SocketAddr::new(target.into(), PORT);
                    let word = word(from, number);
                    socket
                        .send_to(word.as_bytes(), target)
                        .expect("the network is up");
                    pause(Duration::from_millis(2));
                }
            });
        }
        let heard = |ear: usize, from: usize| -> Vec<usize> {
            let frames = ears[ear].frames();
            let times = |word: String| {
                let has = |frame: &&Vec<u8>| {
                    frame
                        .windows(word.len())
                        .any(|window| window == word.as_bytes())
                };
                frames.iter().filter(has).count()
            };
            (0..COPIES)
                .map(|number| times(word(from, number)))
                .collect()
        };
        let pairs = (0..count).flat_map(|ear| (0..count).map(move |from| (ear, from)));
        let pairs: Vec<(usize, usize)> = pairs.filter(|(ear, from)| ear != from).collect();
        within("every word everywhere", ARRIVE_LIMIT, || {
            pairs
                .iter()
                .all(|(ear, from)| heard(*ear, *from).iter().all(|copies| *copies > 0))
        });
        // A second copy would come on a longer way.
        pause(Duration::from_millis(500));
        for (ear, from) in pairs {
            assert_eq!(
                heard(ear, from),
                vec![1; COPIES],
                "copies of h{from}'s words to {target} at h{ear}"
            );
        }
    }
}

#[test]
fn in_a_full_mesh_of_five_everybody_hears_everything_once() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 5);
        mesh.start(&[], |index| index.checked_sub(1).into_iter().collect());
        mesh.wait_until_all_reachable(REACH_LIMIT);

        everybody_hears_everything_once(&mesh);
    });
}

#[test]
fn in_a_ring_of_five_everybody_hears_everything_once() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 5);
        for one in 0..5 {
            for other in one + 2..5 {
                if (one, other) != (0, 4) {
                    mesh.keep_apart(one, other);
                }
            }
        }
        mesh.start(&[], |index| match index {
            4 => vec![3, 0],
            _ => index.checked_sub(1).into_iter().collect(),
        });
        mesh.wait_until_all_reachable(REACH_LIMIT);

        everybody_hears_everything_once(&mesh);
    });
}

/// Requests a second, each for an address that nobody has.
const STORM_PER_S: u32 = 50_000;

/// Sends ARP requests from a device until told to stop; returns how many.
fn storm(host: &Host, device: &'static str, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let stop = Arc::clone(stop);
    let wire = RawSocket::open(host, device);
    let mac = host.device_file(device, "address");
    host.spawn(move || {
        let source: Mac = mac_of(&mac);
        let (start, mut sent) = (now(), 0_u64);
        while !stop.load(Ordering::Relaxed) {
            let due = u128::from(STORM_PER_S) * start.elapsed().as_micros() / 1_000_000;
            if u128::from(sent) > due {
                pause(Duration::from_micros(200));
                continue;
            }
            for _ in 0..50 {
                let wanted = [10, 2, 1, 100 + u8::try_from(sent % 100).unwrap_or(0)];
                let request = [
                    &[0, 1, 8, 0, 6, 4, 0, 1][..],
                    &source,
                    &[10, 2, 1, 1],
                    &[0; 6],
                    &wanted,
                ]
                .concat();
                wire.try_send(&ethernet([0xff; 6], source, ETHERTYPE_ARP, &request));
                sent += 1;
            }
        }
        sent
    })
}

fn mac_of(text: &str) -> Mac {
    let mut mac = [0; 6];
    for (byte, part) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16).expect("a MAC has six bytes");
    }
    mac
}

/// A flow of 200 Mbit/s between two hosts while a third one storms; a debug build is offered less.
fn flow_beside_storm(
    storming: &Host,
    device: &'static str,
    [from, to]: [&Host; 2],
) -> (Paced, u64) {
    let stop = Arc::new(AtomicBool::new(false));
    let raging = storm(storming, device, &stop);
    let per_s = if cfg!(debug_assertions) {
        5_000
    } else {
        19_230
    };
    let length = Duration::from_secs(if is_long() { 20 } else { 3 });
    let paced = pace(from, to, Mesh::overlay(2), (1300, per_s), length, false);
    stop.store(true, Ordering::Relaxed);
    (paced, raging.join().expect("the storm does not panic"))
}

/// Three hosts on a plain bridge, addressed as the containers are.
fn plain_bridge(lab: &Lab) -> Vec<Host> {
    let bridge = lab.switch("plain");
    let hosts: Vec<Host> = (0..3).map(|index| lab.host(&format!("p{index}"))).collect();
    for (index, host) in hosts.iter().enumerate() {
        lab.plug(
            &bridge,
            host,
            "eth0",
            &format!("{}/24", Mesh::overlay(index)),
        );
    }
    hosts
}

#[test]
fn a_storm_of_one_container_stays_on_its_host_and_leaves_other_flows_alone() {
    alone_in_lab(|lab| {
        let plain = plain_bridge(lab);
        let mesh = Mesh::new(lab, 3);
        mesh.start(&[], |index| (0..index).collect());
        mesh.wait_until_all_reachable(REACH_LIMIT);
        let (reference, _) = flow_beside_storm(&plain[0], "eth0", [&plain[1], &plain[2]]);
        let left = || {
            let count = mesh.host(0).device_file("eth0", "statistics/tx_packets");
            count.parse::<u64>().expect("a number")
        };
        let before = left();

        let containers = &mesh.containers;
        let (paced, stormed) =
            flow_beside_storm(&containers[0], "ethwe", [&containers[1], &containers[2]]);

        let left = left() - before;
        record(
            "storm",
            &json!({
                "requests": stormed,
                "packets_that_left_the_host": left,
                "kept_in_the_overlay": paced.share(),
                "kept_on_a_plain_bridge": reference.share(),
            }),
        );
        assert!(
            paced.share() >= 0.95 * reference.share(),
            "{paced:?}, plain: {reference:?}"
        );
        assert!(
            left * 20 <= stormed,
            "{left} packets left the host, of {stormed}"
        );
    });
}
