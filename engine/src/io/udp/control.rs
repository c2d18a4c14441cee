//! Control data of the UDP sockets, written and read: how long the datagrams of a train are, and which address of
//! ours they hit or leave from.
//!
//! ```text
//!  cmsghdr: length(8) | level(4) | kind(4) | value, padded to 8 | cmsghdr …
//!  UDP_SEGMENT  u16             IPV6_PKTINFO  address(16) | interface(4)
//!  UDP_GRO      i32             IP_PKTINFO    interface(4) | address(4) | header's address(4)
//! ```
//!
//! A socket of IPv6 takes and tells IPv4 addresses in their mapped form. Bound: [`CONTROL_LEN`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Room for the control data of one receive or send: a segment size (24) and an address (40).
pub(super) const CONTROL_LEN: usize = 64;
/// Bytes of a `cmsghdr`.
const HEAD_LEN: usize = 16;

/// Control data, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub(super) [u8; CONTROL_LEN]);

impl Control {
    /// Writes a message at `at`; returns where the next begins.
    pub(super) fn put(&mut self, at: usize, level: i32, kind: i32, value: &[u8]) -> usize {
        let end = at + HEAD_LEN + value.len();
        let head = [
            &(end - at).to_ne_bytes()[..],
            &level.to_ne_bytes(),
            &kind.to_ne_bytes(),
        ];
        let mut place = at;
        for part in head.into_iter().chain([value]) {
            if let Some(to) = self.0.get_mut(place..place + part.len()) {
                to.copy_from_slice(part);
            }
            place += part.len();
        }
        end.next_multiple_of(8).min(CONTROL_LEN)
    }

    /// Writes the address that a send is to leave from: `in6_pktinfo` (address, interface) or `in_pktinfo`
    /// (interface, address, header's address). The interface is left to the kernel.
    pub(super) fn put_local(&mut self, at: usize, local: IpAddr, v6: bool) -> usize {
        if v6 {
            let address = match local {
                IpAddr::V4(local) => local.to_ipv6_mapped(),
                IpAddr::V6(local) => local,
            };
            let mut value = [0; size_of::<libc::in6_pktinfo>()];
            value[..16].copy_from_slice(&address.octets());
            return self.put(at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
        }
        let IpAddr::V4(local) = local else { return at };
        let mut value = [0; size_of::<libc::in_pktinfo>()];
        value[4..8].copy_from_slice(&local.octets());
        self.put(at, libc::IPPROTO_IP, libc::IP_PKTINFO, &value)
    }
}

/// What the control data of a receive says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// Bytes of each datagram of a train but the last.
    pub(super) segment: Option<usize>,
    /// Our address that it was sent to.
    pub(super) local: Option<IpAddr>,
}

impl Said {
    /// Reads the control data; what is cut short says nothing.
    pub(super) fn read(control: &[u8]) -> Self {
        let mut said = Self::default();
        let mut rest = control;
        while let Some((len, body)) = rest.split_first_chunk::<8>() {
            let len = usize::from_ne_bytes(*len);
            let Some(((level, kind), body)) = split_kind(body) else {
                break;
            };
            said.take(level, kind, body);
            let next = len.next_multiple_of(8).max(HEAD_LEN);
            rest = rest.get(next..).unwrap_or_default();
        }
        said
    }

    fn take(&mut self, level: i32, kind: i32, body: &[u8]) {
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = body.first_chunk().map(|size| i32::from_ne_bytes(*size));
                self.segment = size
                    .and_then(|size| usize::try_from(size).ok())
                    .filter(|size| *size > 0);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = body
                    .first_chunk::<16>()
                    .map(|octets| Ipv6Addr::from(*octets));
                self.local = address
                    .map(|address| address.to_canonical())
                    .filter(is_one_host);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let octets = body.get(4..8).and_then(|octets| octets.first_chunk::<4>());
                self.local = octets
                    .map(|octets| Ipv4Addr::from(*octets).into())
                    .filter(is_one_host);
            }
            _ => {}
        }
    }
}

fn split_kind(body: &[u8]) -> Option<((i32, i32), &[u8])> {
    let (level, body) = body.split_first_chunk::<4>()?;
    let (kind, body) = body.split_first_chunk::<4>()?;
    let pair = (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind));
    Some((pair, body))
}

/// What was sent to a group cannot be answered from its address.
fn is_one_host(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_multicast() && !broadcast && !address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_size_is_found_behind_other_control_data() {
        let mut control = Vec::new();
        for (level, kind, value) in [
            (libc::SOL_SOCKET, 29, 7),
            (libc::SOL_UDP, libc::UDP_GRO, 1400),
        ] {
            control.extend(20_usize.to_ne_bytes());
            control.extend(level.to_ne_bytes());
            control.extend(kind.to_ne_bytes());
            control.extend(i32::to_ne_bytes(value));
            control.extend([0; 4]);
        }
        assert_eq!(Said::read(&control).segment, Some(1400));
        assert_eq!(Said::read(&control[..24]), Said::default());
        assert_eq!(Said::read(&control[..30]), Said::default());
        assert_eq!(
            Said::read(&[0; 64]),
            Said::default(),
            "a length of zero ends"
        );
    }

    #[test]
    fn an_address_written_for_either_family_is_read_back() {
        let cases: [(&str, bool); 3] = [
            ("192.0.2.7", true),
            ("2001:db8::7", true),
            ("192.0.2.7", false),
        ];
        for (address, v6) in cases {
            let address: IpAddr = address.parse().unwrap();
            let mut control = Control([0; CONTROL_LEN]);
            let at = control.put(0, libc::SOL_UDP, libc::UDP_GRO, &1400_i32.to_ne_bytes());
            let end = control.put_local(at, address, v6);
            assert!(end <= CONTROL_LEN);
            let said = Said::read(&control.0[..end]);
            assert_eq!((said.segment, said.local), (Some(1400), Some(address)));
        }
    }

    #[test]
    fn a_group_is_no_address_of_ours() {
        for group in ["224.0.0.1", "255.255.255.255", "ff02::1", "0.0.0.0"] {
            let mut control = Control([0; CONTROL_LEN]);
            let end = control.put_local(0, group.parse().unwrap(), true);
            assert_eq!(Said::read(&control.0[..end]).local, None, "{group}");
        }
    }
}
