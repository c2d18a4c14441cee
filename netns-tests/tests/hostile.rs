//! Somebody on the underlay listens, repeats, alters and floods.
//!
//! ```text
//!  one 10.2.1.1 ─ weft a 192.0.2.1 ─┐
//!                                 switch ─ mallory 192.0.2.66
//!  two 10.2.1.2 ─ weft b 192.0.2.2 ─┘
//! ```
//!
//! What sits on the switch sees every frame and can put any frame on either wire.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use weft_netns_tests::{
    Capture, Host, Lab, Overlay, Paced, RawSocket, alone_in_lab, flood, in_lab, is_long, pace,
    pause, record, transfer, udp_datagram, udp_frame_like, within,
};

const PORT: u16 = 6783;
const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const MALLORY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66));
/// What must never be seen on the underlay.
const CANARY: &[u8] = b"only the containers may read this";
/// So long that no two share a datagram; bytes.
const CANARY_LEN: usize = 900;
/// What a container sends in the capture that is replayed.
const CANARIES: usize = 50;
const LIMIT: Duration = Duration::from_secs(10);
/// Words in the names of counters of datagrams that were not opened.
const REFUSED: [&str; 6] = [
    "forged",
    "replayed",
    "unknown",
    "bad_header",
    "malformed",
    "short",
];

struct Street {
    switch: Host,
    mallory: Host,
    overlay: Overlay,
}

impl Street {
    fn new(lab: &Lab, flags: &[&str]) -> Self {
        let (switch, mallory) = (lab.switch("switch"), lab.host("mallory"));
        let hosts = [lab.host("a"), lab.host("b")];
        lab.plug(&switch, &hosts[0], "eth0", "192.0.2.1/24");
        lab.plug(&switch, &hosts[1], "eth0", "192.0.2.2/24");
        lab.plug(&switch, &mallory, "eth0", "192.0.2.66/24");
        for host in hosts.iter().chain([&mallory]) {
            host.send_datagrams_singly("eth0");
        }
        Self {
            overlay: Overlay::on(lab, &hosts, "192.0.2.1", flags),
            switch,
            mallory,
        }
    }

    /// The first container sends canaries to the second.
    fn send_canaries(&self, count: usize) {
        let target = SocketAddr::new(self.overlay.addresses[1], 9);
        self.overlay.containers[0].inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("any port will do");
            for number in 0..count {
                let mut canary = [CANARY, &number.to_be_bytes()].concat();
                canary.resize(CANARY_LEN, b'.');
                socket.send_to(&canary, target).expect("the network is up");
            }
        });
    }

    /// What `a` sends to `b` in datagrams while the first container sends canaries that arrive.
    fn capture_canaries(&self) -> Vec<Vec<u8>> {
        let arrivals = Capture::start(&self.overlay.containers[1], "ethwe");
        let frames = self.capture_data();
        within("all canaries", LIMIT, || canaries(&arrivals) == CANARIES);
        frames
    }

    /// The same while `b` gets none of them: the datagrams are fresh.
    fn intercept_canaries(&self) -> Vec<Vec<u8>> {
        let b = self.overlay.weft[1].host();
        b.add_rules("intercept", "ip saddr 192.0.2.1 udp dport 6783 drop;");
        let frames = self.capture_data();
        b.remove_rules("intercept");
        frames
    }

    fn capture_data(&self) -> Vec<Vec<u8>> {
        let wire = Capture::start(&self.switch, "b");
        self.send_canaries(CANARIES);
        within("their datagrams on the wire", LIMIT, || {
            wire.count(is_data) >= CANARIES
        });
        let frames = wire.frames().into_iter().filter(|frame| is_data(frame));
        // On a veth pair nobody has computed the checksums yet, so a plain copy would not get past the kernel.
        frames
            .map(|frame| udp_frame_like(&frame, None, &payload(&frame)))
            .collect()
    }

    /// Datagrams that `b` refused so far.
    fn refused(&self) -> u64 {
        self.overlay.weft[1].count(&REFUSED)
    }

    /// The addresses at which the two believe each other.
    fn endpoints(&self) -> [serde_json::Value; 2] {
        [0, 1].map(|side| self.overlay.weft[side].connection()["path"]["address"].clone())
    }

    /// Puts frames on `b`'s wire: nothing of them may be delivered, no endpoint may move, and all must be counted.
    fn attack(&self, what: &str, frames: &[Vec<u8>]) {
        let arrivals = Capture::start(&self.overlay.containers[1], "ethwe");
        let (refused, endpoints) = (self.refused(), self.endpoints());
        let wire = RawSocket::open(&self.switch, "b");
        for frame in frames {
            wire.try_send(frame);
            // One at a time, or the attacker fills the socket's queue and is not heard at all.
            pause(Duration::from_micros(50));
        }
        let wanted = refused + frames.len() as u64;
        within(&format!("{what}: {} refusals", frames.len()), LIMIT, || {
            self.refused() >= wanted
        });
        assert!(
            self.overlay.containers[0].reaches(self.overlay.addresses[1]),
            "{what}: the overlay works"
        );
        assert_eq!(canaries(&arrivals), 0, "{what}: nothing is delivered");
        assert_eq!(self.endpoints(), endpoints, "{what}: no endpoint moves");
    }
}

