//! The backend without a kernel: two queues on either side, for tests and benches.
//!
//! ```text
//!  frames_in ─► tap_recv        udp_send ─► trains_out
//!  frames_out ◄─ tap_send       udp_recv ◄─ trains_in
//! ```
//!
//! Whoever owns it carries `trains_out` of one to `trains_in` of another, and may lose, repeat,
//! reorder, cut or forge on the way.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::io::{Io, Received, SendError, Train};
use crate::packet::Pool;

/// Datagrams of one address pair, equal in size but for the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryTrain {
    /// All datagrams, one behind the other.
    pub bytes: Vec<u8>,
    /// Bytes of each but the last.
    pub segment: usize,
    /// The receiver on the way out, the sender on the way in.
    pub address: SocketAddr,
}

impl MemoryTrain {
    /// Its datagrams, each as a train of its own: what a wire without offloads makes of it.
    pub fn datagrams(&self) -> impl Iterator<Item = Self> {
        let Self {
            segment, address, ..
        } = *self;
        self.bytes.chunks(segment.max(1)).map(move |bytes| Self {
            bytes: bytes.to_vec(),
            segment: bytes.len(),
            address,
        })
    }
}

/// Queues in place of devices.
#[derive(Debug, Default)]
pub struct MemoryIo {
    /// Frames to be read from the TAP, virtio header first.
    pub frames_in: VecDeque<Vec<u8>>,
    /// Frames written to the TAP, virtio header first.
    pub frames_out: VecDeque<Vec<u8>>,
    /// Trains to be received.
    pub trains_in: VecDeque<MemoryTrain>,
    /// Trains sent.
    pub trains_out: VecDeque<MemoryTrain>,
    frame: Vec<u8>,
}

impl Io for MemoryIo {
    fn wait(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    fn tap_recv(&mut self) -> Option<&[u8]> {
        self.frame = self.frames_in.pop_front()?;
        Some(&self.frame)
    }

    fn udp_recv(
        &mut self,
        count_max: usize,
        pool: &mut Pool,
        received: &mut Vec<Received>,
    ) -> bool {
        for _ in 0..count_max {
            let Some(MemoryTrain {
                bytes,
                segment,
                address,
            }) = self.trains_in.pop_front()
            else {
                break;
            };
            let Some(mut packet) = pool.take() else { break };
            let len = bytes.len();
            if let Some(to) = packet.bytes_mut().get_mut(..len) {
                to.copy_from_slice(&bytes);
            }
            received.push(Received {
                packet,
                start: 0,
                len,
                segment,
                from: address,
                local: None,
            });
        }
        !self.trains_in.is_empty()
    }

    fn tap_send(&mut self, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        self.frames_out
            .push_back(parts.iter().flat_map(|part| part.iter().copied()).collect());
        Ok(())
    }

    fn udp_send(&mut self, train: &Train) -> Result<(), SendError> {
        self.trains_out.push_back(MemoryTrain {
            bytes: train.bytes().to_vec(),
            segment: train.segment,
            address: train.to,
        });
        Ok(())
    }
}
