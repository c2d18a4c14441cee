//! Brings frames into a form in which equal means equal to a receiver.

use weft_engine::io::offload::{Headers, Splitter, VnetHeader, finish_checksum};
use weft_engine::wire::meta::Meta;

/// All frames of a super-frame, or `None` if it is refused.
pub fn split(vnet: &VnetHeader, frame: &[u8]) -> Option<Vec<(Meta, Vec<u8>)>> {
    let splitter = Splitter::new(vnet, frame).ok()?;
    let frames = (0..splitter.count()).map(|index| {
        let mut out = vec![0xee; splitter.len_of(index)];
        assert_eq!(splitter.write(index, &mut out), out.len());
        (splitter.meta(), out)
    });
    Some(frames.collect())
}

/// A partial frame with its checksum filled in, its padding cut off and, if it is an atomic IPv4 packet with a right
/// header checksum, without its identification. Others as they are.
pub fn levelled((meta, frame): &(Meta, Vec<u8>)) -> Vec<u8> {
    if !meta.is_partial() {
        return frame.clone();
    }
    let headers = Headers::parse(frame).expect("only TCP and UDP are partial");
    let mut frame = frame[..headers.end].to_vec();
    finish_checksum(&mut frame).expect("it has been parsed");
    let ip = headers.l3..headers.l4;
    if !headers.ipv6 && frame[headers.l3 + 6] & 0x40 != 0 && sum(&frame[ip.clone()]) == 0xffff {
        frame[headers.l3 + 4..headers.l3 + 6].fill(0);
        frame[headers.l3 + 10..headers.l3 + 12].fill(0);
        let checksum = !sum(&frame[ip]);
        frame[headers.l3 + 10..headers.l3 + 12].copy_from_slice(&checksum.to_be_bytes());
    }
    frame
}

fn sum(header: &[u8]) -> u16 {
    let total: u32 = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let total = (total & 0xffff) + (total >> 16);
    u16::try_from((total & 0xffff) + (total >> 16)).expect("folded twice")
}
