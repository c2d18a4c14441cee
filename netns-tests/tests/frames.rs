//! Frames of every kind arrive as they were sent, whatever the backend, the cipher and the offloads.
//!
//! ```text
//!  netns one            netns a                       netns b            netns two
//!  ethwe 10.2.1.1 ─── bridge ─ weft ─ eth0 ══════ eth0 ─ weft ─ bridge ─── ethwe 10.2.1.2
//!        fd00:2::1                192.0.2.1      192.0.2.2                       fd00:2::2
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use weft_netns_tests::{
    Capture, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Host, Lab, Mac, Overlay, RawSocket,
    checksum_faults, ethernet, in_lab, ipv4, pace, transfer, vlan,
};

/// weft's default MTU, bytes.
const MTU: usize = 1376;
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);
const BROADCAST: Mac = [0xff; 6];

#[test]
fn every_kind_of_frame_crosses_with_io_uring_and_chacha20() {
    in_lab(|lab| frames_cross(lab, "uring", "chacha20-poly1305"));
}

#[test]
fn every_kind_of_frame_crosses_with_io_uring_and_aes() {
    in_lab(|lab| frames_cross(lab, "uring", "aes-256-gcm"));
}

#[test]
fn every_kind_of_frame_crosses_with_epoll_and_chacha20() {
    in_lab(|lab| frames_cross(lab, "epoll", "chacha20-poly1305"));
}

#[test]
fn every_kind_of_frame_crosses_with_epoll_and_aes() {
    in_lab(|lab| frames_cross(lab, "epoll", "aes-256-gcm"));
}

#[test]
fn super_frames_cross_with_io_uring_and_chacha20() {
    in_lab(|lab| super_frames_cross(lab, "uring", "chacha20-poly1305"));
}

#[test]
fn super_frames_cross_with_io_uring_and_aes() {
    in_lab(|lab| super_frames_cross(lab, "uring", "aes-256-gcm"));
}

#[test]
fn super_frames_cross_with_epoll_and_chacha20() {
    in_lab(|lab| super_frames_cross(lab, "epoll", "chacha20-poly1305"));
}

#[test]
fn super_frames_cross_with_epoll_and_aes() {
    in_lab(|lab| super_frames_cross(lab, "epoll", "aes-256-gcm"));
}

/// Sends each kind both ways as bytes on a packet socket, and wants the same bytes exactly once.
fn frames_cross(lab: &Lab, io: &str, cipher: &str) {
    let overlay = Overlay::on_a_link(lab, &["--io", io, "--cipher", cipher]);
    for (from, to) in [(0, 1), (1, 0)] {
        let [from, to] = [&overlay.containers[from], &overlay.containers[to]];
        let capture = Capture::start(to, "ethwe");
        let socket = RawSocket::open(from, "ethwe");
        let frames = every_kind(mac_of(from), mac_of(to));

        for (_, frame) in &frames {
            socket.send(frame);
        }

        for (kind, sent) in &frames {
            capture.wait_for(
                &format!("{kind} on {}", to.name()),
                ARRIVAL_LIMIT,
                |frame| frame == sent,
            );
        }
        let marker = ethernet(mac_of(to), mac_of(from), 0x88b6, &[0xee; 50]);
        socket.send(&marker);
        capture.wait_for("the marker", ARRIVAL_LIMIT, |frame| frame == marker);
        for (kind, sent) in &frames {
            assert_eq!(
                capture.count(|frame| frame == sent),
                1,
                "{kind} arrived more than once"
            );
        }
    }
}

fn mac_of(container: &Host) -> Mac {
    let text = container.device_file("ethwe", "address");
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("sysfs shows hexadecimal bytes"))
        .collect();
    bytes.try_into().expect("a MAC has six bytes")
}

fn every_kind(from: Mac, to: Mac) -> Vec<(&'static str, Vec<u8>)> {
    [ip_kinds(from, to), other_kinds(from, to)].concat()
}

