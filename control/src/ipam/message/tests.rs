//! Messages there and back, and garbage.

use proptest::prelude::*;

use super::*;
use crate::ipam::claim::{Claim, Version};

fn peer(n: u8) -> PeerId {
    PeerId([n; 16])
}

#[expect(clippy::too_many_lines, reason = "one sample of each message")]
fn samples() -> Vec<IpamMessage> {
    let ballot = Ballot {
        round: 7,
        proposer: peer(3),
    };
    let span = Span::new(0x0a20_0000, 0x0a2f_ffff).unwrap();
    let run = Run {
        span,
        claim: Claim::with_owners(Version { era: 1, step: 2 }, vec![peer(1), peer(2)]).unwrap(),
    };
    let council = Council::first(&[peer(1), peer(2)]).removing(peer(2), 9, 2);
    let decree = Decree::Remove {
        victim: peer(2),
        incarnation: 4,
        takeovers: vec![(span, peer(1))],
    };
    let genesis = GenesisId([8; 16]);
    let founding = Decree::Found {
        genesis,
        founders: vec![peer(1), peer(2)],
    };
    let (slot, number, digest) = (5, 77, [6; 16]);
    vec![
        IpamMessage::Digest {
            genesis: Some(genesis),
            range: span,
            digest,
            votes: true,
            answer: false,
            agrees: true,
        },
        IpamMessage::Digest {
            genesis: None,
            range: span,
            digest,
            votes: false,
            answer: true,
            agrees: false,
        },
        IpamMessage::Ring {
            genesis,
            range: span,
            council,
            digest,
            number,
            part: (1, 2),
            runs: vec![run.clone(); 2],
        },
        IpamMessage::RingWanted,
        IpamMessage::Want {
            number,
            spans: vec![span; 2],
            exact: true,
            giver_view: digest,
            taker_view: [7; 16],
        },
        IpamMessage::Given {
            number,
            runs: vec![run.clone()],
        },
        IpamMessage::Denied {
            number,
            denial: Denial::InUse,
        },
        IpamMessage::Prepare {
            slot,
            ballot,
            electors: 3,
            about: Some((peer(2), digest)),
        },
        IpamMessage::Prepare {
            slot,
            ballot,
            electors: 0,
            about: None,
        },
        IpamMessage::Promise {
            slot,
            ballot,
            voter: peer(1),
            accepted: Some((ballot, decree.clone())),
        },
        IpamMessage::Promise {
            slot,
            ballot,
            voter: peer(1),
            accepted: None,
        },
        IpamMessage::Refused {
            slot,
            ballot,
            promised: ballot,
        },
        IpamMessage::Accept {
            slot,
            ballot,
            decree,
        },
        IpamMessage::Accept {
            slot,
            ballot,
            decree: founding,
        },
        IpamMessage::Accept {
            slot,
            ballot,
            decree: Decree::Admit(peer(4)),
        },
        IpamMessage::Accept {
            slot,
            ballot,
            decree: Decree::Seat {
                seed: peer(4),
                peer: peer(5),
            },
        },
        IpamMessage::Voted {
            slot,
            ballot,
            voter: peer(1),
        },
        IpamMessage::Disputed { runs: vec![run] },
        IpamMessage::InUse {
            span,
            addresses: vec![1, 2, 3],
        },
        IpamMessage::Inherit { number },
        IpamMessage::Inherits {
            number,
            willing: true,
        },
    ]
}

#[test]
fn every_message_comes_back_as_it_was() {
    for message in samples() {
        assert_eq!(IpamMessage::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn the_form_on_the_wire_stays() {
    let want = IpamMessage::Want {
        number: 1,
        spans: vec![Span::new(2, 3).unwrap()],
        exact: true,
        giver_view: [4; 16],
        taker_view: [5; 16],
    };
    let golden = [
        [4, 6, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1].as_slice(),
        &[7, 0, 8, 0, 0, 0, 2, 0, 0, 0, 3],
        &[10, 0, 1, 1],
        &[8, 0, 16],
        &[4; 16],
        &[9, 0, 16],
        &[5; 16],
    ]
    .concat();
    assert_eq!(want.encode(), golden);
}

#[test]
fn more_than_a_limit_is_refused() {
    let run = Run {
        span: Span::new(0, 1).unwrap(),
        claim: Claim::new(Version::default(), peer(1)),
    };
    let given = |count| IpamMessage::Given {
        number: 1,
        runs: vec![run.clone(); count],
    };
    assert!(IpamMessage::decode(&given(CHUNK_RUNS_MAX).encode()).is_ok());
    assert!(IpamMessage::decode(&given(CHUNK_RUNS_MAX + 1).encode()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = IpamMessage::decode(&bytes);
    }

    #[test]
    fn altered_messages_are_read_or_refused(which in 0_usize..20, at: u16, value: u8) {
        let mut bytes = samples()[which].encode();
        let at = usize::from(at) % bytes.len();
        bytes[at] = value;
        let _ = IpamMessage::decode(&bytes);
    }
}
