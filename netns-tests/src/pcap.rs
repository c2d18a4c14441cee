//! Reads the classic capture format, as `tcpdump -w` writes it, from a stream.
//!
//! ```text
//!  file:   magic(4) version(4) zone(4) accuracy(4) snap length(4) link type(4), then records
//!  record: seconds(4) fraction(4) captured length(4) original length(4) bytes…
//! ```

use std::io::{self, Read};

/// Microsecond and nanosecond captures, in this machine's byte order.
const MAGICS: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];
/// Link type of Ethernet frames.
const LINK_ETHERNET: u32 = 1;
/// A frame that claims more is no frame: the largest super-frame is 64 KiB and some headers.
const FRAME_LEN_MAX: u32 = 256 * 1024;

/// Ethernet frames from a capture stream, as long as it lasts.
#[derive(Debug)]
pub struct PcapReader<R> {
    stream: R,
}

impl<R: Read> PcapReader<R> {
    /// Reads the file header.
    ///
    /// # Errors
    ///
    /// If it is no capture of Ethernet frames made on a machine of this byte order.
    pub fn new(mut stream: R) -> io::Result<Self> {
        let mut header = [0; 24];
        stream.read_exact(&mut header)?;
        if !MAGICS.contains(&word(&header, 0)) || word(&header, 20) != LINK_ETHERNET {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a capture of Ethernet frames",
            ));
        }
        Ok(Self { stream })
    }

    fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header)?;
        let len = word(&header, 8);
        if len > FRAME_LEN_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a captured frame is too long",
            ));
        }
        let mut frame = vec![0; usize::try_from(len).unwrap_or(0)];
        self.stream.read_exact(&mut frame)?;
        Ok(frame)
    }
}

impl<R: Read> Iterator for PcapReader<R> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.read_frame().ok()
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(frames: &[&[u8]]) -> Vec<u8> {
        let words = |words: &[u32]| {
            words
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect::<Vec<u8>>()
        };
        let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1]);
        for frame in frames {
            let len = u32::try_from(frame.len()).unwrap();
            bytes.extend(words(&[1, 2, len, len]));
            bytes.extend(*frame);
        }
        bytes
    }

    #[test]
    fn frames_come_out_as_they_went_in_and_a_cut_off_one_not_at_all() {
        let mut bytes = capture(&[b"first", b"second", b"third"]);
        bytes.pop();

        let frames: Vec<Vec<u8>> = PcapReader::new(bytes.as_slice()).unwrap().collect();

        assert_eq!(frames, [b"first".to_vec(), b"second".to_vec()]);
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        assert!(PcapReader::new([7; 100].as_slice()).is_err());
    }
}
