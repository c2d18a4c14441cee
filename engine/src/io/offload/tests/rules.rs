//! Every rule of coalescing, one by one.

use super::kernel;
use super::traffic::{ACK, CWR, FIN, PSH, RST, SYN, Shape, URG, payload};
use super::{ALL, as_sent, coalesce, on_the_wire, split};
use crate::config::{COALESCE_FRAMES_MAX, COALESCE_RUNS_MAX, COALESCE_SEGMENTS_MAX};
use crate::io::offload::{CoalesceConfig, CoalesceError, Coalescer, VnetHeader, finish_checksum};
use crate::wire::meta::Meta;

type Frames = Vec<(Meta, Vec<u8>)>;

/// A segment of the stream that starts at sequence number 0, with `len` payload bytes.
fn at(shape: &Shape, sequence: u32, len: usize) -> (Meta, Vec<u8>) {
    let frame = Shape {
        sequence,
        ..shape.clone()
    }
    .single(&payload(len, sequence));
    (Meta::PARTIAL, frame)
}

fn alone(shape: &Shape, payload: &[u8]) -> (Meta, Vec<u8>) {
    (Meta::PARTIAL, shape.single(payload))
}

/// How many segments each written frame holds.
fn counts(frames: &[(Meta, Vec<u8>)]) -> Vec<usize> {
    counts_with(ALL, frames)
}

fn counts_with(config: CoalesceConfig, frames: &[(Meta, Vec<u8>)]) -> Vec<usize> {
    let written = coalesce(config, frames);
    written
        .iter()
        .map(|(vnet, frame)| kernel::wire_frames(*vnet, frame).len())
        .collect()
}

/// `count` segments of 100 bytes each, by their numbers.
fn numbered(shape: &Shape, numbers: impl IntoIterator<Item = u32>) -> Frames {
    numbers
        .into_iter()
        .map(|number| at(shape, number * 100, 100))
        .collect()
}

#[test]
fn segments_in_order_become_one_super_frame() {
    assert_eq!(counts(&numbered(&Shape::tcp4(), 0..40)), [40]);
    assert_eq!(
        counts(&numbered(
            &Shape {
                ipv6: true,
                ..Shape::tcp4()
            },
            0..40
        )),
        [40]
    );
}

#[test]
fn segments_in_any_order_become_one_super_frame() {
    assert_eq!(
        counts(&numbered(&Shape::tcp4(), (0..40).rev())),
        [40],
        "backwards"
    );
    assert_eq!(
        counts(&numbered(
            &Shape::tcp4(),
            (0..40).step_by(2).chain((1..40).step_by(2))
        )),
        [40],
        "combed"
    );
    assert_eq!(
        counts(&numbered(&Shape::tcp4(), (20..40).chain(0..20))),
        [40],
        "halves exchanged"
    );
    let mut rest = numbered(&Shape::tcp4(), 0..4);
    rest.push(at(
        &Shape {
            flags: ACK | PSH,
            ..Shape::tcp4()
        },
        400,
        7,
    ));
    rest.swap(3, 4);
    assert_eq!(counts(&rest), [5], "the shorter last one early");
}

#[test]
fn a_gap_makes_two_runs() {
    assert_eq!(
        counts(&numbered(&Shape::tcp4(), (0..10).chain(11..30))),
        [10, 19]
    );
}

#[test]
fn a_finished_run_waits_for_the_gap_before_it() {
    let mut frames = numbered(&Shape::tcp4(), (0..10).chain(11..20));
    frames.push(at(
        &Shape {
            flags: ACK | PSH,
            ..Shape::tcp4()
        },
        2000,
        100,
    ));
    frames.extend(numbered(&Shape::tcp4(), 21..25));
    assert_eq!(
        counts(&frames),
        [10, 10, 4],
        "in order though the second was finished first"
    );

    frames.extend(numbered(&Shape::tcp4(), [10]));
    assert_eq!(counts(&frames), [21, 4], "one run once the gap is closed");
}

#[test]
fn a_segment_that_came_twice_is_written_twice() {
    let frames = numbered(&Shape::tcp4(), [0, 1, 2, 1, 3, 0]);

    assert_eq!(counts(&frames).iter().sum::<usize>(), 6);
}

