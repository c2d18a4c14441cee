//! Properties of splitting and coalescing together, against a kernel written down independently.
//!
//! ```text
//!  super-frames ─ Splitter ─► frames ─ loss, doubles, reordering ─► Coalescer ─► super-frames
//!        └────────────────────── kernel::wire_frames ─────────────────────┘
//!                                   both the same
//! ```

mod kernel;
mod rules;
mod traffic;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{
    CoalesceConfig, Coalescer, Headers, SplitError, Splitter, Transport, VnetHeader,
    finish_checksum,
};
use crate::wire::meta::Meta;
use traffic::{Shape, payload, shapes, sizes};

const ALL: CoalesceConfig = CoalesceConfig {
    tcp4: true,
    tcp6: true,
    udp: true,
};

/// Splits as a sender does.
fn split(vnet: &VnetHeader, frame: &[u8]) -> Vec<(Meta, Vec<u8>)> {
    let splitter = Splitter::new(vnet, frame).expect("the frame can be split");
    let mut slot = vec![0xee; 70_000];
    (0..splitter.count())
        .map(|index| {
            let len = splitter.write(index, &mut slot);
            assert_eq!(len, splitter.len_of(index));
            (splitter.meta(), slot[..len].to_vec())
        })
        .collect()
}

/// Takes out what is ready, as one `writev` per entry would put it together.
fn written(
    coalescer: &mut Coalescer<usize>,
    frames: &[(Meta, Vec<u8>)],
) -> Vec<(VnetHeader, Vec<u8>)> {
    let written = coalescer
        .ready()
        .map(|ready| {
            let mut frame = ready.header().to_vec();
            assert_eq!(ready.pieces().len(), ready.pieces().count());
            for piece in ready.pieces() {
                frame.extend(&frames[piece.at].1[piece.offset..][..piece.len]);
            }
            assert_eq!(frame.len(), ready.frame_len());
            (ready.vnet(), frame)
        })
        .collect();
    coalescer.clear_ready();
    written
}

/// Coalesces all of the frames, with one flush at the end.
fn coalesce(config: CoalesceConfig, frames: &[(Meta, Vec<u8>)]) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut coalescer = Coalescer::new(config);
    for (index, (meta, frame)) in frames.iter().enumerate() {
        coalescer
            .push(*meta, frame, index)
            .expect("the frame is well formed");
    }
    coalescer.flush();
    written(&mut coalescer, frames)
}

