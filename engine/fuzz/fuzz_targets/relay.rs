//! RELAY and GROUP trains from a member that may write what it likes, and from strangers: what is passed on is the
//! inside of an authentic datagram, byte for byte, to the one peer that it is for, with a smaller hop limit.
//!
//! Records, each with the worker that receives, the segment size and:
//!
//! ```text
//!  0  a front with the live receiver index, and any bytes
//!  1  an authentic datagram, cut, longer, or with one byte changed
//!  2  an authentic hop round anything: any labels, any hop limit
//!  3  an authentic hop round a flood of the peer's, with any plaintext
//!  4  an authentic datagram that came before
//! ```

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use weft_engine::session::SealLane;
use weft_engine::verdict::Station;
use weft_engine::wire::relay::{
    HOP_LIMIT_MAX, RELAY_FRONT_LEN, RELAY_OVERHEAD, RelayHeader, Wrapping,
};
use weft_engine::wire::{Header, TAG_LEN};
use weft_engine_fuzz::host::{
    Host, LABELS, OTHER, PEER, PEER_LANES, RECEIVER, group_lane_of_peer, lane_of_peer, sealed,
};
use weft_engine_fuzz::input::Input;

struct Member {
    hop: SealLane,
    group: SealLane,
    sent: Vec<Vec<u8>>,
    insides: BTreeSet<Vec<u8>>,
}

impl Member {
    /// Wraps `inner` for one peer, or for everybody.
    fn wrap(&mut self, inner: &[u8], hop_limit: u8, to: Option<u64>, source: u64) -> Vec<u8> {
        let mut datagram = vec![0; RELAY_FRONT_LEN];
        datagram.extend(inner);
        datagram.extend([0; TAG_LEN]);
        let hop = self.hop.hop();
        let done = match to {
            Some(to) => hop.seal(&mut datagram, hop_limit, to, source),
            None => hop.seal_group(&mut datagram, hop_limit, source),
        };
        if done {
            self.sent.push(datagram.clone());
            self.insides.insert(inner.to_vec());
        }
        datagram
    }

    fn record(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let label = |byte: u8| match LABELS.get(usize::from(byte) % 4) {
            Some(label) => u64::from_be_bytes(*label),
            None => u64::from(byte),
        };
        match input.byte() % 5 {
            0 => {
                let header = RelayHeader {
                    wrapping: [Wrapping::Relay, Wrapping::Group][usize::from(input.byte() & 1)],
                    lane: input.byte() % (PEER_LANES + 2),
                    hop_limit: input.byte() % (HOP_LIMIT_MAX + 2),
                    receiver: RECEIVER,
                    counter: u64::from_be_bytes(input.array()),
                    destination: label(input.byte()),
                    source: label(input.byte()),
                };
                [&header.encode()[..], input.bytes()].concat()
            }
            1 => {
                let mut bad = self.sent.last().cloned().unwrap_or_default();
                let (at, change) = (usize::from(input.short()), input.byte());
                match bad.get_mut(at) {
                    Some(byte) if change != 0 => *byte ^= change,
                    Some(_) => bad.truncate(at),
                    None => bad.extend(input.bytes().iter().chain(&[0])),
                }
                bad
            }
            2 => {
                let (hop_limit, to, source) = (input.byte(), input.byte(), input.byte());
                self.wrap(input.bytes(), hop_limit, Some(label(to)), label(source))
            }
            3 => {
                let hop_limit = input.byte();
                let inner = sealed(&mut self.group, input.bytes());
                self.wrap(&inner, hop_limit, None, u64::from_be_bytes(LABELS[1]))
            }
            _ => {
                let at = usize::from(input.byte());
                self.sent
                    .get(at % self.sent.len().max(1))
                    .cloned()
                    .unwrap_or_default()
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut host = Host::here(1 + u16::from(input.byte() & 1), 1472);
    let lane = input.byte() % PEER_LANES;
    let mut member = Member {
        hop: lane_of_peer(lane),
        group: group_lane_of_peer(lane),
        sent: Vec::new(),
        insides: BTreeSet::new(),
    };
    let mut datagrams = 0;
    while !input.is_over() {
        let (worker, together) = (input.byte(), input.byte() % 4 + 1);
        let mut train = member.record(&mut input);
        let segment = train.len().max(1);
        // Neighbours of one size may go on as one train.
        for _ in 1..together {
            let next = member.record(&mut input);
            if next.len() != segment {
                break;
            }
            train.extend(next);
        }
        train.truncate(60_000);
        datagrams += train.len().div_ceil(segment).max(1) as u64;
        host.arrive(
            worker,
            PEER,
            &train,
            u16::try_from(segment).unwrap_or(u16::MAX),
        );
        host.turn();
    }
    host.turn();
    let mut relayed = 0;
    for train in host.trains_out() {
        if train.address != OTHER {
            continue;
        }
        for datagram in train.datagrams() {
            let header = RelayHeader::parse(&datagram.bytes).expect("a front");
            assert!(header.hop_limit < HOP_LIMIT_MAX);
            let inner = &datagram.bytes[RELAY_FRONT_LEN..datagram.bytes.len() - TAG_LEN];
            assert!(member.insides.contains(inner), "nobody vouched for this");
            assert!(inner.len() + RELAY_OVERHEAD <= 1472);
            if header.wrapping == Wrapping::Group {
                assert!(Header::parse(inner).is_some());
            } else {
                assert_eq!(header.destination, u64::from_be_bytes(LABELS[2]));
            }
            relayed += 1;
        }
    }
    assert!(relayed as usize <= member.sent.len(), "each once");
    let counted = host.dropped_in_all() + host.passed(Station::Relay) + host.passed(Station::Open);
    assert!(counted >= datagrams, "{datagrams}: {:?}", host.drops());
    host.finish();
});