#[test]
fn any_difference_in_the_header_ends_the_run() {
    let base = Shape {
        ipv6: false,
        ip_options: 1,
        tags: vec![5],
        ..Shape::tcp4()
    };
    let v6 = Shape {
        ipv6: true,
        ..base.clone()
    };
    type Change = (&'static str, fn(&mut Shape));
    let changes: [Change; 13] = [
        ("acknowledgement", |s| s.acknowledgement += 1),
        ("window", |s| s.window += 1),
        ("options", |s| s.option = 2),
        ("length of options", |s| s.tcp_options += 1),
        ("ECE", |s| s.flags |= 0x40),
        ("CWR", |s| s.flags |= CWR),
        ("TTL", |s| s.ttl -= 1),
        ("TOS", |s| s.tos = 2),
        ("VLAN", |s| s.tags = vec![6]),
        ("VLAN tags", |s| s.tags = vec![5, 5]),
        ("Ethernet addresses", |s| s.station += 1),
        ("port", |s| s.source_port += 1),
        ("protocol version", |s| s.ipv6 = !s.ipv6),
    ];
    for shape in [&base, &v6] {
        for (what, change) in changes {
            let mut other = shape.clone();
            change(&mut other);
            assert_eq!(
                counts(&[at(shape, 0, 100), at(&other, 100, 100)]),
                [1, 1],
                "{what}"
            );
        }
        assert_eq!(counts(&[at(shape, 0, 100), at(shape, 100, 100)]), [2]);
    }
    let other = Shape {
        dont_fragment: false,
        ..base.clone()
    };
    assert_eq!(
        counts(&[at(&base, 0, 100), at(&other, 100, 100)]),
        [1, 1],
        "DF"
    );
    let other = Shape {
        ip_options: 2,
        ..base.clone()
    };
    assert_eq!(
        counts(&[at(&base, 0, 100), at(&other, 100, 100)]),
        [1, 1],
        "IP options"
    );
}

#[test]
fn push_and_fin_end_a_run_and_stay_on_its_last_segment() {
    for flags in [ACK | PSH, ACK | FIN, ACK | PSH | FIN] {
        let frames = [
            at(&Shape::tcp4(), 0, 100),
            at(
                &Shape {
                    flags,
                    ..Shape::tcp4()
                },
                100,
                100,
            ),
            at(&Shape::tcp4(), 200, 100),
        ];
        assert_eq!(counts(&frames), [2, 1]);
        assert_eq!(on_the_wire(&coalesce(ALL, &frames)), as_sent(&frames));
    }
}

#[test]
fn cwr_stays_on_the_first_segment() {
    let reduced = Shape {
        flags: ACK | CWR,
        ..Shape::tcp4()
    };
    let frames = [at(&reduced, 0, 100), at(&Shape::tcp4(), 100, 100)];

    let written = coalesce(ALL, &frames);

    assert_eq!(written.len(), 1);
    assert_eq!(
        written[0].0.gso_type,
        VnetHeader::GSO_TCPV4 | VnetHeader::GSO_ECN
    );
    assert_eq!(on_the_wire(&written), as_sent(&frames));
    assert_eq!(
        counts(&[frames[1].clone(), frames[0].clone()]),
        [2],
        "it may be put before the others"
    );
    assert_eq!(
        counts(&[at(&reduced, 0, 100), at(&reduced, 100, 100)]),
        [1, 1],
        "but not follow them"
    );
}

#[test]
fn a_shorter_segment_ends_a_run_and_a_longer_one_begins_another() {
    let shape = Shape::tcp4();

    assert_eq!(
        counts(&[at(&shape, 0, 100), at(&shape, 100, 60), at(&shape, 160, 60)]),
        [2, 1]
    );
    assert_eq!(
        counts(&[at(&shape, 0, 60), at(&shape, 60, 100), at(&shape, 160, 100)]),
        [1, 2]
    );
}

#[test]
fn segments_that_must_go_alone_do_not_overtake() {
    let shape = Shape::tcp4();
    let cases: [(&str, Shape, &[u8]); 5] = [
        ("pure ACK", shape.clone(), &[]),
        (
            "SYN",
            Shape {
                flags: SYN,
                ..shape.clone()
            },
            &[],
        ),
        (
            "SYN with data",
            Shape {
                flags: SYN | ACK,
                ..shape.clone()
            },
            &[7; 100],
        ),
        (
            "RST",
            Shape {
                flags: RST | ACK,
                ..shape.clone()
            },
            &[],
        ),
        (
            "URG",
            Shape {
                flags: URG | ACK,
                ..shape.clone()
            },
            &[7; 100],
        ),
    ];
    for (what, other, data) in cases {
        let other = Shape {
            sequence: 300,
            ..other
        };
        let mut frames = numbered(&shape, 0..3);
        frames.push(alone(&other, data));
        frames.extend(numbered(&shape, 4..7));
        assert_eq!(counts(&frames), [3, 1, 3], "{what}");
        assert_eq!(
            on_the_wire(&coalesce(ALL, &frames)),
            as_sent(&frames),
            "{what}"
        );
    }
}

#[test]
fn a_complete_frame_does_not_overtake_its_flow() {
    let shape = Shape::tcp4();
    let mut complete = shape.single(&[7; 100]);
    finish_checksum(&mut complete).unwrap();
    let mut frames = numbered(&shape, 0..3);
    frames.push((Meta::COMPLETE, complete.clone()));

    let written = coalesce(ALL, &frames);

    assert_eq!(written.len(), 2);
    assert_eq!(written[1], (VnetHeader::default(), complete));
}

#[test]
fn a_fragment_does_not_overtake_what_goes_between_the_same_addresses() {
    for ipv6 in [false, true] {
        let shape = Shape {
            ipv6,
            ..Shape::udp4()
        };
        let mut fragment = shape.single(&[7; 100]);
        fragment[20] = if ipv6 { 44 } else { 0x20 };
        let mut elsewhere = fragment.clone();
        elsewhere[30] ^= 1;
        let mut frames = vec![
            alone(&shape, &[1; 100]),
            (Meta::COMPLETE, elsewhere.clone()),
        ];
        frames.push((Meta::COMPLETE, fragment.clone()));

        let written: Vec<_> = coalesce(ALL, &frames)
            .into_iter()
            .map(|(_, frame)| frame)
            .collect();

        assert_eq!(written[0], elsewhere, "another flow's need not wait");
        assert_eq!(written[2], fragment);
    }
}

#[test]
fn identifications_count_unless_the_packet_is_atomic() {
    let counted = |ids: [u16; 3], dont_fragment| {
        let frames: Frames = (0..3)
            .zip(ids)
            .map(|(n, id)| {
                at(
                    &Shape {
                        id,
                        dont_fragment,
                        ..Shape::tcp4()
                    },
                    n * 100,
                    100,
                )
            })
            .collect();
        assert_eq!(on_the_wire(&coalesce(ALL, &frames)), as_sent(&frames));
        counts(&frames)
    };

    assert_eq!(counted([0xffff, 0, 1], false), [3]);
    assert_eq!(counted([7, 8, 8], false), [2, 1]);
    assert_eq!(counted([7, 7, 7], false), [1, 1, 1]);
    assert_eq!(counted([0, 0, 0], true), [3]);
    assert_eq!(counted([5, 9, 2], true), [3]);
}

#[test]
fn a_run_has_at_most_so_many_segments_and_bytes() {
    let max = u32::try_from(COALESCE_SEGMENTS_MAX).unwrap();
    let segments = COALESCE_SEGMENTS_MAX;
    assert_eq!(counts(&numbered(&Shape::tcp4(), 0..max + 5)), [segments, 5]);
    assert_eq!(counts(&numbered(&Shape::udp4(), 0..max + 5)), [segments, 5]);

    // 20 + 32 bytes of headers leave 65 483: 45 segments of 1448.
    let frames: Frames = (0..50)
        .map(|n| at(&Shape::tcp4(), n * 1448, 1448))
        .collect();
    assert_eq!(counts(&frames), [45, 5]);
}

#[test]
fn datagrams_of_one_size_become_one_super_frame() {
    let shape = Shape::udp4();
    let sizes = |sizes: &[usize]| -> Frames {
        sizes
            .iter()
            .map(|&len| alone(&shape, &vec![9; len]))
            .collect()
    };

    let written = coalesce(ALL, &sizes(&[100, 100, 100, 40]));
    assert_eq!(written.len(), 1);
    assert_eq!(
        (written[0].0.gso_type, written[0].0.gso_size),
        (VnetHeader::GSO_UDP_L4, 100)
    );
    assert_eq!(counts(&sizes(&[100, 100, 40, 40, 40])), [3, 2]);
    assert_eq!(counts(&sizes(&[100, 200, 200])), [1, 2]);
    assert_eq!(counts(&sizes(&[100, 100, 0, 100])), [2, 1, 1]);
    let frames = sizes(&[3, 2, 1, 0, 1, 2, 3, 3]);
    assert_eq!(on_the_wire(&coalesce(ALL, &frames)), as_sent(&frames));
}

#[test]
fn kinds_can_be_switched_off() {
    let off = CoalesceConfig {
        tcp4: false,
        tcp6: false,
        udp: false,
    };
    let tcp4 = numbered(&Shape::tcp4(), 0..3);
    let tcp6 = numbered(
        &Shape {
            ipv6: true,
            ..Shape::tcp4()
        },
        0..3,
    );
    let udp4 = numbered(&Shape::udp4(), 0..3);
    let udp6 = numbered(
        &Shape {
            ipv6: true,
            ..Shape::udp4()
        },
        0..3,
    );
    let each =
        |config| [&tcp4, &tcp6, &udp4, &udp6].map(|frames| counts_with(config, frames).len());

    assert_eq!(each(ALL), [1, 1, 1, 1]);
    assert_eq!(each(off), [3, 3, 3, 3]);
    assert_eq!(each(CoalesceConfig { tcp4: true, ..off }), [1, 3, 3, 3]);
    assert_eq!(each(CoalesceConfig { tcp6: true, ..off }), [3, 1, 3, 3]);
    assert_eq!(each(CoalesceConfig { udp: true, ..off }), [3, 3, 1, 1]);
}

#[test]
fn a_wrong_ip_header_checksum_stays_wrong() {
    let mut frames = numbered(&Shape::tcp4(), 0..2);
    frames[1].1[24] ^= 1;

    let written = coalesce(ALL, &frames);

    assert_eq!(written.len(), 2);
    assert_eq!(written[1].1[24..26], frames[1].1[24..26]);
}

#[test]
fn padding_behind_the_packet_is_cut_off() {
    let mut frames = numbered(&Shape::tcp4(), 0..2);
    frames[0].1.extend([1, 2, 3]);
    let mut ack = alone(
        &Shape {
            acknowledgement: 9,
            ..Shape::tcp4()
        },
        &[],
    );
    ack.1.extend([1; 6]);
    frames.push(ack);

    assert_eq!(counts(&frames), [2, 1]);
    assert_eq!(on_the_wire(&coalesce(ALL, &frames)), as_sent(&frames));
}

#[test]
fn a_segment_behind_ipv6_extension_headers_goes_alone() {
    let shape = Shape {
        ipv6: true,
        extensions: vec![0, 60],
        ..Shape::tcp4()
    };
    let frames = numbered(&shape, 0..3);

    assert_eq!(counts(&frames), [1, 1, 1]);
    assert_eq!(on_the_wire(&coalesce(ALL, &frames)), as_sent(&frames));
}

#[test]
fn what_the_meta_byte_says_must_be_borne_out() {
    let tcp = Shape::tcp4().single(&[7; 100]);
    let udp = Shape::udp4().single(&[7; 100]);
    let mut fragment = tcp.clone();
    fragment[20] |= 0x20;
    let mut icmp = tcp.clone();
    icmp[23] = 1;
    let mut arp = tcp.clone();
    arp[13] = 6;
    let mut offset = tcp.clone();
    offset[46] = 0x40;
    let mut datagram_len = udp.clone();
    datagram_len[39] -= 1;
    let deep = Shape {
        ipv6: true,
        extensions: vec![60; 6],
        ..Shape::tcp4()
    }
    .single(&[7; 100]);
    let cases = [
        (Meta::PARTIAL, &tcp[..13], CoalesceError::FrameTooShort),
        (Meta::COMPLETE, &tcp[..13], CoalesceError::FrameTooShort),
        (Meta::PARTIAL, &tcp[..60], CoalesceError::Malformed),
        (Meta::PARTIAL, &offset[..], CoalesceError::Malformed),
        (Meta::PARTIAL, &datagram_len[..], CoalesceError::Malformed),
        (Meta::PARTIAL, &fragment[..], CoalesceError::Fragment),
        (Meta::PARTIAL, &icmp[..], CoalesceError::NotTransport),
        (Meta::PARTIAL, &arp[..], CoalesceError::NotTransport),
        (Meta::UDP_SEGMENT, &tcp[..], CoalesceError::KindMismatch),
        (Meta::TCP_SEGMENT, &udp[..], CoalesceError::KindMismatch),
        (Meta::PARTIAL, &deep[..], CoalesceError::HeaderTooLong),
    ];
    let mut coalescer = Coalescer::new(ALL);
    for (meta, frame, error) in cases {
        assert_eq!(coalescer.push(meta, frame, ()), Err(error));
    }
    coalescer.flush();
    assert_eq!(coalescer.ready_count(), 0);
}

#[test]
fn more_flows_than_runs_cost_length_and_no_frame() {
    let flows = u16::try_from(COALESCE_RUNS_MAX).unwrap() + 8;
    let mut frames = Frames::new();
    for n in 0..3 {
        for flow in 0..flows {
            frames.push(at(
                &Shape {
                    source_port: flow,
                    ..Shape::tcp4()
                },
                n * 100,
                100,
            ));
        }
        // One flow that is busy all the time keeps its run.
        frames.push(at(
            &Shape {
                source_port: 0,
                ..Shape::tcp4()
            },
            1000 + n * 100,
            100,
        ));
    }
    let total = frames.len();

    let mut all = counts(&frames);
    all.sort_unstable();

    assert_eq!(all.iter().sum::<usize>(), total);
    let fitting: Frames = frames
        .iter()
        .filter(|(_, frame)| usize::from(frame[35]) < COALESCE_RUNS_MAX - 2)
        .cloned()
        .collect();
    assert!(
        counts(&fitting).iter().all(|&count| count == 3),
        "as many flows as fit are whole"
    );
}

#[test]
fn a_run_joined_from_two_leaves_in_the_place_of_the_older() {
    let order = |numbers: [u32; 4]| {
        let sent = numbered(&Shape::tcp4(), numbers);
        let written = coalesce(ALL, &sent);
        written
            .iter()
            .map(|(_, frame)| sequence_of(frame) / 100)
            .collect::<Vec<_>>()
    };

    assert_eq!(order([0, 10, 2, 1]), [0, 10], "the one before was older");
    assert_eq!(order([10, 20, 8, 9]), [8, 20], "the one behind was older");
}

#[test]
fn a_run_that_makes_room_does_not_overtake_its_flow() {
    let flow = Shape {
        source_port: 500,
        ..Shape::tcp4()
    };
    // The run at 500 is the younger, but has gone longest without a segment.
    let mut frames = vec![at(&flow, 0, 100), at(&flow, 500, 100), at(&flow, 100, 100)];
    for source_port in 1..=u16::try_from(COALESCE_RUNS_MAX).unwrap() {
        frames.push(at(
            &Shape {
                source_port,
                ..Shape::tcp4()
            },
            0,
            100,
        ));
    }

    let written = coalesce(ALL, &frames);

    let of_flow = written
        .iter()
        .filter(|(_, frame)| frame[34..36] == 500_u16.to_be_bytes());
    assert_eq!(
        of_flow
            .map(|(_, frame)| sequence_of(frame))
            .collect::<Vec<_>>(),
        [0, 500]
    );
}

fn sequence_of(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[38..42].try_into().unwrap())
}

