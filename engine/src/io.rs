//! The seam between the datapath and the kernel: receive, send, wait.
//!
//! ```text
//!            ┌── uring    io_uring: receives and reads in flight, one wait for all
//!  Io ───────┼── epoll    readiness, `recvmmsg`; for hosts and containers that refuse io_uring
//!            └── memory   two queues and a switch; for tests and benches
//! ```
//!
//! Sends complete before they return: a TAP write or UDP send runs the kernel's path to its end on
//! the caller's stack in any case, and so a buffer is free again at once.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::packet::{Packet, Pool};

pub mod epoll;
pub mod memory;
pub mod offload;
pub mod slice;
pub mod tuntap;
pub mod udp;
pub mod uring;

/// What one receive call brought: datagrams of one sender, equal in size but for the last.
#[derive(Debug)]
pub struct Received {
    /// The buffer.
    pub packet: Packet,
    /// Where the first datagram begins in it.
    pub start: usize,
    /// Bytes of all datagrams.
    pub len: usize,
    /// Bytes of each datagram but the last.
    pub segment: usize,
    /// The sender.
    pub from: SocketAddr,
    /// Our address that it hit, where the kernel tells.
    pub local: Option<IpAddr>,
}

/// Sealed datagrams for one address, equal in size but for the last, which may be shorter.
#[derive(Debug)]
pub struct Train {
    /// The buffer.
    pub packet: Packet,
    /// Where the first datagram begins in it.
    pub start: usize,
    /// Bytes of all datagrams.
    pub len: usize,
    /// Bytes of each datagram but the last.
    pub segment: usize,
    /// The receiver.
    pub to: SocketAddr,
    /// Our address that it leaves from; the kernel chooses unless given.
    pub local: Option<IpAddr>,
}

impl Train {
    /// The datagrams, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        let end = self.start.saturating_add(self.len);
        self.packet.bytes().get(self.start..end).unwrap_or_default()
    }
}

/// How a send went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The socket's buffer is full.
    Busy,
    /// Larger than the interface or the known path allows.
    TooBig,
    /// The receiver's host or port is known to be unreachable.
    Unreachable,
    /// Anything else that the kernel says.
    Refused,
}

/// One worker's view of the kernel.
pub trait Io {
    /// Sleeps until something can be received, somebody wakes the worker, or the time is over.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Takes the next frame that waits at the TAP queue, virtio header first.
    fn tap_recv(&mut self) -> Option<&[u8]>;

    /// Takes what waits at the socket, at most `count_max` trains; true if more may wait.
    fn udp_recv(&mut self, count_max: usize, pool: &mut Pool, received: &mut Vec<Received>)
    -> bool;

    /// Writes one frame, virtio header first, to the TAP queue.
    fn tap_send(&mut self, parts: &[IoSlice<'_>]) -> Result<(), SendError>;

    /// Sends one train.
    fn udp_send(&mut self, train: &Train) -> Result<(), SendError>;
}

/// Sorts the kernel's errors.
fn send_error(error: &io::Error) -> SendError {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => SendError::Busy,
        Some(libc::EMSGSIZE) => SendError::TooBig,
        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN) => {
            SendError::Unreachable
        }
        _ => SendError::Refused,
    }
}
