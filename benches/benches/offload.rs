//! What cutting a super-frame and putting it together again costs.
//!
//! One TCP super-frame of 60 KB becomes frames of 1390 bytes and back; `copy` is the same bytes moved by plain copies,
//! the least that `split` can cost. Coalescing moves no payload: its figure per segment is what counts.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weft_engine::io::offload::{CoalesceConfig, Coalescer, Splitter, VnetHeader};
use weft_engine::wire::meta::Meta;

const HEADER_LEN: usize = 66;
const FRAME_LEN: usize = 1390;
const SEGMENT_LEN: usize = FRAME_LEN - HEADER_LEN;
/// A datagram slot: room for what goes before and after the frame.
const SLOT_LEN: usize = 1472;
const SLOT_HEADROOM: usize = 32;
const ALL: CoalesceConfig = CoalesceConfig {
    tcp4: true,
    tcp6: true,
    udp: true,
};

/// A TCP super-frame with timestamps, as Linux sends it; 45 segments.
fn super_frame() -> (VnetHeader, Vec<u8>) {
    let payload_len = 45 * SEGMENT_LEN;
    let total_len = u16::try_from(HEADER_LEN - 14 + payload_len).expect("below 64 KiB");
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend(total_len.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 32, 0, 1, 10, 44, 0, 1]);
    let sum: u32 = frame[14..34]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!u16::try_from(sum).expect("folded")).to_be_bytes());
    frame.extend([
        0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0xf5, 0, 0, 0, 0,
    ]);
    frame.extend([1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6]);
    frame.resize(HEADER_LEN + payload_len, 0x5a);
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        hdr_len: 66,
        gso_size: u16::try_from(SEGMENT_LEN).expect("below 64 KiB"),
        csum_start: 34,
        csum_offset: 16,
    };
    (vnet, frame)
}

fn split_into(vnet: &VnetHeader, frame: &[u8], slots: &mut [u8]) -> (Meta, usize) {
    let splitter = Splitter::new(vnet, frame).expect("a good super-frame");
    for (index, slot) in slots
        .chunks_exact_mut(SLOT_LEN)
        .take(splitter.count())
        .enumerate()
    {
        black_box(splitter.write(index, &mut slot[SLOT_HEADROOM..]));
    }
    (splitter.meta(), splitter.count())
}

fn split(c: &mut Criterion) {
    let (vnet, frame) = super_frame();
    let mut slots = vec![0; 64 * SLOT_LEN];
    let mut group = c.benchmark_group("split");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("copy", |b| {
        b.iter(|| {
            let slots = slots.chunks_exact_mut(SLOT_LEN);
            for (slot, part) in slots.zip(black_box(&frame[HEADER_LEN..]).chunks(SEGMENT_LEN)) {
                slot[SLOT_HEADROOM + HEADER_LEN..][..part.len()].copy_from_slice(part);
                black_box(slot);
            }
        });
    });
    group.bench_function("tcp4_60k_to_1390", |b| {
        b.iter(|| split_into(black_box(&vnet), black_box(&frame), &mut slots));
    });
    group.throughput(Throughput::Bytes(FRAME_LEN as u64));
    group.bench_function("one_frame", |b| {
        let single = VnetHeader {
            gso_type: 0,
            gso_size: 0,
            ..vnet
        };
        let mut one = vec![0; FRAME_LEN];
        split_into(&vnet, &frame, &mut slots);
        one.copy_from_slice(&slots[SLOT_HEADROOM..][..FRAME_LEN]);
        b.iter(|| split_into(black_box(&single), black_box(&one), &mut slots));
    });
    group.finish();
}

/// Pushes the slots in this order, flushes, and walks what is ready as a `writev` would be built.
fn coalesce_all(coalescer: &mut Coalescer<u32>, meta: Meta, slots: &[u8], order: &[u32]) -> usize {
    for &at in order {
        let frame = &slots[at as usize * SLOT_LEN + SLOT_HEADROOM..][..FRAME_LEN];
        coalescer.push(meta, frame, at).expect("a good frame");
    }
    coalescer.flush();
    let mut bytes = 0;
    for ready in coalescer.ready() {
        black_box(ready.vnet().encode());
        bytes += ready.header().len();
        for piece in ready.pieces() {
            bytes += black_box(piece).len;
        }
    }
    coalescer.clear_ready();
    bytes
}

fn coalesce(c: &mut Criterion) {
    let (vnet, frame) = super_frame();
    let mut slots = vec![0; 64 * SLOT_LEN];
    let (meta, count) = split_into(&vnet, &frame, &mut slots);
    let in_order: Vec<u32> = (0..45).collect();
    let swapped: Vec<u32> = (0..45)
        .map(|at| if at < 44 { at ^ 1 } else { at })
        .collect();
    let every_other: Vec<u32> = (0..45).filter(|at| at % 2 == 0).collect();
    assert_eq!(count, in_order.len());

    let mut group = c.benchmark_group("coalesce");
    for (name, order) in [
        ("in_order", in_order),
        ("pairs_swapped", swapped),
        ("every_other_lost", every_other),
    ] {
        group.throughput(Throughput::Elements(order.len() as u64));
        let mut coalescer = Coalescer::new(ALL);
        group.bench_function(name, |b| {
            b.iter(|| coalesce_all(&mut coalescer, black_box(meta), black_box(&slots), &order));
        });
    }
    group.throughput(Throughput::Elements(64));
    let order: Vec<u32> = (0..64).collect();
    let mut coalescer = Coalescer::new(ALL);
    group.bench_function("complete_frames", |b| {
        b.iter(|| coalesce_all(&mut coalescer, Meta::COMPLETE, black_box(&slots), &order));
    });
    group.finish();
}

criterion_group!(benches, split, coalesce);
criterion_main!(benches);
