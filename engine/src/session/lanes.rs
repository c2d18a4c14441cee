//! One lane's sending and receiving half.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use crate::command::{PeerSlot, SessionKeys};
use crate::config::{BYTES_HARD_MAX, BYTES_SOFT_MAX, LANES_MAX, SEALS_HARD_MAX, SEALS_SOFT_MAX};
use crate::session::{
    CipherSuite, Forged, HopOpen, HopSeal, Implementation, LaneCipher, ReplayWindow,
};
use crate::wire::{HEADER_LEN, Header, TAG_LEN};

/// Our lane of an epoch: an owned value on one worker, so that no counter is used twice.
#[derive(Debug)]
pub struct SealLane {
    cipher: LaneCipher,
    lane: u8,
    receiver: u32,
    local_index: u32,
    counter: u64,
    bytes: u64,
    hop: HopSeal,
}

impl SealLane {
    /// The lane of worker `lane` in this epoch; `None` if the suite is not built in.
    pub fn new(keys: &SessionKeys, implementation: Implementation, lane: u8) -> Option<Self> {
        Some(Self {
            cipher: LaneCipher::derive(keys.suite, implementation, &keys.send_key, lane)?,
            lane,
            receiver: keys.remote_index,
            local_index: keys.local_index,
            counter: 0,
            bytes: 0,
            hop: HopSeal::new(keys, implementation, lane)?,
        })
    }

    /// The lane for what the peer passes on, or is to open behind a relay.
    #[inline]
    pub fn hop(&mut self) -> &mut HopSeal {
        &mut self.hop
    }

    /// The epoch, by its local index.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Seals a datagram in place: writes the header before and the tag behind the plaintext, which
    /// stands between them already. False if the key is used up; then nothing was written.
    #[inline]
    pub fn seal(&mut self, datagram: &mut [u8]) -> bool {
        if self.counter >= SEALS_HARD_MAX || self.bytes >= BYTES_HARD_MAX {
            return false;
        }
        let Some((header, text)) = datagram.split_first_chunk_mut::<HEADER_LEN>() else {
            return false;
        };
        let Some((text, tag)) = text.split_last_chunk_mut::<TAG_LEN>() else {
            return false;
        };
        let counter = self.counter;
        self.counter += 1;
        self.bytes += text.len() as u64;
        *header = Header {
            lane: self.lane,
            receiver: self.receiver,
            counter,
        }
        .encode();
        *tag = self.cipher.seal(counter, header, text);
        true
    }

    /// True once a rekey should be under way.
    #[inline]
    pub fn is_worn(&self) -> bool {
        self.counter >= SEALS_SOFT_MAX
            || self.bytes >= BYTES_SOFT_MAX
            || self.hop.count() >= SEALS_SOFT_MAX
    }
}

/// What the workers share about one epoch that they accept.
#[derive(Debug)]
pub struct EpochShared {
    /// Workers that have yet to install it.
    pub pending: AtomicU16,
    /// Whether any datagram of it has opened.
    pub confirmed: AtomicBool,
    /// Failed opens.
    pub forged: AtomicU64,
}

/// The peer's lanes of one epoch that this worker owns.
#[derive(Debug)]
pub struct OpenEpoch {
    keys: Arc<SessionKeys>,
    implementation: Implementation,
    lanes: [Option<Box<OpenLane>>; LANES_MAX],
    hops: [Option<Box<HopOpen>>; LANES_MAX],
    shared: Arc<EpochShared>,
}

impl OpenEpoch {
    /// Accepts the epoch; lanes are derived when their first datagram comes.
    pub fn new(
        keys: Arc<SessionKeys>,
        implementation: Implementation,
        shared: Arc<EpochShared>,
    ) -> Self {
        Self {
            keys,
            implementation,
            lanes: Default::default(),
            hops: Default::default(),
            shared,
        }
    }

    /// The peer that seals it.
    #[inline]
    pub fn slot(&self) -> PeerSlot {
        self.keys.slot
    }

    /// The epoch, by its local index.
    pub fn local_index(&self) -> u32 {
        self.keys.local_index
    }

    /// The cipher.
    pub fn suite(&self) -> CipherSuite {
        self.keys.suite
    }

    /// The lane's key and window; `None` if the peer has no such lane.
    #[inline]
    pub fn lane(&mut self, lane: u8) -> Option<&mut OpenLane> {
        if lane >= self.keys.peer_lanes {
            return None;
        }
        let place = self.lanes.get_mut(usize::from(lane))?;
        if place.is_none() {
            let cipher = LaneCipher::derive(
                self.keys.suite,
                self.implementation,
                &self.keys.recv_key,
                lane,
            )?;
            *place = Some(Box::new(OpenLane {
                cipher,
                window: ReplayWindow::default(),
                piece: None,
            }));
        }
        place.as_deref_mut()
    }

    /// The hop lane's key and window; `None` if the peer has no such lane.
    #[inline]
    pub fn hop(&mut self, lane: u8) -> Option<&mut HopOpen> {
        if lane >= self.keys.peer_lanes {
            return None;
        }
        let place = self.hops.get_mut(usize::from(lane))?;
        if place.is_none() {
            *place = Some(Box::new(HopOpen::new(
                &self.keys,
                self.implementation,
                lane,
            )?));
        }
        place.as_deref_mut()
    }

    /// True the first time that any worker asks: the peer has proved that it holds the keys.
    #[inline]
    pub fn confirm(&self) -> bool {
        !self.shared.confirmed.load(Ordering::Relaxed)
            && !self.shared.confirmed.swap(true, Ordering::Relaxed)
    }

