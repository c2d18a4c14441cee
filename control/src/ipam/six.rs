//! IPv6 beside IPv4: an address from a hash of peer and container, in one prefix for the whole network.
//!
//! No ring is needed: in a /64 two of a million containers meet with a chance of 1 in 10^7, and the attachments that
//! peers announce show it.

use std::net::Ipv6Addr;

use blake2::digest::consts::U16;
use blake2::{Blake2s, Digest as _};
use ipnet::Ipv6Net;

use crate::peer::PeerId;

/// Host bits that a prefix must leave for hashes not to meet.
const HOST_BITS_MIN: u8 = 48;

/// Why a prefix will not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SixError {
    /// Not of fc00::/7.
    #[error(
        "{0} is not a unique local prefix: use one inside fd00::/8, such as fd57:6566:7400::/64"
    )]
    NotLocal(Ipv6Net),
    /// Too long.
    #[error("{0} leaves fewer than {HOST_BITS_MIN} bits for hosts: use a /64")]
    TooSmall(Ipv6Net),
}

/// Checks a prefix given by the user.
///
/// # Errors
/// [`SixError`] if it is not a unique local prefix with room for hashes.
pub fn check_prefix(prefix: Ipv6Net) -> Result<Ipv6Net, SixError> {
    if prefix.network().segments()[0] & 0xfe00 != 0xfc00 {
        Err(SixError::NotLocal(prefix))
    } else if prefix.max_prefix_len() - prefix.prefix_len() < HOST_BITS_MIN {
        Err(SixError::TooSmall(prefix))
    } else {
        Ok(prefix.trunc())
    }
}

/// The address of a container of this peer.
#[must_use]
pub fn address_of(prefix: Ipv6Net, peer: PeerId, holder: &str) -> Ipv6Net {
    let mut hash = Blake2s::<U16>::new();
    hash.update(b"weft address 1");
    hash.update(peer.0);
    hash.update(holder.as_bytes());
    let hashed = u128::from_be_bytes(hash.finalize().into());
    let host_mask = u128::from(prefix.hostmask());
    // Neither the network's own address nor one that looks like an interface identifier made of a MAC.
    let host = (hashed & host_mask & !(0xff_fe << 24)).max(1);
    let address = Ipv6Addr::from(u128::from(prefix.network()) | host);
    Ipv6Net::new(address, prefix.prefix_len()).unwrap_or(Ipv6Net::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_and_differs_by_peer_and_container() {
        let prefix: Ipv6Net = "fd57:1::/64".parse().unwrap();
        let (a, b) = (PeerId([1; 16]), PeerId([2; 16]));

        let first = address_of(prefix, a, "c1");

        assert_eq!(first, address_of(prefix, a, "c1"));
        assert!(prefix.contains(&first.addr()) && first.prefix_len() == 64);
        assert_ne!(first, address_of(prefix, b, "c1"));
        assert_ne!(first, address_of(prefix, a, "c2"));
    }

    #[test]
    fn only_local_prefixes_with_room_are_taken() {
        for good in ["fd00::/64", "fc00:1::/48", "fd00::/80"] {
            assert!(check_prefix(good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in ["2001:db8::/64", "fe80::/64", "fd00::/96"] {
            assert!(check_prefix(bad.parse().unwrap()).is_err(), "{bad}");
        }
    }
}