/// The frames that reach a wire behind the receiver, in order, atomic identifications levelled.
fn on_the_wire(written: &[(VnetHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    let cut = written
        .iter()
        .flat_map(|(vnet, frame)| kernel::wire_frames(*vnet, frame));
    cut.map(kernel::without_atomic_id).collect()
}

/// The frames as they would reach a wire had nobody coalesced them.
fn as_sent(frames: &[(Meta, Vec<u8>)]) -> Vec<Vec<u8>> {
    let finished = frames.iter().map(|(meta, frame)| {
        let mut frame = frame.clone();
        if meta.is_partial() {
            frame = kernel::without_padding(&frame);
            finish_checksum(&mut frame).expect("TCP or UDP");
        }
        kernel::without_atomic_id(frame)
    });
    finished.collect()
}

/// Groups frames by what makes a flow: addresses, tags, ports.
fn by_flow(frames: Vec<Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for frame in frames {
        let headers = Headers::parse(&frame).expect("only TCP and UDP here");
        let key = [&frame[..headers.l3], &frame[headers.l4..headers.l4 + 4]].concat();
        flows.entry(key).or_default().push(frame);
    }
    flows
}

fn sorted(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.sort();
    frames
}

/// Super-frames of several flows, split. Sequence numbers and identifications go on from one to the next.
fn mixed_traffic() -> impl Strategy<Value = Vec<(Meta, Vec<u8>)>> {
    let flows = vec((shapes(), 2_u16..300), 1..4);
    let bursts = vec((0_usize..4, 1_usize..3000, any::<u32>(), 0_u8..8), 1..12);
    (flows, bursts).prop_map(|(mut flows, bursts)| {
        // No two flows are the same one: then a sequence number could fit by chance.
        for (station, (shape, _)) in (10..).zip(&mut flows) {
            shape.station = station;
        }
        let mut frames = Vec::new();
        for (flow, len, seed, change) in bursts {
            let index = flow % flows.len();
            let (shape, size) = &mut flows[index];
            // Now and then the header changes, or a frame comes that has to go alone.
            match (change, shape.transport) {
                (0, _) => shape.option ^= 1,
                (1, _) => shape.acknowledgement = shape.acknowledgement.wrapping_add(1),
                (2, Transport::Tcp) => {
                    let alone = Shape {
                        flags: traffic::ACK,
                        ..shape.clone()
                    }
                    .single(&[]);
                    frames.push((Meta::PARTIAL, alone));
                }
                _ => {}
            }
            let (vnet, frame) = shape.frame(&payload(len, seed), *size);
            let parts = split(&vnet, &frame);
            shape.sequence = shape.sequence.wrapping_add(u32::try_from(len).unwrap());
            shape.id = shape.id.wrapping_add(u16::try_from(parts.len()).unwrap());
            frames.extend(parts);
        }
        frames
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn segments_are_those_that_a_kernel_would_cut(shape in shapes(), (len, size) in sizes(), seed: u32) {
        let (vnet, frame) = shape.frame(&payload(len, seed), size);
        let expected: Vec<_> = kernel::wire_frames(vnet, &frame);

        let mut finished = Vec::new();
        for (meta, mut segment) in split(&vnet, &frame) {
            // Only where the checksum lies too far into the frame does the sender fill it in.
            if meta.is_partial() {
                finish_checksum(&mut segment).unwrap();
            } else {
                prop_assert!(Headers::parse(&segment).unwrap().checksum_at() + 2 > 128);
            }
            finished.push(segment);
        }

        prop_assert_eq!(finished, expected);
    }

    #[test]
    fn a_super_frame_comes_back_as_it_was(shape in shapes(), (len, size) in sizes(), seed: u32) {
        let (vnet, frame) = shape.frame(&payload(len, seed), size);
        let frames = split(&vnet, &frame);
        prop_assume!(frames.len() <= 64 && shape.extensions.is_empty());
        prop_assume!(usize::from(vnet.hdr_len) <= 128);

        prop_assert_eq!(coalesce(ALL, &frames), [(vnet, frame)]);
    }

    #[test]
    fn loss_costs_the_lost_frames_and_no_order(frames in mixed_traffic(), lost in vec(0_u8..4, 500)) {
        let mut keep = lost.iter().cycle();
        let frames: Vec<_> = frames.into_iter().filter(|_| *keep.next().unwrap() != 0).collect();

        let written = coalesce(ALL, &frames);

        prop_assert_eq!(by_flow(on_the_wire(&written)), by_flow(as_sent(&frames)));
    }

    #[test]
    fn no_disorder_or_doubling_changes_what_arrives(
        frames in mixed_traffic(),
        moves in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..200),
        doubles in vec(any::<prop::sample::Index>(), 0..8),
        flush_every in 1_usize..400,
    ) {
        let mut frames = frames;
        for double in doubles {
            frames.push(frames[double.index(frames.len())].clone());
        }
        for (from, to) in moves {
            let (from, to) = (from.index(frames.len()), to.index(frames.len()));
            frames.swap(from, to);
        }

        let mut coalescer = Coalescer::new(ALL);
        let mut out = Vec::new();
        for (index, (meta, frame)) in frames.iter().enumerate() {
            coalescer.push(*meta, frame, index).expect("the frame is well formed");
            if index % flush_every == 0 {
                coalescer.flush();
                out.extend(written(&mut coalescer, &frames));
            }
        }
        coalescer.flush();
        out.extend(written(&mut coalescer, &frames));

        prop_assert_eq!(sorted(on_the_wire(&out)), sorted(as_sent(&frames)));
        prop_assert!(out.len() <= frames.len());
    }

    #[test]
    fn a_tcp_stream_survives_any_order(
        tags in vec(any::<u16>(), 0..3), ipv6: bool, len in 1_usize..50_000, size in 500_u16..1449,
        order in Just((0..110_usize).collect::<Vec<_>>()).prop_shuffle(), sequence: u32,
    ) {
        let shape = Shape { tags, ipv6, sequence, ..Shape::tcp4() };
        let stream = payload(len, sequence);
        let (vnet, frame) = shape.frame(&stream, size);
        let parts = split(&vnet, &frame);
        let frames: Vec<_> = order.iter().filter_map(|&index| parts.get(index).cloned()).collect();

        let mut received = vec![None; len];
        for (vnet, frame) in coalesce(ALL, &frames) {
            let headers = Headers::parse(&frame).unwrap();
            let start = u32::from_be_bytes(frame[headers.l4 + 4..headers.l4 + 8].try_into().unwrap());
            let start = start.wrapping_sub(sequence) as usize;
            received[start..start + frame.len() - headers.payload].copy_from_slice(
                &frame[headers.payload..].iter().copied().map(Some).collect::<Vec<_>>());
            prop_assert!(!kernel::wire_frames(vnet, &frame).is_empty());
        }

        prop_assert_eq!(received, stream.into_iter().map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_frames_are_refused_or_kept_as_they_are(
        frames in mixed_traffic(),
        damage in vec((any::<prop::sample::Index>(), 0_usize..90, any::<u8>(), 0_u8..4), 1..40),
    ) {
        let mut frames = frames;
        for (frame, at, value, cut) in damage {
            let index = frame.index(frames.len());
            let (meta, bytes) = &mut frames[index];
            match cut {
                0 => bytes.truncate(at),
                1 => *meta = [Meta::COMPLETE, Meta::PARTIAL, Meta::TCP_SEGMENT, Meta::UDP_SEGMENT][usize::from(value % 4)],
                _ => if let Some(byte) = bytes.get_mut(at) { *byte = value },
            }
        }

        let mut coalescer = Coalescer::new(ALL);
        let mut taken = Vec::new();
        for (index, (meta, frame)) in frames.iter().enumerate() {
            if coalescer.push(*meta, frame, index).is_ok() {
                taken.push((*meta, frame.clone()));
            }
        }
        coalescer.flush();
        let out = written(&mut coalescer, &frames);

        // Frames that are whole can be anything, so the levelling of identifications is for the others.
        let (whole, partial): (Vec<_>, Vec<_>) = out.into_iter().partition(|(vnet, _)| *vnet == VnetHeader::default());
        let (taken_whole, taken_partial): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(meta, _)| !meta.is_partial());
        let bytes = |frames: Vec<(VnetHeader, Vec<u8>)>| sorted(frames.into_iter().map(|(_, frame)| frame).collect());
        prop_assert_eq!(bytes(whole), sorted(taken_whole.into_iter().map(|(_, frame)| frame).collect()));
        let cut = partial.iter().flat_map(|(vnet, frame)| split(vnet, frame)).collect::<Vec<_>>();
        prop_assert_eq!(sorted(levelled(&cut)), sorted(levelled(&taken_partial)));
    }

    #[test]
    fn random_bytes_split_within_bounds_or_not_at_all(
        header in vec(any::<u8>(), 10), kind in 0_u8..6, tcp: bool, v6: bool,
        frame in vec(any::<u8>(), 0..300), guided: bool, room in 0_usize..300,
    ) {
        let (mut vnet, _) = VnetHeader::parse(&header).unwrap();
        let mut frame = frame;
        if guided && frame.len() > 60 {
            vnet.gso_type = kind;
            frame[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
            frame[14] = if v6 { 0x60 } else { 0x45 };
            let rest = u16::try_from(frame.len() - 14 - if v6 { 40 } else { 0 }).unwrap().to_be_bytes();
            let at = if v6 { 18 } else { 16 };
            frame[at..at + 2].copy_from_slice(&rest);
            frame[if v6 { 20 } else { 23 }] = if tcp { 6 } else { 17 };
        }
        if let Ok(splitter) = Splitter::new(&vnet, &frame) {
            let mut out = vec![0; room];
            let mut total = 0;
            for index in 0..splitter.count() {
                let len = splitter.write(index, &mut out);
                prop_assert!(len == 0 || len == splitter.len_of(index));
                prop_assert!(splitter.len_of(index) <= frame.len());
                total += splitter.len_of(index);
            }
            prop_assert!(total >= frame.len() || vnet.gso_type != 0);
            prop_assert_eq!(splitter.write(splitter.count(), &mut out), 0);
        } else {
            prop_assert!(vnet.gso_type != 0 || vnet.needs_checksum() || frame.len() < 14);
        }
        let _ = finish_checksum(&mut frame);
    }
}

/// As [`as_sent`], for frames that need not have a checksum worth comparing.
fn levelled(frames: &[(Meta, Vec<u8>)]) -> Vec<Vec<u8>> {
    let finish = |(_, frame): &(Meta, Vec<u8>)| {
        let headers = Headers::parse(frame).expect("only TCP and UDP are partial");
        let mut frame = frame[..headers.end].to_vec();
        finish_checksum(&mut frame).expect("only TCP and UDP are partial");
        if headers.ipv6 {
            frame
        } else {
            kernel::without_atomic_id(frame)
        }
    };
    frames.iter().map(finish).collect()
}

#[test]
fn a_frame_that_is_complete_stays_as_it_is() {
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x08, 0x06], &[7; 28]].concat();

    let frames = split(&VnetHeader::default(), &arp);

    assert_eq!(frames, [(Meta::COMPLETE, arp.clone())]);
    assert_eq!(coalesce(ALL, &frames), [(VnetHeader::default(), arp)]);
}

#[test]
fn a_partial_checksum_in_an_unusual_place_is_filled_in_by_the_sender() {
    // IPv4 in IPv4: the kernel leaves the inner TCP checksum partial.
    let inner = Shape {
        tcp_options: 0,
        ..Shape::tcp4()
    }
    .single(&payload(101, 3));
    let (inner, l3) = (&inner[14..], 14);
    let mut frame = [&[2; 12][..], &[8, 0]].concat();
    frame.extend([
        0x45,
        0,
        0,
        20 + u8::try_from(inner.len()).unwrap(),
        0,
        0,
        0,
        0,
        64,
        4,
        0,
        0,
        10,
        1,
        0,
        1,
        10,
        1,
        0,
        2,
    ]);
    frame.extend(inner);
    let csum_start = l3 + 20 + 20;
    let vnet = VnetHeader {
        flags: 1,
        hdr_len: 74,
        csum_start,
        csum_offset: 16,
        ..VnetHeader::default()
    };

    let [(meta, sent)] = &split(&vnet, &frame)[..] else {
        panic!("one frame")
    };

    assert_eq!(*meta, Meta::COMPLETE);
    let mut expected = Shape {
        tcp_options: 0,
        ..Shape::tcp4()
    }
    .single(&payload(101, 3));
    finish_checksum(&mut expected).unwrap();
    assert_eq!(sent[34..], expected[14..]);
    assert_eq!(sent[..34], frame[..34]);
}

#[test]
fn super_frames_without_a_partial_checksum_get_whole_ones() {
    let (vnet, frame) = Shape::tcp4().frame(&payload(3000, 1), 1000);

    let frames = split(&VnetHeader { flags: 0, ..vnet }, &frame);

    assert!(frames.iter().all(|(meta, _)| *meta == Meta::COMPLETE));
    let frames: Vec<_> = frames.into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(frames, kernel::wire_frames(vnet, &frame));
}

#[test]
fn what_does_not_fit_together_is_not_split() {
    let (vnet, frame) = Shape::tcp4().frame(&payload(3000, 1), 1000);
    let (udp_vnet, udp) = Shape::udp4().frame(&payload(3000, 1), 1000);
    let mut fragment = frame.clone();
    fragment[20] = 0x20;
    let mut short = frame.clone();
    short.truncate(frame.len() - 1);
    let with = |change: fn(&mut VnetHeader)| {
        let mut vnet = vnet;
        change(&mut vnet);
        vnet
    };
    let cases = [
        (vnet, &frame[..13], SplitError::FrameTooShort),
        (
            with(|v| v.gso_type = VnetHeader::GSO_UDP_FRAGMENTS),
            &frame[..],
            SplitError::UnsupportedKind,
        ),
        (
            with(|v| v.gso_type = VnetHeader::GSO_TCPV6),
            &frame[..],
            SplitError::KindMismatch,
        ),
        (udp_vnet, &frame[..], SplitError::KindMismatch),
        (vnet, &udp[..], SplitError::KindMismatch),
        (vnet, &fragment[..], SplitError::KindMismatch),
        (vnet, &short[..], SplitError::Malformed),
        (
            with(|v| v.gso_size = 0),
            &frame[..],
            SplitError::ZeroSegment,
        ),
        (
            with(|v| v.gso_size = 1),
            &frame[..],
            SplitError::TooManySegments,
        ),
        (
            with(|v| v.csum_start += 2),
            &frame[..],
            SplitError::ChecksumPlace,
        ),
        (
            with(|v| v.csum_offset = 6),
            &frame[..],
            SplitError::ChecksumPlace,
        ),
        (
            with(|v| (v.gso_type, v.csum_start) = (0, 60_000)),
            &frame[..],
            SplitError::ChecksumPlace,
        ),
    ];
    for (vnet, frame, error) in cases {
        assert_eq!(
            Splitter::new(&vnet, frame).map(|_| ()),
            Err(error),
            "{vnet:?}"
        );
    }
}

#[test]
fn a_slot_that_is_too_small_is_left_alone() {
    let (vnet, frame) = Shape::tcp4().frame(&payload(3000, 1), 1000);
    let splitter = Splitter::new(&vnet, &frame).unwrap();
    let mut slot = vec![0xee; splitter.len_of(0) - 1];

    assert_eq!(splitter.write(0, &mut slot), 0);
    assert!(slot.iter().all(|&byte| byte == 0xee));
    assert_eq!(
        (splitter.len_of(3), splitter.write(3, &mut vec![0; 2000])),
        (0, 0)
    );
}
