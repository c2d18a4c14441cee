//! Where the body of a message ends: by length, by chunks, or with the connection (RFC 9112 section 6).
//!
//! ```text
//!  chunked:  size[;extension] CRLF data CRLF … 0 CRLF [trailer CRLF]… CRLF
//! ```
//!
//! Stricter than needed to read it: what two readers could take for two things is an error.

/// Most digits of a chunk's size: 2^60 bytes is no chunk.
const SIZE_DIGITS_MAX: u32 = 15;
/// Longest chunk extension, and longest trailer: nobody sends any.
const LINE_LEN_MAX: u32 = 16 * 1024;

/// Why a body cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Where a chunk's size should be.
    #[error("a chunk of the body has no proper size")]
    BadSize,
    /// No line end where one has to be.
    #[error("a chunk of the body does not end where it says")]
    BadEnd,
    /// An endless extension or trailer.
    #[error("a chunk's extension or a trailer is too long")]
    TooLong,
}

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Everything until the connection ends.
    UntilClose,
}

/// A place in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks(Place);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Size { value: u64, digits: u32 },
    Extension { value: u64, len: u32 },
    SizeLineFeed { value: u64 },
    Data { left: u64 },
    DataReturn,
    DataLineFeed,
    Trailer { len: u32, is_empty: bool },
    TrailerLineFeed { len: u32, is_last: bool },
    End,
}

impl Body {
    /// No body.
    pub const NONE: Self = Self::Length(0);

    /// A chunked body's beginning.
    #[must_use]
    pub fn chunked() -> Self {
        Self::Chunked(Chunks(Place::Size {
            value: 0,
            digits: 0,
        }))
    }

    /// True if nothing is to come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.0 == Place::End,
            Self::UntilClose => false,
        }
    }

    /// How many bytes of data come next, before anything else: at least so many, or 0 if that is not known yet.
    #[must_use]
    pub fn data_ahead(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::UntilClose => u64::MAX,
            Self::Chunked(Chunks(Place::Data { left })) => *left,
            Self::Chunked(_) => 0,
        }
    }

    /// Follows the body past `len` bytes of that data.
    pub fn skip_data(&mut self, len: u64) {
        match self {
            Self::Length(left) => *left = left.saturating_sub(len),
            Self::Chunked(chunks) => chunks.skip(len),
            Self::UntilClose => {}
        }
    }

    /// Follows the body through `bytes`, hands its data to `data`, and returns how many of the bytes belong to it.
    ///
    /// # Errors
    /// [`BodyError`]; nothing more can be said about the rest of the connection then.
    pub fn advance(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, BodyError> {
        match self {
            Self::Length(left) => {
                let taken = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                data(&bytes[..taken]);
                *left -= taken as u64;
                Ok(taken)
            }
            Self::UntilClose => {
                data(bytes);
                Ok(bytes.len())
            }
            Self::Chunked(chunks) => chunks.advance(bytes, data),
        }
    }
}

impl Chunks {
    fn advance(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, BodyError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.0 == Place::End {
                break;
            }
            let Place::Data { left } = self.0 else {
                self.0 = self.0.after(byte)?;
                at += 1;
                continue;
            };
            let rest = &bytes[at..];
            let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            data(&rest[..taken]);
            at += taken;
            self.skip(taken as u64);
        }
        Ok(at)
    }

    fn skip(&mut self, len: u64) {
        if let Place::Data { left } = self.0 {
            self.0 = match left.saturating_sub(len) {
                0 => Place::DataReturn,
                left => Place::Data { left },
            };
        }
    }
}

