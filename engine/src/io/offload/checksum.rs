//! The Internet checksum (RFC 1071): whole, of a header in parts, and of what a partial one lacks.
//!
//! Sums are kept in the machine's byte order, for speed and because the sum does not care; [`fold`] turns the result round.

use super::field::{array, low32, put};
use super::headers::{Headers, NotTransport, Transport};

/// Adds up 16-bit words in the machine's order, the last odd byte padded with zero.
#[inline]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0_u64;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

/// Makes a number of the big-endian field `value` what [`sum`] would have added for it.
#[inline]
pub(super) const fn word(value: u16) -> u64 {
    value.to_be() as u64
}

/// Adds the carries up and returns the 16-bit sum as a big-endian number; not yet inverted.
#[inline]
pub(super) const fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    u16::from_be((total & 0xffff) as u16)
}

/// Sums the pseudo header of a packet whose transport header and payload are `transport_len` bytes.
#[inline]
pub(super) fn pseudo_header(frame: &[u8], headers: &Headers, transport_len: usize) -> u64 {
    let (addresses, addresses_len) = headers.addresses();
    let addresses = if addresses_len == 8 {
        sum(&array::<8>(frame, addresses).unwrap_or_default())
    } else {
        sum(&array::<32>(frame, addresses).unwrap_or_default())
    };
    addresses
        + word(u16::from(headers.transport.protocol()))
        + u64::from(low32(transport_len).to_be())
}

/// Computes and writes the transport checksum of a TCP segment or UDP datagram that was left partial.
///
/// For hosts where the partial checksum cannot be handed on. What the field holds before does not matter.
///
/// # Errors
/// [`NotTransport`] if the frame is not a whole TCP segment or UDP datagram; it is then unchanged.
pub fn finish_checksum(frame: &mut [u8]) -> Result<(), NotTransport> {
    let headers = Headers::parse(frame)?;
    finish(frame, &headers);
    Ok(())
}

/// As [`finish_checksum`], with the headers already found.
pub(super) fn finish(frame: &mut [u8], headers: &Headers) {
    put(frame, headers.checksum_at(), [0, 0]);
    let transport = frame.get(headers.l4..headers.end).unwrap_or_default();
    let total = pseudo_header(frame, headers, transport.len()) + sum(transport);
    let checksum = match (!fold(total), headers.transport) {
        // RFC 768: zero would mean "no checksum".
        (0, Transport::Udp) => 0xffff,
        (checksum, _) => checksum,
    };
    put(frame, headers.checksum_at(), checksum.to_be_bytes());
}

/// Does what a kernel does with a checksum of any protocol left partial: the field holds the pseudo header's sum.
///
/// `start` and `at` lie within the frame.
pub(super) fn finish_anywhere(frame: &mut [u8], start: usize, at: usize) {
    let checksum = match !fold(sum(frame.get(start..).unwrap_or_default())) {
        // Right for UDP, and the same number to every other protocol.
        0 => 0xffff_u16,
        checksum => checksum,
    };
    put(frame, at, checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 as written: big-endian words, one by one.
    fn plain(bytes: &[u8]) -> u16 {
        let mut total = 0_u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        assert_eq!(
            fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
    }

    #[test]
    fn known_frames_get_their_known_checksums() {
        // A UDP datagram "hi" 10.0.0.1:1234 -> 10.0.0.2:53 and a TCP SYN, both summed by hand.
        let mut udp = [&[0_u8; 12][..], &[8, 0]].concat();
        udp.extend([
            0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        udp.extend([0x04, 0xd2, 0, 53, 0, 10, 0xab, 0xcd, b'h', b'i']);
        // 0a00+0001+0a00+0002 + 0011 + 000a + 04d2+0035+000a + 6869 = 8198, inverted 7e67.
        finish_checksum(&mut udp).unwrap();
        assert_eq!(udp[40..42], [0x7e, 0x67]);

        let mut tcp = [&[0_u8; 12][..], &[8, 0]].concat();
        tcp.extend([
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 168, 0, 1, 192, 168, 0, 2,
        ]);
        tcp.extend([
            0, 80, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
        ]);
        // c0a8+0001+c0a8+0002 + 0006 + 0014 + 0050+1f90+0000+0001+5002+ffff = 2f14f, folded f151, inverted 0eae.
        finish_checksum(&mut tcp).unwrap();
        assert_eq!(tcp[50..52], [0x0e, 0xae]);
    }

    #[test]
    fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
        let mut udp = [&[0_u8; 12][..], &[8, 0]].concat();
        udp.extend([
            0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        // As above, but with a payload that brings the sum to ffff.
        udp.extend([0x04, 0xd2, 0, 53, 0, 10, 0, 0, 0xe6, 0xd0]);
        finish_checksum(&mut udp).unwrap();
        assert_eq!(udp[40..42], [0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn the_fast_sum_agrees_with_the_plain_one(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let fast = fold(sum(&bytes));
            prop_assert_eq!(fast, plain(&bytes));
        }

        #[test]
        fn a_word_counts_as_its_two_bytes(value: u16) {
            prop_assert_eq!(word(value), sum(&value.to_be_bytes()));
        }
    }
}
