//! A socket address as the kernel reads and writes it.
//!
//! One block of memory holds either family: where `sockaddr_in6` has its flow label, `sockaddr_in` has its address.

use std::mem::{offset_of, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

#[expect(clippy::cast_possible_truncation, reason = "sizes of small structs")]
pub(super) const fn socklen(len: usize) -> libc::socklen_t {
    len as libc::socklen_t
}

/// A socket address as the kernel wants it: IPv4, IPv6, or IPv4 mapped into IPv6.
pub(super) struct Name {
    /// Large enough for either family.
    pub(super) bytes: libc::sockaddr_in6,
    /// How many of the bytes count.
    pub(super) len: libc::socklen_t,
}

impl Name {
    pub(super) const EMPTY: Self = Self {
        bytes: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
        len: socklen(size_of::<libc::sockaddr_in6>()),
    };

    pub(super) fn new(address: SocketAddr, v6: bool) -> Self {
        let mut name = Self::EMPTY;
        name.bytes.sin6_port = address.port().to_be();
        match (address, v6) {
            (SocketAddr::V4(address), false) => {
                // `sockaddr_in` has its address where `sockaddr_in6` has the flow label.
                name.bytes.sin6_family = family(libc::AF_INET);
                name.bytes.sin6_flowinfo = u32::from_ne_bytes(address.ip().octets());
                name.len = socklen(size_of::<libc::sockaddr_in>());
            }
            (SocketAddr::V4(address), true) => {
                name.bytes.sin6_family = family(libc::AF_INET6);
                name.bytes.sin6_addr.s6_addr = address.ip().to_ipv6_mapped().octets();
            }
            (SocketAddr::V6(address), _) => {
                name.bytes.sin6_family = family(libc::AF_INET6);
                name.bytes.sin6_addr.s6_addr = address.ip().octets();
                name.bytes.sin6_scope_id = address.scope_id();
            }
        }
        name
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        let port = u16::from_be(self.bytes.sin6_port);
        if self.bytes.sin6_family == family(libc::AF_INET) {
            let octets = self.bytes.sin6_flowinfo.to_ne_bytes();
            return Some((Ipv4Addr::from(octets), port).into());
        }
        if self.bytes.sin6_family != family(libc::AF_INET6) {
            return None;
        }
        let address = Ipv6Addr::from(self.bytes.sin6_addr.s6_addr);
        Some(match address.to_ipv4_mapped() {
            Some(address) => (address, port).into(),
            None => SocketAddrV6::new(address, port, 0, self.bytes.sin6_scope_id).into(),
        })
    }
}

const _: () = assert!(
    offset_of!(libc::sockaddr_in, sin_addr) == offset_of!(libc::sockaddr_in6, sin6_flowinfo)
);

#[expect(
    clippy::cast_possible_truncation,
    reason = "address families are small"
)]
const fn family(family: i32) -> libc::sa_family_t {
    family as libc::sa_family_t
}
