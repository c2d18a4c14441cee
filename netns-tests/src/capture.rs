//! Watches a device and keeps every frame that enters or leaves it.
//!
//! The kernel takes a VLAN tag off before a packet socket sees the frame and tells it beside (`tpacket_auxdata`,
//! packet(7)); it is put back here.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockProtocol, recv, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::{setsockopt_impl, sockopt_impl};

use crate::host::Host;
use crate::raw::packet_socket;
use crate::wait;

sockopt_impl!(
    /// Ask for `tpacket_auxdata` with every frame.
    PacketAuxdata,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool
);

/// Length of `tpacket_auxdata`: status(4) length(4) captured(4) mac(2) net(2) tag(2) tag type(2).
const AUXDATA_LEN: usize = 20;
/// Bit of the status: the frame had a tag.
const STATUS_VLAN_VALID: u32 = 1 << 4;
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
        setsockopt(&socket, PacketAuxdata, &true).expect("packet sockets tell about tags");
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
        match receive(socket, &mut buffer) {
            Ok(frame) => lock(sink).push(frame),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // The device went away: nothing more can come.
            Err(_) => return,
        }
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> nix::Result<Vec<u8>> {
    let mut control = nix::cmsg_space!([u8; AUXDATA_LEN]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let tag = message.cmsgs()?.find_map(|control| {
        let ControlMessageOwned::Unknown(auxdata) = control else {
            return None;
        };
        tag_bytes(&auxdata.data_bytes)
    });
    let len = message.bytes;
    let mut frame = buffer[..len].to_vec();
    if let Some(tag) = tag {
        frame.splice(12..12, tag);
    }
    Ok(frame)
}

/// The tag as it stood in the frame, after both addresses.
fn tag_bytes(auxdata: &[u8]) -> Option<[u8; 4]> {
    let status = u32::from_ne_bytes(auxdata.get(..4)?.try_into().ok()?);
    let control = u16::from_ne_bytes(auxdata.get(16..18)?.try_into().ok()?).to_be_bytes();
    let kind = u16::from_ne_bytes(auxdata.get(18..20)?.try_into().ok()?).to_be_bytes();
    (status & STATUS_VLAN_VALID != 0).then_some([kind[0], kind[1], control[0], control[1]])
}

fn lock(frames: &Mutex<Vec<Vec<u8>>>) -> MutexGuard<'_, Vec<Vec<u8>>> {
    frames.lock().unwrap_or_else(PoisonError::into_inner)
}
