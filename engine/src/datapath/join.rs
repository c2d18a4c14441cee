//! Frames that came in two pieces, put together: several in one packet, until all are delivered.

use std::time::Instant;

use crate::command::PeerSlot;
use crate::config::PACKET_LEN;
use crate::datapath::group::group_epoch;
use crate::datapath::receive::EpochName;
use crate::datapath::{Datapath, Place, Store, peer_mut};
use crate::packet::Packet;
use crate::verdict::DropReason;
use crate::wire::{Header, PIECE_LEN};

impl Datapath {
    /// Half of a frame.
    pub(super) fn piece(
        &mut self,
        slot: PeerSlot,
        (name, header): (EpochName, Header),
        (meta, body): (u8, &[u8]),
        now: Instant,
    ) -> Result<(), DropReason> {
        let (head, bytes) = body
            .split_first_chunk::<PIECE_LEN>()
            .ok_or(DropReason::BadPayload)?;
        let [part @ 0..=1, high, low] = *head else {
            return Err(DropReason::BadPayload);
        };
        let total = usize::from(u16::from_be_bytes([high, low]));
        let epoch = match name {
            EpochName::Session(index) => self.epochs.get_mut(&index),
            EpochName::Group(source, number) => peer_mut(&mut self.peers, source)
                .and_then(|peer| group_epoch(&mut peer.groups, number)),
        };
        let Some(lane) = epoch.and_then(|epoch| epoch.lane(header.lane)) else {
            return Ok(());
        };
        let mut frame = std::mem::take(&mut self.scratch);
        let mut lost = false;
        let whole = lane.join(header.counter, part, total, bytes, &mut frame, &mut lost);
        if lost {
            self.count_drop(DropReason::PieceLost);
        }
        let verdict = if whole {
            self.joined_frame(slot, meta, &frame, now)
        } else {
            Ok(())
        };
        self.scratch = frame;
        verdict
    }

    fn joined_frame(
        &mut self,
        slot: PeerSlot,
        meta: u8,
        frame: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        // A packet for each would empty the pool when every frame comes in two pieces.
        if self.joined.is_empty() || self.joined_len + frame.len() > PACKET_LEN {
            let packet = self.pool.take().ok_or(DropReason::PoolEmpty)?;
            self.joined.push(packet);
            self.joined_len = 0;
        }
        let start = self.joined_len;
        self.joined_len += frame.len();
        let last = self.joined.last_mut().map(Packet::bytes_mut);
        if let Some(to) = last.and_then(|bytes| bytes.get_mut(start..self.joined_len)) {
            to.copy_from_slice(frame);
        }
        let place = Place {
            store: Store::Joined,
            index: self.joined.len() - 1,
            start,
        };
        self.frame(slot, meta, frame, place, now)
    }
}
