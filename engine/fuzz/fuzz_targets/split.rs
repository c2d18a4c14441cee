//! Any bytes as a TAP read: every frame that is cut is well formed, and together they carry the payload.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_engine::io::offload::{CoalesceConfig, Coalescer, Headers, VnetHeader};
use weft_engine_fuzz::compare;

const ALL: CoalesceConfig = CoalesceConfig {
    tcp4: true,
    tcp6: true,
    udp: true,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((vnet, frame)) = VnetHeader::parse(bytes) else {
        return;
    };
    let Some(frames) = compare::split(&vnet, frame) else {
        return;
    };

    if vnet.gso_type == VnetHeader::GSO_NONE {
        let [(meta, sent)] = &frames[..] else {
            panic!("one frame")
        };
        assert_eq!(sent.len(), frame.len());
        assert!(sent == frame || (vnet.needs_checksum() && !meta.is_partial()));
    } else {
        let whole = Headers::parse(frame).expect("a super-frame has headers");
        let mut payload = Vec::new();
        for (_, sent) in &frames {
            let headers = Headers::parse(sent).expect("every segment has headers");
            assert_eq!(
                headers,
                Headers {
                    end: sent.len(),
                    ..whole
                }
            );
            payload.extend_from_slice(&sent[headers.payload..]);
        }
        assert_eq!(payload, frame[whole.payload..whole.end]);
    }

    // And the other side takes what this one makes.
    let mut coalescer = Coalescer::new(ALL);
    for (index, (meta, frame)) in frames.iter().enumerate() {
        coalescer
            .push(*meta, frame, index)
            .expect("what is split can be coalesced");
    }
    coalescer.flush();
    let mut arrived = Vec::new();
    for ready in coalescer.ready() {
        let mut frame = ready.header().to_vec();
        for piece in ready.pieces() {
            frame.extend_from_slice(&frames[piece.at].1[piece.offset..][..piece.len]);
        }
        arrived
            .extend(compare::split(&ready.vnet(), &frame).expect("what is coalesced can be split"));
    }
    let level = |frames: &[_]| frames.iter().map(compare::levelled).collect::<Vec<_>>();
    assert_eq!(level(&arrived), level(&frames));
});
