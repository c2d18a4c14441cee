//! A peer that has the keys and means harm: any plaintext, sealed, on any lane, from two addresses.
//!
//! Records: flags (bit 0: from elsewhere, 1: a turn after it, 2: a second passes, 3: both halves of a cut frame),
//! lane, worker, plaintext.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_engine::command::Event;
use weft_engine::config::PATH_SENDS_MAX;
use weft_engine_fuzz::host::{HERE, Host, PEER, PEER_LANES, lane_of_peer, sealed};
use weft_engine_fuzz::input::Input;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut host = Host::here(1 + u16::from(input.byte() & 1), 1472);
    let mut lanes: Vec<_> = (0..=PEER_LANES).map(lane_of_peer).collect();
    let elsewhere = "198.51.100.7:9".parse().expect("an address");
    let (mut sent, mut datagrams, mut turns) = (0, 0, 1);
    while !input.is_over() && datagrams < 64 {
        let flags = input.byte();
        let lane = usize::from(input.byte()) % lanes.len();
        let worker = input.byte();
        let mut texts = vec![input.bytes().to_vec()];
        if flags & 8 != 0 {
            let mut total = u16::try_from(2 * texts[0].len()).unwrap_or(u16::MAX);
            total ^= u16::from(flags >> 5);
            let [high, low] = total.to_be_bytes();
            let half = |part| [&[3, flags >> 4 & 1, part, high, low][..], &texts[0]].concat();
            texts = vec![half(0), half(1)];
        }
        let from = if flags & 1 == 0 { PEER } else { elsewhere };
        for text in texts {
            // A UDP payload is never longer.
            let text = &text[..text.len().min(65_507 - 32)];
            let datagram = sealed(&mut lanes[lane], text);
            sent += text.len();
            datagrams += 1;
            host.arrive(worker, from, &datagram, u16::MAX);
        }
        if flags & 4 != 0 {
            host.wait(Duration::from_secs(1));
            turns += 1;
        }
        if flags & 2 != 0 {
            host.turn();
            turns += 1;
        }
    }
    host.turn();
    host.turn();

    let delivered: usize = host.delivered().iter().map(Vec::len).sum();
    assert!(delivered <= sent, "{delivered} bytes came of {sent}");
    let mut answers = 0;
    for train in host.trains_out() {
        assert!(
            [PEER, elsewhere].contains(&train.address),
            "{} never said anything ({HERE} did not ask)",
            train.address
        );
        assert!(train.bytes.len() <= 66 * 1024 && train.segment <= 1500);
        answers += train.datagrams().count();
    }
    let answers_max = 2 * datagrams + turns * PATH_SENDS_MAX;
    assert!(answers <= answers_max, "{answers} answers to {datagrams}");
    for event in &host.events {
        if let Event::Message { message, .. } = event {
            assert!(message.len() <= sent.min(usize::from(u16::MAX)));
        }
    }
    host.finish();
});