impl Place {
    /// The place after one byte that is no data.
    fn after(self, byte: u8) -> Result<Self, BodyError> {
        let longer = |len: u32| {
            if len < LINE_LEN_MAX {
                Ok(len + 1)
            } else {
                Err(BodyError::TooLong)
            }
        };
        Ok(match (self, byte) {
            (Self::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(BodyError::BadSize);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size {
                    value: value << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (Self::Size { digits: 0, .. }, _) => return Err(BodyError::BadSize),
            (Self::Size { value, .. } | Self::Extension { value, .. }, b'\r') => {
                Self::SizeLineFeed { value }
            }
            (Self::Size { value, .. }, b';') => Self::Extension { value, len: 0 },
            (Self::Size { .. }, _) | (Self::Extension { .. }, b'\n') => {
                return Err(BodyError::BadSize);
            }
            (Self::Extension { value, len }, _) => Self::Extension {
                value,
                len: longer(len)?,
            },
            (Self::SizeLineFeed { value: 0 }, b'\n') => Self::Trailer {
                len: 0,
                is_empty: true,
            },
            (Self::SizeLineFeed { value }, b'\n') => Self::Data { left: value },
            (Self::DataReturn, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::Size {
                value: 0,
                digits: 0,
            },
            (Self::Trailer { len, is_empty }, b'\r') => Self::TrailerLineFeed {
                len,
                is_last: is_empty,
            },
            (Self::Trailer { .. }, b'\n') => return Err(BodyError::BadEnd),
            (Self::Trailer { len, .. }, _) => Self::Trailer {
                len: longer(len)?,
                is_empty: false,
            },
            (Self::TrailerLineFeed { is_last: true, .. }, b'\n') => Self::End,
            (Self::TrailerLineFeed { len, .. }, b'\n') => Self::Trailer {
                len,
                is_empty: true,
            },
            (
                Self::SizeLineFeed { .. }
                | Self::DataReturn
                | Self::DataLineFeed
                | Self::TrailerLineFeed { .. }
                | Self::Data { .. }
                | Self::End,
                _,
            ) => return Err(BodyError::BadEnd),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(mut body: Body, bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize), BodyError> {
        let mut data = Vec::new();
        let mut at = 0;
        while at < bytes.len() && !body.is_done() {
            let end = bytes.len().min(at + step);
            at += body.advance(&bytes[at..end], |part| data.extend_from_slice(part))?;
        }
        assert!(body.is_done() || body == Body::UntilClose, "not whole");
        Ok((data, at))
    }

    #[test]
    fn a_body_ends_where_its_length_or_its_chunks_say_however_it_arrives() {
        let chunked = b"5\r\nhello\r\n00a;x=\"y\"\r\n, world.\r\n\r\n0\r\nX-A: b\r\n\r\nGET /";
        for step in 1..chunked.len() {
            let (data, len) = whole(Body::chunked(), chunked, step).unwrap();
            assert_eq!(data, b"hello, world.\r\n", "{step}");
            assert_eq!(&chunked[len..], b"GET /", "{step}");
        }
        let (data, len) = whole(Body::Length(3), b"abcdef", 2).unwrap();
        assert_eq!((data.as_slice(), len), (&b"abc"[..], 3));
        assert_eq!(whole(Body::NONE, b"abc", 1).unwrap().1, 0);
        assert_eq!(whole(Body::UntilClose, b"abc", 2).unwrap().1, 3);
    }

    #[test]
    fn data_can_be_passed_over_unseen() {
        let mut body = Body::chunked();
        assert_eq!(body.data_ahead(), 0);
        assert_eq!(body.advance(b"5\r\nh", |_| ()), Ok(4));
        assert_eq!(body.data_ahead(), 4);
        body.skip_data(3);
        assert_eq!(body.data_ahead(), 1);
        body.skip_data(1);
        assert_eq!((body.data_ahead(), body.is_done()), (0, false));
        body.skip_data(9);
        assert_eq!(body.advance(b"\r\n0\r\n\r\nGET /", |_| ()), Ok(7));
        assert!(body.is_done());
        let mut body = Body::Length(3);
        body.skip_data(body.data_ahead());
        assert!(body.is_done());
        let mut body = Body::UntilClose;
        body.skip_data(7);
        assert_eq!((body.data_ahead(), body.is_done()), (u64::MAX, false));
    }

    #[test]
    fn chunks_that_could_be_read_in_two_ways_are_errors() {
        for (bytes, error) in [
            (&b"\r\n"[..], BodyError::BadSize),
            (b" 5\r\n", BodyError::BadSize),
            (b"5 \r\n", BodyError::BadSize),
            (b"+5\r\n", BodyError::BadSize),
            (b"0x5\r\n", BodyError::BadSize),
            (b"5\nhello", BodyError::BadSize),
            (b"1000000000000000\r\n", BodyError::BadSize),
            (b"5;a\nb\r\n", BodyError::BadSize),
            (b"5\rhello", BodyError::BadEnd),
            (b"5\r\nhello!\r\n", BodyError::BadEnd),
            (b"5\r\nhello\n", BodyError::BadEnd),
            (b"0\r\nA: b\n", BodyError::BadEnd),
        ] {
            let mut body = Body::chunked();
            assert_eq!(body.advance(bytes, |_| ()), Err(error), "{bytes:?}");
        }
        let endless = [&b"0\r\n"[..], &b"A: b\r\n".repeat(8192)].concat();
        assert_eq!(
            Body::chunked().advance(&endless, |_| ()),
            Err(BodyError::TooLong)
        );
    }
}
