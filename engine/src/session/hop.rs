//! Hop tags: what the two ends of one hop vouch for, without seeing the inside.
//!
//! ```text
//!  direction key ─┬─ "weft lane" ‖ suite ‖ lane ─────► DATA
//!                 └─ "weft hop lane" ‖ suite ‖ lane ─► hop tags, with a counter and a replay window of their own
//! ```
//!
//! Layout and associated data: `wire::relay`. One lane = one worker, as for DATA.

use crate::command::SessionKeys;
use crate::config::SEALS_HARD_MAX;
use crate::session::{Forged, Implementation, LaneCipher, OpenError, ReplayWindow};
use crate::wire::TAG_LEN;
use crate::wire::relay::{RELAY_FRONT_LEN, RelayHeader, Wrapping, hop_data};

/// Our hop lane of an epoch.
#[derive(Debug)]
pub struct HopSeal {
    cipher: LaneCipher,
    lane: u8,
    receiver: u32,
    counter: u64,
}

impl HopSeal {
    /// The hop lane of worker `lane` in this epoch; `None` if the suite is not built in.
    pub fn new(keys: &SessionKeys, implementation: Implementation, lane: u8) -> Option<Self> {
        Some(Self {
            cipher: LaneCipher::derive_hop(keys.suite, implementation, &keys.send_key, lane)?,
            lane,
            receiver: keys.remote_index,
            counter: 0,
        })
    }

    /// Writes a RELAY front before and the hop tag behind an inner datagram, which stands between them
    /// already. False if the key is used up, or if there is no room for an inner datagram.
    #[inline]
    pub fn seal(
        &mut self,
        datagram: &mut [u8],
        hop_limit: u8,
        destination: u64,
        source: u64,
    ) -> bool {
        self.seal_as(Wrapping::Relay, datagram, hop_limit, (destination, source))
    }

    /// As [`HopSeal::seal`], with a GROUP front.
    pub fn seal_group(&mut self, datagram: &mut [u8], hop_limit: u8, source: u64) -> bool {
        self.seal_as(Wrapping::Group, datagram, hop_limit, (0, source))
    }

    #[inline]
    fn seal_as(
        &mut self,
        wrapping: Wrapping,
        datagram: &mut [u8],
        hop_limit: u8,
        (destination, source): (u64, u64),
    ) -> bool {
        if self.counter >= SEALS_HARD_MAX {
            return false;
        }
        let counter = self.counter;
        let header = RelayHeader {
            wrapping,
            lane: self.lane,
            hop_limit,
            receiver: self.receiver,
            counter,
            destination,
            source,
        };
        let Some(front) = datagram.first_chunk_mut::<RELAY_FRONT_LEN>() else {
            return false;
        };
        *front = header.encode();
        let Some(data) = hop_data(datagram) else {
            return false;
        };
        let Some(tag) = datagram.last_chunk_mut::<TAG_LEN>() else {
            return false;
        };
        self.counter += 1;
        *tag = self.cipher.seal(counter, &data, &mut []);
        true
    }

    /// Datagrams sealed so far.
    #[inline]
    pub fn count(&self) -> u64 {
        self.counter
    }
}

/// One hop lane that this worker owns, as receiver.
#[derive(Debug)]
pub struct HopOpen {
    cipher: LaneCipher,
    window: ReplayWindow,
}

impl HopOpen {
    pub(super) fn new(
        keys: &SessionKeys,
        implementation: Implementation,
        lane: u8,
    ) -> Option<Self> {
        Some(Self {
            cipher: LaneCipher::derive_hop(keys.suite, implementation, &keys.recv_key, lane)?,
            window: ReplayWindow::default(),
        })
    }

