//! Any frames in any order: what comes out, cut again, is what went in.
//!
//! The input is a list of records. The first byte of one says what it is: a whole frame of its own, or a change to the
//! last frame of the same kind (so that frames which fit together are found soon).
//!
//! ```text
//!  0x00-0x7f  meta, length (2 bytes), frame
//!  0x80-0xff  which template, payload length, sequence step, field to change, its new value
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_engine::io::offload::{CoalesceConfig, Coalescer, finish_checksum};
use weft_engine::wire::meta::Meta;
use weft_engine_fuzz::compare;

/// One of four frames that are complete but for their payload: TCP and UDP over IPv4 and IPv6.
struct Template {
    header: Vec<u8>,
    tcp: bool,
    ipv6: bool,
    sequence: u32,
}

impl Template {
    fn new(kind: u8) -> Self {
        let (tcp, ipv6) = (kind & 1 != 0, kind & 2 != 0);
        let protocol = if tcp { 6 } else { 17 };
        let mut header = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if ipv6 {
            header.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64]);
            header.extend([1; 32]);
        } else {
            header.extend([
                8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
            ]);
        }
        header.extend([0, 1, 0, 2]);
        if tcp {
            header.extend([
                0, 0, 0, 0, 0, 0, 0, 0, 0x60, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1,
            ]);
        } else {
            header.extend([0; 4]);
        }
        Self {
            header,
            tcp,
            ipv6,
            sequence: 0,
        }
    }

    /// A frame of this template, with lengths and IPv4 header checksum right, if the change has left them their place.
    fn frame(&self, payload_len: u8) -> Vec<u8> {
        let mut frame = self.header.clone();
        let l4 = if self.ipv6 { 54 } else { 34 };
        if self.tcp {
            frame[l4 + 4..l4 + 8].copy_from_slice(&self.sequence.to_be_bytes());
        }
        frame.extend(std::iter::repeat_n(payload_len, usize::from(payload_len)));
        let put = |frame: &mut Vec<u8>, at: usize, len: usize| {
            frame[at..at + 2]
                .copy_from_slice(&u16::try_from(len).expect("a short frame").to_be_bytes());
        };
        let len = frame.len();
        if !self.tcp {
            put(&mut frame, l4 + 4, len - l4);
        }
        if self.ipv6 {
            put(&mut frame, 18, len - 54);
        } else {
            put(&mut frame, 16, len - 14);
            put(&mut frame, 24, 0);
            let total: u32 = frame[14..34]
                .chunks(2)
                .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
                .sum();
            let total = (total & 0xffff) + (total >> 16);
            put(
                &mut frame,
                24,
                usize::from(!u16::try_from(total).expect("folded")),
            );
        }
        frame
    }
}

fn records(mut bytes: &[u8]) -> Vec<(Meta, Vec<u8>)> {
    let mut templates = [0, 1, 2, 3].map(Template::new);
    let mut frames = Vec::new();
    while let [first, rest @ ..] = bytes {
        if *first & 0x80 == 0 {
            let [high, low, rest @ ..] = rest else { break };
            let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
            let (frame, rest) = rest.split_at(len);
            frames.extend(Meta::from_wire(*first).map(|meta| (meta, frame.to_vec())));
            bytes = rest;
        } else {
            let [payload_len, step, field, value, rest @ ..] = rest else {
                break;
            };
            let template = &mut templates[usize::from(*first & 3)];
            if *first & 4 != 0 {
                if let Some(byte) = template.header.get_mut(usize::from(*field)) {
                    *byte = *value;
                }
            }
            let frame = template.frame(*payload_len);
            let step = i32::from(step.cast_signed());
            template.sequence = template
                .sequence
                .wrapping_add(u32::from(*payload_len))
                .wrapping_add_signed(step);
            let mut frame = (Meta::PARTIAL, frame);
            if *first & 8 != 0 && finish_checksum(&mut frame.1).is_ok() {
                frame.0 = Meta::COMPLETE;
            }
            frames.push(frame);
            bytes = rest;
        }
    }
    frames
}

fuzz_target!(|bytes: &[u8]| {
    let Some((config, bytes)) = bytes.split_first() else {
        return;
    };
    let config = CoalesceConfig {
        tcp4: config & 1 == 0,
        tcp6: config & 2 == 0,
        udp: config & 4 == 0,
    };
    let frames = records(bytes);
    let mut coalescer = Coalescer::new(config);
    let mut taken = Vec::new();
    for (index, (meta, frame)) in frames.iter().enumerate() {
        if coalescer.push(*meta, frame, index).is_ok() {
            taken.push(index);
        }
    }
    coalescer.flush();

    let mut pieces = Vec::new();
    let mut arrived = Vec::new();
    for ready in coalescer.ready() {
        let mut frame = ready.header().to_vec();
        for piece in ready.pieces() {
            pieces.push(piece.at);
            frame.extend_from_slice(&frames[piece.at].1[piece.offset..][..piece.len]);
        }
        assert_eq!(frame.len(), ready.frame_len());
        arrived
            .extend(compare::split(&ready.vnet(), &frame).expect("what is coalesced can be split"));
    }
    pieces.sort_unstable();
    assert_eq!(pieces, taken, "every frame that was taken comes out once");

    let mut sent: Vec<_> = taken
        .iter()
        .map(|&index| compare::levelled(&frames[index]))
        .collect();
    let mut arrived: Vec<_> = arrived.iter().map(compare::levelled).collect();
    sent.sort_unstable();
    arrived.sort_unstable();
    assert_eq!(arrived, sent);
});
