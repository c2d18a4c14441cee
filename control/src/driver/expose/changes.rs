//! Tells when somebody changes the host's nftables or addresses, so that what is missing is put back at once.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel's group for changes of nftables: `NFNLGRP_NFTABLES`, number 7, as a bit.
const NFTABLES: u32 = 1 << 6;
/// Its groups for interfaces and for addresses of both families: `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`,
/// `RTMGRP_IPV6_IFADDR`. A bridge that was deleted is made anew by its keeper, without addresses.
const ADDRESSES: u32 = 0x1 | 0x10 | 0x100;
/// What is read at once. The messages are not looked at: that there are any is the news.
const READ_LEN: usize = 8192;

/// News of the namespace in which it was opened.
#[derive(Debug)]
pub(in crate::driver) struct Changes {
    socket: AsyncFd<OwnedFd>,
}

impl Changes {
    /// Needs a tokio runtime.
    pub(in crate::driver) fn of_firewall() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter, NFTABLES)
    }

    /// Needs a tokio runtime.
    pub(in crate::driver) fn of_addresses() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute, ADDRESSES)
    }

    fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            protocol,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let socket = listen_to(socket)?;
        Ok(Self { socket })
    }

    /// Returns when something has changed since it last returned.
    pub(in crate::driver) async fn next(&self) -> io::Result<()> {
        let mut ready = self.socket.readable().await?;
        self.drop_all()?;
        ready.clear_ready();
        Ok(())
    }

    /// Forgets what has been told so far.
    fn drop_all(&self) -> io::Result<()> {
        let mut told = [0; READ_LEN];
        loop {
            match recv(self.socket.as_raw_fd(), &mut told, MsgFlags::empty()) {
                // More than the socket holds is news, too.
                Ok(1..) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; an OwnedFd is one open descriptor for its whole life"
)]
fn listen_to(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}