    /// Checks the window, then the tag, then marks the counter.
    #[inline]
    pub fn verify(&mut self, header: &RelayHeader, datagram: &[u8]) -> Result<(), OpenError> {
        if !self.window.check(header.counter) {
            return Err(OpenError::Replayed);
        }
        let data = hop_data(datagram).ok_or(OpenError::Forged)?;
        let mut tag: [u8; TAG_LEN] = *datagram.last_chunk().ok_or(OpenError::Forged)?;
        self.cipher
            .open(header.counter, &data, &mut tag)
            .map_err(|Forged| OpenError::Forged)?;
        self.window.mark(header.counter);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{PeerSlot, SecretKey};
    use crate::session::{CipherSuite, SealLane};
    use crate::wire::FRAME_OVERHEAD;
    use crate::wire::relay::{HOP_LIMIT_MAX, RELAY_OVERHEAD};

    fn keys(suite: CipherSuite) -> SessionKeys {
        SessionKeys {
            slot: PeerSlot(1),
            local_index: 10,
            remote_index: 20,
            suite,
            send_key: SecretKey([1; 32]),
            recv_key: SecretKey([1; 32]),
            peer_lanes: 2,
        }
    }

    fn pair(suite: CipherSuite) -> (HopSeal, HopOpen) {
        let implementation = Implementation::of(suite)[0];
        (
            HopSeal::new(&keys(suite), implementation, 1).unwrap(),
            HopOpen::new(&keys(suite), implementation, 1).unwrap(),
        )
    }

    fn sealed(hop: &mut HopSeal, inner: usize) -> Vec<u8> {
        let mut datagram = vec![7; RELAY_OVERHEAD + inner];
        assert!(hop.seal(&mut datagram, HOP_LIMIT_MAX, 2, 1));
        datagram
    }

    fn verify(hop: &mut HopOpen, datagram: &[u8]) -> Result<(), OpenError> {
        let header = RelayHeader::parse(datagram).ok_or(OpenError::Forged)?;
        hop.verify(&header, datagram)
    }

    #[test]
    fn a_hop_is_verified_once_and_a_forgery_does_not_use_up_its_counter() {
        let (mut seal, mut open) = pair(CipherSuite::ChaCha20Poly1305);
        let datagram = sealed(&mut seal, 100);
        let mut forged = datagram.clone();
        forged[30] ^= 1;
        assert_eq!(verify(&mut open, &forged), Err(OpenError::Forged));
        assert_eq!(verify(&mut open, &datagram), Ok(()));
        assert_eq!(verify(&mut open, &datagram), Err(OpenError::Replayed));
        assert_eq!(verify(&mut open, &sealed(&mut seal, 100)), Ok(()));
    }

    /// The same direction key, lane, counter and associated data: only the label of the derivation differs.
    #[test]
    fn the_keys_for_hops_are_not_those_for_data() {
        for suite in CipherSuite::ALL {
            let implementation = Implementation::of(suite)[0];
            let keys = keys(suite);
            let data = LaneCipher::derive(suite, implementation, &keys.send_key, 1).unwrap();
            let hop = LaneCipher::derive_hop(suite, implementation, &keys.send_key, 1).unwrap();
            assert_ne!(
                data.seal(0, b"same", &mut []),
                hop.seal(0, b"same", &mut [])
            );
            assert!(SealLane::new(&keys, implementation, 1).is_some());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_flipped_in_what_the_tag_covers_shows(
            inner in FRAME_OVERHEAD..300_usize, at: prop::sample::Index, bit in 0..8_u8
        ) {
            for suite in CipherSuite::ALL {
                let (mut seal, mut open) = pair(suite);
                let datagram = sealed(&mut seal, inner);
                let covered: Vec<_> = (0..48).chain(datagram.len() - 32..datagram.len()).collect();
                let mut forged = datagram.clone();
                forged[covered[at.index(covered.len())]] ^= 1 << bit;
                prop_assert!(verify(&mut open, &forged).is_err());
                let mut longer = datagram.clone();
                longer.splice(60..60, [7]);
                prop_assert!(verify(&mut open, &longer).is_err());
                prop_assert_eq!(verify(&mut open, &datagram), Ok(()));
            }
        }
    }
}