#[test]
fn a_full_coalescer_says_so_and_goes_on_after_a_flush() {
    let arp = [&[0xff; 12][..], &[8, 6], &[7; 28]].concat();
    let tcp = Shape::tcp4().single(&[7; 100]);
    let mut coalescer = Coalescer::new(ALL);
    coalescer.push(Meta::PARTIAL, &tcp, 0).unwrap();
    for at in 1..COALESCE_FRAMES_MAX {
        coalescer.push(Meta::COMPLETE, &arp, at).unwrap();
    }

    assert_eq!(
        coalescer.push(Meta::COMPLETE, &arp, 0),
        Err(CoalesceError::Full)
    );
    coalescer.clear_ready();
    assert_eq!(
        coalescer.push(Meta::COMPLETE, &arp, 0),
        Err(CoalesceError::Full),
        "an open run holds on"
    );
    coalescer.flush();
    assert_eq!(coalescer.ready_count(), 1);
    coalescer.clear_ready();
    assert_eq!(coalescer.push(Meta::COMPLETE, &arp, 0), Ok(()));
}

#[test]
fn frames_cut_from_a_super_frame_and_frames_that_came_alone_join() {
    let (vnet, frame) = Shape {
        sequence: 0,
        ..Shape::tcp4()
    }
    .frame(&payload(3000, 1), 1000);
    let mut frames = split(&vnet, &frame);
    frames.push(at(&Shape::tcp4(), 3000, 1000));

    assert_eq!(counts(&frames), [4]);
}