fn has_canary(frame: &[u8]) -> bool {
    frame.windows(CANARY.len()).any(|window| window == CANARY)
}

/// Canaries that the second container got. Several may lie in one super-frame; and its own answers, that nobody
/// listens there, quote them and do not count.
fn canaries(arrivals: &Capture) -> usize {
    let datagrams = arrivals
        .frames()
        .into_iter()
        .filter_map(|frame| udp_datagram(&frame));
    let count = |payload: &[u8]| {
        payload
            .windows(CANARY.len())
            .filter(|window| *window == CANARY)
            .count()
    };
    datagrams.map(|datagram| count(&datagram.payload)).sum()
}

fn is_data(frame: &[u8]) -> bool {
    udp_datagram(frame).is_some_and(|datagram| {
        datagram.source == SocketAddr::new(A, PORT)
            && datagram.destination == SocketAddr::new(B, PORT)
    })
}

fn payload(frame: &[u8]) -> Vec<u8> {
    udp_datagram(frame)
        .expect("captured frames hold datagrams")
        .payload
}

#[test]
fn nothing_that_containers_say_is_seen_on_the_underlay() {
    in_lab(|lab| {
        let street = Street::new(lab, &[]);
        let wires = [
            Capture::start(&street.switch, "a"),
            Capture::start(&street.switch, "b"),
        ];
        let arrivals = Capture::start(&street.overlay.containers[1], "ethwe");

        street.send_canaries(CANARIES);
        within("all canaries", LIMIT, || canaries(&arrivals) == CANARIES);

        for wire in wires {
            within("the canaries' datagrams", LIMIT, || {
                wire.count(is_data) >= CANARIES
            });
            assert_eq!(wire.count(has_canary), 0, "a canary in the clear");
            let addresses = [[10, 2, 1, 1, 10, 2, 1, 2], [10, 2, 1, 2, 10, 2, 1, 1]];
            for pair in addresses {
                assert_eq!(
                    wire.count(|frame| frame.windows(8).any(|window| window == pair)),
                    0,
                    "addresses in the clear"
                );
            }
            assert_eq!(
                wire.count(|frame| frame.windows(6).any(|window| window == b"secret")),
                0,
                "the password"
            );
        }
    });
}

#[test]
fn replayed_datagrams_are_refused() {
    in_lab(|lab| {
        let street = Street::new(lab, &[]);
        let captured = street.capture_canaries();

        street.attack("replay", &captured);
        let elsewhere = Some(SocketAddr::new(MALLORY, PORT));
        let moved = |frame: &Vec<u8>| udp_frame_like(frame, elsewhere, &payload(frame));
        street.attack(
            "replay from elsewhere",
            &captured.iter().map(moved).collect::<Vec<_>>(),
        );
    });
}

#[test]
fn altered_and_truncated_datagrams_are_refused_and_the_originals_are_not() {
    in_lab(|lab| {
        let street = Street::new(lab, &[]);
        let fresh = street.intercept_canaries();

        let flipped: Vec<_> = fresh
            .iter()
            .take(10)
            .flat_map(|frame| flips(frame))
            .collect();
        street.attack("flipped bits", &flipped);
        let cut: Vec<_> = fresh
            .iter()
            .take(3)
            .flat_map(|frame| truncations(frame))
            .collect();
        street.attack("truncation", &cut);
        let longer =
            |frame: &Vec<u8>| udp_frame_like(frame, None, &[&payload(frame)[..], &[0]].concat());
        street.attack(
            "one byte more",
            &fresh.iter().map(longer).collect::<Vec<_>>(),
        );

        // That they were fresh shows that nothing but the alterations was refused.
        let arrivals = Capture::start(&street.overlay.containers[1], "ethwe");
        let wire = RawSocket::open(&street.switch, "b");
        for frame in &fresh {
            wire.send(frame);
        }
        within("all canaries", LIMIT, || canaries(&arrivals) == CANARIES);
    });
}

