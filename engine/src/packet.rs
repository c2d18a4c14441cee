//! `Packet`: one pooled buffer that holds a train, a datagram or a super-frame.
//!
//! Each worker has a pool of its own, made at start and used last in, first out, so that the
//! buffers in use stay in the cache. Nothing is allocated afterwards.

use crate::config::{PACKET_LEN, PACKETS_MAX};

/// An owned buffer of [`PACKET_LEN`] bytes from a [`Pool`].
#[derive(Debug)]
pub struct Packet(Box<[u8]>);

impl Packet {
    fn new() -> Self {
        Self(vec![0; PACKET_LEN].into_boxed_slice())
    }

    /// All of its bytes, whatever they hold.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// All of its bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The free packets of one worker.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Packet>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(PACKETS_MAX)
    }
}

impl Pool {
    /// A pool of `count` packets.
    pub fn new(count: usize) -> Self {
        Self {
            free: (0..count).map(|_| Packet::new()).collect(),
        }
    }

    /// Takes the packet that came back last.
    pub fn take(&mut self) -> Option<Packet> {
        self.free.pop()
    }

    /// Gives a packet back. Its bytes stay as they are: who takes it sends only what it wrote.
    pub fn put(&mut self, packet: Packet) {
        self.free.push(packet);
    }

    /// Packets not in use.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }
}
