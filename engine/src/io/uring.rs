//! The io_uring backend (Linux 6.1): one call arms what is to be waited for, and waits.
//!
//! ```text
//!  socket ── POLL, once a sleep ─► recvmmsg
//!  TAP ───── POLL, once a sleep ─► read
//!  eventfd ─ POLL, once a sleep ─► wake
//!            └── one io_uring_enter arms and waits for all of them ┘
//! ```
//!
//! Receives, sends and TAP writes stay plain calls: they run the kernel's path to its end on this
//! stack either way, and their buffers are free at once. Measured against it on this engine: a standing
//! multishot `RECVMSG` into a buffer ring, which brings each datagram by a task of its own and into
//! a buffer that has left the cache (`benches/records`).
#![expect(unsafe_code, reason = "orders are placed by address")]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;

use crate::error::EngineError;
use crate::io::udp::{Receiver, Socket};
use crate::io::{Io, Received, SendError, Train, send_error};
use crate::packet::{Packet, Pool};

/// Orders in flight: three polls, and what is ordered again in the same round.
const RING_ENTRIES: u32 = 8;

/// What is waited for: its place among the registered files, and its mark in completions.
const SOCKET: u32 = 0;
const TAP: u32 = 1;
const WAKE: u32 = 2;
const WATCHED: usize = 3;

/// One worker's ring.
pub struct UringIo {
    ring: IoUring,
    socket: Socket,
    tap: OwnedFd,
    wake: Arc<EventFd>,
    receiver: Receiver,
    frame: Packet,
    /// What may be read without waiting.
    ready: [bool; WATCHED],
    /// What the ring watches.
    polled: [bool; WATCHED],
    /// The TAP's device was deleted: not watched, for the kernel would report that without end.
    tap_lost: bool,
}

impl std::fmt::Debug for UringIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringIo")
            .field("polled", &self.polled)
            .finish_non_exhaustive()
    }
}

impl UringIo {
    /// Whether this kernel and this process may use io_uring as the engine does.
    ///
    /// # Errors
    ///
    /// The step that was refused.
    pub fn probe() -> Result<(), EngineError> {
        let ring = build_ring()?;
        let mut probe = io_uring::Probe::new();
        ring.submitter()
            .register_probe(&mut probe)
            .map_err(|source| EngineError::SetUpUring { source })?;
        if probe.is_supported(opcode::PollAdd::CODE) {
            Ok(())
        } else {
            Err(EngineError::UnsupportedOperation("POLL_ADD"))
        }
    }

    /// A ring over a TAP queue, a socket and the worker's wake-up; to be called on the worker's thread.
    ///
    /// # Errors
    ///
    /// [`EngineError::SetUpUring`] when the kernel refuses a step.
    pub fn new(
        tap: OwnedFd,
        socket: Socket,
        wake: Arc<EventFd>,
        pool: &mut Pool,
    ) -> Result<Self, EngineError> {
        let failed = |source| EngineError::SetUpUring { source };
        let ring = build_ring()?;
        let files = [socket.raw_fd(), tap.as_raw_fd(), wake.as_fd().as_raw_fd()];
        ring.submitter().register_files(&files).map_err(failed)?;
        let frame = pool
            .take()
            .ok_or_else(|| failed(io::ErrorKind::OutOfMemory.into()))?;
        let receiver = Receiver::default();
        let (ready, polled) = ([true, true, false], [false; WATCHED]);
        Ok(Self {
            ring,
            socket,
            tap,
            wake,
            receiver,
            frame,
            ready,
            polled,
            tap_lost: false,
        })
    }

    /// Watches what is not known to be ready; a poll of what is ready already completes at once.
    fn watch(&mut self) {
        let readable = u32::from(libc::POLLIN.cast_unsigned());
        for ((place, ready), polled) in (0..).zip(self.ready).zip(&mut self.polled) {
            if ready || *polled || (self.tap_lost && place == TAP) {
                continue;
            }
            let entry = opcode::PollAdd::new(Fixed(place), readable)
                .build()
                .user_data(place.into());
            // SAFETY: a poll points to nothing; its file is registered.
            *polled = unsafe { self.ring.submission().push(&entry) }.is_ok();
        }
    }

    fn reap(&mut self) {
        let Self {
            ring,
            ready,
            polled,
            tap_lost,
            wake,
            ..
        } = self;
        for completion in ring.completion() {
            let place = usize::try_from(completion.user_data()).unwrap_or(WATCHED);
            if let (Some(ready), Some(polled)) = (ready.get_mut(place), polled.get_mut(place)) {
                *polled = false;
                *ready = completion.user_data() != u64::from(WAKE);
            }
            if completion.user_data() == u64::from(WAKE) {
                let _ = wake.read();
                // Whoever made the device anew has woken us; the read to come says whether it is there.
                ready[TAP as usize] |= std::mem::take(tap_lost);
            }
        }
    }
}

fn build_ring() -> Result<IoUring, EngineError> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(RING_ENTRIES)
        .map_err(|source| EngineError::SetUpUring { source })
}

impl Io for UringIo {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.watch();
        let outcome = match timeout {
            Some(timeout) => {
                let time = Timespec::from(timeout);
                self.ring
                    .submitter()
                    .submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
            None => self.ring.submit_and_wait(1),
        };
        self.reap();
        match outcome {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn tap_recv(&mut self) -> Option<&[u8]> {
        if !self.ready[TAP as usize] {
            return None;
        }
        match nix::unistd::read(&self.tap, self.frame.bytes_mut()) {
            Ok(len) if len > 0 => self.frame.bytes().get(..len),
            outcome => {
                self.ready[TAP as usize] = false;
                self.tap_lost = outcome == Err(Errno::EBADFD);
                None
            }
        }
    }

    fn udp_recv(
        &mut self,
        count_max: usize,
        pool: &mut Pool,
        received: &mut Vec<Received>,
    ) -> bool {
        let ready = &mut self.ready[SOCKET as usize];
        *ready = *ready
            && self
                .receiver
                .receive(&self.socket, count_max, pool, received);
        *ready
    }

    fn tap_send(&mut self, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        nix::sys::uio::writev(&self.tap, parts)
            .map(|_| ())
            .map_err(|errno| send_error(&errno.into()))
    }

    fn udp_send(&mut self, train: &Train) -> Result<(), SendError> {
        self.socket.send(train)
    }
}