/// One bit in each byte of the header, and in some bytes of the rest and of the tag.
fn flips(frame: &[u8]) -> Vec<Vec<u8>> {
    let payload = payload(frame);
    let len = payload.len();
    let places = (0..16).chain([16, 17, len / 2, len - 17, len - 16, len - 1]);
    let flip = |at: usize| {
        let mut altered = payload.clone();
        altered[at] ^= 1 << (at % 8);
        udp_frame_like(frame, None, &altered)
    };
    places.map(flip).collect()
}

/// Every shorter datagram, down to one that carries nothing.
fn truncations(frame: &[u8]) -> Vec<Vec<u8>> {
    let payload = payload(frame);
    (0..payload.len())
        .map(|len| udp_frame_like(frame, None, &payload[..len]))
        .collect()
}

#[test]
fn datagrams_of_an_earlier_session_are_refused() {
    in_lab(|lab| {
        let street = Street::new(lab, &[]);
        let captured = street.capture_canaries();
        let overlay = &street.overlay;

        overlay.weft[1].crash();
        overlay.launch(1, &["192.0.2.1"]);
        overlay.wait_until_reachable(LIMIT);
        street.attack("after a restart of the receiver", &captured);

        overlay.weft[0].ok(&["stop"]);
        overlay.launch(0, &[]);
        overlay.wait_until_reachable(LIMIT);
        street.attack("after a restart of the sender", &captured);
    });
}

/// The datagrams are fresh and right, but come from the address of somebody who cannot answer: what they carry may be
/// delivered, the endpoint must not move.
#[test]
fn fresh_datagrams_from_a_foreign_address_move_no_endpoint() {
    in_lab(|lab| {
        let street = Street::new(lab, &[]);
        let overlay = &street.overlay;
        let endpoints = street.endpoints();
        let fresh = street.intercept_canaries();
        let wire = RawSocket::open(&street.switch, "b");

        for frame in &fresh {
            let foreign = Some(SocketAddr::new(MALLORY, 5000));
            wire.send(&udp_frame_like(frame, foreign, &payload(frame)));
        }

        overlay.wait_until_reachable(LIMIT);
        pause(Duration::from_secs(1));
        assert_eq!(street.endpoints(), endpoints);
        transfer(
            &overlay.containers[1],
            &overlay.containers[0],
            overlay.addresses[0],
            1_000_000,
        );
        assert_eq!(street.endpoints(), endpoints);
    });
}

/// Datagrams a second of the flood, and their length.
const FLOOD_PER_S: u32 = 100_000;
const FLOOD_LEN: usize = 200;
/// 200 Mbit/s of payload in datagrams of 1300 bytes.
const VALID: (usize, u32) = (1300, 19_230);
/// Memory that a daemon may take while it is flooded, for what it had not touched before; KiB.
const GROWTH_MAX_KIB: u64 = 8 * 1024;