    /// Counts a forgery; returns how many there were.
    pub fn count_forged(&self) -> u64 {
        self.shared.forged.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// Seen, or too old.
    Replayed,
    /// Does not authenticate.
    Forged,
}

/// One lane that this worker owns, as receiver.
#[derive(Debug)]
pub struct OpenLane {
    cipher: LaneCipher,
    window: ReplayWindow,
    piece: Option<Piece>,
}

/// The first half of a cut frame, waiting for the other.
#[derive(Debug)]
struct Piece {
    first_counter: u64,
    part: u8,
    total: usize,
    bytes: Vec<u8>,
}

impl OpenLane {
    /// Opens `text` (ciphertext and tag) in place: window checked, opened, then marked.
    #[inline]
    pub fn open(
        &mut self,
        counter: u64,
        header: &[u8; HEADER_LEN],
        text: &mut [u8],
    ) -> Result<(), OpenError> {
        if !self.window.check(counter) {
            return Err(OpenError::Replayed);
        }
        self.cipher
            .open(counter, header, text)
            .map_err(|Forged| OpenError::Forged)?;
        self.window.mark(counter);
        Ok(())
    }

    /// Takes one half of a cut frame, with the counter that it came under. Returns true once `frame`
    /// holds the whole; false while one half is missing, or if the two contradict each other.
    ///
    /// `lost` is set if an earlier half was given up.
    pub fn join(
        &mut self,
        counter: u64,
        part: u8,
        total: usize,
        bytes: &[u8],
        frame: &mut Vec<u8>,
        lost: &mut bool,
    ) -> bool {
        let first_counter = counter.wrapping_sub(u64::from(part));
        if let Some(held) = self
            .piece
            .take_if(|held| held.first_counter == first_counter && held.part != part)
        {
            let (head, tail) = if part == 0 {
                (bytes, &held.bytes[..])
            } else {
                (&held.bytes[..], bytes)
            };
            if held.total != total || head.len() + tail.len() != total {
                return false;
            }
            frame.clear();
            frame.extend_from_slice(head);
            frame.extend_from_slice(tail);
            return true;
        }
        *lost = self.piece.is_some();
        // The slot keeps its buffer from one frame to the next.
        let mut kept = self.piece.take().map(|held| held.bytes).unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(bytes);
        self.piece = Some(Piece {
            first_counter,
            part,
            total,
            bytes: kept,
        });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::SecretKey;

    fn keys() -> SessionKeys {
        SessionKeys {
            slot: PeerSlot(1),
            local_index: 10,
            remote_index: 20,
            suite: CipherSuite::ChaCha20Poly1305,
            send_key: SecretKey([1; 32]),
            recv_key: SecretKey([1; 32]),
            peer_lanes: 2,
        }
    }

    fn epoch() -> OpenEpoch {
        let shared = EpochShared {
            pending: AtomicU16::new(1),
            confirmed: AtomicBool::new(false),
            forged: AtomicU64::new(0),
        };
        OpenEpoch::new(
            Arc::new(keys()),
            Implementation::RustCrypto,
            Arc::new(shared),
        )
    }

    fn sealed(lane: &mut SealLane, text: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; HEADER_LEN];
        datagram.extend_from_slice(text);
        datagram.resize(datagram.len() + TAG_LEN, 0);
        assert!(lane.seal(&mut datagram));
        datagram
    }

    fn open(epoch: &mut OpenEpoch, mut datagram: Vec<u8>) -> Result<Vec<u8>, OpenError> {
        let (header, bytes) = Header::parse(&datagram).expect("our own header");
        let bytes = *bytes;
        let end = datagram.len() - TAG_LEN;
        epoch.lane(header.lane).expect("a lane").open(
            header.counter,
            &bytes,
            &mut datagram[HEADER_LEN..],
        )?;
        Ok(datagram[HEADER_LEN..end].to_vec())
    }

    #[test]
    fn a_datagram_opens_once_and_a_forgery_does_not_use_up_its_counter() {
        let mut lane = SealLane::new(&keys(), Implementation::RustCrypto, 1).unwrap();
        let mut epoch = epoch();
        let datagram = sealed(&mut lane, b"hello");
        let mut forged = datagram.clone();
        forged[20] ^= 1;
        assert_eq!(open(&mut epoch, forged), Err(OpenError::Forged));
        assert_eq!(open(&mut epoch, datagram.clone()).unwrap(), b"hello");
        assert_eq!(open(&mut epoch, datagram), Err(OpenError::Replayed));
    }

    #[test]
    fn a_lane_that_the_peer_does_not_have_is_refused() {
        assert!(epoch().lane(2).is_none());
        assert!(epoch().lane(1).is_some());
    }

    #[test]
    fn an_epoch_is_confirmed_once() {
        let epoch = epoch();
        assert!(epoch.confirm());
        assert!(!epoch.confirm());
    }

    #[test]
    fn two_halves_join_in_either_order_and_strangers_do_not() {
        let mut epoch = epoch();
        let lane = epoch.lane(0).unwrap();
        let (mut frame, mut lost) = (Vec::new(), false);
        assert!(!lane.join(5, 0, 4, b"ab", &mut frame, &mut lost));
        assert!(lane.join(6, 1, 4, b"cd", &mut frame, &mut lost));
        assert_eq!(frame, b"abcd");
        assert!(!lane.join(8, 1, 3, b"c", &mut frame, &mut lost));
        assert!(lane.join(7, 0, 3, b"ab", &mut frame, &mut lost));
        assert_eq!(frame, b"abc");
        assert!(!lost);
        assert!(!lane.join(9, 0, 4, b"ab", &mut frame, &mut lost));
        assert!(
            !lane.join(12, 1, 4, b"cd", &mut frame, &mut lost),
            "halves of two frames"
        );
        assert!(lost);
        assert!(
            !lane.join(11, 0, 5, b"ab", &mut frame, &mut lost),
            "lengths that contradict"
        );
    }
}
