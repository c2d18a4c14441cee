//! A host that was removed comes back, over a slow network: nobody hears its containers from addresses that are others'.
//!
//! ```text
//!  m 10.32.0.1, late ── weft v ══ hub, 150 ms ══ weft a ── n 10.32.0.1
//!                                     ╚═════════ weft b ── ear
//! ```

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft_netns_tests::{Host, SlowHub, Weft, in_lab, pause, within};

/// To be connected and to agree, on a busy machine and a slow network.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// A host that was killed is missed after its silence.
const MISSED_LIMIT: Duration = Duration::from_secs(30);
const DELAY: Duration = Duration::from_millis(150);
/// Short beside a round trip.
const WORD_PAUSE: Duration = Duration::from_millis(5);
const PORT: u16 = 4242;
/// The last address of 10.32.0.0/12: no question goes before what is sent to it.
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(10, 47, 255, 255);

fn launch(weft: &Weft, peers: &[&str]) {
    weft.ok(&[&["launch", "--password", "secret"], peers].concat());
}

/// Says a word to everybody again and again.
fn speak(container: &Host, own: [u8; 4], quiet: Arc<AtomicBool>) {
    container.spawn(move || {
        let socket = UdpSocket::bind((Ipv4Addr::from(own), 0)).expect("the container's address");
        socket.set_broadcast(true).expect("a socket may");
        while !quiet.load(Ordering::Relaxed) {
            // Without a carrier there is nobody to hear it.
            let _ = socket.send_to(b"word", (EVERYBODY, PORT));
            pause(WORD_PAUSE);
        }
    });
}

fn ear(container: &Host) -> UdpSocket {
    container.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("the port is free");
        socket.set_nonblocking(true).expect("a socket may");
        socket
    })
}

/// The words that have come from an address.
fn words_from(ear: &UdpSocket, address: [u8; 4]) -> usize {
    let mut bytes = [0; 16];
    let heard = std::iter::from_fn(|| ear.recv_from(&mut bytes).ok());
    heard
        .filter(|(_, from)| from.ip() == Ipv4Addr::from(address))
        .count()
}

#[test]
fn a_removed_host_that_returns_is_not_heard_from_what_it_lost() {
    in_lab(|lab| {
        let hosts = ["v", "a", "b"].map(|name| lab.host(name));
        let switch = lab.switch("s");
        for (at, host) in hosts.iter().enumerate() {
            lab.plug(&switch, host, "eth0", &format!("192.0.2.{}/24", at + 1));
            host.send_as_on_a_wire("eth0");
        }
        let [v, a, b] = hosts.each_ref().map(|host| lab.weft(host));
        launch(&v, &[]);
        v.ok(&["prime"]);
        launch(&a, &["192.0.2.1"]);
        launch(&b, &["192.0.2.1", "192.0.2.2"]);
        let [m, n, listener, late] = ["m", "n", "ear", "late"].map(|name| lab.host(name));
        assert_eq!(v.attach(&m, &["--name", "lost"]), "10.32.0.1");
        let target = b.attach(&listener, &[]).parse().expect("an address");
        let voters = |weft: &Weft| {
            let voters = weft.json(&["status"])["ipam"]["voters"].clone();
            voters.as_array().map_or(0, Vec::len)
        };
        within("all three to vote", CONNECT_LIMIT, || {
            voters(&a) == 3 && voters(&b) == 3
        });
        let name = v.report()["name"].as_str().unwrap().to_owned();
        v.crash();
        within("the dead host to be missed", MISSED_LIMIT, || {
            a.ok(&["status", "ipam"]).contains("unreachable!")
        });
        a.ok(&["rmpeer", &name]);
        assert_eq!(a.attach(&n, &["10.32.0.1/12"]), "10.32.0.1");

        let ear = ear(&listener);
        let quiet = Arc::new(AtomicBool::new(false));
        let _hub = SlowHub::replace(&switch, &["v", "a", "b"], DELAY);
        speak(&m, [10, 32, 0, 1], Arc::clone(&quiet));
        launch(&v, &["192.0.2.2", "192.0.2.3"]);
        within("the host to know what it lost", CONNECT_LIMIT, || {
            let misplaced = v.json(&["status"])["ipam"]["misplaced"].clone();
            misplaced.as_array().is_some_and(|all| !all.is_empty())
        });
        v.attach(&late, &["--name", "late"]);
        let means = |weft: &Weft, name: &str| weft.ok(&["dns-lookup", name]);
        within("the other container's name", CONNECT_LIMIT, || {
            !means(&a, "late").is_empty()
        });
        assert_eq!(
            means(&a, "lost") + &means(&v, "lost"),
            "",
            "its address is another's"
        );
        within("the other container", CONNECT_LIMIT, || {
            late.reaches(target)
        });
        quiet.store(true, Ordering::Relaxed);
        assert_eq!(words_from(&ear, [10, 32, 0, 1]), 0);
    });
}