fn ip_kinds(from: Mac, to: Mac) -> Vec<(&'static str, Vec<u8>)> {
    let (one, two) = (Ipv4Addr::new(10, 2, 1, 1), Ipv4Addr::new(10, 2, 1, 2));
    let v4_to = |mac: Mac, ip: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]| {
        ethernet(
            mac,
            from,
            ETHERTYPE_IPV4,
            &ipv4(one, ip, protocol, fragment, payload),
        )
    };
    let v4 =
        |protocol: u8, fragment: u16, payload: &[u8]| v4_to(to, two, protocol, fragment, payload);
    let v6_to = |mac: Mac, next: u8, len: usize| {
        ethernet(mac, from, ETHERTYPE_IPV6, &ipv6(next, &filler(len)))
    };
    let group = (Ipv4Addr::new(224, 1, 2, 3), [1, 0, 0x5e, 1, 2, 3]);
    vec![
        ("IPv4 UDP", v4(17, 0, &udp(100))),
        (
            "ICMP",
            v4(
                1,
                0,
                &[&[8, 0, 0, 0, 0x12, 0x34, 0, 1][..], &filler(56)].concat(),
            ),
        ),
        ("a first IP fragment", v4(17, 0x2000, &udp(800))),
        ("a last IP fragment", v4(17, 101, &filler(33))),
        ("an unknown IP protocol", v4(253, 0, &filler(500))),
        ("full MTU of IPv4", v4(17, 0, &udp(MTU - 28))),
        ("IPv4 multicast", v4_to(group.1, group.0, 17, 0, &udp(64))),
        (
            "IPv4 broadcast",
            v4_to(BROADCAST, Ipv4Addr::BROADCAST, 17, 0, &udp(64)),
        ),
        ("IPv6", v6_to(to, 59, 200)),
        ("an IPv6 fragment", v6_to(to, 44, 208)),
        (
            "IPv6 multicast",
            v6_to([0x33, 0x33, 0, 0, 0x12, 0x34], 59, 72),
        ),
        (
            "IPv4 with VLAN tag and priority",
            vlan(&v4(17, 0, &udp(90)), 0xa007),
        ),
    ]
}

fn other_kinds(from: Mac, to: Mac) -> Vec<(&'static str, Vec<u8>)> {
    let own = Ipv4Addr::new(10, 2, 1, 1);
    let experimental = |len: usize| ethernet(to, from, 0x88b5, &filler(len - 14));
    vec![
        (
            "an ARP request",
            ethernet(
                BROADCAST,
                from,
                ETHERTYPE_ARP,
                &arp(1, from, own, [0; 6], 77),
            ),
        ),
        (
            "an ARP reply",
            ethernet(to, from, ETHERTYPE_ARP, &arp(2, from, own, to, 2)),
        ),
        ("a VLAN tag", vlan(&experimental(200), 42)),
        ("two VLAN tags", vlan(&vlan(&experimental(300), 7), 42)),
        ("a VLAN tag at full MTU", vlan(&experimental(MTU + 14), 42)),
        (
            "a broadcast VLAN tag",
            vlan(&ethernet(BROADCAST, from, 0x88b5, &filler(61)), 9),
        ),
        ("MPLS", ethernet(to, from, 0x8847, &filler(99))),
        (
            "IEEE 802.3 with a length",
            ethernet(to, from, 100, &filler(100)),
        ),
        ("60 bytes", experimental(60)),
        ("61 bytes", experimental(61)),
        ("only a header and a byte", experimental(15)),
        ("full MTU", experimental(MTU + 14)),
        ("full MTU less one", experimental(MTU + 13)),
    ]
}

/// A UDP header without checksum, and that much payload.
fn udp(len: usize) -> Vec<u8> {
    let udp_len = u16::try_from(len + 8)
        .expect("frames are short")
        .to_be_bytes();
    [
        &[0x30, 0x39, 0x30, 0x3a, udp_len[0], udp_len[1], 0, 0][..],
        &filler(len),
    ]
    .concat()
}

