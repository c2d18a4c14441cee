//! Any bytes as an outer header: read, written and read again they mean the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_engine::wire::{FRAME_OVERHEAD, HEADER_LEN, Header, Kind};

fuzz_target!(|bytes: &[u8]| {
    if let Some((header, raw)) = Header::parse(bytes) {
        assert!(bytes.len() >= FRAME_OVERHEAD);
        assert_eq!(raw[..], bytes[..HEADER_LEN]);
        assert_eq!(
            header.encode(),
            *raw,
            "no two headers have the same meaning"
        );
        // The fields of one header make another, and bytes behind it change nothing.
        let other = Header {
            lane: header.lane ^ bytes[HEADER_LEN],
            receiver: header.receiver.rotate_left(8),
            counter: !header.counter,
        };
        let mut datagram = bytes.to_vec();
        datagram[..HEADER_LEN].copy_from_slice(&other.encode());
        assert_eq!(Header::parse(&datagram).map(|(read, _)| read), Some(other));
    } else if bytes.len() >= FRAME_OVERHEAD {
        assert!(
            bytes[0] != 0x11 || bytes[2] != 0 || bytes[3] != 0,
            "a good header was refused"
        );
    }
    if let Some(first) = bytes.first() {
        assert_eq!(
            Kind::parse(*first).map_or(*first, |kind| kind as u8),
            *first
        );
    }
});
