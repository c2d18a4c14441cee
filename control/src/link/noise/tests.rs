//! The handshake against a published vector, and what it must refuse.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn key(text: &str) -> [u8; 32] {
    hex(text).try_into().unwrap()
}

fn pair(secret_i: u8, prologue_r: &[u8]) -> (NoiseHandshake, NoiseHandshake) {
    let secret = SecretKey([secret_i; 32]);
    let i = NoiseHandshake::initiator(&[1; 32], &secret, b"p", &mut Randomness::seeded(1)).unwrap();
    let r = NoiseHandshake::responder(&[2; 32], prologue_r, &mut Randomness::seeded(2)).unwrap();
    (i, r)
}

/// The cacophony vector for this very pattern: messages, transcript hash and the first transport message.
#[test]
fn the_published_vector_is_met() {
    let prologue = hex("4a6f686e2047616c74");
    let psk = key("54686973206973206d7920417573747269616e20706572737065637469766521");
    let build = |initiator: bool, exchange: &str, ephemeral: &str| {
        let origin = Origin {
            initiator,
            exchange: Zeroizing::new(key(exchange)),
            ephemeral: Zeroizing::new(key(ephemeral)),
            prologue: prologue.clone(),
            secret: initiator.then_some(SecretKey(psk)),
        };
        NoiseHandshake {
            state: origin.build().unwrap(),
            origin,
            steps: Vec::new(),
        }
    };
    let mut initiator = build(
        true,
        "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
        "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
    );
    let mut responder = build(
        false,
        "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
        "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
    );

    let first = initiator
        .write(&hex("4c756477696720766f6e204d69736573"))
        .unwrap();
    assert_eq!(
        first,
        hex(
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944325ea71699951ece20f284b6ad9604a0\
             29eb335bf84564c308b6ade90ae45078"
        )
    );
    responder.read(&first).unwrap();
    let second = responder
        .write(&hex("4d757272617920526f746862617264"))
        .unwrap();
    assert_eq!(
        second,
        hex(
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088432645535233ffe1432564d66a85227b67\
             7ced6fc2730ae0998ff49aa1dc56b8186e31b16e416f5d9c03c71f6c34fd37ec013105020070a8b00c000ce7ed56629c\
             119795f96463274bc05519d5c24dc1"
        )
    );
    initiator.read(&second).unwrap();
    let third = initiator.write(&hex("462e20412e20486179656b")).unwrap();
    assert_eq!(
        third,
        hex(
            "adf16c5375ec4172576783fd59f2bfa5c7a320d0a13b759592e1a2ddf5524cce59ccbb92ff5d321fced3bdb2840596df\
             562c0e68aad41b090abd285f6d300130072e06964a6ba494e58d47"
        )
    );
    responder.read_last(&third, &[SecretKey(psk)]).unwrap();

    let split = responder.split().unwrap();
    assert_eq!(
        split.hash,
        key("fc0819f08aebc23de9a783653d8d7d6395b7d243d9deec12f5d6fe2f4c206673")
    );
    let mut cipher = LinkCipher::new(&split.responder, &split.initiator);
    let mut record = hex("4361726c204d656e676572");
    cipher.seal(&[], &mut record, 0).unwrap();
    assert_eq!(
        record,
        hex("dcdc045c8e9ec36c8ea4078552e5849f87cb9bdfbd2a4eee3baaf6")
    );
}

#[test]
fn the_responder_finds_the_secret_among_several() {
    let (mut i, mut r) = pair(7, b"p");
    r.read(&i.write(b"").unwrap()).unwrap();
    i.read(&r.write(b"two").unwrap()).unwrap();
    let last = i.write(b"three").unwrap();

    assert_eq!(r.read_last(&last, &[SecretKey([1; 32])]), Err(NoiseError));
    let found = r.read_last(
        &last,
        &[SecretKey([5; 32]), SecretKey([6; 32]), SecretKey([7; 32])],
    );

    assert_eq!(found, Ok((b"three".to_vec(), 2)));
    let (i, r) = (i.split().unwrap(), r.split().unwrap());
    assert_eq!(
        (i.hash, &i.initiator, &i.responder),
        (r.hash, &r.initiator, &r.responder)
    );
    assert_ne!(i.initiator, i.responder);
}

#[test]
fn another_prologue_shows_at_the_first_message() {
    let (mut i, mut r) = pair(7, b"q");
    assert_eq!(r.read(&i.write(b"").unwrap()), Err(NoiseError));
}

#[test]
fn a_key_of_low_order_is_refused() {
    let mut dh = X25519::default();
    dh.set(&[9; 32]);
    let mut out = [0; 32];
    let mut one = [0; 32];
    one[0] = 1;
    for low in [[0; 32], one] {
        assert_eq!(dh.dh(&low, &mut out), Err(snow::Error::Dh));
    }
    assert_eq!(out, [0; 32]);
}

#[test]
fn records_open_once_and_in_order() {
    let (a, b) = (SecretKey([1; 32]), SecretKey([2; 32]));
    let (mut left, mut right) = (LinkCipher::new(&a, &b), LinkCipher::new(&b, &a));
    let mut sealed = Vec::new();
    for text in [b"one".as_slice(), b"two"] {
        let mut record = text.to_vec();
        left.seal(b"h", &mut record, 0).unwrap();
        sealed.push(record);
    }

    assert!(right.open(b"h", &mut sealed[1].clone()).is_err());
    assert!(right.open(b"x", &mut sealed[0].clone()).is_err());
    let mut first = sealed[0].clone();
    right.open(b"h", &mut first).unwrap();
    assert_eq!(first, b"one");
    assert!(
        right.open(b"h", &mut sealed[0].clone()).is_err(),
        "a replay"
    );
    assert!(
        right.open(b"h", &mut vec![0; 3]).is_err(),
        "shorter than a tag"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_message_survives_a_change(which in 0_usize..3, at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<bool>()) {
        let (mut i, mut r) = pair(7, b"p");
        let spoil = |message: &[u8]| {
            let mut spoilt = message.to_vec();
            let at = at.index(spoilt.len());
            if cut { spoilt.truncate(at) } else { spoilt[at] ^= 1 << bit }
            spoilt
        };
        let first = i.write(b"1").unwrap();
        if which == 0 {
            prop_assert!(r.read(&spoil(&first)).is_err());
        }
        r.read(&first).unwrap();
        let second = r.write(b"2").unwrap();
        if which == 1 {
            prop_assert!(i.read(&spoil(&second)).is_err());
        }
        i.read(&second).unwrap();
        let third = i.write(b"3").unwrap();
        if which == 2 {
            prop_assert!(r.read_last(&spoil(&third), &[SecretKey([7; 32])]).is_err());
        }
        prop_assert!(r.read_last(&third, &[SecretKey([7; 32])]).is_ok());
    }
}
