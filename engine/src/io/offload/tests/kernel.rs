//! What a kernel does with a super-frame, written from the RFCs and independent of the code under test.

use crate::io::offload::VnetHeader;

/// RFC 1071, word by word; not inverted.
pub(super) fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
            total = (total & 0xffff) + (total >> 16);
        }
    }
    u16::try_from(total).unwrap()
}

fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

fn put16(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&u16::try_from(value).unwrap().to_be_bytes());
}

/// The start of the IP header.
pub(super) fn l3_of(frame: &[u8]) -> usize {
    let mut l3 = 14;
    while matches!(be16(frame, l3 - 2), 0x8100 | 0x88a8) {
        l3 += 4;
    }
    l3
}

pub(super) fn is_ipv4(frame: &[u8]) -> bool {
    be16(frame, l3_of(frame) - 2) == 0x0800
}

fn ip_end(frame: &[u8]) -> usize {
    let l3 = l3_of(frame);
    if is_ipv4(frame) {
        l3 + be16(frame, l3 + 2)
    } else {
        l3 + 40 + be16(frame, l3 + 4)
    }
}

pub(super) fn pseudo(frame: &[u8], protocol: u8, transport_len: usize) -> u16 {
    let l3 = l3_of(frame);
    let addresses = if is_ipv4(frame) {
        &frame[l3 + 12..l3 + 20]
    } else {
        &frame[l3 + 8..l3 + 40]
    };
    let len = u32::try_from(transport_len).unwrap().to_be_bytes();
    sum(&[addresses, &[0, protocol], &len])
}

/// Checks what a kernel checks of a written frame, and returns the frames that would go out on a wire: cut to
/// `gso_size`, all checksums filled in.
pub(super) fn wire_frames(vnet: VnetHeader, frame: &[u8]) -> Vec<Vec<u8>> {
    if vnet == VnetHeader::default() {
        return vec![frame.to_vec()];
    }
    assert_eq!(vnet.flags, VnetHeader::NEEDS_CSUM);
    let l4 = usize::from(vnet.csum_start);
    let checksum_at = l4 + usize::from(vnet.csum_offset);
    let protocol = if vnet.csum_offset == 16 { 6 } else { 17 };
    let payload = if protocol == 6 {
        l4 + usize::from(frame[l4 + 12] >> 4) * 4
    } else {
        l4 + 8
    };
    assert_eq!(
        ip_end(frame),
        frame.len(),
        "the IP length is that of the frame"
    );
    assert_eq!(usize::from(vnet.hdr_len), payload);
    assert_eq!(
        be16(frame, checksum_at),
        usize::from(pseudo(frame, protocol, frame.len() - l4)),
        "the checksum field holds the sum of the pseudo header"
    );
    if vnet.gso_type == VnetHeader::GSO_NONE {
        assert_eq!(vnet.gso_size, 0);
        return vec![one(frame, l4, payload, protocol, 0, 1, 0)];
    }

    let size = usize::from(vnet.gso_size);
    let kind = match (protocol, is_ipv4(frame)) {
        (6, true) => VnetHeader::GSO_TCPV4,
        (6, false) => VnetHeader::GSO_TCPV6,
        _ => VnetHeader::GSO_UDP_L4,
    };
    assert_eq!(vnet.gso_type & !VnetHeader::GSO_ECN, kind);
    assert!(
        frame.len() - payload > size,
        "a super-frame has more than one segment"
    );
    assert!(frame.len() - l3_of(frame) <= 65_535);
    let count = (frame.len() - payload).div_ceil(size);
    (0..count)
        .map(|index| {
            let from = payload + index * size;
            let body = &frame[from..frame.len().min(from + size)];
            one(
                &[&frame[..payload], body].concat(),
                l4,
                payload,
                protocol,
                index,
                count,
                index * size,
            )
        })
        .collect()
}

/// Rewrites segment `index` of `count`, which starts `offset` payload bytes into the super-frame.
fn one(
    segment: &[u8],
    l4: usize,
    payload: usize,
    protocol: u8,
    index: usize,
    count: usize,
    offset: usize,
) -> Vec<u8> {
    let mut frame = segment.to_vec();
    let (l3, len) = (l3_of(&frame), frame.len());
    if is_ipv4(&frame) {
        put16(&mut frame, l3 + 2, len - l3);
        let id = (be16(&frame, l3 + 4) + index) & 0xffff;
        put16(&mut frame, l3 + 4, id);
        put16(&mut frame, l3 + 10, 0);
        let checksum = !sum(&[&frame[l3..l4.min(l3 + usize::from(frame[l3] & 15) * 4)]]);
        put16(&mut frame, l3 + 10, usize::from(checksum));
    } else {
        put16(&mut frame, l3 + 4, len - l3 - 40);
    }
    if protocol == 6 {
        let sequence = u32::from_be_bytes(frame[l4 + 4..l4 + 8].try_into().unwrap());
        let sequence = sequence.wrapping_add(u32::try_from(offset).unwrap());
        frame[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
        if index > 0 {
            frame[l4 + 13] &= !0x80;
        }
        if index + 1 < count {
            frame[l4 + 13] &= !0x09;
        }
    } else {
        put16(&mut frame, l4 + 4, len - payload + 8);
    }
    complete(&mut frame, l4, protocol);
    frame
}

/// Fills the transport checksum in.
fn complete(frame: &mut [u8], l4: usize, protocol: u8) {
    let at = l4 + if protocol == 6 { 16 } else { 6 };
    put16(frame, at, 0);
    let pseudo = pseudo(frame, protocol, frame.len() - l4).to_be_bytes();
    let checksum = match !sum(&[&pseudo, &frame[l4..]]) {
        0 if protocol == 17 => 0xffff,
        checksum => checksum,
    };
    put16(frame, at, usize::from(checksum));
}

/// Sets what does not count out of the comparison: the identification of an IPv4 packet that has DF set (RFC 6864).
pub(super) fn without_atomic_id(mut frame: Vec<u8>) -> Vec<u8> {
    let l3 = l3_of(&frame);
    if is_ipv4(&frame) && be16(&frame, l3 + 6) & 0x4000 != 0 {
        put16(&mut frame, l3 + 4, 0);
        put16(&mut frame, l3 + 10, 0);
        let header_len = usize::from(frame[l3] & 15) * 4;
        let checksum = !sum(&[&frame[l3..l3 + header_len]]);
        put16(&mut frame, l3 + 10, usize::from(checksum));
    }
    frame
}

/// Cuts the padding off, if there is any.
pub(super) fn without_padding(frame: &[u8]) -> Vec<u8> {
    frame[..ip_end(frame)].to_vec()
}