#[test]
fn a_flood_of_garbage_costs_no_more_than_its_reception() {
    alone_in_lab(|lab| {
        let street = Street::new(lab, &[]);
        let (b, overlay) = (&street.overlay.weft[1], &street.overlay);
        let live: Vec<Vec<u8>> = street
            .capture_canaries()
            .iter()
            .map(|frame| payload(frame))
            .collect();
        let length = Duration::from_secs(if is_long() { 60 } else { 4 });
        let (pid, sink) = (b.pid(), plain_socket(b.host()));
        // Once before anything is compared: buffers are touched, caches are warm.
        let _ = beside_flood(
            &street,
            SocketAddr::new(B, PORT),
            &live,
            Duration::from_secs(1),
        );
        let resident = b.resident_kib();

        let plain = beside_flood(&street, SocketAddr::new(B, sink.port), &live, length);
        let stop = Arc::new(AtomicBool::new(false));
        let callers = garbage_callers(&street.mallory, &stop);
        let weft = beside_flood(&street, SocketAddr::new(B, PORT), &live, length);
        stop.store(true, Ordering::Relaxed);
        let calls = callers.join().expect("callers do not panic");

        drop(sink);
        let growth = b.resident_kib().saturating_sub(resident);
        record(
            "flood",
            &json!({
                "seconds": length.as_secs(),
                "datagrams_per_s": FLOOD_PER_S,
                "valid_mbit_per_s": 200,
                "kept_beside_flood_at_weft": weft.share(),
                "kept_beside_flood_at_plain_socket": plain.share(),
                "garbage_calls_on_tcp": calls,
                "refused": street.refused(),
                "growth_kib": growth,
            }),
        );
        assert!(calls > 10, "{calls} garbage calls on TCP");
        assert_eq!(b.pid(), pid, "the daemon lives");
        assert!(growth <= GROWTH_MAX_KIB, "{growth} KiB more");
        assert!(
            weft.share() >= 0.9 * plain.share(),
            "flood at weft: {weft:?}, at a plain socket: {plain:?}"
        );
        assert!(overlay.containers[0].reaches(overlay.addresses[1]));
        assert!(
            street.refused() > u64::from(FLOOD_PER_S),
            "the flood was seen and counted"
        );
    });
}

/// What is left of the valid flow while `target` is flooded.
fn beside_flood(street: &Street, target: SocketAddr, live: &[Vec<u8>], length: Duration) -> Paced {
    let stop = Arc::new(AtomicBool::new(false));
    let heads: Vec<Vec<u8>> = live
        .iter()
        .map(|datagram| datagram[..16].to_vec())
        .collect();
    let garbage = move |number: u64, datagram: &mut [u8]| {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for chunk in datagram.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        let pick = usize::try_from(number).unwrap_or(0);
        // Half looks like weft's datagrams, down to receiver index and lane; of these half with a new counter.
        if number.is_multiple_of(2) {
            let len = if number.is_multiple_of(4) { 16 } else { 8 };
            datagram[..len].copy_from_slice(&heads[pick % heads.len()][..len]);
        }
    };
    let flood = flood(
        &street.mallory,
        target,
        (FLOOD_LEN, FLOOD_PER_S),
        Arc::clone(&stop),
        garbage,
    );
    let [one, two] = &street.overlay.containers;
    let paced = pace(one, two, street.overlay.addresses[1], VALID, length, false);
    stop.store(true, Ordering::Relaxed);
    let sent = flood.join().expect("the flood does not panic");
    let least = u128::from(FLOOD_PER_S) * length.as_millis() / 1000 * 8 / 10;
    assert!(
        u128::from(sent) >= least,
        "only {sent} datagrams of the flood were sent in {length:?}"
    );
    paced
}

/// A plain program that receives datagrams and does nothing with them; dropped, it ends.
struct PlainSocket {
    port: u16,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

fn plain_socket(host: &Host) -> PlainSocket {
    let socket = host.inside(|| UdpSocket::bind((B, 0)).expect("the address is this host's"));
    let port = socket
        .local_addr()
        .expect("a bound socket has an address")
        .port();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("the limit is not zero");
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let reader = host.spawn(move || {
        let mut buffer = [0; 2048];
        while !flag.load(Ordering::Relaxed) {
            let _ = socket.recv(&mut buffer);
        }
    });
    PlainSocket {
        port,
        stop,
        reader: Some(reader),
    }
}

impl Drop for PlainSocket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It has nothing to say.
            let _ = reader.join();
        }
    }
}

/// Connects to weft's TCP port again and again and writes garbage; returns how often.
fn garbage_callers(from: &Host, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let stop = Arc::clone(stop);
    from.spawn(move || {
        let (mut calls, mut held) = (0_u64, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let target = SocketAddr::new(B, PORT);
            if let Ok(mut stream) = TcpStream::connect_timeout(&target, Duration::from_millis(200))
            {
                let length = 1 << (calls % 16);
                let garbage: Vec<u8> = (0..length)
                    .map(|at: u64| (at ^ calls).to_le_bytes()[0])
                    .collect();
                // The daemon may have closed it already, which is right.
                let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
                let _ = stream.write_all(&garbage);
                // Some are held open: a caller may also just stay.
                if calls.is_multiple_of(4) {
                    held.push(stream);
                }
                calls += 1;
            }
            pause(Duration::from_millis(10));
        }
        calls
    })
}
