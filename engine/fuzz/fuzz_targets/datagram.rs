//! Any trains from somebody without the keys: nothing opens, nobody answers, each datagram is counted once.
//!
//! Records, each with the worker that receives, the segment size and:
//!
//! ```text
//!  0  bytes as they are
//!  1  a good header with the live receiver index, and any bytes
//!  2  a sealed datagram, cut, longer, or with one byte changed
//!  3  a datagram that the host has had already
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_engine::verdict::Station;
use weft_engine::wire::Header;
use weft_engine_fuzz::host::{Host, PEER, PEER_LANES, RECEIVER, lane_of_peer, sealed};
use weft_engine_fuzz::input::Input;

const FORGER: &str = "203.0.113.9:1";

fn record(input: &mut Input<'_>, honest: &[u8], had: &[u8]) -> Vec<u8> {
    match input.byte() % 4 {
        0 => input.bytes().to_vec(),
        1 => {
            let lane = input.byte() % (PEER_LANES + 2);
            let counter = u64::from_be_bytes(input.array());
            let header = Header {
                lane,
                receiver: RECEIVER,
                counter,
            };
            [&header.encode()[..], input.bytes()].concat()
        }
        2 => {
            let mut bad = honest.to_vec();
            let (at, change) = (usize::from(input.short()), input.byte());
            match bad.get_mut(at) {
                Some(byte) if change != 0 => *byte ^= change,
                Some(_) => bad.truncate(at),
                None => bad.extend(input.bytes().iter().chain(&[0])),
            }
            bad
        }
        _ => had.to_vec(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut host = Host::here(1 + u16::from(input.byte() & 1), 1472);
    let mut lane = lane_of_peer(input.byte() % PEER_LANES);
    let frame = [
        &[1, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..],
        &[7; 60],
    ]
    .concat();
    let had = sealed(&mut lane, &frame);
    let honest = sealed(&mut lane, &frame);
    host.arrive(0, PEER, &had, 1472);
    host.turn();
    assert_eq!(host.delivered(), [frame[2..].to_vec()]);
    host.trains_out();
    assert_eq!(host.dropped_in_all(), 0);

    let forger = FORGER.parse().expect("an address");
    let mut datagrams = 0;
    while !input.is_over() {
        let (worker, segment) = (input.byte(), input.short());
        let train = record(&mut input, &honest, &had);
        // A train of several must not hold an honest datagram whole.
        let segment = if train.len() > honest.len() && train.starts_with(&honest) {
            0
        } else {
            segment
        };
        // One byte each would be a hundred thousand rounds and show no more than a few do.
        let segment = segment
            .max(u16::try_from(train.len() / 128).unwrap_or(u16::MAX))
            .max(1);
        // A datagram may be empty, and is one all the same.
        datagrams += train.len().div_ceil(usize::from(segment)).max(1) as u64;
        host.arrive(worker, forger, &train, segment);
        if segment & 1 == 0 {
            host.turn();
        }
    }
    host.turn();
    assert_eq!(host.passed(Station::Open), 1, "nothing authentic");
    assert!(host.delivered().is_empty());
    assert!(
        host.trains_out().iter().all(|train| train.address == PEER),
        "nobody answers a forger"
    );
    assert_eq!(host.dropped_in_all(), datagrams, "{:?}", host.drops());
    // And the honest one still opens.
    host.arrive(0, PEER, &honest, 1472);
    host.turn();
    assert_eq!(host.delivered(), [frame[2..].to_vec()]);
    host.finish();
});
