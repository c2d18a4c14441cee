//! Somebody dials a node: a stranger with any bytes, or a peer with the secret who damages its handshake or, once
//! the link is up, says anything.
//!
//! ```text
//!  flags   bit 0: a stranger, 1: the network is open, 2: in front of the HELLO stand bytes of the input,
//!          3: one byte of the handshake is changed, 4: all messages arrive at once
//! ```

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use weft_control::api::EngineStatus;
use weft_control::fuzzing::HostilePeer;
use weft_control::node::exchange::LinkId;
use weft_control_fuzz::input::Input;
use weft_control_fuzz::watched::{Watched, config, identity};

const LINK: LinkId = LinkId(1);
/// A preamble, the second handshake message, and a refusal.
const STRANGER_HEARS_MAX: usize = 8 + 4 + 96 + 5;

fn stranger(node: &mut Watched, input: &mut Input<'_>, now: Instant) {
    let mut heard = 0;
    let mut said = Vec::new();
    while !input.is_over() {
        let bytes = input.bytes();
        said.extend_from_slice(bytes);
        node.data(LINK, bytes, now);
        heard += node.sent_on(LINK).len();
    }
    assert!(heard <= STRANGER_HEARS_MAX, "{heard} bytes for a stranger");
    assert!(
        heard == 0 || said.starts_with(b"weft"),
        "nothing for who is no weft"
    );
    assert!(node.peers.is_empty(), "a stranger became a peer");
}

fn hostile(node: &mut Watched, input: &mut Input<'_>, flags: u8, now: Instant) {
    let before = if flags & 4 == 0 { &[] } else { input.bytes() };
    let damage = (flags & 8 != 0).then(|| (input.byte(), input.short(), input.byte()));
    let settings = config("hostile", flags & 2 != 0, &[]);
    let (mut peer, mut bytes) = HostilePeer::dial(settings, identity(2), 3, before, now);
    let mut last = Vec::new();
    for turn in 0..4 {
        if let Some((at, place, change)) = damage
            && at % 4 == turn
            && !bytes.is_empty()
        {
            let place = usize::from(place) % bytes.len();
            bytes[place] ^= change;
        }
        // The last message of the handshake can go together with what is said next.
        if flags & 16 != 0 && turn == 2 {
            last = std::mem::take(&mut bytes);
        }
        node.data(LINK, &bytes, now);
        bytes = peer.receive(&node.sent_on(LINK), now);
    }
    let changed = damage.is_some_and(|(at, _, change)| at % 4 < 3 && change != 0);
    if !changed && before.is_empty() && last.is_empty() {
        assert!(
            peer.is_up && node.peers.len() == 1,
            "an honest handshake failed"
        );
    }
    let mut all = last;
    let (mut said, mut heard) = (0, 0);
    while !input.is_over() {
        let record = peer.say(input.bytes());
        said += record.len();
        if flags & 16 != 0 {
            all.extend(record);
        } else {
            node.data(LINK, &record, now);
            heard += node.sent_on(LINK).len();
        }
    }
    if flags & 16 != 0 {
        node.data(LINK, &all, now);
        heard += node.sent_on(LINK).len();
    }
    // Answers are as long as what they answer, but for the second message of a few session handshakes and our
    // HELLO.
    assert!(heard <= said + 8 * 512, "{heard} bytes for {said}");
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let flags = input.byte();
    let now = Instant::now();
    let mut node = Watched::new(config("node", flags & 2 != 0, &[]), identity(1), 1, now);
    node.open(LINK, None, "192.0.2.9:4711", now);
    if flags & 1 != 0 {
        stranger(&mut node, &mut input, now);
    } else {
        hostile(&mut node, &mut input, flags, now);
    }
    let _ = node.node.status(EngineStatus::default(), now);
    // Whoever it was, in the end it is silent: the link goes, and after a while the peer is forgotten.
    node.tick_until(now + Duration::from_secs(30));
    assert!(node.closed.contains(&LINK), "a silent connection stays");
    node.tick_until(now + Duration::from_secs(700));
    assert!(
        node.peers.is_empty() && node.epochs.is_empty(),
        "a lost peer stays"
    );
});
