//! Watches a device and keeps every frame that enters or leaves it.
//!
//! The kernel takes a VLAN tag off before a packet socket sees the frame: to see tagged frames, make a VLAN device
//! and watch that.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol, recv, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::host::Host;
use crate::raw::packet_socket;
use crate::wait;

/// Longer than any frame, super-frames included.
const FRAME_LEN_MAX: usize = 128 * 1024;
/// Between two looks at whether the capture should end.
const STOP_INTERVAL_MS: i64 = 50;
/// What the kernel may hold back while the reader is not running; bytes.
const BACKLOG: usize = 64 * 1024 * 1024;

/// A running capture; dropped, it ends.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    /// Starts to capture what enters and leaves `device`.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    #[must_use]
    pub fn start(host: &Host, device: &str) -> Self {
        let socket = packet_socket(host, device, Some(SockProtocol::EthAll));
        // Only root outside user namespaces may have so much; the default does for quiet devices.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BACKLOG);
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::milliseconds(STOP_INTERVAL_MS),
        )
        .expect("a socket takes a timeout");
        drop_backlog(&socket);
        let (frames, stop) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let (sink, flag) = (Arc::clone(&frames), Arc::clone(&stop));
        let reader = thread::spawn(move || collect(&socket, &sink, &flag));
        Self {
            frames,
            stop,
            reader: Some(reader),
        }
    }

    /// What was captured so far.
    #[must_use]
    pub fn frames(&self) -> Vec<Vec<u8>> {
        lock(&self.frames).clone()
    }

    /// How many frames so far satisfy `wanted`.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        lock(&self.frames)
            .iter()
            .filter(|frame| wanted(frame))
            .count()
    }

    /// Waits until a frame satisfies `wanted`, and returns it.
    ///
    /// # Panics
    ///
    /// If none does within `limit`.
    pub fn wait_for(&self, what: &str, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let find = || {
            lock(&self.frames)
                .iter()
                .find(|frame| wanted(frame))
                .cloned()
        };
        wait::eventually(what, limit, find).0
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It has nothing to say.
            let _ = reader.join();
        }
    }
}

/// Between its making and its binding the socket saw all devices: that is forgotten.
fn drop_backlog(socket: &OwnedFd) {
    let mut buffer = [0; 1];
    while recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
}

fn collect(socket: &OwnedFd, sink: &Mutex<Vec<Vec<u8>>>, stop: &AtomicBool) {
    let mut buffer = vec![0; FRAME_LEN_MAX];
    while !stop.load(Ordering::Relaxed) {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(len) => lock(sink).push(buffer[..len].to_vec()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // The device went away: nothing more can come.
            Err(_) => return,
        }
    }
}

fn lock(frames: &Mutex<Vec<Vec<u8>>>) -> MutexGuard<'_, Vec<Vec<u8>>> {
    frames.lock().unwrap_or_else(PoisonError::into_inner)
}
