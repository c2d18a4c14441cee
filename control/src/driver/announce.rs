//! Tells the network who has an address: gratuitous ARP and unsolicited neighbour advertisements.
//!
//! ```text
//!  broadcast ◄ ARP request "who has A? tell A"                    (RFC 5227 §3, an ARP announcement)
//!  33:33:00:00:00:01 ◄ ICMPv6 136, override, target A, link layer  (RFC 4861 §7.2.6)
//! ```
//!
//! Whoever had the address elsewhere in a neighbour table, and every bridge on the way, learns the new place at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

/// Ethernet header 14, ARP for IPv4 28.
const ARP_LEN: usize = 42;
/// Ethernet header 14, IPv6 header 40, neighbour advertisement 24, target link-layer option 8.
const ADVERTISEMENT_LEN: usize = 86;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;

/// Sends one announcement for each address from interface `name` of the calling thread's namespace.
pub(super) fn announce(
    name: &str,
    mac: [u8; 6],
    addresses: impl Iterator<Item = IpAddr>,
) -> io::Result<()> {
    let interface = packet_address(name)?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    for ip in addresses {
        match ip {
            IpAddr::V4(ip) => send(&socket, &arp(mac, ip), &interface)?,
            IpAddr::V6(ip) => send(&socket, &advertisement(mac, ip), &interface)?,
        }
    }
    Ok(())
}

fn send(socket: &impl AsRawFd, frame: &[u8], interface: &LinkAddr) -> io::Result<()> {
    sendto(socket.as_raw_fd(), frame, interface, MsgFlags::empty())?;
    Ok(())
}

/// The packet socket address of an interface, which holds its index.
fn packet_address(name: &str) -> io::Result<LinkAddr> {
    getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn arp(mac: [u8; 6], ip: Ipv4Addr) -> [u8; ARP_LEN] {
    let mut frame = [0; ARP_LEN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    // EtherType ARP; Ethernet, IPv4, lengths 6 and 4, request.
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&ip.octets());
    frame[38..42].copy_from_slice(&ip.octets());
    frame
}

fn advertisement(mac: [u8; 6], ip: Ipv6Addr) -> [u8; ADVERTISEMENT_LEN] {
    let mut frame = [0; ADVERTISEMENT_LEN];
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&mac);
    // EtherType IPv6; version 6, payload length 32, ICMPv6, hop limit 255.
    frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    frame[22..38].copy_from_slice(&ip.octets());
    frame[38..54].copy_from_slice(&ALL_NODES.octets());
    // Type 136, override; the target; option 2 (target link-layer address), one unit of eight bytes.
    frame[54..62].copy_from_slice(&[136, 0, 0, 0, 0x20, 0, 0, 0]);
    frame[62..78].copy_from_slice(&ip.octets());
    frame[78..80].copy_from_slice(&[2, 1]);
    frame[80..86].copy_from_slice(&mac);
    let sum = checksum(&frame);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The checksum over addresses, length, next header and message (RFC 4443 §2.3).
fn checksum(frame: &[u8; ADVERTISEMENT_LEN]) -> u16 {
    let pseudo_header = [32, u32::from(ICMPV6)];
    let words = frame[22..]
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.chain(pseudo_header).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).map_or(0, |sum| !sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

    #[test]
    fn an_arp_announcement_asks_everybody_for_its_own_address() {
        let frame = arp(MAC, Ipv4Addr::new(10, 2, 1, 1));
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 0x08,
            0x06, // Ethernet
            0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, // Ethernet, IPv4, request
            0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 10, 2, 1, 1, // sender
            0, 0, 0, 0, 0, 0, 10, 2, 1, 1, // target
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn an_advertisement_sums_to_all_ones() {
        let frame = advertisement(MAC, "fd00::1".parse().unwrap());

        let pseudo_header = [32u32, 58];
        let words = frame[22..]
            .chunks_exact(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let mut sum: u32 = words.chain(pseudo_header).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff);
        assert_eq!(frame[54], 136);
        assert_eq!(
            &frame[62..78],
            &"fd00::1".parse::<Ipv6Addr>().unwrap().octets()
        );
        assert_eq!(&frame[80..], &MAC);
    }
}
