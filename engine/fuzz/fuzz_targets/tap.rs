//! Any virtio headers and frames from the TAP: trains keep to their bounds, and the peer takes every datagram of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_engine::config::{TRAIN_DATAGRAMS_MAX, TRAIN_LEN_MAX};
use weft_engine_fuzz::host::{HERE, Host, PEER};
use weft_engine_fuzz::input::Input;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let flags = input.byte();
    let datagram_max = [1200, 1252, 1472, 8972][usize::from(flags >> 1 & 3)];
    let workers = 1 + u16::from(flags & 1);
    let mut host = Host::here(workers, datagram_max);
    let mut peer = Host::peer(workers, datagram_max);
    while !input.is_over() {
        let worker = input.byte();
        host.send(worker, input.bytes());
        if worker & 0x80 != 0 {
            host.turn();
        }
    }
    host.turn();
    for train in host.trains_out() {
        assert_eq!(train.address, PEER);
        assert!(train.segment <= datagram_max && train.bytes.len() <= TRAIN_LEN_MAX);
        assert!(train.datagrams().count() <= TRAIN_DATAGRAMS_MAX);
        let segment = u16::try_from(train.segment).expect("shorter than a datagram's maximum");
        peer.arrive(0, HERE, &train.bytes, segment);
        peer.turn();
    }
    assert_eq!(peer.dropped_in_all(), 0, "{:?}", peer.drops());
    for frame in peer.delivered() {
        assert!((14..=65_535 + 18).contains(&frame.len()), "{}", frame.len());
    }
    host.finish();
    peer.finish();
});
