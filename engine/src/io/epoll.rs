//! The backend for hosts and containers that refuse io_uring: readiness and plain calls.
//!
//! All calls are safe wrappers, so this file needs no `unsafe`.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use crate::error::EngineError;
use crate::io::udp::{Receiver, Socket};
use crate::io::{Io, Received, SendError, Train, send_error};
use crate::packet::{Packet, Pool};

const TAP: u64 = 0;
const UDP: u64 = 1;
const WAKE: u64 = 2;

/// One worker's epoll instance.
#[derive(Debug)]
pub struct EpollIo {
    epoll: Epoll,
    tap: OwnedFd,
    socket: Socket,
    wake: Arc<EventFd>,
    receiver: Receiver,
    frame: Packet,
    tap_ready: bool,
    /// Its device was deleted: no longer watched, for the kernel would report that without end.
    tap_lost: bool,
    udp_ready: bool,
}

impl EpollIo {
    /// Watches a TAP queue, a socket and the worker's wake-up; `pool` gives the buffer for frames.
    pub fn new(
        tap: OwnedFd,
        socket: Socket,
        wake: Arc<EventFd>,
        pool: &mut Pool,
    ) -> Result<Self, EngineError> {
        let failed = |errno: Errno| EngineError::SetUpEpoll {
            source: errno.into(),
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let frame = pool.take().ok_or(Errno::ENOMEM).map_err(failed)?;
        epoll
            .add(&tap, EpollEvent::new(EpollFlags::EPOLLIN, TAP))
            .map_err(failed)?;
        epoll
            .add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, UDP))
            .map_err(failed)?;
        epoll
            .add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))
            .map_err(failed)?;
        let receiver = Receiver::default();
        Ok(Self {
            epoll,
            tap,
            socket,
            wake,
            receiver,
            frame,
            tap_ready: true,
            tap_lost: false,
            udp_ready: true,
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.borrowed_fd()
    }
}

impl Io for EpollIo {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match timeout {
            // Rounded up: a timer that fires early would only go round once more.
            Some(timeout) => EpollTimeout::try_from(timeout.as_micros().div_ceil(1000))
                .unwrap_or(EpollTimeout::MAX),
            None => EpollTimeout::NONE,
        };
        let mut events = [EpollEvent::empty(); 3];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for event in events.iter().take(count) {
            match event.data() {
                TAP => self.tap_ready = true,
                UDP => self.udp_ready = true,
                _ => {
                    let _ = self.wake.read();
                    // Whoever made the device anew has woken us; the read to come says whether it is there.
                    if std::mem::take(&mut self.tap_lost) {
                        self.epoll
                            .add(&self.tap, EpollEvent::new(EpollFlags::EPOLLIN, TAP))?;
                        self.tap_ready = true;
                    }
                }
            }
        }
        Ok(())
    }

    fn tap_recv(&mut self) -> Option<&[u8]> {
        if !self.tap_ready {
            return None;
        }
        match nix::unistd::read(&self.tap, self.frame.bytes_mut()) {
            Ok(len) if len > 0 => self.frame.bytes().get(..len),
            outcome => {
                self.tap_ready = false;
                if outcome == Err(Errno::EBADFD) {
                    self.tap_lost = self.epoll.delete(&self.tap).is_ok();
                }
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
        if !self.udp_ready {
            return false;
        }
        self.udp_ready = self
            .receiver
            .receive(&self.socket, count_max, pool, received);
        self.udp_ready
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
