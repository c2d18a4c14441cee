//! Packet sockets: sends Ethernet frames byte by byte as given.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket,
};

use crate::host::Host;

/// A packet socket on one device. It receives nothing: that is what [`crate::Capture`] does.
#[derive(Debug)]
pub struct RawSocket {
    socket: OwnedFd,
}

impl RawSocket {
    /// Opens one on a device.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    #[must_use]
    pub fn open(host: &Host, device: &str) -> Self {
        // No protocol: then the kernel queues nothing for it.
        Self {
            socket: packet_socket(host, device, None),
        }
    }

    /// Sends one frame.
    ///
    /// # Panics
    ///
    /// If the kernel refuses it, for example because it is longer than the device's MTU allows.
    pub fn send(&self, frame: &[u8]) {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty());
        assert_eq!(
            sent,
            Ok(frame.len()),
            "send a frame of {} bytes",
            frame.len()
        );
    }

    /// Sends one frame unless the device's queue is full.
    ///
    /// # Panics
    ///
    /// As [`RawSocket::send`].
    pub fn try_send(&self, frame: &[u8]) {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty());
        assert!(
            matches!(sent, Ok(_) | Err(Errno::ENOBUFS)),
            "send a frame: {sent:?}"
        );
    }
}

/// A packet socket bound to a device of a host.
pub(crate) fn packet_socket(host: &Host, device: &str, protocol: Option<SockProtocol>) -> OwnedFd {
    host.inside(|| {
        let address = link_address(device);
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .expect("root in its namespace may open packet sockets");
        bind(socket.as_raw_fd(), &address).expect("a device that exists can be bound to");
        socket
    })
}

fn link_address(device: &str) -> LinkAddr {
    let mut entries = getifaddrs().expect("the kernel lists devices");
    let found = entries.find_map(|entry| {
        let address = *entry.address?.as_link_addr()?;
        (entry.interface_name == device).then_some(address)
    });
    found.unwrap_or_else(|| panic!("there is no device {device}"))
}