/// Bytes that depend on the length, so that no two frames are alike.
fn filler(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at * 7 + len) % 251).expect("below 251"))
        .collect()
}

fn arp(operation: u8, sender: Mac, sender_ip: Ipv4Addr, target: Mac, target_last: u8) -> Vec<u8> {
    let target_ip = [10, 2, 1, target_last];
    let fixed = [0, 1, 8, 0, 6, 4, 0, operation];
    let mut bytes = [
        &fixed[..],
        &sender,
        &sender_ip.octets(),
        &target,
        &target_ip,
    ]
    .concat();
    bytes.resize(46, 0);
    bytes
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len())
        .expect("frames are short")
        .to_be_bytes();
    let address = |last: u8| [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    [
        &[0x60, 0, 0, 0, len[0], len[1], next_header, 64][..],
        &address(1),
        &address(2),
        payload,
    ]
    .concat()
}

/// TCP and segmented UDP over IPv4 and IPv6, first with all offloads, then with none at the receiver, then with none
/// at all; every byte is compared, and where no offload can have put a checksum off, every checksum is verified.
fn super_frames_cross(lab: &Lab, io: &str, cipher: &str) {
    let overlay = Overlay::on_a_link(lab, &["--io", io, "--cipher", cipher]);
    let [one, two] = &overlay.containers;
    one.add_address("ethwe", "fd00:2::1/64");
    two.add_address("ethwe", "fd00:2::2/64");
    let far: [IpAddr; 2] = [
        overlay.addresses[1],
        Ipv6Addr::from([0xfd00, 2, 0, 0, 0, 0, 0, 2]).into(),
    ];
    let near: [IpAddr; 2] = [
        overlay.addresses[0],
        Ipv6Addr::from([0xfd00, 2, 0, 0, 0, 0, 0, 1]).into(),
    ];
    for address in far {
        traffic(one, two, address, 100_000_000);
    }
    for address in near {
        traffic(two, one, address, 100_000_000);
    }

    no_offloads(&overlay, 1);
    let capture = Capture::start(two, "ethwe");
    for address in far {
        traffic(one, two, address, 10_000_000);
    }
    no_offloads(&overlay, 0);
    for address in far {
        traffic(one, two, address, 10_000_000);
    }

    let frames = capture.frames();
    let faults: Vec<String> = frames
        .iter()
        .filter_map(|frame| checksum_faults(frame))
        .collect();
    assert_eq!(
        faults.first(),
        None,
        "{} of {} frames",
        faults.len(),
        frames.len()
    );
    assert!(
        frames.len() > 20_000,
        "only {} frames were captured",
        frames.len()
    );
    let longest = frames.iter().map(Vec::len).max();
    assert_eq!(
        longest,
        Some(MTU + 14),
        "the receiver's frames are all single"
    );
}

/// Leaves one side's container and its port on the bridge without any offload.
fn no_offloads(overlay: &Overlay, side: usize) {
    let (host, container) = (overlay.weft[side].host(), &overlay.containers[side]);
    let features = ["tx", "rx", "tso", "gso", "gro"];
    container.set_features("ethwe", &features, false);
    host.set_features(&host.other_end_of(container, "ethwe"), &features, false);
}

fn traffic(from: &Host, to: &Host, address: IpAddr, bytes: u64) {
    transfer(from, to, address, bytes);
    let paced = pace(
        from,
        to,
        address,
        (1300, 5_000),
        Duration::from_secs(1),
        true,
    );
    assert!(paced.sent > 4_000 && paced.share() > 0.95, "{paced:?}");
    for (protocol, counter) in [
        ("Tcp", "InCsumErrors"),
        ("Udp", "InCsumErrors"),
        ("Ip", "InHdrErrors"),
    ] {
        assert_eq!(
            to.kernel_counter(protocol, counter),
            0,
            "{protocol} {counter} on {}",
            to.name()
        );
    }
}
